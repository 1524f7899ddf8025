"""The paper's gaps and the verdicts on claims, on comparisons small enough to be worked by hand."""

import json
import math

import numpy as np
import pytest
from scipy.stats import norm

from lrstudy.claims import claims, gaps, seeds_for_binomial, seeds_for_signed_rank
from lrstudy.schedules import resolve_parameters
from lrstudy.statistics import bootstrap_interval, signed_rank_p

GAPS = [
    "reduction factor",
    "number of epochs",
    "decay rate",
    "specific performance metrics",
    "Numerical results and comparisons",
]  # the words in the brackets, in the paper's order

CLAIMS = [
    "static_overfits",
    "dynamic_generalizes",
    "monitoring_mitigates_overfitting",
    "dynamic_costs_more",
    "late_decay_generalizes",
    "windows_equivalent",
    "adaptive_optimizers_cost_more",
]

PARAMETERS = {
    "static": {},
    "step": {"gamma": 0.3, "step_size": 4},
    "exponential": {"decay_rate": 0.2},
    "cosine": {"min_factor": 0.0},
}

UPS = [0.010, 0.012, 0.008, 0.011, 0.009, 0.013, 0.007, 0.014]
"""Differences without ties, mean 0.0105 over 6 seeds."""


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def cell(
    accuracy,
    *,
    parameters=None,
    seconds=None,
    slowdown=None,
    diverged=(),
    dataset="cifar10",
    controller="none",
    optimizer="nesterov",
    num_epochs=10,
    tuning=None,
    name="cell",
    origin=None,
    **metrics,
) -> dict:
    """A cell of comparison.json: one test accuracy (and F1) a seed, from seed 1.

    ``origin``: what is told of where its seeds were trained, as {"dtype": {"bfloat16": [1, 2]}}; all seeds alike
    where nothing is said.
    """
    seeds = list(range(1, len(accuracy) + 1))
    everywhere = {"dtype": "float32", "processor": "AMD EPYC", "device": "cpu", "torch": "2.14.1"}
    metrics |= {
        "test/accuracy": accuracy,
        "test/f1": accuracy,
        "generalization_gap": [0.9 - value for value in accuracy],
        "seconds_per_epoch": seconds or [100.0] * len(accuracy),
        "epoch_slowdown": slowdown or [0.01] * len(accuracy),
    }
    return {
        "seeds": seeds,
        "diverged": list(diverged),
        "base_lr": 0.1,
        "parameters": {"some": 1.0} if parameters is None else parameters,
        "warmup_epochs": 0.0,
        "optimizer": optimizer,
        "controller": controller,
        "num_epochs": num_epochs,
        "tuned": "tuned" if tuning else "defaults",
        "interventions": {},
        "run_ids": {str(seed): f"{name}-{seed}" for seed in seeds},
        "origins": {what: {value: seeds} for what, value in everywhere.items()} | (origin or {}),
        "dataset": dataset,
        "tuning": tuning,
        "metrics": {metric: described(values) for metric, values in metrics.items()},
    }


def described(values) -> dict:
    known = [value for value in values if value is not None]
    return {
        "values": {str(seed): value for seed, value in enumerate(values, start=1)},
        "mean": float(np.mean(known)) if known else None,
        "interval": bootstrap_interval(known, 0.95, 100) if known else None,
    }


def study(cells: dict, missing=(), source="hub", **more) -> dict:
    datasets = {c["dataset"]: None for row in cells.values() for c in row.values()}
    labels = {"cifar10": "CIFAR-10 (JPEG copy)", "imdb": "IMDB"}
    if source == "sample":
        labels = {"cifar10": "digits (sample)", "imdb": "generated reviews (sample)"}
    return {
        "data": {name: {"label": labels[name]} for name in datasets},
        "protocol": {
            "source": source,
            "reference": "static",
            "confidence": 0.95,
            "num_resamples": 100,
            "across_dtypes": False,
            "headline": {"cifar10": "test/accuracy", "imdb": "test/f1"},
        },
        "missing": list(missing),
        "cells": cells,
        **more,
    }


def judged(name: str, comparison: dict, curves=()) -> dict:
    """The verdict on one claim; its keys must stand in the comparison."""
    found = {claim["id"]: claim for claim in claims(comparison, list(curves))}[name]
    for key in found["keys"]:
        assert at(comparison, key) is not None
    return found


def at(comparison: dict, key: str):
    for name in key.split("."):
        comparison = comparison[name]
    return comparison


def pair(differences, base=0.75, **options) -> dict:
    """static, and cosine that differs from it by this much, seed by seed."""
    static = [base + 0.001 * seed for seed in range(len(differences))]
    cosine = [value + up for value, up in zip(static, differences, strict=True)]
    return {"static": cell(static, parameters={}, **options), "cosine": cell(cosine, **options)}


