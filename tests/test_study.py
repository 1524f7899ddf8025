"""What the stages share: reading each other's outputs, one training's task, the tags of a run."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

from composed import composed_params
from lrstudy.ledger import Ledger
from lrstudy.ledger.equivalence import Equivalence, Pair, write_equivalence
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import check_params
from lrstudy.recipe.identity import training_code, training_identity
from lrstudy.study import tasks as study
from lrstudy.study.journals import common_tags, finish, mean_curves
from lrstudy.study.tasks import record_of, told, training_task
from lrstudy.study.workspace import git_revision
from lrstudy.tracking.journal import Journal
from lrstudy.training import devices
from tiny_data import record, settings

PARAMS = check_params(composed_params())
CELL = make_cell(PARAMS, "resnet", "step")
META = {
    "dataset": "cifar10",
    "label": "CIFAR-10",
    "official": True,
    "fingerprint": "f00d",
    "num_examples": {"train": 45_000, "validation": 5_000, "test": 10_000},
}


def task(root: Path = Path("/work"), seed: int = 1, meta: dict = META, **options) -> dict:
    return training_task(CELL, PARAMS, CELL.settings(), seed, meta, root, "label", **options)


def on(monkeypatch, device: str, bfloat16: bool) -> None:
    """A machine whose ``auto`` comes to this kind of device, with or without bfloat16."""
    monkeypatch.setattr(devices, "choose_device", lambda asked: torch.device(device))
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    monkeypatch.setattr(
        devices, "choose_dtype", lambda asked, _: dtype if asked == "auto" else getattr(torch, asked)
    )
    monkeypatch.setattr(study, "has_accelerator", lambda: device != "cpu")
    monkeypatch.setattr(study, "multiplies_bfloat16", lambda: bfloat16)


def test_a_task_has_all_that_a_training_depends_on_and_a_folder_named_after_it(monkeypatch):
    on(monkeypatch, "cpu", bfloat16=False)
    found = task(seed=7, keep_weights=True, journal=False)
    assert found["settings"] == CELL.settings() | {
        "training_share": 1.0,
        "seed": 7,
        "threads": PARAMS.train.threads,
        "device": "cpu",  # what auto came to, here and below
        "precision": "float32",
        "augment": PARAMS.train.augment,
        "gradient_clip": PARAMS.train.gradient_clip,
        "compile": PARAMS.train.compile,
    }
    assert found["folder"] == f"/work/checkpoints/resnet-step/{found['key'][:16]}"
    assert found["ledger"] == "/work/ledger"
    assert found["labels"] == {"model": "resnet", "schedule": "step", "role": "final"}
    assert found["described"] == META
    assert (found["keep_weights"], found["journal"]) == (True, False)
    assert Path(found["data"]).is_absolute()
    assert found["data"].endswith("data/processed/cifar10")
    assert json.loads(json.dumps(found)) == found  # it travels to another process


def test_the_same_training_has_the_same_folder_wherever_it_is_asked_for():
    assert task()["key"] == task(keep_weights=True)["key"] == task(Path("/elsewhere"))["key"]
    keys = {task(seed=seed)["key"] for seed in (1, 2)} | {task(meta=META | {"fingerprint": "beef"})["key"]}
    assert len(keys) == 3


def test_a_task_is_known_by_its_settings_its_data_and_the_code_that_it_uses():
    found = task()
    code = training_code(CELL.settings())
    assert found["code"] == code
    assert found["key"] == training_identity(found["settings"], META["fingerprint"], code)
    assert found["identities"] == [found["key"]]


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_auto_is_what_it_comes_to_on_the_machine_that_trains(monkeypatch, precision):
    """The same words on a processor with and without bfloat16 are two trainings; the dtype by name is one."""
    asked = CELL.settings() | {"precision": precision}
    found = []
    for bfloat16 in (False, True):
        with monkeypatch.context() as patch:
            on(patch, "cpu", bfloat16)
            found.append(training_task(CELL, PARAMS, asked, 1, META, Path("/work"), "label"))
    plain, mixed = (one["settings"]["precision"] for one in found)
    assert (plain, mixed) == (("float32", "bfloat16") if precision == "auto" else (precision, precision))
    assert (found[0]["key"] == found[1]["key"]) == (precision != "auto")


def test_the_kind_of_device_is_part_of_a_training(monkeypatch):
    keys = []
    for device in ("cpu", "cuda"):
        with monkeypatch.context() as patch:
            on(patch, device, bfloat16=True)
            keys.append(task()["key"])
    assert keys[0] != keys[1]


def test_on_a_cluster_auto_is_asked_once_where_the_training_will_run(monkeypatch):
    """The machine that submits may be a laptop without bfloat16 or accelerator."""
    params = check_params(composed_params("parallel=ray"))
    asked = []

    def there(function, tasks, *workers):
        asked.append((function, list(tasks), workers))
        return [("cuda", "bfloat16")]

    monkeypatch.setattr(study, "run_all", there)
    monkeypatch.setattr(study, "_on_cluster", {})
    for seed in (1, 2):
        found = training_task(CELL, params, CELL.settings(), seed, META, Path("/work"), "label")
        assert (found["settings"]["device"], found["settings"]["precision"]) == ("cuda", "bfloat16")
    words = {"device": params.train.device, "precision": CELL.settings()["precision"]}
    assert asked == [(devices.resolve, [words], params.workers)]


def test_a_code_that_was_proven_equal_finds_the_older_records(tmp_path):
    """A training under refactored code has the older code's identities too, and is recorded under it."""
    new = training_code(CELL.settings())
    old = new | {"loop": "0" * 64}
    found = task(tmp_path)
    assert found["identities"] == [found["key"]]
    write_equivalence(
        tmp_path / "ledger/equivalences",
        Equivalence(
            format=1,
            pairs=[Pair(part="loop", name="", old=old["loop"], new=new["loop"])],
            base="a" * 40,
            revision="b" * 40,
            compared={},
            origin=record([0.5]).origin,
        ),
    )
    found = task(tmp_path)
    assert set(found["identities"]) == {
        training_identity(found["settings"], META["fingerprint"], code) for code in (old, new)
    }
    assert found["code"] == old
    assert found["key"] == training_identity(found["settings"], META["fingerprint"], old)


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
    git_revision.cache_clear()  # asked once in a process
    assert git_revision() == ""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    git_revision.cache_clear()
    assert git_revision() == head.strip()
    git_revision.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert git_revision() == ""
    git_revision.cache_clear()


