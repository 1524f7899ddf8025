"""What the stages share: reading each other's outputs, one training's task, the tags of a run."""

import json
import math
import subprocess
from pathlib import Path

import pytest

from composed import composed_params
from lrstudy.cells import make_cell
from lrstudy.config import check_params
from lrstudy.errors import StudyError
from lrstudy.study import (
    common_tags,
    finish,
    git_revision,
    mean_curves,
    outcome_of,
    read_json,
    run_task,
)
from lrstudy.tracking import Journal

PARAMS = check_params(composed_params())
CELL = make_cell(PARAMS, "resnet", "step")
META = {"label": "CIFAR-10", "official": True, "fingerprint": "f00d"}


def test_another_stages_output_is_read_or_the_stage_is_named(tmp_path):
    path = tmp_path / "best.json"
    with pytest.raises(StudyError, match=r"best\.json: not found; `dvc repro tune@resnet-step` makes it"):
        read_json(path, "tune@resnet-step")
    path.write_text('{"values":\n')
    with pytest.raises(
        StudyError, match=r"best\.json: not JSON \(line 2\); `dvc repro --force -s tune@resnet-step`"
    ):
        read_json(path, "tune@resnet-step")
    path.write_text('{"values": {}}')
    assert read_json(path, "tune@resnet-step") == {"values": {}}


def task(root: Path = Path("/work"), seed: int = 1, meta: dict = META, **options) -> dict:
    return run_task(CELL, PARAMS, CELL.settings(), seed, meta, root, "label", **options)


def test_a_task_has_all_that_a_training_depends_on_and_a_folder_named_after_it():
    found = task(seed=7, keep_weights=True, journal=False)
    assert found["settings"] == CELL.settings() | {
        "training_share": 1.0,
        "seed": 7,
        "threads": PARAMS.train.threads,
        "device": PARAMS.train.device,
        "augment": PARAMS.train.augment,
        "gradient_clip": PARAMS.train.gradient_clip,
        "compile": PARAMS.train.compile,
    }
    assert found["folder"] == f"/work/checkpoints/resnet-step/{found['key'][:16]}"
    assert (found["keep_weights"], found["journal"]) == (True, False)
    assert Path(found["data"]).is_absolute()
    assert found["data"].endswith("data/processed/cifar10")
    assert json.loads(json.dumps(found)) == found  # it travels to another process


def test_the_same_training_has_the_same_folder_wherever_it_is_asked_for():
    assert task()["key"] == task(keep_weights=True)["key"] == task(Path("/elsewhere"))["key"]
    keys = {task(seed=seed)["key"] for seed in (1, 2)} | {task(meta=META | {"fingerprint": "beef"})["key"]}
    assert len(keys) == 3


def test_a_training_on_a_share_of_the_data_is_another_training():
    half = task(training_share=0.5, keep_weights=False)
    assert half["settings"] == task()["settings"] | {"training_share": 0.5}
    assert "training_share" not in half  # it stands among the settings alone, of which the key is made
    assert task(training_share=1.0)["key"] == task()["key"]
    shares = (1.0, 0.5, 0.25)
    assert len({task(training_share=share)["folder"] for share in shares}) == len(shares)


def test_a_runs_tags_say_what_to_filter_by(monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "lurid-newt")
    monkeypatch.setenv("DVC_STAGE", "train@resnet-step")
    tags = common_tags(CELL, PARAMS, META)
    expected = {
        "model": "resnet", "schedule": "step", "optimizer": "nesterov", "controller": "none",
        "dataset": "cifar10", "data": "CIFAR-10", "data.official": "true", "data.fingerprint": "f00d",
        "preset": PARAMS.preset, "dvc.experiment": "lurid-newt", "mlflow.source.name": "train@resnet-step",
    }  # fmt: skip
    assert expected.items() <= tags.items()
    assert all(isinstance(value, str) for value in tags.values())
    monkeypatch.delenv("DVC_EXP_NAME")
    monkeypatch.delenv("DVC_STAGE")
    tags = common_tags(CELL, PARAMS, META | {"official": False})
    assert (tags["dvc.experiment"], tags["mlflow.source.name"]) == ("", "lrstudy")
    assert tags["data.official"] == "false"


def test_the_revision_is_the_checked_out_commit_or_nothing(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_revision() == ""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert git_revision() == head.strip()
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert git_revision() == ""


def test_a_run_is_ended_once(tmp_path):
    journal = Journal(tmp_path, "key")
    journal.create("run", {})
    finish(journal, "diverged")
    finish(journal, "finished")
    _, tags, end = journal.events()
    assert (tags["tags"], end["status"]) == ({"status": "diverged"}, "FINISHED")


def test_a_training_without_an_outcome_is_not_taken_for_one(tmp_path):
    with pytest.raises(RuntimeError, match="ended without an outcome"):
        outcome_of(tmp_path)
    outcome = {"status": "finished", "best_epoch": 1, "epochs": [{"epoch": 1, "validation/loss": 0.5}]}
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    assert outcome_of(str(tmp_path)) == outcome


def curve(losses: list[float], start: float) -> dict:
    """A training whose epochs end a second apart, with these validation losses."""
    names = ("train/loss", "train/accuracy", "train/f1", "validation/accuracy", "validation/f1")
    return {
        "epochs": [
            {"epoch": number, "time": start + number, "validation/loss": loss, "lr": 0.1 / number}
            | dict.fromkeys(names, loss / 2)
            for number, loss in enumerate(losses, 1)
        ]
    }


def test_mean_curves_are_means_over_the_seeds_epoch_by_epoch():
    found = mean_curves([curve([1.0, 0.5], 100.0), curve([2.0, 1.0], 200.0)])
    assert ("validation/loss", 1.5, 1, 201_000) in found
    assert ("validation/loss", 0.75, 2, 202_000) in found
    assert ("train/loss", 0.375, 2, 202_000) in found
    assert ("lr", 0.05, 2, 202_000) in found
    assert len(found) == 2 * 7


def test_mean_curves_end_with_the_first_seed_that_diverged():
    found = mean_curves([curve([1.0, 0.5, 0.4], 0.0), curve([2.0, math.nan], 0.0)])
    assert {step for _, _, step, _ in found} == {1, 2}
    (last,) = (value for name, value, step, _ in found if name == "validation/loss" and step == 2)
    assert math.isnan(last)