def tuning(objective: float, **as_good) -> dict:
    terms = [{"parameter": name, "as_good": bounds} for name, bounds in as_good.items()]
    return {"objective": objective, "terms": terms}


# Gaps


@pytest.fixture(scope="module")
def filled() -> dict:
    """resnet and lstm with the paper's schedules, two seeds; lstm-step did not run."""
    cells: dict = {}
    for model, dataset, base in (("resnet", "cifar10", 0.70), ("lstm", "imdb", 0.80)):
        for up, (schedule, parameters) in enumerate(PARAMETERS.items()):
            if (model, schedule) == ("lstm", "step"):
                continue
            accuracy = [base + up / 100, base + up / 100 + 0.02]
            as_good = {name: [value / 2, value * 2] for name, value in parameters.items()}
            cells.setdefault(model, {})[schedule] = cell(
                accuracy,
                parameters=parameters,
                dataset=dataset,
                tuning=tuning(0.5 + up / 10, **as_good),
                name=f"{model}-{schedule}",
            )
            if schedule != "static":
                for metric in ("test/accuracy", "test/f1"):
                    cells[model][schedule]["metrics"][metric]["difference"] = {
                        "mean": up / 100,
                        "interval": [up / 100 - 0.001, up / 100 + 0.001],
                    }
    return study(
        cells,
        missing=["lstm-step"],
        models={"resnet": {"ranks": {"static": 4.0, "step": 3.0, "exponential": 2.0, "cosine": 1.0}}, "lstm": {"ranks": None}},
        across_models={
            "static": {"iqm": 0.76, "interval": [0.75, 0.77]},
            "cosine": {"iqm": 0.79, "interval": None, "improvement": {"iqm": 0.03, "interval": [0.02, 0.04]}},
        },
    )  # fmt: skip


def test_every_gap_of_the_paper_is_filled_in_its_order(filled):
    assert [gap["gap"] for gap in gaps(filled)] == GAPS
    assert all(gap["values"] for gap in gaps(filled))


def test_each_number_stands_where_its_key_says_with_the_runs_behind_it(filled):
    everything = [value for gap in gaps(filled) for value in gap["values"]]
    for value in everything:
        assert at(filled, value["key"]) == value["value"], value["key"]
        assert value["run_ids"]
        assert value["unit"]
    assert len({(value["key"], value["name"]) for value in everything}) >= 30


def test_the_schedules_parameters_come_with_the_range_that_is_as_good(filled):
    factor, interval, rate, *_ = gaps(filled)
    assert factor["values"] == [
        {
            "cell": "resnet-step",
            "name": "reduction factor",
            "value": 0.3,
            "unit": "per drop",
            "interval": [0.15, 0.6],
            "run_ids": ["resnet-step-1", "resnet-step-2"],
            "key": "cells.resnet.step.parameters.gamma",
        }
    ]
    (epochs,) = interval["values"]
    assert (epochs["value"], epochs["unit"], epochs["interval"]) == (4, "epochs", [2.0, 8])
    assert [(v["cell"], v["value"], v["unit"]) for v in rate["values"]] == [
        ("resnet-exponential", 0.2, "per epoch"),
        ("lstm-exponential", 0.2, "per epoch"),
    ]
    assert "0.3 for resnet-step (0.15 to 0.6 as good)" in factor["text"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "was 2.5 for resnet-step after a first drop at 5 (the default"),
        ({"first_drop": 0.8}, "was 1 for resnet-step after a first drop at 8 (the default"),
        ({"step_size": 3}, "was 3 for resnet-step (the default"),  # the classic staircase
    ],
)
def test_the_interval_between_drops_is_told_with_the_first_drop(given, says):
    parameters = resolve_parameters("step", 10, **given)
    interval = gaps(study({"resnet": {"step": cell([0.7, 0.8], parameters=parameters)}}))[1]
    assert f"the reduction interval, epochs, {says}" in interval["text"]


def test_the_decay_rate_is_told_of_what_was_set_by_its_final_factor():
    parameters = resolve_parameters("exponential", 10, final_factor=0.05)
    rate = gaps(study({"resnet": {"exponential": cell([0.7, 0.8], parameters=parameters)}}))[2]
    assert rate["values"][0]["value"] == close(parameters["decay_rate"])
    assert parameters["decay_rate"] == pytest.approx(-math.log(0.05) / 10, rel=1e-11)


def test_a_cell_that_did_not_run_is_named_instead_of_a_value(filled):
    found = dict(zip(GAPS, gaps(filled), strict=True))
    for gap in ("reduction factor", "number of epochs", "specific performance metrics"):
        assert found[gap]["missing"] == ["lstm-step"]
        assert found[gap]["text"].endswith("; not run: lstm-step.")
    assert found["decay rate"]["missing"] == []
    assert not [v for gap in found.values() for v in gap["values"] if v["cell"] == "lstm-step"]

    without = study({"resnet": {"static": filled["cells"]["resnet"]["static"]}}, missing=["resnet-step"])
    factor = gaps(without)[0]
    assert factor["values"] == []
    assert factor["missing"] == ["resnet-step"]
    assert factor["text"] == (
        "On CIFAR-10 (JPEG copy): no cell with the schedule step ran, so there is no reduction factor; "
        "not run: resnet-step."
    )


