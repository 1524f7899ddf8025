"""reports/comparison.json of a study that was worked by hand."""

import copy
import json
import math

import pytest

from known_study import SETTINGS, cells, tuning
from lrstudy.comparison import compare, curves, metrics_by_seed
from lrstudy.statistics import bootstrap_interval


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.fixture(scope="module")
def compared() -> dict:
    return compare(cells(), SETTINGS)


def test_a_cells_numbers_are_those_worked_by_hand(compared):
    cell = compared["resnet"]["exponential"]
    accuracy = cell["metrics"]["test/accuracy"]
    assert accuracy["values"] == {"1": 0.73, "2": 0.73, "3": 0.79}
    assert accuracy["mean"] == close(0.75)
    assert accuracy["spread"] == close(math.sqrt((0.02**2 + 0.02**2 + 0.04**2) / 2))
    assert accuracy["interval"] == bootstrap_interval([0.73, 0.73, 0.79], 0.95, 100)
    assert cell["metrics"]["test/f1"]["mean"] == close(0.74)
    assert cell["metrics"]["test/loss"]["mean"] == close(0.25)
    assert cell["metrics"]["test_best/accuracy"]["mean"] == close(0.77)
    assert cell["metrics"]["test_best/f1"]["mean"] == close(0.76)
    assert cell["metrics"]["train/accuracy"]["mean"] == close(0.85)
    assert cell["metrics"]["generalization_gap"]["mean"] == close(0.1)
    assert cell["metrics"]["validation/loss"]["values"] == {
        "1": 0.61,
        "2": 0.62,
        "3": 0.63,
    }  # the last epoch's
    assert cell["metrics"]["best_epoch"]["values"] == {"1": 2.0, "2": 1.0, "3": 2.0}
    assert cell["metrics"]["seconds"]["values"] == {"1": 3.5, "2": 3.5, "3": 3.5}


def test_a_cell_says_what_it_is(compared):
    cell = compared["lstm"]["cosine"]
    assert {name: value for name, value in cell.items() if name != "metrics"} == {
        "seeds": [1, 2, 3],
        "diverged": [],
        "base_lr": 0.125,
        "parameters": {"min_factor": 0.0},
        "warmup_epochs": 0.0,
        "optimizer": "sgd",
        "controller": "none",
        "num_epochs": 2,
        "tuned": "tuned",
        "interventions": {"1": 0, "2": 0, "3": 0},
        "run_ids": {seed: f"run-lstm-cosine-{seed}" for seed in "123"},
        "dataset": "imdb",
        "tuning": {
            name: found for name, found in tuning("cosine").items() if name not in ("source", "trials")
        }
        | {
            "largest_rise": {
                "parameter": "base_lr",
                "side": "half",
                "value": 0.0625,
                "change": 0.05,
                "interval": [0.01, 0.09],
            }
        },
    }


def test_the_parameter_and_side_that_cost_most_stand_out(compared):
    rise = compared["resnet"]["exponential"]["tuning"]["largest_rise"]
    assert (rise["parameter"], rise["side"], rise["change"]) == ("decay_rate", "double", 0.2)


def test_a_cell_that_took_the_defaults_unsearched_has_no_tuning():
    study = cells()
    study["lstm"]["static"]["tuning"] = {"source": "defaults", "values": {"base_lr": 0.125}, "trials": []}
    assert compare(study, SETTINGS)["lstm"]["static"]["tuning"] is None


