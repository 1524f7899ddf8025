"""The processed data sets as training reads them: three splits of tensors and their ``meta.json``.

:mod:`lrstudy.data.sources` brings the raw data and :mod:`lrstudy.data.preprocessing` makes these files. They
stand apart so that an edit of theirs makes no training stale.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.errors import StudyError, unknown

SPLITS = ("train", "validation", "test")


def read_meta(folder: Path | str) -> dict[str, Any]:
    """``meta.json`` of a processed dataset.

    Raises StudyError when the folder is missing or incomplete, or the file is not what ``preprocess`` writes.
    """
    path = Path(folder) / "meta.json"
    try:
        meta = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not (
        isinstance(meta, dict)
        and meta.get("kind") in ("image", "text")
        and type(meta.get("num_classes")) is int
        and isinstance(meta.get("fingerprint"), str)
        and (meta["kind"] == "text" or _is_shape(meta.get("image_size"), meta.get("in_channels")))
    ):
        raise _unreadable(path, "not what preprocess writes")
    return meta


def read_split(folder: Path | str, split: str) -> dict[str, np.ndarray]:
    """The tensors of one split by name, as ``preprocess`` describes them.

    Raises StudyError when the folder or the split is missing or not readable, or the tensors don't fit each
    other and ``meta.json``: a training would read beyond their ends.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if split not in SPLITS:
        raise unknown(str(folder), split, SPLITS, "a split")
    meta = read_meta(folder)
    path = Path(folder) / f"{split}.safetensors"
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    if problem := _misfit(arrays, meta):
        raise _unreadable(path, problem)
    return arrays


def _misfit(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> str | None:
    """What is wrong with a split's tensors, or None."""
    count = len(arrays["labels"]) if arrays.get("labels", np.empty(())).ndim else 0
    shapes: dict[str, tuple[type[np.integer], tuple[int, ...]]] = {
        "labels": (np.int64, (count,)),
        "index": (np.int64, (count,)),
    }
    if meta["kind"] == "image":
        shapes["images"] = (np.uint8, (count, *meta["image_size"], meta["in_channels"]))
    else:
        total = arrays.get("tokens", np.empty(())).size
        shapes |= {"tokens": (np.int32, (total,)), "offsets": (np.int64, (count + 1,))}
    for name, (dtype, shape) in shapes.items():
        found = arrays.get(name)
        if found is None or found.dtype != dtype or found.shape != shape:
            what = "no" if found is None else f"{found.dtype} {found.shape}"
            return f"{what} {name}, expected {np.dtype(dtype)} {shape}"
    if count == 0:
        return "no examples"
    if arrays["labels"].min() < 0 or arrays["labels"].max() >= meta["num_classes"]:
        return f"labels are not all of 0 to {meta['num_classes'] - 1}"
    if meta["kind"] == "text":
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 1).any():
            return "offsets do not cut the tokens into texts"
        if tokens.min() < 0 or tokens.max() >= meta.get("vocab_size", 0):
            return f"tokens are not all of the vocabulary of {meta.get('vocab_size')}"
    return None


def _is_shape(size: object, channels: object) -> bool:
    """Whether these are the height and width and the channels of images."""
    return isinstance(size, list) and [type(n) for n in (*size, channels)] == [int, int, int]


def _unreadable(path: Path, why: object) -> StudyError:
    return StudyError(
        f"{path}: not there or not readable ({why}); run `dvc repro preprocess@{path.parent.name}`."
    )
