"""What the ledger has of a study, cell by cell: searches as far as they went, seeds as far as they ran.

Nothing is trained, and neither data nor weights are opened. The stages ``tune``, ``train`` and ``evaluate``
put trainings into the ledger; all that is said of a study (``compare``, ``why``) is collected from it here.
So a study is readable while it is half done, and the same on every machine. What a cell needs is
:mod:`lrstudy.study.plan`'s.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.ledger import Record
from lrstudy.ledger.record import OF_THE_CLOCK, WEIGHTS
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import Params
from lrstudy.study.plan import Plan, finder, plan
from lrstudy.study.tasks import DESCRIBED
from lrstudy.study.workspace import data_folder


def collect(
    params: Params,
    records: Sequence[Record],
    root: Path,
    cells: Iterable[str] = (),
    *,
    to_train: bool = False,
) -> tuple[dict[str, Plan], list[str]]:
    """The study's cells by name, from the ledger alone; and what to say of how they were found there.

    A study's settings leave open on which data it was done (params.yaml says how they are prepared) and what
    ``auto`` meant. Both are those of this machine, the processed data here and its own device and dtype, if
    the ledger has any of the study's trainings with them; else those with which it has most.

    Where the data are not here and the ledger has no training on them, they have no fingerprint, and all
    trainings on them are missing.

    Args:
        records: the ledger's.
        cells: names of cells of ``params``; none: all of them.
        to_train: what a training here would need is asked: processed data that are here are the study's, and
            ``auto`` means this machine's, whatever the ledger has most of.
    """
    find = finder(records)
    plans: dict[str, Plan] = {}
    notes = []
    wanted = {name: params.cells[name] for name in cells or params.cells}
    for dataset in dict.fromkeys(listed.dataset for listed in wanted.values()):
        cells = {
            name: make_cell(params, listed.model, listed.schedule)
            for name, listed in wanted.items()
            if listed.dataset == dataset
        }
        here = (data_folder(dataset) / "meta.json").exists()
        first, *others = _candidates(dataset, records, to_train)

        def planned(candidate: tuple, cells: dict[str, Cell] = cells) -> dict[str, Plan]:
            return {
                name: plan(cell, params, candidate[0], root, find, candidate[1])
                for name, cell in cells.items()
            }

        chosen, taken = planned(first), first
        if others and not (here and _count(chosen)):
            several = [(planned(other), other) for other in others]
            best, candidate = max([(chosen, first), *several], key=lambda one: _count(one[0]))
            if _count(best):
                chosen, taken = best, candidate
        plans |= chosen
        if (taken is not first or not here) and (others or to_train):
            notes.append(_of_the_choice(dataset, taken, here))
    return {name: plans[name] for name in wanted}, notes


def _of_the_choice(dataset: str, taken: tuple[dict, tuple[str, str] | None], here: bool) -> str:
    meta, auto = taken
    which = f"{meta['label']}, fingerprint {meta['fingerprint']:.12}" + (
        f", {', '.join(auto)}" if auto else ""
    )
    if here:
        return (
            f"{dataset}: the ledger has none of the study's trainings with this machine's data, device and "
            f"dtype; taken are those on {which}"
        )
    if meta["fingerprint"]:
        return f"{data_folder(dataset)} is not there; taken to be the ledger's: {which}"
    return (
        f"{data_folder(dataset)} is not there, and the ledger has no training on it; "
        f"`dvc repro preprocess@{dataset}` makes it"
    )


def _count(plans: dict[str, Plan]) -> int:
    return sum(need.record is not None for one in plans.values() for need in one.needs)


def _candidates(
    dataset: str, records: Sequence[Record], to_train: bool
) -> list[tuple[dict, tuple[str, str] | None]]:
    """The data and meanings of ``auto`` with which the ledger may have the study, this machine's first."""
    mine = [record for record in records if record.data.dataset == dataset]
    known = {record.data.fingerprint: record.data.model_dump() for record in mine}
    folder = data_folder(dataset)
    if (folder / "meta.json").exists():
        meta = read_meta(folder)
        here = {meta["fingerprint"]: {key: meta[key] for key in DESCRIBED}}
        known = here if to_train else here | known
    if not known:
        known = {"": dict.fromkeys(DESCRIBED) | {"dataset": dataset, "fingerprint": ""}}
    meanings: list[tuple[str, str] | None] = [*Counter((r.device, r.dtype) for r in mine)]
    if to_train:
        meanings = [None]  # this machine's, which takes torch to tell
    elif len(meanings) != 1:
        meanings.insert(0, None)
    return list(itertools.product(known.values(), meanings))


