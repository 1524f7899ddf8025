"""Train a cell with every seed: python -m lrstudy.stages.train MODEL SCHEDULE."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.ledger.record import OF_THE_CLOCK, Record
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import make_cell, searching_cell
from lrstudy.recipe.config import load_params, workspace_root
from lrstudy.stages import cell_arguments
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
    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    cell = make_cell(params, model, schedule)
    meta = read_meta(data_folder(cell.dataset))
    searching = searching_cell(params, cell)
    tuned = Best.read(tuned_file(searching.model_name, schedule), f"tune@{searching.name}")
    plan = Plan(cell, params.dataset[cell.dataset].metric)
    jobs = {cell.name: lambda study: seed_jobs(study, plan, tuned, meta)}
    with Sender(root) as sender:
        tracked: TrackedCell = work_on(jobs, params, root, len(params.train.seeds), sender.follow)[cell.name]

    tasks = tracked.tasks
    records = {seed: record_of(task) for seed, task in tasks.items()}
    output = train_folder(model, schedule)
    here = place_weights(tasks, output, root)
    for seed, record in here.items():
        if record is not None and records[seed].test is None:
            records[seed] = record  # of several, that which will be measured on test data
    HISTORY.write(output / "history.csv", history_rows(records))
    settings = next(iter(tasks.values()))["settings"]
    Training(
        model=model,
        schedule=schedule,
        dataset=cell.dataset,
        tuned=tuned.source,
        **({} if searching is cell else {"tuned_as": searching.model_name}),
        searches=len({search for _, search in plan.taken.values()}),
        settings={key: value for key, value in settings.items() if key != "seed"},
        cell=Tracked(key=tracked.journal.key, run_id=sender.run_ids.get(tracked.journal.key)),
        seeds={
            str(seed): SeedRun(
                **of_training(records[seed], *plan.taken[seed]),
                key=task["key"],
                run_id=sender.run_ids.get(task["key"]),
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
