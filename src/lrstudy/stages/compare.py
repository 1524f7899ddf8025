"""Compare all cells: python -m lrstudy.stages.compare.

Writes reports/comparison.json, gaps.json and curves.csv, and metrics.json.
"""

import csv
import hashlib
import io
import sys
from pathlib import Path

import numpy as np

from lrstudy.claims import claims, gaps
from lrstudy.comparison import HEADLINE, compare, curves
from lrstudy.config import Params, load_params, workspace_root
from lrstudy.errors import StudyError
from lrstudy.files import write_atomically, write_json
from lrstudy.ledger import Ledger
from lrstudy.stages import run_stage
from lrstudy.study import (
    evaluate_folder,
    ledger_folder,
    read_json,
    reference_file,
    timing_file,
    train_folder,
    tuned_file,
)
from lrstudy.timing import with_ratios

_COLUMNS = (
    "seed", "epoch", "train/loss", "train/accuracy", "validation/loss", "validation/loss_standard_error",
    "validation/accuracy", "validation/f1", "validation/f1_macro", "lr",
)  # fmt: skip


def main() -> None:
    params = load_params()
    cells: dict[str, dict[str, dict]] = {}
    data, missing = {}, []
    ledger = Ledger(ledger_folder(workspace_root()))
    for name, listed in params.cells.items():
        try:
            evaluated = read_evaluated(evaluate_folder(listed.model, listed.schedule) / "metrics.json", name)
            history = read_history(train_folder(listed.model, listed.schedule) / "history.csv", name)
            tuning = read_json(tuned_file(listed.model, listed.schedule), f"tune@{name}")
        except StudyError as error:
            print(f"missing: {error}", file=sys.stderr)
            missing.append(name)
            continue
        cells.setdefault(listed.model, {})[listed.schedule] = evaluated | {
            "history": history,
            "tuning": tuning,
            "right": results(evaluated, ledger),
        }
        data[listed.dataset] = evaluated["data"]
    if not cells:
        raise StudyError("compare: no cell has been evaluated; `dvc repro` runs them.")
    if params.compare.reference not in params.schedule:
        print(
            f"compare: the reference schedule '{params.compare.reference}' is not among the study's "
            f"({', '.join(params.schedule)}): no differences are computed",
            file=sys.stderr,
        )
    comparison = {
        "data": data,
        "references": references(data),
        "protocol": {
            "preset": params.preset,
            "source": params.data.source,
            "num_epochs": params.num_epochs,
            "seeds": params.train.seeds,
            "num_trials": params.tune.num_trials,
            "finalists": params.tune.finalists,
            "searches": params.tune.searches,
            "tune_seeds": params.tune.seeds,
            "confirm_seeds": params.tune.confirm_seeds,
            **params.compare.model_dump(),
            "planned_seeds": (params.compare.looks or [len(params.train.seeds)])[-1],
            "headline": {name: HEADLINE[name] for name in data},
        },
        "missing": missing,
        **compare(
            cells,
            params.compare,
            [(params.cells[name].model, params.cells[name].schedule) for name in missing],
        ),
    }
    rows = curves(cells)
    comparison["timing"] = timings(params, data)
    comparison |= {
        "gaps": gaps(comparison),
        "claims": claims(comparison, rows),
        "theory": theory(),
    }
    write_json("reports/comparison.json", comparison)
    write_json("reports/gaps.json", comparison["gaps"])
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically("reports/curves.csv", text.getvalue())
    # One number a cell, for the columns of `dvc exp show`.
    write_json(
        "metrics.json",
        {
            model: {
                schedule: cell["metrics"][HEADLINE[cell["dataset"]]]["mean"]
                for schedule, cell in schedules.items()
            }
            for model, schedules in comparison["cells"].items()
        },
    )


