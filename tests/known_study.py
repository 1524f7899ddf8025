"""A study small enough to be worked by hand: 2 models x 3 schedules x 3 seeds of 2 epochs, one run diverged."""

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from lrstudy.analysis.cells import curves
from lrstudy.analysis.claims import claims
from lrstudy.analysis.comparison import compare
from lrstudy.analysis.gaps import gaps
from lrstudy.analysis.records import Comparison, Results, TheoryClaims
from lrstudy.analysis.time_to_target import time_to_target
from lrstudy.analysis.timing import with_ratios
from lrstudy.checked import Record
from lrstudy.ledger.record import Data, Origin, Scores
from lrstudy.recipe.config import CompareParams
from lrstudy.study.collect import MeasuredCell, MeasuredSeed
from lrstudy.study.outputs import Timing
from lrstudy.training.evaluation import NO_SCORES

SETTINGS = CompareParams(
    reference="static", looks=[], targets={}, confidence=0.95, num_resamples=100, across_dtypes=False
)

ACCURACY = {
    ("resnet", "static"): [0.70, 0.72, 0.74],
    ("resnet", "exponential"): [0.73, 0.73, 0.79],  # +0.03, +0.01, +0.05
    ("resnet", "cosine"): [0.75, None, 0.80],  # +0.05, diverged, +0.06
    ("lstm", "static"): [0.80, 0.82, 0.81],
    ("lstm", "exponential"): [0.80, 0.81, 0.83],  # 0, -0.01, +0.02
    ("lstm", "cosine"): [0.85, 0.86, 0.87],  # +0.05, +0.04, +0.06
}
"""Accuracy after the last epoch; macro F1 is 0.01 lower, F1 of class 1 0.03.

Test accuracy is 0.02 higher with the best epoch's weights, 0.03 with the exponential average and 0.04 with that of
the tail, and 0.15 higher on the training examples that are evaluated. Validation accuracy and F1 end at the same values, and are EARLIER lower after the first epoch.
"""

EARLIER = {"static": 0.1, "exponential": 0.1, "cosine": 0.03}

ORIGIN = {
    "machine": "e4bbde5c", "processor": "AMD EPYC (avx512)", "cores": 2, "system": "Linux x86_64",
    "accelerator": None, "versions": {"python": "3.11.7", "torch": "2.14.1", "lrstudy": "0.1.0"},
    "revision": "811a50eb8abd7fe0fb61e16b45407306fbde558e", "ended": 1_700_000_000.0,
}  # fmt: skip
"""Where every training took place, if :func:`trained_elsewhere` does not say otherwise: 2023-11-14, UTC."""

HEADLINE = {"cifar10": "test/accuracy", "imdb": "test/f1_macro"}

DATA = {
    "cifar10": {
        "dataset": "cifar10", "label": "CIFAR-10", "official": True, "fingerprint": "c1f4",
        "num_examples": {"train": 45_000, "validation": 5_000, "test": 10_000},
    },
    "imdb": {
        "dataset": "imdb", "label": "IMDB", "official": False, "fingerprint": "1adb",
        "num_examples": {"train": 22_500, "validation": 2_500, "test": 25_000},
    },
}  # fmt: skip

REFERENCES = {
    "cifar10": {
        "title": "pixels, logistic regression", "settings": {"C": 0.001, "max_iter": 1000}, "num_features": 3072,
        "iterations": 200, "converged": True, "metrics": {"test/accuracy": 0.4012, "test/f1_macro": 0.3987},
        "seconds": 61.2, "data": DATA["cifar10"], "processor": "AMD EPYC (avx512)", "versions": {},
    },
    "imdb": {
        "title": "TF-IDF, logistic regression", "settings": {"C": 10.0, "max_iter": 1000}, "num_features": 400_000,
        "iterations": 16, "converged": True, "metrics": {"test/accuracy": 0.9034, "test/f1_macro": 0.9033, "test/f1": 0.9041},
        "seconds": 31.7, "data": DATA["imdb"], "processor": "AMD EPYC (avx512)", "versions": {},
    },
}  # fmt: skip
"""What the linear references reach, as their stage writes it."""


