"""How long each schedule's trainings took to reach their model's target: time_to_target in comparison.json.

A run that never reached it took infinitely long, and stays in every number: a mean over those that got
there would praise a schedule for failing. JSON has no infinity: here it is the word ``"inf"``, which
``float`` reads, and which a mean that forgets it stumbles over, as it would not over a null.
"""

import math
from collections.abc import Mapping
from typing import Any

from lrstudy.analysis.comparison import epochs_by_seed, not_compared, works
from lrstudy.analysis.statistics import median_interval, median_time, performance_profile
from lrstudy.recipe.config import CompareParams

COSTS = {"epochs": "epochs_to_target", "seconds": "seconds_to_target"}
"""What a target costs -> the metric's name where it is asked whether two trainings are compared in it."""


Cells = Mapping[str, Mapping[str, dict]]
"""By model and schedule."""


def time_to_target(cells: Cells, compared: Cells, settings: CompareParams) -> dict[str, Any]:
    """The time to the target of every cell, and performance profiles within each model and over all.

    Epochs are counted to the first at whose end the metric is at least the target. Seconds are these epochs
    times those of the run's cheapest one, as ``seconds_per_epoch`` has them
    (:func:`lrstudy.analysis.comparison.metrics_by_seed`). A run that diverged has reached nothing, even where
    its
    early epochs had: it left no network that works.

    Args:
        cells: as :func:`lrstudy.analysis.comparison.compare` takes them.
        compared: the ``cells`` that it returns.
        settings: the reference schedule, targets that are given, the confidence.

    Returns:
        ``models``: by model its ``target`` (:func:`target`); ``schedules``: by schedule, where there is a
        target, ``unreached``: the number of seeds that never got there, and for ``epochs`` and ``seconds``
        the ``values`` by seed, the ``median`` (:func:`lrstudy.analysis.statistics.median_time`) and its
        ``interval`` (None for fewer than 6 seeds at 95%); and ``profiles``: by cost, ``epochs`` and
        ``seconds``, that of its schedules (:func:`profile`). ``profiles``: the same over the seeds of all
        models with a target, of the schedules that all of these ran. Infinite numbers are ``"inf"``.
    """
    models: dict[str, dict] = {}
    for model, schedules in cells.items():
        headline = next(iter(schedules.values()))["training"]["headline"]
        reference = schedules.get(settings.reference)
        # A row that is tuned as another has the search of that one.
        of = reference and cells.get(reference["training"].get("tuned_as", model), {}).get(settings.reference)
        aim = target(model, of, headline, settings)
        timed = schedules.items() if aim["value"] is not None else ()
        models[model] = {
            "target": aim,
            "schedules": {name: _times(cell, aim, settings.confidence) for name, cell in timed},
        }
    for model, found in models.items():
        found["profiles"] = _profiles({model: found["schedules"]}, compared, settings)
    with_target = {model: found["schedules"] for model, found in models.items() if found["schedules"]}
    return {"models": models, "profiles": _profiles(with_target, compared, settings)}


def validated(headline: str) -> str:
    """The metric by epoch, on validation data, that goes with a headline metric.

    Epochs have no balanced accuracy: macro F1 stands for it, which weighs every class alike as well, and
    whoever tells of it names it.
    """
    if headline == "test/balanced_accuracy":
        return "validation/f1_macro"
    return headline.replace("test/", "validation/")


def target(model: str, reference: dict | None, headline: str, settings: CompareParams) -> dict[str, Any]:
    """The validation metric that a model's trainings are timed to, fixed before any of them ran.

    Given in ``compare.targets``; else what the search has: the headline metric, on validation data after the
    last epoch, of the reference schedule's chosen values, the mean over the tuning seeds that they were
    trained with (over all searches, where there are several). These are none of ``train.seeds``, and no other
    schedule's results have a part in it, so no row that is added moves it.

    Args:
        model: its name.
        reference: the cell of the reference schedule that found its values, with ``tuning``: best.json; None
            if that did not run.
        headline: the metric that decides for the model's data set. Balanced accuracy is not measured by
            epoch: macro F1 stands for it (:data:`VALIDATED_BY`).
        settings: the reference's name and ``targets``.

    Returns:
        ``metric``, ``value`` (None where there is none) and ``source``: where it is from, or why there is
        none, in words.
    """
    metric = validated(headline)
    name = settings.reference
    if model in settings.targets:
        return {"metric": metric, "value": settings.targets[model], "source": "given in compare.targets"}
    if reference is None:
        why = f"{name} did not run"
    elif reference["tuning"]["source"] == "defaults":
        why = f"{name} was not searched"
    else:
        tuning = reference["tuning"]
        values = [_validated(search, metric) for search in tuning["searches"]]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            of = f" of {tuning['model']}" if tuning["model"] != model else ""
            return {
                "metric": metric,
                "value": sum(known) / len(known),
                "source": f"what {name}{of} ended with in its search, a mean over the tuning seeds",
            }
        why = f"{name} diverged in its search"
    return {"metric": metric, "value": None, "source": f"{why}, and compare.targets has none"}


