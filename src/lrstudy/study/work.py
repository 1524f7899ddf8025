"""The engine at work: on all cells of a study, or on a part of one, with MLflow told and a person shown."""

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from lrstudy.errors import StudyError
from lrstudy.process.parallel import Pool
from lrstudy.recipe.config import Params
from lrstudy.study.cell_jobs import Study
from lrstudy.study.engine import Costs, Jobs, work
from lrstudy.study.sharing import Sharing
from lrstudy.study.view import View

MakeJobs = Callable[[Study], Jobs]


def work_on(
    cells: Mapping[str, MakeJobs],
    params: Params,
    root: Path,
    most: int,
    follow: Callable[[Path], None] = lambda journal: None,
    is_wanted: Callable[[str], bool] = lambda name: True,
) -> dict[str, Any]:
    """Do the jobs of all cells on every worker, and return by cell what its jobs came to.

    Args:
        cells: by name what makes their jobs.
        most: how many jobs there may be at a time, at most.
        follow: has a journal sent to MLflow, :meth:`lrstudy.tracking.store.Sender.follow`.
        is_wanted: whether a cell that lacks trainings is to have them.

    Raises:
        StudyError: a cell failed, after all others have ended.
    """
    costs, sharing = Costs(), Sharing()
    with View(costs) as view, closing(sharing), Pool(*params.workers, most=most) as pool:
        study = Study(params, root, follow, costs, view.say, view.is_live, sharing, is_wanted)
        jobs = {name: make(study) for name, make in cells.items()}
        done = work(jobs, pool, costs, view.show, sharing)
    if not done.failed:
        return done.results
    first, *others = done.failed.values()
    if not others or not all(isinstance(error, StudyError) for error in (first, *others)):
        for name, error in done.failed.items():
            if error is not first:
                print(f"error: {name}: {error}", file=sys.stderr)
        raise first
    told = "\n".join(f"  {name}: {error}" for name, error in done.failed.items())
    raise StudyError(f"{len(done.failed)} cells could not be finished, all others were:\n{told}")
