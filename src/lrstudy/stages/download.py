"""Stage download: bring one dataset to data/raw/<dataset>/, checked.

Where from is params.yaml's data.source; LRSTUDY_DATA_MIRROR names a folder to use in the hub's place.
"""

import argparse
import os
from pathlib import Path

from lrstudy.data.sources import download
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import load_params


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.stages.download", description=__doc__)
    parser.add_argument("dataset")
    dataset, params = parser.parse_args().dataset, load_params()
    spec = params.dataset_named(dataset)
    mirror = os.environ.get("LRSTUDY_DATA_MIRROR")
    record = download(
        dataset,
        spec,
        Path("data/raw") / dataset,
        source=params.data.source,
        mirror=Path(mirror).expanduser() if mirror else None,
        # outside the stage's outputs, and in the real workspace when DVC runs the stage in a copy of it
        partial=Path(os.environ.get("DVC_ROOT", ".")) / ".downloads",
    )
    official = "official" if record["official"] else "not official"
    print(f"{record['label']}: {official}, from {record['source']}, {record['encoding']}")


if __name__ == "__main__":
    run_stage(main, warm="ahead")
