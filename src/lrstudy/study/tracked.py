"""What MLflow gets of a cell, by way of journals: a run for its searches with one below it for each trial, a
run for its trainings with one below it for each seed.

Everything here may be said again by who comes later: what a journal has is not repeated.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from lrstudy.files import write_json
from lrstudy.ledger.record import SCORES, TEST_PREFIX, WEIGHTS, Record
from lrstudy.recipe.cells import Cell, searching_cell
from lrstudy.recipe.config import Params
from lrstudy.recipe.identity import content_hash
from lrstudy.search.best import each
from lrstudy.search.tuning import CONFIRMATION, SEARCH, trial_name
from lrstudy.study.journals import (
    common_tags,
    ended_as,
    finish,
    log_once,
    mean_curves,
    metrics_once,
)
from lrstudy.study.plan import Trial
from lrstudy.study.runs import journaled_epochs, metric_values
from lrstudy.study.tasks import told
from lrstudy.tracking.journal import Journal

S = TypeVar("S", int, str)
Follow = Callable[[Path], None]
"""Has the journal in a folder sent to MLflow: :meth:`lrstudy.tracking.store.Sender.follow`."""


class TrackedCell:
    """The run of a cell, and below it one for each seed.

    Args:
        tasks: the trainings by seed.
        source: where their values are from, ``best.json``'s.
    """

    def __init__(
        self,
        cell: Cell,
        params: Params,
        meta: dict,
        root: Path,
        tasks: Mapping[int, dict],
        source: str,
        follow: Follow,
    ):
        self.cell, self.tasks = cell, tasks
        key = content_hash([tasks[seed]["key"] for seed in sorted(tasks)])
        self.journal = Journal(root / "checkpoints" / cell.name / f"cell-{key[:16]}", f"cell-{key}")
        self.seeds = {seed: Journal(task["folder"], task["key"]) for seed, task in tasks.items()}
        searching = searching_cell(params, cell)
        of_another = {} if searching is cell else {"tuned_as": searching.model_name}
        self._tags = common_tags(cell, params, meta) | {"tuned": source, **of_another}
        self._params, self._meta, self._follow = params, meta, follow

    def begin(self, recorded: Mapping[int, Record]) -> None:
        """Create the runs; those of trainings that are ``recorded`` began when these did."""
        settings = {name: value for name, value in self._first["settings"].items() if name != "seed"}
        self.journal.create(
            self.cell.name,
            self._tags | {"kind": "cell"},
            settings | {"seeds": self._params.train.seeds},
            description=f"`{self.cell.model_name}` with the schedule `{self.cell.schedule_name}` on "
            f"{self._meta['label']}: one run per seed.",
        )
        self._follow(self.journal.folder)
        for seed, journal in self.seeds.items():
            first = recorded[seed].outcome()["epochs"][0] if seed in recorded else None
            journal.create(
                f"{self.cell.name} seed {seed}",
                self._tags | {"kind": "seed", "seed": str(seed)},
                self.tasks[seed]["settings"],
                parent=self.journal.key,
                began=first["time"] - first["seconds"] if first else None,
            )
            for split in ("train", "validation"):
                journal.dataset(split, self._meta)
            self._follow(journal.folder)

    @property
    def _first(self) -> dict:
        return next(iter(self.tasks.values()))

    def trained(self, seed: int, record: Record) -> None:
        """Tell what a seed's training did."""
        tell_training(self.seeds[seed], record)

    def end(self, records: Mapping[int, Record]) -> None:
        """Tell what the cell's run shows while its seeds are folded away, and how it ended."""
        if ended_as(self.journal) != "FINISHED":
            self.journal.metrics(mean_curves([record.outcome()["epochs"] for record in records.values()]))
        statuses = {record.status for record in records.values()}
        finish(self.journal, "diverged" if "diverged" in statuses else "finished")


def tell_training(journal: Journal, record: Record) -> None:
    """Tell what a training did: the epochs that were not told yet, and its end."""
    journaled = journaled_epochs(journal)
    untold = [epoch for epoch in record.outcome()["epochs"] if epoch["epoch"] not in journaled]
    if untold:
        for epoch in untold:
            journal.metrics(metric_values(epoch))
        journal.tags({"from_ledger": "true", "trained": told(record)})
    _log_final(journal, record)
    _log_interventions(journal, record.interventions)
    finish(journal, record.status, record.origin.ended)


def tell_test_metrics(
    cell: Journal, seeds: Mapping[S, Journal], records: Mapping[S, Record], meta: dict
) -> None:
    """Add the test metrics of measured trainings to each seed's run, and their means to the cell's."""
    all_values: dict[str, list[float]] = {}
    for seed, journal in seeds.items():
        values = {}
        for weights in WEIGHTS:
            scores = getattr(records[seed].measured, weights)
            for name in SCORES:
                if (value := getattr(scores, name)) is not None:
                    values[f"{TEST_PREFIX[weights]}/{name}"] = [(0, value)]
                    all_values.setdefault(f"{TEST_PREFIX[weights]}/{name}", []).append(value)
        log_once(journal, values)
        journal.dataset("test", meta)
    means = {name: [(0, math.fsum(values) / len(values))] for name, values in all_values.items()}
    log_once(cell, means)


