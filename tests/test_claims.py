"""The paper's gaps and the verdicts on claims, on comparisons small enough to be worked by hand."""

import copy
import json
import math
from pathlib import Path
from typing import Annotated, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

from composed import composed_params
from known_study import plain
from lrstudy.analysis import claims as analysis_claims
from lrstudy.analysis import gaps as analysis_gaps
from lrstudy.analysis.claim_tests import _chance_within
from lrstudy.analysis.comparison import chosen_by_validation
from lrstudy.analysis.records import CellResult, Results
from lrstudy.analysis.statistics import chance_to_decide, equivalence_p, signed_rank_p, t_interval
from lrstudy.analysis.timing import orders
from lrstudy.checked import Record
from lrstudy.schedules import resolve_parameters

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
    "dynamic_beats_averaged",
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
DOWNS = [-value for value in UPS]
LEVEL = [0.0002, -0.0001, 0.0003, -0.0004, 0.0001, -0.0002, 0.0004, -0.0003]
"""Differences without ties, mean 0.0105 over 6 and over 8 seeds."""


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def cell(
    accuracy,
    *,
    parameters=None,
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
    parameters = {"some": 1.0} if parameters is None else parameters
    everywhere = {"dtype": "float32", "processor": "AMD EPYC", "device": "cpu", "torch": "2.14.1"}
    metrics = {"validation/loss": [1 - value for value in accuracy]} | metrics
    metrics |= {
        "test/accuracy": accuracy,
        "test/f1": accuracy,
        "generalization_gap": [0.9 - value for value in accuracy],
    }
    return {
        "seeds": seeds,
        "diverged": list(diverged),
        "base_lr": 0.1,
        "parameters": parameters,
        "by_search": {"1": {"seeds": seeds, "base_lr": 0.1, "parameters": parameters}},
        "warmup_epochs": 0.0,
        "optimizer": optimizer,
        "controller": controller,
        "num_epochs": num_epochs,
        "lr_range": [0.1, 0.1] if parameters == {} else [0.0, 0.1],
        "compute_seconds": {str(seed): 3600.0 for seed in seeds},
        "tuned": "tuned" if tuning else "defaults",
        "interventions": {},
        "identities": {str(seed): f"{name}-{seed}" for seed in seeds},
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
        "interval": t_interval(known) if known else None,
    }


def study(cells: dict, missing=(), source="hub", looks=(), views=None, **more) -> dict:
    datasets = {c["dataset"]: None for row in cells.values() for c in row.values()}
    labels = {"cifar10": "CIFAR-10 (JPEG copy)", "imdb": "IMDB"}
    if source == "sample":
        labels = {"cifar10": "digits (sample)", "imdb": "generated reviews (sample)"}
    return {
        "data": {name: {"label": labels[name]} for name in datasets},
        "protocol": {
            "source": source,
            "seeds": list(range(1, 1 + max(len(c["seeds"]) for row in cells.values() for c in row.values()))),
            "looks": list(looks),
            "reference": "static",
            "confidence": 0.95,
            "num_resamples": 100,
            "across_dtypes": False,
            "headline": {"cifar10": "test/accuracy", "imdb": "test/f1"},
        },
        "missing": list(missing),
        "progress": {
            name: {"model": name.partition("-")[0], "schedule": name.partition("-")[2]}
            for name in [*(f"{model}-{row}" for model, rows in cells.items() for row in rows), *missing]
        },
        "cells": cells,
        "views": {model: {} for model in cells} | (views or {}),
        "models": {model: {"ranks": None} for model in cells},
        "across_models": {},
        "timing": {},
    } | more


def record(kind: type[Record], content: dict) -> Record:
    """Such a record of which only what a test is about is said: to ask for more of it is an error."""
    return kind.model_construct(
        **{
            name: of_type(kind.model_fields[name].annotation, value) if name in kind.model_fields else value
            for name, value in content.items()
        }
    )


def of_type(annotation: object, value: object) -> object:
    """A part of a record: its annotation is a record, or has one inside."""
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return of_type(inner[0], value)
    if get_origin(annotation) is dict:
        return {name: of_type(inner[1], one) for name, one in value.items()}
    if get_origin(annotation) is list:
        return [of_type(inner[0], one) for one in value]
    kinds = [
        kind for kind in (inner or (annotation,)) if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    return record(kinds[0], value) if kinds and isinstance(value, dict) else value


def claims(comparison: dict, curves) -> list[dict]:
    """The verdicts on all claims, as they stand in comparison.json."""
    return plain(analysis_claims.claims(record(Results, comparison), curves))


def gaps(comparison: dict) -> list[dict]:
    """The paper's gaps, as they stand there."""
    return plain(analysis_gaps.gaps(record(Results, comparison)))


def chosen(rows: dict) -> str | None:
    """The row of a model that validation chooses."""
    return chosen_by_validation({name: record(CellResult, row) for name, row in rows.items()}, "static")


def judged(name: str, comparison: dict, curves=()) -> dict:
    """The verdict on one claim; its keys must stand in the comparison."""
    found = {claim["id"]: claim for claim in claims(comparison, list(curves))}[name]
    for key in found["keys"]:
        assert at(comparison, key) is not None
    return found


def at(comparison: dict, key: str):
    for name in key.split("."):
        comparison = comparison[int(name) if isinstance(comparison, list) else name]
    return comparison


def pair(differences, base=0.75, **options) -> dict:
    """static, and cosine that differs from it by this much, seed by seed."""
    static = [base + 0.001 * seed for seed in range(len(differences))]
    cosine = [value + up for value, up in zip(static, differences, strict=True)]
    return {"static": cell(static, parameters={}, **options), "cosine": cell(cosine, **options)}


def tuning(objective: float, num_trials=8, best_trial=3, **as_good) -> dict:
    terms = [{"parameter": name, "as_good": bounds} for name, bounds in as_good.items()]
    search = {"objective": objective, "num_tried": num_trials, "best_trial": best_trial}
    return {"terms": terms, "num_trials": 20, "searches": [search]}  # 20 were asked for


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
            "step": {"effect": None, "interval": None},
            "cosine": {"effect": 1.5, "interval": [0.5, 2.5]},
        },
    )  # fmt: skip


def test_every_gap_of_the_paper_is_filled_in_its_order(filled):
    assert [gap["gap"] for gap in gaps(filled)] == GAPS
    assert all(gap["values"] for gap in gaps(filled))


