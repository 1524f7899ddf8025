"""Time the updates of a model's rows in turn: python -m lrstudy.stages.timing MODEL.

Writes reports/timing/<model>.json. Rows are comparable where they were timed together, so one that is new has
all of the model's timed anew; a study of fewer rows times nothing, for the file has them.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from lrstudy.analysis.timing import time_rows, timed_cells
from lrstudy.data import read_meta
from lrstudy.entries.meaning import digest
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger
from lrstudy.process.command import run_stage
from lrstudy.process.parallel import run_all
from lrstudy.recipe.config import TimingParams, load_params, workspace_root
from lrstudy.recipe.identity import LOOP, code_behind, content_hash, training_code
from lrstudy.study.outputs import Timing
from lrstudy.study.tasks import DESCRIBED, whole_settings
from lrstudy.study.workspace import data_folder, git_revision, ledger_folder, timing_file

KINDS = ("schedules", "optimizers")
_SHARED = ("batch_size", "device", "precision", "threads", "compile")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.stages.timing", description=__doc__)
    parser.add_argument("model", help="a model of params.yaml")
    model = parser.parse_args().model
    params = load_params()
    cells = timed_cells(params, model)
    dataset = params.model[model].dataset
    meta = read_meta(data_folder(dataset))
    settings = {
        (kind, name): whole_settings(params, cell.settings(), seed=1)
        for kind, rows in cells.items()
        for name, cell in rows.items()
    }
    identities = identities_of(
        settings, meta["fingerprint"], params.timing, Ledger(ledger_folder(workspace_root()))
    )
    if timed_before(timing_file(model), identities):
        print(
            f"timing {model}: {timing_file(model)} has all {len(identities)} rows; nothing is timed",
            file=sys.stderr,
        )
        return
    task = {
        "label": f"timing {model}",
        "settings": settings,
        "data": str(data_folder(dataset).resolve()),
        "rounds": params.timing.rounds,
        "updates": params.timing.updates,
        "revision": git_revision(),
    }
    [found] = run_all(time_rows, [task], *params.workers)
    Timing.model_validate(
        {
            "model": model,
            "dataset": dataset,
            "data": {name: meta[name] for name in DESCRIBED},
            **{name: next(iter(settings.values()))[name] for name in _SHARED},
            "rounds": params.timing.rounds,
            "updates": found["updates"],
            "took": found["took"],
            "origin": found["origin"],
            **{
                kind: {
                    name: {
                        "optimizer": cell.optimizer.name,
                        "controller": cell.controller.name,
                        "moves": cell.moves(),
                        "diverged": found["diverged"][kind, name],
                        "identity": identities[kind, name],
                        "seconds": found["seconds"][kind, name],
                    }
                    for name, cell in rows.items()
                }
                for kind, rows in cells.items()
            },
        },
    ).write(timing_file(model))


def identities_of(
    settings: Mapping[tuple[str, str], dict], data: str, timing: TimingParams, ledger: Ledger
) -> dict[tuple[str, str], str]:
    """By row what decides its timing: the training's settings, code and data, and how it is timed."""
    by = {
        "data": data,
        "rounds": timing.rounds,
        "updates": timing.updates,
        "timed_by": digest(code_behind("lrstudy.stages.timing.main", without=LOOP)),
    }
    return {
        row: content_hash(by | {"settings": of, "code": ledger.canonical(training_code(of))})
        for row, of in settings.items()
    }


def timed_before(path: Path, identities: Mapping[tuple[str, str], str]) -> bool:
    """Whether the file has a timing of each of these rows."""
    if not path.exists():
        return False
    try:
        written = Timing.read(path, f"timing@{path.stem}")
    except StudyError:  # not what this stage writes: made again
        return False
    there = {(kind, name): row.identity for kind in KINDS for name, row in getattr(written, kind).items()}
    return all(there.get(row) == identity for row, identity in identities.items())


if __name__ == "__main__":
    run_stage(main, warm="start")
