"""Give MLflow the report and each task's champion: python -m lrstudy.stages.publish.

One run of kind ``report`` per comparison, with the report as its artifact; per data set the model with the
lowest validation loss becomes a version of a registered model, with the alias ``champion``.
"""

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

from lrstudy.analysis.records import Comparison
from lrstudy.checked import read_bytes
from lrstudy.files import write_json
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.report.document import read_comparison
from lrstudy.study.journals import ended_as, finish, under_way
from lrstudy.study.outputs import Training
from lrstudy.study.workspace import REPORTS, data_folder, train_folder
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender

ATTACHED = {"report.html": "report", "comparison.json": "compare"}
"""What the report's run has in MLflow, and the stages that write it."""


class Champion(NamedTuple):
    """A run by model, schedule and seed, and its last validation loss."""

    model: str
    schedule: str
    seed: str
    loss: float

    def told(self) -> dict[str, str | float]:
        """As published.json has it."""
        told = self._asdict()
        return told | {"validation/loss": told.pop("loss")}


def main() -> None:
    params, root = load_params(), workspace_root()
    comparison = read_comparison(REPORTS / "comparison.json")
    attached = {name: read_bytes(REPORTS / name, stage) for name, stage in ATTACHED.items()}
    key = f"report-{hashlib.sha256(b''.join(attached.values())).hexdigest()}"
    # DVC removes what is in reports/ before it renders anew; MLflow may be told of it only then.
    folder = root / "checkpoints" / key[:23]
    folder.mkdir(parents=True, exist_ok=True)
    protocol = comparison.protocol
    labels = "; ".join(data.label for data in comparison.data.values())
    journal = Journal(folder, key)
    journal.create(
        f"report, {protocol.preset}",
        {"kind": "report", "preset": protocol.preset, "data": labels},
        protocol.model_dump(exclude_unset=True),
        description=f"The comparison of {sum(map(len, comparison.cells.values()))} cells on {labels}: "
        "`report.html` among the artifacts.",
    )
    chosen = champions(comparison)
    with Sender(root) as sender, under_way(journal):
        # Before the report's own journal, which has their models registered.
        registered = {
            dataset: run
            for dataset, best in chosen.items()
            if (run := champions_run(dataset, best, params, root)) is not None
        }
        for run in registered.values():
            sender.follow(run.folder)
        sender.follow(folder)
        if ended_as(journal) != "FINISHED":
            for name, content in attached.items():
                (folder / name).write_bytes(content)
                journal.artifact(folder / name)
        for dataset, run in registered.items():
            best, data = chosen[dataset], comparison.data[dataset]
            name = f"lrstudy-{dataset}" + ("-sample" if protocol.source == "sample" else "")
            journal.champion(
                name,
                run.key,
                f"{best.model} with the schedule {best.schedule}, seed {best.seed}: the lowest "
                f"validation loss ({best.loss:.4f}) of all runs on {data.label}. The "
                "comparison that it comes from: "
                "[report.html](#/experiments/{experiment_id}/runs/{run_id}/artifacts/report.html).",
                {"schedule": best.schedule, "data": data.label},
            )
        finish(journal, "finished")
    write_json(
        "artifacts/published.json",
        {
            "key": key,
            "run_id": sender.run_ids.get(key),
            "champions": {name: best.told() for name, best in chosen.items()},
        },
    )


def champions_run(dataset: str, best: Champion, params: Params, root: Path) -> Journal | None:
    """The journal of a champion's run, which has its model; None, and why, where its weights are not here."""
    cell, stage = f"{best.model}-{best.schedule}", f"train@{params.staged(best.model, best.schedule)}"
    trained = train_folder(best.model, best.schedule)
    training = Training.read(trained / "training.json", stage)
    run = training.seeds[best.seed]
    if not run.weights:
        print(
            f"publish: {dataset}: the champion is {cell} seed {best.seed}, whose weights are not here; "
            "it is not registered. `dvc pull` may bring them; else train it again: `python -m lrstudy.ledger "
            f"retrain {run.identity[:16]}`, then `dvc repro --force -s {stage}` and `dvc repro`.",
            file=sys.stderr,
        )
        return None
    journal = Journal(root / "checkpoints" / cell / run.key[:16], run.key)
    if not any(event["event"] == "model" for event in journal.events()):
        # It was measured elsewhere, and its weights came from there.
        from lrstudy.training.serving import save_trained

        save_trained(
            journal.folder / "model",
            training.settings["model"],
            data_folder(training.dataset),
            trained / f"seed-{best.seed}" / "last.safetensors",
            stage,
        )
        tags = {
            "model": best.model,
            "schedule": best.schedule,
            "dataset": dataset,
            "seed": best.seed,
        }
        journal.model(journal.folder / "model", tags)
    return journal


def champions(comparison: Comparison) -> dict[str, Champion]:
    """Per data set the run with the lowest last validation loss: test data choose no model.

    A data set whose runs all diverged has none.
    """
    best: dict[str, Champion] = {}
    for model, schedule, cell in comparison.each():
        for seed, loss in cell.metrics["validation/loss"].values.items():
            known = best.get(cell.dataset)
            if loss is not None and (known is None or loss < known.loss):
                best[cell.dataset] = Champion(model, schedule, seed, loss)
    return best


if __name__ == "__main__":
    run_stage(main, warm="start")
