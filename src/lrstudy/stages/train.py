"""Train a cell with every seed: python -m lrstudy.stages.train MODEL SCHEDULE."""

import shutil
import sys
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.files import write_json
from lrstudy.ledger.record import OF_THE_CLOCK, Record
from lrstudy.process.command import run_stage
from lrstudy.process.parallel import run_all
from lrstudy.recipe.cells import make_cell, searching_cell, stretched
from lrstudy.recipe.config import load_params, workspace_root
from lrstudy.recipe.identity import content_hash
from lrstudy.stages import cell_arguments
from lrstudy.study.collect import of_training
from lrstudy.study.journals import common_tags, ended_as, finish, mean_curves, under_way
from lrstudy.study.outputs import HISTORY, Best, SeedRun, Tracked, Training
from lrstudy.study.runs import (
    begun_otherwise,
    find_record,
    find_weights,
    journaled_epochs,
    metric_values,
    train_run,
)
from lrstudy.study.tasks import record_of, told, training_task
from lrstudy.study.workspace import data_folder, train_folder, tuned_file
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender


def main() -> None:
    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    cell = make_cell(params, model, schedule)
    meta = read_meta(data_folder(cell.dataset))
    searching = searching_cell(params, cell)
    tuned = Best.read(tuned_file(searching.model_name, schedule), f"tune@{searching.name}")

    def values_of(seed: int) -> dict:
        return stretched(tuned.values_for(seed)[0], searching, cell)

    tasks = {
        seed: training_task(
            cell,
            params,
            cell.settings(values_of(seed)),
            seed,
            meta,
            root,
            f"{cell.name} seed {seed}",
            keep_weights=True,
            journal=True,
        )
        for seed in params.train.seeds
    }
    settings = {key: value for key, value in next(iter(tasks.values()))["settings"].items() if key != "seed"}
    known = {seed: find_record(task) for seed, task in tasks.items()}
    key = content_hash([tasks[seed]["key"] for seed in sorted(tasks)])
    of_another = {} if searching is cell else {"tuned_as": searching.model_name}
    tags = common_tags(cell, params, meta) | {"tuned": tuned.source, **of_another}
    parent = Journal(root / "checkpoints" / cell.name / f"cell-{key[:16]}", f"cell-{key}")
    parent.create(
        cell.name,
        tags | {"kind": "cell"},
        settings | {"seeds": params.train.seeds},
        description=f"`{model}` with the schedule `{schedule}` on {meta['label']}: one run per seed.",
    )
    journals = {}
    for seed, task in tasks.items():
        journals[seed] = Journal(task["folder"], task["key"])
        recorded = known[seed]
        first = recorded.outcome()["epochs"][0] if recorded else None
        journals[seed].create(
            f"{cell.name} seed {seed}",
            tags | {"kind": "seed", "seed": str(seed)},
            task["settings"],
            parent=parent.key,
            began=first["time"] - first["seconds"] if first else None,
        )
        for split in ("train", "validation"):
            journals[seed].dataset(split, meta)
        if recorded:
            print(f"{task['label']}: in the ledger, {told(recorded)}", file=sys.stderr, flush=True)
        elif said := begun_otherwise(journals[seed].folder):
            print(f"{task['label']}: {said}", flush=True)
    with Sender(root) as sender, under_way(parent, *journals.values()):
        for journal in (parent, *journals.values()):
            sender.follow(journal.folder)
        for folder in run_all(train_run, tasks.values(), *params.workers):
            seed = next(seed for seed, task in tasks.items() if task["folder"] == folder)
            log_record(journals[seed], record_of(tasks[seed]))
        records = {seed: record_of(task) for seed, task in tasks.items()}
        if ended_as(parent) != "FINISHED":
            # What the UI shows of a cell while its seeds are folded away.
            parent.metrics(mean_curves([record.outcome()["epochs"] for record in records.values()]))
        statuses = {record.status for record in records.values()}
        finish(parent, "diverged" if "diverged" in statuses else "finished")

    output = train_folder(model, schedule)
    here = place_weights(tasks, output, root)
    for seed, record in here.items():
        if record is not None and records[seed].test is None:
            records[seed] = record  # of several, that which will be measured on test data
    HISTORY.write(output / "history.csv", history_rows(records))
    Training(
        model=model,
        schedule=schedule,
        dataset=cell.dataset,
        tuned=tuned.source,
        **of_another,
        searches=len({tuned.values_for(seed)[1] for seed in tasks}),
        settings=settings,
        cell=Tracked(key=parent.key, run_id=sender.run_ids.get(parent.key)),
        seeds={
            str(seed): SeedRun(
                **of_training(records[seed], values_of(seed), tuned.values_for(seed)[1]),
                key=task["key"],
                run_id=sender.run_ids.get(task["key"]),
                weights=here[seed] is not None,
            )
            for seed, task in tasks.items()
        },
    ).write(output / "training.json")


def log_record(journal: Journal, record: Record) -> None:
    """Give the tracker what the training did: the epochs that it was not told yet, and the end."""
    journaled = journaled_epochs(journal)
    untold = [epoch for epoch in record.outcome()["epochs"] if epoch["epoch"] not in journaled]
    if untold:
        for epoch in untold:
            journal.metrics(metric_values(epoch))
        journal.tags({"from_ledger": "true", "trained": told(record)})
    log_final(journal, record)
    log_interventions(journal, record.interventions)
    finish(journal, record.status, record.origin.ended)


def log_final(journal: Journal, record: Record) -> None:
    """Give the tracker what was measured once, at the training's end, if it was not told yet."""
    told_names = {
        name for event in journal.events() if event["event"] == "metrics" for name, *_ in event["values"]
    }
    epoch, when = len(record.history["epoch"]), int(record.origin.ended * 1000)
    values = [(name, value, epoch, when) for name, value in record.final.items() if value is not None]
    if not any(name in told_names for name, *_ in values):
        journal.metrics(values)


def place_weights(tasks: dict[int, dict], output: Path, root: Path) -> dict[int, Record | None]:
    """Put the weights of every seed in ``output``, where they are here; returns whose they are, or None.

    They may lie there already, from DVC's cache: the stage's output persists.
    """
    folders = {seed: output / f"seed-{seed}" for seed in tasks}
    for folder in output.glob("seed-*"):
        if folder not in folders.values():
            shutil.rmtree(folder)
    here = {}
    for seed, task in tasks.items():
        # Rows with the same settings are one training, which lies where the first one asked for it.
        anywhere = sorted((root / "checkpoints").glob(f"*/{Path(task['folder']).name}"))
        found = find_weights(task, folders[seed], Path(task["folder"]), *anywhere)
        here[seed] = found and found[1]
        if found is None:
            shutil.rmtree(folders[seed], ignore_errors=True)
        elif found[0] != folders[seed]:
            folders[seed].mkdir(parents=True, exist_ok=True)
            for name in found[1].weights:
                shutil.copyfile(found[0] / f"{name}.safetensors", folders[seed] / f"{name}.safetensors")
    return here


def log_interventions(journal: Journal, interventions: list[dict]) -> None:
    """Give the tracker what the controller did and why, as a file; nothing if it did nothing."""
    path = journal.folder / "interventions.json"
    if interventions and not path.exists():
        write_json(path, interventions)
        journal.artifact(path)


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