def test_the_metrics_that_tuning_reached_are_its_objective_and_the_headline(filled):
    values = gaps(filled)[3]["values"]
    assert [v["value"] for v in values if v["cell"] == "resnet-cosine"] == [0.8, close(0.74)]
    assert {v["name"] for v in values if v["cell"].startswith("lstm")} == {
        "validation loss reached by the search",
        "test/f1",
    }
    assert {v["unit"] for v in values} == {"nats", "fraction"}


def test_results_have_differences_ranks_and_means_across_models(filled):
    values = {(v["cell"], v["name"]): v for v in gaps(filled)[4]["values"]}
    difference = values["resnet-cosine", "test/accuracy, difference to static"]
    assert (difference["value"], difference["interval"]) == (0.03, [close(0.029), close(0.031)])
    # a difference has the runs of both sides
    assert difference["run_ids"] == [
        f"resnet-{schedule}-{seed}" for schedule in ("cosine", "static") for seed in (1, 2)
    ]
    assert values["resnet-cosine", "average rank over seeds, 1 is best"]["value"] == 1.0
    assert ("lstm-cosine", "average rank over seeds, 1 is best") not in values
    better = values["cosine", "interquartile mean across models, difference to static"]
    assert (better["value"], better["key"]) == (0.03, "across_models.cosine.improvement.iqm")
    assert "resnet-cosine 74.00% test/accuracy, +3.00 points against static" in gaps(filled)[4]["text"]


def test_a_value_that_was_not_tuned_says_so():
    found = gaps(study({"resnet": {"step": cell([0.7], parameters=PARAMETERS["step"])}}))
    assert found[0]["values"][0]["interval"] is None
    assert "0.3 for resnet-step (the default, not tuned)" in found[0]["text"]
    assert "no search" in found[3]["text"]


def test_runs_that_the_tracker_never_got_are_left_out():
    unsent = cell([0.7, 0.8], parameters=PARAMETERS["step"])
    unsent["run_ids"]["1"] = None
    assert gaps(study({"resnet": {"step": unsent}}))[0]["values"][0]["run_ids"] == ["cell-2"]


# Static schedules overfit


def overfitted(turning, num_epochs=20, falls=True, **options) -> tuple[dict, list[dict]]:
    """static whose validation loss is lowest at these epochs (None: at the last), and its curves."""
    rises = [0.0 if epoch is None else 0.1 for epoch in turning]
    static = cell(
        [0.7] * len(turning),
        parameters={},
        num_epochs=num_epochs,
        turning_epoch=turning,
        overfitting=rises,
        **options,
    )
    curves = [
        {"model": "resnet", "schedule": "static", "epoch": e, "train/loss": 1 / e if falls else e}
        for e in range(1, num_epochs + 1)
    ]
    return study({"resnet": {"static": static}}), curves


def test_overfitting_is_supported_where_every_run_turned_by_epoch_10():
    found = judged("static_overfits", *overfitted([5.0, 5.0, 6.0, 4.0, 5.0, 10.0]))
    assert found["verdict"] == "supported"
    assert found["parts"][0]["p"] == close(2 / 2**6)
    assert (found["effect"], found["unit"], found["n"]) == (close(0.1), "nats", 6)
    assert "lowest by epoch 10 of 20 and higher after in 6 of 6 runs" in found["why"]
    assert "0.1 to 0.05" in found["why"]  # training loss, epoch 10 and 20


def test_overfitting_is_contradicted_where_no_run_turned():
    found = judged("static_overfits", *overfitted([None] * 6))
    assert found["verdict"] == "contradicted"
    assert found["effect"] == 0.0


@pytest.mark.parametrize(
    ("turning", "options"),
    [
        ([5.0] * 3 + [None] * 3, {}),
        ([15.0] * 6, {}),  # turned, but not by epoch 10
        ([5.0] * 6, {"falls": False}),  # training did not go on
    ],
)
def test_overfitting_is_undecided_where_the_runs_disagree_or_training_stops(turning, options):
    found = judged("static_overfits", *overfitted(turning, **options))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", None)


def test_five_runs_that_agree_leave_overfitting_undecided_and_six_would_decide():
    found = judged("static_overfits", *overfitted([5.0] * 5))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 6)
    assert found["seeds_needed_by"].startswith("Smallest number at which the exact binomial test")


