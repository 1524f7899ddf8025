"""What a cell needs: the trainings of its searches and of its seeds, as far as they are known.

The search is gone through as ``tune`` would, with what the ledger says of its trials; what comes after a
trial that is missing is not known until it is there. A plan grows by what has been trained meanwhile
(:func:`growing`): who collects takes it as it is, who trains goes on with it.
"""

import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lrstudy.ledger import Record, preference
from lrstudy.recipe.cells import Cell, searching_cell, stretched
from lrstudy.recipe.config import Params, TuneParams
from lrstudy.study.outputs import Best
from lrstudy.study.runs import is_trial_to_measure
from lrstudy.study.tasks import training_task

Find = Callable[..., Record | None]
"""The identities of a training -> its record, or None."""


@dataclass
class Need:
    """A training that a cell needs: its task, and its record if the ledger has one.

    ``in_a_row`` is how many trainings its cell has to do one after the other, from this one to its last, and
    ``later`` how many it will need at most when those that are known are there.
    """

    name: str
    task: dict
    record: Record | None
    in_a_row: int = 1
    later: int = 0

    @property
    def is_there(self) -> bool:
        """Whether nothing is to be trained: a search's trial kept no weights that could be measured."""
        return self.record is not None and not is_trial_to_measure(self.record, self.task)


@dataclass(frozen=True)
class Trial:
    """A trial that was trained with the seeds of one phase.

    Attributes:
        search: of ``tune.searches``, from 0.
        records: one for each of the phase's ``seeds``.
        objective: infinite where one of them diverged.
        known: what :func:`lrstudy.search.best.judge` says of them.
        from_ledger: nothing was trained for it here.
    """

    search: int
    phase: str
    number: int
    values: dict
    seeds: list[int]
    records: list[Record]
    objective: float
    known: dict
    from_ledger: bool


@dataclass
class Plan:
    """What a cell needs, as far as it is known.

    Attributes:
        headline: the metric that decides for its data set: ``test/...``.
        needs: every training once, those of the search first.
        searches: of each search its trials as far as they are there, as :func:`lrstudy.search.tuning.tune`
            returns them; none where nothing is searched.
        searched: by which settings the cell's own searches ran; None until all their trainings are there, and
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
    searched: TuneParams | None = None
    source: str = ""
    taken: dict[int, tuple[dict, int]] = field(default_factory=dict)
    seeds: dict[int, Need] = field(default_factory=dict)
    waiting: str = ""

    @functools.cached_property
    def tuned(self) -> dict | None:
        """What the cell's own searches found, as ``best.json`` has it; None where ``searched`` is."""
        from lrstudy.search.best import what_was_found

        return None if self.searched is None else what_was_found(self.cell, self.searched, self.searches)

    @property
    def identities(self) -> dict[str, str]:
        """By seed, as JSON names it, the identity of the cell's own training."""
        return {str(seed): need.task["key"] for seed, need in self.seeds.items()}

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
    """The trainings of a cell's searches and of its seeds, as far as what is in the ledger tells.

    The arguments are those of :func:`growing`.
    """
    found = Plan(cell, params.dataset[cell.dataset].metric)
    next(growing(found, params, meta, root, find, auto), None)
    return found


def growing(
    found: Plan, params: Params, meta: dict, root: Path, find: Find, auto: tuple[str, str] | None = None
) -> Iterator[list[Need]]:
    """Fill the plan, and yield the trainings that are missing each time that it cannot go on without some.

    All of them can be trained now, in any order. Who has given one its ``record`` may ask again, for what is
    still missing or what follows. It ends when nothing is missing.

    Args:
        found: the plan of a cell, with nothing in it yet.
        meta: what is known of the data, :data:`lrstudy.study.tasks.DESCRIBED`.
        find: the ledger's; :meth:`lrstudy.ledger.Ledger.find` or :func:`finder`.
        auto: the device and the dtype that ``auto`` means; None: those of the machine that would train.
    """
    count = len(params.train.seeds)
    searching = searching_cell(params, found.cell)
    whose = "the search" if searching is found.cell else f"the search of {searching.name}"
    found.waiting = f"{count} training{'s' if count > 1 else ''} with the values that {whose} will find"
    best = yield from growing_search(found, params, meta, root, find, auto)
    found.waiting = ""
    yield from growing_seeds(found, best, params, meta, root, find, auto)


