"""Descriptions of data sets: those that conf/dataset has, and the layout of tiny raw files."""

from pathlib import Path

import yaml

from lrstudy.data import raw
from lrstudy.recipe.dataset import Columns, Dataset, Layout

FOLDER = Path(__file__).parents[1] / "conf/dataset"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shipped(name: str, **changes) -> Dataset:
    """What the conf file of a data set says."""
    return Dataset.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) | changes)


def read_rows(path: Path, kind: str, num_classes: int, rows: int, where: str = ""):
    """A raw split with the hub's columns, balanced, of images of 32x32 in colour or of texts."""
    image = kind == "image"
    layout = Layout(
        kind=kind,
        columns=Columns(input="img" if image else "text", label="label"),
        class_names=[f"class {number}" for number in range(num_classes)],
        image_size=[32, 32] if image else None,
        channels=3 if image else None,
        balanced=True,
    )
    return raw.read_rows(path, layout, rows, where)
