"""Write down what code each stage depends on: python -m lrstudy.stages.code.

A stage depends on one file of artifacts/code, which has the meaning (:mod:`lrstudy.entries.meaning`) of the
code
behind it and, for cells, of the code that their trainings use: so DVC finds a cell stale when its own
schedule's formula changed, and not when a comment, or another schedule, did.
"""

import shutil
from pathlib import Path

import yaml

from lrstudy.analysis.timing import timed_cells
from lrstudy.entries.meaning import digest
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import Cell, make_cell, num_epochs_of
from lrstudy.recipe.config import (
    LateDecayParams,
    LevelSetsParams,
    Params,
    ScheduleRow,
    load_params,
    workspace_root,
)
from lrstudy.recipe.identity import LOOP, Code, code_behind, content_hash, training_code
from lrstudy.study.workspace import ledger_folder
from lrstudy.theory.paths import path_cell

FOLDER = Path("artifacts/code")
NETWORKS = "networks.json"  # those that were made once, so that they can be made


def main() -> None:
    params = load_params()
    wanted = code_files(params, Ledger(ledger_folder(workspace_root())))
    wanted[NETWORKS] = check_networks(params, FOLDER / NETWORKS)
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
    of_cells = {
        "${stages.cells}": (params.stages.cells, params.cells),
        "${stages.searches}": (params.stages.searches, params.searches),
    }
    files = {}
    for stage, described in stages.items():
        if stage in ("outside", "code"):
            continue
        own = {"stage": digest(code_behind(f"lrstudy.stages.{stage}.main", without=LOOP))}
        # The trainings' own code stands beside it, as far as the stage's cells use it.
        if (foreach := described.get("foreach")) in of_cells:
            staged, listed = of_cells[foreach]
            for name in staged:
                files[f"{stage}/{name}.json"] = own | (
                    ledger.canonical(training_code(cells[name].settings()))
                    if name in cells
                    else {one: _trained_by(cells[one], ledger) for one in listed if listed[one].model == name}
                )
        elif foreach == "${timed}":
            for model in params.timed:
                files[f"{stage}/{model}.json"] = own | {
                    f"{kind}.{row}": _trained_by(cell, ledger)
                    for kind, rows in timed_cells(params, model).items()
                    for row, cell in rows.items()
                }
        else:
            trained = list(cells.values()) if stage == "trainings" else theory_cells(params, stage)
            files[f"{stage}.json"] = own | {cell.name: _trained_by(cell, ledger) for cell in trained}
    return files


def check_networks(params: Params, known: Path) -> dict[str, str]:
    """Make each network of the study once, before any data is there; returns the hash of all that was made.

    On torch's meta device, without memory for weights; what cannot be made there is made on the CPU. Where
    ``known``, written before, has this hash, they were made: then torch is not even imported.

    Raises:
        StudyError: what the network itself says of its sizes, or that code of another package raises.
    """
    settings, code = {}, {}
    for name, schedule in {cell.model: cell.schedule for cell in params.cells.values()}.items():
        one = make_cell(params, name, schedule).settings()
        settings[name] = one["model"]
        code[name] = training_code(one)["network"]
    made = content_hash([settings, code])
    if not (known.is_file() and made in known.read_text("utf-8", errors="replace")):
        for name, one in settings.items():
            _make(name, one)
    return {"made": made}


def _make(name: str, settings: dict) -> None:
    import torch

    from lrstudy.recipe.models import make_model

    data = {
        "num_classes": 10, "vocab_size": 1000, "max_length": 100, "image_size": [32, 32], "in_channels": 3,
    }  # fmt: skip  # stands in for any
    try:
        try:
            with torch.device("meta"):
                make_model(settings, data)
        except Exception:  # the CPU's word counts
            make_model(settings, data)
    except StudyError as error:
        raise StudyError(f"params.yaml: model.{name}: {error}") from None


def _trained_by(cell: Cell, ledger: Ledger) -> str:
    """All the code that the cell's trainings use, as one hash."""
    return content_hash(ledger.canonical(training_code(cell.settings())))


def theory_cells(params: Params, stage: str) -> list[Cell]:
    """What a theory stage trains; nothing for the other stages."""
    asked: LateDecayParams | LevelSetsParams
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
