"""Find a cell's base rate and schedule parameters: python -m lrstudy.stages.tune MODEL SCHEDULE."""

import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.design import verdict
from lrstudy.errors import StudyError
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.recipe.identity import content_hash
from lrstudy.search.best import each, together, what_was_found
from lrstudy.search.tuning import (
    CONFIRMATION,
    SEARCH,
    best_trial,
    draw,
    earlier_studies,
    study_name,
    trial_name,
)
from lrstudy.stages import cell_arguments
from lrstudy.study.journals import common_tags, finish, mean_curves, under_way
from lrstudy.study.outputs import Best
from lrstudy.study.tasks import told
from lrstudy.study.trials import Trial, run_search, search_identity
from lrstudy.study.workspace import data_folder, tuned_file
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender


def main() -> None:
    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    cell = make_cell(params, model, schedule)
    if cell.model.tuned_as is not None:
        raise StudyError(
            f"{cell.name}: has no search of its own (model.{model}.tuned_as); "
            f"`dvc repro tune@{cell.model.tuned_as}-{schedule}` finds its values."
        )
    meta = read_meta(data_folder(cell.dataset))
    print(f"{cell.name}: {verdict(params)[1]} More: python -m lrstudy.design", file=sys.stderr)
    output = tuned_file(model, schedule)
    if params.tune.num_trials == 0:
        Best(**what_was_found(cell, params.tune, [])).write(output)
        print(f"{cell.name}: tune.num_trials is 0: the defaults of conf/ are used", file=sys.stderr)
        return
    identity = search_identity(cell, params, meta, root)
    key = content_hash(identity)
    if said := earlier_studies(cell, key, root, identity):
        print(f"{cell.name}: {said}", file=sys.stderr)
    with Sender(root) as sender:
        tracked = _Tracked(cell, key, root, common_tags(cell, params, meta), sender)
        with under_way(tracked.begin(params, meta["label"])):
            searched = [
                run_search(cell, params, meta, root, identity, search, tell=tracked.trial)
                for search in range(params.tune.searches)
            ]
            winners = [best_trial(trials) for trials in searched]
            # DVC removes the output before the next run; MLflow may be told of these files only then.
            pooled = together(searched)
            figures = draw(pooled, cell, tracked.folder / f"figures-{len(pooled)}")
            tracked.end(searched, winners, params.tune.num_trials, figures)

    output.parent.mkdir(parents=True, exist_ok=True)
    for older in output.parent.glob("*.png"):  # the output persists
        older.unlink()
    for figure in figures:
        shutil.copyfile(figure, output.parent / figure.name)
    found = what_was_found(cell, params.tune, searched)
    Best(**found, study=study_name(cell.name, key)).write(output)
    for line in _in_words(params.tune.num_trials, searched, winners, found):
        print(f"{cell.name}: {line}", file=sys.stderr)


@dataclass
class _Tracked:
    """The search's run in MLflow, by way of its journal, with one run below it for each trial and phase."""

    cell: Cell
    key: str
    root: Path
    tags: dict[str, str]
    sender: Sender

    @property
    def folder(self) -> Path:
        return self.root / "checkpoints" / self.cell.name / f"tuning-{self.key[:16]}"

    @property
    def journal(self) -> Journal:
        return Journal(self.folder, f"tuning-{self.key}")

    def begin(self, params: Params, data: str) -> Journal:
        """Create the search's run, on data of this name."""
        settings = params.tune
        space = {name: where.model_dump() for name, where in self.cell.search_space().items()}
        self.journal.create(
            f"{self.cell.name} tuning",
            self.tags | {"kind": "tuning"},
            {
                "num_trials": settings.num_trials,
                "searches": settings.searches,
                "seeds": settings.seeds,
                "finalists": settings.finalists,
                "confirm_seeds": settings.confirm_seeds,
                "search": space,
            },
            description=f"Search for the base rate and the parameters of `{self.cell.schedule_name}` with "
            f"{self.cell.model_name} on {data}: one run per trial, one more per finalist with further seeds; "
            "the objective is the last epoch's validation loss.",
        )
        self.sender.follow(self.folder)
        return self.journal

    def trial(self, trial: Trial) -> None:
        """Tell of a trial that was trained, unless it was told before."""
        journal = self._of_trial(trial.search, trial.phase, trial.number)
        journal.create(
            f"{self.cell.name} {trial_name(trial.search, trial.phase, trial.number)}",
            self.tags
            | {
                "kind": "trial",
                "trial": str(trial.number),
                "phase": trial.phase,
                "search": str(trial.search + 1),
            },
            trial.values | {"seeds": trial.seeds},
            parent=self.journal.key,
        )
        self.sender.follow(journal.folder)
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

    def end(
        self, searched: list[list[dict]], winners: list[dict], num_trials: int, figures: list[Path]
    ) -> None:
        """Tell what came of all searches, and which trials are the best."""
        # The numbers of MLflow's steps: those of the first search's trials, then of the second's, ...
        self.journal.metrics(
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
            ]
        )
        for search, trial in each(searched):
            phases = [phase for phase in (SEARCH, CONFIRMATION) if trial[phase] is not None]
            for phase in phases:
                journal = self._of_trial(search, phase, trial["number"])
                if not journal.events():
                    continue  # another machine trained it and has told MLflow
                self.sender.follow(journal.folder)  # a process that was killed may not have sent it all
                said = [e["tags"]["best"] for e in journal.events() if "best" in e.get("tags", {})]
                # With more trials than the last time, another one may be the best.
                is_best = trial is winners[search] and phase == phases[-1]
                if str(is_best).lower() != (said or ["false"])[-1]:
                    journal.tags({"best": str(is_best).lower()})
        for search, winner in enumerate(winners):
            of = f"best.search_{search + 1}" if search else "best"
            self.journal.tags(
                {f"{of}.trial": str(winner["number"])}
                | {f"{of}.{name}": str(value) for name, value in winner["values"].items()}
            )
        for figure in figures:
            self.journal.artifact(figure, "figures")
        finish(self.journal, "finished")

    def _of_trial(self, search: int, phase: str, number: int) -> Journal:
        name = trial_name(search, phase, number).replace(" ", "-")
        return Journal(self.folder / name, f"tuning-{self.key}-{name}")


def _in_words(num_trials: int, searched: list[list[dict]], winners: list[dict], found: dict) -> Iterator[str]:
    """The best trial of each search."""
    for search, winner in enumerate(winners):
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in winner["values"].items()
        )
        of = f" of search {search + 1}" if len(winners) > 1 else ""
        count = len(searched[search])
        if winner["objective"] is None:
            yield f"every one of {count} trials{of} diverged; the first one's values are taken: {values}"
        else:
            yield f"best of {count} trials{of}: {values} ({found['cost']['trainings']} trainings in all)"
        if found["searches"][search]["exhausted"]:
            yield (
                f"{count} of {num_trials} trials{of}, for there are no more: all else in the search space "
                "was tried, or its rate moves by less than a tenth"
            )


if __name__ == "__main__":
    run_stage(main, warm="start")
