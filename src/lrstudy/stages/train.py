"""Train a cell, or all of a model's, with every seed: python -m lrstudy.stages.train MODEL [SCHEDULE]."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.ledger.record import OF_THE_CLOCK, Record
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import searching_cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.stages import cells_asked_for
from lrstudy.study.cell_jobs import seed_jobs, weights_folders
from lrstudy.study.collect import of_training
from lrstudy.study.outputs import HISTORY, Best, SeedRun, Tracked, Training
from lrstudy.study.plan import Plan
from lrstudy.study.runs import find_weights
from lrstudy.study.tasks import record_of
from lrstudy.study.tracked import TrackedCell
from lrstudy.study.work import work_on
from lrstudy.study.workspace import data_folder, train_folder, tuned_file
from lrstudy.tracking.store import Sender


def main() -> None:
    params, root = load_params(), workspace_root()
    cells = cells_asked_for(params)
    meta = read_meta(data_folder(cells[0].dataset))
    metric = params.dataset[cells[0].dataset].metric
    jobs, plans, tuned = {}, {}, {}
    for cell in cells:
        searching = searching_cell(params, cell)
        model, schedule = searching.model_name, searching.schedule_name
        tuned[cell.name] = Best.read(tuned_file(model, schedule), f"tune@{params.staged(model, schedule)}")
        plans[cell.name] = Plan(cell, metric)
        jobs[cell.name] = partial(seed_jobs, plan=plans[cell.name], best=tuned[cell.name], meta=meta)
    with Sender(root) as sender:
        tracked = work_on(jobs, params, root, len(cells) * len(params.train.seeds), sender.follow)
    for name, plan in plans.items():
        _write(plan, params, tuned[name], tracked[name], root, sender.run_ids)


def _write(
    plan: Plan, params: Params, tuned: Best, tracked: TrackedCell, root: Path, run_ids: Mapping[str, str]
) -> None:
    """The stage's output for a cell."""
    cell, tasks = plan.cell, tracked.tasks
    searching = searching_cell(params, cell)
    records = {seed: record_of(task) for seed, task in tasks.items()}
    output = train_folder(cell.model_name, cell.schedule_name)
    here = place_weights(tasks, output, root)
    for seed, record in here.items():
        if record is not None and records[seed].test is None:
            records[seed] = record  # of several, that which will be measured on test data
    HISTORY.write(output / "history.csv", history_rows(records))
    settings = next(iter(tasks.values()))["settings"]
    Training(
        model=cell.model_name,
        schedule=cell.schedule_name,
        dataset=cell.dataset,
        tuned=tuned.source,
        **({} if searching is cell else {"tuned_as": searching.model_name}),
        searches=len({search for _, search in plan.taken.values()}),
        settings={key: value for key, value in settings.items() if key != "seed"},
        cell=Tracked(key=tracked.journal.key, run_id=run_ids.get(tracked.journal.key)),
        seeds={
            str(seed): SeedRun(
                **of_training(records[seed], *plan.taken[seed]),
                key=task["key"],
                run_id=run_ids.get(task["key"]),
                weights=here[seed] is not None,
            )
            for seed, task in tasks.items()
        },
    ).write(output / "training.json")


def place_weights(tasks: Mapping[int, dict], output: Path, root: Path) -> dict[int, Record | None]:
    """Put the weights of every seed in ``output``, where they are here; returns whose they are, or None.

    They may lie there already, from DVC's cache: the stage's output persists.
    """
    folders = {seed: output / f"seed-{seed}" for seed in tasks}
    for folder in output.glob("seed-*"):
        if folder not in folders.values():
            shutil.rmtree(folder)
    here = {}
    for seed, task in tasks.items():
        found = find_weights(task, *weights_folders(task, root, folders[seed]))
        here[seed] = found and found[1]
        if found is None:
            shutil.rmtree(folders[seed], ignore_errors=True)
        elif found[0] != folders[seed]:
            folders[seed].mkdir(parents=True, exist_ok=True)
            for name in found[1].weights:
                shutil.copyfile(found[0] / f"{name}.safetensors", folders[seed] / f"{name}.safetensors")
    return here


def history_rows(records: dict[int, Record]) -> list[dict[str, float]]:
    """A row per seed and epoch, without what a clock decides."""
    names = [name for name in next(iter(records.values())).history if name not in OF_THE_CLOCK]
    return [
        {"seed": seed} | {name: epoch[name] for name in names}
        for seed, record in records.items()
        for epoch in record.outcome()["epochs"]
    ]


if __name__ == "__main__":
    run_stage(main, warm="start")
