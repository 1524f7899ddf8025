"""The search as its stages run it: tune, then train with what it found, and why, which goes through it again."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from composed import composed_params
from lrstudy.analysis.time_to_target import target
from lrstudy.data import read_meta
from lrstudy.ledger import Ledger
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params
from lrstudy.study.collect import cell_of, collect, of_training
from lrstudy.study.outputs import Best
from lrstudy.study.plan import plan
from lrstudy.study.tasks import DESCRIBED
from lrstudy.study.workspace import data_folder
from tiny_data import write_dataset

pytestmark = pytest.mark.slow
SETTINGS = (
    "preset=smoke", "model=lstm", "num_epochs.imdb=2", "tune.num_trials=3", "tune.finalists=2",
    "tune.confirm_seeds=[102]", "tune.searches=2", "train.seeds=[1,2]",
)  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A tiny data set on which two rows were tuned and trained, each with two searches."""
    folder = tmp_path_factory.mktemp("searches")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "LRSTUDY_OPTUNA_STORAGE"):
            patch.delenv(name, raising=False)
        patch.setenv("LRSTUDY_WORKERS", "1")
        write_dataset("text", folder / "data/processed/imdb")
        params = composed_params("schedule=[static,cosine]", *SETTINGS)
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        for schedule in ("static", "cosine"):
            for stage in ("tune", "train"):
                patch.setattr(sys, "argv", [stage, "lstm", schedule])
                importlib.import_module(f"lrstudy.stages.{stage}").main()
        yield folder


def read(workspace: Path, kind: str, schedule: str, name: str) -> dict:
    return json.loads((workspace / "artifacts" / kind / "lstm" / schedule / name).read_text())


@pytest.mark.parametrize("schedule", ["static", "cosine"])
def test_the_seeds_are_trained_with_the_values_of_their_searches(workspace, schedule):
    tuned = read(workspace, "tuned", schedule, "best.json")
    trained = read(workspace, "train", schedule, "training.json")
    first, second = tuned["searches"]
    assert [search["sampler_seed"] for search in (first, second)] == [0, 1]
    assert tuned["values"] == first["values"]
    assert trained["searches"] == 2
    assert trained["seeds"]["1"]["values"] == first["values"]
    assert trained["seeds"]["2"]["values"] == second["values"]
    assert [trained["seeds"][seed]["search"] for seed in ("1", "2")] == [1, 2]
    ledger = Ledger(workspace / "ledger")
    for seed in ("1", "2"):
        record = ledger.find(trained["seeds"][seed]["identity"])
        told = trained["seeds"][seed]
        assert record.settings["optimizer"]["base_lr"] == told["values"]["base_lr"] == told["base_lr"]
        assert record.settings["schedule"]["parameters"] == told["parameters"]


def test_the_target_is_what_the_ledger_has_of_the_chosen_trials(workspace):
    """Of both searches: the mean over the tuning seeds of macro F1 on validation data, at the last epoch."""
    params, tuned = load_params(), read(workspace, "tuned", "static", "best.json")
    ledger, reached = Ledger(workspace / "ledger"), []
    for search in tuned["searches"]:
        trial = search["trials"][search["best_trial"]]
        parts = [trial[phase] for phase in ("search", "confirmation") if trial[phase] is not None]
        records = [ledger.find(name) for part in parts for name in part["identities"]]
        reached.append(np.mean([record.history["validation/f1_macro"][-1] for record in records]))
    found = target("lstm", tuned, "test/f1_macro", params.compare)
    assert found.value == pytest.approx(np.mean(reached))
    assert found.source.startswith("what static ended with in its search")


