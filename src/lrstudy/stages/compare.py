"""Compare all cells: python -m lrstudy.stages.compare.

Reads what the ledger has of them, as far as the study has come, and what the references and the theory stages
left in reports/. Writes reports/comparison.json and curves.csv, and metrics.json.
"""

import hashlib
import sys
from typing import Any

from lrstudy.analysis.claims import claims
from lrstudy.analysis.comparison import compare, curves
from lrstudy.analysis.gaps import gaps
from lrstudy.analysis.records import Comparison
from lrstudy.analysis.time_to_target import time_to_target
from lrstudy.analysis.timing import timed_cells, with_ratios
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.study.collect import cell_of, collect, progress
from lrstudy.study.outputs import CURVES, Reference, Theory, Timing
from lrstudy.study.workspace import REPORTS, ledger_folder, reference_file, timing_file

THEORY = ("late_decay", "level_sets")
"""The experiments of the theory, each a stage that leaves reports/<name>.json."""


def main() -> None:
    params, root = load_params(), workspace_root()
    ledger = Ledger(ledger_folder(root))
    plans, notes = collect(params, list(ledger.records()), root)
    for note in notes:
        print(f"compare: {note}", file=sys.stderr)
    cells: dict[str, dict[str, dict]] = {}
    data, unbalanced, missing = {}, {}, []
    for name, found in plans.items():
        cell = cell_of(found)
        if cell is None:
            missing.append(name)
            continue
        cells.setdefault(cell["model"], {})[cell["schedule"]] = cell
        data[found.cell.dataset] = cell["data"]
        if counts := test_classes(params, cell):
            unbalanced[found.cell.dataset] = counts
    if not cells:
        raise StudyError(
            f"{ledger.folder}: has none of the trainings that params.yaml asks for, measured on test data; "
            "`dvc repro` does them, `python -m lrstudy.why` says what each cell lacks."
        )
    if params.compare.reference not in params.schedule:
        print(
            f"compare: the reference schedule '{params.compare.reference}' is not among the study's "
            f"({', '.join(params.schedule)}): no differences are computed",
            file=sys.stderr,
        )
    comparison: dict[str, Any] = {
        "data": data,
        "references": references(data),
        "protocol": {
            "preset": params.preset,
            "source": params.data.source,
            "seeds": params.train.seeds,
            "num_trials": params.tune.num_trials,
            "finalists": params.tune.finalists,
            "searches": params.tune.searches,
            "tune_seeds": params.tune.seeds,
            "confirm_seeds": params.tune.confirm_seeds,
            **params.compare.model_dump(),
            "planned_seeds": (params.compare.looks or [len(params.train.seeds)])[-1],
            "test_classes": unbalanced,
            "headline": {name: params.dataset[name].metric for name in data},
        },
        "progress": {name: progress(found, params) for name, found in plans.items()},
        "missing": missing,
        **compare(
            cells,
            params.compare,
            [(params.cells[name].model, params.cells[name].schedule) for name in missing],
            params.train.seeds,
        ),
    }
    rows = curves(cells)
    comparison["timing"] = timings(params, data)
    comparison |= {
        "time_to_target": time_to_target(cells, comparison["cells"], params.compare),
        "gaps": gaps(comparison),
        "claims": claims(comparison, rows),
        "theory": theory(),
    }
    Comparison.write_values(REPORTS / "comparison.json", comparison)
    CURVES.write(REPORTS / "curves.csv", rows)
    # One number a cell, for the columns of `dvc exp show`.
    write_json(
        "metrics.json",
        {
            model: {
                schedule: cell["metrics"][cell["headline"]]["mean"] for schedule, cell in schedules.items()
            }
            for model, schedules in comparison["cells"].items()
        },
    )


def test_classes(params: Params, cell: dict) -> dict[str, int]:
    """The number of test examples by class, where classes differ in it; else nothing."""
    spec = params.dataset[cell["training"]["dataset"]]
    for scores in cell["scores"].values():
        if confusion := scores["last"]["confusion"]:
            counts = [sum(row) for row in confusion]
            # The sample has classes of its own.
            names = spec.classes if params.data.source != "sample" else map(str, range(len(counts)))
            return dict(zip(names, counts, strict=True)) if len(set(counts)) > 1 else {}
    return {}


def timings(params: Params, data: dict[str, dict]) -> dict[str, dict]:
    """What an update costs, by model, as :func:`lrstudy.analysis.timing.with_ratios` has it.

    One that was not timed, or on other data, is left out and said so.

    Args:
        params: the study's.
        data: by name what the compared trainings say of their data.
    """
    found = {}
    for model, listed in params.timed.items():
        path, stage = timing_file(model), f"timing@{model}"
        if not path.exists():
            print(f"compare: {path}: not there; `dvc repro {stage}` makes it", file=sys.stderr)
            continue
        timed = Timing.read(path, stage).model_dump(exclude_unset=True)
        trained_on = data.get(listed.dataset, timed["data"])
        if timed["data"]["fingerprint"] != trained_on["fingerprint"]:
            print(
                f"compare: {path}: left out, for it was timed on other data "
                f"({timed['data']['fingerprint']:.8}) than the trainings "
                f"({trained_on['fingerprint']:.8}); `dvc repro {stage}` makes it anew",
                file=sys.stderr,
            )
            continue
        # The file may have more rows than this study.
        timed |= {
            kind: {name: timed[kind][name] for name in rows if name in timed[kind]}
            for kind, rows in timed_cells(params, model).items()
        }
        found[model] = with_ratios(timed, params.compare.reference, params.compare.confidence)
    return found


def references(data: dict[str, dict]) -> dict[str, dict]:
    """What the linear references reach, by data set: see :func:`lrstudy.data.references.measure_reference`.

    One that has not run, or was measured on other data, is left out and said so; the report says so, too.

    Args:
        data: by name what the compared trainings say of their data.
    """
    found = {}
    for name, trained_on in data.items():
        path, stage = reference_file(name), f"references@{name}"
        if not path.exists():
            print(f"compare: {path}: not there; `dvc repro {stage}` makes it", file=sys.stderr)
            continue
        reference = Reference.read(path, stage).model_dump(exclude_unset=True)
        if reference["data"]["fingerprint"] == trained_on["fingerprint"]:
            found[name] = reference
        else:
            print(
                f"compare: {path}: left out, for it was measured on other data "
                f"({reference['data']['fingerprint']:.8}) than the trainings "
                f"({trained_on['fingerprint']:.8}); `dvc repro {stage}` makes it anew",
                file=sys.stderr,
            )
    return found


def theory() -> dict:
    """What the theory stages found (docs/theory.md).

    Returns:
        ``claims``, each with its ``experiment`` and as they wrote it; ``figures``: by experiment the names of
        its SVG files; ``sha256``: by experiment that of its JSON file; ``missing``: experiments that have not
        run.
    """
    claimed: list[dict] = []
    figures: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    missing = []
    for name in THEORY:
        path = REPORTS / f"{name}.json"
        if not path.exists():
            print(f"compare: {path}: not there; `dvc repro {name}` makes it", file=sys.stderr)
            missing.append(name)
            continue
        found = Theory.read(path, name)
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        claimed += [{"experiment": name, **claim} for claim in found.model_dump(exclude_unset=True)["claims"]]
        parts = [found.toy] if found.toy is not None else []
        figures[name] = [
            file
            for part in (*parts, *found.models.values())
            for file in part.figures
            if file.endswith(".svg")
        ]
    return {"claims": claimed, "figures": figures, "sha256": hashes, "missing": missing}


if __name__ == "__main__":
    run_stage(main, warm="join")
