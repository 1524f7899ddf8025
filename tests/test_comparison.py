"""reports/comparison.json of a study that was worked by hand."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from known_study import (
    ORIGIN,
    SETTINGS,
    cells,
    compare_as_written,
    identity,
    measured,
    measured_cell,
    trained_elsewhere,
    tuning,
)
from lrstudy.analysis.cells import curves, lr_range, metrics_by_seed
from lrstudy.analysis.comparison import TESTED, dynamic_rows, moves
from lrstudy.analysis.records import CellResult
from lrstudy.analysis.statistics import (
    seeds_and_examples_interval,
    signed_rank_p,
    standardized_mean,
    t_interval,
)
from lrstudy.training.evaluation import NO_SCORES


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def rows(schedules: dict) -> dict[str, CellResult]:
    return {name: CellResult.model_validate(cell) for name, cell in schedules.items()}


def compared_cells(study: dict) -> dict:
    return compare_as_written(study, SETTINGS)["cells"]


def without_seeds(study: dict, dropped: str) -> dict:
    """The study, every cell without the seeds that ``dropped`` names."""
    for schedules in study.values():
        for cell in schedules.values():
            for seed in dropped:
                del cell["scores"][seed], cell["training"]["seeds"][seed]
            cell["history"] = [row for row in cell["history"] if str(int(row["seed"])) not in dropped]
    return study


@pytest.fixture(scope="module")
def whole() -> dict:
    return compare_as_written(cells(), SETTINGS)


@pytest.fixture(scope="module")
def compared(whole) -> dict:
    return whole["cells"]


def test_a_cells_numbers_are_those_worked_by_hand(compared):
    cell = compared["resnet"]["exponential"]
    accuracy = cell["metrics"]["test/accuracy"]
    assert accuracy["values"] == {"1": 0.73, "2": 0.73, "3": 0.79}
    assert accuracy["mean"] == close(0.75)
    assert accuracy["spread"] == close(math.sqrt((0.02**2 + 0.02**2 + 0.04**2) / 2))
    assert accuracy["interval"] == list(t_interval([0.73, 0.73, 0.79]))
    assert cell["metrics"]["test/f1_macro"]["mean"] == close(0.74)
    assert cell["metrics"]["test/loss"]["mean"] == close(0.25)
    assert cell["metrics"]["test_best/accuracy"]["mean"] == close(0.77)
    assert cell["metrics"]["test_best/f1_macro"]["mean"] == close(0.76)
    assert cell["metrics"]["train/accuracy"]["mean"] == close(0.85)
    # The last weights get 0.15 more of the training examples right, the running accuracy is 0.1 above.
    assert cell["metrics"]["generalization_gap"]["mean"] == close(0.15)
    assert cell["metrics"]["train_evaluated/accuracy"]["mean"] == close(0.9)
    assert cell["metrics"]["generalization_gap_loss"]["mean"] == close(0.125)  # 0.25 and half of it
    assert cell["metrics"]["test/f1"]["mean"] == close(0.72)
    assert cell["metrics"]["test_ema/accuracy"]["mean"] == close(0.78)
    assert cell["metrics"]["test_tail_average/accuracy"]["mean"] == close(0.79)
    assert cell["metrics"]["validation_tail_average/loss"]["mean"] == 0.5
    assert cell["metrics"]["validation_last_fifth/accuracy"]["values"] == {"1": 0.73, "2": 0.73, "3": 0.79}
    assert cell["metrics"]["validation/loss"]["values"] == {
        "1": 0.61,
        "2": 0.62,
        "3": 0.63,
    }  # the last epoch's
    assert cell["metrics"]["best_epoch"]["values"] == {"1": 2.0, "2": 1.0, "3": 2.0}
    assert cell["metrics"]["seconds_per_epoch"]["values"] == {"1": 1.5, "2": 1.5, "3": 1.5}
    assert cell["metrics"]["epoch_slowdown"]["mean"] == close(1.75 / 1.5 - 1)


def test_a_cell_says_what_it_is(compared):
    cell = compared["lstm"]["cosine"]
    assert {name: value for name, value in cell.items() if name != "metrics"} == {
        "seeds": [1, 2, 3],
        "diverged": [],
        "base_lr": 0.125,
        "parameters": {"min_factor": 0.0},
        "by_search": {
            "1": {
                "seeds": [1, 2, 3],
                "values": {"base_lr": 0.125},
                "base_lr": 0.125,
                "parameters": {"min_factor": 0.0},
            }
        },
        "warmup_epochs": 0.0,
        "optimizer": "sgd",
        "controller": "none",
        "num_epochs": 2,
        "lr_range": [0.0625, 0.125],
        "compute_seconds": {"1": 3.5, "2": 3.5, "3": 3.5},
        "tuned": "tuned",
        "interventions": {"1": 0, "2": 0, "3": 0},
        "identities": {seed: identity("lstm", "cosine", seed) for seed in "123"},
        "origins": {
            "machine": {"e4bbde5c": [1, 2, 3]},
            "processor": {"AMD EPYC (avx512)": [1, 2, 3]},
            "device": {"cpu": [1, 2, 3]},
            "dtype": {"float32": [1, 2, 3]},
            "torch": {"2.14.1": [1, 2, 3]},
            "lrstudy": {"0.1.0": [1, 2, 3]},
            "revision": {ORIGIN["revision"]: [1, 2, 3]},
            "ended": [1.7e9, 1.7e9],
        },
        "dataset": "imdb",
        "headline": "test/f1_macro",
        "tuning": {
            name: found
            for name, found in tuning("lstm", "cosine").items()
            if name not in ("source", "model", "schedule")
        }
        | {
            "searches": [
                {
                    "sampler_seed": 0,
                    "values": {"base_lr": 0.125},
                    "objective": 0.75,
                    "best_trial": 3,
                    "exhausted": False,
                    "num_tried": 8,
                }
            ],
            "largest_rise": {
                "parameter": "base_lr",
                "side": "half",
                "value": 0.0625,
                "change": 0.05,
                "interval": [0.01, 0.09],
            },
        },
    }


def test_the_parameter_and_side_that_cost_most_stand_out(compared):
    rise = compared["resnet"]["exponential"]["tuning"]["largest_rise"]
    assert (rise["parameter"], rise["side"], rise["change"]) == ("decay_rate", "double", 0.2)


def with_two_searches(cell: dict) -> None:
    """Say that a cell's seed 2 took the values of a second search, which found twice the base rate."""
    run = cell["training"]["seeds"]["2"]
    run |= {"search": 2, "values": {"base_lr": 0.25}, "base_lr": 0.25}
    run["parameters"] = run["parameters"] | {"min_factor": 0.5}
    cell["history"] = [row | {"lr": 2 * row["lr"]} if row["seed"] == 2 else row for row in cell["history"]]
    found = cell["tuning"]["searches"]
    found.append(found[0] | {"sampler_seed": 1, "trials": found[0]["trials"][:5]})