def timing(model: str) -> dict:
    """What the timing stage wrote: 8 pairs of rounds, in which exponential costs 1% and cosine 10% more than static.

    Of a pair the first round is 21% slower than the second.
    """

    def row(ratio: float, **described) -> dict:
        seconds = [0.1 * ratio * (1 + pair / 100) * off for pair in range(8) for off in (1.1, 1 / 1.1)]
        return (
            {"optimizer": "sgd", "controller": "none", "moves": False, "diverged": 0}
            | described
            | {"seconds": seconds}
        )

    dataset = "cifar10" if model == "resnet" else "imdb"
    return {
        "model": model, "dataset": dataset, "data": DATA[dataset], "batch_size": 128, "device": "cpu",
        "precision": "float32", "threads": 1, "compile": False, "rounds": 16, "updates": 4, "took": 360.0,
        "origin": ORIGIN,
        "schedules": {"static": row(1.0), "exponential": row(1.01, moves=True), "cosine": row(1.1, moves=True)},
        "optimizers": {
            "sgd": row(1.0), "adam": row(1.2, optimizer="adam"), "nadam": row(1.3, optimizer="nadam", diverged=2),
        },
    }  # fmt: skip


def range_tests(model: str) -> dict:
    """What the finder found: two runs, of which one rule suggests twice the tuned rate and one nothing."""
    dataset = "cifar10" if model == "resnet" else "imdb"
    return {
        "model": model, "dataset": dataset, "data": DATA[dataset], "optimizer": "sgd", "batch_size": 128,
        "device": "cpu", "precision": "float32", "threads": 1, "took": 12.5, "origin": ORIGIN,
        "rates": [10.0**k for k in range(-6, 4)], "losses": [[1.0, 0.5] * 5, [1.0] * 8], "smoothing": 3.0,
        "suggestions": {
            "minimum": {"lr": 0.25, "low": 0.125, "high": 0.5, "runs": [0.125, 0.5]},
            "valley": {"lr": None, "low": None, "high": None, "runs": [0.125, None]},
        },
    }  # fmt: skip


THEORY = [
    {
        "experiment": "late_decay", "id": "late_decay_toy", "where": "toy model, g = 1.0",
        "claim": "The test loss after a late decay is below that after an early one.",
        "effect": "test loss of the last decay minus that of the first",
        "verdict": "supported", "mean": -0.4, "interval": [-0.5, -0.3], "n": 20, "why": "-0.4",
    },
    {
        "experiment": "level_sets", "id": "line_sublevel", "where": "resnet, CIFAR-10",
        "claim": "The straight line between two solutions stays in the sublevel set.",
        "effect": "barrier of the training loss, nats",
        "verdict": "not measured", "mean": None, "interval": None, "n": 0, "why": "nothing to measure it on",
    },
]  # fmt: skip
"""Claims as the theory stages write them, one of them measured."""


def cells() -> dict[str, dict[str, dict]]:
    """What the evaluate stages wrote, and the rows of history.csv, by model and schedule."""
    found: dict[str, dict[str, dict]] = {}
    for model, schedule in ACCURACY:
        found.setdefault(model, {})[schedule] = _cell(model, schedule)
    return found


def trained_elsewhere(cell: dict, seeds: str, dtype: str = "float32", **origin) -> None:
    """Say of a cell's seeds that they were trained in another dtype, or on another machine.

    ``torch`` is a version; all else is a key of ORIGIN.
    """
    for seed in seeds:
        run = copy.deepcopy(cell["training"]["seeds"][seed])
        if "torch" in origin:
            run["origin"]["versions"]["torch"] = origin["torch"]
        run["origin"] |= {name: value for name, value in origin.items() if name != "torch"}
        if run["origin"]["accelerator"]:
            run["device"] = "cuda"
        cell["training"]["seeds"][seed] = run | {"dtype": dtype}


def measured(cells: dict[str, dict[str, dict]]) -> dict[str, dict[str, MeasuredCell]]:
    """Such cells, as :func:`lrstudy.analysis.comparison.compare` takes them."""
    return {
        model: {name: measured_cell(cell) for name, cell in schedules.items()}
        for model, schedules in cells.items()
    }