def test_each_number_stands_where_its_key_says_with_the_runs_behind_it(filled):
    everything = [value for gap in gaps(filled) for value in gap["values"]]
    for value in everything:
        assert at(filled, value["key"]) == value["value"], value["key"]
        assert value["identities"]
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
            "identities": ["resnet-step-1", "resnet-step-2"],
            "key": "cells.resnet.step.parameters.gamma",
        }
    ]
    (epochs,) = interval["values"]
    assert (epochs["value"], epochs["unit"], epochs["interval"]) == (4, "epochs", [2.0, 8])
    assert [(v["cell"], v["value"], v["unit"]) for v in rate["values"]] == [
        ("resnet-exponential", 0.2, "per epoch"),
        ("lstm-exponential", 0.2, "per epoch"),
    ]
    assert "0.3 for resnet-step, found by search, the best of 8 (0.15 to 0.6 as good)" in factor["text"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "was 2.5 for resnet-step after a first drop at 5, the default"),
        ({"first_drop": 0.8}, "was 1 for resnet-step after a first drop at 8, the default"),
        ({"step_size": 3}, "was 3 for resnet-step, the default"),  # the classic staircase
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
    assert difference["identities"] == [
        f"resnet-{schedule}-{seed}" for schedule in ("cosine", "static") for seed in (1, 2)
    ]
    assert values["resnet-cosine", "average rank over seeds, 1 is best"]["value"] == 1.0
    assert ("lstm-cosine", "average rank over seeds, 1 is best") not in values
    better = values["cosine", "difference to static in units of its spread, mean of the models"]
    assert (better["value"], better["key"]) == (1.5, "across_models.cosine.effect")
    assert not [name for row, name in values if row == "step"]
    assert "resnet-cosine 74.00% test/accuracy, +3.00 points against static" in gaps(filled)[4]["text"]


def test_a_value_that_was_not_tuned_says_so():
    found = gaps(study({"resnet": {"step": cell([0.7], parameters=PARAMETERS["step"])}}))
    assert found[0]["values"][0]["interval"] is None
    assert "0.3 for resnet-step, the default; no other tried" in found[0]["text"]
    assert "no search" in found[3]["text"]


def test_a_gap_says_whether_its_value_is_the_default_and_how_much_else_was_tried():
    step = cell([0.7], parameters=PARAMETERS["step"], tuning=tuning(0.5, 13, 0, gamma=[0.1, 0.3]))
    found = gaps(study({"resnet": {"step": step}}))
    assert "0.3 for resnet-step, the default; 12 others tried, none better" in found[0]["text"]
    assert "4 for resnet-step, given, not searched" in found[1]["text"]


def test_of_an_exhausted_search_the_trials_that_there_were_are_counted():
    """Twenty were asked for, and the space had no more than eight: 19 others were told."""
    given = tuning(0.5, 8, 0, gamma=[0.1, 0.3]) | {"num_trials": 20}
    step = cell([0.7], parameters=PARAMETERS["step"], tuning=given)
    assert "the default; 7 others tried, none better" in gaps(study({"resnet": {"step": step}}))[0]["text"]
    step["tuning"]["searches"][0] |= {"num_tried": 1}
    assert "the default; no other tried" in gaps(study({"resnet": {"step": step}}))[0]["text"]


def test_the_values_of_two_searches_are_told_by_the_seeds_that_took_them():
    step = cell(
        [0.7, 0.8, 0.7, 0.8], parameters=PARAMETERS["step"], tuning=tuning(0.5, 8, 0, gamma=[0.1, 0.3])
    )
    step["by_search"] = {
        "1": {"seeds": [1, 3], "base_lr": 0.1, "parameters": PARAMETERS["step"]},
        "2": {"seeds": [2, 4], "base_lr": 0.2, "parameters": {"gamma": 0.5, "step_size": 2}},
    }
    step["tuning"]["searches"].append({"objective": 0.4, "num_tried": 5, "best_trial": 3})
    comparison = study({"resnet": {"step": step}})
    factor, *_, reached, _ = gaps(comparison)
    assert (
        "0.3 for resnet-step (seeds 1 and 3), the default; 7 others tried, none better; 0.5 for resnet-step"
        in (factor["text"])
    )
    assert "(seeds 2 and 4), found by search, the best of 5 (0.1 to 0.3 as good)" in factor["text"]
    trained = [
        (value["value"], [name.rpartition("-")[2] for name in value["identities"]])
        for value in factor["values"]
    ]
    assert trained == [(0.3, ["1", "3"]), (0.5, ["2", "4"])]
    assert "resnet-step a validation loss of 0.500 and 0.400 nats" in reached["text"]
    losses = [value["value"] for value in reached["values"] if "validation loss" in value["name"]]
    assert losses == [0.5, 0.4]
    for value in [*factor["values"], *reached["values"]]:
        assert at(comparison, value["key"]) == value["value"]


def test_a_row_whose_rate_never_moves_fills_no_gap():
    step = cell([0.7], parameters=PARAMETERS["step"])
    step["lr_range"] = [0.1, 0.1]
    found = gaps(study({"resnet": {"step": step}}))[0]
    assert found["values"] == []
    assert found["text"] == (
        "On CIFAR-10 (JPEG copy): no cell with the schedule step changed its rate, so there is no reduction "
        "factor; the rate of resnet-step never changed, which gives none."
    )


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
    found = judged("static_overfits", *overfitted([5.0, 5.0, 6.0, 4.0, 5.0, 10.0, 5.0, 5.0]))
    assert found["verdict"] == "supported"
    assert found["parts"][0]["p"] == close(2 / 2**8)
    assert (found["effect"], found["unit"], found["n"]) == (close(0.1), "nats", 8)
    assert (
        "turned, to rise by more than twice its standard error, by epoch 10 of 20 in 8 of 8" in found["why"]
    )
    assert "and did not rise by as much in 0" in found["why"]
    assert "0.1 to 0.05" in found["why"]  # training loss, epoch 10 and 20


def test_overfitting_is_contradicted_where_no_run_turned():
    found = judged("static_overfits", *overfitted([None] * 8))
    assert found["verdict"] == "contradicted"
    assert found["effect"] == 0.0


@pytest.mark.parametrize(
    ("turning", "options"),
    [
        ([5.0] * 4 + [None] * 4, {}),
        ([15.0] * 8, {}),  # turned, but not by epoch 10
        ([5.0] * 8, {"falls": False}),  # training did not go on
    ],
)
def test_overfitting_is_undecided_where_the_runs_disagree_or_training_stops(turning, options):
    found = judged("static_overfits", *overfitted(turning, **options))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", None)


def test_seven_runs_that_agree_are_not_enough_and_eight_would_be():
    found = judged("static_overfits", *overfitted([5.0] * 7))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 8)
    assert found["seeds_needed_by"].startswith("The fewest seeds with which the exact binomial test")


def test_in_a_run_little_longer_than_10_epochs_a_low_by_epoch_10_is_likely_by_chance():
    found = judged("static_overfits", *overfitted([5.0] * 8, num_epochs=12))
    assert found["parts"][0]["p"] == close(2 * (10 / 12) ** 8)
    assert found["verdict"] == "undecided"
    assert found["seeds_needed"] == 21  # the smallest n with 2 (10/12)^n <= 0.05


def test_runs_of_10_epochs_say_nothing_of_what_comes_after():
    found = judged("static_overfits", *overfitted([5.0] * 8, num_epochs=10))
    assert (found["verdict"], found["n"], found["seeds_needed"]) == ("not tested", 0, None)
    assert "10 epochs are not more than 10" in found["why"]
    assert found["run"]["command"] == "dvc exp run -S 'schedule=[static]' -S 'num_epochs.cifar10=20'"
    # one row x 8 seeds x 20 epochs, of which 10 took an hour
    assert found["run"]["core_hours"] == close(16.0)