def growing_search(
    found: Plan,
    params: Params,
    meta: dict,
    root: Path,
    find: Find,
    auto: tuple[str, str] | None = None,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> Generator[list[Need], None, Best]:
    """The searches that the cell's values come from, as :func:`growing`; returns these values.

    Args:
        tell: is called with each trial of the cell's own searches whose trainings of one phase are there.
    """
    from lrstudy.search.best import chosen

    searching = searching_cell(params, found.cell)
    own = searching is found.cell
    by_key: dict[str, Need] = {}

    def need(name: str, values: dict, seed: int, in_a_row: int, later: int) -> Need:
        one = _need(searching, name, params, values, seed, meta, root, find, auto, role="trial")
        one.in_a_row, one.later = in_a_row, later
        if one.task["key"] not in by_key:  # two searches begin with the same trial
            by_key[one.task["key"]] = one
            if own:  # another cell's search is that cell's need
                found.needs.append(one)
        return by_key[one.task["key"]]

    searches: list[list[dict]] = [[] for _ in range(params.tune.searches if params.tune.num_trials else 0)]
    if own:
        found.searches = searches
    # All of them are gone through, whether one waits or not: what each lacks can be trained now.
    under_way = [
        _searching(searching, params, need, search, trials, tell if own else lambda trial: None)
        for search, trials in enumerate(searches)
    ]
    while missing := [one for search in under_way for one in next(search, ())]:
        yield missing
    if own:
        found.searched = params.tune
    return Best(**chosen(searching, params.tune, searches))


def growing_seeds(
    found: Plan,
    best: Best,
    params: Params,
    meta: dict,
    root: Path,
    find: Find,
    auto: tuple[str, str] | None = None,
) -> Iterator[list[Need]]:
    """The cell's own trainings with the values that were found, as :func:`growing`."""
    searching = searching_cell(params, found.cell)
    found.source = best.source
    known = {one.task["key"] for one in found.needs}
    for seed in params.train.seeds:
        values, search = best.values_for(seed)
        values = stretched(values, searching, found.cell)
        found.taken[seed] = values, search
        one = _need(found.cell, f"seed {seed}", params, values, seed, meta, root, find, auto, role="final")
        if one.task["key"] not in known:  # else a trial was the same training
            found.needs.append(one)
        found.seeds[seed] = one
    while missing := [one for one in found.seeds.values() if not one.is_there]:
        yield missing


def _need(
    cell: Cell,
    name: str,
    params: Params,
    values: dict,
    seed: int,
    meta: dict,
    root: Path,
    find: Find,
    auto: tuple[str, str] | None,
    role: str,
) -> Need:
    final = role == "final"
    settings, label = cell.settings(values), f"{cell.name} {name}"
    task = training_task(
        cell, params, settings, seed, meta, root, label,
        auto=auto, role=role, keep_weights=final, journal=final,
    )  # fmt: skip
    return Need(name, task, find(*task["identities"]))


def _searching(
    cell: Cell,
    params: Params,
    need: Callable[[str, dict, int, int, int], Need],
    search: int,
    trials: list[dict],
    tell: Callable[[Trial], None],
) -> Iterator[list[Need]]:
    """One search, as :func:`growing`; ``trials`` gets those that are there, as ``best.json``'s makers take
    them.
    """
    import optuna
    from optuna.trial import create_trial

    from lrstudy.search.best import judge
    from lrstudy.search.tuning import (
        CONFIRMATION,
        add_result,
        distributions,
        most_trainings,
        search_steps,
        seeds_of,
        trial_name,
    )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(cell)
    by_number: dict[int, dict] = {}
    steps = search_steps(cell, params.tune, search)
    step, asked = next(steps, None), 0
    while step is not None:
        phase, wanted = step
        seeds = seeds_of(params.tune, phase)
        asked += len(wanted) * len(seeds)
        in_a_row = 2 if phase == CONFIRMATION or not params.tune.confirm_seeds else 3
        later = most_trainings(params.tune) // params.tune.searches - asked + len(params.train.seeds)
        needs = {
            number: [
                need(f"{trial_name(search, phase, number)} seed {seed}", values, seed, in_a_row, later)
                for seed in seeds
            ]
            for number, values in wanted.items()
        }
        finished: dict[int, optuna.trial.FrozenTrial] = {}
        while len(finished) < len(wanted):
            for number, values in wanted.items():
                records = [one.record for one in needs[number] if one.record is not None]
                if number in finished or len(records) < len(seeds):
                    continue
                objective, known = judge(records)
                add_result(by_number, phase, number, values, objective, known)
                finished[number] = create_trial(
                    params=values, distributions=dict(space), value=objective, user_attrs={"number": number}
                )
                here = any((Path(one.task["folder"]) / "outcome.json").exists() for one in needs[number])
                tell(Trial(search, phase, number, values, seeds, records, objective, known, not here))
            trials[:] = [by_number[number] for number in sorted(by_number)]
            if missing := [one for group in needs.values() for one in group if one.record is None]:
                yield missing
        try:
            step = steps.send(finished)
        except StopIteration:
            step = None


def finder(records: Iterable[Record]) -> Find:
    """Look trainings up among ``records``, one each, as :meth:`lrstudy.ledger.Ledger.find` does in files."""
    by_identity = {record.identity: record for record in records}

    def find(*identities: str) -> Record | None:
        return min((by_identity[i] for i in identities if i in by_identity), key=preference, default=None)

    return find
