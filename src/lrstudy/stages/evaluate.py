"""Measure trained cells on the test split: python -m lrstudy.stages.evaluate MODEL [SCHEDULE].

What it finds goes into each training's record in the ledger, example by example; what is there already is
taken from it, and needs no weights.
"""

import sys
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger, Record
from lrstudy.process.command import run_stage
from lrstudy.process.parallel import run_all
from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.stages import cells_asked_for
from lrstudy.study.collect import scores_of
from lrstudy.study.measuring import measure_run, measuring_task
from lrstudy.study.outputs import Evaluation, SeedRun, Training
from lrstudy.study.tasks import DESCRIBED
from lrstudy.study.tracked import tell_test_metrics
from lrstudy.study.workspace import data_folder, evaluate_folder, ledger_folder, train_folder
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender


def main() -> None:
    params, root = load_params(), workspace_root()
    for cell in cells_asked_for(params):
        evaluate(cell, params, root)


def evaluate(asked: Cell, params: Params, root: Path) -> None:
    """Measure one cell, and write the stage's output for it."""
    model, schedule = asked.model_name, asked.schedule_name
    stage = f"train@{params.staged(model, schedule)}"
    trained, name = train_folder(model, schedule), asked.name
    training = Training.read(trained / "training.json", stage)
    folder, ledger = data_folder(training.dataset), Ledger(ledger_folder(root))
    meta = read_meta(folder)
    cell, seeds = _journals(training, root)
    tasks = []
    for seed, run in training.seeds.items():
        if evaluated(ledger, seed, run) is not None:
            print(f"{name} seed {seed}: test results are in the ledger", file=sys.stderr)
        else:
            tasks.append(_task(ledger, training, seed, folder, stage))
    with Sender(root) as sender:
        for journal in (cell, *seeds.values()):
            sender.follow(journal.folder)
        for _ in run_all(measure_run, tasks, *params.workers):
            pass
        records = {}
        for seed, run in training.seeds.items():
            record = evaluated(ledger, seed, run)
            if record is None:
                raise RuntimeError(f"{name} seed {seed}: measured, and not in the ledger")
            records[seed] = record
        tell_test_metrics(cell, seeds, records, meta)
    Evaluation.model_validate(
        {
            "data": {key: meta[key] for key in DESCRIBED},
            "training": training,
            "scores": {seed: scores_of(record) for seed, record in records.items()},
        }
    ).write(evaluate_folder(model, schedule) / "metrics.json")


def _task(ledger: Ledger, training: Training, seed: str, data: Path, stage: str) -> dict:
    """What measures a seed that is not measured yet; its weights are in the train stage's output."""
    name, run = f"{training.model}-{training.schedule}", training.seeds[seed]
    if not run.weights:
        without = [
            s for s, one in training.seeds.items() if evaluated(ledger, s, one) is None and not one.weights
        ]
        identities = " ".join(training.seeds[s].identity[:16] for s in without)
        raise StudyError(
            f"{name}: trained and not measured on test data yet, and without weights here: seed "
            f"{', '.join(without)}. `dvc pull` may bring the weights; else train again: "
            f"`python -m lrstudy.ledger retrain {identities}`, then `dvc repro --force -s {stage}` and "
            "`dvc repro`."
        )
    weights = train_folder(training.model, training.schedule) / f"seed-{seed}"
    task = measuring_task(
        {
            "label": f"{name} seed {seed}",
            "settings": training.settings | {"seed": int(seed)},
            "ledger": str(ledger.folder),
            "identities": [run.identity],
        },
        data,
        stage,
        [weights],
    )
    if task is None:
        raise StudyError(
            f"{weights}: not the weights of the training {run.identity[:16]}... in the ledger; run the "
            "train stage again with `dvc repro --force -s`: it brings them."
        )
    return task


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


def _journals(training: Training, root: Path) -> tuple[Journal, dict[str, Journal]]:
    """The cell's journal, and those of its seeds."""
    name = f"{training.model}-{training.schedule}"
    base = root / "checkpoints" / name
    key = training.cell.key
    cell = Journal(base / f"cell-{key.removeprefix('cell-')[:16]}", key)
    cell.create(name, {"kind": "cell"})
    seeds = {}
    for seed, run in training.seeds.items():
        seeds[seed] = Journal(base / run.key[:16], run.key)
        # Where the journal is gone (another machine, a cleaned folder), its run is found again by its key.
        seeds[seed].create(f"{name} seed {seed}", {"kind": "seed", "seed": seed}, parent=key)
    return cell, seeds


if __name__ == "__main__":
    run_stage(main, warm="start")