def test_where_a_turn_is_not_defined_overfitting_is_not_tested_and_not_contradicted():
    """Undefined is no "never turned": a loss of which nobody can say whether it turned speaks for neither side."""
    comparison, curves = overfitted([None] * 8)
    rises = comparison["cells"]["resnet"]["static"]["metrics"]["overfitting"]["values"]
    rises.update(dict.fromkeys(rises))
    found = judged("static_overfits", comparison, curves)
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert "a turn is defined for no run: it takes four epochs" in found["why"]
    # and where it is for some, these alone are counted
    comparison, curves = overfitted([5.0] * 8 + [None])
    comparison["cells"]["resnet"]["static"]["metrics"]["overfitting"]["values"]["9"] = None
    found = judged("static_overfits", comparison, curves)
    assert (found["verdict"], found["n"], found["parts"][0]["p"]) == ("supported", 8, close(2 / 2**8))


def test_trainings_of_the_texts_three_epochs_do_not_test_overfitting():
    from known_study import cells as known_cells
    from known_study import comparison as known_comparison
    from known_study import measured, written
    from lrstudy.analysis.cells import curves

    study = known_cells()  # of two epochs, which show no turn
    found = judged("static_overfits", written(known_comparison(study)), curves(measured(study)))
    assert found["verdict"] == "not tested"
    assert "resnet and lstm could not be tested (2 epochs are not more than 10)" in found["why"]


def test_a_diverged_static_run_neither_turned_nor_kept_falling():
    found = judged("static_overfits", *overfitted([5.0] * 8 + [None], diverged=[9]))
    assert (found["verdict"], found["n"]) == ("supported", 8)


# Dynamic schedules generalize better


def test_better_at_all_of_eight_seeds_is_supported():
    found = judged("dynamic_generalizes", study({"resnet": pair(UPS)}))
    assert found["verdict"] == "supported"
    assert found["effect"] == close(0.0105)
    assert found["parts"][0]["interval"] == close(list(t_interval(UPS)))
    assert found["parts"][0]["p"] == close(2 / 2**8)
    assert found["keys"] == [
        "cells.resnet.cosine.metrics.test/accuracy.values",
        "cells.resnet.static.metrics.test/accuracy.values",
    ]
    assert found["why"] == (
        "On CIFAR-10 (JPEG copy): resnet +1.05 points of test/accuracy (cosine against static; 8 seeds; "
        "p 0.00781); so the test decided for the claim at 0.05."
    )


def test_worse_at_all_of_eight_seeds_is_contradicted():
    found = judged("dynamic_generalizes", study({"resnet": pair([-up for up in UPS])}))
    assert found["verdict"] == "contradicted"
    assert found["effect"] == close(-0.0105)


@pytest.mark.parametrize("count", [1, 5, 7])
def test_fewer_than_eight_seeds_are_not_enough_for_a_test(count):
    found = judged("dynamic_generalizes", study({"resnet": pair(UPS[:count])}))
    assert (found["verdict"], found["parts"][0]["p"]) == ("undecided", 1.0)
    assert "not enough seeds for a test, which needs 8" in found["why"]
    assert "no difference from chance" not in found["why"]
    if count > 1:  # one seed has no spread
        assert (found["seeds_needed"], found["core_hours"]) == (8, close(2.0 * (8 - count)))
        assert found["chance"] > 0.99
        assert f"8 seeds ({2 * (8 - count):g} core-hours more) would with a chance of 100%" in found["why"]


def test_more_seeds_are_needed_than_those_that_did_not_decide():
    found = judged("dynamic_generalizes", study({"resnet": pair([-0.02, 0.03, *UPS[2:8]])}))
    assert found["verdict"] == "undecided"
    values = [-0.02, 0.03, *UPS[2:8]]
    mean, spread = np.mean(values), np.std(values, ddof=1)
    assert found["seeds_needed"] > 8
    assert found["chance"] == pytest.approx(
        chance_to_decide(mean, spread, found["seeds_needed"], 0.05, 0.005), abs=1e-6
    )
    assert chance_to_decide(mean, spread, found["seeds_needed"] - 1, 0.05, 0.005) < 0.8 <= found["chance"]


def two(one, other) -> dict:
    return {"resnet": pair(one), "lstm": pair(other, dataset="imdb")}


WEAK = [-0.001, 0.008, 0.012, 0.009, 0.011, 0.010, 0.013, -0.002]
"""Ranks 1 and 2 of 8 are against: 5 of the 256 patterns have a sum of at most 3, so p is 10 / 256 = 0.039."""


def test_all_parts_must_decide_so_none_is_adjusted_for_the_others():
    """An intersection-union test: Holm over its parts would have asked for p below 0.025 in both."""
    p = signed_rank_p(WEAK)
    assert 0.025 < p <= 0.05
    found = judged("dynamic_generalizes", study(two(WEAK, WEAK)))
    assert [part["p_holm"] for part in found["parts"]] == [close(2 * p)] * 2
    assert found["verdict"] == "supported"
    assert [part["decides"] for part in found["parts"]] == ["for", "for"]


def test_any_part_would_contradict_so_each_is_adjusted_for_the_others():
    worse = [-up for up in WEAK]
    nothing = [0.02, -0.03, 0.01, -0.02, 0.03, -0.01, 0.025, -0.02]
    assert judged("dynamic_generalizes", study({"resnet": pair(worse)}))["verdict"] == "contradicted"
    assert judged("dynamic_generalizes", study(two(worse, nothing)))["verdict"] == "undecided"
    surely = [-up for up in UPS]
    assert judged("dynamic_generalizes", study(two(surely, nothing)))["verdict"] == "contradicted"


def test_better_in_one_model_and_worse_in_the_other_is_mixed_and_says_which():
    found = judged("dynamic_generalizes", study(two(UPS, [-up for up in UPS])))
    assert found["verdict"] == "mixed"
    assert [part["decides"] for part in found["parts"]] == ["for", "against"]
    assert found["why"].startswith("On CIFAR-10 (JPEG copy) and IMDB: ")
    assert found["why"].endswith("so it depends: for it resnet (cosine), against it lstm (cosine).")


SMALL = [0.001, -0.002, 0.003, -0.001, 0.0015, -0.0005, 0.002, -0.0025]


def test_better_in_one_model_and_as_good_in_the_other_is_mixed():
    found = judged("dynamic_generalizes", study(two(UPS, SMALL)))
    assert found["verdict"] == "mixed"
    assert found["parts"][1]["p_within"] == close(equivalence_p(SMALL, 0.005))
    assert found["why"].endswith("for it resnet (cosine), no difference beyond the margin lstm (cosine).")


def test_within_half_a_point_in_every_model_is_equivalent():
    found = judged("dynamic_generalizes", study(two(SMALL, SMALL[::-1])))
    assert found["verdict"] == "equivalent"
    assert [part["decides"] for part in found["parts"]] == ["equivalent"] * 2
    assert found["seeds_needed"] is None


def test_a_model_that_does_not_decide_leaves_a_general_claim_undecided_with_the_seeds_for_this_very_test():
    mixed = [0.01, -0.012, 0.008, -0.011, 0.009, -0.013, 0.02, 0.015]
    found = judged("dynamic_generalizes", study(two(UPS, mixed)))
    assert found["verdict"] == "undecided"
    spreads = [(np.mean(values), np.std(values, ddof=1)) for values in (UPS, mixed)]

    def chance(n: int) -> float:
        return np.prod([chance_to_decide(mean, spread, n, 0.05, 0.005) for mean, spread in spreads])

    number = found["seeds_needed"]
    assert chance(number) >= 0.8 > chance(number - 1)
    # two rows of two models, an hour each
    assert found["core_hours"] == close(4.0 * (number - 8))