def test_differences_to_the_reference_are_taken_seed_by_seed(compared):
    difference = compared["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]
    assert difference["values"] == {"1": close(0.03), "2": close(0.01), "3": close(0.05)}
    assert difference["mean"] == close(0.03)
    values = list(difference["values"].values())
    assert difference["interval"] == bootstrap_interval(values, 0.95, 100)
    assert difference["probability_of_improvement"] == 1.0
    assert difference["p"] == close(0.25)  # three agree: 2 / 2^3
    assert difference["smallest_p"] == 0.25
    # cosine's p is 1 (below): Holm doubles the smaller one
    assert difference["p_holm"] == close(0.5)
    assert difference["smallest_p_holm"] == 0.5

    tie = compared["lstm"]["exponential"]["metrics"]["test/f1"]["difference"]
    assert tie["values"] == {"1": 0.0, "2": close(-0.01), "3": close(0.02)}
    assert tie["probability_of_improvement"] == close(0.5)
    assert tie["p"] == close(1.0)  # of -0.01 and 0.02, ranks 1 and 2, the smaller sum is 1: 2 of 4 patterns
    better = compared["lstm"]["cosine"]["metrics"]["test/f1"]["difference"]
    assert (better["mean"], better["p"], better["p_holm"]) == (close(0.05), close(0.25), close(0.5))


def test_only_accuracy_and_f1_are_tested_and_the_reference_has_no_difference(compared):
    for schedules in compared.values():
        assert not any("difference" in metric for metric in schedules["static"]["metrics"].values())
        for name in ("exponential", "cosine"):
            tested = {m for m, found in schedules[name]["metrics"].items() if "p" in found["difference"]}
            assert tested == {"test/accuracy", "test/f1"}


def test_a_diverged_run_counts_as_a_loss(compared):
    cell = compared["resnet"]["cosine"]
    assert cell["diverged"] == [2]
    accuracy = cell["metrics"]["test/accuracy"]
    assert accuracy["values"] == {"1": 0.75, "2": 0.0, "3": 0.80}
    assert accuracy["mean"] == close(1.55 / 3)
    assert accuracy["difference"]["values"]["2"] == close(-0.72)
    assert accuracy["difference"]["probability_of_improvement"] == close(2 / 3)
    # ranks 1, 3 (the loss) and 2: both sums are 3
    assert accuracy["difference"]["p"] == close(1.0)
    assert cell["metrics"]["test/f1"]["values"]["2"] == 0.0
    # what has no meaning without a working model is left out, not made up
    for name, mean in (("test/loss", 0.225), ("generalization_gap", 0.1), ("best_epoch", 2.0)):
        metric = cell["metrics"][name]
        assert metric["values"]["2"] is None
        assert metric["mean"] == close(mean)
        assert set(metric["difference"]["values"]) == {"1", "3"}
    assert cell["metrics"]["seconds"]["values"]["2"] == 1.5


def test_a_run_whose_predictions_are_not_numbers_has_diverged_however_it_ended():
    changed = cells()
    changed["resnet"]["static"]["scores"]["3"]["last"] = {
        "accuracy": None,
        "f1": None,
        "loss": None,
        "confusion": None,
    }
    cell = compare(changed, SETTINGS)["resnet"]["static"]
    assert cell["diverged"] == [3]
    assert cell["metrics"]["test/accuracy"]["values"] == {"1": 0.70, "2": 0.72, "3": 0.0}
    assert cell["metrics"]["generalization_gap"]["values"]["3"] is None


def test_a_reference_that_diverged_loses_too():
    changed = cells()
    schedules = changed["resnet"]
    schedules["static"], schedules["cosine"] = schedules["cosine"], schedules["static"]
    difference = compare(changed, SETTINGS)["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]
    assert difference["values"]["2"] == close(0.73)


def test_a_cell_in_which_every_run_diverged_has_no_means_to_compare():
    changed = cells()
    cell = changed["resnet"]["cosine"]
    for seed in "13":
        cell["scores"][seed], cell["training"]["seeds"][seed]["status"] = cell["scores"]["2"], "diverged"
    metrics = compare(changed, SETTINGS)["resnet"]["cosine"]["metrics"]
    assert metrics["test/accuracy"]["mean"] == 0.0
    assert metrics["test/accuracy"]["difference"]["mean"] == close(-0.72)
    assert metrics["test/loss"] == {
        "values": {"1": None, "2": None, "3": None},
        "mean": None,
        "spread": None,
        "interval": None,
    }


def test_without_the_reference_there_are_no_differences():
    changed = cells()
    del changed["resnet"]["static"]
    compared = compare(changed, SETTINGS)
    assert not any("difference" in m for c in compared["resnet"].values() for m in c["metrics"].values())
    assert any("difference" in m for c in compared["lstm"].values() for m in c["metrics"].values())


def test_a_missing_cell_changes_no_other_number_but_what_was_adjusted_for_it(compared):
    changed = cells()
    del changed["resnet"]["cosine"]
    left = compare(changed, SETTINGS)
    assert left["lstm"] == compared["lstm"]
    assert left["resnet"]["static"] == compared["resnet"]["static"]
    mine, before = (
        copy.deepcopy(left["resnet"]["exponential"]),
        copy.deepcopy(compared["resnet"]["exponential"]),
    )
    for cell, adjusted in ((mine, 0.25), (before, 0.5)):
        for name in ("test/accuracy", "test/f1"):
            assert cell["metrics"][name]["difference"].pop("p_holm") == close(adjusted)
            assert cell["metrics"][name]["difference"].pop("smallest_p_holm") == adjusted
    assert mine == before


def test_seeds_that_only_one_of_the_two_ran_are_not_paired():
    changed = cells()
    static = changed["resnet"]["static"]
    for part in (static["scores"], static["training"]["seeds"]):
        del part["3"]
    static["history"] = [row for row in static["history"] if row["seed"] != 3]
    difference = compare(changed, SETTINGS)["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]
    assert difference["values"] == {"1": close(0.03), "2": close(0.01)}
    assert difference["smallest_p"] == 0.5


def test_a_single_seed_has_neither_spread_nor_interval():
    changed = cells()
    for schedules in changed.values():
        for cell in schedules.values():
            for part in (cell["scores"], cell["training"]["seeds"]):
                for seed in "23":
                    del part[seed]
            cell["history"] = [row for row in cell["history"] if row["seed"] == 1]
    metric = compare(changed, SETTINGS)["resnet"]["cosine"]["metrics"]["test/accuracy"]
    assert (metric["mean"], metric["spread"], metric["interval"]) == (0.75, None, None)
    difference = metric["difference"]
    assert (difference["mean"], difference["interval"]) == (close(0.05), None)
    assert (difference["p"], difference["smallest_p"], difference["p_holm"]) == (1.0, 1.0, 1.0)


def test_the_comparison_is_json_without_nan_and_the_same_every_time(compared):
    text = json.dumps(compared, allow_nan=False)
    assert text == json.dumps(compare(cells(), SETTINGS), allow_nan=False)


def test_every_metric_has_a_value_for_every_seed():
    for schedules in cells().values():
        for cell in schedules.values():
            assert {tuple(values) for values in metrics_by_seed(cell).values()} == {("1", "2", "3")}


# --- curves ---


def test_curves_are_means_over_seeds_by_epoch():
    rows = curves(cells())
    assert len(rows) == 6 * 2
    assert [(row["model"], row["schedule"], row["epoch"]) for row in rows[:3]] == [
        ("resnet", "static", 1),
        ("resnet", "static", 2),
        ("resnet", "exponential", 1),
    ]
    first, second = rows[:2]
    assert first["train/loss"] == close(1.02)
    assert second["validation/loss"] == close(0.62)
    assert second["validation/loss_std"] == close(0.01)
    assert second["train/accuracy"] == close(0.82)
    assert second["train/accuracy_std"] == close(0.02)
    assert second["lr"] == 0.0625
    assert {tuple(row) for row in rows} == {tuple(first)}  # one header fits all
    assert "seed" not in first


def test_the_epoch_in_which_a_seed_diverged_is_the_mean_over_the_others():
    first, second = (
        row for row in curves(cells()) if (row["model"], row["schedule"]) == ("resnet", "cosine")
    )
    for row, accuracy in ((first, 0.675), (second, 0.775)):
        assert row["validation/accuracy"] == close(accuracy)
        assert row["train/loss"] == close(1 / row["epoch"] + 0.02)
    assert first["validation/accuracy_std"] == close(0.05 / math.sqrt(2))


def test_an_epoch_in_which_every_seed_diverged_stays_and_is_not_a_number():
    cell = cells()["resnet"]["cosine"]
    cell["history"] = [row for row in cell["history"] if row["seed"] == 2]
    (row,) = curves({"resnet": {"cosine": cell}})
    assert math.isnan(row["train/loss"])
    assert row["lr"] == 0.125
    assert row["train/loss_std"] == 0.0
