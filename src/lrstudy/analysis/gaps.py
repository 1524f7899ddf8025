"""The paper's gaps (its "[DATA REQUIRED: ...]") and what the study has for each. Pure functions."""

import math
from collections.abc import Iterator
from typing import Any

from lrstudy.analysis.comparison import moves
from lrstudy.analysis.words import metric_name, on_data
from lrstudy.search.sensitivity import TERMS
from lrstudy.words import listed, seeds_named


def gaps(comparison: dict) -> list[dict[str, Any]]:
    """Each ``[DATA REQUIRED: ...]`` of the paper (seed 000), in its order, with what the study found.

    Returns:
        Per gap ``gap`` (the words in the brackets), ``where``, ``values``, ``missing`` (cells that should
        have given a value and did not run) and ``text``. A value has ``cell``, ``name``, ``value``, ``unit``,
        ``interval`` (the range that tuning found to be as good, or Student's interval of a metric),
        ``identities`` (of the trainings behind it) and ``key``: where it stands in comparison.json, names
        (and positions in a list, from 0) joined by dots.
    """
    return [
        _parameter_gap(comparison, "reduction factor", "section 3.2, Step Decay", "step", "gamma"),
        _parameter_gap(comparison, "number of epochs", "section 3.2, Step Decay", "step", "step_size"),
        _parameter_gap(
            comparison, "decay rate", "section 3.2, Exponential Decay", "exponential", "decay_rate"
        ),
        _performance_gap(comparison),
        _results_gap(comparison),
    ]


def _parameter_gap(comparison: dict, gap: str, where: str, schedule: str, parameter: str) -> dict[str, Any]:
    """The value of a schedule's parameter in each model."""
    term, unit = TERMS[parameter]
    values, said, constant = [], [], []
    for _, row, cell, name, at in _cells(comparison):
        if row != schedule or parameter not in cell["parameters"] or "tuned_as" in cell:
            continue  # what another length took over was found for that one
        if not moves(cell):
            constant.append(name)
            continue
        as_good, several = _as_good(cell, parameter), len(cell["by_search"]) > 1
        for number, found in cell["by_search"].items():
            value, whose, key = found["parameters"][parameter], name, f"{at}.parameters.{parameter}"
            trained = {s: which for s, which in cell["identities"].items() if int(s) in found["seeds"]}
            if several:
                whose = f"{name} ({seeds_named(found['seeds'])})"
                key = f"{at}.by_search.{number}.parameters.{parameter}"
            values.append(_value(name, gap, value, unit, as_good, [{"identities": trained}], key))
            drop = _first_drop(cell, found["parameters"], parameter)
            said.append(f"{value:.4g} for {whose}{drop}, {_how_found(cell, parameter, int(number))}")
    again = {model for model, _, cell, _, _ in _cells(comparison) if "tuned_as" in cell}
    missing = [
        name
        for name in comparison["missing"]
        if name.partition("-")[2] == schedule and name.partition("-")[0] not in again
    ]
    if said:
        text = f"the {term}, {unit}, was {'; '.join(said)}"
    elif constant:
        text = f"no cell with the schedule {schedule} changed its rate, so there is no {term}"
    else:
        text = f"no cell with the schedule {schedule} ran, so there is no {term}"
    if constant:
        text += f"; the rate of {listed(constant)} never changed, which gives none"
    return _gap(comparison, gap, where, values, missing, text)


def _first_drop(cell: dict, parameters: dict, parameter: str) -> str:
    """When the rate dropped first, where that was not after one interval."""
    warmup = cell["warmup_epochs"]
    if parameter != "step_size" or "first_drop" not in parameters:
        return ""
    length = cell["num_epochs"] - warmup
    first = parameters["first_drop"] * length
    return (
        "" if math.isclose(first, parameters["step_size"]) else f" after a first drop at {warmup + first:.4g}"
    )


def _how_found(cell: dict, parameter: str, number: int) -> str:
    """Whether a value is the default or was found by search ``number`` (from 1), and what else it tried."""
    tuning = cell["tuning"]
    if tuning is None:
        return "the default; no other tried"
    if all(term["parameter"] != parameter for term in tuning["terms"]):
        return "given, not searched"
    search = tuning["searches"][number - 1]
    others = search["num_tried"] - 1
    if search["best_trial"] == 0:
        tried = f"{others} {'other' if others == 1 else 'others'} tried, none better"
        return f"the default; {tried if others else 'no other tried'}"
    as_good = _as_good(cell, parameter)
    words = f"found by search, the best of {search['num_tried']}"
    return f"{words} ({as_good[0]:.3g} to {as_good[1]:.3g} as good)" if as_good else words


