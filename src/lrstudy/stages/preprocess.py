"""Stage preprocess: split one dataset and turn it into the tensors of data/processed/<dataset>/."""

import argparse
from pathlib import Path

from lrstudy.data.preprocessing import preprocess
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import load_params


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.stages.preprocess", description=__doc__)
    parser.add_argument("dataset")
    dataset, params = parser.parse_args().dataset, load_params()
    params.dataset_named(dataset)
    data = params.data
    meta = preprocess(
        Path("data/raw") / dataset,
        Path("data/processed") / dataset,
        validation_fraction=data.validation_fraction,
        split_seed=data.split_seed,
        limit=data.limit,
        vocab_size=data.vocab_size,
        max_length=data.max_length,
    )
    sizes = ", ".join(f"{count:,} {split}" for split, count in meta["num_examples"].items())
    print(f"{meta['label']}: {sizes}, fingerprint {meta['fingerprint'][:12]}")


if __name__ == "__main__":
    run_stage(main, warm="ahead")
