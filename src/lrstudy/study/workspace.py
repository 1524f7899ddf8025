"""Where a study's files are."""

import functools
from pathlib import Path

REPORTS = Path("reports")
"""What the repository keeps of a study beside its ledger."""


TRAININGS = Path("artifacts/trainings.json")
"""What was trained ahead of the cells' stages: by cell and seed the training's identity."""


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


def finder_file(model: str) -> Path:
    """A model's range tests; in git, since no stage makes them."""
    return REPORTS / "finder" / f"{model}.json"


def ledger_folder(root: Path) -> Path:
    """The ledger of the workspace."""
    return root / "ledger"


@functools.cache
def git_revision() -> str:
    """The checked-out commit, or nothing outside of a repository."""
    import subprocess

    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
