"""The paper's gaps (its "[DATA REQUIRED: ...]") and what the study has for each. Pure functions."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lrstudy.analysis.comparison import moves
from lrstudy.analysis.records import AsGood, CellResult, Choice, Gap, GapValue, Results
from lrstudy.analysis.words import metric_name, on_data
from lrstudy.search.sensitivity import TERMS
from lrstudy.words import listed, seeds_named


def gaps(results: Results) -> list[Gap]:
    """Each ``[DATA REQUIRED: ...]`` of the paper (seed 000), in its order, with what the study found.

    A value's ``interval`` is the range that tuning found to be as good, or Student's of a metric; ``key`` is
    where it stands in comparison.json, names (and positions in a list, from 0) joined by dots.
    """
    return [
        _parameter_gap(results, "reduction factor", "section 3.2, Step Decay", "step", "gamma"),
        _parameter_gap(results, "number of epochs", "section 3.2, Step Decay", "step", "step_size"),
        _parameter_gap(results, "decay rate", "section 3.2, Exponential Decay", "exponential", "decay_rate"),
        _performance_gap(results),
        _results_gap(results),
    ]


class Placed(NamedTuple):
    """A cell, its name and its path in comparison.json."""

    model: str
    schedule: str
    cell: CellResult
    name: str
    at: str


def _placed(results: Results) -> Iterator[Placed]:
    for model, schedule, cell in results.each():
        yield Placed(model, schedule, cell, f"{model}-{schedule}", f"cells.{model}.{schedule}")


def _parameter_gap(results: Results, gap: str, where: str, schedule: str, parameter: str) -> Gap:
    """The value of a schedule's parameter in each model."""
    term, unit = TERMS[parameter]
    values, said, constant = [], [], []
    for _, row, cell, name, at in _placed(results):
        if row != schedule or parameter not in cell.parameters or cell.tuned_as is not None:
            continue  # what another length took over was found for that one
        if not moves(cell):
            constant.append(name)
            continue
        as_good, several = _as_good(cell, parameter), len(cell.by_search) > 1
        for number, taken in cell.by_search.items():
            value, whose, key = taken.parameters[parameter], name, f"{at}.parameters.{parameter}"
            trained = [identity for seed, identity in cell.identities.items() if int(seed) in taken.seeds]
            if several:
                whose = f"{name} ({seeds_named(taken.seeds)})"
                key = f"{at}.by_search.{number}.parameters.{parameter}"
            values.append(_value(name, gap, value, unit, as_good, trained, key))
            drop = _first_drop(cell, taken.parameters, parameter)
            said.append(f"{value:.4g} for {whose}{drop}, {_how_found(cell, parameter, int(number))}")
    again = {placed.model for placed in _placed(results) if placed.cell.tuned_as is not None}
    missing = [
        name
        for name in results.missing
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
    return _gap(results, gap, where, values, missing, text)


def _first_drop(cell: CellResult, parameters: Mapping[str, object], parameter: str) -> str:
    """When the rate dropped first, where that was not after one interval."""
    share, interval = parameters.get("first_drop"), parameters.get("step_size")
    if (
        parameter != "step_size"
        or not isinstance(share, int | float)
        or not isinstance(interval, int | float)
    ):
        return ""
    first = share * (cell.num_epochs - cell.warmup_epochs)
    return "" if math.isclose(first, interval) else f" after a first drop at {cell.warmup_epochs + first:.4g}"


def _how_found(cell: CellResult, parameter: str, number: int) -> str:
    """Whether a value is the default or was found by search ``number`` (from 1), and what else it tried."""
    tuning = cell.tuning
    if tuning is None:
        return "the default; no other tried"
    if all(term.parameter != parameter for term in tuning.terms):
        return "given, not searched"
    search = tuning.searches[number - 1]
    others = search.num_tried - 1
    if search.best_trial == 0:
        tried = f"{others} {'other' if others == 1 else 'others'} tried, none better"
        return f"the default; {tried if others else 'no other tried'}"
    words = f"found by search, the best of {search.num_tried}"
    as_good = _as_good(cell, parameter)
    if as_good is None:
        return words
    if isinstance(as_good, Choice):
        return f"{words} ({listed([str(choice) for choice in as_good.choices])} as good)"
    return f"{words} ({as_good[0]:.3g} to {as_good[1]:.3g} as good)"


def _performance_gap(results: Results) -> Gap:
    """What the search minimized, how far, and the test metric of the chosen values."""
    values, said = [], []
    for _, _, cell, name, at in _placed(results):
        if cell.tuned_as is not None:
            continue  # nothing was minimized for it
        metric = metric_name("headline", cell, results)
        searches = cell.tuning.searches if cell.tuning is not None else []
        losses = []
        for place, search in enumerate(searches):
            if search.objective is None:
                continue
            losses.append(f"{search.objective:.3f}")
            label = "validation loss reached by the search" + (f" {place + 1}" if len(searches) > 1 else "")
            key = f"{at}.tuning.searches.{place}.objective"
            values.append(_value(name, label, search.objective, "nats", None, _runs(cell), key))
        reached = f"a validation loss of {listed(losses)} nats" if losses else "no search"
        for score, mean in _means(name, at, cell, [metric]):
            said.append(f"{name} {reached} and a {metric} of {100 * mean:.2f}%")
            values.append(score)
    text = f"the search minimized the final validation loss, and the cells reached: {', '.join(said)}"
    gap = "specific performance metrics"
    return _gap(results, gap, "section 3.3", values, results.missing, text)


def _results_gap(results: Results) -> Gap:
    """Accuracy and F1 of every cell, differences to the reference, ranks, and the effects across models."""
    values, said = [], []
    reference = results.protocol.reference
    percent = f"{100 * results.protocol.confidence:g}%"
    for model, schedule, cell, name, at in _placed(results):
        metric = metric_name("headline", cell, results)
        told = dict.fromkeys(("test/accuracy", "test/f1_macro", "test/f1", metric))
        words = []
        for score, mean in _means(name, at, cell, told):
            values.append(score)
            if score.name == metric:
                words.append(f"{name} {100 * mean:.2f}% {metric}")
        difference = cell.metrics[metric].difference if metric in cell.metrics else None
        if difference is not None and difference.mean is not None:
            runs = _runs(cell, results.cells[model][reference])
            label, key = f"{metric}, difference to {reference}", f"{at}.metrics.{metric}.difference.mean"
            values.append(_value(name, label, difference.mean, "fraction", difference.interval, runs, key))
            words.append(f"{100 * difference.mean:+.2f} points against {reference}")
            if difference.interval is not None:
                low, high = difference.interval
                words.append(f"{percent} interval {100 * low:+.2f} to {100 * high:+.2f}")
        ranks = results.models[model].ranks or {}
        if schedule in ranks:
            label, key = "average rank over seeds, 1 is best", f"models.{model}.ranks.{schedule}"
            values.append(_value(name, label, ranks[schedule], "rank", None, _runs(cell), key))
        said.append(", ".join(words))
    for schedule, summary in results.across_models.items():
        if summary.effect is None:
            continue
        runs = _runs(*(cell for _, row, cell in results.each() if row in (schedule, reference)))
        label = f"difference to {reference} in units of its spread, mean of the models"
        unit, key = "standard deviations", f"across_models.{schedule}.effect"
        values.append(_value(schedule, label, summary.effect, unit, summary.interval, runs, key))
    text = f"means over seeds on the test split were: {'; '.join(filter(None, said))}"
    gap = "Numerical results and comparisons"
    return _gap(results, gap, "section 3.4", values, results.missing, text)


def _gap(
    results: Results, gap: str, where: str, values: list[GapValue], missing: list[str], text: str
) -> Gap:
    end = f"; not run: {', '.join(missing)}" if missing else ""
    return Gap(
        gap=gap,
        where=f"seed 000, {where}",
        values=values,
        missing=list(missing),
        text=f"{on_data(results, results.cells)}: {text}{end}.",
    )


def _means(name: str, at: str, cell: CellResult, metrics: Iterable[str]) -> list[tuple[GapValue, float]]:
    """Of each metric that has one the mean, as a gap's value and as a number."""
    return [
        (
            _value(
                name, metric, mean, "fraction", known.interval, _runs(cell), f"{at}.metrics.{metric}.mean"
            ),
            mean,
        )
        for metric in metrics
        if (known := cell.metrics.get(metric)) is not None and (mean := known.mean) is not None
    ]


def _runs(*cells: CellResult) -> list[str]:
    """The identities of the trainings behind a value."""
    return [identity for cell in cells for identity in cell.identities.values()]


def _value(
    cell: str, name: str, value: object, unit: str, interval: AsGood | None, identities: list[str], key: str
) -> GapValue:
    return GapValue.model_validate(
        {
            "cell": cell,
            "name": name,
            "value": value,
            "unit": unit,
            "interval": interval,
            "identities": identities,
            "key": key,
        }
    )


def _as_good(cell: CellResult, parameter: str) -> AsGood | None:
    """The values that tuning found to be as good as the best; None where it was not searched."""
    terms = cell.tuning.terms if cell.tuning is not None else []
    return next((term.as_good for term in terms if term.parameter == parameter), None)
