"""What the ledger has of a study, cell by cell: searches as far as they went, seeds as far as they ran.

Nothing is trained, and neither data nor weights are opened. The stages ``tune``, ``train`` and ``evaluate``
put trainings into the ledger; all that is said of a study (``compare``, ``why``) is collected from it here.
So a study is readable while it is half done, and the same on every machine.

The search is gone through as ``tune`` would, with what the ledger says of its trials; where one is missing,
what comes after it is not known yet.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data import read_meta
from lrstudy.ledger import Record, preference
from lrstudy.ledger.record import OF_THE_CLOCK, WEIGHTS, Data, Origin, Scores
from lrstudy.recipe.cells import Cell, make_cell, searching_cell, stretched
from lrstudy.recipe.config import Params
from lrstudy.study.outputs import Best, Progress, SearchProgress
from lrstudy.study.tasks import DESCRIBED, training_task
from lrstudy.study.workspace import data_folder

Find = Callable[..., Record | None]
"""The identities of a training -> its record, or None."""


@dataclass
class Need:
    """A training that a cell needs: its task, and its record if the ledger has one."""

    name: str
    task: dict
    record: Record | None


@dataclass
class Plan:
    """What a cell needs, as far as it is known.

    Attributes:
        headline: the metric that decides for its data set: ``test/...``.
        needs: every training once, those of the search first.
        searches: of each search its trials as far as they are there, as :func:`lrstudy.search.tuning.tune`
            returns them; none where nothing is searched.
        tuned: what the searches found, as ``best.json`` has it; None until all their trainings are there, and
            where the values are those of another cell (``tuned_as``).
        source: where the values are from, ``best.json``'s; empty until they are known.
        taken: by seed the values that it takes, and the number of the search that found them.
        seeds: the cell's own trainings by seed; empty until its values are known.
        waiting: what is not known yet, and on what it waits.
    """

    cell: Cell
    headline: str
    needs: list[Need] = field(default_factory=list)
    searches: list[list[dict]] = field(default_factory=list)
    tuned: dict | None = None
    source: str = ""
    taken: dict[int, tuple[dict, int]] = field(default_factory=dict)
    seeds: dict[int, Need] = field(default_factory=dict)
    waiting: str = ""

    @property
    def missing(self) -> list[Need]:
        """The trainings that the ledger has not."""
        return [need for need in self.needs if need.record is None]

    @property
    def measured(self) -> dict[int, Record]:
        """By seed the trainings that were measured on test data, in the study's order."""
        return {
            seed: need.record
            for seed, need in self.seeds.items()
            if need.record is not None and need.record.test is not None
        }


def plan(
    cell: Cell,
    params: Params,
    meta: dict,
    root: Path,
    find: Find,
    auto: tuple[str, str] | None = None,
) -> Plan:
    """The trainings of a cell's searches and of its seeds.

    Args:
        meta: what is known of the data, :data:`lrstudy.study.tasks.DESCRIBED`.
        find: the ledger's; :meth:`lrstudy.ledger.Ledger.find` or :func:`finder`.
        auto: the device and the dtype that ``auto`` means; None: those of the machine that would train.
    """
    found = Plan(cell, params.dataset[cell.dataset].metric)

    def need(name: str, values: dict, seed: int, of: Plan = found, **options: Any) -> Need:
        label = f"{of.cell.name} {name}"
        settings = of.cell.settings(values)
        task = training_task(of.cell, params, settings, seed, meta, root, label, auto=auto, **options)
        for known in of.needs:
            if known.task["key"] == task["key"]:
                return known  # two searches begin with the same trial
        of.needs.append(Need(name, task, find(*task["identities"])))
        return of.needs[-1]

    searching = searching_cell(params, cell)
    # Another cell's search is that cell's need.
    search_plan = found if searching is cell else Plan(searching, found.headline)
    complete = True
    if params.tune.num_trials:
        # All of them are gone through, whether one waits or not: what each lacks can be trained now.
        for search in range(params.tune.searches):
            trials, whole = _replayed(searching, params, partial(need, of=search_plan), search)
            search_plan.searches.append(trials)
            complete &= whole
    if not complete:
        count = len(params.train.seeds)
        whose = "the search" if searching is cell else f"the search of {searching.name}"
        found.waiting = f"{count} training{'s' if count > 1 else ''} with the values that {whose} will find"
        return found
    from lrstudy.search.best import what_was_found

    tuned = what_was_found(searching, params.tune, search_plan.searches)
    found.tuned, best = tuned if searching is cell else None, Best(**tuned)
    for seed in params.train.seeds:
        values, search = best.values_for(seed)
        found.taken[seed] = stretched(values, searching, cell), search
        found.seeds[seed] = need(f"seed {seed}", found.taken[seed][0], seed)
    found.source = tuned["source"]
    return found


def _replayed(cell: Cell, params: Params, need: Callable[..., Need], search: int) -> tuple[list[dict], bool]:
    """The trials of one search that are there, as ``tune`` returns them, and whether that is all of them."""
    import optuna
    from optuna.trial import create_trial

    from lrstudy.search.best import judge
    from lrstudy.search.tuning import add_result, distributions, search_steps, seeds_of, trial_name

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(cell)
    steps = search_steps(cell, params.tune, search)
    trials: dict[int, dict] = {}
    asked = next(steps, None)
    while asked is not None:
        phase, wanted = asked
        finished, complete = {}, True
        for number, values in wanted.items():
            name = trial_name(search, phase, number)
            records = [
                need(f"{name} seed {seed}", values, seed, role="trial").record
                for seed in seeds_of(params.tune, phase)
            ]
            there = [record for record in records if record is not None]
            if len(there) < len(records):
                complete = False
                continue
            objective, known = judge(there)
            add_result(trials, phase, number, values, objective, known)
            finished[number] = create_trial(
                params=values, distributions=dict(space), value=objective, user_attrs={"number": number}
            )
        if not complete:
            break
        try:
            asked = steps.send(finished)
        except StopIteration:
            asked = None
    return [trials[number] for number in sorted(trials)], asked is None


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


def finder(records: Iterable[Record]) -> Find:
    """Look trainings up among ``records``, one each, as :meth:`lrstudy.ledger.Ledger.find` does in files."""
    by_identity = {record.identity: record for record in records}

    def find(*identities: str) -> Record | None:
        return min((by_identity[i] for i in identities if i in by_identity), key=preference, default=None)

    return find


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
    interventions: Sequence[object]
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