def measured_cell(cell: dict) -> MeasuredCell:
    training, right = cell["training"], cell.get("right", {})
    taken = {field.name for field in dataclasses.fields(MeasuredSeed)} - {"origin", "scores", "right"}
    return MeasuredCell(
        **{name: cell[name] for name in ("model", "schedule", "history", "tuning")},
        **{name: training[name] for name in ("dataset", "headline", "tuned", "settings")},
        data=Data(**cell["data"]),
        seeds={
            seed: MeasuredSeed(
                **{name: value for name, value in run.items() if name in taken},
                origin=Origin(**run["origin"]),
                # of accuracies that these few examples cannot have
                scores={name: Scores.model_construct(**of) for name, of in cell["scores"][seed].items()},
                right=right.get(seed),
            )
            for seed, run in training["seeds"].items()
        },
        tuned_as=training.get("tuned_as"),
    )


def compare_as_written(
    cells: dict[str, dict[str, dict]],
    settings: CompareParams = SETTINGS,
    missing: Sequence[tuple[str, str]] = (),
    planned: Sequence[int] | None = None,
) -> dict:
    """What is compared of such cells, as it stands in comparison.json."""
    found = compare(measured(cells), settings, missing, planned)
    return {name: plain(part) if isinstance(part, dict) else part for name, part in found._asdict().items()}


def plain(part: object) -> Any:
    """Records as they stand in comparison.json."""
    if isinstance(part, Record):
        return part.model_dump(exclude_unset=True)
    if isinstance(part, dict):
        return {name: plain(value) for name, value in part.items()}
    return [plain(value) for value in part] if isinstance(part, list | tuple) else part


def comparison(
    cells: dict[str, dict[str, dict]],
    missing: tuple[str, ...] = (),
    source: str = "hub",
    settings: CompareParams = SETTINGS,
) -> Comparison:
    """reports/comparison.json of ``cells``, as the compare stage puts it together."""
    used = [next(iter(schedules.values()))["training"]["dataset"] for schedules in cells.values()]
    seeds = max((list(c["training"]["seeds"]) for row in cells.values() for c in row.values()), key=len)
    taken = measured(cells)
    found = compare(taken, settings, [tuple(name.split("-")) for name in missing])
    results = Results(
        data={name: DATA[name] for name in used},
        references={name: REFERENCES[name] for name in used},
        protocol={
            "preset": "cpu",
            "source": source,
            "seeds": [int(seed) for seed in seeds],
            "num_trials": 8,
            "finalists": 2,
            "searches": 1,
            "tune_seeds": [101],
            "confirm_seeds": [102],
            **settings.model_dump(),
            "planned_seeds": (settings.looks or [len(seeds)])[-1],
            "headline": {name: HEADLINE[name] for name in used},
        },
        progress={
            f"{model}-{schedule}": progress(model, schedule, seeds, row.get(schedule, {}).get("training"))
            for model, row in ({model: cells.get(model, {}) for model, _ in ACCURACY}).items()
            for schedule in [s for m, s in ACCURACY if m == model]
            if schedule in row or f"{model}-{schedule}" in missing
        },
        missing=list(missing),
        timing={
            model: with_ratios(Timing(**timing(model)), "static", settings.confidence) for model in cells
        },
        time_to_target=time_to_target(taken, found.cells, settings),
        **found._asdict(),
    )
    theory = TheoryClaims(
        claims=THEORY,
        figures={"late_decay": ["toy.svg", "toy_drift.svg"], "level_sets": []},
        sha256={"late_decay": "0" * 64, "level_sets": "0" * 64},
        missing=[],
    )
    return Comparison(
        **results.told(), gaps=gaps(results), claims=claims(results, curves(taken)), theory=theory
    )


def read(content: dict) -> Comparison:
    """What is read of a comparison.json with this in it."""
    return Comparison.model_validate(content)


def written(study: Comparison) -> dict:
    """What stands in the comparison.json of a study, to be changed."""
    return json.loads(json.dumps(study.model_dump(exclude_unset=True)))


