"""Tiny data sets that can be learned, in the form in which preprocessing leaves them, and settings to train on."""

import copy
from pathlib import Path

import numpy as np

SIZES = {"train": 70, "validation": 30, "test": 20}  # 70 is no multiple of the batch size below
VOCAB_SIZE, MAX_LENGTH = 30, 24

MODELS = {
    "resnet": {"architecture": "resnet", "depth": 8, "width": 8},
    "lstm": {
        "architecture": "lstm",
        "embedding_size": 8,
        "hidden_size": 8,
        "num_layers": 2,
        "dropout": 0.3,
    },
    "transformer": {
        "architecture": "transformer",
        "embedding_size": 8,
        "num_heads": 2,
        "num_layers": 1,
        "feedforward_size": 16,
        "dropout": 0.3,
    },
}


def image_arrays(count: int, num_classes: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise whose brightness grows with the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    images = rng.integers(0, 120, (count, 32, 32, 3)) + 40 * labels[:, None, None, None]
    images[:, :2, :2] = 0  # some black, for the share of zeros
    return {"images": images.astype(np.uint8), "labels": labels, "index": np.arange(count)}


def text_arrays(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Reviews of 1 to MAX_LENGTH words; the class favours the lower or the upper half of the vocabulary."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    lengths = rng.integers(1, MAX_LENGTH + 1, count)
    lengths[:2] = 1, MAX_LENGTH
    half = VOCAB_SIZE // 2
    agree = rng.random(lengths.sum()) < 0.8
    side = np.where(agree, labels.repeat(lengths), 1 - labels.repeat(lengths))
    tokens = np.where(side, rng.integers(half, VOCAB_SIZE, agree.size), rng.integers(1, half, agree.size))
    return {
        "tokens": tokens.astype(np.int32),
        "offsets": np.concatenate([[0], lengths.cumsum()]),
        "labels": labels,
        "index": np.arange(count),
    }


def dataset(kind: str) -> tuple[dict[str, dict[str, np.ndarray]], dict]:
    """The arrays of every split, and what meta.json says of them."""
    make = image_arrays if kind == "image" else text_arrays
    splits = {name: make(size, seed=seed) for seed, (name, size) in enumerate(SIZES.items())}
    meta = {"kind": kind, "num_examples": SIZES, "fingerprint": f"tiny {kind}"}
    if kind == "image":
        pixels = splits["train"]["images"] / 255
        meta |= {
            "num_classes": 4,
            "mean": pixels.mean((0, 1, 2)).tolist(),
            "std": pixels.std((0, 1, 2)).tolist(),
        }
    else:
        meta |= {"num_classes": 2, "vocab_size": VOCAB_SIZE, "max_length": MAX_LENGTH}
    return splits, meta


def write_dataset(kind: str, folder: Path) -> Path:
    """The same on disk, as ``lrstudy.data`` reads it."""
    from safetensors.numpy import save_file

    from lrstudy.files import write_json

    splits, meta = dataset(kind)
    folder.mkdir(parents=True)
    for name, arrays in splits.items():
        save_file(arrays, folder / f"{name}.safetensors")
    write_json(folder / "meta.json", meta)
    return folder


def settings(name: str = "lstm", **changes) -> dict:
    """What a training of the model ``name`` needs; a change of ``model`` or ``schedule`` adds to its section."""
    base = {
        "dataset": "cifar10" if name == "resnet" else "imdb",
        "model": MODELS[name],
        "batch_size": 16,
        "precision": "float32",
        "num_epochs": 3,
        "optimizer": {"name": "sgd", "base_lr": 0.1},
        "schedule": {
            "function": "cosine",
            "warmup_epochs": 0.0,
            "granularity": "step",
            "parameters": {"min_factor": 0.1},
        },
        "controller": {"name": "none"},
        "training_share": 1.0,
        "seed": 1,
        "threads": 1,
        "device": "cpu",
        "augment": "none",
        "gradient_clip": None,
        "compile": False,
    }
    base = copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and key in ("model", "schedule"):
            base[key] = base[key] | value
        else:
            base[key] = value
    return base
