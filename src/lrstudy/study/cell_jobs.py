"""A cell's work as the engine takes it: its searches, its seeds, what test data say of them.

Each part is a generator of jobs that tells MLflow, by way of journals, what it sees end. Nothing here trains.
"""

import contextlib
import functools
import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lrstudy.ledger import Ledger, Record
from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import Params
from lrstudy.recipe.identity import content_hash
from lrstudy.search.best import together
from lrstudy.search.tuning import FIGURES, SEARCH, Trials, best_trial, draw, earlier_studies
from lrstudy.study.engine import Costs, Job
from lrstudy.study.journals import under_way
from lrstudy.study.measuring import measure_run, measuring_task
from lrstudy.study.outputs import Best
from lrstudy.study.plan import Need, Plan, Trial, growing, growing_search, growing_seeds
from lrstudy.study.plan import plan as make_plan
from lrstudy.study.runs import begun_otherwise, train_run
from lrstudy.study.settled import Settled
from lrstudy.study.sharing import Sharing
from lrstudy.study.tasks import record_of, told, training_task
from lrstudy.study.tracked import TrackedCell, TrackedSearch, tell_test_metrics
from lrstudy.study.workspace import ledger_folder, train_folder
from lrstudy.tracking.journal import Journal

T = TypeVar("T")


@dataclass
class Study:
    """What all cells of a study share.

    Attributes:
        root: the workspace.
        follow: has the journal in a folder sent to MLflow.
        costs: are told what trainings cost.
        say: prints a line.
        shown: epochs are shown by who runs this, not printed by the trainings.
        sharing: what trainings have in common.
        is_wanted: whether a cell that lacks trainings is to have them, by its name.
    """

    params: Params
    root: Path
    follow: Callable[[Path], None]
    costs: Costs
    say: Callable[[str], None]
    shown: bool
    sharing: Sharing
    is_wanted: Callable[[str], bool] = lambda name: True
    _found: dict[tuple[str, ...], Record] = field(default_factory=dict)

    @functools.cached_property
    def settled(self) -> Settled:
        """The cells of which all was done before."""
        return Settled(self.params, self.root)

    @functools.cached_property
    def ledger(self) -> Ledger:
        """The workspace's ledger."""
        return Ledger(ledger_folder(self.root))

    def find(self, *identities: str) -> Record | None:
        """:meth:`lrstudy.ledger.Ledger.find`, which reads a file for each; one that was found is kept."""
        if identities not in self._found and (record := self.ledger.find(*identities)) is not None:
            self._found[identities] = record
        return self._found.get(identities)


@dataclass(frozen=True)
class Searched:
    """What came of a cell's searches.

    Attributes:
        best: the values.
        trials: of each search.
        figures: Optuna's, of all trials.
        key: identifies what was searched.
        journals: of the searches and of their trials.
    """

    best: Best
    trials: list[list[dict]]
    figures: list[Path]
    key: str
    journals: list[Journal]


def cell_jobs(study: Study, plan: Plan, meta: dict) -> Generator[list[Job], None, dict[str, str]]:
    """All that a cell needs, to what test data say of every seed; returns its trainings' identities by
    seed.
    """
    cell, journals = plan.cell, []
    if (settled := study.settled.seeds(cell, meta)) is not None:
        if not study.settled.all_of_the_network(cell, meta):  # others may begin with what its trainings did
            _tell_of(study, make_plan(cell, study.params, meta, study.root, study.find).needs)
        return settled
    lacking = growing(Plan(cell, plan.headline), study.params, meta, study.root, study.find)
    if next(lacking, None) is not None and not study.is_wanted(cell.name):
        stage = f"train@{study.params.staged(cell.model_name, cell.schedule_name)}"
        study.say(
            f"{cell.name}: not all of it is in the ledger, but no stage of it changed: left as it is; "
            f"`dvc repro --force {stage}` trains what is missing"
        )
        return {}
    study.sharing.expect(cell)
    try:
        if cell.model.tuned_as is None and study.params.tune.num_trials:
            searched = yield from search_jobs(study, plan, meta)
            best, journals = searched.best, searched.journals
        else:
            best = yield from searched_jobs(study, plan, meta)
    finally:
        study.sharing.settle(cell)
    tracked = yield from seed_jobs(study, plan, best, meta)
    yield from measuring_jobs(study, plan, tracked, meta)
    study.settled.note(plan, meta, [*journals, tracked.journal, *tracked.seeds.values()])
    return plan.identities


