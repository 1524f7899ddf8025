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


def read_split(folder: Path | str, split: str, share: float = 1.0) -> dict[str, np.ndarray]:
    """The tensors of one split by name, as ``preprocess`` describes them, or ``share`` of its examples.

    Raises StudyError when the folder or the split is missing or not readable.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if split not in SPLITS:
        raise unknown(str(folder), split, SPLITS, "a split")
    read_meta(folder)
    path = Path(folder) / f"{split}.safetensors"
    try:
        return take_share(load_file(path), share)
    except (OSError, SafetensorError) as error:
        raise StudyError(
            f"{path}: not there or not readable ({error}); run `dvc repro preprocess@{path.parent.name}`."
        ) from error


def take_share(arrays: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """The first ``share`` (0 to 1) of every class in a fixed random order, at least one example of each.

    A smaller share's examples are among a larger one's, and classes keep their proportions.
    """
    if share == 1:
        return arrays
    labels = arrays["labels"]
    generator = np.random.default_rng(0)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(share * len(members)))])
    rows = np.sort(np.concatenate(chosen))
    if "images" in arrays:
        return {"images": arrays["images"][rows], "labels": labels[rows]}
    starts, lengths = arrays["offsets"][rows], np.diff(arrays["offsets"])[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(arrays["offsets"].dtype)
    tokens = np.concatenate([arrays["tokens"][a : a + n] for a, n in zip(starts, lengths, strict=True)])
    return {"tokens": tokens, "offsets": offsets, "labels": labels[rows]}
