"""One short script per stage of dvc.yaml: load, call, write."""

import argparse
import sys

from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import Params


def cells_asked_for(params: Params) -> list[Cell]:
    """The cells of the stage's command line, MODEL [SCHEDULE]: one, or all of the model's.

    Raises:
        StudyError: params.yaml has no such model or schedule.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {sys.argv[0]}")
    parser.add_argument("model", help="a model of params.yaml")
    parser.add_argument("schedule", nargs="?", help="a schedule row of params.yaml; none: all of the model's")
    arguments = parser.parse_args()
    rows = [one.schedule for one in params.cells.values() if one.model == arguments.model]
    chosen = [arguments.schedule] if arguments.schedule or not rows else rows
    return [make_cell(params, arguments.model, schedule) for schedule in chosen]
