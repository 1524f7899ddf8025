"""One training in a folder of its own, and its record: it survives being killed, and is done once.

The folder's name is the training's identity. It holds ``checkpoint.pt`` and the one before it while the
training is under way, and afterwards ``outcome.json`` with the history of every update and, where asked, the
weights: ``last.safetensors``, ``best.safetensors`` and one file for each average; beside them the journal for
MLflow. What cannot be read is set aside, said so, and made again. The folder may be deleted: what is in the
ledger is not trained again.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lrstudy.errors import StudyError
from lrstudy.files import is_locked, locked, write_atomically, write_json
from lrstudy.study.outputs import Outcome
from lrstudy.tracking.journal import Journal

if TYPE_CHECKING:
    from lrstudy.ledger import Ledger, Record
    from lrstudy.training.loop import Progress

_CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")  # the newer first
_ROOM = 100  # times a checkpoint's size must be free for one that is only there to save time
KEPT = "after-{}.pt"
"""A checkpoint after so many epochs, kept for trainings that begin alike."""
PROGRESS = "progress.json"
"""In the folder of a training that is under way, where it was asked for: what its last epoch came to."""
_SHOWN = ("epoch", "train/loss", "validation/loss", "validation/accuracy", "seconds")
_IN_CHECKPOINT = {
    "model", "optimizer", "controller", "averages", "order", "rng", "status", "epochs", "best_epoch",
    "best_weights", "last_weights", "average_weights", "final",
}  # fmt: skip


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
        if (checkpoint.parent / "outcome.json").exists():
            continue  # finished, and killed before it was tidy
        other = _begun_with(checkpoint.parent)
        if other.get("seed") == mine.get("seed"):
            changed = [
                f"{name} {other.get(name)} (here {mine.get(name)})"
                for name in mine | other
                if mine.get(name) != other.get(name)
            ]
            what = ", ".join(changed) or "other data or code"
            place = checkpoint.parent.relative_to(folder.parents[2])
            return f"begins afresh; an unfinished training with {what} stays in {place}"
    return None


def _begun_with(folder: Path) -> dict:
    events = Journal(folder, "").events()
    return events[0].get("parameters", {}) if events else {}


def read_outcome(folder: Path) -> Outcome | None:
    """What the finished training in the folder came to; None while there is none.

    Raises:
        StudyError: there is a file that is none.
    """
    path = folder / "outcome.json"
    try:
        return Outcome.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):  # pydantic's are ValueErrors
        raise StudyError(
            f"{path}: not the outcome of a training; delete it, and `dvc repro` makes it again."
        ) from None


def write_outcome(folder: Path, progress: "Progress", **more: object) -> None:
    """Write outcome.json, which :func:`read_outcome` reads: the training is done."""
    write_json(
        folder / "outcome.json",
        {
            "status": progress.status,
            "best_epoch": progress.best_epoch,
            "num_parameters": progress.num_parameters,
            "epochs": progress.epochs,
            "final": progress.final,
        }
        | more,
    )


def train_run(task: dict) -> str | None:
    """Train what ``task`` says, from its checkpoint if it has one, and record it; returns the folder.

    What is in the ledger is not trained again, whether its weights are here or not; what was trained here and
    is not in the ledger is recorded.

    Args:
        task: what :func:`lrstudy.study.tasks.training_task` gives; plain values, since it travels to a worker
            process. With ``again`` it is trained even if it is in the ledger, unless its weights are here. So
            is a search's trial that a study now asks for as its own: trials keep no weights to measure. With
            ``busy`` it is not waited for where another process trains it, and None is returned.
    """
    folder = Path(task["folder"])
    if task.get("busy") and is_locked(folder / "run.lock"):
        return None
    with locked(folder / "run.lock", lambda: _say(task["label"], "another process trains this; waiting")):
        record = find_record(task)
        wanted = bool(task.get("again")) or is_trial_to_measure(record, task)
        again = record is not None and wanted and find_weights(task, folder) is None
        if record is None or again:
            trained = _ended_before(folder, task)
            if trained is None or (again and not trained.weights):
                _train(folder, task)
                trained = _record(folder, task)
            if record is not None:
                _keep_again(trained, record, task)
            else:
                _ledger_of(task).add(trained)
    return str(folder)


def is_trial_to_measure(record: "Record | None", task: dict) -> bool:
    """Whether the record is of a search's trial, without weights, and the study asks for it as its own."""
    if record is None or task["labels"]["role"] != "final" or record.labels.role != "trial":
        return False
    return record.test is None and not record.weights


def _ledger_of(task: dict) -> "Ledger":
    from lrstudy.ledger import Ledger

    return Ledger(task["ledger"])


def find_record(task: dict) -> "Record | None":
    """The ledger's record of the task's training, or None."""
    return _ledger_of(task).find(*task["identities"])


