"""An example of every file that one stage writes and another reads, as JSON has it."""

import functools

import known_study
from lrstudy.analysis.records import Comparison
from lrstudy.checked import Output
from lrstudy.data.records import DataMeta, Source
from lrstudy.study.outputs import Best, Evaluation, FoundRates, Reference, Theory, Timing, Training

HASH = "0f" * 32
ROWS = [
    {
        "seed": seed, "epoch": epoch, "train/loss": 0.5, "train/accuracy": 0.75, "train/f1": 0.7, "train/f1_macro": 0.7,
        "validation/loss": 0.1 + 0.2, "validation/loss_standard_error": 0.01, "validation/accuracy": 0.8,
        "validation/f1": 0.8, "validation/f1_macro": 0.8, "lr": 1e-05,
    }
    for seed in (1, 2) for epoch in (1, 2)
]  # fmt: skip
"""Of history.csv."""


@functools.cache
def contents() -> dict[type[Output], dict]:
    """An example of every JSON output by its record; who changes one changes a copy."""
    training = {
        "model": "lstm", "schedule": "step", "dataset": "imdb", "tuned": "tuned", "searches": 1,
        "settings": {"model": {"architecture": "lstm"}, "num_epochs": 4},
        "cell": {"key": f"cell-{HASH}", "run_id": None},
        "seeds": {"1": {
            "identity": HASH, "key": HASH, "search": 1, "values": {"base_lr": 0.1}, "status": "finished",
            "weights": True, "run_id": "abc", "final": {"train_evaluated/loss": 0.5},
        }},
    }  # fmt: skip
    best = {
        "model": "lstm", "schedule": "step", "source": "tuned", "values": {"base_lr": 0.1, "gamma": 0.5},
        "searches": [{"values": {"base_lr": 0.1, "gamma": 0.5}, "best_trial": 3}], "objective": 0.3,
    }  # fmt: skip
    comparison = known_study.written(known_study.comparison(known_study.cells()))
    theory = {
        "claims": known_study.THEORY[:1], "toy": {"figures": ["toy.svg"], "powers": {}}, "models": {}, "missing": [],
    }  # fmt: skip
    reference = known_study.REFERENCES["imdb"]
    scores = {"accuracy": 0.75, "f1": 0.8, "f1_macro": 11 / 15, "loss": 0.5, "confusion": [[1, 1], [0, 2]]}
    return {
        Best: best,
        Training: training,
        Evaluation: {
            "data": reference["data"],
            "training": training,
            "scores": {"1": dict.fromkeys(("last", "best", "ema", "tail_average"), scores)},
        },
        Timing: known_study.timing("lstm"),
        FoundRates: known_study.range_tests("lstm"),
        Reference: reference,
        Theory: theory,
        Comparison: comparison,
        DataMeta: {
            "dataset": "imdb", "kind": "text", "label": "IMDB", "official": True, "num_classes": 2,
            "num_examples": {"train": 70, "validation": 30, "test": 20}, "fingerprint": "1adb",
            "vocab_size": 30, "max_length": 24, "raw": {"train": HASH, "test": HASH},
        },
        Source: {
            "dataset": "imdb", "source": "hub", "official": True, "label": "IMDB", "encoding": "utf-8",
            "revision": None,
            "layout": {
                "kind": "text", "columns": {"input": "text", "label": "label"}, "class_names": ["neg", "pos"],
            },
            "files": {split: {"sha256": HASH, "bytes": 9, "rows": 20} for split in ("train", "test")},
        },
    }  # fmt: skip
