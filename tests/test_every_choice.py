"""Every schedule, controller and optimizer of conf/ through tune, train and evaluate, as their stages run them.

The stages' ``main`` functions run in this process on the parameters that ``dvc exp run -S ...`` would compose:
the same walk without DVC's and torch's start-up for each of some forty choices.
"""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from composed import conf_section
from lrstudy.compose import compose

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with the sample's data sets, as small as they come."""
    folder = tmp_path_factory.mktemp("choices")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("LRSTUDY_WORKERS", "1")
        compose(ROOT, folder / "params.yaml", ["data=sample", "preset=smoke"])
        for dataset in ("cifar10", "imdb"):
            stage(patch, "download", dataset)
            stage(patch, "preprocess", dataset)
        yield folder, patch


def stage(patch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    patch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(f"lrstudy.stages.{name}").main()


def walk(workspace, model: str, schedule: str, *overrides: str) -> dict:
    """Tune, train and evaluate one cell; returns what training wrote."""
    folder, patch = workspace
    chosen = ["data=sample", "preset=smoke", f"model={model}", f"schedule={schedule}", *overrides]
    compose(ROOT, folder / "params.yaml", chosen)
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    for name in ("tune", "train", "evaluate"):
        stage(patch, name, model, schedule)
    metrics = json.loads((folder / f"artifacts/evaluate/{model}/{schedule}/metrics.json").read_text())
    assert 0 <= metrics["scores"]["1"]["last"]["accuracy"] <= 1
    training = metrics["training"]
    assert training["seeds"]["1"]["status"] == "finished"
    assert training["seeds"]["1"]["run_id"]
    return training


@pytest.mark.parametrize("schedule", choices("schedule"))
def test_every_schedule_runs(workspace, schedule):
    training = walk(workspace, "lstm", schedule)
    row = conf_section("schedule", schedule)
    assert training["settings"]["schedule"]["function"] == row.get("function", schedule)
    assert training["settings"]["controller"]["name"] == row.get("controller", {"name": "none"})["name"]


MODELS = ("resnet", "lstm", "transformer")
OPTIMIZERS, CONTROLLERS = choices("optimizer"), choices("controller")


@pytest.mark.parametrize("number", range(max(len(OPTIMIZERS), len(CONTROLLERS))))
def test_every_optimizer_and_every_controller_runs(workspace, number):
    """Each at least once, and each model several times; what a cell may join is tests/test_pipeline.py's."""
    model, schedule = MODELS[number % 3], ("cosine", "cosine_warmup", "static", "step")[number % 4]
    optimizer, controller = (names[number % len(names)] for names in (OPTIMIZERS, CONTROLLERS))
    training = walk(workspace, model, schedule, f"optimizer={optimizer}", f"controller={controller}")
    assert training["settings"]["controller"]["name"] == controller
    assert training["settings"]["optimizer"]["name"] == (
        optimizer if optimizer != "per_model" else conf_section("model", model)["optimizer"]["name"]
    )