def test_best_json_says_how_the_values_were_found(workspace):
    tuned = read(workspace, "tuned", "cosine", "best.json")
    for search in tuned["searches"]:
        trials = search["trials"]
        assert [trial["number"] for trial in trials] == [0, 1, 2]
        assert sum(trial["confirmation"] is not None for trial in trials) == 2
        best = trials[search["best_trial"]]
        assert (best["values"], best["objective"]) == (search["values"], search["objective"])
        for trial in trials:
            losses = trial["search"]["losses"] + (trial["confirmation"] or {"losses": []})["losses"]
            assert trial["objective"] == pytest.approx(sum(losses) / len(losses))
        assert search["exhausted"] is False
    first, second = (search["trials"] for search in tuned["searches"])
    assert first[0]["search"]["identities"] == second[0]["search"]["identities"]  # the defaults
    # the defaults alone, then with one, two, ... of the four others
    assert [row["num_trials"] for row in tuned["budget"]] == [1, 2, 3, 4, 5]
    assert set(tuned["budget"][0]) == {"num_trials", "loss", "accuracy", "f1", "f1_macro"}
    lowest = min(trial["search"]["objective"] for trial in first + second)
    assert tuned["budget"][-1]["loss"] == pytest.approx(lowest)
    assert tuned["within_the_noise"]["noise"]["degrees_of_freedom"] in (
        3,
        4,
    )  # the defaults may be twice there


def test_the_cost_is_what_was_trained_and_the_same_for_both_schedules(workspace):
    records = [r for r in Ledger(workspace / "ledger").records() if r.labels.role == "trial"]
    for schedule in ("static", "cosine"):
        cost = read(workspace, "tuned", schedule, "best.json")["cost"]
        mine = [record for record in records if record.labels.schedule == schedule]
        assert cost["trainings"] == len(mine)
        assert cost["epochs"] == 2 * len(mine)
        assert cost["at_most"] == 2 * (3 + 2)
        # less the defaults, which both searches begin with, and may both confirm
        assert cost["trainings"] in (8, 9)


def test_why_goes_through_the_search_with_what_the_ledger_knows(workspace):
    params = load_params()
    meta = read_meta(data_folder("imdb"))
    meta = {key: meta[key] for key in DESCRIBED}
    ledger = Ledger(workspace / "ledger")

    def planned(schedule: str, **changes):
        tune = params.tune.model_copy(update=changes)
        asked = params.model_copy(update={"tune": tune})
        return plan(make_cell(asked, "lstm", schedule), asked, meta, workspace, ledger.find)

    for schedule in ("static", "cosine"):
        found = planned(schedule)
        assert found.waiting == ""
        assert found.missing == []
        trainings = read(workspace, "tuned", schedule, "best.json")["cost"]["trainings"]
        assert len(found.needs) == trainings + 2  # each once, and the two seeds
        seeds = read(workspace, "train", schedule, "training.json")["seeds"]
        wanted = {need.task["key"] for need in found.needs if need.name.startswith("seed")}
        assert wanted == {seed["key"] for seed in seeds.values()}
    # With a further seed of the confirmation the finalists are known, and the winners not.
    found = planned("cosine", confirm_seeds=[102, 103])
    assert {need.name.split(" seed ")[1] for need in found.missing} == {"103"}
    assert all("confirmation" in need.name for need in found.missing)
    assert found.waiting == "2 trainings with the values that the search will find"
    # With a trial more the search is not known to its end.
    found = planned("cosine", num_trials=4, searches=1)
    assert [need.name for need in found.missing] == ["trial 3 seed 101"]


def test_what_is_collected_from_the_ledger_is_what_the_stages_wrote(workspace):
    plans, notes = collect(load_params(), list(Ledger(workspace / "ledger").records()), workspace)
    assert notes == []
    for schedule in ("static", "cosine"):
        found = plans[f"lstm-{schedule}"]
        tuned = read(workspace, "tuned", schedule, "best.json")
        del tuned["study"]
        assert found.tuned == tuned
        trained = read(workspace, "train", schedule, "training.json")
        for seed, need in found.seeds.items():
            told = of_training(need.record, *Best(**found.tuned).values_for(seed))
            assert told.items() <= trained["seeds"][str(seed)].items()
        assert (found.measured, cell_of(found)) == ({}, None)  # evaluate has not run


def test_a_search_that_ran_is_read_from_the_ledger(workspace, monkeypatch, capfd):
    """Without Optuna's database: nothing is trained again, and what comes out is the same."""
    before = read(workspace, "tuned", "cosine", "best.json")
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", f"sqlite:///{workspace}/another.db")
    monkeypatch.setattr(sys, "argv", ["tune", "lstm", "cosine"])
    importlib.import_module("lrstudy.stages.tune").main()
    assert "epoch  1/2" not in capfd.readouterr().out
    assert read(workspace, "tuned", "cosine", "best.json") == before
