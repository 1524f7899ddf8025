"""Compose params.yaml from conf/ as DVC does, without running: python -m lrstudy.compose [OVERRIDE ...].

Overrides are those of ``dvc exp run -S``: ``data=sample preset=quick``.
"""

import argparse
import sys
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.recipe.config import load_params

_HEADER = """\
# Composed from conf/ by `make params`. `dvc exp run` composes it anew and drops what was edited here by hand:
# change conf/, or pass -S. `dvc repro` takes the file as it is.
"""


def compose(root: Path, target: Path, overrides: list[str]) -> None:
    """Write ``target`` from ``root``/conf with Hydra overrides, then check it."""
    from dvc.utils.hydra import compose_and_dump

    compose_and_dump(target, str(root / "conf"), None, "config", str(root), overrides)
    target.write_text(_HEADER + target.read_text())
    load_params(target)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.compose", description=__doc__)
    parser.add_argument("override", nargs="*", help="as for dvc exp run -S, e.g. preset=quick")
    root = Path.cwd()
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        compose(root, root / "params.yaml", parser.parse_args().override)
    except StudyError:
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    from lrstudy.process.command import run_stage

    run_stage(main)
