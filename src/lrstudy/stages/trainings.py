"""Train and measure all that the study asks for, on every worker at once: python -m lrstudy.stages.trainings.

The stages of the cells, which come after it, find their trainings in the ledger. Called without it, they do
their own.
"""

import functools
import resource
import sys
from collections.abc import Callable
from functools import partial

from lrstudy.data import read_meta
from lrstudy.design import verdict
from lrstudy.files import write_json
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.search.tuning import most_trainings
from lrstudy.study.cell_jobs import cell_jobs
from lrstudy.study.plan import Plan
from lrstudy.study.work import work_on
from lrstudy.study.workspace import TRAININGS, data_folder
from lrstudy.tracking.store import Sender


def main() -> None:
    params, root = load_params(), workspace_root()
    print(f"{verdict(params)[1]} More: python -m lrstudy.design", file=sys.stderr)
    _allow_open_files()
    metas = {dataset: read_meta(data_folder(dataset)) for dataset in params.datasets}
    plans = {}
    for name, listed in params.cells.items():
        cell = make_cell(params, listed.model, listed.schedule)
        plans[name] = Plan(cell, params.dataset[cell.dataset].metric)
    jobs = {
        name: partial(cell_jobs, plan=plan, meta=metas[plan.cell.dataset]) for name, plan in plans.items()
    }
    most = len(plans) * (most_trainings(params.tune) + len(params.train.seeds))
    with Sender(root) as sender:
        identities = work_on(jobs, params, root, most, sender.follow, changed_for_dvc(params))
    write_json(TRAININGS, {name: identities[name] for name in plans})


def changed_for_dvc(params: Params) -> Callable[[str], bool]:
    """Whether DVC would run a stage of a cell, by its name; DVC is asked when that is first to be known.

    A ledger may lack what DVC's cache has: then no stage of the cell runs, and nothing is to be trained for
    it.
    """

    @functools.cache
    def changed() -> set[str] | None:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            with Repo() as repo, repo.lock:  # which DVC lets go of while it runs a stage
                stages = [stage for stage in repo.index.stages if _of_a_cell(stage.addressing)]
                return {stage.addressing for stage in stages if stage.changed()}
        except NotDvcRepoError:
            return None  # called by hand where there are no stages

    def is_wanted(name: str) -> bool:
        searching = params.cells[name].tuned.replace("/", "-")
        mine = {f"tune@{searching}", f"train@{name}", f"evaluate@{name}"}
        return changed() is None or not mine.isdisjoint(changed() or ())

    return is_wanted


def _of_a_cell(stage: str) -> bool:
    return stage.partition("@")[0] in ("tune", "train", "evaluate")


def _allow_open_files() -> None:
    """As many open files as the system lets this user have: a run that goes on holds a lock on one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))


if __name__ == "__main__":
    run_stage(main, warm="start")