def test_a_run_is_ended_once(tmp_path):
    journal = Journal(tmp_path, "key")
    journal.create("run", {})
    finish(journal, "diverged")
    finish(journal, "finished")
    _, tags, end = journal.events()
    assert (tags["tags"], end["status"]) == ({"status": "diverged"}, "FINISHED")


def test_a_training_without_a_record_is_not_taken_for_one(tmp_path):
    found = task(tmp_path)
    with pytest.raises(RuntimeError, match="label: the training ended without a record"):
        record_of(found)
    settings = found["settings"] | {"num_epochs": 2}
    known = record([0.5, 0.25], chosen=settings, code=found["code"])
    Ledger(found["ledger"]).add(known)
    assert record_of(found | {"identities": ["f" * 64, known.identity]}) == known


def test_a_record_is_told_by_when_and_where_it_was_trained():
    known = record([0.5], start=86_400.0)
    assert told(known) == "trained 1970-01-02 on machine 0123abcd (a processor), float32"
    accelerated = known.origin.model_copy(update={"accelerator": "NVIDIA H100"})
    assert "on machine 0123abcd (NVIDIA H100)" in told(known.model_copy(update={"origin": accelerated}))


def curve(losses: list[float], start: float) -> list[dict]:
    """The epochs of a training that end a second apart, with these validation losses."""
    names = (
        "train/loss", "train/accuracy", "train/f1", "train/f1_macro",
        "validation/accuracy", "validation/f1", "validation/f1_macro",
    )  # fmt: skip
    return [
        {"epoch": number, "time": start + number, "validation/loss": loss, "lr": 0.1 / number}
        | dict.fromkeys(names, loss / 2)
        for number, loss in enumerate(losses, 1)
    ]


def test_mean_curves_are_means_over_the_seeds_epoch_by_epoch():
    found = mean_curves([curve([1.0, 0.5], 100.0), curve([2.0, 1.0], 200.0)])
    assert ("validation/loss", 1.5, 1, 201_000) in found
    assert ("validation/loss", 0.75, 2, 202_000) in found
    assert ("train/loss", 0.375, 2, 202_000) in found
    assert ("lr", 0.05, 2, 202_000) in found
    assert len(found) == 2 * 9


def test_mean_curves_end_with_the_first_seed_that_diverged():
    found = mean_curves([curve([1.0, 0.5, 0.4], 0.0), curve([2.0, math.nan], 0.0)])
    assert {step for _, _, step, _ in found} == {1, 2}
    (last,) = (value for name, value, step, _ in found if name == "validation/loss" and step == 2)
    assert math.isnan(last)


def test_a_training_is_found_under_every_code_that_was_proven_equal_and_under_no_mixture(tmp_path):
    """Two proofs, each of loop and schedule together: three codes, not nine."""
    origin = record([0.5]).origin

    def code(version: int) -> dict[str, str]:
        return {part: f"{version}{number}" * 32 for number, part in enumerate(("loop", "schedule"))}

    for old in (0, 1):
        pairs = [
            Pair(part=part, name="", old=code(old)[part], new=code(old + 1)[part])
            for part in ("loop", "schedule")
        ]
        found = Equivalence(format=1, pairs=pairs, base="b", revision="r", compared={}, origin=origin)
        write_equivalence(tmp_path / "equivalences", found)
    ledger, chosen = Ledger(tmp_path), settings()
    every = {training_identity(chosen, "data", code(version)) for version in range(3)}
    for version in range(3):
        identities = ledger.identities(chosen, "data", code(version))
        assert identities[0] == training_identity(chosen, "data", code(0))  # the oldest
        assert set(identities) == every
        assert ledger.canonical(code(version)) == code(0)
    unrelated = {"loop": "a" * 64, "schedule": "b" * 64}
    assert ledger.identities(chosen, "data", unrelated) == [training_identity(chosen, "data", unrelated)]
