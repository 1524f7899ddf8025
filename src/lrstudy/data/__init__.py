"""The processed data sets as training reads them: three splits of tensors and their ``meta.json``.

:mod:`lrstudy.data.sources` brings the raw data and :mod:`lrstudy.data.preprocessing` makes these files. They
stand apart so that an edit of theirs makes no training stale.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.checked import read_tensors, refused
from lrstudy.data.records import DataMeta
from lrstudy.errors import unknown

SPLITS = ("train", "validation", "test")


def read_meta(folder: Path | str) -> dict[str, Any]:
    """``meta.json`` of a processed dataset, :class:`lrstudy.data.records.DataMeta`, as plain values.

    Raises StudyError when the folder is missing or incomplete, or the file is not what ``preprocess`` writes.
    """
    folder = Path(folder)
    return DataMeta.read(folder / "meta.json", f"preprocess@{folder.name}").model_dump(exclude_unset=True)


def read_split(folder: Path | str, split: str) -> dict[str, np.ndarray]:
    """The tensors of one split by name, as ``preprocess`` describes them.

    Raises StudyError when the folder or the split is missing or not readable, or the tensors don't fit each
    other and ``meta.json``: a training would read beyond their ends.
    """
    if split not in SPLITS:
        raise unknown(str(folder), split, SPLITS, "a split")
    meta = read_meta(folder)
    path = Path(folder) / f"{split}.safetensors"
    stage = f"preprocess@{path.parent.name}"
    arrays = read_tensors(path, stage)
    if problem := _misfit(arrays, meta):
        raise refused(path, stage, problem)
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
        array = arrays.get(name)
        if array is None or array.dtype != dtype or array.shape != shape:
            what = "no" if array is None else f"{array.dtype} {array.shape}"
            return f"{what} {name}, expected {np.dtype(dtype)} {shape}"
    if count == 0:
        return "no examples"
    if arrays["labels"].min() < 0 or arrays["labels"].max() >= meta["num_classes"]:
        return f"labels are not all of 0 to {meta['num_classes'] - 1}"
    if meta["kind"] == "text":
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 1).any():
            return "offsets do not cut the tokens into texts"
        if tokens.min() < 0 or tokens.max() >= meta["vocab_size"]:
            return f"tokens are not all of the vocabulary of {meta['vocab_size']}"
    return None