def test_with_two_searches_a_cell_says_which_seeds_took_which_values():
    study = cells()
    with_two_searches(study["lstm"]["cosine"])
    cell = compared_cells(study)["lstm"]["cosine"]
    assert cell["by_search"] == {
        "1": {
            "seeds": [1, 3],
            "values": {"base_lr": 0.125},
            "base_lr": 0.125,
            "parameters": {"min_factor": 0.0},
        },
        "2": {
            "seeds": [2],
            "values": {"base_lr": 0.25},
            "base_lr": 0.25,
            "parameters": {"min_factor": 0.5},
        },
    }
    assert (cell["base_lr"], cell["parameters"]) == (0.125, {"min_factor": 0.0})
    # trials that there were: the second search's space had no more
    assert [search["num_tried"] for search in cell["tuning"]["searches"]] == [8, 5]


def test_two_base_rates_of_two_searches_are_no_movement():
    study = cells()
    static = study["lstm"]["static"]
    static["history"] = [row | {"lr": 0.125} for row in static["history"]]
    with_two_searches(static)
    assert not moves(rows(compared_cells(study)["lstm"])["static"])
    with_two_searches(study["lstm"]["cosine"])
    found = compared_cells(study)["lstm"]["cosine"]
    assert found["lr_range"][0] == close(found["lr_range"][1] / 2)


def test_a_cell_that_took_the_defaults_unsearched_has_no_tuning():
    study = cells()
    study["lstm"]["static"]["tuning"] = {"source": "defaults", "values": {"base_lr": 0.125}, "trials": []}
    assert compared_cells(study)["lstm"]["static"]["tuning"] is None


