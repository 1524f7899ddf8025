"""Measure a trained cell on the test split: python -m lrstudy.stages.evaluate MODEL SCHEDULE.

The only stage that opens test data. What it finds goes into each training's record in the ledger, example by
example; what is there already is taken from it, and needs no weights.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lrstudy.checked import read_tensors, refused
from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger, Record
from lrstudy.ledger.record import SCORES, TEST_PREFIX, WEIGHTS, Test, test_of
from lrstudy.process.command import run_stage
from lrstudy.process.parallel import run_all
from lrstudy.recipe.config import load_params, workspace_root
from lrstudy.stages import cell_arguments
from lrstudy.study.collect import scores_of
from lrstudy.study.journals import log_once
from lrstudy.study.outputs import Evaluation, SeedRun, Training
from lrstudy.study.runs import find_weights
from lrstudy.study.tasks import DESCRIBED
from lrstudy.study.workspace import data_folder, evaluate_folder, ledger_folder, train_folder
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender
from lrstudy.training.evaluation import test_weights


def main() -> None:
    import numpy as np

    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    trained = train_folder(model, schedule)
    training = Training.read(trained / "training.json", f"train@{model}-{schedule}")
    folder = data_folder(training.dataset)
    meta = read_meta(folder)
    cell, *journals = _journals(training, root)
    ledger = Ledger(ledger_folder(root))
    journal_of = dict(zip(training.seeds, journals, strict=True))
    records = {seed: evaluated(ledger, seed, run) for seed, run in training.seeds.items()}
    for seed, record in records.items():
        if record is not None:
            print(f"{model}-{schedule} seed {seed}: test results are in the ledger", file=sys.stderr)
    tasks: list[dict[str, Any]] = [
        {
            "seed": seed,
            "folder": str(trained / f"seed-{seed}"),
            "made_by": f"train@{model}-{schedule}",
            "data": str(folder),
            "settings": training.settings | {"seed": int(seed)},
            "weights": WEIGHTS if run.status == "finished" else ("last", "best"),
            # A run that diverged is a result; its weights are no model that anyone would load, and have no
            # averages.
            "model": str(journal_of[seed].folder / "model") if run.status == "finished" else None,
        }
        for seed, run in training.seeds.items()
        if records[seed] is None
    ]
    _need_weights(f"{model}-{schedule}", training, [task["seed"] for task in tasks])
    measured = {seed: record for seed, record in records.items() if record is not None}
    with Sender(root) as sender:
        for journal in (cell, *journals):
            sender.follow(journal.folder)
        for seed, test in run_all(evaluate_seed, tasks, *params.workers):
            record = trained_with(ledger, training.seeds[seed], trained / f"seed-{seed}")
            measured[seed] = record.with_test(test)
            ledger.add(measured[seed])
        scores = {seed: scores_of(measured[seed]) for seed in records}
        report_to_tracker(cell, journals, scores, np)
        tags = {"model": model, "schedule": schedule, "dataset": meta["dataset"], "data": meta["label"]}
        models = {task["seed"]: task["model"] for task in tasks}
        for seed, journal in journal_of.items():
            journal.dataset("test", meta)
            if models.get(seed):
                journal.model(models[seed], tags | {"seed": seed})
    found = {"data": {key: meta[key] for key in DESCRIBED}, "training": training, "scores": scores}
    Evaluation.model_validate(found).write(evaluate_folder(model, schedule) / "metrics.json")


def evaluated(ledger: Ledger, seed: str, run: SeedRun) -> Record | None:
    """The seed's record if the ledger has it with what test data said, else None.

    Raises:
        StudyError: the training itself is not in the ledger any more.
    """
    found = ledger.find(run.identity)
    if found is None:
        raise StudyError(
            f"{ledger.folder}: has no record of the training {run.identity[:16]}... (seed {seed}), which "
            "the train stage has left there; restore it, or run that stage again with `dvc repro --force -s`."
        )
    return found if found.test is not None else None


def trained_with(ledger: Ledger, run: SeedRun, folder: Path) -> Record:
    """Of the training's records the one whose weights are those in ``folder``."""
    found = find_weights({"ledger": str(ledger.folder), "identities": [run.identity]}, folder)
    if found is None:
        raise StudyError(
            f"{folder}: not the weights of the training {run.identity[:16]}... in the ledger; run the "
            "train stage again with `dvc repro --force -s`: it brings them."
        )
    return found[1]


def _need_weights(cell: str, training: Training, seeds: list[str]) -> None:
    """Say which trainings would have to be done again for their weights, and how; none is done unasked."""
    without = [seed for seed in seeds if not training.seeds[seed].weights]
    if without:
        identities = " ".join(training.seeds[seed].identity[:16] for seed in without)
        raise StudyError(
            f"{cell}: trained and not measured on test data yet, and without weights here: seed "
            f"{', '.join(without)}. `dvc pull` may bring the weights; else train again: "
            f"`python -m lrstudy.ledger retrain {identities}`, then `dvc repro --force -s train@{cell}` and "
            "`dvc repro`."
        )


def evaluate_seed(task: dict) -> tuple[str, Test]:
    """The seed, and what test data say of all its weights; the last become a model for others."""
    from lrstudy.data import read_split
    from lrstudy.training.serving import make_classifier, save_model, some_examples

    settings = task["settings"]
    meta = read_meta(task["data"])
    arrays = read_split(task["data"], "test")
    found: dict[str, dict] = {}
    files = {weights: Path(task["folder"]) / f"{weights}.safetensors" for weights in task["weights"]}
    for weights in task["weights"]:
        values = read_tensors(files[weights], task["made_by"], "torch")
        if weights == "best" and files["best"].read_bytes() == files["last"].read_bytes():
            found["best"] = found["last"]  # the last epoch was the best one
            continue
        try:
            found[weights] = test_weights(settings, meta, arrays, values)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            what = f"the weights of another model ({reason:.200})"
            raise refused(files[weights], task["made_by"], what) from None
        if weights == "last" and task["model"]:
            save_model(
                Path(task["model"]),
                make_classifier(settings["model"], meta, values),
                some_examples(arrays, meta),
                meta["num_classes"],
            )
    return task["seed"], test_of(found, len(arrays["labels"]))


def report_to_tracker(cell: Journal, seeds: list[Journal], scores: dict, np: ModuleType) -> None:
    """Add the test metrics to each seed's run, and their means to the cell's."""
    sums: dict[str, list[float]] = {}
    for journal, found in zip(seeds, scores.values(), strict=True):
        values = {}
        for weights, prefix in TEST_PREFIX.items():
            for name in SCORES:
                if found[weights][name] is not None:
                    values[f"{prefix}/{name}"] = [(0, found[weights][name])]
                    sums.setdefault(f"{prefix}/{name}", []).append(found[weights][name])
        log_once(journal, values)
    log_once(cell, {name: [(0, float(np.mean(values)))] for name, values in sums.items()})


def _journals(training: Training, root: Path) -> list[Journal]:
    name = f"{training.model}-{training.schedule}"
    base = root / "checkpoints" / name
    cell_key = training.cell.key
    journals = [Journal(base / f"cell-{cell_key.removeprefix('cell-')[:16]}", cell_key)]
    for seed, run in training.seeds.items():
        journals.append(Journal(base / run.key[:16], run.key))
        # Where the journal is gone (another machine, a cleaned folder), its run is found again by its key.
        journals[-1].create(f"{name} seed {seed}", {"kind": "seed", "seed": seed}, parent=cell_key)
    journals[0].create(name, {"kind": "cell"})
    return journals


if __name__ == "__main__":
    run_stage(main, warm="start")
