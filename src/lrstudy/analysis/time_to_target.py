"""How long each schedule's trainings took to reach their model's target: time_to_target in comparison.json.

A run that never reached it took infinitely long, and stays in every number: a mean over those that got
there would praise a schedule for failing. JSON has no infinity: here it is the word ``"inf"``, which
``float`` reads, and which a mean that forgets it stumbles over, as it would not over a null.
"""

import math
from collections.abc import Mapping
from typing import Any

from lrstudy.analysis.cells import epochs_by_seed
from lrstudy.analysis.comparison import not_compared
from lrstudy.analysis.records import (
    CellResult,
    CostName,
    Profile,
    Profiles,
    Target,
    Time,
    Times,
    TimesOfCell,
    TimesOfModel,
    TimeToTarget,
    Unlike,
)
from lrstudy.analysis.statistics import median_interval, median_time, performance_profile
from lrstudy.recipe.config import CompareParams
from lrstudy.study.collect import MeasuredCell

COSTS: dict[CostName, str] = {"epochs": "epochs_to_target", "seconds": "seconds_to_target"}
"""What a target costs -> the metric's name where it is asked whether two trainings are compared in it."""

Compared = Mapping[str, Mapping[str, CellResult]]
TimesByModel = Mapping[str, Mapping[str, TimesOfCell]]
"""By model and schedule."""


def time_to_target(
    cells: Mapping[str, Mapping[str, MeasuredCell]], compared: Compared, settings: CompareParams
) -> TimeToTarget:
    """The time to the target of every cell, and performance profiles within each model and over all.

    Epochs are counted to the first at whose end the metric is at least the target. Seconds are these epochs
    times those of the run's cheapest one, as ``seconds_per_epoch`` has them
    (:func:`lrstudy.analysis.cells.metrics_by_seed`). A run that diverged has reached nothing, even where its
    early epochs had: it left no network that works.

    Args:
        cells: by model and schedule.
        compared: what :func:`lrstudy.analysis.comparison.compare` says of them.
        settings: the reference schedule, targets that are given, the confidence.

    Returns:
        By model its target (:func:`target`), by schedule, where there is a target, its times, and the profile
        of its schedules (:func:`profile`); and that over the seeds of all models with a target, of the
        schedules that all of these ran.
    """
    models: dict[str, TimesOfModel] = {}
    for model, schedules in cells.items():
        headline = next(iter(schedules.values())).headline
        reference = schedules.get(settings.reference)
        # A row that is tuned as another has the search of that one.
        searched = reference and cells.get(reference.tuned_as or model, {}).get(settings.reference)
        aim = target(model, searched.tuning if searched else None, headline, settings)
        times: dict[str, TimesOfCell] = {}
        if (goal := aim.value) is not None:
            times = {
                name: _times(cell, aim.metric, goal, settings.confidence) for name, cell in schedules.items()
            }
        models[model] = TimesOfModel(
            target=aim, schedules=times, profiles=_profiles({model: times}, compared, settings)
        )
    with_target = {model: timed.schedules for model, timed in models.items() if timed.schedules}
    return TimeToTarget(models=models, profiles=_profiles(with_target, compared, settings))


def validated(headline: str) -> str:
    """The metric by epoch, on validation data, that goes with a headline metric.

    Epochs have no balanced accuracy: macro F1 stands for it, which weighs every class alike as well, and
    whoever tells of it names it.
    """
    if headline == "test/balanced_accuracy":
        return "validation/f1_macro"
    return headline.replace("test/", "validation/")


def target(model: str, tuning: Mapping[str, Any] | None, headline: str, settings: CompareParams) -> Target:
    """The validation metric that a model's trainings are timed to, fixed before any of them ran.

    Given in ``compare.targets``; else what the search has: the headline metric, on validation data after the
    last epoch, of the reference schedule's chosen values, the mean over the tuning seeds that they were
    trained with (over all searches, where there are several). These are none of ``train.seeds``, and no other
    schedule's results have a part in it, so no row that is added moves it.

    Args:
        model: its name.
        tuning: what the search of the reference schedule found, as best.json has it; None if it did not run.
        headline: the metric that decides for the model's data set (:func:`validated`).
        settings: the reference's name and ``targets``.

    Returns:
        With its ``source``: where it is from, or why there is none, in words.
    """
    metric = validated(headline)
    name = settings.reference
    if model in settings.targets:
        return Target(metric=metric, value=settings.targets[model], source="given in compare.targets")
    if tuning is None:
        why = f"{name} did not run"
    elif tuning["source"] == "defaults":
        why = f"{name} was not searched"
    else:
        values = [_validated(search, metric) for search in tuning["searches"]]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            of = f" of {tuning['model']}" if tuning["model"] != model else ""
            return Target(
                metric=metric,
                value=sum(known) / len(known),
                source=f"what {name}{of} ended with in its search, a mean over the tuning seeds",
            )
        why = f"{name} diverged in its search"
    return Target(metric=metric, value=None, source=f"{why}, and compare.targets has none")