def test_in_a_run_little_longer_than_10_epochs_a_low_by_epoch_10_is_likely_by_chance():
    found = judged("static_overfits", *overfitted([5.0] * 6, num_epochs=12))
    assert found["parts"][0]["p"] == close(2 * (10 / 12) ** 6)
    assert found["verdict"] == "undecided"
    assert found["seeds_needed"] == 21  # the smallest n with 2 (10/12)^n <= 0.05


def test_runs_of_10_epochs_say_nothing_of_what_comes_after():
    found = judged("static_overfits", *overfitted([5.0] * 6, num_epochs=10))
    assert (found["verdict"], found["n"], found["seeds_needed"]) == ("undecided", 0, None)
    assert "10 epochs are not more than 10" in found["why"]


def test_a_diverged_static_run_neither_turned_nor_kept_falling():
    found = judged("static_overfits", *overfitted([5.0] * 6 + [None], diverged=[7]))
    assert (found["verdict"], found["n"]) == ("supported", 6)


# Dynamic schedules generalize better


def test_better_at_all_of_six_seeds_is_supported():
    found = judged("dynamic_generalizes", study({"resnet": pair(UPS[:6])}))
    assert found["verdict"] == "supported"
    assert found["effect"] == close(0.0105)
    assert found["interval"] == close(bootstrap_interval(UPS[:6], 0.95, 100))
    assert found["parts"][0]["p"] == close(2 / 2**6)
    assert found["keys"] == [
        "cells.resnet.cosine.metrics.test/accuracy.values",
        "cells.resnet.static.metrics.test/accuracy.values",
    ]
    assert found["why"] == (
        "On CIFAR-10 (JPEG copy): resnet +1.05 points of test/accuracy (cosine against static; 6 seeds; "
        "p 0.0312 after Holm); so the test decided for the claim at 0.05."
    )


def test_worse_at_all_of_six_seeds_is_contradicted():
    found = judged("dynamic_generalizes", study({"resnet": pair([-up for up in UPS[:6]])}))
    assert found["verdict"] == "contradicted"
    assert found["effect"] == close(-0.0105)


def test_five_seeds_cannot_decide_however_large_the_difference():
    found = judged("dynamic_generalizes", study({"resnet": pair([0.2, 0.21, 0.22, 0.23, 0.24])}))
    assert found["verdict"] == "undecided"
    assert "nothing could be decided at 0.05, as no p can be below 0.0625 with 5 seeds" in found["why"]
    assert found["seeds_needed"] == 6  # the effect is 14 times the spread: what is reachable decides
    assert "about 6 seeds would be needed" in found["why"]


def test_more_seeds_are_needed_than_those_that_did_not_decide():
    ups = [-0.001, 0.10, 0.11, 0.12, 0.13, 0.14]
    assert seeds_for_signed_rank(np.array(ups), 0.05) == 6
    found = judged("dynamic_generalizes", study({"resnet": pair(ups)}))
    assert found["parts"][0]["p"] == close(4 / 2**6)
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 7)


def test_all_models_must_decide_and_holm_counts_them():
    two = {"resnet": pair(UPS[:6]), "lstm": pair(UPS[:6], dataset="imdb")}
    found = judged("dynamic_generalizes", study(two))
    assert [part["p_holm"] for part in found["parts"]] == [close(4 / 2**6)] * 2
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 7)  # 2 x 2 / 2^7 <= 0.05
    two = {"resnet": pair(UPS[:7]), "lstm": pair(UPS[:7], dataset="imdb")}
    assert judged("dynamic_generalizes", study(two))["verdict"] == "supported"


def test_one_model_that_decides_against_contradicts_a_general_claim():
    models = {"resnet": pair(UPS[:7]), "lstm": pair([-up for up in UPS[:7]], dataset="imdb")}
    found = judged("dynamic_generalizes", study(models))
    assert found["verdict"] == "contradicted"
    assert [part["decides"] for part in found["parts"]] == ["for", "against"]
    assert found["effect"] == close(0.0)  # across the models
    assert found["why"].startswith("On CIFAR-10 (JPEG copy) and IMDB: ")


def test_a_model_that_does_not_decide_leaves_a_general_claim_undecided():
    mixed = [0.01, -0.012, 0.008, -0.011, 0.009, -0.013, 0.02, 0.015]
    found = judged("dynamic_generalizes", study({"resnet": pair(UPS), "lstm": pair(mixed, dataset="imdb")}))
    assert found["verdict"] == "undecided"
    # only the lstm's seeds are too few: a mean of 0.00325 on a spread of 0.0135, at half the level
    effect = np.mean(mixed) / np.std(mixed, ddof=1)
    by_normal = ((norm.isf(0.0125) + norm.ppf(0.8)) / effect) ** 2 * math.pi / 3
    assert by_normal < found["seeds_needed"] < by_normal + 5