def progress(model: str, schedule: str, seeds: list[str], training: dict | None) -> dict:
    """How far a cell has come: its seeds, or a search of which nothing is there."""
    trials = {"trials": 8, "of": 8, "confirmed": 2, "finalists": 2, "complete": True}
    return {
        "model": model,
        "schedule": schedule,
        "searches": [trials if training else trials | {"trials": 0, "confirmed": 0, "complete": False}],
        "measured": [int(seed) for seed in training["seeds"]] if training else [],
        "trained": [],
        "planned": [int(seed) for seed in seeds],
    }


def _cell(model: str, schedule: str) -> dict:
    dataset = "cifar10" if model == "resnet" else "imdb"
    parameters = {"static": {}, "exponential": {"decay_rate": 0.25}, "cosine": {"min_factor": 0.0}}[schedule]
    by_seed = dict(zip(["1", "2", "3"], ACCURACY[model, schedule], strict=True))
    return {
        "model": model,
        "schedule": schedule,
        "data": DATA[dataset],
        "scores": {seed: _scores(accuracy) for seed, accuracy in by_seed.items()},
        "training": {
            "dataset": dataset,
            "headline": HEADLINE[dataset],
            "tuned": "tuned",
            "settings": {
                "num_epochs": 2,
                "optimizer": {"name": "sgd", "base_lr": 0.125, "momentum": 0.9},
                "schedule": {
                    "function": schedule,
                    "warmup_epochs": 0.0,
                    "granularity": "step",
                    "parameters": parameters,
                },
                "controller": {"name": "none"},
            },
            "cell": {"key": f"cell-{model}-{schedule}", "run_id": f"run-{model}-{schedule}"},
            "seeds": {
                seed: {
                    "identity": identity(model, schedule, seed),
                    "search": 1,
                    "values": {"base_lr": 0.125}
                    | ({"decay_rate": 0.25} if schedule == "exponential" else {}),
                    "base_lr": 0.125,
                    "parameters": parameters,
                    "key": f"{model}-{schedule}-{seed}",
                    "status": "diverged" if accuracy is None else "finished",
                    "best_epoch": int(seed) % 2 + 1,  # 2, 1, 2
                    "num_parameters": 1000,
                    "interventions": [],
                    "compute_seconds": [1.5, 2.0] if accuracy else [1.5],
                    "final": final(accuracy) if accuracy else {},
                    "weights": True,
                    "device": "cpu",
                    "dtype": "float32",
                    "origin": copy.deepcopy(ORIGIN),
                }
                for seed, accuracy in by_seed.items()
            },
        },
        "tuning": tuning(model, schedule),
        "history": [
            row
            for seed, accuracy in by_seed.items()
            for row in _history(int(seed), accuracy, EARLIER[schedule])
        ],
    }


def identity(model: str, schedule: str, seed: str) -> str:
    """The name of a training in the ledger."""
    return hashlib.sha256(f"{model}-{schedule} seed {seed}".encode()).hexdigest()


REACHED = {"resnet": 0.71, "lstm": 0.805}
"""Validation accuracy that the search's chosen values had; macro F1 is 0.01 lower, F1 of class 1 0.03."""


def trials(accuracy: float) -> list[dict]:
    """The trials of a search of eight, by number: trial 3 had the accuracy on average over its two seeds."""
    found = []
    for number in range(8):
        trial: dict = {"number": number, "values": {"base_lr": 0.1}, "objective": 0.75}
        for phase, up in (("search", 0.02), ("confirmation", -0.02)):
            reached = accuracy + up if number == 3 else 0.5
            scores = {"accuracy": reached, "f1": reached - 0.03, "f1_macro": reached - 0.01}
            trial[phase] = {"objective": 0.75, "losses": [0.75], "validation": scores}
        found.append(trial if number in (2, 3) else trial | {"confirmation": None})
    return found


