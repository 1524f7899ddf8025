"""Trainings that keep the weights of every epoch, and that others can branch off from.

A path is known by the identity of the training with its settings; what is asked of it are its weights, so it
has no record in the ledger, which keeps none. Its folder holds ``epochs/<n>.safetensors`` (the model after
epoch n), ``branch-<n>.pt`` (the whole checkpoint, where another path is to branch off), ``checkpoint.pt``
while it is under way and ``outcome.json`` afterwards, as :mod:`lrstudy.study.runs` has it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.files import locked, write_atomically
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import ControllerParams, Params, ScheduleRow
from lrstudy.study.outputs import Outcome
from lrstudy.study.runs import journaled_epochs, metric_values, progress_line, read_outcome, write_outcome
from lrstudy.study.tasks import training_task
from lrstudy.tracking.journal import Journal


def path_cell(params: Params, model: str, row_name: str, row: ScheduleRow, num_epochs: int) -> Cell:
    """The cell of ``model`` with a row that the study itself need not have; no controller but the row's own.

    Raises:
        StudyError: an unknown model, or a row that does not fit.
    """
    of_its_own = {"num_epochs": num_epochs, "schedules": None}
    changed = params.model_copy(
        update={
            "schedule": {row_name: row},
            "controller": ControllerParams(name="none"),
            "model": {name: found.model_copy(update=of_its_own) for name, found in params.model.items()},
        }
    )
    return make_cell(changed, model, row_name)


def path_task(
    cell: Cell,
    params: Params,
    settings: dict,
    seed: int,
    meta: dict,
    root: Path,
    label: str,
    *,
    branches: list[int] | None = None,
    start: dict | None = None,
) -> dict:
    """One training as :func:`train_path` takes it.

    Args:
        branches: epochs after which other paths branch off.
        start: the task of the path that this one branches off from, and ``epoch``: after which.
    """
    task = training_task(cell, params, settings, seed, meta, root, label)
    key = f"path-{task['key']}"
    folder = root / "checkpoints" / "theory" / cell.name / task["key"][:16]
    if start is not None:
        start = {
            "file": str(Path(start["task"]["folder"]) / f"branch-{start['epoch']}.pt"),
            "epoch": start["epoch"],
        }
    return task | {"key": key, "folder": str(folder), "branches": branches or [], "start": start}


def weights_file(folder: str | Path, epoch: int) -> Path:
    """The model after ``epoch`` (1-based) of the path in ``folder``."""
    return Path(folder) / "epochs" / f"{epoch}.safetensors"


def train_path(task: dict) -> str:
    """Train what :func:`path_task` describes, unless that is done; returns the folder.

    A branch goes on from the checkpoint of the path that it leaves: weights, optimizer, order of batches and
    random numbers. So it ends bit for bit where a training with the branch's schedule ends that shared
    nothing, provided that both schedules agree up to there. The history of a branch contains the epochs that
    it shares.
    """
    folder = Path(task["folder"])
    with locked(folder / "run.lock"):
        if not _is_done(task):
            _train(folder, task)
    return str(folder)


def _is_done(task: dict) -> bool:
    """Whether the outcome is there with all weights and the checkpoints to branch off from.

    Who asked for the path before may have wanted fewer of these.
    """
    folder = Path(task["folder"])
    outcome = read_outcome(folder)
    if outcome is None:
        return False
    reached = len(outcome.epochs)
    first = task["start"]["epoch"] + 1 if task["start"] else 1
    files = [weights_file(folder, epoch) for epoch in range(first, reached + 1)]
    files += [folder / f"branch-{epoch}.pt" for epoch in task["branches"] if epoch <= reached]
    return all(file.exists() for file in files)


def _load(file: Path) -> dict:
    import torch

    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # what damaged bytes make a reader raise is not documented
        raise StudyError(
            f"{file}: not a checkpoint that can be read ({type(error).__name__}); delete {file.parent} and "
            "run the stage again: it trains this path anew."
        ) from None


def _train(folder: Path, task: dict) -> None:
    import torch
    from safetensors.torch import save

    from lrstudy.training.loop import prepare, train

    settings = task["settings"]
    training, validation, meta = prepare(settings, task["data"])

    parent = os.getppid()
    journal = Journal(folder, task["key"])
    journaled = journaled_epochs(journal)
    checkpoint_file, started = folder / "checkpoint.pt", task["start"]
    file = checkpoint_file if checkpoint_file.exists() else Path(started["file"]) if started else None
    state = _load(file) if file else None

    def keep(record: dict) -> None:
        if record["epoch"] not in journaled:
            journal.metrics(metric_values(record))

    for record in state["epochs"] if state else []:
        keep(record)

    def on_epoch(record: dict, checkpoint: Callable[[], dict]) -> None:
        state, epoch = checkpoint(), record["epoch"]
        weights = {
            name: value.detach().to("cpu", copy=True).contiguous() for name, value in state["model"].items()
        }
        write_atomically(weights_file(folder, epoch), save(weights))
        if epoch in task["branches"]:
            write_atomically(folder / f"branch-{epoch}.pt", lambda file: torch.save(state, file))
        write_atomically(checkpoint_file, lambda file: torch.save(state, file))
        keep(record)
        line = progress_line(record, settings["num_epochs"])
        print(f"{task['label']:<34} {line}", file=sys.stderr, flush=True)
        if os.getppid() != parent:
            raise SystemExit("the stage that started this worker is gone; its checkpoint stays")

    progress = train(settings, training, validation, meta, state=state, on_epoch=on_epoch)
    write_outcome(folder, progress)
    checkpoint_file.unlink(missing_ok=True)


def outcome_of(folder: str | Path) -> Outcome:
    """The finished path in ``folder``."""
    outcome = read_outcome(Path(folder))
    if outcome is None:
        raise RuntimeError(f"{folder}: the training ended without an outcome")
    return outcome
