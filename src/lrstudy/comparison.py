"""From every cell's scores and histories to reports/comparison.json: the one source of tables and figures."""

from typing import Any

import numpy as np

from lrstudy.config import CompareParams
from lrstudy.sensitivity import largest_rise
from lrstudy.statistics import (
    bootstrap_interval,
    holm,
    probability_of_improvement,
    signed_rank_p,
    smallest_p,
)

HEADLINE = {"image": "test/accuracy", "text": "test/f1"}
"""The paper's metric for each kind of data (seed 000, section 3.4)."""

TESTED = ("test/accuracy", "test/f1")
"""Metrics whose paired differences to the reference are tested; the others get intervals only."""


def compare(cells: dict[str, dict[str, dict]], settings: CompareParams) -> dict[str, dict[str, dict]]:
    """Statistics of every cell.

    Args:
        cells: by model and schedule, what ``evaluate`` wrote (``scores``, ``training``), ``history``: the
            rows of history.csv, and ``tuning``: best.json.
        settings: the reference schedule, the confidence and the number of bootstrap resamples.

    Returns:
        By model and schedule: ``seeds``, ``diverged``, ``base_lr``, ``parameters``, ``run_ids``,
        ``tuning`` and ``metrics``: per metric the ``values`` by seed, ``mean``, ``spread`` (standard
        deviation over seeds, n - 1), ``interval`` and, where the reference ran the same seeds, ``difference`` to it.
        Spread and interval are None for a single seed.
    """
    compared: dict[str, dict[str, dict]] = {}
    for model, schedules in cells.items():
        compared[model] = {name: _describe(cell, settings) for name, cell in schedules.items()}
        reference = compared[model].get(settings.reference)
        if reference is not None:
            for name, cell in compared[model].items():
                if name != settings.reference:
                    _add_differences(cell, reference, settings)
            _adjust(compared[model])
    return compared


def metrics_by_seed(cell: dict) -> dict[str, dict[str, float | None]]:
    """Every compared metric of a cell: name -> seed -> value.

    A run that diverged has no working model: its accuracy and F1 count as 0, a loss against any that works;
    its test loss is undefined (None). One whose predictions are not numbers has diverged, however it ended.
    """
    last = {seed: max(rows, key=lambda row: row["epoch"]) for seed, rows in _by_seed(cell["history"]).items()}
    values: dict[str, dict[str, float | None]] = {}
    for seed, scores in cell["scores"].items():
        run = cell["training"]["seeds"][seed]
        works = _works(cell, seed)
        for weights, prefix in (("last", "test"), ("best", "test_best")):
            for name in ("accuracy", "f1", "loss"):
                value = scores[weights][name] if works else (None if name == "loss" else 0.0)
                values.setdefault(f"{prefix}/{name}", {})[seed] = value
        train_accuracy = last[seed]["train/accuracy"]
        gap = train_accuracy - scores["last"]["accuracy"] if works else None
        values.setdefault("generalization_gap", {})[seed] = gap
        values.setdefault("train/accuracy", {})[seed] = train_accuracy if works else None
        values.setdefault("validation/loss", {})[seed] = last[seed]["validation/loss"] if works else None
        values.setdefault("best_epoch", {})[seed] = float(run["best_epoch"]) if works else None
        values.setdefault("seconds", {})[seed] = float(sum(run["seconds"]))
    return values


