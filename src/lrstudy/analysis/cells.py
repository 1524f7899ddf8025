"""From the trainings of a cell to what comparison.json says of it: metrics by seed, origins, rates."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lrstudy.analysis.records import CellResult, MetricValues, Origins, Rise, Search, Taken, Tuning
from lrstudy.analysis.statistics import spread, t_interval
from lrstudy.controllers import CONTROLLERS
from lrstudy.ledger.record import SCORES, TEST_PREFIX, Scores
from lrstudy.search.sensitivity import largest_rise
from lrstudy.study.collect import MeasuredCell, MeasuredSeed
from lrstudy.training.measures import AVERAGES, tail_mean, turn

AVERAGED = "tail_average"
"""The average whose weights are the row ``<reference>_averaged``, fixed before any result was seen.

It has no constant to choose but its share, a fifth. The exponential average stands beside (``test_ema/...``).
"""

_OF_DIVERGED = {"accuracy": 0.0, "f1": 0.0, "f1_macro": 0.0, "balanced_accuracy": 0.0, "loss": None}
"""The test metrics of a run that has no working model."""

_VALIDATED = ("loss", "accuracy", "f1", "f1_macro")
_OF_WORKING = (
    "generalization_gap", "generalization_gap_loss", "train/accuracy",
    *(
        f"{split}/{name}"
        for split in ("validation", "validation_last_fifth", "validation_ema", "validation_tail_average")
        for name in _VALIDATED
    ),
    "train_evaluated/loss", "train_evaluated/accuracy", "best_epoch", "turning_epoch", "overfitting",
    "seconds_per_epoch", "epoch_slowdown",
)  # fmt: skip
"""Metrics that are undefined without a working model."""


def described(cell: MeasuredCell, confidence: float) -> CellResult:
    """What was measured of a cell, without differences.

    Base rate and parameters are those of the first search, if there are several. Spread (standard deviation
    over seeds, n - 1) and interval (Student's) of a metric are None for a single seed. What is undefined for
    a seed is None there and left out of the mean.
    """
    metrics = {}
    for name, by_seed in metrics_by_seed(cell).items():
        values = [value for value in by_seed.values() if value is not None]
        metrics[name] = MetricValues(
            values=by_seed,
            mean=float(np.mean(values)) if values else None,
            spread=spread(values) if values else None,
            interval=t_interval(values, confidence) if values else None,
        )
    searched = by_search(cell.seeds)
    first = next(iter(searched.values()))
    named = {"view_of": cell.view_of, "tuned_as": cell.tuned_as}
    return CellResult(
        seeds=[int(seed) for seed in cell.seeds],
        diverged=[int(seed) for seed, run in cell.seeds.items() if not run.works],
        base_lr=first.base_lr,
        parameters=first.parameters,
        by_search=searched,
        warmup_epochs=cell.settings["schedule"]["warmup_epochs"],
        optimizer=cell.settings["optimizer"]["name"],
        controller=cell.settings["controller"]["name"],
        num_epochs=cell.settings["num_epochs"],
        lr_range=lr_range(cell),
        compute_seconds={seed: float(sum(run.compute_seconds)) for seed, run in cell.seeds.items()},
        tuned=cell.tuned,
        tuning=_tuning(cell.tuning),
        interventions={seed: _interventions(cell, run) for seed, run in cell.seeds.items()},
        identities={seed: run.identity for seed, run in cell.seeds.items()},
        origins=origins(cell.seeds),
        dataset=cell.dataset,
        headline=cell.headline,
        metrics=metrics,
        **{name: value for name, value in named.items() if value is not None},
    )


def _interventions(cell: MeasuredCell, run: MeasuredSeed) -> int:
    """How often the controller changed the rate of an update that followed.

    What it decides after the last epoch changes nothing any more, unless it acts within an epoch.
    """
    controller = CONTROLLERS.get(cell.settings["controller"]["name"])
    within = controller is not None and bool(controller.needs)
    last = cell.settings["num_epochs"]
    return sum(within or one["epoch"] < last for one in run.interventions)


def averaged_view(cell: MeasuredCell) -> MeasuredCell:
    """The cell of a schedule's trainings seen through the averages of their weights: no training of its own.

    Its test metrics (``test/...``) and what validation data said in the end (``validation/...``) are those of
    the average AVERAGED of each seed; what is of single epochs or of other weights is undefined.
    """
    return dataclasses.replace(
        cell,
        schedule=f"{cell.schedule}_averaged",
        view_of=cell.schedule,
        seeds={
            seed: dataclasses.replace(run, scores={**run.scores, "last": run.scores[AVERAGED]})
            for seed, run in cell.seeds.items()
        },
    )


def origins(seeds: Mapping[str, MeasuredSeed]) -> Origins:
    """Where a cell's trainings took place: each value with the list of its seeds."""
    told: dict[str, dict[str, list[int]]] = {}
    for seed, run in seeds.items():
        origin = run.origin
        values = {
            "machine": origin.machine,
            "processor": origin.accelerator or origin.processor,
            "device": run.device,
            "dtype": run.dtype,
            "torch": origin.versions.get("torch", "unknown"),
            "lrstudy": origin.versions.get("lrstudy", "unknown"),
            "revision": origin.revision,
        }
        for name, value in values.items():
            told.setdefault(name, {}).setdefault(value, []).append(int(seed))
    ended = [run.origin.ended for run in seeds.values()]
    return Origins.model_validate(told | {"ended": (min(ended), max(ended))})


def metrics_by_seed(cell: MeasuredCell) -> dict[str, dict[str, float | None]]:
    """Every compared metric of a cell: name -> seed -> value.

    A run that diverged has no working model: its accuracy and F1 count as 0, a loss against any that works;
    what needs a working model is undefined (None). One whose predictions are not numbers has diverged,
    however it ended. A measure that is no finite number is None.

    - ``test/...``, ``test_best/...``, ``test_ema/...``, ``test_tail_average/...``: of the last weights, of
      those with the lowest validation loss, and of the two averages. ``.../balanced_accuracy``
      (:func:`lrstudy.training.measures.balanced_accuracy`) where it is the headline.
    - ``validation/...``: after the last epoch; ``validation_last_fifth/...``: the mean over the last fifth of
      the epochs (:func:`lrstudy.training.measures.tail_mean`); ``validation_ema/...``,
      ``validation_tail_average/...``: of the averages.
    - ``generalization_gap``: accuracy of the last weights on 5,000 training examples minus their test
      accuracy, both in evaluation mode; ``generalization_gap_loss``: their test loss minus that on these
      examples. ``train/accuracy`` is another: the running one over the last epoch.
    - ``turning_epoch``, ``overfitting``: where the smoothed validation loss was lowest if it rose later by
      more than twice its standard error, and how much higher it ended if by more than that, else 0
      (:func:`lrstudy.training.measures.turn`). Both None for fewer than four epochs. A monitor that steers by
      validation loss is judged by ``test/loss``.
    - ``seconds_per_epoch``: of the run's cheapest epoch, in seconds of computing
      (:func:`lrstudy.training.devices.compute_clock`). Whatever else the machine did can only have added to
      it, and a schedule has no epochs that cost less than the others.
    - ``epoch_slowdown``: how much more than that the median epoch cost, as a share; large where the machine
      did other work, None for a single epoch.
    """
    histories = epochs_by_seed(cell.history)
    decides = cell.headline.removeprefix("test/")
    names = SCORES if decides in SCORES else (*SCORES, decides)
    metrics: dict[str, dict[str, float | None]] = {}
    for seed, run in cell.seeds.items():
        for name, value in _metrics(run, histories[seed], names, cell.view_of is not None).items():
            metrics.setdefault(name, {})[seed] = value if _is_number(value) else None
    return metrics


def _metrics(
    run: MeasuredSeed, epochs: Sequence[Mapping[str, float]], names: Iterable[str], is_view: bool
) -> dict[str, float | None]:
    """Of one seed: ``names`` are those of the test metrics."""
    metrics: dict[str, float | None] = {}
    for weights, prefix in TEST_PREFIX.items():
        for name in names:
            value = getattr(run.scores[weights], name) if run.works else _OF_DIVERGED[name]
            metrics[f"{prefix}/{name}"] = None if is_view and weights != "last" else value
    metrics |= dict.fromkeys(_OF_WORKING)
    if not run.works:
        return metrics
    cheapest = float(min(run.compute_seconds))
    metrics["seconds_per_epoch"] = cheapest
    if len(run.compute_seconds) > 1:
        metrics["epoch_slowdown"] = float(np.median(run.compute_seconds)) / cheapest - 1
    if is_view:
        ended = {f"validation/{name}": run.final[f"validation_{AVERAGED}/{name}"] for name in _VALIDATED}
        return metrics | ended
    metrics |= _of_history(epochs) | _of_the_end(run.final, run.scores["last"])
    metrics["best_epoch"] = float(run.best_epoch)
    return metrics


def _of_history(epochs: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """What the epochs of one training, first to last, say of it."""

    def series(name: str) -> list[float]:
        return [epoch[name] for epoch in epochs]

    metrics: dict[str, float | None] = {"train/accuracy": epochs[-1]["train/accuracy"]}
    for name in _VALIDATED:
        metrics[f"validation/{name}"] = epochs[-1][f"validation/{name}"]
        metrics[f"validation_last_fifth/{name}"] = tail_mean(series(f"validation/{name}"))
    turned = turn(series("validation/loss"), series("validation/loss_standard_error"))
    if turned is not None:
        at, metrics["overfitting"] = turned
        metrics["turning_epoch"] = None if at is None else float(at)
    return metrics


def _of_the_end(final: Mapping[str, float | None], test: Scores) -> dict[str, float | None]:
    """What was measured once, when a training had finished, and the gaps to its test metrics."""
    averages = [f"validation_{average}/{name}" for average in AVERAGES for name in _VALIDATED]
    loss, accuracy = final["train_evaluated/loss"], final["train_evaluated/accuracy"]
    metrics = {name: final[name] for name in averages}
    metrics |= {"train_evaluated/loss": loss, "train_evaluated/accuracy": accuracy}
    if not (loss is None or accuracy is None or test.loss is None or test.accuracy is None):
        metrics["generalization_gap"] = accuracy - test.accuracy
        metrics["generalization_gap_loss"] = test.loss - loss
    return metrics


def lr_range(cell: MeasuredCell) -> tuple[float, float]:
    """(lowest, highest) learning rate of the training whose rate moves most: base rate and epochs' ends.

    Without the epochs of warmup, in which a static rate moves, too. Of one training, since two searches give
    two base rates, and a rate that is constant in both does not move.
    """
    warmup = cell.settings["schedule"]["warmup_epochs"]
    rows = epochs_by_seed(cell.history)
    ranges = []
    for seed, run in cell.seeds.items():
        rates = [row["lr"] for row in rows[seed] if row["epoch"] >= warmup and np.isfinite(row["lr"])]
        rates.append(run.base_lr)
        ranges.append((float(min(rates)), float(max(rates))))
    return max(ranges, key=lambda ends: (ends[1] - ends[0]) / ends[1])


def by_search(seeds: Mapping[str, MeasuredSeed]) -> dict[str, Taken]:
    """By number of the search what it found and the seeds that took it."""
    numbers: dict[int, list[str]] = {}
    for seed, run in sorted(seeds.items(), key=lambda item: int(item[0])):
        numbers.setdefault(run.search, []).append(seed)
    return {
        str(number): Taken(
            values=seeds[mine[0]].values,
            base_lr=seeds[mine[0]].base_lr,
            parameters=seeds[mine[0]].parameters,
            seeds=[int(seed) for seed in mine],
        )
        for number, mine in sorted(numbers.items(), key=lambda item: str(item[0]))
    }


def curves(cells: Mapping[str, Mapping[str, MeasuredCell]]) -> list[dict[str, Any]]:
    """Rows of reports/curves.csv: per model, schedule and epoch the mean over seeds of every curve.

    Losses and accuracies also have their standard deviation (0 for one seed). The epoch in which a seed
    diverged, and those that it did not reach, are means over the others; nan if there are none.
    """
    rows = []
    for model, schedules in cells.items():
        for schedule, cell in schedules.items():
            by_epoch: dict[int, list[Mapping[str, float]]] = {}
            for record in cell.history:
                by_epoch.setdefault(int(record["epoch"]), []).append(record)
            for epoch, records in sorted(by_epoch.items()):
                finite = [
                    record
                    for record in records
                    if np.isfinite(record["train/loss"]) and np.isfinite(record["validation/loss"])
                ]
                records = finite or records
                row: dict[str, Any] = {"model": model, "schedule": schedule, "epoch": epoch}
                for name in records[0]:
                    if name not in ("seed", "epoch"):
                        row[name] = float(np.mean([record[name] for record in records]))
                for name in ("train/loss", "validation/loss", "train/accuracy", "validation/accuracy"):
                    values = [record[name] for record in records]
                    row[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                rows.append(row)
    return rows


def epochs_by_seed(history: Iterable[Mapping[str, float]]) -> dict[str, list[Mapping[str, float]]]:
    """The rows of each seed, first epoch first."""
    grouped: dict[str, list[Mapping[str, float]]] = {}
    for row in sorted(history, key=lambda row: row["epoch"]):
        grouped.setdefault(str(int(row["seed"])), []).append(row)
    return grouped


def _is_number(value: float | None) -> bool:
    """Whether a measure is defined and finite: none else can be averaged or written to JSON."""
    return value is not None and bool(np.isfinite(value))


def _tuning(best: Mapping[str, Any] | None) -> Tuning | None:
    """What the search found, without its single trials; None where there was none for this cell.

    Args:
        best: as :func:`lrstudy.search.best.what_was_found` returns it.
    """
    if best is None or best["source"] == "defaults":
        return None
    rise = largest_rise(best["sensitivity"])
    told = {name: best[name] for name in Tuning.model_fields if name in best} | {
        "searches": [
            {name: search[name] for name in Search.model_fields if name in search}
            | {"num_tried": len(search["trials"])}
            for search in best["searches"]
        ],
        "largest_rise": None if rise is None else Rise.model_validate(rise),
    }
    return Tuning.model_validate(told)