def _validated(search: dict, metric: str) -> float | None:
    """Mean over the tuning seeds of a metric that the search's chosen trial had; None if it diverged."""
    trial = next(trial for trial in search["trials"] if trial["number"] == search["best_trial"])
    parts = [trial[phase] for phase in ("search", "confirmation") if trial[phase] is not None]
    if any(part["objective"] is None for part in parts):
        return None
    name = metric.removeprefix("validation/")
    total = sum(part["validation"][name] * len(part["losses"]) for part in parts)
    return total / sum(len(part["losses"]) for part in parts)


def _times(cell: dict, aim: dict[str, Any], confidence: float) -> dict[str, Any]:
    histories = epochs_by_seed(cell["history"])
    epochs, seconds = {}, {}
    for seed, run in cell["training"]["seeds"].items():
        rows = histories[seed] if works(cell, seed) else []
        reached = next((row["epoch"] for row in rows if row[aim["metric"]] >= aim["value"]), math.inf)
        epochs[seed] = float(reached)
        seconds[seed] = float(reached * min(run["compute_seconds"]))
    return {
        "unreached": sum(map(math.isinf, epochs.values())),
        "epochs": _described(epochs, confidence),
        "seconds": _described(seconds, confidence),
    }


def _described(values: dict[str, float], confidence: float) -> dict[str, Any]:
    times = list(values.values())
    interval = median_interval(times, confidence)
    return {
        "values": {seed: plain(value) for seed, value in values.items()},
        "median": plain(median_time(times)),
        "interval": interval and [plain(bound) for bound in interval],
    }


def _profiles(models: Cells, compared: Cells, settings: CompareParams) -> dict[str, dict]:
    return {cost: profile(models, compared, cost, settings.across_dtypes) for cost in COSTS}


def profile(models: Cells, compared: Cells, cost: str, across_dtypes: bool) -> dict[str, Any]:
    """Which share of the problems each schedule solves within a factor of the cheapest one's cost.

    A problem is a model and a seed that all schedules of the profile ran, in trainings that are compared
    (:func:`lrstudy.analysis.comparison.not_compared`). One that no schedule solves is a problem, too.

    Args:
        models: by model and schedule, what :func:`time_to_target` says of its ``schedules``.
        compared: as :func:`time_to_target` takes them.
        cost: ``epochs`` or ``seconds``.
        across_dtypes: whether trainings in different dtypes are compared.

    Returns:
        ``schedules``: those that every model ran; ``num_problems``, ``num_unsolved``: how many of them no
        schedule solves; ``left_out``: by model and seed what differs; ``factors`` of the lowest cost, and
        ``shares``: by schedule the share at each factor
        (:func:`lrstudy.analysis.statistics.performance_profile`). The latter two are empty for fewer than two
        schedules or no problem.
    """
    first, *others = models.values() or [{}]
    names = [name for name in first if all(name in schedules for schedules in others)]
    costs: list[list[float]] = []
    left_out: dict[str, dict[str, dict[str, list[str]]]] = {}
    for model, schedules in models.items():
        values = [schedules[name][cost]["values"] for name in names]
        cells = [compared[model][name] for name in names]
        for seed in values[0] if values else ():
            if not all(seed in found for found in values):
                continue
            if why := not_compared(cells, seed, COSTS[cost], across_dtypes):
                left_out.setdefault(model, {})[seed] = why
            else:
                costs.append([float(found[seed]) for found in values])
    found = {
        "schedules": names,
        "num_problems": len(costs),
        "num_unsolved": sum(all(map(math.isinf, row)) for row in costs),
        "left_out": left_out,
        "factors": [],
        "shares": {},
    }
    if len(names) < 2 or not costs:
        return found
    factors, shares = performance_profile(costs)
    return found | {
        "factors": factors.tolist(),
        "shares": dict(zip(names, shares.T.tolist(), strict=True)),
    }


def plain(value: float) -> float | str:
    """A number as JSON can hold it: infinity as ``"inf"``, which ``float`` reads back."""
    return "inf" if math.isinf(value) else value
