"""Time the updates of a model's rows in turn: python -m lrstudy.stages.timing MODEL.

Writes reports/timing/<model>.json.
"""

import argparse

from lrstudy.config import load_params
from lrstudy.data import read_meta
from lrstudy.files import write_json
from lrstudy.parallel import run_all
from lrstudy.stages import run_stage
from lrstudy.study import DESCRIBED, data_folder, git_revision, timing_file, whole_settings
from lrstudy.timing import time_rows, timed_cells

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
    task = {
        "label": f"timing {model}",
        "settings": settings,
        "data": str(data_folder(dataset).resolve()),
        "rounds": params.timing.rounds,
        "updates": params.timing.updates,
        "revision": git_revision(),
    }
    [found] = run_all(time_rows, [task], *params.workers)
    write_json(
        timing_file(model),
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
                        "seconds": found["seconds"][kind, name],
                    }
                    for name, cell in rows.items()
                }
                for kind, rows in cells.items()
            },
        },
    )


if __name__ == "__main__":
    run_stage(main, warm="start")
