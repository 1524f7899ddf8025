"""One training in a folder of its own: it survives being killed, and the same training is never done twice.

The folder's name is the fingerprint of everything that the result depends on. It holds ``checkpoint.pt``
and the one before it while the training is under way, and afterwards ``outcome.json`` with the history and,
where asked, ``last.safetensors`` and ``best.safetensors``; beside them the journal for MLflow. What cannot be
read is set aside, said so, and made again.
"""

import hashlib
import importlib.util
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from lrstudy.errors import StudyError
from lrstudy.files import locked, write_atomically, write_json
from lrstudy.tracking import Journal

if TYPE_CHECKING:
    from lrstudy.training import Progress

_CODE = ("batches", "controllers", "devices", "evaluation", "models", "optimizers", "schedules", "training")
_WEIGHTS = ("last", "best")
_CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")  # the newer first
_WRITTEN_HERE = (".checkpoint.", ".outcome.", *(f".{name}.safetensors." for name in _WEIGHTS))
_IN_CHECKPOINT = {
    "model", "optimizer", "controller", "order", "rng", "status", "epochs", "best_epoch", "best_weights",
    "last_weights",
}  # fmt: skip


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


def begun_otherwise(folder: Path) -> str | None:
    """What to say before a training begins in ``folder`` while another of its cell and seed is unfinished.

    Both are known by what their journals were created with. None if there is no other.
    """
    if (folder / "checkpoint.pt").exists() or (folder / "outcome.json").exists():
        return None
    mine = _begun_with(folder)
    for checkpoint in sorted(folder.parent.glob("*/checkpoint.pt")):
        other = _begun_with(checkpoint.parent)
        if other.get("seed") == mine.get("seed"):
            changed = [
                f"{name} {other.get(name)} (here {mine.get(name)})"
                for name in mine | other
                if mine.get(name) != other.get(name)
            ]
            what = ", ".join(changed) or "other data, code or torch"
            place = checkpoint.parent.relative_to(folder.parents[2])
            return f"begins afresh; an unfinished training with {what} stays in {place}"
    return None


def _begun_with(folder: Path) -> dict:
    events = Journal(folder, "").events()
    return events[0].get("parameters", {}) if events else {}


def read_outcome(folder: Path) -> dict | None:
    """The finished training's ``status``, ``best_epoch`` and ``epochs``; None while there is none.

    Raises:
        StudyError: there is a file that is none.
    """
    path = folder / "outcome.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not (
        isinstance(found, dict)
        and found.get("status") in ("finished", "diverged")
        and isinstance(found.get("best_epoch"), int)
        and isinstance(found.get("epochs"), list)
        and found["epochs"]
        and all(isinstance(epoch, dict) and "validation/loss" in epoch for epoch in found["epochs"])
    ):
        raise StudyError(f"{path}: not the outcome of a training; delete it, and `dvc repro` makes it anew.")
    return found


def write_outcome(folder: Path, progress: "Progress", **more: object) -> None:
    """Write outcome.json, which :func:`read_outcome` reads: the training is done."""
    write_json(
        folder / "outcome.json",
        {
            "status": progress.status,
            "best_epoch": progress.best_epoch,
            "num_parameters": progress.num_parameters,
            "epochs": progress.epochs,
        }
        | more,
    )


def train_run(task: dict) -> str:
    """Train what ``task`` says, from its checkpoint if it has one, unless that is done; returns the folder.

    Args:
        task: ``folder``, ``key``, ``label`` (for the progress lines), ``settings``, ``data`` (the processed
            data set's folder), ``keep_weights``, ``journal`` (whether the history goes to the folder's
            journal). Plain values, since it travels to a worker process.
    """
    folder = Path(task["folder"])
    with locked(folder / "run.lock", lambda: _say(task["label"], "another process trains this; waiting")):
        if not _is_done(folder, task["keep_weights"], task["label"]):
            _train(folder, task)
    return str(folder)