def tuning(model: str, schedule: str) -> dict:
    """best.json of a search that moved the base rate from 0.1 to 0.125, with two sides judged."""
    side = {"value": 0.0625, "change": 0.05, "interval": [0.01, 0.09]}
    values = {"base_lr": 0.125} | ({"decay_rate": 0.25} if schedule == "exponential" else {})
    return {
        "model": model,
        "schedule": schedule,
        "source": "tuned",
        "num_trials": 8,
        "finalists": 2,
        "seeds": [101],
        "confirm_seeds": [102],
        "exhausted": False,
        "best_trial": 3,
        "searches": [
            {
                "sampler_seed": 0,
                "values": values,
                "objective": 0.75,
                "best_trial": 3,
                "exhausted": False,
                "trials": trials(REACHED[model]),
            }
        ],
        "cost": {"trainings": 10, "epochs": 20, "at_most": 10, "seconds": 90.0},
        "terms": [
            {
                "term": {"base_lr": "base learning rate", "decay_rate": "decay rate"}[name],
                "parameter": name,
                "value": value,
                "unit": {"base_lr": "", "decay_rate": "per epoch"}[name],
                "as_good": [value / 5, value * 2],
            }
            for name, value in values.items()
        ],
        "objective": 0.75,
        "search_objective": 0.625,
        "defaults_objective": 0.875,
        "within_the_noise": {"num_trials": 2, "values": {}},
        "budget": [{"num_trials": 1, "loss": 0.875}, {"num_trials": 2, "loss": 0.75}],
        "sensitivity": {
            "num_trials": 8,
            "parameters": {
                "base_lr": {"value": 0.125, "half": side, "double": None},
                "decay_rate": {"value": 0.25, "half": None, "double": side | {"value": 0.5, "change": 0.2}},
            }
            if schedule == "exponential"
            else {"base_lr": {"value": 0.125, "half": side, "double": None}},
        },
    }


def _scores(accuracy: float | None) -> dict:
    if accuracy is None:
        return dict.fromkeys(HIGHER, NO_SCORES)
    return {
        name: {
            "accuracy": accuracy + higher,
            "f1": accuracy + higher - 0.03,
            "f1_macro": accuracy + higher - 0.01,
            "loss": 1 - accuracy - higher,
            "confusion": [[1, 0], [0, 1]],
        }
        for name, higher in HIGHER.items()
    }


HIGHER = {"last": 0.0, "best": 0.02, "ema": 0.03, "tail_average": 0.04}
"""Weights -> test accuracy above that of the last ones."""


def final(accuracy: float) -> dict[str, float]:
    """What was measured in the end; with an average the loss on validation data is 0.5."""
    found = {"train_evaluated": (1 - accuracy) / 2, "validation_ema": 0.5, "validation_tail_average": 0.5}
    higher = {"train_evaluated": 0.15, "validation_ema": 0.03, "validation_tail_average": 0.04}
    return {
        f"{split}/{name}": value
        for split, loss in found.items()
        for name, value in {
            "loss": loss,
            "loss_standard_error": 0.01,
            "accuracy": accuracy + higher[split],
            "f1": accuracy + higher[split] - 0.03,
            "f1_macro": accuracy + higher[split] - 0.01,
        }.items()
    }


def _history(seed: int, accuracy: float | None, earlier: float) -> list[dict[str, float]]:
    """Two epochs; one, without numbers, of a run that diverged. Running training accuracy ends 0.1 above test accuracy.

    Seed 2 overfits: its validation loss is lowest after the first epoch and 0.1 higher after the second.
    """
    diverged = accuracy is None
    first_loss = 0.5 if seed == 2 else 1.2
    return [
        {
            "seed": float(seed),
            "epoch": float(epoch),
            "train/loss": math.nan if diverged else 1 / epoch + seed / 100,
            "train/accuracy": 0.1 if diverged else accuracy + 0.1 * (epoch - 1),
            "validation/loss": math.nan if diverged else (first_loss if epoch == 1 else 0.6) + seed / 100,
            "validation/loss_standard_error": 0.01,
            "validation/accuracy": 0.1 if diverged else accuracy - earlier * (2 - epoch),
            "validation/f1": 0.05 if diverged else accuracy - 0.03 - earlier * (2 - epoch),
            "validation/f1_macro": 0.05 if diverged else accuracy - 0.01 - earlier * (2 - epoch),
            "lr": 0.125 / epoch,
        }
        for epoch in ([1] if diverged else [1, 2])
    ]
