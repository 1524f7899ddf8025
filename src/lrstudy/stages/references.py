"""Train a data set's linear reference and test it: python -m lrstudy.stages.references DATASET.

Writes reports/references/<dataset>.json. Trains on the train split alone, and opens test data to measure.
"""

import argparse
from pathlib import Path

from lrstudy.data import read_meta
from lrstudy.data.preprocessing import read_examples
from lrstudy.data.references import measure_reference
from lrstudy.ledger.machine import processor, versions
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import load_params
from lrstudy.study.outputs import Reference
from lrstudy.study.tasks import DESCRIBED
from lrstudy.study.workspace import data_folder, reference_file


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.stages.references", description=__doc__)
    parser.add_argument("dataset")
    dataset, params = parser.parse_args().dataset, load_params()
    spec = params.dataset_named(dataset)
    raw, folder = Path("data/raw") / dataset, data_folder(dataset)
    meta = read_meta(folder)
    found = measure_reference(
        meta["kind"],
        read_examples(raw, folder, "train"),
        read_examples(raw, folder, "test"),
        spec.headline,
    )
    found |= {
        "data": {name: meta[name] for name in DESCRIBED},
        "processor": processor(),
        "versions": versions(),
    }
    Reference.write_values(reference_file(dataset), found)
    scores = ", ".join(
        f"{name.removeprefix('test/')} {100 * value:.2f}" for name, value in found["metrics"].items()
    )
    print(f"{meta['label']}: {found['title']}: {scores}; {found['seconds']:.1f} s of a processor")


if __name__ == "__main__":
    run_stage(main, warm="start")