def test_dynamic_is_what_validation_chose_and_shares_everything_but_the_schedule_with_static():
    rows = pair(UPS)
    worse = [value - 0.002 for value in rows["static"]["metrics"]["test/accuracy"]["values"].values()]
    rows["step"] = cell(worse)
    rows["static_monitored"] = cell([0.9] * 8, controller="validation_monitor", parameters={})
    rows["static_warmup"] = cell([0.9] * 8, parameters={})
    rows["adam"] = cell([0.9] * 8, optimizer="adam")
    rows["lucky"] = cell([0.95] * 8, **{"validation/loss": [0.9] * 8})  # ahead on the test split alone
    found = judged("dynamic_generalizes", study({"resnet": rows}))
    assert chosen(rows) == "cosine"
    assert found["effect"] == close(0.0105)
    assert "cosine against static" in found["why"]
    assert {row: alone["verdict"] for row, alone in found["by_schedule"].items()} == {
        "cosine": "supported",
        "step": "contradicted",  # by 0.2 points at every seed: small, and certain
        "lucky": "supported",
    }


def test_choosing_by_validation_leaves_the_tests_size_near_its_level():
    """Without effect, three rows, validation and test correlated 0.7: what docs/protocol.md says of the choice."""
    rng, decided = np.random.default_rng(0), []
    for _ in range(1000):
        test = rng.normal(size=(4, 10))
        losses = -0.7 * test + np.sqrt(1 - 0.7**2) * rng.normal(size=(4, 10))
        chosen = 1 + int(losses[1:].mean(axis=1).argmin())
        decided.append(signed_rank_p(test[chosen] - test[0]) <= 0.05)
    assert 0.03 <= np.mean(decided) <= 0.075


def test_an_exotic_row_changes_the_verdict_on_no_other_one():
    before = judged("dynamic_generalizes", study(two(UPS, SMALL)))
    models = two(UPS, SMALL)
    for rows in models.values():
        static = rows["static"]["metrics"]["test/accuracy"]["values"].values()
        rows["exotic"] = cell([value - 0.2 for value in static], dataset=rows["static"]["dataset"])
    after = judged("dynamic_generalizes", study(models))
    assert after["by_schedule"].pop("exotic")["verdict"] == "contradicted"
    assert after == before


def test_a_constant_rate_is_no_dynamic_schedule_whatever_its_name():
    rows = pair(UPS)
    rows["step"] = cell([0.5] * 8, parameters={"gamma": 0.1, "step_size": 10})
    rows["step"]["lr_range"] = [0.1, 0.1]
    rows["step"]["metrics"]["validation/loss"]["values"] = dict.fromkeys("12345678", 0.0)
    found = judged("dynamic_generalizes", study({"resnet": rows}))
    assert list(found["by_schedule"]) == ["cosine"]
    assert found["verdict"] == "supported"


def test_a_run_that_diverged_is_a_loss():
    rows = pair(UPS)
    rows["cosine"]["metrics"]["test/accuracy"]["values"]["8"] = 0.0  # as compare counts it
    found = judged("dynamic_generalizes", study({"resnet": rows}))
    assert found["verdict"] == "undecided"
    assert found["parts"][0]["p"] == close(signed_rank_p([*UPS[:7], -0.757]))


def test_a_mean_against_the_ranks_decides_nothing():
    ups = [0.01 + seed / 1000 for seed in range(20)]
    ups[0] = -0.75  # diverged
    found = judged("dynamic_generalizes", study({"resnet": pair(ups)}))
    assert found["parts"][0]["p"] < 0.05
    assert found["effect"] < 0
    assert found["verdict"] == "undecided"


# Dynamic schedules against averaged weights


def averaged(differences, model="resnet", base=0.75) -> dict:
    """The view of a model's static: its trainings through averaged weights, with cosine ``differences`` above."""
    cosine = [base + 0.001 * seed + up for seed, up in enumerate(UPS)]
    view = cell([value - up for value, up in zip(cosine, differences, strict=True)], parameters={})
    return {model: {"static_averaged": view | {"view_of": "static"}}}


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [(UPS, "supported"), ([-up for up in UPS], "contradicted"), ([up / 10 for up in UPS], "supported")],
)
def test_a_decay_is_judged_against_the_averages_of_statics_own_trainings(differences, verdict):
    found = judged("dynamic_beats_averaged", study({"resnet": pair(UPS)}, views=averaged(differences)))
    assert found["verdict"] == verdict
    assert found["effect"] == close(np.mean(differences))
    assert "cosine against static_averaged; 8 seeds" in found["why"]
    assert found["keys"] == [
        "cells.resnet.cosine.metrics.test/accuracy.values",
        "views.resnet.static_averaged.metrics.test/accuracy.values",
    ]
    assert found["by_schedule"]["cosine"]["verdict"] == verdict
    # what is ahead of static may be behind its average
    assert judged("dynamic_generalizes", study({"resnet": pair(UPS)}))["verdict"] == "supported"


def test_as_good_as_the_average_is_equivalent_within_half_a_point():
    found = judged("dynamic_beats_averaged", study({"resnet": pair(UPS)}, views=averaged(SMALL)))
    assert (found["verdict"], found["parts"][0]["decides"]) == ("equivalent", "equivalent")


def test_a_seed_more_against_the_average_costs_no_training_of_the_average():
    found = judged("dynamic_beats_averaged", study({"resnet": pair(UPS[:7])}, views=averaged_of(7)))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 8)
    assert found["core_hours"] == close(2.0)  # cosine and static, an hour each
    assert found["parts"][0]["rows"] == ["cosine", "static"]


def averaged_of(number: int) -> dict:
    """The view at the first seeds alone."""
    view = averaged(UPS)["resnet"]["static_averaged"]
    for metric in view["metrics"].values():
        metric["values"] = dict(list(metric["values"].items())[:number])
    return {"resnet": {"static_averaged": view}}


def test_without_static_there_is_no_average_to_beat():
    found = judged("dynamic_beats_averaged", study({"resnet": {"cosine": cell([0.7])}}))
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert found["run"]["command"].startswith("dvc exp run -S 'schedule=[static,step,exponential,cosine]'")


# Planned looks


LONG = [*UPS, *UPS[::-1], *UPS[:4]]


def test_a_plan_decides_at_its_looks_and_says_what_it_has_spent():
    looks = (6, 9, 12, 16, 20)
    early = judged("dynamic_generalizes", study({"resnet": pair(LONG[:9])}, looks=looks))
    assert (early["verdict"], early["seeds_needed"]) == ("undecided", 12)  # 2 / 2^9 is above the bound at 9
    assert "0.0017 of 0.05 spent at 9 of 20 seeds" in early["why"]
    later = judged("dynamic_generalizes", study({"resnet": pair(LONG[:12])}, looks=looks))
    assert later["verdict"] == "supported"
    assert "0.0076 of 0.05 spent at 12 of 20 seeds" in later["why"]
    between = judged("dynamic_generalizes", study({"resnet": pair(LONG[:14])}, looks=looks))
    assert between["parts"][0]["p"] == later["parts"][0]["p"]


