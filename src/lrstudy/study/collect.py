"""What the ledger has of a study, cell by cell: searches as far as they went, seeds as far as they ran.

Nothing is trained, and neither data nor weights are opened. The stages ``tune``, ``train`` and ``evaluate``
put trainings into the ledger; all that is said of a study (``compare``, ``why``) is collected from it here.
So a study is readable while it is half done, and the same on every machine. What a cell needs is
:mod:`lrstudy.study.plan`'s.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data import read_meta
from lrstudy.ledger import Record
from lrstudy.ledger.record import OF_THE_CLOCK, WEIGHTS, Data, Origin, Scores
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import Params
from lrstudy.study.outputs import Progress, SearchProgress
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


@dataclass(frozen=True)
class MeasuredSeed:
    """What a record says of a cell's training with one seed that was measured on test data.

    Attributes:
        search: the number of the search that found its ``values``.
        compute_seconds: of each epoch.
        final: what was measured once, at the end; empty where it diverged.
        scores: on test data by weights.
        right: which test examples the last weights got right (num_examples,), where that is known.
    """

    identity: str
    search: int
    values: dict[str, Any]
    base_lr: float
    parameters: dict[str, Any]
    status: str
    best_epoch: int
    interventions: Sequence[Mapping[str, Any]]
    compute_seconds: Sequence[float]
    final: Mapping[str, float | None]
    device: str
    dtype: str
    origin: Origin
    scores: Mapping[str, Scores]
    right: NDArray[np.bool_] | None = None

    @property
    def works(self) -> bool:
        """Whether it ended with a network that works: it finished, and predicts numbers."""
        return self.status == "finished" and self.scores["last"].accuracy is not None


@dataclass(frozen=True)
class MeasuredCell:
    """What is compared of a cell: its trainings that were measured on test data.

    Attributes:
        headline: the metric that decides for its data set: ``test/...``.
        tuned: where its values are from, as ``best.json`` says.
        settings: of its trainings, but for the seed.
        history: a row per seed and epoch, without what a clock decides.
        tuning: what its searches found, as ``best.json`` has it; None where the values are those of another
            model, ``tuned_as``.
        view_of: the schedule whose trainings these are, where they are not its own.
    """

    model: str
    schedule: str
    data: Data
    dataset: str
    headline: str
    tuned: str
    settings: dict[str, Any]
    seeds: dict[str, MeasuredSeed]
    history: Sequence[Mapping[str, float]]
    tuning: Mapping[str, Any] | None
    tuned_as: str | None = None
    view_of: str | None = None


def cell_of(planned: Plan) -> MeasuredCell | None:
    """What is compared of a cell; None before any of its trainings was measured on test data."""
    measured = planned.measured
    if not measured:
        return None
    first = next(iter(planned.seeds.values())).task
    return MeasuredCell(
        model=planned.cell.model_name,
        schedule=planned.cell.schedule_name,
        data=Data.model_validate(first["described"]),
        dataset=planned.cell.dataset,
        headline=planned.headline,
        tuned=planned.source,
        settings={name: value for name, value in first["settings"].items() if name != "seed"},
        seeds={str(seed): _measured(record, *planned.taken[seed]) for seed, record in measured.items()},
        history=[row for seed, record in measured.items() for row in _rows(seed, record)],
        tuning=planned.tuned,
        tuned_as=planned.cell.model.tuned_as,
    )


def _measured(record: Record, values: dict, search: int) -> MeasuredSeed:
    return MeasuredSeed(
        identity=record.identity,
        search=search,
        values=values,
        base_lr=record.settings["optimizer"]["base_lr"],
        parameters=record.settings["schedule"]["parameters"],
        status=record.status,
        best_epoch=record.best_epoch,
        interventions=record.interventions,
        compute_seconds=record.numbers("compute_seconds"),
        final=record.final,
        device=record.device,
        dtype=record.dtype,
        origin=record.origin,
        scores={weights: getattr(record.measured, weights) for weights in WEIGHTS},
        right=None if record.measured.right is None else record.measured.is_right(),
    )


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


def progress(plan: Plan, params: Params) -> Progress:
    """How far a cell has come: what is there of its searches, and its seeds."""
    from lrstudy.search.tuning import CONFIRMATION, SEARCH

    tune = params.tune
    return Progress(
        model=plan.cell.model_name,
        schedule=plan.cell.schedule_name,
        searches=[
            SearchProgress(
                trials=sum(trial[SEARCH] is not None for trial in trials),
                of=tune.num_trials,
                confirmed=sum(trial[CONFIRMATION] is not None for trial in trials),
                finalists=min(tune.finalists, tune.num_trials) if tune.confirm_seeds else 0,
                complete=bool(plan.seeds),
            )
            for trials in plan.searches
        ],
        measured=list(plan.measured),
        trained=[
            seed for seed, need in plan.seeds.items() if need.record is not None and need.record.test is None
        ],
        planned=list(params.train.seeds),
    )
