"""Train a cell with every seed: python -m lrstudy.stages.train MODEL SCHEDULE."""

import csv
import io
import shutil
from pathlib import Path

from lrstudy.cells import make_cell
from lrstudy.config import load_params, workspace_root
from lrstudy.data import read_meta
from lrstudy.files import write_atomically, write_json
from lrstudy.parallel import run_all
from lrstudy.runs import begun_otherwise, fingerprint, train_run
from lrstudy.stages import cell_arguments, run_stage
from lrstudy.study import (
    common_tags,
    data_folder,
    ended_as,
    finish,
    mean_curves,
    outcome_of,
    read_json,
    run_task,
    train_folder,
    tuned_file,
    under_way,
)
from lrstudy.tracking import Journal, Sender

# The clock's are no part of the result.
_NOT_IN_HISTORY = ("steps", "interventions", "seconds", "compute_seconds", "time")


def main() -> None:
    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    cell = make_cell(params, model, schedule)
    meta = read_meta(data_folder(cell.dataset))
    tuned = read_json(tuned_file(model, schedule), f"tune@{cell.name}", ("values", "source"))
    settings = cell.settings(tuned["values"])

    tasks = {
        seed: run_task(
            cell,
            params,
            settings,
            seed,
            meta,
            root,
            f"{cell.name} seed {seed}",
            keep_weights=True,
            journal=True,
        )
        for seed in params.train.seeds
    }
    key = fingerprint(settings | {"seeds": params.train.seeds}, meta["fingerprint"])
    tags = common_tags(cell, params, meta) | {"tuned": tuned["source"]}
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
        journals[seed].create(
            f"{cell.name} seed {seed}",
            tags | {"kind": "seed", "seed": str(seed)},
            settings | {"seed": seed},
            parent=parent.key,
        )
        for split in ("train", "validation"):
            journals[seed].dataset(split, meta)
        if said := begun_otherwise(journals[seed].folder):
            print(f"{task['label']}: {said}", flush=True)
    with Sender(root) as sender, under_way(parent, *journals.values()):
        for journal in (parent, *journals.values()):
            sender.follow(journal.folder)
        for folder in run_all(train_run, tasks.values(), *params.workers):
            journal = next(j for j in journals.values() if str(j.folder) == folder)
            outcome = outcome_of(folder)
            log_interventions(journal, outcome)
            finish(journal, outcome["status"])
        outcomes = {seed: outcome_of(task["folder"]) for seed, task in tasks.items()}
        if ended_as(parent) != "FINISHED":
            # What the UI shows of a cell while its seeds are folded away.
            parent.metrics(mean_curves(list(outcomes.values())))
        statuses = {outcome["status"] for outcome in outcomes.values()}
        finish(parent, "diverged" if "diverged" in statuses else "finished")

    output = train_folder(model, schedule)
    write_atomically(output / "history.csv", history_table(outcomes))
    for seed, task in tasks.items():
        (output / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        for name in ("last", "best"):
            shutil.copyfile(
                Path(task["folder"]) / f"{name}.safetensors", output / f"seed-{seed}" / f"{name}.safetensors"
            )
    write_json(
        output / "training.json",
        {
            "model": model,
            "schedule": schedule,
            "dataset": cell.dataset,
            "tuned": tuned["source"],
            "settings": settings,
            "threads": params.train.threads,
            "device": params.train.device,
            "cell": {"key": parent.key, "run_id": sender.run_ids.get(parent.key)},
            "seeds": {
                str(seed): {
                    "key": task["key"],
                    "run_id": sender.run_ids.get(task["key"]),
                    "status": outcomes[seed]["status"],
                    "best_epoch": outcomes[seed]["best_epoch"],
                    "num_parameters": outcomes[seed]["num_parameters"],
                    "interventions": [i for e in outcomes[seed]["epochs"] for i in e["interventions"]],
                    "compute_seconds": [epoch["compute_seconds"] for epoch in outcomes[seed]["epochs"]],
                }
                for seed, task in tasks.items()
            },
        },
    )


def log_interventions(journal: Journal, outcome: dict) -> None:
    """Give the tracker what the controller did and why, as a file; nothing if it did nothing."""
    interventions = [record for epoch in outcome["epochs"] for record in epoch["interventions"]]
    path = journal.folder / "interventions.json"
    if interventions and not path.exists():
        write_json(path, interventions)
        journal.artifact(path)


def history_table(outcomes: dict[int, dict]) -> str:
    """CSV: a row per seed and epoch, floats in full precision; nothing that a clock decides."""
    text = io.StringIO()
    names = [name for name in next(iter(outcomes.values()))["epochs"][0] if name not in _NOT_IN_HISTORY]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", *names])
    for seed, outcome in outcomes.items():
        for record in outcome["epochs"]:
            writer.writerow([seed, *(record[name] for name in names)])
    return text.getvalue()


if __name__ == "__main__":
    run_stage(main, warm="start")