def test_differences_to_the_reference_are_taken_seed_by_seed(compared):
    difference = compared["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]
    assert difference["values"] == {"1": close(0.03), "2": close(0.01), "3": close(0.05)}
    assert difference["mean"] == close(0.03)
    values = list(difference["values"].values())
    assert difference["interval"] == list(t_interval(values))
    assert difference["probability_of_improvement"] == 1.0
    assert (difference["p"], difference["p_holm"]) == (None, None)  # three seeds are not enough for a test

    tie = compared["lstm"]["exponential"]["metrics"]["test/f1_macro"]["difference"]
    assert tie["values"] == {"1": 0.0, "2": close(-0.01), "3": close(0.02)}
    assert tie["probability_of_improvement"] == close(0.5)
    assert compared["lstm"]["cosine"]["metrics"]["test/f1_macro"]["difference"]["mean"] == close(0.05)


def test_only_accuracy_and_f1_are_tested_and_the_reference_has_no_difference(compared):
    for schedules in compared.values():
        assert not any("difference" in metric for metric in schedules["static"]["metrics"].values())
        for name in ("exponential", "cosine"):
            tested = {
                m for m, found in schedules[name]["metrics"].items() if "p" in found.get("difference", {})
            }
            assert tested == {"test/accuracy", "test/f1", "test/f1_macro"}


def test_a_diverged_run_counts_as_a_loss(compared):
    cell = compared["resnet"]["cosine"]
    assert cell["diverged"] == [2]
    accuracy = cell["metrics"]["test/accuracy"]
    assert accuracy["values"] == {"1": 0.75, "2": 0.0, "3": 0.80}
    assert accuracy["mean"] == close(1.55 / 3)
    assert accuracy["difference"]["values"]["2"] == close(-0.72)
    assert accuracy["difference"]["probability_of_improvement"] == close(2 / 3)
    assert cell["metrics"]["test/f1_macro"]["values"]["2"] == 0.0
    # what has no meaning without a working model is left out, not made up
    for name, mean in (
        ("test/loss", 0.225),
        ("generalization_gap", 0.15),
        ("best_epoch", 2.0),
        ("seconds_per_epoch", 1.5),
    ):
        metric = cell["metrics"][name]
        assert metric["values"]["2"] is None
        assert metric["mean"] == close(mean)
        assert set(metric["difference"]["values"]) == {"1", "3"}


def test_an_epoch_that_was_held_up_changes_no_time():
    study = cells()
    cosine = study["resnet"]["cosine"]
    cosine["training"]["seeds"]["1"]["compute_seconds"] = [1.5, 600.0]
    found = metrics_by_seed(measured_cell(cosine))
    assert found["seconds_per_epoch"]["1"] == 1.5
    assert found["epoch_slowdown"]["1"] == close(300.75 / 1.5 - 1)
    cosine["training"]["seeds"]["1"]["compute_seconds"] = [1.5]
    assert metrics_by_seed(measured_cell(cosine))["epoch_slowdown"]["1"] is None


def test_a_run_whose_predictions_are_not_numbers_has_diverged_however_it_ended():
    changed = cells()
    changed["resnet"]["static"]["scores"]["3"]["last"] = NO_SCORES
    cell = compared_cells(changed)["resnet"]["static"]
    assert cell["diverged"] == [3]
    assert cell["metrics"]["test/accuracy"]["values"] == {"1": 0.70, "2": 0.72, "3": 0.0}
    assert cell["metrics"]["generalization_gap"]["values"]["3"] is None


def test_a_reference_that_diverged_loses_too():
    changed = cells()
    schedules = changed["resnet"]
    schedules["static"], schedules["cosine"] = schedules["cosine"], schedules["static"]
    difference = compared_cells(changed)["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]
    assert difference["values"]["2"] == close(0.73)


def test_a_cell_in_which_every_run_diverged_has_no_means_to_compare():
    changed = cells()
    cell = changed["resnet"]["cosine"]
    for seed in "13":
        cell["scores"][seed], cell["training"]["seeds"][seed]["status"] = cell["scores"]["2"], "diverged"
    metrics = compared_cells(changed)["resnet"]["cosine"]["metrics"]
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
    compared = compared_cells(changed)
    assert not any("difference" in m for c in compared["resnet"].values() for m in c["metrics"].values())
    assert any("difference" in m for c in compared["lstm"].values() for m in c["metrics"].values())


def with_eight_seeds() -> dict:
    """The study with seeds 4 to 8 that are like seed 3, each a little better but for static."""
    changed = cells()
    for schedules in changed.values():
        for name, cell in schedules.items():
            for seed in range(4, 9):
                scores = cell["scores"][str(seed)] = copy.deepcopy(cell["scores"]["3"])
                for metric in ("accuracy", "f1", "f1_macro"):
                    scores["last"][metric] += 0 if name == "static" else seed / 1000
                cell["training"]["seeds"][str(seed)] = cell["training"]["seeds"]["3"]
                cell["history"] += [
                    row | {"seed": float(seed)} for row in cell["history"] if row["seed"] == 3
                ]
    return changed


def test_eight_seeds_are_tested_exactly_and_adjusted_over_the_models_schedules():
    found = compared_cells(with_eight_seeds())["resnet"]
    exponential, cosine = (
        found[name]["metrics"]["test/accuracy"]["difference"] for name in ("exponential", "cosine")
    )
    assert exponential["p"] == 2 / 2**8
    assert cosine["p"] == signed_rank_p(list(cosine["values"].values()))  # one diverged: rank 8 against
    assert (exponential["p_holm"], cosine["p_holm"]) == (close(4 / 2**8), close(cosine["p"]))


def test_planned_looks_see_the_first_seeds_alone():
    settings = SETTINGS.model_copy(update={"looks": [8, 12]})
    found = compare_as_written(with_eight_seeds(), settings)["cells"]["resnet"]["exponential"]
    # of 0.05 hardly anything is spent at 8 of 12 seeds: the p of one look becomes that of the plan
    assert 2 / 2**8 < found["metrics"]["test/accuracy"]["difference"]["p"] < 0.05
    settings = SETTINGS.model_copy(update={"looks": [9, 12]})
    found = compare_as_written(with_eight_seeds(), settings)["cells"]["resnet"]["exponential"]
    assert found["metrics"]["test/accuracy"]["difference"]["p"] is None  # no look was reached


def test_before_all_planned_seeds_are_there_numbers_are_shown_and_nothing_is_tested():
    part = with_eight_seeds()
    del part["resnet"]["cosine"]["scores"]["8"], part["resnet"]["cosine"]["training"]["seeds"]["8"]
    whole, found = (
        compare_as_written(with_eight_seeds(), SETTINGS),
        compare_as_written(part, SETTINGS, planned=range(1, 9)),
    )
    cosine, complete = (
        one["cells"]["resnet"]["cosine"]["metrics"]["test/accuracy"] for one in (found, whole)
    )
    assert list(cosine["difference"]["values"]) == list("1234567")
    assert cosine["difference"]["mean"] == close(np.mean(list(complete["difference"]["values"].values())[:7]))
    assert (cosine["difference"]["p"], cosine["difference"]["p_holm"]) == (None, None)
    # The pair that is complete is tested as ever, and stands in the same family of tests.
    p, before = (
        one["cells"]["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]["p"]
        for one in (found, whole)
    )
    assert p == before == 2 / 2**8
    ranked = found["models"]["resnet"]
    assert (set(ranked["ranks"]), ranked["num_seeds"]) == ({"static", "exponential", "cosine"}, 7)
    assert (ranked["friedman_p"], ranked["critical_difference"]) == (None, None)
    assert whole["models"]["resnet"]["friedman_p"] is not None
    # Of ten planned seeds eight are there: nothing is due anywhere.
    early = compare_as_written(with_eight_seeds(), SETTINGS, planned=range(1, 11))["cells"]["resnet"][
        "cosine"
    ]
    assert early["metrics"]["test/accuracy"]["difference"]["p"] is None


def test_a_missing_cell_changes_no_other_number_but_what_was_adjusted_for_it():
    compared, changed = compared_cells(with_eight_seeds()), with_eight_seeds()
    del changed["lstm"]["exponential"]
    left = compared_cells(changed)
    assert left["resnet"] == compared["resnet"]
    assert left["lstm"]["static"] == compared["lstm"]["static"]
    mine, before = (copy.deepcopy(found["lstm"]["cosine"]) for found in (left, compared))
    for cell, adjusted in ((mine, 2 / 2**8), (before, 4 / 2**8)):
        for name in set(TESTED) & cell["metrics"].keys():
            assert cell["metrics"][name]["difference"].pop("p_holm") == close(adjusted)
            del cell["metrics"][name]["difference_to_averaged"]["p_holm"]
    assert mine == before


def test_where_the_results_of_every_example_are_known_an_interval_is_over_them_too():
    study = cells()
    rng = np.random.default_rng(0)
    right = {name: {seed: rng.random(50) < 0.7 for seed in "123"} for name in ("static", "exponential")}
    for name, known in right.items():
        study["resnet"][name]["right"] = known
    found = compared_cells(study)["resnet"]
    expected = seeds_and_examples_interval(
        *(list(right[name].values()) for name in ("exponential", "static"))
    )
    assert found["exponential"]["metrics"]["test/accuracy"]["difference"]["examples_interval"] == list(
        expected
    )
    assert found["cosine"]["metrics"]["test/accuracy"]["difference"]["examples_interval"] is None
    del right["static"]["2"]
    found = compared_cells(study)["resnet"]["exponential"]
    assert found["metrics"]["test/accuracy"]["difference"]["examples_interval"] is None


def test_seeds_that_only_one_of_the_two_ran_are_not_paired():
    changed = cells()
    static = changed["resnet"]["static"]
    for part in (static["scores"], static["training"]["seeds"]):
        del part["3"]
    static["history"] = [row for row in static["history"] if row["seed"] != 3]
    difference = compared_cells(changed)["resnet"]["exponential"]["metrics"]["test/accuracy"]["difference"]
    assert difference["values"] == {"1": close(0.03), "2": close(0.01)}


def test_a_single_seed_has_neither_spread_nor_interval():
    changed = without_seeds(cells(), "23")
    metric = compared_cells(changed)["resnet"]["cosine"]["metrics"]["test/accuracy"]
    assert (metric["mean"], metric["spread"], metric["interval"]) == (0.75, None, None)
    difference = metric["difference"]
    assert (difference["mean"], difference["interval"]) == (close(0.05), None)
    assert (difference["p"], difference["p_holm"]) == (None, None)


def test_the_comparison_is_json_without_nan_and_the_same_every_time(whole):
    text = json.dumps(whole, allow_nan=False)
    assert text == json.dumps(compare_as_written(cells(), SETTINGS), allow_nan=False)


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_a_measure_that_is_no_finite_number_is_undefined_and_no_mean_has_it(wrong):
    study = cells()
    cell = study["resnet"]["exponential"]
    cell["scores"]["1"]["last"]["loss"] = wrong
    cell["history"][3]["validation/loss"] = wrong  # seed 2, the last epoch
    cell["training"]["seeds"]["3"]["final"]["validation_ema/loss"] = wrong
    found = compare_as_written(study, SETTINGS)
    metrics = found["cells"]["resnet"]["exponential"]["metrics"]
    for name, seed, others in (
        ("test/loss", "1", [0.27, 0.21]),
        ("generalization_gap_loss", "1", [0.135, 0.105]),
        ("validation/loss", "2", [0.61, 0.63]),
        ("validation_ema/loss", "3", [0.5, 0.5]),
    ):
        metric = metrics[name]
        assert metric["values"][seed] is None
        assert metric["mean"] == close(np.mean(others))
        assert seed not in metric["difference"]["values"]
    # it works all the same: accuracy is what it was
    assert found["cells"]["resnet"]["exponential"]["diverged"] == []
    assert metrics["test/accuracy"]["values"]["1"] == 0.73
    json.dumps(found, allow_nan=False)


def test_every_metric_has_a_value_for_every_seed():
    for schedules in cells().values():
        for cell in schedules.values():
            assert {tuple(values) for values in metrics_by_seed(measured_cell(cell)).values()} == {
                ("1", "2", "3")
            }


# --- turning points ---


def test_two_epochs_show_no_turn(compared):
    for schedules in compared.values():
        for cell in schedules.values():
            for name in ("turning_epoch", "overfitting"):
                assert set(cell["metrics"][name]["values"].values()) == {None}


TURNS = [
    ("still falling at the end", [0.9, 0.8, 0.7, 0.6], None, 0.0),
    ("turned and rising", [0.9, 0.7, 0.8, 0.9, 1.0], 2.0, 0.1),  # medians 0.8, 0.8, 0.9: the first at epoch 2
    ("one lucky epoch on the way", [0.9, 0.8, 0.2, 0.7, 0.6], None, 0.0),
    ("one unlucky epoch at the end", [0.9, 0.8, 0.7, 0.6, 2.0], None, 0.0),
    ("within twice the standard error", [0.7, 0.7, 0.7, 0.72, 0.72], None, 0.0),
    ("back at the lowest after a rise", [0.7, 0.7, 0.9, 0.9, 0.7, 0.7], 2.0, 0.0),
]


@pytest.mark.parametrize(
    ("losses", "epoch", "overfitting"), [t[1:] for t in TURNS], ids=[t[0] for t in TURNS]
)
def test_where_the_loss_turned_and_what_it_rose_by(losses, epoch, overfitting):
    cell = cells()["resnet"]["static"]
    row = next(row for row in cell["history"] if row["seed"] == 1)
    rows = [row | {"epoch": i + 1.0, "validation/loss": loss} for i, loss in enumerate(losses)]
    cell["history"] = [row for row in cell["history"] if row["seed"] != 1] + rows[::-1]  # in any order
    found = metrics_by_seed(measured_cell(cell))
    assert found["turning_epoch"]["1"] == epoch
    assert found["overfitting"]["1"] == close(overfitting)


# --- the reference through averaged weights ---


def test_the_averaged_reference_is_a_view_of_its_trainings_and_no_training_of_its_own(whole):
    static = whole["cells"]["lstm"]["static"]
    assert list(whole["views"]["lstm"]) == ["static_averaged"]
    assert "static_averaged" not in whole["cells"]["lstm"]
    view = whole["views"]["lstm"]["static_averaged"]
    assert view["view_of"] == "static"
    for name in ("seeds", "identities", "origins", "base_lr", "parameters", "num_epochs"):
        assert view[name] == static[name]
    metrics = view["metrics"]
    # the tail average is 0.04 above the last weights, by validation loss 0.5
    assert metrics["test/f1_macro"]["values"] == {"1": close(0.83), "2": close(0.85), "3": close(0.84)}
    assert metrics["test/f1_macro"]["difference"]["mean"] == close(0.04)
    assert metrics["validation/loss"]["mean"] == 0.5
    assert metrics["seconds_per_epoch"]["mean"] == 1.5
    for name in (
        "test_best/accuracy",
        "generalization_gap",
        "best_epoch",
        "turning_epoch",
    ):
        assert metrics[name]["mean"] is None, name


def test_every_schedule_is_compared_with_the_averaged_reference(whole):
    found = whole["cells"]["resnet"]["exponential"]["metrics"]["test/accuracy"]
    # 0.03, 0.01, 0.05 above static, which averages put 0.04 higher
    difference = found["difference_to_averaged"]
    assert difference["values"] == {"1": close(-0.01), "2": close(-0.03), "3": close(0.01)}
    assert {"p", "p_holm", "interval", "examples_interval"} <= set(difference)
    for model, schedules in whole["cells"].items():
        assert not any("difference_to_averaged" in m for m in schedules["static"]["metrics"].values())
        for name in ("exponential", "cosine"):
            metrics = schedules[name]["metrics"]
            assert {m for m, c in metrics.items() if "difference_to_averaged" in c} == set(TESTED) & set(
                metrics
            )
        view = whole["views"][model]["static_averaged"]["metrics"]["test/accuracy"]["difference"]
        assert view["p_holm"] == view["p"]  # no part of the schedules' family


def test_a_reference_that_diverged_has_a_view_that_lost():
    changed = cells()
    schedules = changed["resnet"]
    schedules["static"], schedules["cosine"] = schedules["cosine"], schedules["static"]
    schedules["static"]["schedule"] = "static"
    view = compare_as_written(changed, SETTINGS)["views"]["resnet"]["static_averaged"]
    assert view["diverged"] == [2]
    assert view["metrics"]["test/accuracy"]["values"]["2"] == 0.0
    assert view["metrics"]["validation/loss"]["values"]["2"] is None


def test_without_the_reference_there_is_no_view():
    changed = cells()
    del changed["resnet"]["static"]
    assert compare_as_written(changed, SETTINGS)["views"]["resnet"] == {}


# --- ranks within a model ---


def test_schedules_are_ranked_within_their_model_seed_by_seed(whole):
    resnet, lstm = whole["models"]["resnet"], whole["models"]["lstm"]
    # best first: cosine exponential static; exponential static, cosine diverged; cosine exponential static
    assert resnet["ranks"] == {"static": close(8 / 3), "exponential": close(5 / 3), "cosine": close(5 / 3)}
    # rank sums 8, 5, 5: of the 36 orders of two seeds beside a third, 19 have as large a sum of squares
    assert (resnet["friedman_p"], resnet["friedman_method"]) == (close(19 / 36), "exact")
    assert resnet["smallest_friedman_p"] == close(1 / 6**2)
    assert resnet["critical_difference"] == pytest.approx(2.343 * math.sqrt(12 / 18), abs=1e-3)
    assert resnet["groups"] == [["exponential", "cosine", "static"]]
    assert (resnet["metric"], resnet["num_seeds"]) == ("test/accuracy", 3)
    # F1, with a tie of static and exponential at seed 1
    assert lstm["ranks"] == {"static": 2.5, "exponential": 2.5, "cosine": 1.0}
    assert (lstm["metric"], lstm["num_seeds"]) == ("test/f1_macro", 3)


def test_with_more_seeds_the_schedules_are_distinguished():
    study = cells()
    template = study["lstm"]
    accuracies = {"static": 0.80, "exponential": 0.81, "cosine": 0.85}
    for name, cell in template.items():
        scores = copy.deepcopy(cell["scores"]["1"])
        scores["last"] |= {"f1_macro": accuracies[name]}
        run, history = cell["training"]["seeds"]["1"], [row for row in cell["history"] if row["seed"] == 1]
        cell["scores"] = {str(seed): scores for seed in range(1, 9)}
        cell["training"]["seeds"] = {str(seed): run for seed in range(1, 9)}
        cell["history"] = [row | {"seed": float(seed)} for seed in range(1, 9) for row in history]
    found = compare_as_written(study, SETTINGS)["models"]["lstm"]
    assert found["ranks"] == {"static": 3.0, "exponential": 2.0, "cosine": 1.0}
    # eight seeds: 2.343 * sqrt(12 / 48) = 1.17, so neighbours are alike and the ends are not
    assert found["critical_difference"] == pytest.approx(1.1715, abs=1e-3)
    assert found["groups"] == [["cosine", "exponential"], ["exponential", "static"]]
    assert found["friedman_p"] == close(found["smallest_friedman_p"])


@pytest.mark.parametrize("too_little", ["two schedules", "one seed"])
def test_two_schedules_or_one_seed_are_not_ranked(too_little):
    study = cells()
    if too_little == "one seed":
        study = without_seeds(study, "23")
    else:
        del study["resnet"]["exponential"]
    found = compare_as_written(study, SETTINGS)["models"]["resnet"]
    assert found == {
        "metric": "test/accuracy",
        "num_seeds": 1 if too_little == "one seed" else 3,
        "left_out": {},
        "chosen": "cosine" if too_little == "two schedules" else "exponential",
        "ranks": None,
        "friedman_p": None,
        "friedman_method": None,
        "smallest_friedman_p": None,
        "critical_difference": None,
        "groups": None,
    }


def test_only_seeds_that_all_schedules_ran_are_ranked():
    study = cells()
    without_seeds({"resnet": {"static": study["resnet"]["static"]}}, "3")
    found = compare_as_written(study, SETTINGS)
    assert found["models"]["resnet"]["num_seeds"] == 2
    assert found["models"]["resnet"]["ranks"] == {"static": 2.5, "exponential": 1.5, "cosine": 2.0}
    assert found["models"]["lstm"]["num_seeds"] == 3
    assert {row["num_runs"] for row in found["across_models"].values()} == {5}  # each model's own pairs


# --- across models ---


def test_across_models_differences_are_in_units_of_their_spread_each_model_with_equal_weight(whole):
    across = whole["across_models"]
    assert list(across) == ["exponential", "cosine", "static_averaged"]  # none for the reference
    # +0.03, +0.01, +0.05: mean 0.03, spread 0.02; 0, -0.01, +0.02: mean 0.01 / 3, spread 0.0153; J = 4 / 7
    resnet, lstm = 4 / 7 * 1.5, 4 / 7 * (0.01 / 3) / math.sqrt((1 + 16 + 25) / 9 / 2 * 1e-4)
    assert across["exponential"]["by_model"] == {"resnet": close(resnet), "lstm": close(lstm)}
    assert across["exponential"]["effect"] == close((resnet + lstm) / 2)
    pairs = [[0.03, 0.01, 0.05], [0.0, -0.01, 0.02]]
    assert across["exponential"]["interval"] == close(standardized_mean(pairs).interval)
    assert {name: row["num_diverged"] for name, row in across.items()} == {
        "exponential": 0,
        "cosine": 1,
        "static_averaged": 0,
    }
    assert {(row["num_models"], row["num_runs"]) for row in across.values()} == {(2, 6)}


def test_a_models_number_of_seeds_and_its_metrics_unit_do_not_weigh_it():
    """Pooled raw metrics gave the model with larger numbers and more seeds the larger say."""
    study = with_eight_seeds()
    without_seeds({"resnet": study["resnet"]}, "45678")
    found = compare_as_written(study, SETTINGS)["across_models"]["exponential"]
    assert found["num_runs"] == 3 + 8
    assert found["effect"] == close(np.mean(list(found["by_model"].values())))


def test_a_schedule_that_did_not_run_on_every_model_is_not_pooled_and_changes_no_other(whole):
    study = cells()
    del study["resnet"]["exponential"]
    across = compare_as_written(study, SETTINGS, [("resnet", "exponential")])["across_models"]
    assert across == {name: row for name, row in whole["across_models"].items() if name != "exponential"}


def test_without_the_reference_on_every_model_nothing_is_said_across_them():
    study = cells()
    del study["lstm"]["static"]
    assert compare_as_written(study, SETTINGS, [("lstm", "static")])["across_models"] == {}


def test_a_single_seed_has_no_spread_to_measure_by():
    across = compare_as_written(without_seeds(cells(), "23"), SETTINGS)["across_models"]
    assert (across["cosine"]["effect"], across["cosine"]["interval"], across["cosine"]["by_model"]) == (
        None,
    ) * 3


# --- which rows are dynamic, and which of them validation chose ---


def test_validation_chooses_the_dynamic_schedule_and_test_metrics_do_not():
    study = cells()
    for row in study["lstm"]["exponential"]["history"]:
        row["validation/loss"] -= 0.01
    found = compare_as_written(study, SETTINGS)["models"]
    assert found["lstm"]["chosen"] == "exponential"  # whose F1 is 5 points below cosine's
    assert found["resnet"]["chosen"] == "exponential"  # of cosine a run diverged


def test_a_row_whose_rate_never_moves_is_not_dynamic():
    study = cells()
    for row in study["lstm"]["cosine"]["history"]:
        row["lr"] = 0.125
        row["validation/loss"] -= 0.3
    found = compare_as_written(study, SETTINGS)
    assert found["cells"]["lstm"]["cosine"]["lr_range"] == [0.125, 0.125]
    assert dynamic_rows(rows(found["cells"]["lstm"]), "static") == ["exponential"]
    assert found["models"]["lstm"]["chosen"] == "exponential"


@pytest.mark.parametrize(("lowest", "dynamic"), [(0.89, True), (0.91, False)])
def test_less_than_a_tenth_is_no_movement(lowest, dynamic):
    assert moves(SimpleNamespace(lr_range=(lowest, 1.0))) is dynamic


def test_the_warmup_of_a_static_rate_is_no_movement():
    cell = cells()["resnet"]["static"]
    cell["training"]["settings"]["schedule"]["warmup_epochs"] = 2.0
    cell["history"] = [row | {"lr": 0.0625 * row["epoch"]} for row in cell["history"]]
    assert lr_range(measured_cell(cell)) == (0.125, 0.125)


def test_another_optimizer_or_controller_is_a_second_difference():
    found = compared_cells(cells())["resnet"]
    found["cosine"]["optimizer"] = "adam"
    found["exponential"]["controller"] = "validation_monitor"
    assert dynamic_rows(rows(found), "static") == []
    assert dynamic_rows(rows(found), "linear") == []


def test_the_order_of_the_seeds_changes_no_statistic(whole):
    study = cells()
    for schedules in study.values():
        for cell in schedules.values():
            cell["scores"] = dict(reversed(cell["scores"].items()))
            cell["training"]["seeds"] = dict(reversed(cell["training"]["seeds"].items()))
            cell["history"].reverse()
    again = compare_as_written(study, SETTINGS)
    assert again["models"] == whole["models"]
    assert again["across_models"] == whole["across_models"]
    for model, schedules in again["cells"].items():
        for schedule, cell in schedules.items():
            before = whole["cells"][model][schedule]["metrics"]
            for name, metric in cell["metrics"].items():
                assert metric["values"] == before[name]["values"]
                for part in ("mean", "spread", "interval"):
                    expected = before[name][part]
                    assert metric[part] == (None if expected is None else close(expected))


# --- where the trainings took place ---


def test_a_cell_says_which_of_its_seeds_was_trained_where():
    study = cells()
    cell = study["lstm"]["cosine"]
    trained_elsewhere(cell, "12", "bfloat16", machine="0badcafe", torch="2.13.0", ended=1_700_086_400.0)
    trained_elsewhere(cell, "3", accelerator="NVIDIA H100", revision="")
    found = compared_cells(study)["lstm"]["cosine"]["origins"]
    assert found["machine"] == {"0badcafe": [1, 2], "e4bbde5c": [3]}
    assert found["processor"] == {"AMD EPYC (avx512)": [1, 2], "NVIDIA H100": [3]}
    assert found["device"] == {"cpu": [1, 2], "cuda": [3]}
    assert found["dtype"] == {"bfloat16": [1, 2], "float32": [3]}
    assert found["torch"] == {"2.13.0": [1, 2], "2.14.1": [3]}
    assert found["revision"] == {ORIGIN["revision"]: [1, 2], "": [3]}
    assert found["ended"] == [1_700_000_000.0, 1_700_086_400.0]


def one_in_bfloat16() -> dict:
    """The study, seed 2 of resnet-exponential trained in bfloat16 and all else in float32."""
    study = cells()
    trained_elsewhere(study["resnet"]["exponential"], "2", "bfloat16")
    return study


def test_a_pair_in_two_dtypes_is_left_out_and_the_test_is_that_of_the_others(compared):
    found = compared_cells(one_in_bfloat16())
    accuracy = found["resnet"]["exponential"]["metrics"]["test/accuracy"]
    assert accuracy["values"] == {"1": 0.73, "2": 0.73, "3": 0.79}  # its own mean is over all
    difference = accuracy["difference"]
    assert difference["values"] == {"1": close(0.03), "3": close(0.05)}
    assert difference["left_out"] == {"2": {"dtype": ["bfloat16", "float32"]}}
    assert difference["mixed"] == {}
    assert difference["mean"] == close(0.04)
    assert difference["interval"] == list(t_interval(list(difference["values"].values())))
    assert found["lstm"] == compared["lstm"]
    assert found["resnet"]["static"] == compared["resnet"]["static"]


def test_a_seed_in_two_dtypes_is_neither_ranked_nor_in_the_effect_across_models(whole):
    found = compare_as_written(one_in_bfloat16(), SETTINGS)
    resnet = found["models"]["resnet"]
    assert resnet["num_seeds"] == 2
    assert resnet["left_out"] == {"2": {"dtype": ["float32", "bfloat16", "float32"]}}
    # seeds 1 and 3: cosine, exponential, static
    assert resnet["ranks"] == {"static": 3.0, "exponential": 2.0, "cosine": 1.0}
    assert resnet["friedman_p"] == close(1 / 6)  # two seeds that agree
    assert found["models"]["lstm"] == whole["models"]["lstm"]
    exponential = found["across_models"]["exponential"]
    assert exponential["num_runs"] == 2 + 3
    assert exponential["effect"] is None  # two pairs have no spread worth a unit
    assert found["across_models"]["cosine"] == whole["across_models"]["cosine"]


def test_models_may_have_a_dtype_each(whole):
    study = cells()
    for cell in study["lstm"].values():
        trained_elsewhere(cell, "123", "bfloat16")
    found = compare_as_written(study, SETTINGS)
    assert found["models"] == whole["models"]
    assert found["across_models"] == whole["across_models"]


def test_dtypes_are_compared_if_asked_for(whole):
    found = compare_as_written(one_in_bfloat16(), SETTINGS.model_copy(update={"across_dtypes": True}))
    assert found["models"] == whole["models"]
    assert found["across_models"] == whole["across_models"]
    mine, before = (copy.deepcopy(c["cells"]["resnet"]["exponential"]["metrics"]) for c in (found, whole))
    for name, metric in before.items():
        for key in ("difference", "difference_to_averaged"):
            pairs = metric.pop(key, {}).get("values", {})
            difference = mine[name].pop(key, None)
            if difference is not None:
                assert difference["values"] == pairs
                assert difference["left_out"] == {}
                both = {"2": {"dtype": ["bfloat16", "float32"]}}
                assert difference["mixed"] == (both if "2" in pairs else {})
        assert mine[name] == metric


def test_where_every_pair_is_left_out_there_is_no_difference_and_the_family_of_tests_stays():
    study = cells()
    trained_elsewhere(study["lstm"]["exponential"], "123", "bfloat16")
    found = compare_as_written(study, SETTINGS)
    nothing = found["cells"]["lstm"]["exponential"]["metrics"]["test/f1_macro"]["difference"]
    assert (nothing["values"], nothing["mean"], nothing["interval"]) == ({}, None, None)
    assert set(nothing["left_out"]) == set("123")
    assert nothing["p_holm"] is None
    assert (found["models"]["lstm"]["num_seeds"], found["models"]["lstm"]["ranks"]) == (0, None)
    assert list(found["across_models"]) == ["cosine", "static_averaged"]
    study = with_eight_seeds()
    trained_elsewhere(study["lstm"]["exponential"], "12345678", "bfloat16")
    cosine = compared_cells(study)["lstm"]["cosine"]["metrics"]["test/f1"]["difference"]
    assert (cosine["p"], cosine["p_holm"]) == (close(2 / 2**8), close(4 / 2**8))  # still one of two
    json.dumps(found, allow_nan=False)


def test_pairs_from_two_kinds_of_machine_are_compared_but_in_seconds(whole):
    study = cells()
    cell = study["lstm"]["cosine"]
    trained_elsewhere(cell, "1", accelerator="NVIDIA H100", machine="0badcafe")
    trained_elsewhere(cell, "2", torch="2.13.0")
    trained_elsewhere(cell, "3", machine="0badcafe", revision="", ended=1.8e9)  # the same kind
    found = compare_as_written(study, SETTINGS)
    assert found["models"] == whole["models"]
    assert found["across_models"] == whole["across_models"]
    mixed = {
        "1": {"processor": ["NVIDIA H100", "AMD EPYC (avx512)"], "device": ["cuda", "cpu"]},
        "2": {"torch": ["2.13.0", "2.14.1"]},
    }
    metrics, before = (c["cells"]["lstm"]["cosine"]["metrics"] for c in (found, whole))
    assert metrics["test/f1_macro"]["difference"] == before["test/f1_macro"]["difference"] | {"mixed": mixed}
    difference = metrics["seconds_per_epoch"]["difference"]
    assert difference["values"] == {"3": 0.0}
    assert (difference["left_out"], difference["mixed"]) == (mixed, {})


# --- curves ---


def test_curves_are_means_over_seeds_by_epoch():
    rows = curves(measured(cells()))
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
        row for row in curves(measured(cells())) if (row["model"], row["schedule"]) == ("resnet", "cosine")
    )
    for row, accuracy in ((first, 0.745), (second, 0.775)):
        assert row["validation/accuracy"] == close(accuracy)
        assert row["train/loss"] == close(1 / row["epoch"] + 0.02)
    assert first["validation/accuracy_std"] == close(0.05 / math.sqrt(2))


def test_an_epoch_in_which_every_seed_diverged_stays_and_is_not_a_number():
    cell = cells()["resnet"]["cosine"]
    cell["history"] = [row for row in cell["history"] if row["seed"] == 2]
    (row,) = curves(measured({"resnet": {"cosine": cell}}))
    assert math.isnan(row["train/loss"])
    assert row["lr"] == 0.125
    assert row["train/loss_std"] == 0.0