def is_from_ledger(task: dict) -> bool:
    """Whether the training is recorded and was not done here: elsewhere, or its folder was deleted."""
    return find_record(task) is not None and not (Path(task["folder"]) / "outcome.json").exists()


def find_weights(task: dict, *folders: Path) -> "tuple[Path, Record] | None":
    """The first of the folders that has the training's weights, and the record that they belong to; or None.

    Of one training there may be several records: other processors and versions round otherwise.
    """
    records = _ledger_of(task).all_of(*task["identities"])
    for folder in folders:
        for record in records:
            if record.weights and all(
                _sha256(folder / f"{name}.safetensors") == sha256 for name, sha256 in record.weights.items()
            ):
                return folder, record
    return None


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _ended_before(folder: Path, task: dict) -> "Record | None":
    """The record of a training that ended in the folder and was not recorded.

    None where there is none, or not with the weights that it was kept with; what is damaged is set aside.
    """
    try:
        if read_outcome(folder) is None:
            return None
        trained = _record(folder, task)
    except (ValueError, KeyError, TypeError, AttributeError):  # pydantic's and StudyErrors are ValueErrors
        _set_aside(folder / "outcome.json", task["label"], "not the outcome of this training")
        return None
    whole = [
        _is_whole(folder / f"{name}.safetensors", sha256, task["label"])
        for name, sha256 in trained.weights.items()
    ]
    return trained if all(whole) else None


def _record(folder: Path, task: dict) -> "Record":
    """The record of the training that has ended in ``folder``."""
    from lrstudy.entries.meaning import digest
    from lrstudy.ledger.record import (
        FORMAT,
        Data,
        Labels,
        Origin,
        Record,
        final_of,
        history_of,
    )
    from lrstudy.recipe.identity import training_definitions

    outcome = read_outcome(folder)
    if outcome is None:
        raise RuntimeError(f"{task['label']}: the training ended without an outcome")
    ledger = _ledger_of(task)
    for definitions in training_definitions(task["settings"]).values():
        ledger.note_code(digest(definitions), definitions)
    return Record(
        format=1 if outcome.shared is None else FORMAT,
        identity=task["identities"][0],
        settings=task["settings"],
        data=Data(**task["described"]),
        code=task["code"],
        labels=Labels(**task["labels"]),
        origin=Origin(**outcome.origin, ended=outcome.epochs[-1]["time"]),
        status=outcome.status,
        best_epoch=outcome.best_epoch,
        num_parameters=outcome.num_parameters,
        history=history_of(outcome.epochs),
        final=final_of(outcome.final),
        interventions=[i for epoch in outcome.epochs for i in epoch["interventions"]],
        weights=outcome.weights,
        test=None,
        shared=outcome.shared,
    )


def _origin(task: dict) -> dict:
    """Where and with what the training that ends now took place: a record may be made of it later."""
    from lrstudy.ledger.machine import origin_here

    here = origin_here(task["settings"]["device"], task["revision"], 0.0)
    return here.model_dump(exclude={"ended"})


def _keep_again(trained: "Record", record: "Record", task: dict) -> None:
    """Record a training that was done again, if it is not one that is recorded, and say whether it is.

    Args:
        record: the one to name where it is not.
    """
    ledger = _ledger_of(task)
    for known in ledger.all_of(*task["identities"]):
        if known.weights in ({}, trained.weights) and _numbers(known) == _numbers(trained):
            ledger.add(known.model_copy(update={"weights": trained.weights, "labels": trained.labels}))
            _say(task["label"], "trained again: the same to the bit as its record")
            return
    ledger.add(trained)
    last = [one.history["validation/loss"][-1] for one in (trained, record)]
    _say(
        task["label"],
        "trained again: not the same to the bit as its record (validation loss {}, recorded {}); other "
        "processors and versions round otherwise. Both are kept".format(*map(_number, last)),
    )


def _numbers(record: "Record") -> dict:
    """The record's history without what the clock decides, and what was measured at its end."""
    from lrstudy.ledger.record import OF_THE_CLOCK

    history = {name: series for name, series in record.history.items() if name not in OF_THE_CLOCK}
    return history | {"final": record.final}


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6f}"


def _is_whole(path: Path, sha256: str, label: str) -> bool:
    """Whether the file is there with this hash; one that has another is set aside."""
    found = _sha256(path)
    if found not in (None, sha256):
        _set_aside(path, label, "not what the training wrote")
    return found == sha256


