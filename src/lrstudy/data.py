"""The processed data sets as training reads them: three splits of tensors and their ``meta.json``.

:mod:`lrstudy.sources` brings the raw data and :mod:`lrstudy.preprocessing` makes these files. They stand
apart so that an edit of theirs makes no training stale.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.errors import StudyError, unknown

DATASETS = ("cifar10", "imdb")
SPLITS = ("train", "validation", "test")


def read_meta(folder: Path | str) -> dict[str, Any]:
    """``meta.json`` of a processed dataset. Raises StudyError when the folder is missing or incomplete."""
    path = Path(folder) / "meta.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{path}: not there or not readable ({error}); run `dvc repro preprocess@{path.parent.name}`."
        ) from error


def read_split(folder: Path | str, split: str) -> dict[str, np.ndarray]:
    """The tensors of one split by name, as ``preprocess`` describes them.

    Raises StudyError when the folder or the split is missing or not readable.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if split not in SPLITS:
        raise unknown(str(folder), split, SPLITS, "a split")
    read_meta(folder)
    path = Path(folder) / f"{split}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(
            f"{path}: not there or not readable ({error}); run `dvc repro preprocess@{path.parent.name}`."
        ) from error