def test_a_look_at_which_equivalence_can_be_shown_is_asked_for():
    """At 10 of 22 planned seeds two-sided tests cannot decide (2 / 2^10 > 0.0016), one-sided ones can."""
    near = [0.0002, -0.0002, 0.0001, -0.0003, 0.0002, -0.0001, 0.0003, -0.0002]
    found = judged("dynamic_generalizes", study({"resnet": pair(near)}, looks=(8, 10, 22)))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 10)
    assert found["chance"] > 0.99


def test_futility_and_equivalence_are_said_where_more_seeds_would_not_help():
    none = [0.02, -0.02, 0.01, -0.01, 0.03, -0.03, 0.015, -0.015, 0.001, -0.001, 0.025, -0.025]
    found = judged("dynamic_generalizes", study({"resnet": pair(none)}, looks=(12, 20)))
    assert (
        "futile: as the differences went so far, 20 seeds would show one with a chance of 0%" in found["why"]
    )
    assert found["seeds_needed"] == 20
    assert found["chance"] < 0.8  # of planned looks the last one, with the chance that it has
    over = judged("dynamic_generalizes", study({"resnet": pair(none)}, looks=(8, 12)))
    assert (over["verdict"], over["seeds_needed"]) == ("undecided", None)
    assert over["why"].endswith("so the test did not decide at 0.05, and the planned looks are over.")
    within = [value / 20 for value in none]
    found = judged("dynamic_generalizes", study({"resnet": pair(within)}, looks=(12, 20)))
    assert found["verdict"] == "equivalent"
    assert "equivalence is shown: more seeds would not change it" in found["why"]


# The committed study of 73cd819


@pytest.fixture
def old() -> dict:
    """With what it was not asked: it had no updates timed."""
    text = (Path(__file__).parent / "data/comparison_73cd819.json").read_text()
    content = json.loads(text)
    models = {model: {"ranks": None} for model in content["cells"]}
    progress = {
        f"{model}-{row}": {"model": model, "schedule": row}
        for model, rows in content["cells"].items()
        for row in rows
    }
    return content | {"timing": {}, "models": models, "across_models": {}, "progress": progress}


def test_of_the_old_study_validation_chooses_the_best_schedules(old):
    by_model = {model: chosen(rows) for model, rows in old["cells"].items()}
    assert by_model == {"resnet": "cosine", "lstm": "exponential", "transformer": "exponential"}


def test_transformer_step_is_no_dynamic_row_and_fills_no_gap(old):
    assert old["cells"]["transformer"]["step"]["parameters"]["step_size"] == 3  # of 3 epochs
    step = judged("dynamic_generalizes", old)["by_schedule"]["step"]
    assert [part["model"] for part in step["parts"]] == ["resnet", "lstm"]
    assert step["untested"] == {"step is not dynamic": ["transformer"]}
    factor, epochs, *_ = gaps(old)
    for gap in (factor, epochs):
        assert [value["cell"] for value in gap["values"]] == ["resnet-step", "lstm-step"]
        assert "the rate of transformer-step never changed" in gap["text"]
    assert "0.1 for resnet-step, the default; 1 other tried, none better" in factor["text"]


def test_five_seeds_of_the_old_study_are_undecided_since_a_test_needs_eight(old):
    found = judged("dynamic_generalizes", old)
    assert (found["verdict"], found["n"]) == ("undecided", 5)
    assert "so there are not enough seeds: a test needs 8" in found["why"]
    assert [part["effect"] for part in found["parts"]] == [
        pytest.approx(effect, abs=5e-5) for effect in (0.0227, 0.0013, -0.0002)
    ]
    tested = {claim["id"] for claim in claims(old, []) if claim["verdict"] != "not tested"}
    assert tested == {"dynamic_generalizes"}


def test_the_seeds_that_are_asked_for_do_not_contradict_the_old_study(old):
    """The old advice of 10 seeds did in 198 of 200 studies grown by resampling the five, by one constant row."""
    rng = np.random.default_rng(0)
    asked = judged("dynamic_generalizes", old)["seeds_needed"]
    for number in (10, asked):
        verdicts = [judged("dynamic_generalizes", grown(old, number, rng))["verdict"] for _ in range(20)]
        assert "contradicted" not in verdicts, number
        if number == asked:
            assert verdicts.count("undecided") <= 10


def grown(old: dict, number: int, rng: np.random.Generator) -> dict:
    """The study with so many seeds, each of a model's cells at one of its five."""
    new = copy.deepcopy(old)
    new["protocol"]["seeds"] = list(range(1, number + 1))
    for rows in new["cells"].values():
        drawn = [str(seed) for seed in rng.integers(1, 6, size=number)]
        for found in rows.values():
            found["seeds"] = new["protocol"]["seeds"]
            found["origins"] = {what: {"not recorded": found["seeds"]} for what in found["origins"]}
            for name in ("test/accuracy", "test/f1", "validation/loss"):
                values = found["metrics"][name]["values"]
                found["metrics"][name]["values"] = {
                    str(place): values[seed] for place, seed in enumerate(drawn, start=1)
                }
    return new


# Cells that did not run


def test_cells_that_did_not_run_are_named():
    found = judged("dynamic_generalizes", study({"resnet": pair(UPS)}, missing=["resnet-step"]))
    assert "not run: resnet-step" in found["why"]
    without = study({"resnet": {"cosine": cell([0.7])}}, missing=["resnet-static"])
    found = judged("dynamic_generalizes", without)
    assert found["verdict"] == "not tested"
    assert "resnet could not be tested (static did not run); not run: resnet-static" in found["why"]


# Seeds that are planned and have not run


@pytest.mark.parametrize(
    ("values", "alone", "in_all"),
    [
        (UPS, "supported", "undecided"),
        (DOWNS, "contradicted", "undecided"),
        (LEVEL, "equivalent", "undecided"),
    ],
)
def test_a_claim_waits_for_the_models_that_are_still_to_come(values, alone, in_all):
    """It is about all models of the study: what one of them decides supports nothing."""
    missing = ["lstm-static", "lstm-cosine"]
    assert judged("dynamic_generalizes", study({"resnet": pair(values)}))["verdict"] == alone
    found = judged("dynamic_generalizes", study({"resnet": pair(values)}, missing=missing))
    assert found["verdict"] == in_all
    assert found["why"].endswith("not run: lstm-static, lstm-cosine; lstm still to come.")
    assert found["seeds_needed"] is None  # not seeds of resnet
    assert [part["decides"] for part in found["parts"]] == [
        {"supported": "for", "contradicted": "against", "equivalent": "equivalent"}[alone]
    ]
    assert found["by_schedule"]["cosine"]["verdict"] == in_all


def test_a_claim_that_two_models_decide_either_way_does_not_wait():
    cells = {"resnet": pair(UPS), "lstm": pair(DOWNS)}
    found = judged("dynamic_generalizes", study(cells, missing=["transformer-static", "transformer-cosine"]))
    assert found["verdict"] == "mixed"