def _train(folder: Path, task: dict) -> None:
    from lrstudy.ledger.record import WEIGHTS
    from lrstudy.training.loop import prepare, train

    settings = task["settings"]
    training, validation, meta = prepare(settings, task["data"])

    for name in (
        *_CHECKPOINTS,
        "checkpoint.next",
        "outcome.json",
        PROGRESS,
        KEPT.format("*"),
        *(f"{name}.safetensors" for name in WEIGHTS),
    ):
        for part in folder.glob(f".{name}.*.part"):
            part.unlink()  # of a process that was killed while it wrote
    parent = os.getppid()
    journal = Journal(folder, task["key"]) if task["journal"] else None
    state = _load_checkpoint(folder, task["key"], task["label"])
    done = state["epochs"] if state else []
    if done:
        _say(task["label"], f"goes on after epoch {len(done)}")
    elif (state := _begun_by_another(task)) is not None:
        done = state["epochs"]
        _say(task["label"], f"has its first {len(done)} epochs in common with {state['shared']['label']}")
    shared = state.get("shared") if state else None
    # The process may have died between writing the checkpoint and the journal, and a run whose checkpoint
    # or weights were lost trains epochs again that the journal has: each epoch stands there once.
    journaled = journaled_epochs(journal) if journal else set()

    def keep(record: dict) -> None:
        if journal and record["epoch"] not in journaled:
            journal.metrics(metric_values(record))

    for record in done:
        keep(record)

    def on_epoch(record: dict, checkpoint: Callable[[], dict]) -> None:
        content = checkpoint() | {"key": task["key"], "shared": shared}
        if record["epoch"] in task.get("keep_at", ()) or content["status"] != "running":
            _keep_for_others(folder, content, task)
        _write_checkpoint(folder, content)
        keep(record)
        if task.get("shown"):  # by who asked for it, with others
            write_json(folder / PROGRESS, {name: record[name] for name in _SHOWN})
        else:
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
        last = progress.last_weights
        if last is None:
            raise RuntimeError(f"{task['label']}: the training ended without weights")
        kept = {"last": last, "best": progress.best_weights or last, **progress.average_weights}
        for name, weights in kept.items():
            contiguous = {key: value.contiguous() for key, value in weights.items()}
            content = save(contiguous)
            hashes[name] = hashlib.sha256(content).hexdigest()
            write_atomically(folder / f"{name}.safetensors", content)
    told = {} if shared is None else {"shared": {name: shared[name] for name in ("identity", "epochs")}}
    write_outcome(folder, progress, weights=hashes, origin=_origin(task), **told)
    for name in (*_CHECKPOINTS, PROGRESS):
        (folder / name).unlink(missing_ok=True)


def _begun_by_another(task: dict) -> dict | None:
    """A checkpoint of this training made from another's, where their first epochs are the same; or None.

    ``task["trunks"]`` names trainings that may have begun alike: ``folder``, ``key``, ``label``, and
    ``epochs`` that they have in common at most.
    """
    from lrstudy.training.prefix import branched

    kept = [
        (epoch, trunk)
        for trunk in task.get("trunks", ())
        for epoch, _ in kept_for_others(Path(trunk["folder"]))
        if epoch <= trunk["epochs"]
    ]
    for epoch, trunk in sorted(kept, key=lambda one: -one[0]):
        path = Path(trunk["folder"]) / KEPT.format(epoch)
        try:
            state = branched(task["settings"], _read_checkpoint(path, trunk["key"]))
        except Exception as error:  # as above; the training can do without
            _say(task["label"], f"{path}: not taken ({type(error).__name__})")
            continue
        if state is not None:
            shared = {"identity": trunk["key"], "epochs": len(state["epochs"]), "label": trunk["label"]}
            return state | {"shared": shared}
    return None


def kept_for_others(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints that a training has left for others to begin from: after which epoch, and the file."""
    found = []
    for path in folder.glob(KEPT.format("*")):
        epoch = path.stem.rpartition("-")[2]
        if epoch.isdecimal():
            found.append((int(epoch), path))
    return sorted(found)


def _keep_for_others(folder: Path, state: dict, task: dict) -> None:
    import torch

    if not task.get("keep_at"):
        return
    content = io.BytesIO()
    torch.save(state, content)
    if shutil.disk_usage(folder).free > _ROOM * len(content.getvalue()):
        with contextlib.suppress(OSError):  # a quota, for one; the others can do without
            write_atomically(folder / KEPT.format(len(state["epochs"])), content.getvalue())


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


def journaled_epochs(journal: Journal) -> set[int]:
    """The epochs whose metrics stand in a training's journal."""
    return {
        epoch
        for event in journal.events()
        if event["event"] == "metrics"
        for name, _, epoch, _ in event["values"]
        if name == "validation/loss"
    }


def metric_values(record: dict) -> list[tuple[str, float, int, int]]:
    """An epoch's record as (name, value, step, milliseconds): updates by update, the rest by epoch.

    The updates' values, which the ledger does not keep, are named ``step/...``: their x axis counts updates,
    the others' counts epochs.
    """
    when = int(record["time"] * 1000)
    epoch = record["epoch"]
    values = [
        (name, record[name], epoch, when)
        for name in record
        if name not in ("epoch", "time", "steps", "interventions")
    ]
    for name, series in record.get("steps", {}).items():
        first = (epoch - 1) * len(series)
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