def search_identity(cell: Cell, params: Params, meta: dict, root: Path) -> dict[str, str]:
    """What a search depends on, in the words that a later one says it differs in -> SHA-256 of it."""
    settings = params.tune
    defaults = training_task(cell, params, cell.settings(), 0, meta, root, cell.name)
    depends_on = {
        "data": meta["fingerprint"],
        **{f"code of the {part}": meaning for part, meaning in defaults["code"].items()},
        "settings": defaults["settings"],
        "search space": {name: where.model_dump() for name, where in cell.search_space().items()},
        "seeds": settings.seeds,
        "seeds of the confirmation": settings.confirm_seeds,
        "sampler": [settings.sampler_seed, settings.batch_size, settings.num_quasi_random],
    }
    return {name: content_hash(part) for name, part in depends_on.items()}


def search_jobs(study: Study, plan: Plan, meta: dict) -> Generator[list[Job], None, Searched]:
    """The cell's own searches, and what they found once they have ended."""
    cell, params, root = plan.cell, study.params, study.root
    identity = search_identity(cell, params, meta, root)
    key = content_hash(identity)
    tracked = TrackedSearch(cell, params, meta, root, key, study.follow)
    database = Trials(cell, key, root, identity, tracked.journal.folder)

    def tell(trial: Trial) -> None:
        tracked.trial(trial)
        database.add(trial.search, trial.phase, trial.number, trial.values, trial.objective, trial.known)

    if database.is_new and (said := earlier_studies(cell, key, root, identity)):
        study.say(f"{cell.name}: {said}")
    tracked.begin()
    with under_way(tracked.journal):
        growing = growing_search(plan, params, meta, root, study.find, tell=tell)
        best = yield from _training_jobs(study, growing, plan.needs)
        figures = _figures(cell, together(plan.searches), tracked.journal.folder)
        tracked.end(plan.searches, [best_trial(trials) for trials in plan.searches], figures)
    return Searched(best, plan.searches, figures, key, tracked.journals(plan.searches))


def _figures(cell: Cell, trials: list[dict], folder: Path) -> list[Path]:
    """Optuna's figures of these trials, drawn once and kept beside the search's journal.

    DVC removes the stage's output before the next run, and MLflow may be told of these files only then.
    """
    shown = [[trial["values"], trial[SEARCH]["objective"]] for trial in trials]
    drawn = folder / f"figures-{content_hash(shown)[:16]}"
    if not drawn.is_dir():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".figures-") as scratch:
            draw(trials, cell, Path(scratch) / "whole")
            (Path(scratch) / "whole").mkdir(exist_ok=True)  # too few trials for any
            with contextlib.suppress(OSError):  # another process was quicker
                os.replace(Path(scratch) / "whole", drawn)
    return sorted(drawn.glob("*.png"), key=lambda path: FIGURES.index(path.stem))


def searched_jobs(study: Study, plan: Plan, meta: dict) -> Generator[list[Job], None, Best]:
    """What the cell's values come from, its own searches or another cell's, without a run in MLflow."""
    growing = growing_search(plan, study.params, meta, study.root, study.find)
    return (yield from _training_jobs(study, growing, plan.needs))


def seed_jobs(study: Study, plan: Plan, best: Best, meta: dict) -> Generator[list[Job], None, TrackedCell]:
    """The cell's trainings by seed with the values that were found; returns their runs."""
    growing = growing_seeds(plan, best, study.params, meta, study.root, study.find)
    missing = _not_derived(study, next(growing, []), plan.needs)
    tasks = {seed: need.task for seed, need in plan.seeds.items()}
    tracked = TrackedCell(plan.cell, study.params, meta, study.root, tasks, plan.source, study.follow)
    recorded = {
        seed: need.record for seed, need in plan.seeds.items() if need.record is not None and need.is_there
    }
    tracked.begin(recorded)
    for seed, task in tasks.items():
        if seed in recorded and not (Path(task["folder"]) / "outcome.json").exists():
            study.say(f"{task['label']}: in the ledger, {told(recorded[seed])}")
        elif seed not in recorded and (said := begun_otherwise(Path(task["folder"]))):
            study.say(f"{task['label']}: {said}")
    with under_way(tracked.journal, *tracked.seeds.values()):
        ended: set[int] = set()
        while True:
            for seed, need in plan.seeds.items():
                if need.record is not None and need.is_there and seed not in ended:
                    ended.add(seed)
                    tracked.trained(seed, need.record)
            if not missing:
                break
            yield [_training_job(study, need) for need in missing]
            missing = _not_derived(study, next(growing, []))
        tracked.end({seed: record_of(task) for seed, task in tasks.items()})
    return tracked