def test_the_dynamic_rows_are_averaged_and_share_everything_but_the_schedule_with_static():
    rows = pair(UPS[:6])
    worse = [value - 0.002 for value in rows["static"]["metrics"]["test/accuracy"]["values"].values()]
    rows["step"] = cell(worse)
    rows["static_monitored"] = cell([0.1] * 6, controller="validation_monitor", parameters={})
    rows["static_warmup"] = cell([0.1] * 6, parameters={})
    rows["adam"] = cell([0.1] * 6, optimizer="adam")
    found = judged("dynamic_generalizes", study({"resnet": rows}))
    assert found["effect"] == close((0.0105 - 0.002) / 2)
    assert "cosine and step against static" in found["why"]


def test_a_run_that_diverged_is_a_loss():
    rows = pair(UPS[:6])
    rows["cosine"]["metrics"]["test/accuracy"]["values"]["6"] = 0.0  # as compare counts it
    found = judged("dynamic_generalizes", study({"resnet": rows}))
    assert found["verdict"] == "undecided"
    assert found["parts"][0]["p"] == close(2 * 14 / 2**6)  # rank 6 against: 14 sign patterns have W <= 6


def test_a_mean_against_the_ranks_decides_nothing():
    ups = [0.01 + seed / 1000 for seed in range(20)]
    ups[0] = -0.75  # diverged
    found = judged("dynamic_generalizes", study({"resnet": pair(ups)}))
    assert found["parts"][0]["p"] < 0.05
    assert found["effect"] < 0
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", None)


def test_cells_that_did_not_run_are_named():
    found = judged("dynamic_generalizes", study({"resnet": pair(UPS[:6])}, missing=["resnet-step"]))
    assert "not run: resnet-step" in found["why"]
    without = study({"resnet": {"cosine": cell([0.7])}}, missing=["resnet-static"])
    found = judged("dynamic_generalizes", without)
    assert found["verdict"] == "undecided"
    assert "resnet could not be tested (static did not run); not run: resnet-static" in found["why"]


# Validation monitoring mitigates overfitting


def monitored(without, with_monitor) -> dict:
    number = len(without)
    return study(
        {
            "resnet": {
                "static": cell([0.75] * number, parameters={}, overfitting=without),
                "static_monitored": cell(
                    [0.76] * number,
                    parameters={},
                    controller="validation_monitor",
                    overfitting=with_monitor,
                ),
            }
        }
    )


@pytest.mark.parametrize(
    ("change", "verdict"), [(-0.05, "supported"), (0.05, "contradicted")], ids=["less", "more"]
)
def test_monitoring_is_judged_by_how_far_the_validation_loss_rises(change, verdict):
    before = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15]
    after = [value + change * (1 + seed / 10) for seed, value in enumerate(before)]
    found = judged("monitoring_mitigates_overfitting", monitored(before, after))
    assert found["verdict"] == verdict
    assert (found["effect"], found["unit"]) == (close(change * 1.25), "nats")
    # who learns less overfits less: what it does to accuracy is told beside
    assert "generalization_gap -1.00 points; test/accuracy +1.00 points" in found["why"]


def test_monitoring_is_undecided_with_few_seeds_or_where_no_row_ran_both_ways():
    found = judged("monitoring_mitigates_overfitting", monitored([0.1, 0.2, 0.3], [0.0, 0.1, 0.1]))
    assert found["verdict"] == "undecided"
    assert found["seeds_needed"] >= 6
    found = judged("monitoring_mitigates_overfitting", study({"resnet": pair(UPS[:6])}))
    assert (found["verdict"], found["n"], found["effect"]) == ("undecided", 0, None)
    assert "no row ran with validation_monitor and without" in found["why"]


# Cost


def timed(ratios, **options) -> dict:
    static = [100.0 + seed for seed in range(len(ratios))]
    other = [seconds * ratio for seconds, ratio in zip(static, ratios, strict=True)]
    return {
        "static": cell([0.7] * len(ratios), parameters={}, seconds=static),
        "cosine": cell([0.7] * len(ratios), seconds=other, **options),
    }


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.10, 1.11, 1.12, 1.09, 1.13, 1.14], "supported"),
        ([1.01, 1.02, 1.00, 0.99, 1.03, 0.98], "contradicted"),
        ([1.10, 1.11, 1.12], "undecided"),
        ([1.01, 1.09, 1.00, 1.12, 1.03, 1.06], "undecided"),  # on both sides of 5%
    ],
)
def test_dynamic_schedules_cost_more_if_it_is_more_than_five_percent(ratios, verdict):
    found = judged("dynamic_costs_more", study({"resnet": timed(ratios)}))
    assert found["verdict"] == verdict
    assert found["effect"] == close(np.mean(ratios) - 1)


