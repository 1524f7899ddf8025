"""One training in a folder of its own: it survives being killed, and the same training is never done twice.

The folder's name is the fingerprint of everything that the result depends on. It holds ``checkpoint.pt``
while the training is under way, and afterwards ``outcome.json`` with the history and, where asked,
``last.safetensors`` and ``best.safetensors``; beside them the journal for MLflow.
"""

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

from lrstudy.files import locked, write_atomically, write_json
from lrstudy.tracking import Journal

_CODE = ("batches", "controllers", "devices", "evaluation", "models", "optimizers", "schedules", "training")
_WEIGHTS = ("last", "best")


def fingerprint(settings: dict, data_fingerprint: str) -> str:
    """SHA-256 of the settings, the data, the code that trains and torch's version."""
    from importlib.metadata import version

    known = [settings, data_fingerprint, version("torch"), code_hashes()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def code_hashes() -> dict[str, str]:
    """SHA-256 of every module that a training's result depends on."""
    return {
        module: hashlib.sha256(
            Path(importlib.util.find_spec(f"lrstudy.{module}").origin).read_bytes()
        ).hexdigest()
        for module in _CODE
    }


def run_folder(root: Path, cell: str, key: str) -> Path:
    """Where the training with the fingerprint ``key`` lives, whatever experiment asks for it."""
    return root / "checkpoints" / cell / key[:16]


def read_outcome(folder: Path) -> dict | None:
    """The finished training's ``status``, ``best_epoch`` and ``epochs``; None while there is none."""
    try:
        return json.loads((folder / "outcome.json").read_text())
    except FileNotFoundError:
        return None


def train_run(task: dict) -> str:
    """Train what ``task`` says, from its checkpoint if it has one, unless that is done; returns the folder.

    Args:
        task: ``folder``, ``key``, ``label`` (for the progress lines), ``settings``, ``data`` (the processed
            data set's folder), ``keep_weights``, ``journal`` (whether the history goes to the folder's
            journal). Plain values, since it travels to a worker process.
    """
    folder = Path(task["folder"])
    with locked(folder / "run.lock", lambda: _say(task["label"], "another process trains this; waiting")):
        if not _is_done(folder, task["keep_weights"]):
            _train(folder, task)
    return str(folder)


def _is_done(folder: Path, keep_weights: bool) -> bool:
    """Whether the outcome is there, and the weights if they are wanted: a tuning trial kept none."""
    if read_outcome(folder) is None:
        return False
    return not keep_weights or all((folder / f"{name}.safetensors").exists() for name in _WEIGHTS)


def _train(folder: Path, task: dict) -> None:
    import torch

    from lrstudy.batches import make_split, take_share
    from lrstudy.data import read_meta, read_split
    from lrstudy.devices import choose_device
    from lrstudy.training import train

    settings = task["settings"]
    torch.set_num_threads(settings["threads"])
    # Numbers below 1e-38, which decayed weights become, are slow on many processors.
    torch.set_flush_denormal(True)
    device = choose_device(settings["device"])
    meta = read_meta(task["data"])
    training = take_share(read_split(task["data"], "train"), settings["training_share"])
    training = make_split(training, meta, device, settings["augment"])
    validation = make_split(read_split(task["data"], "validation"), meta, device)

    parent = os.getppid()
    journal = Journal(folder, task["key"]) if task["journal"] else None
    state = _load_checkpoint(folder / "checkpoint.pt", task["label"])
    done = state["epochs"] if state else []
    if done:
        _say(task["label"], f"goes on after epoch {len(done)}")
    # The process may have died between writing the checkpoint and the journal, and a run whose checkpoint
    # or weights were lost trains epochs again that the journal has: each epoch stands there once.
    journaled = _journaled_epochs(journal) if journal else set()

    def keep(record: dict) -> None:
        if journal and record["epoch"] not in journaled:
            journal.metrics(metric_values(record))

    for record in done:
        keep(record)

    def on_epoch(record: dict, checkpoint) -> None:
        write_atomically(folder / "checkpoint.pt", lambda file: torch.save(checkpoint(), file))
        keep(record)
        _say(task["label"], progress_line(record, settings["num_epochs"]))
        if os.getppid() != parent:
            raise SystemExit("the stage that started this worker is gone; its checkpoint stays")

    progress = train(settings, training, validation, meta, state=state, on_epoch=on_epoch)
    if progress.status == "diverged":
        _say(task["label"], f"diverged in epoch {len(progress.epochs)}: the loss is not finite")
    if task["keep_weights"]:
        from safetensors.torch import save

        # A run that diverged in its first epoch has no best weights: its last ones stand in.
        best = progress.best_weights or progress.last_weights
        for name, weights in zip(_WEIGHTS, (progress.last_weights, best), strict=True):
            contiguous = {key: value.contiguous() for key, value in weights.items()}
            write_atomically(folder / f"{name}.safetensors", save(contiguous))
    write_json(
        folder / "outcome.json",
        {
            "status": progress.status,
            "best_epoch": progress.best_epoch,
            "num_parameters": progress.num_parameters,
            "epochs": progress.epochs,
        },
    )
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def _load_checkpoint(path: Path, label: str) -> dict | None:
    """The checkpoint, or None; one that cannot be read is set aside and said so."""
    import torch

    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # what damaged bytes make a reader raise is not documented
        aside = path.with_suffix(".unreadable")
        os.replace(path, aside)
        _say(label, f"checkpoint unreadable ({type(error).__name__}), set aside as {aside}; starts afresh")
        return None


def _journaled_epochs(journal: Journal) -> set[int]:
    return {
        epoch
        for event in journal.events()
        if event["event"] == "metrics"
        for name, _, epoch, _ in event["values"]
        if name == "validation/loss"
    }


def metric_values(record: dict) -> list[tuple[str, float, int, int]]:
    """An epoch's record as (name, value, step, milliseconds): updates by update, the rest by epoch.

    The updates' values are named ``step/...``: their x axis counts updates, the others' counts epochs.
    """
    when = int(record["time"] * 1000)
    epoch = record["epoch"]
    values = [
        (name, record[name], epoch, when)
        for name in record
        if name not in ("epoch", "time", "steps", "interventions")
    ]
    first = (epoch - 1) * len(record["steps"]["lr"])
    for name, series in record["steps"].items():
        values += [(f"step/{name}", value, first + index, when) for index, value in enumerate(series)]
    values.append(("controller/interventions", float(len(record["interventions"])), epoch, when))
    return values


def progress_line(record: dict, num_epochs: int) -> str:
    """One epoch for the terminal or a log: losses, accuracy, rate, seconds, time left."""
    left = record["seconds"] * (num_epochs - record["epoch"])
    return (
        f"epoch {record['epoch']:>2}/{num_epochs}  train {record['train/loss']:.4f}"
        f"  validation {record['validation/loss']:.4f}  accuracy {record['validation/accuracy']:.4f}"
        f"  lr {record['lr']:.2e}  {record['seconds']:.1f} s"
        f"  {int(left) // 60}:{int(left) % 60:02} left"
    )


def _say(label: str, text: str) -> None:
    print(f"{label:<34} {text}", file=sys.stderr, flush=True)
