"""Write down what code each stage depends on: python -m lrstudy.stages.code.

A stage depends on one file of artifacts/code, which has the meaning (:mod:`lrstudy.meaning`) of the code
behind it and, for cells, of the code that their trainings use: so DVC finds a cell stale when its own
schedule's formula changed, and not when a comment, or another schedule, did.
"""

import shutil
from pathlib import Path

import yaml

from lrstudy.cells import Cell, make_cell, num_epochs_of
from lrstudy.config import Params, ScheduleRow, load_params, workspace_root
from lrstudy.files import write_json
from lrstudy.identity import LOOP, Code, code_behind, content_hash, training_code
from lrstudy.ledger import Ledger
from lrstudy.meaning import digest
from lrstudy.stages import run_stage
from lrstudy.study import ledger_folder
from lrstudy.theory.paths import path_cell
from lrstudy.timing import timed_cells

FOLDER = Path("artifacts/code")


def main() -> None:
    params = load_params()
    wanted = code_files(params, Ledger(ledger_folder(workspace_root())))
    for file in FOLDER.rglob("*.json"):
        if str(file.relative_to(FOLDER)) not in wanted:
            file.unlink()
    for folder in FOLDER.glob("*/"):
        if not any(folder.iterdir()):
            shutil.rmtree(folder)
    for name, content in wanted.items():
        write_json(FOLDER / name, content)


def code_files(params: Params, ledger: Ledger) -> dict[str, Code]:
    """The files of artifacts/code by name, for every stage of dvc.yaml that runs a script of this package."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    cells = {name: make_cell(params, one.model, one.schedule) for name, one in params.cells.items()}
    of_cells = {"${cells}": cells, "${searches}": {name: cells[name] for name in params.searches}}
    files = {}
    for stage, described in stages.items():
        if stage == "code":
            continue
        own = {"stage": digest(code_behind(f"lrstudy.stages.{stage}.main", without=LOOP))}
        # The trainings' own code stands beside it, as far as the stage's cells use it.
        if (foreach := described.get("foreach")) in of_cells:
            for name, cell in of_cells[foreach].items():
                files[f"{stage}/{name}.json"] = own | ledger.canonical(training_code(cell.settings()))
        elif foreach == "${timed}":
            for model in params.timed:
                files[f"{stage}/{model}.json"] = own | {
                    f"{kind}.{row}": _trained_by(cell, ledger)
                    for kind, rows in timed_cells(params, model).items()
                    for row, cell in rows.items()
                }
        else:
            trained = theory_cells(params, stage)
            files[f"{stage}.json"] = own | {cell.name: _trained_by(cell, ledger) for cell in trained}
    return files


def _trained_by(cell: Cell, ledger: Ledger) -> str:
    """All the code that the cell's trainings use, as one hash."""
    return content_hash(ledger.canonical(training_code(cell.settings())))


def theory_cells(params: Params, stage: str) -> list[Cell]:
    """What a theory stage trains; nothing for the other stages."""
    if stage == "late_decay":
        asked, rows = params.theory.late_decay, {"static": ScheduleRow(), "late_decay": ScheduleRow()}
    elif stage == "level_sets":
        asked, rows = params.theory.level_sets, params.theory.level_sets.rows
    else:
        return []
    return [
        path_cell(params, model, name, row, num_epochs_of(params, model))
        for model in asked.models
        if model in params.model
        for name, row in rows.items()
    ]


if __name__ == "__main__":
    run_stage(main)