def test_cost_is_per_epoch_and_leaves_out_runs_whose_time_is_unknown():
    rows = timed([1.10, 1.11, 1.12, 1.09, 1.13, 1.14, 1.10])
    rows["cosine"]["metrics"]["seconds_per_epoch"]["values"]["7"] = None  # diverged
    found = judged("dynamic_costs_more", study({"resnet": rows}))
    assert (found["verdict"], found["n"]) == ("supported", 6)
    rows = timed([1.0] * 6, num_epochs=20)  # twice the epochs
    assert judged("dynamic_costs_more", study({"resnet": rows}))["effect"] == close(0.0)


def test_times_of_a_busy_machine_decide_nothing():
    rows = timed([1.10, 1.11, 1.12, 1.09, 1.13, 1.14], slowdown=[0.2] * 6)
    rows["static"]["metrics"]["epoch_slowdown"]["values"] = dict.fromkeys("123456", 0.1)
    found = judged("dynamic_costs_more", study({"resnet": rows}))
    assert (found["verdict"], found["n"]) == ("undecided", 0)
    assert (
        "median epoch cost 15% more seconds than its cheapest, more than the 5% in question" in found["why"]
    )
    for row in rows.values():
        row["metrics"]["epoch_slowdown"]["values"] = dict.fromkeys("123456")
    found = judged("dynamic_costs_more", study({"resnet": rows}))
    assert found["n"] == 0
    assert "no run has two epochs" in found["why"]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.10, 1.11, 1.12, 1.09, 1.13, 1.14], "supported"),
        ([1.01, 1.02, 1.00, 0.99, 1.03, 0.98], "contradicted"),
        ([1.10, 1.11], "undecided"),
    ],
)
def test_adaptive_optimizers_are_timed_against_plain_ones(ratios, verdict):
    rows = timed(ratios, optimizer="adamw")
    assert judged("adaptive_optimizers_cost_more", study({"resnet": rows}))["verdict"] == verdict


def test_one_optimizer_for_a_model_says_nothing_of_the_cost_of_others():
    models = {"resnet": timed([1.0] * 6), "lstm": pair(UPS[:6], dataset="imdb", optimizer="adamw")}
    found = judged("adaptive_optimizers_cost_more", study(models))
    assert (found["verdict"], found["n"]) == ("undecided", 0)
    assert "resnet could not be tested (all rows ran with nesterov)" in found["why"]
    assert "lstm could not be tested (all rows ran with adamw)" in found["why"]


# Late decay


def late(differences, starts=(0.3, 0.8)) -> dict:
    early, later = ({"start": start, "shape": "linear", "min_factor": 0.01} for start in starts)
    base = [0.70 + 0.001 * seed for seed in range(len(differences))]
    return study(
        {
            "resnet": {
                "late_decay": cell(
                    [b + up for b, up in zip(base, differences, strict=True)], parameters=later
                ),
                "early_decay": cell(base, parameters=early),
            }
        }
    )


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        (UPS[:6], "supported"),
        ([-up for up in UPS[:6]], "contradicted"),
        (UPS[:4], "undecided"),
    ],
)
def test_late_decay_is_compared_with_early_decay(differences, verdict):
    found = judged("late_decay_generalizes", late(differences))
    assert found["verdict"] == verdict
    assert "late_decay against early_decay" in found["why"]


def test_late_decay_needs_two_starts():
    found = judged("late_decay_generalizes", late(UPS[:6], starts=(0.8, 0.8)))
    assert (found["verdict"], found["n"]) == ("undecided", 0)
    assert "no two late_decay rows with different starts ran" in found["why"]


# Runs that are not compared


def test_a_seed_whose_rows_have_two_dtypes_decides_nothing():
    comparison = study({"resnet": pair(UPS[:7])})
    comparison["cells"]["resnet"]["cosine"]["origins"]["dtype"] = {
        "float32": [1, 2, 3, 4, 5, 6],
        "bfloat16": [7],
    }
    found = judged("dynamic_generalizes", comparison)
    assert (found["n"], found["parts"][0]["p"]) == (6, close(2 / 2**6))
    assert found["effect"] == close(np.mean(UPS[:6]))
    assert "6 seeds; without seed 7, where the dtype differs" in found["why"]
    comparison["protocol"]["across_dtypes"] = True
    found = judged("dynamic_generalizes", comparison)
    assert (found["n"], "without" in found["why"]) == (7, False)


def test_rows_in_two_dtypes_throughout_leave_a_claim_undecided():
    comparison = study({"resnet": pair(UPS[:7])})
    comparison["cells"]["resnet"]["cosine"]["origins"]["dtype"] = {"bfloat16": [1, 2, 3, 4, 5, 6, 7]}
    found = judged("dynamic_generalizes", comparison)
    assert (found["verdict"], found["n"]) == ("undecided", 0)
    assert "no seed has test/accuracy and the same dtype for both cosine and static" in found["why"]


def test_windows_in_two_dtypes_are_not_compared():
    comparison = windows(WIGGLE, [-2 * d for d in WIGGLE])
    comparison["cells"]["resnet"]["hann"]["origins"]["dtype"] = {
        "bfloat16": [10],
        "float32": list(range(1, 10)),
    }
    found = judged("windows_equivalent", comparison)
    assert [part["n"] for part in found["parts"]] == [10, 9, 9]


