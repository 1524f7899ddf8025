"""params.yaml as conf/ composes it, whatever an experiment left in the folder."""

import copy
import functools
import tempfile
from pathlib import Path

import yaml

from lrstudy.compose import compose

ROOT = Path(__file__).parents[1]


def composed_params(*overrides: str) -> dict:
    """The content of params.yaml for `dvc exp run -S ...` with these overrides; each caller has its own."""
    return copy.deepcopy(_composed(*overrides))


def conf_names(group: str) -> list[str]:
    """The files of a group of conf/."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def conf_section(group: str, name: str) -> dict:
    """What one file of conf/ says, with those that it is based on."""
    if group in ("schedule", "model"):
        return composed_params(f"{group}=[{','.join(conf_names(group))}]")[group][name]
    return composed_params("model=resnet", "schedule=static", f"{group}={name}")[group]


@functools.cache  # Hydra takes a quarter of a second, and reading YAML half as long
def _composed(*overrides: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose(ROOT, path, list(overrides))
        return yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