def _performance_gap(comparison: dict) -> dict[str, Any]:
    """What the search minimized, how far, and the test metric of the chosen values."""
    values, said = [], []
    for _, _, cell, name, at in _cells(comparison):
        if "tuned_as" in cell:
            continue  # nothing was minimized for it
        metric = metric_name("headline", cell, comparison)
        tuning = cell["tuning"]
        searches = tuning["searches"] if tuning else []
        objectives = {i: found["objective"] for i, found in enumerate(searches)}
        objectives = {i: value for i, value in objectives.items() if value is not None}
        for place, objective in objectives.items():
            label = "validation loss reached by the search" + (f" {place + 1}" if len(searches) > 1 else "")
            key = f"{at}.tuning.searches.{place}.objective"
            values.append(_value(name, label, objective, "nats", None, [cell], key))
        losses = listed([f"{value:.3f}" for value in objectives.values()]) if objectives else ""
        reached = f"a validation loss of {losses} nats" if objectives else "no search"
        scores = _means(name, at, cell, [metric])
        said += [f"{name} {reached} and a {metric} of {100 * score['value']:.2f}%" for score in scores]
        values += scores
    text = f"the search minimized the final validation loss, and the cells reached: {', '.join(said)}"
    gap = "specific performance metrics"
    return _gap(comparison, gap, "section 3.3", values, comparison["missing"], text)


def _results_gap(comparison: dict) -> dict[str, Any]:
    """Accuracy and F1 of every cell, differences to the reference, ranks, and the effects across models."""
    values, said = [], []
    reference = comparison["protocol"]["reference"]
    percent = f"{100 * comparison['protocol']['confidence']:g}%"
    for model, schedule, cell, name, at in _cells(comparison):
        metric = metric_name("headline", cell, comparison)
        told = dict.fromkeys(("test/accuracy", "test/f1_macro", "test/f1", metric))
        scores = _means(name, at, cell, list(told))
        values += scores
        words = [
            f"{name} {100 * score['value']:.2f}% {metric}" for score in scores if score["name"] == metric
        ]
        difference = cell["metrics"].get(metric, {}).get("difference")
        if difference and difference["mean"] is not None:
            runs = [cell, comparison["cells"][model][reference]]
            label, key = f"{metric}, difference to {reference}", f"{at}.metrics.{metric}.difference.mean"
            interval = difference["interval"]
            values.append(_value(name, label, difference["mean"], "fraction", interval, runs, key))
            words.append(f"{100 * difference['mean']:+.2f} points against {reference}")
            if interval is not None:
                words.append(f"{percent} interval {100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}")
        ranks = ((comparison.get("models") or {}).get(model) or {}).get("ranks") or {}
        if schedule in ranks:
            label, key = "average rank over seeds, 1 is best", f"models.{model}.ranks.{schedule}"
            values.append(_value(name, label, ranks[schedule], "rank", None, [cell], key))
        said.append(", ".join(words))
    for schedule, found in (comparison.get("across_models") or {}).items():
        if found["effect"] is None:
            continue
        runs = [cell for _, row, cell, _, _ in _cells(comparison) if row in (schedule, reference)]
        label = f"difference to {reference} in units of its spread, mean of the models"
        key = f"across_models.{schedule}.effect"
        values.append(
            _value(schedule, label, found["effect"], "standard deviations", found["interval"], runs, key)
        )
    text = f"means over seeds on the test split were: {'; '.join(filter(None, said))}"
    gap = "Numerical results and comparisons"
    return _gap(comparison, gap, "section 3.4", values, comparison["missing"], text)


def _gap(
    comparison: dict, gap: str, where: str, values: list[dict], missing: list[str], text: str
) -> dict[str, Any]:
    end = f"; not run: {', '.join(missing)}" if missing else ""
    return {
        "gap": gap,
        "where": f"seed 000, {where}",
        "values": values,
        "missing": list(missing),
        "text": f"{on_data(comparison, comparison['cells'])}: {text}{end}.",
    }


def _cells(comparison: dict) -> Iterator[tuple[str, str, dict, str, str]]:
    """(model, schedule, cell, its name, its path in comparison.json) of all cells that ran."""
    for model, schedules in comparison["cells"].items():
        for schedule, cell in schedules.items():
            yield model, schedule, cell, f"{model}-{schedule}", f"cells.{model}.{schedule}"


def _means(name: str, at: str, cell: dict, metrics: list[str]) -> list[dict]:
    return [
        _value(
            name, metric, found["mean"], "fraction", found["interval"], [cell], f"{at}.metrics.{metric}.mean"
        )
        for metric in metrics
        if (found := cell["metrics"].get(metric)) and found["mean"] is not None
    ]


def _value(
    cell: str, name: str, value: Any, unit: str, interval: Any, runs: list[dict], key: str
) -> dict[str, Any]:
    """``runs``: the cells whose runs are behind the value."""
    return {
        "cell": cell,
        "name": name,
        "value": value,
        "unit": unit,
        "interval": None if interval is None else list(interval),
        "identities": [identity for found in runs for identity in found["identities"].values()],
        "key": key,
    }


def _as_good(cell: dict, parameter: str) -> list[float] | None:
    """[lowest, highest] value that tuning found to be as good as the best; None where it was not searched."""
    terms = (cell.get("tuning") or {}).get("terms", [])
    return next((term["as_good"] for term in terms if term["parameter"] == parameter), None)