def test_costs_are_compared_on_one_kind_of_machine_and_accuracies_on_any():
    rows = pair(UPS[:7])
    rows["cosine"] = cell([0.8] * 7, seconds=[110.0] * 4 + [10.0] * 3)
    rows["cosine"]["origins"]["processor"] = {"AMD EPYC": [1, 2, 3, 4], "NVIDIA H100": [5, 6, 7]}
    comparison = study({"resnet": rows})
    costs = judged("dynamic_costs_more", comparison)
    assert (costs["n"], costs["effect"]) == (4, close(0.1))
    assert "without seeds 5, 6 and 7, where the kind of processor differs" in costs["why"]
    assert judged("dynamic_generalizes", comparison)["n"] == 7


# Windows


def windows(welch, hann, number=10) -> dict:
    """Accuracy of triangular, and of the other two as far from it as ``welch`` and ``hann`` say."""
    triangular = [0.70 + 0.001 * seed for seed in range(number)]
    return study(
        {
            "resnet": {
                "triangular": cell(triangular),
                "welch": cell([t + d for t, d in zip(triangular, welch, strict=True)]),
                "hann": cell([t + d for t, d in zip(triangular, hann, strict=True)]),
            }
        }
    )


WIGGLE = [0.0001, -0.0002, 0.0003, -0.0004, 0.0005, -0.0006, 0.0007, -0.0008, 0.0009, -0.001]


def test_windows_are_equivalent_if_all_pairs_differ_by_less_than_half_a_point():
    found = judged("windows_equivalent", windows(WIGGLE, [-2 * d for d in WIGGLE]))
    assert found["verdict"] == "supported"
    assert len(found["parts"]) == 3
    assert [part["p"] for part in found["parts"]] == [close(2 / 2**10)] * 3
    # the pair that differs most: welch and hann, by three wiggles
    assert found["effect"] == close(3 * np.mean(WIGGLE))


def test_a_window_that_is_a_point_ahead_contradicts_equivalence():
    found = judged("windows_equivalent", windows(WIGGLE, [0.01 + d for d in WIGGLE]))
    assert found["verdict"] == "contradicted"
    assert [part["decides"] for part in found["parts"]] == ["for", "against", "against"]


def test_a_decisive_difference_within_the_margin_is_still_equivalent():
    ahead = [0.002 + d for d in WIGGLE]
    assert signed_rank_p(ahead) < 0.01
    assert judged("windows_equivalent", windows(ahead, WIGGLE))["verdict"] == "supported"


def test_a_large_p_is_no_evidence_of_equivalence():
    wide = [30 * d for d in WIGGLE]
    assert signed_rank_p(wide) > 0.5
    found = judged("windows_equivalent", windows(wide, WIGGLE))
    assert found["verdict"] == "undecided"
    assert found["seeds_needed"] > 10


def test_equivalence_needs_both_sides():
    near = [0.004 + 8 * d for d in WIGGLE]  # above -0.005 at every seed, below 0.005 at about half of them
    assert signed_rank_p([0.005 + d for d in near]) < 0.01
    assert signed_rank_p([0.005 - d for d in near]) > 0.05
    assert judged("windows_equivalent", windows(near, WIGGLE))["verdict"] == "undecided"


def test_few_seeds_leave_equivalence_undecided():
    found = judged("windows_equivalent", windows(WIGGLE[:5], WIGGLE[1:6], number=5))
    assert found["verdict"] == "undecided"
    assert found["seeds_needed"] == 7  # 3 pairs: 3 x 2 / 2^7 <= 0.05


def test_all_three_windows_are_needed():
    rows = {"triangular": cell([0.7] * 6), "welch": cell([0.7] * 6)}
    found = judged("windows_equivalent", study({"resnet": rows}))
    assert (found["verdict"], found["n"]) == ("undecided", 0)
    assert "hann did not run" in found["why"]


# Seeds needed


@pytest.mark.parametrize("effect", [0.3, 0.5, 0.8, 1.2])
@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
def test_the_seeds_needed_are_those_of_the_t_test_over_the_efficiency(effect, level):
    from statsmodels.stats.power import TTestPower

    values = np.array([effect - math.sqrt(0.5), effect + math.sqrt(0.5)])  # standard deviation 1
    t_test = math.ceil(TTestPower().solve_power(effect, alpha=level, power=0.8))
    reachable = math.ceil(math.log2(2 / level))
    assert seeds_for_signed_rank(values, level) == max(reachable, math.ceil(math.pi / 3 * t_test))