def _is_done(folder: Path, keep_weights: bool, label: str) -> bool:
    """Whether the outcome is there, and the weights if they are wanted: a tuning trial kept none."""
    try:
        outcome = read_outcome(folder)
    except StudyError:
        _set_aside(folder / "outcome.json", label, "not the outcome of a training")
        return False
    if outcome is None:
        return False
    return not keep_weights or all(
        _is_whole(folder / f"{name}.safetensors", outcome.get("weights", {}).get(name), label)
        for name in _WEIGHTS
    )


def _is_whole(path: Path, sha256: str | None, label: str) -> bool:
    """Whether the file is there with this hash; any will do where none was written down."""
    if not path.exists():
        return False
    if sha256 in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
        return True
    _set_aside(path, label, "not what the training wrote")
    return False


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

    for name in (
        *_CHECKPOINTS,
        "checkpoint.next",
        "outcome.json",
        *(f"{name}.safetensors" for name in _WEIGHTS),
    ):
        for part in folder.glob(f".{name}.*.part"):
            part.unlink()  # of a process that was killed while it wrote
    parent = os.getppid()
    journal = Journal(folder, task["key"]) if task["journal"] else None
    state = _load_checkpoint(folder, task["key"], task["label"])
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
        _write_checkpoint(folder, checkpoint() | {"key": task["key"]})
        keep(record)
        _say(task["label"], progress_line(record, settings["num_epochs"]))
        if os.getppid() != parent:
            raise SystemExit("the stage that started this worker is gone; its checkpoint stays")

    progress = train(settings, training, validation, meta, state=state, on_epoch=on_epoch)
    if progress.status == "diverged":
        _say(task["label"], f"diverged in epoch {len(progress.epochs)}: the loss is not finite")
    hashes = {}
    if task["keep_weights"]:
        from safetensors.torch import save

        # A run that diverged in its first epoch has no best weights: its last ones stand in.
        best = progress.best_weights or progress.last_weights
        for name, weights in zip(_WEIGHTS, (progress.last_weights, best), strict=True):
            contiguous = {key: value.contiguous() for key, value in weights.items()}
            content = save(contiguous)
            hashes[name] = hashlib.sha256(content).hexdigest()
            write_atomically(folder / f"{name}.safetensors", content)
    write_outcome(folder, progress, weights=hashes)
    for name in _CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def _write_checkpoint(folder: Path, state: dict) -> None:
    """Write ``checkpoint.pt`` and keep the one before it: at every moment one of the two is whole."""
    import torch

    content = io.BytesIO()  # torch hides why a write to a file fails
    torch.save(state, content)
    current, previous = (folder / name for name in _CHECKPOINTS)
    write_atomically(folder / "checkpoint.next", content.getvalue())
    if current.exists():
        os.replace(current, previous)
    os.replace(folder / "checkpoint.next", current)


def _load_checkpoint(folder: Path, key: str, label: str) -> dict | None:
    """The newest checkpoint that can be read, or None; one that cannot is set aside and said so."""
    for name in _CHECKPOINTS:
        if (folder / name).exists():
            try:
                return _read_checkpoint(folder / name, key)
            except Exception as error:  # what damaged bytes make a reader raise is not documented
                reason = str(error) if isinstance(error, StudyError) else type(error).__name__
                _set_aside(folder / name, label, f"checkpoint unreadable ({reason})")
    return None


def _read_checkpoint(path: Path, key: str) -> dict:
    import torch

    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise StudyError("it is compressed")  # torch's are not: this one may unpack to any size
        if damaged := archive.testzip():  # torch does not look at the sums that it writes
            raise StudyError(f"{damaged} is damaged")
    state = torch.load(path, weights_only=True, map_location="cpu")
    if missing := _IN_CHECKPOINT - set(state):
        raise StudyError(f"it has no {', '.join(sorted(missing))}")
    if state.get("key", key) != key:
        raise StudyError("it belongs to another training")
    return state


def _set_aside(path: Path, label: str, reason: str) -> None:
    aside = path.with_suffix(".unreadable")
    os.replace(path, aside)
    _say(label, f"{reason}, set aside as {aside}")


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
    values.append(("controller_interventions", float(len(record["interventions"])), epoch, when))
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
