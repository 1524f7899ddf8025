"""What the stages share: where things are, and the runs of a cell with their journals."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lrstudy.cells import Cell
from lrstudy.config import Params
from lrstudy.files import is_locked, locked
from lrstudy.identity import training_code
from lrstudy.ledger import Ledger, Record
from lrstudy.parallel import run_all
from lrstudy.runs import find_record, run_folder
from lrstudy.tracking import Journal

REPORTS = Path("reports")
"""What the repository keeps of a study beside its ledger."""


def data_folder(dataset: str) -> Path:
    """The processed data set."""
    return Path("data/processed") / dataset


def tuned_file(model: str, schedule: str) -> Path:
    """The cell's chosen values."""
    return Path("artifacts/tuned") / model / schedule / "best.json"


def train_folder(model: str, schedule: str) -> Path:
    """The cell's histories and weights."""
    return Path("artifacts/train") / model / schedule


def evaluate_folder(model: str, schedule: str) -> Path:
    """The cell's predictions and test metrics."""
    return Path("artifacts/evaluate") / model / schedule


def reference_file(dataset: str) -> Path:
    """What the data set's linear reference reaches."""
    return REPORTS / "references" / f"{dataset}.json"


def timing_file(model: str) -> Path:
    """What an update of the model costs under each of its rows; in git, since another machine's differs."""
    return Path("reports/timing") / f"{model}.json"


def training_task(
    cell: Cell,
    params: Params,
    settings: dict,
    seed: int,
    meta: dict,
    root: Path,
    label: str,
    *,
    training_share: float = 1.0,
    role: str = "final",
    auto: tuple[str, str] | None = None,
    **options: bool,
) -> dict:
    """One training as :func:`lrstudy.runs.train_run` takes it: ``settings`` and what all trainings share.

    ``training_share`` of the training split is used, all of the validation split. ``auto`` becomes what it
    means where the training will run, so that the same words on two kinds of machine are two trainings; or
    the device and the dtype ``auto``, for who asks what others have trained.
    """
    settings = whole_settings(params, settings, seed, training_share, auto)
    ledger, code = Ledger(ledger_folder(root)), training_code(settings)
    identities = ledger.identities(settings, meta["fingerprint"], code)
    return {
        "folder": str(run_folder(root, cell.name, identities[0])),
        "key": identities[0],
        "identities": identities,
        "label": label,
        "settings": settings,
        "code": ledger.canonical(code),
        "data": str(data_folder(cell.dataset).resolve()),
        "described": {key: meta[key] for key in DESCRIBED},
        "labels": {"model": cell.model_name, "schedule": cell.schedule_name, "role": role},
        "ledger": str(ledger.folder),
        "revision": git_revision(),
        **options,
    }


def whole_settings(
    params: Params,
    settings: dict,
    seed: int,
    training_share: float = 1.0,
    auto: tuple[str, str] | None = None,
) -> dict:
    """A cell's settings with what all trainings share, as :func:`lrstudy.training.train` takes them.

    ``auto`` becomes what it means where the training will run, or the device and the dtype that are given.
    """
    train = params.train
    if auto is None:
        device, precision = _resolved(params, settings["precision"])
    else:
        asked = (train.device, settings["precision"])
        device, precision = (
            meaning if word == "auto" else word for word, meaning in zip(asked, auto, strict=True)
        )
    settings = settings | {
        "precision": precision,
        "training_share": training_share,
        "seed": seed,
        "threads": train.threads,
        "device": device,
        "augment": train.augment,
        "gradient_clip": train.gradient_clip,
        "compile": train.compile,
    }
    return json.loads(json.dumps(settings))  # as a record will have them


DESCRIBED = ("dataset", "label", "official", "fingerprint", "num_examples")
"""What results say of the data that they are of, from meta.json."""


def ledger_folder(root: Path) -> Path:
    """The ledger of the workspace."""
    return root / "ledger"


def _resolved(params: Params, precision: str) -> tuple[str, str]:
    """The kind of device and the dtype that a training gets: here, or where the cluster runs it."""
    from lrstudy.devices import resolve

    asked = {"device": params.train.device, "precision": precision}
    if params.parallel.cluster is None:
        return resolve(asked)
    key = json.dumps([asked, params.parallel.model_dump()])
    if key not in _on_cluster:
        [_on_cluster[key]] = run_all(resolve, [asked], *params.workers)
    return _on_cluster[key]


_on_cluster: dict[str, tuple[str, str]] = {}


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


@functools.cache
def git_revision() -> str:
    """The checked-out commit, or nothing outside of a repository."""
    import subprocess

    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


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


def finish(journal: Journal, status: str, ended: float | None = None) -> None:
    """End the run in the tracker unless it has ended well."""
    if ended_as(journal) != "FINISHED":
        journal.tags({"status": status})
        journal.end(ended=ended)


def record_of(task: dict) -> Record:
    """The record of the task's training, which has ended."""
    record = find_record(task)
    if record is None:
        raise RuntimeError(f"{task['label']}: the training ended without a record")
    return record


def told(record: Record) -> str:
    """Where and when the recorded training took place, in words."""
    when = time.strftime("%Y-%m-%d", time.gmtime(record.origin.ended))
    on = record.origin.accelerator or record.origin.processor
    return f"trained {when} on machine {record.origin.machine} ({on}), {record.dtype}"
