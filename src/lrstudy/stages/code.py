"""Write down the code behind a stage: python -m lrstudy.stages.code STAGE.

Cells depend on this one file instead of on twenty modules each: DVC reads and writes all of dvc.lock after
every stage, and most of it was these entries.
"""

import hashlib
import sys
from pathlib import Path

import yaml

from lrstudy.errors import unknown
from lrstudy.files import write_json
from lrstudy.stages import run_stage


def main() -> None:
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    known = [name.removeprefix("code_") for name in stages if name.startswith("code_")]
    stage = sys.argv[1] if len(sys.argv) == 2 else ""
    if stage not in known:
        raise unknown("stage", stage, known, "a stage whose code is written down")
    itself = "src/lrstudy/stages/code.py"  # no part of what the stage computes
    files = sorted(dep for dep in stages[f"code_{stage}"]["deps"] if dep.endswith(".py") and dep != itself)
    hashes = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
    write_json(f"artifacts/code/{stage}.json", hashes)


if __name__ == "__main__":
    run_stage(main)
