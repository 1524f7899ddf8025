"""Find a cell's base rate and schedule parameters: python -m lrstudy.stages.tune MODEL SCHEDULE."""

import contextlib
import math
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.design import verdict
from lrstudy.errors import StudyError
from lrstudy.process.command import run_stage
from lrstudy.process.parallel import num_workers, run_all
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params, workspace_root
from lrstudy.recipe.identity import content_hash
from lrstudy.search.best import each, judge, together, what_was_found
from lrstudy.search.tuning import (
    CONFIRMATION,
    SEARCH,
    best_trial,
    draw,
    earlier_studies,
    seeds_of,
    storage_uri,
    study_name,
    tune,
)
from lrstudy.stages import cell_arguments
from lrstudy.study.journals import common_tags, finish, mean_curves, under_way
from lrstudy.study.outputs import Best
from lrstudy.study.runs import is_from_ledger, train_run
from lrstudy.study.tasks import record_of, told, training_task
from lrstudy.study.workspace import data_folder, tuned_file
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender, describe, server_name


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
    settings = params.tune
    if settings.num_trials == 0:
        Best(**what_was_found(cell, settings, [])).write(output)
        print(f"{cell.name}: tune.num_trials is 0: the defaults of conf/ are used", file=sys.stderr)
        return

    def task(name: str, values: dict, seed: int) -> dict:
        return training_task(
            cell,
            params,
            cell.settings(values),
            seed,
            meta,
            root,
            f"{cell.name} {name} seed {seed}",
            role="trial",
            keep_weights=False,
            journal=False,
        )

    # What the search depends on, in the words that a later search says it differs in.
    space = cell.search_space()
    defaults = task("defaults", {}, 0)
    identity = {
        "data": meta["fingerprint"],
        **{f"code of the {part}": meaning for part, meaning in defaults["code"].items()},
        "settings": defaults["settings"],
        "search space": {name: where.model_dump() for name, where in space.items()},
        "seeds": settings.seeds,
        "seeds of the confirmation": settings.confirm_seeds,
        "sampler": [settings.sampler_seed, settings.batch_size, settings.num_quasi_random],
    }
    identity = {name: content_hash(part) for name, part in identity.items()}
    key = content_hash(identity)
    if said := earlier_studies(cell, key, root, identity):
        print(f"{cell.name}: {said}", file=sys.stderr)
    tags = common_tags(cell, params, meta)
    folder = root / "checkpoints" / cell.name / f"tuning-{key[:16]}"
    journal = Journal(folder, f"tuning-{key}")
    journal.create(
        f"{cell.name} tuning",
        tags | {"kind": "tuning"},
        {
            "num_trials": settings.num_trials,
            "searches": settings.searches,
            "seeds": settings.seeds,
            "finalists": settings.finalists,
            "confirm_seeds": settings.confirm_seeds,
            "search": {name: where.model_dump() for name, where in space.items()},
        },
        description=f"Search for the base rate and the parameters of `{schedule}` with {model} on "
        f"{meta['label']}: one run per trial, one more per finalist with further seeds; the objective is "
        "the last epoch's validation loss.",
    )

    def trial_name(search: int, phase: str, number: int) -> str:
        of = f"search {search + 1} " if search else ""
        return f"{of}trial {number}" + (f" {phase}" if phase == CONFIRMATION else "")

    def trial_journal(search: int, phase: str, number: int) -> Journal:
        name = trial_name(search, phase, number).replace(" ", "-")
        return Journal(folder / name, f"tuning-{key}-{name}")

    with Sender(root) as sender, under_way(journal):
        sender.follow(folder)

        def evaluate(search: int, phase: str, trials: list[tuple[int, dict]]) -> list[tuple[float, dict]]:
            seeds = seeds_of(settings, phase)
            tasks = {
                n: [task(trial_name(search, phase, n), values, seed) for seed in seeds]
                for n, values in trials
            }
            every = [run for group in tasks.values() for run in group]
            taken = {run["key"] for run in every if is_from_ledger(run)}
            for _ in run_all(train_run, every, *params.workers):
                pass
            found = []
            for number, values in trials:
                records = [record_of(task) for task in tasks[number]]
                objective, known = judge(records)
                trial = trial_journal(search, phase, number)
                trial.create(
                    f"{cell.name} {trial_name(search, phase, number)}",
                    tags | {"kind": "trial", "trial": str(number), "phase": phase, "search": str(search + 1)},
                    values | {"seeds": seeds},
                    parent=journal.key,
                )
                sender.follow(trial.folder)
                if not any(event["event"] == "end" for event in trial.events()):
                    curves = mean_curves([record.outcome()["epochs"] for record in records])
                    trial.metrics(curves)
                    if math.isfinite(objective):
                        trial.metrics([("objective", objective, 0, curves[-1][3])])
                    if "reason" in known:
                        trial.tags({"reason": known["reason"]})
                    if all(run["key"] in taken for run in tasks[number]):
                        trial.tags({"from_ledger": "true", "trained": told(records[0])})
                    finish(trial, known["status"])
                found.append((objective, known))
            return found

        workers = num_workers(*params.workers)
        at_once = math.ceil(workers / len(settings.seeds))
        with _clear_database_errors(root):
            searched = [
                tune(
                    cell,
                    settings,
                    key,
                    root,
                    partial(evaluate, search),
                    search=search,
                    identity=identity,
                    at_once=at_once,
                )
                for search in range(settings.searches)
            ]
        winners = [best_trial(trials) for trials in searched]
        # The numbers of MLflow's steps: those of the first search's trials, then of the second's, ...
        steps = {(s, t["number"]): s * settings.num_trials + t["number"] for s, t in each(searched)}
        journal.metrics(
            [
                (
                    "objective" if phase == SEARCH else f"objective_of_{phase}",
                    trial[phase]["objective"],
                    steps[search, trial["number"]],
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
                run = trial_journal(search, phase, trial["number"])
                if not run.events():
                    continue  # another machine trained it and has told MLflow
                sender.follow(run.folder)  # a process that was killed may not have sent it all
                tagged = [event["tags"] for event in run.events() if "best" in event.get("tags", {})]
                # With more trials than the last time, another one may be the best.
                is_best = trial is winners[search] and phase == phases[-1]
                if str(is_best).lower() != (tagged or [{"best": "false"}])[-1]["best"]:
                    run.tags({"best": str(is_best).lower()})
        for search, winner in enumerate(winners):
            of = f"best.search_{search + 1}" if search else "best"
            journal.tags(
                {f"{of}.trial": str(winner["number"])}
                | {f"{of}.{name}": str(value) for name, value in winner["values"].items()}
            )
        # DVC removes the output before the next run; MLflow may be told of these files only then.
        pooled = together(searched)
        figures = draw(pooled, cell, folder / f"figures-{len(pooled)}")
        for figure in figures:
            journal.artifact(figure, "figures")
        finish(journal, "finished")

    output.parent.mkdir(parents=True, exist_ok=True)
    for older in output.parent.glob("*.png"):  # the output persists
        older.unlink()
    for figure in figures:
        shutil.copyfile(figure, output.parent / figure.name)
    found = what_was_found(cell, settings, searched)
    Best.model_validate({**found, "study": study_name(cell.name, key)}).write(output)
    for search, winner in enumerate(winners):
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in winner["values"].items()
        )
        of = f" of search {search + 1}" if len(winners) > 1 else ""
        print(
            f"{cell.name}: best of {len(searched[search])} trials{of}: {values} "
            f"({found['cost']['trainings']} trainings in all)",
            file=sys.stderr,
        )
        if found["searches"][search]["exhausted"]:
            print(
                f"{cell.name}: {len(searched[search])} of {settings.num_trials} trials{of}, for there are no "
                "more: all else in the search space was tried, or its rate moves by less than a tenth",
                file=sys.stderr,
            )


@contextlib.contextmanager
def _clear_database_errors(root: Path) -> Iterator[None]:
    """One message for a database of trials that is full, locked for too long or gone."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        uri = storage_uri(root)
        raise StudyError(
            f"Optuna's database {server_name(uri)} failed ({describe(error.__cause__ or error, uri)}); mend "
            "it, then run it again: finished trials and epochs are kept."
        ) from error


if __name__ == "__main__":
    run_stage(main, warm="start")