def test_so_many_seeds_do_decide_as_often_as_asked_for():
    values = np.array([1 - math.sqrt(0.5), 1 + math.sqrt(0.5)])
    number = seeds_for_signed_rank(values, 0.05)
    rng = np.random.default_rng(0)
    decided = np.mean([signed_rank_p(rng.normal(1, 1, number)) <= 0.05 for _ in range(500)])
    assert 0.75 < decided < 0.9


@pytest.mark.parametrize(
    ("values", "seeds"),
    [
        ([0.01], None),  # one seed has no spread
        ([-0.01, 0.01], None),  # no effect to find
        ([0.01, 0.01, 0.01], 6),  # no spread: the smallest n with 2 / 2^n <= 0.05
    ],
)
def test_seeds_needed_at_the_edges(values, seeds):
    assert seeds_for_signed_rank(np.array(values), 0.05) == seeds


def test_a_tiny_effect_needs_more_seeds_than_anyone_has():
    values = np.array([1e-6 - 1, 1e-6 + 1])
    assert seeds_for_signed_rank(values, 0.05) > 1e12


@pytest.mark.parametrize(("share", "chance"), [(0.9, 0.5), (0.8, 0.5), (1.0, 10 / 12), (0.95, 0.8)])
def test_the_runs_needed_are_the_fewest_that_have_the_power(share, chance):
    from scipy.stats import binom, binomtest

    def power(n: int) -> float:
        decisive = [k for k in range(n + 1) if 2 * binomtest(k, n, chance, "greater").pvalue <= 0.05]
        return sum(binom.pmf(k, n, share) for k in decisive)

    number = seeds_for_binomial(share, chance, 0.05)
    assert power(number) >= 0.8
    assert all(power(n) < 0.8 for n in range(1, number))


def test_no_number_of_runs_shows_what_is_not_so():
    assert seeds_for_binomial(0.5, 0.5, 0.05) is None


# All claims


def test_the_claims_are_judged_in_order_each_with_its_source_and_test(filled):
    found = claims(filled, [])
    assert [claim["id"] for claim in found] == CLAIMS
    for claim in found:
        assert claim["claim"]
        assert claim["test"]
        assert claim["source"]
        assert all("seed 00" in source or "arXiv" in source for source in claim["source"])


def test_verdicts_on_the_sample_are_about_the_sample():
    models = {"resnet": pair(UPS[:7]), "lstm": pair(UPS[:7], dataset="imdb")}
    comparison = study(models, source="sample")
    for claim in claims(comparison, []):
        assert claim["why"].startswith(
            "On the embedded sample alone (digits (sample) and generated reviews (sample))"
        )
    assert judged("dynamic_generalizes", comparison)["verdict"] == "supported"
    assert all(gap["text"].startswith("On the embedded sample alone") for gap in gaps(comparison))


@pytest.mark.parametrize("schedule", PARAMETERS)
@pytest.mark.parametrize("diverged", [False, True])
def test_the_smallest_study_has_gaps_and_verdicts(schedule, diverged):
    smallest = cell(
        [0.0 if diverged else 0.7],
        parameters=PARAMETERS[schedule],
        diverged=[1] if diverged else [],
        num_epochs=20,
        turning_epoch=[None],
        overfitting=[None if diverged else 0.0],
    )
    comparison = study({"resnet": {schedule: smallest}})
    found = claims(comparison, [])
    assert {claim["verdict"] for claim in found} == {"undecided"}
    assert [gap["gap"] for gap in gaps(comparison)] == GAPS
    json.dumps([found, gaps(comparison)], allow_nan=False)


def test_one_seed_of_every_schedule_has_effects_without_intervals():
    comparison = study({"resnet": pair(UPS[:1])})
    found = judged("dynamic_generalizes", comparison)
    assert (found["effect"], found["interval"], found["n"]) == (close(0.01), None, 1)
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", None)


def test_what_compare_writes_has_what_the_claims_read():
    from known_study import cells, comparison
    from lrstudy.comparison import curves

    study = cells()
    for schedules in study.values():
        for one in schedules.values():
            for run in one["training"]["seeds"].values():
                run["compute_seconds"] = [1.5, 1.52]
    compared = json.loads(json.dumps(comparison(study)))
    found = {claim["id"]: claim for claim in claims(compared, curves(study))}
    # by hand: +0.04 and +0.055, and -0.345 where cosine diverged; +0.025, +0.015 and +0.04
    resnet, lstm = found["dynamic_generalizes"]["parts"]
    assert resnet["effect"] == close((0.04 - 0.355 + 0.055) / 3)
    assert lstm["effect"] == close((0.025 + 0.015 + 0.04) / 3)
    assert found["dynamic_costs_more"]["parts"][0]["n"] == 2  # without the seed that diverged
    assert {claim["verdict"] for claim in found.values()} == {"undecided"}
    for claim in found.values():
        assert all(at(compared, key) for key in claim["keys"])
    for gap in gaps(compared):
        assert all(at(compared, value["key"]) == value["value"] for value in gap["values"])
