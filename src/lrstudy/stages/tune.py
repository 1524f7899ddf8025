"""Find a cell's base rate and schedule parameters: python -m lrstudy.stages.tune MODEL SCHEDULE."""

import shutil
import sys
from collections.abc import Iterator

from lrstudy.data import read_meta
from lrstudy.design import verdict
from lrstudy.errors import StudyError
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params, workspace_root
from lrstudy.search.best import what_was_found
from lrstudy.search.tuning import best_trial, most_trainings, study_name
from lrstudy.stages import cell_arguments
from lrstudy.study.cell_jobs import Searched, search_jobs
from lrstudy.study.outputs import Best
from lrstudy.study.plan import Plan
from lrstudy.study.work import work_on
from lrstudy.study.workspace import data_folder, tuned_file
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
    plan = Plan(cell, params.dataset[cell.dataset].metric)
    jobs = {cell.name: lambda study: search_jobs(study, plan, meta)}
    with Sender(root) as sender:
        searched: Searched = work_on(jobs, params, root, most_trainings(params.tune), sender.follow)[
            cell.name
        ]

    output.parent.mkdir(parents=True, exist_ok=True)
    for older in output.parent.glob("*.png"):  # the output persists
        older.unlink()
    for figure in searched.figures:
        shutil.copyfile(figure, output.parent / figure.name)
    found = what_was_found(cell, params.tune, searched.trials)
    Best(**found, study=study_name(cell.name, searched.key)).write(output)
    for line in _in_words(params.tune.num_trials, searched.trials, found):
        print(f"{cell.name}: {line}", file=sys.stderr)


def _in_words(num_trials: int, searched: list[list[dict]], found: dict) -> Iterator[str]:
    """The best trial of each search."""
    for search, winner in enumerate(map(best_trial, searched)):
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in winner["values"].items()
        )
        of = f" of search {search + 1}" if len(searched) > 1 else ""
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
