"""Compose params.yaml from conf/ as DVC does, without running: python -m lrstudy.compose [OVERRIDE ...].

Overrides are those of ``dvc exp run -S``: ``data=sample preset=quick``.
"""

import argparse
import tempfile
from pathlib import Path

from lrstudy.errors import StudyError, unknown
from lrstudy.files import write_atomically
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params

_HEADER = """\
# Composed from conf/ by `make params`. `dvc exp run` composes it anew and drops what was edited here by hand:
# change conf/, or pass -S. `dvc repro` takes the file as it is.
"""


def compose(root: Path, target: Path, overrides: list[str]) -> None:
    """Write ``target`` from ``root``/conf with Hydra overrides, if what it would say is allowed.

    Raises:
        StudyError: a choice, a file of conf/ or a value is refused; ``target`` is as it was.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    with tempfile.TemporaryDirectory() as folder:
        composed = Path(folder) / "params.yaml"
        try:
            compose_and_dump(composed, str(root / "conf"), None, "config", str(root), overrides)
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            raise _refused(error, overrides) from None
        params = load_params(composed, where=target.name)
        for cell in params.cells.values():
            make_cell(params, cell.model, cell.schedule)
        write_atomically(target, _HEADER + composed.read_text("utf-8"))


def _refused(error: Exception, overrides: list[str]) -> StudyError:
    """What Hydra, OmegaConf or hydra_plugins/ refused, in one line."""
    cause = error.__cause__
    section, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
    if section and key is not None:
        where = str(cause.full_key).rpartition(".")[0]  # type: ignore[union-attr]  # it has a parent_node
        meant = unknown(f"-S {where}", key, section, "a known key")
        return StudyError(f"{meant} To add one that conf/ has not, write + before it.")
    said = " ".join(str(error).split())
    own = type(error).__module__.startswith("hydra_plugins.")
    return StudyError(said if own else f"{' '.join(overrides) or 'conf/'}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.compose", description=__doc__)
    parser.add_argument("override", nargs="*", help="as for dvc exp run -S, e.g. preset=quick")
    root = Path.cwd()
    compose(root, root / "params.yaml", parser.parse_args().override)


if __name__ == "__main__":
    from lrstudy.process.command import run_stage

    run_stage(main)