def of_ten(cosine: int, static: int = 10, missing=(), looks=(), **more) -> dict:
    """A study of ten planned seeds, of which the two rows have so many; cosine is far ahead."""
    made = study(
        {
            "resnet": {
                "static": cell([0.70 + place / 1000 for place in range(static)], parameters={}),
                "cosine": cell([0.75 + place / 500 for place in range(cosine)]),
                **more,
            }
        },
        missing=missing,
        looks=looks,
    )
    made["protocol"]["seeds"] = list(range(1, 11))
    return made


def test_a_look_before_all_planned_seeds_are_there_decides_nothing():
    assert judged("dynamic_generalizes", of_ten(10))["verdict"] == "supported"
    for early in (of_ten(9), of_ten(10, static=9)):
        found = judged("dynamic_generalizes", early)
        assert found["verdict"] == found["by_schedule"]["cosine"]["verdict"] == "undecided"
        assert (found["n"], found["seeds_needed"]) == (9, None)
        assert found["parts"][0]["waits"] == "9 of 10 planned seeds so far"
        assert found["effect"] == pytest.approx(0.054)  # shown all the same
        assert "undecided: 9 of 10 planned seeds so far); so the test was not due." in found["why"]


def test_what_validation_chooses_from_has_to_be_whole_and_a_row_by_itself_not():
    exotic = {"linear": cell([0.6] * 3)}
    for early in (of_ten(10, **exotic), of_ten(10, missing=["resnet-linear"])):
        found = judged("dynamic_generalizes", early)
        assert found["verdict"] == "undecided"
        assert found["by_schedule"]["cosine"]["verdict"] == "supported"


def test_planned_looks_are_looked_at_when_their_seeds_are_there():
    looks = [8, 10]
    assert (
        judged("dynamic_generalizes", of_ten(7, looks=looks))["parts"][0]["waits"]
        == "7 of 8 planned seeds so far"
    )
    at_eight = judged("dynamic_generalizes", of_ten(8, looks=looks))
    assert at_eight["parts"][0]["waits"] == ""
    assert at_eight["parts"][0]["p"] == judged("dynamic_generalizes", of_ten(9, looks=looks))["parts"][0]["p"]
    assert judged("dynamic_generalizes", of_ten(10, looks=looks))["verdict"] == "supported"


# Validation monitoring mitigates overfitting


def monitored(without, with_monitor) -> dict:
    """static with and without the monitor, by the test loss at the end."""
    number = len(without)
    rises = [0.1] * number, [0.0] * number  # of the validation loss, which the monitor sees to
    static, other = (
        {"test/loss": losses, "overfitting": rise}
        for losses, rise in zip((without, with_monitor), rises, strict=True)
    )
    plain = cell([0.75] * number, parameters={}, **static)
    steered = cell([0.76] * number, parameters={}, controller="validation_monitor", **other)
    return study({"resnet": {"static": plain, "static_monitored": steered}})


@pytest.mark.parametrize(
    ("change", "verdict"), [(-0.05, "supported"), (0.05, "contradicted")], ids=["less", "more"]
)
def test_monitoring_is_judged_by_the_test_loss_which_the_monitor_does_not_see(change, verdict):
    before = [0.10 + seed / 100 for seed in range(8)]
    after = [value + change * (1 + seed / 10) for seed, value in enumerate(before)]
    found = judged("monitoring_mitigates_overfitting", monitored(before, after))
    assert found["verdict"] == verdict
    assert (found["effect"], found["unit"]) == (close(change * 1.35), "nats")
    # who learns less overfits less: what it does to accuracy is told beside
    assert (
        "overfitting -0.1 nats; generalization_gap -1.00 points; test/accuracy +1.00 points" in found["why"]
    )


def test_monitoring_says_whether_there_was_overfitting_to_mitigate():
    before = [0.10 + seed / 100 for seed in range(8)]
    after = [value - 0.05 * (1 + seed / 10) for seed, value in enumerate(before)]
    comparison = monitored(before, after)
    found = judged("monitoring_mitigates_overfitting", comparison)
    assert "the validation loss of static ended risen in 8 of 8 runs" in found["why"]
    rises = comparison["cells"]["resnet"]["static"]["metrics"]["overfitting"]["values"]
    rises.update(dict.fromkeys("12345", 0.0))
    found = judged("monitoring_mitigates_overfitting", comparison)
    assert "the validation loss of static ended risen in 3 of 8 runs" in found["why"]
    rises.update(dict.fromkeys(rises))
    found = judged("monitoring_mitigates_overfitting", comparison)
    assert found["verdict"] == "supported"  # of the test loss
    assert "whether static overfit is not defined for fewer than four epochs" in found["why"]


def test_a_monitor_that_never_acted_tests_nothing():
    comparison = monitored([0.1 + seed / 100 for seed in range(8)], [0.1 + seed / 100 for seed in range(8)])
    row = comparison["cells"]["resnet"]["static_monitored"]
    row["interventions"] = dict.fromkeys("12345678", 0)
    found = judged("monitoring_mitigates_overfitting", comparison)
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert "validation_monitor never intervened in static_monitored" in found["why"]
    row["interventions"]["3"] = 1
    assert judged("monitoring_mitigates_overfitting", comparison)["n"] == 8


def test_seeds_at_which_a_row_diverged_have_no_test_loss_and_are_named():
    before = [0.10 + seed / 100 for seed in range(9)]
    comparison = monitored(before, [value - 0.05 * (1 + value) for value in before])
    static = comparison["cells"]["resnet"]["static"]
    static["diverged"] = [9]
    static["metrics"]["test/loss"]["values"]["9"] = None
    found = judged("monitoring_mitigates_overfitting", comparison)
    assert (found["verdict"], found["n"]) == ("supported", 8)
    assert "8 seeds; without seed 9, where static diverged" in found["why"]


def test_monitoring_is_undecided_with_few_seeds_and_not_tested_where_no_row_ran_both_ways():
    found = judged("monitoring_mitigates_overfitting", monitored([0.1, 0.2, 0.3], [0.0, 0.1, 0.1]))
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 8)
    found = judged("monitoring_mitigates_overfitting", study({"resnet": pair(UPS)}))
    assert (found["verdict"], found["n"], found["effect"]) == ("not tested", 0, None)
    assert "no row ran with validation_monitor and without" in found["why"]


# Cost


def timing(rows: dict[str, list[float]], kind="schedules", control=("static",), **described) -> dict:
    """What the stage writes of rows whose pairs of rounds cost so many times what ``control`` does.

    A pair's two rounds are off by a tenth to either side, which its mean does away with.
    """
    count = len(next(iter(rows.values())))
    base = [0.02 * (1 + pair / 100) for pair in range(count)]
    ratios = {name: [1.0] * count for name in control} | rows
    return {
        "dataset": "cifar10",
        "data": {"label": "CIFAR-10 (JPEG copy)"},
        "precision": "float32",
        "rounds": 2 * count,
        "updates": 4,
        "took": 360.0,
        "origin": {"accelerator": None, "processor": "AMD EPYC"},
        "schedules": {},
        "optimizers": {},
    } | {
        kind: {
            name: {
                "optimizer": name if kind == "optimizers" else "nesterov",
                "controller": "none",
                "moves": kind == "schedules" and name not in control,
                "diverged": 0,
                "seconds": [
                    seconds * ratio * off
                    for seconds, ratio in zip(base, found, strict=True)
                    for off in (1.1, 1 / 1.1)
                ],
            }
            | described.get(name, {})
            for name, found in ratios.items()
        }
    }


