"""What the stages share: where things are, and the runs of a cell with their journals."""

import json
import os
from pathlib import Path

from lrstudy.cells import Cell
from lrstudy.config import Params
from lrstudy.errors import StudyError
from lrstudy.runs import fingerprint, read_outcome, run_folder
from lrstudy.tracking import Journal


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


def read_json(path: Path, stage: str) -> dict:
    """Read another stage's output.

    Raises:
        StudyError: it is missing or not JSON; names the stage that makes it.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StudyError(f"{path}: not found; `dvc repro {stage}` makes it.") from None
    except json.JSONDecodeError as error:
        raise StudyError(
            f"{path}: not JSON (line {error.lineno}); `dvc repro --force -s {stage}` makes it anew."
        ) from None


def run_task(
    cell: Cell,
    params: Params,
    settings: dict,
    seed: int,
    meta: dict,
    root: Path,
    label: str,
    *,
    training_share: float = 1.0,
    **options: bool,
) -> dict:
    """One training as :func:`lrstudy.runs.train_run` takes it: ``settings`` and what all trainings share.

    ``training_share`` of the training split is used, all of the validation split.
    """
    train = params.train
    settings = settings | {
        "training_share": training_share,
        "seed": seed,
        "threads": train.threads,
        "device": train.device,
        "augment": train.augment,
        "gradient_clip": train.gradient_clip,
    }
    key = fingerprint(settings, meta["fingerprint"])
    return {
        "folder": str(run_folder(root, cell.name, key)),
        "key": key,
        "label": label,
        "settings": settings,
        "data": str(data_folder(cell.dataset).resolve()),
        **options,
    }


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


def git_revision() -> str:
    """The checked-out commit, or nothing outside of a repository."""
    import subprocess

    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def finish(journal: Journal, status: str) -> None:
    """End the run in the tracker unless it has ended."""
    if not any(event["event"] == "end" for event in journal.events()):
        journal.tags({"status": status})
        journal.end()


def outcome_of(folder: str | Path) -> dict:
    """The finished training in ``folder``."""
    outcome = read_outcome(Path(folder))
    if outcome is None:
        raise RuntimeError(f"{folder}: the training ended without an outcome")
    return outcome
