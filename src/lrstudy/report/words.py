"""What the report says of cells, seeds and numbers, in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from lrstudy.analysis.records import (
    AsGood,
    CellResult,
    Choice,
    Comparison,
    Difference,
    Kind,
    MetricValues,
    Progress,
    Side,
    Taken,
    UnlikePair,
)
from lrstudy.words import counted, seeds_named

KINDS: dict[Kind, str] = {
    "processor": "kind of machine",
    "device": "device",
    "dtype": "dtype",
    "torch": "torch",
}
"""What is told of a training's origin, in words; a kind of machine is its processor or accelerator."""

PAPER_EPOCHS = 10
"""What the figures of the paper show (seed 000), which trained for 10 and for 20 epochs. At a constant rate a
training of 10 epochs is the beginning of a longer one."""


def headline(comparison: Comparison, cell: CellResult) -> str:
    """The name of the metric that decides for this cell's data set."""
    return comparison.protocol.headline[cell.dataset]


def by_search(cell: CellResult, said: Callable[[Taken], str]) -> str:
    """What is said of the values of each search that a cell's seeds took; with the seeds where it differs."""
    seeds_of: dict[str, list[int]] = {}
    for search in cell.by_search.values():
        seeds_of.setdefault(said(search), []).extend(search.seeds)
    return seeds_words(seeds_of)


def parameters_words(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {number_words(value)}" for name, value in parameters.items()) or "none"


def p_words(difference: Difference | None, name: Literal["p", "p_holm"]) -> str:
    p = getattr(difference, name, None)
    return "" if p is None else f"{p:.3g}"


def less_one(ratios: tuple[float, float] | None) -> tuple[float, float] | None:
    return ratios and (ratios[0] - 1, ratios[1] - 1)


def hours_words(hours: float | None, more: str = "") -> str:
    return "" if hours is None else f" ({hours:.2g} core-hours{more})"


def pairs_words(unlike: Mapping[str, UnlikePair]) -> str:
    """As in ``seeds 1 and 2 (dtype float32 against bfloat16)``; seeds that differ alike stand together."""
    alike: dict[str, list[str]] = {}
    for seed, what in unlike.items():
        words = ", ".join(f"{KINDS[name]} {one} against {other}" for name, (one, other) in what.items())
        alike.setdefault(words, []).append(seed)
    return ", ".join(f"{seeds_named(seeds)} ({words})" for words, seeds in alike.items())


def seeds_words(seeds_of: Mapping[str, Sequence[int]]) -> str:
    """A value; if there are several, each with its seeds."""
    if len(seeds_of) == 1:
        return next(iter(seeds_of))
    return "; ".join(f"{value} ({seeds_named(seeds)})" for value, seeds in seeds_of.items())


def result_rows(comparison: Comparison) -> Iterator[tuple[str, str, CellResult]]:
    """The cells, and after each model's the views of its reference."""
    for model, schedules in comparison.cells.items():
        for schedule, cell in (schedules | comparison.views[model]).items():
            yield model, schedule, cell


def state_words(progress: Progress) -> str | None:
    """How far a cell has come, in words; None where all of its planned seeds are there."""
    measured, trained, planned = progress.measured, progress.trained, progress.planned
    if len(measured) == len(planned):
        return None
    not_measured = f"{counted(len(trained))} trained and not measured on test data yet" if trained else ""
    if measured:
        there = f"{len(measured)} of {len(planned)} planned seeds"
        return f"{there}, {not_measured}" if trained else there
    if trained:
        return not_measured
    searches = progress.searches
    if not searches or not any(search.trials for search in searches):
        return "not run yet"
    if all(search.complete for search in searches):
        return "search finished, no seed yet"
    words = []
    for number, search in enumerate(searches, start=1):
        of = f"search {number}: " if len(searches) > 1 else ""
        words.append(f"{of}{search.trials} of {search.of} trials")
        if search.confirmed:
            words[-1] += f", {search.confirmed} of {search.finalists} finalists confirmed"
    return f"search not finished: {'; '.join(words)}"


def cell_states(comparison: Comparison) -> dict[str, str]:
    """By cell that has not all of its planned seeds, how far it has come."""
    said = {name: state_words(progress) for name, progress in comparison.progress.items()}
    return {name: words for name, words in said.items() if words is not None}


def model_title(comparison: Comparison, model: str, on: str = " on ") -> str:
    """A model with its data set, and its length where models of that data set have several."""
    cell = next(iter(comparison.cells[model].values()))
    words = f"{model}{on}{comparison.data[cell.dataset].label}"
    several = len(lengths_on(comparison, cell.dataset)) > 1
    return f"{words}, {cell.num_epochs} epochs" if several else words


def lengths_on(comparison: Comparison, dataset: str) -> set[int]:
    """For how many epochs the models of a data set were trained."""
    return {cell.num_epochs for _, _, cell in comparison.each() if cell.dataset == dataset}


def tuned_rows(comparison: Comparison) -> dict[str, str]:
    """The models that took their values from another one's search, and which one that is."""
    return {model: cell.tuned_as for model, _, cell in comparison.each() if cell.tuned_as is not None}


def percent_confidence(comparison: Comparison) -> str:
    return f"{100 * comparison.protocol.confidence:g}%"


def percent_words(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.2f}"


def points_words(difference: float | None) -> str:
    return "none" if difference is None else f"{100 * difference:+.2f}"


def interval_words(bounds: tuple[float, float] | None, sign: str = "") -> str:
    return "none" if bounds is None else f"{100 * bounds[0]:{sign}.2f} to {100 * bounds[1]:{sign}.2f}"


def range_words(as_good: AsGood | tuple[object, object] | None) -> str:
    if as_good is None:
        return "none"
    if isinstance(as_good, Choice):
        return ", ".join(number_words(value) for value in as_good.choices)
    return f"{number_words(as_good[0])} to {number_words(as_good[1])}"


def change_words(side: Side | None) -> str:
    if side is None:
        return "not judged"
    low, high = side.interval
    return f"{100 * side.change:+.1f}% ({100 * low:+.1f} to {100 * high:+.1f})"


def reached_words(metric: MetricValues) -> str:
    """The mean over the seeds that have the value, and how many of all those are."""
    values = metric.values.values()
    count = sum(value is not None for value in values)
    return number_words(metric.mean) + (f" ({count} of {len(values)} seeds)" if count < len(values) else "")


def number_words(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