def timed(**timings: dict) -> dict:
    """A study with a cell that says nothing of cost, and the timings by model."""
    return study({"resnet": {"static": cell([0.7], parameters={})}}, timing=timings)


DEARER = [1.10, 1.11, 1.12, 1.09, 1.13, 1.14, 1.08, 1.15]
ALIKE = [1.01, 1.02, 1.00, 0.99, 1.03, 0.98, 1.015, 0.97]
CHEAPER = [1 / ratio for ratio in DEARER]
EITHER = [1.01, 1.09, 0.97, 1.08, 1.03, 0.96, 1.02, 1.00]
"""Pairs of rounds: all 8% dearer or more, all within 3%, all 7% cheaper or more, on both sides of 5%."""


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        (DEARER, "supported"),
        (ALIKE, "equivalent"),
        (CHEAPER, "contradicted"),
        (EITHER, "undecided"),
        (DEARER[:7], "undecided"),
        (ALIKE[:7], "undecided"),
    ],
    ids=["dearer", "alike", "cheaper", "either", "dearer in 7 pairs", "alike in 7 pairs"],
)
def test_dynamic_schedules_cost_more_if_an_update_takes_more_than_five_percent_longer(ratios, verdict):
    comparison = timed(resnet=timing({"cosine": ratios}))
    found = judged("dynamic_costs_more", comparison)
    assert found["verdict"] == verdict
    assert (found["n"], found["counted"], found["unit"]) == (len(ratios), "pairs of rounds", "fraction")
    assert found["effect"] == close(np.median(ratios) - 1)
    [part] = found["parts"]
    values = np.log(ratios)
    if len(ratios) == 8:  # with 8 pairs the exact interval of the median is their range
        assert part["interval"] == close([min(ratios) - 1, max(ratios) - 1])
        assert part["p_within"] == close(equivalence_p(values, math.log(1.05)))
    else:
        assert (part["p"], part["p_within"]) == (1.0, 1.0)
        assert "not enough pairs of rounds for a test, which needs 8" in found["why"]
    if verdict == "supported":
        assert part["p"] == close(signed_rank_p(values - math.log(1.05))) == close(2 / 2**8)
    if verdict == "contradicted":
        assert part["p"] == close(signed_rank_p(values + math.log(1.05))) == close(2 / 2**8)


def test_each_row_counts_for_itself_so_that_a_dear_one_is_not_lost_in_a_mean():
    comparison = timed(resnet=timing({"cosine": ALIKE, "step": ALIKE, "sparse": DEARER}))
    found = judged("dynamic_costs_more", comparison)
    assert found["verdict"] == "mixed"
    assert (
        "for it resnet (sparse), no difference beyond the margin resnet (cosine) and resnet (step)"
        in found["why"]
    )
    assert found["effect"] == close(np.median(DEARER) - 1)
    assert "resnet, against static: cosine +0.5% (-3.0% to +3.0%; p 1; p " in found["why"]
    assert "8 pairs of rounds of 4 updates in float32 on AMD EPYC" in found["why"]


def test_a_row_costs_as_dynamic_if_its_rate_moves_or_a_controller_acts():
    rows = timing({"cosine": ALIKE, "monitored": ALIKE, "constant": DEARER})
    rows["schedules"]["monitored"] |= {"controller": "validation_monitor", "moves": False}
    rows["schedules"]["constant"]["moves"] = False
    found = judged("dynamic_costs_more", timed(resnet=rows))
    assert [part["rows"] for part in found["parts"]] == [["cosine", "static"], ["monitored", "static"]]


def test_cost_needs_no_training_and_says_what_was_not_timed():
    comparison = timed(lstm=timing({"cosine": ALIKE}) | {"dataset": "imdb", "data": {"label": "IMDB"}})
    found = judged("dynamic_costs_more", comparison)
    assert found["verdict"] == "undecided"  # the claim is about both
    assert found["untested"] == {"its updates were not timed": ["resnet"]}
    assert found["why"].startswith("On IMDB: lstm, against static")
    assert found["why"].endswith("resnet still to come.")
    for nothing in (timed(), study({"resnet": pair(UPS)})):
        found = judged("dynamic_costs_more", nothing)
        assert (found["verdict"], found["n"]) == ("not tested", 0)
        assert found["run"] == {"command": "dvc exp run -S timing=minutes", "core_hours": None}
    alone = timing({"other": ALIKE})
    alone["schedules"]["other"]["moves"] = False
    found = judged("dynamic_costs_more", timed(resnet=alone))
    assert found["untested"] == {"no dynamic schedule was timed beside static": ["resnet"]}
    found = judged("dynamic_costs_more", timed(resnet=timing({"cosine": ALIKE}, control=("other",))))
    assert found["untested"] == {"static was not timed": ["resnet"]}


def test_the_planned_looks_of_the_seeds_are_none_at_the_cost():
    comparison = timed(resnet=timing({"cosine": ALIKE}))
    comparison["protocol"] |= {"looks": [8, 20], "seeds": [1]}
    assert judged("dynamic_costs_more", comparison)["verdict"] == "equivalent"


def test_an_undecided_cost_asks_for_pairs_of_rounds_timed_anew():
    found = judged("dynamic_costs_more", timed(resnet=timing({"cosine": EITHER})))
    assert found["verdict"] == "undecided"
    values = np.log(EITHER)
    needed = found["seeds_needed"]
    inside = [_chance_within(values, pairs, 0.05, math.log(1.05)) for pairs in (needed - 1, needed)]
    assert inside[0] < 0.8 <= inside[1] == close(found["chance"])
    assert found["core_hours"] == close(needed * 360 / 8 / 3600)  # 360 s for 8 pairs
    assert f"and {needed} pairs of rounds (" in found["why"]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [(DEARER, "supported"), (ALIKE, "equivalent"), (CHEAPER, "contradicted"), (DEARER[:2], "undecided")],
    ids=["dearer", "alike", "cheaper", "two pairs"],
)
def test_adaptive_optimizers_are_timed_against_the_plain_ones(ratios, verdict):
    plain = ("sgd", "momentum", "nesterov")
    rows = timing({"adam": ratios, "adamw": ratios}, kind="optimizers", control=plain)
    found = judged("adaptive_optimizers_cost_more", timed(resnet=rows))
    assert found["verdict"] == verdict
    assert found["effect"] == close(np.median(ratios) - 1)
    assert [part["rows"] for part in found["parts"]] == [["adam", *plain], ["adamw", *plain]]


def test_plain_optimizers_count_by_their_geometric_mean():
    control = {"sgd": [0.9] * 8, "momentum": [1 / 0.9] * 8}
    rows = timing({"adam": DEARER} | control, kind="optimizers", control=())
    assert judged("adaptive_optimizers_cost_more", timed(resnet=rows))["effect"] == close(
        np.median(DEARER) - 1
    )
    for missing in ("adam", "sgd", "momentum"):
        del rows["optimizers"][missing]
        found = judged("adaptive_optimizers_cost_more", timed(resnet=rows))
        if missing == "adam":
            assert found["untested"] == {"no adaptive optimizer was timed": ["resnet"]}
    assert found["verdict"] == "not tested"


