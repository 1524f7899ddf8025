"""What a cell's searches found, from the trainings in the ledger to ``best.json``: pure functions."""

import math
from collections.abc import Iterator
from typing import Any

from lrstudy.ledger import Record
from lrstudy.recipe.cells import Cell, default_values
from lrstudy.recipe.config import TuneParams
from lrstudy.recipe.identity import content_hash
from lrstudy.search.sensitivity import in_the_papers_terms, sensitivity, within_the_noise
from lrstudy.search.tuning import CONFIRMATION, SEARCH, best_trial, budget, most_trainings


def what_was_found(cell: Cell, settings: TuneParams, searched: list[list[dict]]) -> dict:
    """What the searches found, as ``best.json`` has it.

    Args:
        searched: of each search its trials, as :func:`lrstudy.search.tuning.tune` returns them; none where
            nothing is searched.

    Returns:
        ``source`` (tuned, or defaults where ``tune.num_trials`` is 0), ``values``: those of the first search,
        ``terms``: the same in the paper's words, and of every search what it tried and took. What is as good,
        what a wrong value costs and what a budget buys are of the trials of all searches.
    """
    summary = {"model": cell.model_name, "schedule": cell.schedule_name, "num_trials": settings.num_trials}
    space = cell.search_space()
    if not searched:
        values = default_values(cell)
        terms = in_the_papers_terms(values, {"values": {}}, space, cell.parameters)
        return summary | {"source": "defaults", "values": values, "terms": terms, "trials": []}
    winners, pooled = [best_trial(trials) for trials in searched], together(searched)
    best = winners[0]
    as_good = within_the_noise(pooled, space, best)
    exhausted = [len(trials) < settings.num_trials for trials in searched]
    return summary | {
        "source": "tuned",
        "values": best["values"],
        "terms": in_the_papers_terms(best["values"], as_good, space, cell.parameters),
        "objective": best["objective"],
        "best_trial": best["number"],
        "search_objective": best[SEARCH]["objective"],
        "defaults_objective": searched[0][0][SEARCH]["objective"],
        "exhausted": any(exhausted),
        "seeds": settings.seeds,
        "finalists": settings.finalists,
        "confirm_seeds": settings.confirm_seeds,
        "cost": cost(searched) | {"at_most": most_trainings(settings)},
        "within_the_noise": as_good,
        "sensitivity": sensitivity(pooled, space, best),
        "budget": budget(pooled, settings.num_quasi_random),
        "search_space": {name: where.model_dump() for name, where in space.items()},
        "searches": [
            {
                "sampler_seed": settings.sampler_seed + search,
                "values": winner["values"],
                "objective": winner["objective"],
                "best_trial": winner["number"],
                "exhausted": exhausted[search],
                "trials": trials,
            }
            for search, (winner, trials) in enumerate(zip(winners, searched, strict=True))
        ],
    }


def chosen(cell: Cell, settings: TuneParams, searched: list[list[dict]]) -> dict:
    """Of :func:`what_was_found` the values alone, which is all that a training needs to know."""
    summary = {"model": cell.model_name, "schedule": cell.schedule_name}
    if not searched:
        return summary | {"source": "defaults", "values": default_values(cell)}
    searches = [{"values": best_trial(trials)["values"]} for trials in searched]
    return summary | {"source": "tuned", "values": searches[0]["values"], "searches": searches}


def each(searched: list[list[dict]]) -> Iterator[tuple[int, dict]]:
    """Every trial with the number of its search."""
    return ((search, trial) for search, trials in enumerate(searched) for trial in trials)


def together(searched: list[list[dict]]) -> list[dict]:
    """The trials of all searches, each of the same values once: they are the same trainings.

    What was confirmed by any search is taken before what was not.
    """
    found: dict[str, dict] = {}
    for _, trial in each(searched):
        known = found.setdefault(content_hash(trial["values"]), trial)
        if known[CONFIRMATION] is None and trial[CONFIRMATION] is not None:
            found[content_hash(trial["values"])] = trial
    return list(found.values())


def cost(searched: list[list[dict]]) -> dict:
    """What the searches took: ``trainings``, ``epochs`` and ``seconds`` of computing, each training once."""
    done = {
        part["identities"][0]: part
        for _, trial in each(searched)
        for phase in (SEARCH, CONFIRMATION)
        if (part := trial[phase]) is not None
    }
    return {
        "trainings": sum(len(part["identities"]) for part in done.values()),
        "epochs": sum(part["epochs"] for part in done.values()),
        "seconds": sum(part["seconds"] for part in done.values()),
    }


def judge(records: list[Record]) -> tuple[float, dict]:
    """The objective of a trial in one phase: the mean over its seeds of the last epoch's validation loss.

    And what is known of it: ``status`` and perhaps the ``reason``, the ``losses`` by seed (None where it
    diverged), the means of the other ``validation`` metrics, cost, end, and the ``identities`` of its
    trainings.
    """
    diverged = [record for record in records if record.status == "diverged"]
    histories = [record.history for record in records]
    losses = [
        None if record.status == "diverged" else record.numbers("validation/loss")[-1] for record in records
    ]
    known: dict[str, Any] = {
        "status": "diverged" if diverged else "finished",
        "losses": losses,
        "epochs": sum(len(history["epoch"]) for history in histories),
        "seconds": sum(sum(record.numbers("compute_seconds")) for record in records),
        "ended": int(max(record.numbers("time")[-1] for record in records) * 1000),
        "identities": [record.identity for record in records],
    }
    if diverged:
        known["reason"] = f"the loss was not finite in epoch {len(diverged[0].history['epoch'])}"
        return math.inf, known
    known["validation"] = {
        name.removeprefix("validation/"): sum(record.numbers(name)[-1] for record in records) / len(records)
        for name in histories[0]
        if name.startswith("validation/") and not name.startswith("validation/loss")
    }
    ended = [loss for loss in losses if loss is not None]
    return sum(ended) / len(ended), known
