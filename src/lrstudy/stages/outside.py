"""Write down that another package's source changed: python -m lrstudy.stages.outside PACKAGE.

A stage's dependencies cannot be a list of any length, so ``code`` depends on the folder of these files, and
each on a package of the repository whose code conf/ names. What the changes mean is ``code``'s to find out.
"""

import argparse
import hashlib
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.process.command import run_stage

FOLDER = Path("artifacts/outside")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.stages.outside", description=__doc__)
    parser.add_argument("package", help="a folder or module.py in the repository's root")
    package = Path(parser.parse_args().package)
    if not package.exists():
        raise StudyError(f"{package}: not found in {Path.cwd()}; conf/ names code of it.")
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package]
    hashes = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    write_json(FOLDER / f"{package}.json", hashes)


if __name__ == "__main__":
    run_stage(main)