def measuring_jobs(
    study: Study, plan: Plan, tracked: TrackedCell, meta: dict
) -> Generator[list[Job], None, None]:
    """What test data say of the cell's trainings, of those whose weights are here."""
    cell = plan.cell
    while unmeasured := {seed: need for seed, need in plan.seeds.items() if not _is_measured(need)}:
        jobs = []
        for seed, need in unmeasured.items():
            output = train_folder(cell.model_name, cell.schedule_name) / f"seed-{seed}"
            task = measuring_task(
                need.task,
                need.task["data"],
                f"train@{study.params.staged(cell.model_name, cell.schedule_name)}",
                weights_folders(need.task, study.root, output),
            )
            if task is not None:
                jobs.append(_measuring_job(study, need, task))
        if not jobs:
            return
        yield jobs
    records = {seed: need.record for seed, need in plan.seeds.items() if need.record is not None}
    tell_test_metrics(tracked.journal, tracked.seeds, records, meta)


def weights_folders(task: dict, root: Path, *first: Path) -> list[Path]:
    """Where a training's weights may lie: of rows with the same settings, in the folder of one of them."""
    folder = Path(task["folder"])
    return [*first, folder, *sorted((root / "checkpoints").glob(f"*/{folder.name}"))]


def _is_measured(need: Need) -> bool:
    return need.record is not None and need.record.test is not None


def _training_jobs(
    study: Study, growing: Generator[list[Need], None, T], known: list[Need]
) -> Generator[list[Job], None, T]:
    """The trainings that a plan asks for while it grows, as jobs; ``known`` are all that it has asked for."""
    while True:
        try:
            missing = _not_derived(study, next(growing), known)
        except StopIteration as end:
            return end.value
        if missing:
            yield [_training_job(study, need) for need in missing]


def _tell_of(study: Study, needs: Iterable[Need]) -> None:
    """Have it known what other trainings may share of those that are recorded."""
    for need in needs:
        if need.record is not None:
            study.sharing.know(need.task, need.record)


def _not_derived(study: Study, missing: list[Need], known: Iterable[Need] = ()) -> list[Need]:
    """Of the missing trainings those that have to be done: others are the same as one that is recorded."""
    _tell_of(study, known)
    left = []
    for need in missing:
        record = study.sharing.whole(need.task)
        if record is None:
            left.append(need)
            continue
        study.ledger.add(record)
        need.record = record_of(need.task)
        assert record.shared is not None
        study.say(
            f"{need.task['label']}: the same throughout as {record.shared.identity[:16]}, which is there"
        )
    return left


def _training_job(study: Study, need: Need) -> Job:
    task, epochs = need.task, need.task["settings"]["num_epochs"]
    kind = content_hash([task["settings"]["model"], task["data"]])

    def take(_: str) -> None:
        need.record = record_of(task)
        study.sharing.know(task, need.record)
        seconds = need.record.numbers("seconds") if need.record.status == "finished" else []
        if seconds:
            study.costs.note(kind, sum(seconds) / len(seconds))

    return Job(
        key=task["key"],
        function=train_run,
        task=task | {"busy": True, "shown": study.shown},
        take=take,
        label=task["label"],
        kind=kind,
        epochs=epochs,
        ahead=epochs * need.in_a_row,
        later=epochs * need.later,
        shares=True,
    )


_EVALUATIONS = 0.2  # of an epoch, that all weights of a training take to measure


def _measuring_job(study: Study, need: Need, task: dict) -> Job:
    def take(_: str) -> None:
        need.record = record_of(need.task)

    return Job(
        key=f"test-{need.task['key']}",
        function=measure_run,
        task=task,
        take=take,
        label=f"{task['label']} on test data",
        kind=content_hash([task["settings"]["model"], task["data"]]),
        epochs=_EVALUATIONS,
        ahead=math.inf,  # before any training: it is short, and a result
    )
