"""Compare all cells: python -m lrstudy.stages.compare.

Reads what the ledger has of them, as far as the study has come, and what the references and the theory stages
left in reports/. Writes reports/comparison.json and curves.csv, and metrics.json.
"""

import hashlib
import sys
from collections.abc import Mapping
from typing import NamedTuple

from lrstudy.analysis.cells import curves
from lrstudy.analysis.claims import claims
from lrstudy.analysis.comparison import compare
from lrstudy.analysis.gaps import gaps
from lrstudy.analysis.records import (
    ComparedTiming,
    Comparison,
    ExperimentsClaim,
    Protocol,
    Results,
    TheoryClaims,
)
from lrstudy.analysis.time_to_target import time_to_target
from lrstudy.analysis.timing import timed_cells, with_ratios
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.ledger.record import Data
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.study.collect import MeasuredCell, Plan, cell_of, collect, progress
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
    measured = of_plans(plans)
    if not measured.cells:
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
    rows = curves(measured.cells)
    comparison = compared(params, plans, measured, rows)
    comparison.write(REPORTS / "comparison.json")
    CURVES.write(REPORTS / "curves.csv", rows)
    # One number a cell, for the columns of `dvc exp show`.
    headlines: dict[str, dict[str, float | None]] = {}
    for model, schedule, cell in comparison.each():
        headlines.setdefault(model, {})[schedule] = cell.headline_values.mean
    write_json("metrics.json", headlines)


class Measured(NamedTuple):
    """The cells that have been measured, by model and schedule, their data, and the cells that have not."""

    cells: dict[str, dict[str, MeasuredCell]]
    data: dict[str, Data]
    missing: list[str]


def of_plans(plans: Mapping[str, Plan]) -> Measured:
    """What there is of the study's cells."""
    measured = Measured({}, {}, [])
    for name, plan in plans.items():
        cell = cell_of(plan)
        if cell is None:
            measured.missing.append(name)
        else:
            measured.cells.setdefault(cell.model, {})[cell.schedule] = cell
            measured.data[cell.dataset] = cell.data
    return measured


def compared(params: Params, plans: Mapping[str, Plan], measured: Measured, rows: list[dict]) -> Comparison:
    """All that is said of the study; ``rows`` are those of curves.csv."""
    cells, data, missing = measured
    statistics = compare(
        cells,
        params.compare,
        [(params.cells[name].model, params.cells[name].schedule) for name in missing],
        params.train.seeds,
    )
    results = Results(
        data=data,
        references=references(data),
        protocol=protocol(params, measured),
        progress={name: progress(plan, params) for name, plan in plans.items()},
        missing=missing,
        cells=statistics.cells,
        views=statistics.views,
        models=statistics.models,
        across_models=statistics.across_models,
        timing=timings(params, data),
        time_to_target=time_to_target(cells, statistics.cells, params.compare),
    )
    return Comparison(**results.told(), gaps=gaps(results), claims=claims(results, rows), theory=theory())


def protocol(params: Params, measured: Measured) -> Protocol:
    """By what rules the study was done and is compared."""
    unbalanced = {
        cell.dataset: counts
        for schedules in measured.cells.values()
        for cell in schedules.values()
        if (counts := test_classes(params, cell))
    }
    return Protocol(
        preset=params.preset,
        source=params.data.source,
        seeds=params.train.seeds,
        num_trials=params.tune.num_trials,
        finalists=params.tune.finalists,
        searches=params.tune.searches,
        tune_seeds=params.tune.seeds,
        confirm_seeds=params.tune.confirm_seeds,
        **params.compare.model_dump(),
        planned_seeds=(params.compare.looks or [len(params.train.seeds)])[-1],
        test_classes=unbalanced,
        headline={name: params.dataset[name].metric for name in measured.data},
    )


def test_classes(params: Params, cell: MeasuredCell) -> dict[str, int]:
    """The number of test examples by class, where classes differ in it; else nothing."""
    for run in cell.seeds.values():
        if confusion := run.scores["last"].confusion:
            counts = [sum(row) for row in confusion]
            # The sample has classes of its own.
            sample = params.data.source == "sample"
            names = map(str, range(len(counts))) if sample else params.dataset[cell.dataset].classes
            return dict(zip(names, counts, strict=True)) if len(set(counts)) > 1 else {}
    return {}


def timings(params: Params, data: Mapping[str, Data]) -> dict[str, ComparedTiming]:
    """What an update costs, by model, as :func:`lrstudy.analysis.timing.with_ratios` has it.

    One that was not timed, or on other data, is left out and said so.

    Args:
        params: the study's.
        data: by name what the compared trainings say of their data.
    """
    compared = {}
    for model, listed in params.timed.items():
        path, stage = timing_file(model), f"timing@{model}"
        if not path.exists():
            print(f"compare: {path}: not there; `dvc repro {stage}` makes it", file=sys.stderr)
            continue
        timed = Timing.read(path, stage)
        trained_on = data.get(listed.dataset, timed.data)
        if timed.data.fingerprint != trained_on.fingerprint:
            print(
                f"compare: {path}: left out, for it was timed on other data "
                f"({timed.data.fingerprint:.8}) than the trainings "
                f"({trained_on.fingerprint:.8}); `dvc repro {stage}` makes it anew",
                file=sys.stderr,
            )
            continue
        # The file may have more rows than this study.
        there = {"schedules": timed.schedules, "optimizers": timed.optimizers}
        rows = {
            kind: {name: there[kind][name] for name in cells if name in there[kind]}
            for kind, cells in timed_cells(params, model).items()
        }
        settings = params.compare
        compared[model] = with_ratios(timed.model_copy(update=rows), settings.reference, settings.confidence)
    return compared


def references(data: Mapping[str, Data]) -> dict[str, Reference]:
    """What the linear references reach, by data set: see :func:`lrstudy.data.references.measure_reference`.

    One that has not run, or was measured on other data, is left out and said so; the report says so, too.

    Args:
        data: by name what the compared trainings say of their data.
    """
    measured = {}
    for name, trained_on in data.items():
        path, stage = reference_file(name), f"references@{name}"
        if not path.exists():
            print(f"compare: {path}: not there; `dvc repro {stage}` makes it", file=sys.stderr)
            continue
        reference = Reference.read(path, stage)
        if reference.data.fingerprint == trained_on.fingerprint:
            measured[name] = reference
        else:
            print(
                f"compare: {path}: left out, for it was measured on other data "
                f"({reference.data.fingerprint:.8}) than the trainings "
                f"({trained_on.fingerprint:.8}); `dvc repro {stage}` makes it anew",
                file=sys.stderr,
            )
    return measured


def theory() -> TheoryClaims:
    """What the theory stages found (docs/theory.md): claims as they wrote them, and SVG figures."""
    claimed: list[ExperimentsClaim] = []
    figures: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    missing = []
    for name in THEORY:
        path = REPORTS / f"{name}.json"
        if not path.exists():
            print(f"compare: {path}: not there; `dvc repro {name}` makes it", file=sys.stderr)
            missing.append(name)
            continue
        written = Theory.read(path, name)
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        claimed += [ExperimentsClaim(experiment=name, **claim.told()) for claim in written.claims]
        parts = [written.toy] if written.toy is not None else []
        figures[name] = [
            file
            for part in (*parts, *written.models.values())
            for file in part.figures
            if file.endswith(".svg")
        ]
    return TheoryClaims(claims=claimed, figures=figures, sha256=hashes, missing=missing)


if __name__ == "__main__":
    run_stage(main, warm="join")