def cell_of(found: Plan) -> dict | None:
    """What is compared of a cell, for :func:`lrstudy.analysis.comparison.compare`; None before there is any.

    Only what was measured on test data is: ``training`` and ``scores`` by seed as the stages write them,
    ``history``: a row per seed and epoch without what a clock decides, ``tuning``: what the searches found
    (None where they are another cell's, which ``training`` then names), and ``right``: by seed which test
    examples the last weights got right.
    """
    measured = found.measured
    if not measured:
        return None
    first = next(iter(found.seeds.values())).task
    taken = {seed: found.taken[seed] for seed in measured}
    of_another = {} if found.cell.model.tuned_as is None else {"tuned_as": found.cell.model.tuned_as}
    return {
        "model": found.cell.model_name,
        "schedule": found.cell.schedule_name,
        "data": first["described"],
        "training": {
            "dataset": found.cell.dataset,
            "headline": found.headline,
            "tuned": found.source,
            **of_another,
            "searches": len({search for _, search in taken.values()}),
            "settings": {name: value for name, value in first["settings"].items() if name != "seed"},
            "seeds": {str(seed): of_training(record, *taken[seed]) for seed, record in measured.items()},
        },
        "scores": {str(seed): scores_of(record) for seed, record in measured.items()},
        "history": [row for seed, record in measured.items() for row in _rows(seed, record)],
        "tuning": found.tuned,
        "right": {
            str(seed): record.measured.is_right()
            for seed, record in measured.items()
            if record.measured.right is not None
        },
    }


def of_training(record: Record, values: dict, search: int) -> dict:
    """What ``train`` writes of a seed that its record says: not where its weights and its MLflow run are."""
    return {
        "identity": record.identity,
        "search": search,
        "values": values,
        "base_lr": record.settings["optimizer"]["base_lr"],
        "parameters": record.settings["schedule"]["parameters"],
        "status": record.status,
        "best_epoch": record.best_epoch,
        "num_parameters": record.num_parameters,
        "interventions": record.interventions,
        "compute_seconds": record.history["compute_seconds"],
        "final": record.final,
        "device": record.device,
        "dtype": record.dtype,
        "origin": record.origin.model_dump(),
    }


def scores_of(record: Record) -> dict[str, dict]:
    """Of a measured training the test scores of all its weights."""
    return {weights: getattr(record.test, weights).model_dump() for weights in WEIGHTS}


def _rows(seed: int, record: Record) -> list[dict[str, float]]:
    names = [name for name in record.history if name not in OF_THE_CLOCK]
    return [
        {"seed": float(seed)} | {name: float(epoch[name]) for name in names}
        for epoch in record.outcome()["epochs"]
    ]


def progress(found: Plan, params: Params) -> dict:
    """How far a cell has come.

    Returns:
        ``model``, ``schedule``; ``searches``: of each, how many of ``of`` trials are there, and of the
        ``finalists`` how many are confirmed; where it is ``complete`` fewer only because the search space has
        no more; ``measured``, ``trained`` (and not measured on test data yet) and ``planned``: seeds.
    """
    from lrstudy.search.tuning import CONFIRMATION, SEARCH

    tune = params.tune
    return {
        "model": found.cell.model_name,
        "schedule": found.cell.schedule_name,
        "searches": [
            {
                "trials": sum(trial[SEARCH] is not None for trial in trials),
                "of": tune.num_trials,
                "confirmed": sum(trial[CONFIRMATION] is not None for trial in trials),
                "finalists": min(tune.finalists, tune.num_trials) if tune.confirm_seeds else 0,
                "complete": bool(found.seeds),
            }
            for trials in found.searches
        ],
        "measured": list(found.measured),
        "trained": [
            seed for seed, need in found.seeds.items() if need.record is not None and need.record.test is None
        ],
        "planned": list(params.train.seeds),
    }