class TrackedSearch:
    """The run of a cell's searches, and below it one for each trial and phase.

    Args:
        key: what the searches are of, :func:`lrstudy.study.cell_jobs.search_identity` as one hash.
    """

    def __init__(self, cell: Cell, params: Params, meta: dict, root: Path, key: str, follow: Follow):
        self.cell = cell
        folder = root / "checkpoints" / cell.name / f"tuning-{key[:16]}"
        self.journal = Journal(folder, f"tuning-{key}")
        self._tags = common_tags(cell, params, meta)
        self._params, self._meta, self._follow = params, meta, follow

    def begin(self) -> None:
        """Create the searches' run."""
        settings = self._params.tune
        space = {name: where.model_dump() for name, where in self.cell.search_space().items()}
        self.journal.create(
            f"{self.cell.name} tuning",
            self._tags | {"kind": "tuning"},
            {
                "num_trials": settings.num_trials,
                "searches": settings.searches,
                "seeds": settings.seeds,
                "finalists": settings.finalists,
                "confirm_seeds": settings.confirm_seeds,
                "search": space,
            },
            description=f"Search for the base rate and the parameters of `{self.cell.schedule_name}` with "
            f"{self.cell.model_name} on {self._meta['label']}: one run per trial, one more per finalist with "
            "further seeds; the objective is the last epoch's validation loss.",
        )
        self._follow(self.journal.folder)

    def trial(self, trial: Trial) -> None:
        """Tell of a trial that was trained, unless it was told before."""
        journal = self._of_trial(trial.search, trial.phase, trial.number)
        journal.create(
            f"{self.cell.name} {trial_name(trial.search, trial.phase, trial.number)}",
            self._tags
            | {
                "kind": "trial",
                "trial": str(trial.number),
                "phase": trial.phase,
                "search": str(trial.search + 1),
            },
            trial.values | {"seeds": trial.seeds},
            parent=self.journal.key,
        )
        self._follow(journal.folder)
        if any(event["event"] == "end" for event in journal.events()):
            return
        curves = mean_curves([record.outcome()["epochs"] for record in trial.records])
        journal.metrics(curves)
        if math.isfinite(trial.objective):
            journal.metrics([("objective", trial.objective, 0, curves[-1][3])])
        if "reason" in trial.known:
            journal.tags({"reason": trial.known["reason"]})
        if trial.from_ledger:
            journal.tags({"from_ledger": "true", "trained": told(trial.records[0])})
        finish(journal, trial.known["status"])

    def end(self, searched: list[list[dict]], winners: list[dict], figures: list[Path]) -> None:
        """Tell what came of all searches, and which trials are the best."""
        # The numbers of MLflow's steps: those of the first search's trials, then of the second's, ...
        num_trials = self._params.tune.num_trials
        metrics_once(
            self.journal,
            [
                (
                    "objective" if phase == SEARCH else f"objective_of_{phase}",
                    trial[phase]["objective"],
                    search * num_trials + trial["number"],
                    trial[phase]["ended"],
                )
                for search, trial in each(searched)
                for phase in (SEARCH, CONFIRMATION)
                if trial[phase] is not None and trial[phase]["objective"] is not None
            ],
        )
        for search, trial in each(searched):
            phases = [phase for phase in (SEARCH, CONFIRMATION) if trial[phase] is not None]
            for phase in phases:
                journal = self._of_trial(search, phase, trial["number"])
                if not journal.events():
                    continue  # another machine trained it and has told MLflow
                self._follow(journal.folder)  # a process that was killed may not have sent it all
                # With more trials than the last time, another one may be the best.
                is_best = trial is winners[search] and phase == phases[-1]
                if is_best or any("best" in event.get("tags", {}) for event in journal.events()):
                    journal.tags({"best": str(is_best).lower()})
        for search, winner in enumerate(winners):
            of = f"best.search_{search + 1}" if search else "best"
            self.journal.tags(
                {f"{of}.trial": str(winner["number"])}
                | {f"{of}.{name}": str(value) for name, value in winner["values"].items()}
            )
        for figure in figures:
            self.journal.artifact(figure, "figures", once=True)
        finish(self.journal, "finished")

    def journals(self, searched: list[list[dict]]) -> list[Journal]:
        """The run of the searches, and those of trials that were told of here."""
        phases = (SEARCH, CONFIRMATION)
        trials = [
            self._of_trial(search, phase, trial["number"])
            for search, trial in each(searched)
            for phase in phases
            if trial[phase] is not None
        ]
        return [self.journal, *(journal for journal in trials if journal.path.exists())]

    def _of_trial(self, search: int, phase: str, number: int) -> Journal:
        name = trial_name(search, phase, number).replace(" ", "-")
        return Journal(self.journal.folder / name, f"{self.journal.key}-{name}")


def _log_final(journal: Journal, record: Record) -> None:
    """Tell what was measured once, at the training's end, if it was not told yet."""
    names = {
        name for event in journal.events() if event["event"] == "metrics" for name, *_ in event["values"]
    }
    epoch, when = len(record.history["epoch"]), int(record.origin.ended * 1000)
    values = [(name, value, epoch, when) for name, value in record.final.items() if value is not None]
    if not any(name in names for name, *_ in values):
        journal.metrics(values)


def _log_interventions(journal: Journal, interventions: list[dict]) -> None:
    """Tell what the controller did and why, as a file; nothing if it did nothing."""
    path = journal.folder / "interventions.json"
    if interventions and not path.exists():
        write_json(path, interventions)
        journal.artifact(path)