def _validated(search: Mapping[str, Any], metric: str) -> float | None:
    """Mean over the tuning seeds of a metric that the search's chosen trial had; None if it diverged."""
    trial = next(trial for trial in search["trials"] if trial["number"] == search["best_trial"])
    parts = [trial[phase] for phase in ("search", "confirmation") if trial[phase] is not None]
    if any(part["objective"] is None for part in parts):
        return None
    name = metric.removeprefix("validation/")
    total = sum(part["validation"][name] * len(part["losses"]) for part in parts)
    return total / sum(len(part["losses"]) for part in parts)


def _times(cell: MeasuredCell, metric: str, goal: float, confidence: float) -> TimesOfCell:
    histories = epochs_by_seed(cell.history)
    epochs, seconds = {}, {}
    for seed, run in cell.seeds.items():
        rows = histories[seed] if run.works else []
        reached = next((row["epoch"] for row in rows if row[metric] >= goal), math.inf)
        epochs[seed] = float(reached)
        seconds[seed] = float(reached * min(run.compute_seconds))
    return TimesOfCell(
        unreached=sum(map(math.isinf, epochs.values())),
        epochs=_described(epochs, confidence),
        seconds=_described(seconds, confidence),
    )


def _described(by_seed: Mapping[str, float], confidence: float) -> Times:
    times = list(by_seed.values())
    interval = median_interval(times, confidence)
    return Times(
        values={seed: plain(time) for seed, time in by_seed.items()},
        median=plain(median_time(times)),
        interval=interval and (plain(interval[0]), plain(interval[1])),
    )


def _profiles(models: TimesByModel, compared: Compared, settings: CompareParams) -> Profiles:
    return Profiles(
        epochs=profile(models, compared, "epochs", settings.across_dtypes),
        seconds=profile(models, compared, "seconds", settings.across_dtypes),
    )


def profile(models: TimesByModel, compared: Compared, cost: CostName, across_dtypes: bool) -> Profile:
    """Which share of the problems each schedule solves within a factor of the cheapest one's cost.

    A problem is a model and a seed that all schedules of the profile ran, in trainings that are compared
    (:func:`lrstudy.analysis.comparison.not_compared`). One that no schedule solves is a problem, too.

    Args:
        models: the times of all cells.
        compared: as :func:`time_to_target` takes them.
        cost: which.
        across_dtypes: whether trainings in different dtypes are compared.

    Returns:
        Of the ``schedules`` that every model ran; ``num_unsolved``: how many problems no schedule solves;
        ``left_out``: by model and seed what differs; ``factors`` of the lowest cost, and ``shares``: by
        schedule the share at each factor (:func:`lrstudy.analysis.statistics.performance_profile`). The
        latter two are empty for fewer than two schedules or no problem.
    """
    first, *others = models.values() or [{}]
    names = [name for name in first if all(name in schedules for schedules in others)]
    costs: list[list[float]] = []
    left_out: dict[str, dict[str, Unlike]] = {}
    for model, schedules in models.items():
        times = [schedules[name].by(cost).values for name in names]
        cells = [compared[model][name] for name in names]
        for seed in times[0] if times else ():
            if not all(seed in by_seed for by_seed in times):
                continue
            if why := not_compared(cells, seed, COSTS[cost], across_dtypes):
                left_out.setdefault(model, {})[seed] = why
            else:
                costs.append([float(by_seed[seed]) for by_seed in times])
    factors: list[float] = []
    shares: dict[str, list[float]] = {}
    if len(names) >= 2 and costs:
        solved = performance_profile(costs)
        factors = solved.factors.tolist()
        shares = dict(zip(names, solved.shares.T.tolist(), strict=True))
    return Profile(
        schedules=names,
        num_problems=len(costs),
        num_unsolved=sum(all(map(math.isinf, row)) for row in costs),
        left_out=left_out,
        factors=factors,
        shares=shares,
    )


def plain(value: float) -> Time:
    """A number as JSON can hold it: infinity as ``"inf"``, which ``float`` reads back."""
    return "inf" if math.isinf(value) else value
