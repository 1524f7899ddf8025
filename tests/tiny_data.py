"""Tiny data sets that can be learned, in the form in which preprocessing leaves them, and settings to train on."""

import copy
import math
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
        "word_dropout": 0.2,
    },
    "transformer": {
        "architecture": "transformer",
        "embedding_size": 8,
        "num_heads": 2,
        "num_layers": 1,
        "feedforward_size": 16,
        "dropout": 0.3,
        "word_dropout": 0.2,
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
    meta = {
        "kind": kind,
        "dataset": "cifar10" if kind == "image" else "imdb",
        "label": f"tiny {kind}",
        "official": False,
        "num_examples": SIZES,
        "fingerprint": f"tiny {kind}",
    }
    if kind == "image":
        pixels = splits["train"]["images"] / 255
        meta |= {
            "num_classes": 4,
            "image_size": [32, 32],
            "in_channels": 3,
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


def task(root: Path, data: Path, chosen: dict, **options) -> dict:
    """The training as ``lrstudy.study.runs.train_run`` takes it: in ``root/run``, recorded in ``root/ledger``.

    Args:
        data: what :func:`write_dataset` wrote.
        chosen: its :func:`settings`.
    """
    from lrstudy.data import read_meta
    from lrstudy.recipe.identity import training_code, training_identity
    from lrstudy.study.tasks import DESCRIBED

    meta, code = read_meta(data), training_code(chosen)
    identity = training_identity(chosen, meta["fingerprint"], code)
    model = chosen["model"]["architecture"]
    return {
        "folder": str(root / "run"),
        "key": identity,
        "identities": [identity],
        "label": f"{model}-{chosen['schedule']['function']} seed {chosen['seed']}",
        "settings": chosen,
        "code": code,
        "data": str(data),
        "described": {name: meta[name] for name in DESCRIBED},
        "labels": {"model": model, "schedule": chosen["schedule"]["function"], "role": "final"},
        "ledger": str(root / "ledger"),
        "revision": "",
        "keep_weights": True,
        "journal": True,
    } | options


def record(losses: list[float], start: float = 100.0, chosen: dict | None = None, **changes):
    """What the ledger has of a training with these validation losses; the last is NaN where it diverged.

    Epoch ``e`` ends at ``start + e`` seconds and cost half a second of computing.

    Args:
        chosen: its :func:`settings`.
        changes: of the record's fields.
    """
    from lrstudy.ledger.record import ALWAYS_IN_FINAL, Data, Labels, Origin, Record, history_of
    from lrstudy.recipe.identity import training_identity

    finished = all(math.isfinite(loss) for loss in losses)
    chosen = (chosen or settings()) | ({"num_epochs": len(losses)} if finished else {})
    epochs = [
        {
            "epoch": epoch,
            "train/loss": loss / 2,
            "train/accuracy": epoch / 10,
            "train/f1": epoch / 20,
            "train/f1_macro": epoch / 15,
            "validation/loss": loss,
            "validation/loss_standard_error": loss / 8,
            "validation/accuracy": epoch / 10,
            "validation/f1": epoch / 20,
            "validation/f1_macro": epoch / 15,
            "lr": 0.1 / epoch,
            "seconds": 0.75,  # by the clock, beside other work
            "compute_seconds": 0.5,
            "time": start + epoch,
        }
        for epoch, loss in enumerate(losses, 1)
    ]
    data = Data(
        dataset="imdb", label="tiny text", official=False, fingerprint="tiny text", num_examples=SIZES
    )
    fields = {
        "format": 1,
        "settings": chosen,
        "data": data,
        "code": {},
        "labels": Labels(model="lstm", schedule="cosine", role="final"),
        "origin": Origin(
            machine="0123abcd",
            processor="a processor",
            cores=2,
            system="Linux x86_64",
            accelerator=None,
            versions={"torch": "2.9.0"},
            revision="",
            ended=start + len(losses),
        ),
        "status": "finished" if finished else "diverged",
        "best_epoch": min(range(len(losses)), key=lambda epoch: losses[epoch]) + 1 if finished else 0,
        "num_parameters": 1,
        "history": history_of(epochs),
        "final": {name: number / 32 for number, name in enumerate(ALWAYS_IN_FINAL, 1)} if finished else {},
        "interventions": [],
        "weights": {},
        "test": None,
    } | changes
    identity = training_identity(fields["settings"], fields["data"].fingerprint, fields["code"])
    return Record(identity=identity, **fields)