@pytest.mark.parametrize("drift", [0.0, 0.3, -0.3], ids=["steady", "slower and slower", "faster and faster"])
def test_a_machine_that_drifts_makes_no_row_dearer(drift):
    """Where the orders were not reversed, the row that comes last would cost what the drift adds."""
    names, rounds = ["static", "cosine"], 16
    found = timing({"cosine": [1.0] * (rounds // 2)})
    for row in found["schedules"].values():
        row["seconds"] = []
    blocks = [name for order in orders(names, rounds) for name in order]
    for place, name in enumerate(blocks):
        found["schedules"][name]["seconds"].append(0.02 * math.exp(drift * place))
    claim = judged("dynamic_costs_more", timed(resnet=found))
    assert (claim["verdict"], claim["effect"]) == ("equivalent", close(0.0))


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
        (UPS, "supported"),
        ([-up for up in UPS], "contradicted"),
        (SMALL, "equivalent"),
        (UPS[:4], "undecided"),
    ],
)
def test_late_decay_is_compared_with_early_decay(differences, verdict):
    found = judged("late_decay_generalizes", late(differences))
    assert found["verdict"] == verdict
    assert "late_decay against early_decay" in found["why"]


def test_late_decay_needs_two_starts():
    found = judged("late_decay_generalizes", late(UPS, starts=(0.8, 0.8)))
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert "no two late_decay rows with different starts ran" in found["why"]


# Runs that are not compared


def test_a_seed_whose_rows_have_two_dtypes_decides_nothing():
    comparison = study({"resnet": pair([*UPS, 0.02])})
    comparison["cells"]["resnet"]["cosine"]["origins"]["dtype"] = {
        "float32": [1, 2, 3, 4, 5, 6, 7, 8],
        "bfloat16": [9],
    }
    found = judged("dynamic_generalizes", comparison)
    assert (found["n"], found["parts"][0]["p"]) == (8, close(2 / 2**8))
    assert found["effect"] == close(np.mean(UPS))
    assert "8 seeds; without seed 9, where the dtype differs" in found["why"]
    comparison["protocol"]["across_dtypes"] = True
    found = judged("dynamic_generalizes", comparison)
    assert (found["n"], "without" in found["why"]) == (9, False)


def test_rows_in_two_dtypes_throughout_leave_a_claim_untested():
    comparison = study({"resnet": pair(UPS)})
    comparison["cells"]["resnet"]["cosine"]["origins"]["dtype"] = {"bfloat16": [1, 2, 3, 4, 5, 6, 7, 8]}
    found = judged("dynamic_generalizes", comparison)
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert "no seed has test/accuracy and the same dtype for both cosine and static" in found["why"]


def test_windows_in_two_dtypes_are_not_compared():
    comparison = windows(WIGGLE, [-2 * d for d in WIGGLE])
    comparison["cells"]["resnet"]["hann"]["origins"]["dtype"] = {
        "bfloat16": [10],
        "float32": list(range(1, 10)),
    }
    found = judged("windows_equivalent", comparison)
    assert [part["n"] for part in found["parts"]] == [10, 9, 9]


def test_accuracies_are_compared_on_any_kinds_of_machine():
    rows = pair(UPS[:7])
    rows["cosine"]["origins"]["processor"] = {"AMD EPYC": [1, 2, 3, 4], "NVIDIA H100": [5, 6, 7]}
    comparison = study({"resnet": rows})
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
    assert [part["p"] for part in found["parts"]] == [close(1 / 2**10)] * 3  # one-sided
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


def test_all_windows_must_be_within_so_eight_seeds_of_a_one_sided_test_suffice():
    """Holm over nine parts and a two-sided p asked for 0.05 / 18 a side: nine seeds at the least."""
    found = judged("windows_equivalent", windows(WIGGLE[:8], [-2 * d for d in WIGGLE[:8]], number=8))
    assert found["verdict"] == "supported"


def test_a_large_p_is_no_evidence_of_equivalence():
    wide = [15 * d for d in WIGGLE]
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
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", 8)
    assert found["core_hours"] == close(3 * 3.0)  # three rows of one model, of which two pairs share one


def test_all_three_windows_are_needed():
    rows = {"triangular": cell([0.7] * 8), "welch": cell([0.7] * 8)}
    found = judged("windows_equivalent", study({"resnet": rows}))
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert "hann did not run" in found["why"]


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
    models = {"resnet": pair(UPS), "lstm": pair(UPS, dataset="imdb")}
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
    assert {claim["verdict"] for claim in found} <= {"undecided", "not tested"}
    assert [gap["gap"] for gap in gaps(comparison)] == GAPS
    json.dumps([found, gaps(comparison)], allow_nan=False)


def test_one_seed_of_every_schedule_has_effects_without_intervals():
    comparison = study({"resnet": pair(UPS[:1])})
    found = judged("dynamic_generalizes", comparison)
    assert (found["effect"], found["parts"][0]["interval"], found["n"]) == (close(0.01), None, 1)
    assert (found["verdict"], found["seeds_needed"]) == ("undecided", None)


def test_what_compare_writes_has_what_the_claims_read():
    from known_study import cells, comparison, measured, written
    from lrstudy.analysis.cells import curves

    study = cells()
    compared = written(comparison(study))
    found = {claim["id"]: claim for claim in claims(compared, curves(measured(study)))}
    # validation chose exponential, as a run of resnet's cosine diverged, and by the order of rows in the lstm
    resnet, lstm = found["dynamic_generalizes"]["parts"]
    assert resnet["effect"] == close((0.03 + 0.01 + 0.05) / 3)
    assert lstm["effect"] == close((0.0 - 0.01 + 0.02) / 3)
    assert found["dynamic_costs_more"]["verdict"] == "mixed"
    assert [part["n"] for part in found["dynamic_costs_more"]["parts"]] == [8] * 4
    assert found["adaptive_optimizers_cost_more"]["verdict"] == "supported"
    others = {claim["verdict"] for name, claim in found.items() if "cost" not in name}
    assert others == {"undecided", "not tested"}
    for claim in found.values():
        assert all(at(compared, key) for key in claim["keys"])
    for gap in gaps(compared):
        assert all(at(compared, value["key"]) == value["value"] for value in gap["values"])


def test_what_would_test_a_claim_is_a_command_that_composes():
    """Each command's overrides make a params.yaml that is checked, with the rows that the claim needs."""
    import shlex

    comparison = study({"resnet": {"other": cell([0.7] * 3)}})
    commands = {c["id"]: c["run"]["command"] for c in claims(comparison, []) if c["run"] is not None}
    assert set(commands) == set(CLAIMS)
    assert commands["dynamic_costs_more"] == commands.pop("adaptive_optimizers_cost_more")
    for claim, command in commands.items():
        words = shlex.split(command)
        assert words[:3] == ["dvc", "exp", "run"]
        assert words[3::2] == ["-S"] * len(words[4::2])
        params = composed_params(*words[4::2])
        if "cost" in claim:  # which is no matter of seeds
            assert params["timing"]["rounds"] >= 2 * 8
            continue
        assert params["train"]["seeds"] == [1, 2, 3, 4, 5, 6, 7, 8]
        if claim == "late_decay_generalizes":
            assert len({row["start"] for row in params["schedule"].values()}) == 2