def curves(cells: dict[str, dict[str, dict]]) -> list[dict[str, Any]]:
    """Rows of reports/curves.csv: per model, schedule and epoch the mean over seeds of every curve.

    Losses and accuracies also have their standard deviation (0 for one seed). The epoch in which a seed
    diverged, and those that it did not reach, are means over the others; nan if there are none.
    """
    rows = []
    for model, schedules in cells.items():
        for schedule, cell in schedules.items():
            by_epoch: dict[int, list[dict]] = {}
            for row in cell["history"]:
                by_epoch.setdefault(int(row["epoch"]), []).append(row)
            for epoch, records in sorted(by_epoch.items()):
                finite = [
                    record
                    for record in records
                    if np.isfinite(record["train/loss"]) and np.isfinite(record["validation/loss"])
                ]
                records = finite or records
                row = {"model": model, "schedule": schedule, "epoch": epoch}
                for name in records[0]:
                    if name not in ("seed", "epoch"):
                        row[name] = float(np.mean([record[name] for record in records]))
                for name in ("train/loss", "validation/loss", "train/accuracy", "validation/accuracy"):
                    values = [record[name] for record in records]
                    row[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                rows.append(row)
    return rows


def _works(cell: dict, seed: str) -> bool:
    finished = cell["training"]["seeds"][seed]["status"] == "finished"
    return finished and cell["scores"][seed]["last"]["accuracy"] is not None


def _by_seed(history: list[dict]) -> dict[str, list[dict]]:
    grouped: dict[str, list[dict]] = {}
    for row in history:
        grouped.setdefault(str(int(row["seed"])), []).append(row)
    return grouped


def _describe(cell: dict, settings: CompareParams) -> dict:
    training = cell["training"]
    metrics = {}
    for name, by_seed in metrics_by_seed(cell).items():
        values = [value for value in by_seed.values() if value is not None]
        metrics[name] = {"values": by_seed, "mean": None, "spread": None, "interval": None}
        if values:
            metrics[name] |= {
                "mean": float(np.mean(values)),
                "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "interval": bootstrap_interval(values, settings.confidence, settings.num_resamples),
            }
    chosen = training["settings"]
    return {
        "seeds": [int(seed) for seed in training["seeds"]],
        "diverged": [int(seed) for seed in training["seeds"] if not _works(cell, seed)],
        "base_lr": chosen["optimizer"]["base_lr"],
        "parameters": chosen["schedule"]["parameters"],
        "warmup_epochs": chosen["schedule"]["warmup_epochs"],
        "optimizer": chosen["optimizer"]["name"],
        "controller": chosen["controller"]["name"],
        "num_epochs": chosen["num_epochs"],
        "tuned": training["tuned"],
        "tuning": _tuning(cell["tuning"]),
        "interventions": {seed: len(run["interventions"]) for seed, run in training["seeds"].items()},
        "run_ids": {seed: run["run_id"] for seed, run in training["seeds"].items()},
        "dataset": training["dataset"],
        "metrics": metrics,
    }


def _tuning(best: dict) -> dict | None:
    """What the search found, without its single trials; None where the defaults were taken unsearched."""
    if best["source"] == "defaults":
        return None
    kept = (
        "num_trials", "rungs", "seeds", "study", "cost", "terms", "objective", "defaults_objective",
        "within_one_standard_error", "sensitivity",
    )  # fmt: skip
    return {name: best[name] for name in kept} | {"largest_rise": largest_rise(best["sensitivity"])}


def _add_differences(cell: dict, reference: dict, settings: CompareParams) -> None:
    for name, metric in cell["metrics"].items():
        other = reference["metrics"][name]["values"]
        pairs = {
            seed: value - other[seed]
            for seed, value in metric["values"].items()
            if value is not None and other.get(seed) is not None
        }
        if not pairs:
            continue
        values = list(pairs.values())
        metric["difference"] = {
            "values": pairs,
            "mean": float(np.mean(values)),
            "interval": bootstrap_interval(values, settings.confidence, settings.num_resamples),
        }
        if name in TESTED:
            metric["difference"] |= {
                "p": signed_rank_p(values),
                "smallest_p": smallest_p(len(values)),
                "probability_of_improvement": probability_of_improvement(values),
            }


def _adjust(schedules: dict[str, dict]) -> None:
    """Holm over the schedules of one model, for each tested metric.

    The smallest adjusted p that can be reached is the smallest p times the number of tests.
    """
    for name in TESTED:
        tested = [
            c["metrics"][name]["difference"] for c in schedules.values() if "difference" in c["metrics"][name]
        ]
        for difference, adjusted in zip(tested, holm([d["p"] for d in tested]), strict=True):
            difference["p_holm"] = float(adjusted)
            difference["smallest_p_holm"] = min(1.0, len(tested) * difference["smallest_p"])
