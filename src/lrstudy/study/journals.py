"""The journals of a cell's runs: their tags, their mean curves, and how they end."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from lrstudy.files import is_locked, locked
from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import Params
from lrstudy.study.workspace import git_revision
from lrstudy.tracking.journal import Journal


def common_tags(cell: Cell, params: Params, meta: dict) -> dict[str, str]:
    """What the MLflow UI filters and compares by."""
    return {
        "model": cell.model_name,
        "schedule": cell.schedule_name,
        "optimizer": cell.optimizer.name,
        "controller": cell.controller.name,
        "dataset": cell.dataset,
        "data": meta["label"],
        "data.official": str(meta["official"]).lower(),
        "data.fingerprint": meta["fingerprint"],
        "preset": params.preset,
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "mlflow.source.name": f"{os.environ.get('DVC_STAGE') or 'lrstudy'}",
        "mlflow.source.git.commit": git_revision(),
    }


_STAGE_LOCK = "stage.lock"


@contextlib.contextmanager
def under_way(*journals: Journal) -> Iterator[None]:
    """Say in the tracker that these runs go on, and if the block fails that they do not.

    An interrupt ends them as KILLED, an error as FAILED. Until then other processes see that the stage lives:
    :func:`is_orphan`.
    """
    with contextlib.ExitStack() as alive:
        for journal in journals:
            alive.enter_context(locked(journal.folder / _STAGE_LOCK, shared=True))
            if ended_as(journal) in ("KILLED", "FAILED"):
                journal.resume()
        try:
            yield
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
            for journal in journals:
                if ended_as(journal) is None:
                    journal.end("KILLED" if interrupted else "FAILED")
            raise


def is_orphan(journal: Journal) -> bool:
    """Whether the run has not ended while the stage that it belongs to has: it was killed."""
    return ended_as(journal) is None and not is_locked(journal.folder / _STAGE_LOCK)


def ended_as(journal: Journal) -> str | None:
    """The status that the run was ended with (FINISHED, FAILED, KILLED); None while it goes on."""
    status = None
    for event in journal.events():
        if event["event"] in ("end", "resume"):
            status = event.get("status")
    return status


_CURVES = (
    "lr", "train/loss", "train/accuracy", "train/f1", "train/f1_macro",
    "validation/loss", "validation/accuracy", "validation/f1", "validation/f1_macro",
)  # fmt: skip


def mean_curves(histories: list[list[dict]]) -> list[tuple[str, float, int, int]]:
    """The curves by epoch as a journal takes them, each the mean over the seeds.

    Args:
        histories: the epochs of each seed; those that one of them did not reach, since it diverged, are left
            out.
    """
    values = []
    for records in zip(*histories, strict=False):
        when = int(max(record["time"] for record in records) * 1000)
        for name in _CURVES:
            values.append((name, sum(r[name] for r in records) / len(records), records[0]["epoch"], when))
    return values


def log_once(journal: Journal, values: dict[str, list[tuple[int, float]]]) -> None:
    """Log metrics (name -> step, value), as of now, unless the same ones are there."""
    when = int(time.time() * 1000)
    metrics_once(
        journal,
        [(name, value, step, when) for name, series in values.items() for step, value in series],
    )


def metrics_once(journal: Journal, values: list[tuple[str, float, int, int]]) -> None:
    """Log (name, value, step, milliseconds) each, unless the same ones are there, whatever their time."""
    new: list[list[Any]] = [[name, value, step] for name, value, step, _ in values]
    logged = [
        [[name, value, step] for name, value, step, _ in event["values"]]
        for event in journal.events()
        if event["event"] == "metrics"
    ]
    if new and new not in logged:
        journal.metrics(values)


def finish(journal: Journal, status: str, ended: float | None = None) -> None:
    """End the run in the tracker unless it has ended well."""
    if ended_as(journal) != "FINISHED":
        journal.tags({"status": status})
        journal.end(ended=ended)
