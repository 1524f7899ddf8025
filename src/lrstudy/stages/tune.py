"""Find base rates and schedule parameters: python -m lrstudy.stages.tune MODEL [SCHEDULE].

Of one cell, or of all of the model's that search for their own.
"""

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.design import verdict
from lrstudy.errors import StudyError
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.search.best import what_was_found
from lrstudy.search.tuning import best_trial, most_trainings, study_name
from lrstudy.stages import cells_asked_for
from lrstudy.study.cell_jobs import Searched, search_jobs
from lrstudy.study.outputs import Best
from lrstudy.study.plan import Plan
from lrstudy.study.work import work_on
from lrstudy.study.workspace import data_folder, tuned_file
from lrstudy.tracking.store import Sender


def main() -> None:
    params, root = load_params(), workspace_root()
    cells = cells_asked_for(params)
    for cell in cells:
        if (base := cell.model.tuned_as) is not None:
            raise StudyError(
                f"{cell.name}: has no search of its own (model.{cell.model_name}.tuned_as); "
                f"`dvc repro tune@{params.staged(base, cell.schedule_name)}` finds its values."
            )
    meta = read_meta(data_folder(cells[0].dataset))
    print(f"{cells[0].name}: {verdict(params)[1]} More: python -m lrstudy.design", file=sys.stderr)
    if params.tune.num_trials == 0:
        for cell in cells:
            Best(**what_was_found(cell, params.tune, [])).write(_output(cell))
            print(f"{cell.name}: tune.num_trials is 0: the defaults of conf/ are used", file=sys.stderr)
        return
    metric = params.dataset[cells[0].dataset].metric
    jobs = {cell.name: partial(search_jobs, plan=Plan(cell, metric), meta=meta) for cell in cells}
    with Sender(root) as sender:
        most = len(cells) * most_trainings(params.tune)
        searched = work_on(jobs, params, root, most, sender.follow)
    for cell in cells:
        _write(cell, params, searched[cell.name])


def _output(cell: Cell) -> Path:
    return tuned_file(cell.model_name, cell.schedule_name)


def _write(cell: Cell, params: Params, searched: Searched) -> None:
    """The stage's output for a cell, and a few lines of it."""
    output = _output(cell)
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