def timings(params: Params, data: dict[str, dict]) -> dict[str, dict]:
    """What an update costs, by model, as :func:`lrstudy.timing.with_ratios` has it; says which was not timed.

    Args:
        params: the study's.
        data: by name what the compared trainings say of their data.

    Raises:
        StudyError: a model was timed on other data than it was trained on, or by another version.
    """
    found = {}
    for model, settings in params.model.items():
        path, stage = timing_file(model), f"timing@{model}"
        if not path.exists():
            print(f"missing: {path}: `dvc repro {stage}` makes it.", file=sys.stderr)
            continue
        timed = read_json(path, stage, ("schedules", "optimizers", "data", "origin", "rounds", "updates"))
        trained_on = data.get(settings.dataset, timed["data"])
        if timed["data"]["fingerprint"] != trained_on["fingerprint"]:
            raise StudyError(
                f"{path}: timed on other data (fingerprint {timed['data']['fingerprint']:.8}) than the "
                f"trainings ({trained_on['fingerprint']:.8}); `dvc repro {stage}` makes it anew."
            )
        found[model] = with_ratios(timed, params.compare.reference, params.compare.confidence)
    return found


def references(data: dict[str, dict]) -> dict[str, dict]:
    """What the linear references reach, by data set, as :func:`lrstudy.references.measure_reference` has it.

    Args:
        data: by name what the compared trainings say of their data.

    Raises:
        StudyError: one is missing, or was measured on other data than the trainings.
    """
    found = {}
    for name, trained_on in data.items():
        path, stage = reference_file(name), f"references@{name}"
        reference = read_json(path, stage, ("title", "metrics", "seconds", "data"))
        if reference["data"]["fingerprint"] != trained_on["fingerprint"]:
            raise StudyError(
                f"{path}: measured on other data (fingerprint {reference['data']['fingerprint']:.8}) than "
                f"the trainings ({trained_on['fingerprint']:.8}); `dvc repro {stage}` makes it anew."
            )
        found[name] = reference
    return found


def theory() -> dict:
    """What the theory stages found (docs/theory.md).

    Returns:
        ``claims``, each with its ``experiment`` and as they wrote it; ``figures``: by experiment the names of
        the SVG files in artifacts/theory/<experiment>/; ``sha256``: by experiment that of its JSON file.
    """
    claimed: list[dict] = []
    figures: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    for name in ("late_decay", "level_sets"):
        path = Path("artifacts/theory") / f"{name}.json"
        found = read_json(path, name, keys=("claims", "models"))
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        claimed += [{"experiment": name, **claim} for claim in found["claims"]]
        parts = [found["toy"]] if "toy" in found else []
        figures[name] = [
            file
            for part in (*parts, *found["models"].values())
            for file in part["figures"]
            if file.endswith(".svg")
        ]
    return {"claims": claimed, "figures": figures, "sha256": hashes}


def read_evaluated(path: Path, cell: str) -> dict:
    """What ``evaluate`` wrote of a cell, with where each seed was trained."""
    found = read_json(path, f"evaluate@{cell}", ("data", "scores", "training"))
    if silent := [
        seed
        for seed, run in found["training"]["seeds"].items()
        if not {"identity", "device", "dtype", "origin", "final"} <= run.keys()
    ]:
        raise StudyError(
            f"{path}: does not say where seed {', '.join(silent)} was trained and what was measured in the "
            f"end: another version wrote it; `dvc repro evaluate@{cell}` makes it anew."
        )
    return found


def results(evaluated: dict, ledger: Ledger) -> dict[str, np.ndarray]:
    """By seed, which test examples the last weights got right, of the trainings whose records are here.

    bool (num_examples,), in the order of the split. A training that diverged has none.
    """
    found = {}
    for seed, run in evaluated["training"]["seeds"].items():
        record = ledger.find(run["identity"])
        if record is not None and record.test is not None and record.test.right is not None:
            found[seed] = record.test.is_right()
    return found


def read_history(path: Path, cell: str) -> list[dict[str, float]]:
    """The rows of a cell's history.csv as numbers."""
    try:
        with path.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        if not rows:
            raise ValueError("it has no rows")
        if missing := [name for name in _COLUMNS if name not in rows[0]]:
            raise ValueError(f"it has no {', '.join(missing)}")
        return rows
    except FileNotFoundError:
        raise StudyError(f"{path}: not found; `dvc repro train@{cell}` makes it.") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise StudyError(
            f"{path}: not a table of numbers ({error}); `dvc repro --force -s train@{cell}` makes it anew."
        ) from None


if __name__ == "__main__":
    run_stage(main, warm="join")
