"""From every cell's scores and histories to reports/comparison.json: the one source of tables and figures."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from lrstudy.analysis.looks import looks_reached, p_of_all_looks
from lrstudy.analysis.statistics import (
    MIN_SEEDS,
    average_ranks,
    critical_difference,
    friedman_p,
    holm,
    not_told_apart,
    probability_of_improvement,
    seeds_and_examples_interval,
    signed_rank_p,
    smallest_friedman_p,
    spread,
    standardized_mean,
    t_interval,
)
from lrstudy.ledger.record import SCORES, TEST_PREFIX
from lrstudy.recipe.config import CompareParams
from lrstudy.search.sensitivity import largest_rise
from lrstudy.training.measures import AVERAGES, balanced_accuracy, tail_mean, turn

TESTED = ("test/accuracy", "test/f1_macro", "test/f1", "test/balanced_accuracy")
"""Metrics whose paired differences to the reference are tested; the others get intervals only."""

AVERAGED = "tail_average"
"""The average whose weights are the row ``<reference>_averaged``, fixed before any result was seen.

It has no constant to choose but its share, a fifth. The exponential average stands beside (``test_ema/...``).
"""

IN_SECONDS = ("seconds_per_epoch", "seconds_to_target")
"""Metrics that are of the machine as much as of the training."""

_OF_THE_MACHINE = ("processor", "device", "torch")
"""What a pair may differ in and be compared all the same, but in seconds."""

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


def compare(
    cells: dict[str, dict[str, dict]],
    settings: CompareParams,
    missing: Collection[tuple[str, str]] = (),
    planned: Sequence[int] | None = None,
) -> dict[str, dict]:
    """Statistics of every cell, of the schedules within each model, and of the schedules across models.

    Args:
        cells: by model and schedule, what ``evaluate`` wrote (``scores``, ``training``), ``history``: the
            rows of history.csv, and ``tuning``: best.json, None where the values are another row's
            (``training`` then says whose: ``tuned_as``); where they are known, ``right``: by seed, which
            test examples the last weights got right (num_examples,).
        settings: the reference schedule, the confidence and whether dtypes are compared.
        missing: (model, schedule) of the cells that the study has but that did not run. They stay in the
            family of tests, so that they change no other cell's numbers, and leave their model unranked.
        planned: the study's seeds in their order, those that have not run yet included; None: all that a cell
            has. A pair of rows is tested when both have all seeds of a planned look; until then its numbers
            are shown.

    Returns:
        ``cells``: by model and schedule: ``seeds``, ``diverged``, ``base_lr`` and ``parameters`` (those of
        the first search, if there are several), ``by_search`` (:func:`by_search`),
        ``identities`` (by seed, the training's name in the ledger), ``origins`` (:func:`origins`),
        ``tuning``, ``tuned_as`` (the model whose values it takes, where they are not its own), ``lr_range``
        (:func:`lr_range`), ``compute_seconds`` (by seed, of all epochs) and
        ``metrics``: per metric the ``values`` by seed, ``mean``, ``spread`` (standard deviation over seeds,
        n - 1), ``interval`` (Student's) and, where the reference ran the same seeds, ``difference`` to it.
        Spread and interval are None for a single seed. What is undefined for a seed is None there and left
        out of the mean.

        A difference says by seed which pairs are ``left_out`` (:func:`not_compared`), and which of those
        compared are ``mixed``, each with what differs: the cell's value and the reference's. Where none is
        left its mean is None. That of test/accuracy has ``examples_interval``, over seeds and test examples,
        where ``right`` is known of all pairs; None elsewhere. Accuracy and F1 are tested: ``p`` of all looks
        that were planned and reached (:func:`lrstudy.analysis.looks.p_of_all_looks`), ``p_holm`` adjusted
        over the model's schedules; both None before the first one, and with fewer than MIN_SEEDS pairs.

        ``views``: by model ``<reference>_averaged``, like a cell, with ``view_of``: :func:`averaged_view`.
        In TESTED metrics every cell but the reference also has the same ``difference_to_averaged``: a
        schedule that does not beat it has done nothing that an average does not do for free.

        ``models``: see :func:`ranking`. ``across_models``: see :func:`across`.
    """
    compared: dict[str, dict[str, dict]] = {}
    views: dict[str, dict[str, dict]] = {}
    everyone = [cell["training"]["seeds"] for schedules in cells.values() for cell in schedules.values()]
    studied = list(dict.fromkeys(seed for seeds in everyone for seed in seeds))
    studied = studied if planned is None else [str(seed) for seed in planned]
    for model, schedules in cells.items():
        reference = schedules.get(settings.reference)
        described = {name: _describe(cell, settings) for name, cell in schedules.items()}
        compared[model], views[model] = described, {}
        if reference is None:
            continue
        view = _describe(averaged_view(reference), settings)
        views[model][f"{settings.reference}_averaged"] = view
        base = described[settings.reference]
        num_missing = sum(name == model for name, _ in missing)
        rows = {name: cell for name, cell in described.items() if name != settings.reference}
        for name, cell in rows.items():
            right = (schedules[name].get("right", {}), reference.get("right", {}))
            _add_differences(cell, base, "difference", studied, settings, right=right)
            _add_differences(cell, view, "difference_to_averaged", studied, settings, TESTED)
        _add_differences(view, base, "difference", studied, settings)
        # The view is no schedule: with it the others' family has as many tests as without.
        _adjust(rows.values(), num_missing, "difference")
        _adjust(rows.values(), num_missing, "difference_to_averaged")
        _adjust([view], 0, "difference")
    return {
        "cells": compared,
        "views": views,
        "models": {
            model: ranking(
                schedules,
                settings,
                complete=all(name != model for name, _ in missing),
                due=all(set(map(int, studied)) <= set(cell["seeds"]) for cell in schedules.values()),
            )
            for model, schedules in compared.items()
        },
        "across_models": across(
            {model: row | views[model] for model, row in compared.items()}, settings, missing
        ),
    }


def averaged_view(cell: dict) -> dict:
    """The cell of a schedule's trainings seen through the averages of their weights: no training of its own.

    Its test metrics (``test/...``) and what validation data said in the end (``validation/...``) are those of
    the average AVERAGED of each seed; what is of single epochs or of other weights is undefined.

    Args:
        cell: as :func:`compare` takes it.

    Returns:
        Such a cell, with ``view_of``: the schedule's name.
    """
    return cell | {
        "schedule": f"{cell['schedule']}_averaged",
        "view_of": cell["schedule"],
        "scores": {seed: scores | {"last": scores[AVERAGED]} for seed, scores in cell["scores"].items()},
    }


def origins(runs: dict[str, dict]) -> dict[str, Any]:
    """Where a cell's trainings took place.

    Args:
        runs: by seed, what ``train`` wrote of it.

    Returns:
        For ``machine``, ``processor`` (the accelerator's where one computed), ``device``, ``dtype``, versions
        of ``torch`` and ``lrstudy`` and the code's ``revision`` ("" outside of a repository): each value with
        the list of its seeds. ``ended``: when the first and the last training ended, seconds since 1970.
    """
    found: dict[str, Any] = {}
    for seed, run in runs.items():
        origin = run["origin"]
        told = {
            "machine": origin["machine"],
            "processor": origin["accelerator"] or origin["processor"],
            "device": run["device"],
            "dtype": run["dtype"],
            "torch": origin["versions"].get("torch", "unknown"),
            "lrstudy": origin["versions"].get("lrstudy", "unknown"),
            "revision": origin["revision"],
        }
        for name, value in told.items():
            found.setdefault(name, {}).setdefault(value, []).append(int(seed))
    ended = [run["origin"]["ended"] for run in runs.values()]
    return found | {"ended": [min(ended), max(ended)]}


def not_compared(cells: list[dict], seed: str, metric: str, across_dtypes: bool) -> dict[str, list[str]]:
    """Why the trainings of cells with one seed are not compared in ``metric``; {} if they are.

    Trainings in different dtypes are compared only if asked for. Seconds are compared only where the kind of
    processor, the device and the version of torch agree.

    Args:
        cells: as :func:`compare` returns them; all of them ran the seed.
        seed: which.
        metric: its name.
        across_dtypes: whether different dtypes were asked for.

    Returns:
        What differs, with every cell's value.
    """
    return _unlike(cells, seed, _must_agree(metric, across_dtypes))


def _must_agree(metric: str, across_dtypes: bool) -> tuple[str, ...]:
    names = () if across_dtypes else ("dtype",)
    return (*names, *_OF_THE_MACHINE) if metric in IN_SECONDS else names


def _unlike(cells: list[dict], seed: str, names: Collection[str]) -> dict[str, list[str]]:
    found = {
        name: [
            value for cell in cells for value, seeds in cell["origins"][name].items() if int(seed) in seeds
        ]
        for name in names
    }
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def metrics_by_seed(cell: dict) -> dict[str, dict[str, float | None]]:
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
    histories = epochs_by_seed(cell["history"])
    runs = cell["training"]["seeds"]
    decides = cell["training"]["headline"].removeprefix("test/")
    names = SCORES if decides in SCORES else (*SCORES, decides)
    values: dict[str, dict[str, float | None]] = {}
    for seed, scores in cell["scores"].items():
        run, rows = runs[seed], histories[seed]
        worked = works(cell, seed)
        found: dict[str, float | None] = {}
        is_view = "view_of" in cell
        for weights, prefix in TEST_PREFIX.items():
            for name in names:
                value = _score(scores[weights], name) if worked else _OF_DIVERGED[name]
                found[f"{prefix}/{name}"] = None if is_view and weights != "last" else value
        found |= dict.fromkeys(_OF_WORKING)
        if worked:
            cheapest = float(min(run["compute_seconds"]))
            found["seconds_per_epoch"] = cheapest
            if len(run["compute_seconds"]) > 1:
                found["epoch_slowdown"] = float(np.median(run["compute_seconds"])) / cheapest - 1
        if worked and is_view:
            found |= {
                f"validation/{name}": run["final"][f"validation_{AVERAGED}/{name}"] for name in _VALIDATED
            }
        elif worked:
            found |= _of_history(rows) | _of_the_end(run["final"], scores["last"])
            found["best_epoch"] = float(run["best_epoch"])
        for name, value in found.items():
            values.setdefault(name, {})[seed] = value if _is_number(value) else None
    return values


def _score(scores: dict[str, Any], name: str) -> float | None:
    """A test score of a network's weights; None where their predictions are no numbers."""
    if name != "balanced_accuracy":
        return scores[name]
    return None if scores["confusion"] is None else balanced_accuracy(scores["confusion"])


def _of_history(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """What the epochs of one training, first to last, say of it."""

    def series(name: str) -> list[float]:
        return [row[name] for row in rows]

    found: dict[str, float | None] = {"train/accuracy": rows[-1]["train/accuracy"]}
    for name in _VALIDATED:
        found[f"validation/{name}"] = rows[-1][f"validation/{name}"]
        found[f"validation_last_fifth/{name}"] = tail_mean(series(f"validation/{name}"))
    turned = turn(series("validation/loss"), series("validation/loss_standard_error"))
    if turned is not None:
        epoch, found["overfitting"] = turned
        found["turning_epoch"] = None if epoch is None else float(epoch)
    return found


def _of_the_end(final: dict[str, float | None], test: dict[str, Any]) -> dict[str, float | None]:
    """What was measured once, when a training had finished, and the gaps to its test metrics."""
    averages = [f"validation_{average}/{name}" for average in AVERAGES for name in _VALIDATED]
    of_train = {name: final[name] for name in ("train_evaluated/loss", "train_evaluated/accuracy")}
    found = {name: final[name] for name in averages} | of_train
    if None not in of_train.values():
        found["generalization_gap"] = of_train["train_evaluated/accuracy"] - test["accuracy"]
        found["generalization_gap_loss"] = test["loss"] - of_train["train_evaluated/loss"]
    return found


def ranking(
    schedules: dict[str, dict], settings: CompareParams, complete: bool = True, due: bool = True
) -> dict[str, Any]:
    """How one model's schedules rank by the headline metric, over the seeds that all of them ran.

    A diverged run counts as 0 and so has the worst rank of its seed. A seed at which the schedules' trainings
    have several dtypes is left out unless these are to be compared.

    Args:
        schedules: the model's part of ``cells``, as :func:`compare` returns it. No views: without any effect
            a schedule and its own average still have like ranks, which the test takes for chance.
        settings: the confidence, and whether dtypes are compared.
        complete: whether all of the model's schedules ran; without one, the others' ranks mean other things.
        due: whether all of them ran all planned seeds: before the last one nothing is tested.

    Returns:
        ``metric``, ``num_seeds``, ``left_out``: by seed, what differs with the value of every schedule;
        ``chosen``: the dynamic schedule that validation chose (:func:`chosen_by_validation`);
        ``ranks``: the average rank by schedule, 1 is best; ``friedman_p``, the ``friedman_method`` that found
        it and the ``smallest_friedman_p`` that so few seeds can reach; ``critical_difference`` (Nemenyi's),
        and ``groups``: lists of schedules that it does not tell apart, best rank first. Ranks and what
        follows are None where there are fewer than 3 schedules or 2 seeds, or the rows are not ``complete``;
        what follows the ranks is None until a test is ``due``.
    """
    metric = next(iter(schedules.values()))["headline"]
    values, seeds = _headline_values(list(schedules.values()))
    left_out = {
        seed: why
        for seed in seeds
        if (why := not_compared(list(schedules.values()), seed, metric, settings.across_dtypes))
    }
    values = values[[seed not in left_out for seed in seeds]]
    found = {
        "metric": metric,
        "num_seeds": len(values),
        "left_out": left_out,
        "chosen": chosen_by_validation(schedules, settings.reference),
        "ranks": None,
        "friedman_p": None,
        "friedman_method": None,
        "smallest_friedman_p": None,
        "critical_difference": None,
        "groups": None,
    }
    if len(schedules) < 3 or len(values) < 2 or not complete:
        return found
    names = list(schedules)
    found["ranks"] = dict(zip(names, average_ranks(values).tolist(), strict=True))
    if not due:
        return found
    groups = not_told_apart(values, settings.confidence)
    friedman = friedman_p(values)
    return found | {
        "friedman_p": friedman.p,
        "friedman_method": friedman.method,
        "smallest_friedman_p": smallest_friedman_p(*values.shape),
        "critical_difference": critical_difference(len(values), len(names), settings.confidence),
        "groups": [[names[column] for column in group] for group in groups],
    }


def across(
    cells: dict[str, dict[str, dict]], settings: CompareParams, missing: Collection[tuple[str, str]] = ()
) -> dict[str, dict]:
    """Each schedule's difference to the reference over all models, in units of its spread.

    A point of CIFAR-10's accuracy and one of IMDB's F1 are not the same. So each model's mean difference is
    divided by the standard deviation of its paired differences, and every model has the same weight, however
    many seeds it ran (:func:`lrstudy.analysis.statistics.standardized_mean`).

    A network that stands in several rows is counted once, by the row that searched for its values: a row that
    is ``tuned_as`` it has the same seeds, values and data and is no further evidence of all models.

    Args:
        cells: as :func:`compare` returns them, with their views.
        settings: the reference and the confidence.
        missing: (model, schedule) of the cells that the study has but that did not run.

    Returns:
        By schedule that was compared on every model which has it and is counted: ``effect``, ``interval``,
        ``by_model``: each counted model's effect, ``num_models``, ``num_runs`` (pairs) and ``num_diverged``
        of the schedule's runs among them. Effect and interval are None where a model's spread is unknown or
        0.
    """
    found = {}
    counted = {
        model: row
        for model, row in cells.items()
        if not any("tuned_as" in cell for cell in row.values())
        and (settings.reference in row or (model, settings.reference) in missing)
    }
    for name in dict.fromkeys(name for row in counted.values() for name in row):
        pairs = {
            model: row[name]["metrics"][row[name]["headline"]].get("difference", {}).get("values")
            for model, row in counted.items()
            if name in row
        }
        incomplete = any({(model, name), (model, settings.reference)} & set(missing) for model in counted)
        if name == settings.reference or incomplete or not all(pairs.values()):
            continue
        values = {model: list(by_seed.values()) for model, by_seed in pairs.items()}
        summary = standardized_mean(list(values.values()), settings.confidence)
        found[name] = {
            "effect": summary and summary.mean,
            "interval": summary and summary.interval,
            "by_model": summary and dict(zip(values, summary.effects, strict=True)),
            "num_models": len(values),
            "num_runs": sum(map(len, values.values())),
            "num_diverged": sum(
                int(seed) in cells[model][name]["diverged"]
                for model, by_seed in pairs.items()
                for seed in by_seed
            ),
        }
    return found


MOVES = 0.1
"""A rate that changes by less than this share of its largest value is constant."""


def lr_range(cell: dict) -> list[float]:
    """[lowest, highest] learning rate of the training whose rate moves most: base rate and epochs' ends.

    Without the epochs of warmup, in which a static rate moves, too. Of one training, since two searches give
    two base rates, and a rate that is constant in both does not move.
    """
    warmup = cell["training"]["settings"]["schedule"]["warmup_epochs"]
    rows = epochs_by_seed(cell["history"])
    ranges = []
    for seed, run in cell["training"]["seeds"].items():
        rates = [row["lr"] for row in rows[seed] if row["epoch"] >= warmup and np.isfinite(row["lr"])]
        rates.append(run["base_lr"])
        ranges.append([float(min(rates)), float(max(rates))])
    return max(ranges, key=lambda found: (found[1] - found[0]) / found[1])


def by_search(runs: dict[str, dict]) -> dict[str, dict]:
    """By number of the search the ``seeds`` that took its ``values``, ``base_lr`` and all ``parameters``.

    Args:
        runs: by seed, what ``train`` wrote of it.
    """
    found: dict[str, dict] = {}
    for seed, run in sorted(runs.items(), key=lambda item: int(item[0])):
        told = {name: run[name] for name in ("values", "base_lr", "parameters")} | {"seeds": []}
        found.setdefault(str(run["search"]), told)["seeds"].append(int(seed))
    return dict(sorted(found.items()))


def moves(cell: dict) -> bool:
    """Whether a described cell's rate changes by a tenth or more over the training: else it is static."""
    low, high = cell["lr_range"]
    return high - low >= MOVES * high


def dynamic_rows(schedules: dict[str, dict], reference: str) -> list[str]:
    """The rows of a model that differ from ``reference`` in that their rate moves, and in nothing else.

    Another optimizer or controller would be a second difference. Empty where the reference did not run.
    """
    base = schedules.get(reference)
    if base is None:
        return []
    return [
        name
        for name, cell in schedules.items()
        if name != reference
        and moves(cell)
        and (cell["controller"], cell["optimizer"]) == (base["controller"], base["optimizer"])
    ]


def chosen_by_validation(schedules: dict[str, dict], reference: str) -> str | None:
    """The dynamic row with the lowest validation loss after the last epoch, a mean over its seeds.

    Test data choose nothing: what is said of the best schedule is said of this one. The seeds are those that
    all dynamic rows ran; a row of which one of these diverged comes after all that have none. None where no
    row is dynamic or no seed is common.
    """
    rows = dynamic_rows(schedules, reference)
    losses = {name: schedules[name]["metrics"]["validation/loss"]["values"] for name in rows}
    seeds = [
        seed for seed in (losses[rows[0]] if rows else ()) if all(seed in found for found in losses.values())
    ]
    if not seeds:
        return None

    def loss(name: str) -> tuple[int, float]:
        known = [losses[name][seed] for seed in seeds if losses[name][seed] is not None]
        return len(seeds) - len(known), float(np.mean(known)) if known else np.inf

    return min(rows, key=loss)


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


def works(cell: dict, seed: str) -> bool:
    """Whether the training of a seed ended with a network that works: it finished, and predicts numbers."""
    finished = cell["training"]["seeds"][seed]["status"] == "finished"
    return finished and cell["scores"][seed]["last"]["accuracy"] is not None


def epochs_by_seed(history: list[dict]) -> dict[str, list[dict]]:
    """The rows of each seed, first epoch first."""
    grouped: dict[str, list[dict]] = {}
    for row in sorted(history, key=lambda row: row["epoch"]):
        grouped.setdefault(str(int(row["seed"])), []).append(row)
    return grouped


def _headline_values(cells: list[dict]) -> tuple[np.ndarray, list[str]]:
    """The headline metrics (num_seeds, num_cells) of described cells at the seeds that all of them ran."""
    by_seed = [cell["metrics"][cell["headline"]]["values"] for cell in cells]
    seeds = [seed for seed in (by_seed[0] if by_seed else ()) if all(seed in values for values in by_seed)]
    return np.array([[values[seed] for values in by_seed] for seed in seeds]), seeds


def _is_number(value: float | None) -> bool:
    """Whether a measure is defined and finite: none else can be averaged or written to JSON."""
    return value is not None and bool(np.isfinite(value))


def _describe(cell: dict, settings: CompareParams) -> dict:
    training = cell["training"]
    metrics: dict[str, dict[str, Any]] = {}
    for name, found in metrics_by_seed(cell).items():
        values = [value for value in found.values() if value is not None]
        metrics[name] = {"values": found, "mean": None, "spread": None, "interval": None}
        if values:
            metrics[name] |= {
                "mean": float(np.mean(values)),
                "spread": spread(values),
                "interval": t_interval(values, settings.confidence),
            }
    chosen, searched = training["settings"], by_search(training["seeds"])
    first = next(iter(searched.values()))
    return {
        "seeds": [int(seed) for seed in training["seeds"]],
        "diverged": [int(seed) for seed in training["seeds"] if not works(cell, seed)],
        "base_lr": first["base_lr"],
        "parameters": first["parameters"],
        "by_search": searched,
        "warmup_epochs": chosen["schedule"]["warmup_epochs"],
        "optimizer": chosen["optimizer"]["name"],
        "controller": chosen["controller"]["name"],
        "num_epochs": chosen["num_epochs"],
        "lr_range": lr_range(cell),
        "compute_seconds": {
            seed: float(sum(run["compute_seconds"])) for seed, run in training["seeds"].items()
        },
        "tuned": training["tuned"],
        "tuning": _tuning(cell["tuning"]),
        "interventions": {seed: len(run["interventions"]) for seed, run in training["seeds"].items()},
        "identities": {seed: run["identity"] for seed, run in training["seeds"].items()},
        "origins": origins(training["seeds"]),
        "dataset": training["dataset"],
        "headline": training["headline"],
        **({"view_of": cell["view_of"]} if "view_of" in cell else {}),
        **({"tuned_as": training["tuned_as"]} if "tuned_as" in training else {}),
        "metrics": metrics,
    }


def _tuning(best: dict | None) -> dict | None:
    """What the search found, without its single trials; None where there was none for this cell.

    ``num_trials`` are those that were asked for; ``num_tried`` of each search those that there were, which
    are fewer where the space has no more.
    """
    if best is None or best["source"] == "defaults":
        return None
    best_of_search = ("sampler_seed", "values", "objective", "best_trial", "exhausted")
    kept = (
        "num_trials", "seeds", "finalists", "confirm_seeds", "cost", "exhausted", "terms",
        "objective", "best_trial", "search_objective", "defaults_objective", "within_the_noise",
        "sensitivity", "budget",
    )  # fmt: skip
    searches = [
        {name: found[name] for name in best_of_search} | {"num_tried": len(found["trials"])}
        for found in best["searches"]
    ]
    return {name: best[name] for name in kept} | {
        "searches": searches,
        "largest_rise": largest_rise(best["sensitivity"]),
    }


def _add_differences(
    cell: dict,
    reference: dict,
    key: str,
    studied: list[str],
    settings: CompareParams,
    names: Collection[str] | None = None,
    right: tuple[dict, dict] = ({}, {}),
) -> None:
    """Put the paired differences of ``names``, by default of all metrics, under ``key``.

    Args:
        studied: the seeds of the study, in their order.
        right: of the cell and of the reference, by seed, which test examples the weights got right.
    """
    both = [cell, reference]
    unlike = {
        str(seed): _unlike(both, str(seed), ("dtype", *_OF_THE_MACHINE))
        for seed in cell["seeds"]
        if seed in reference["seeds"]
    }
    for name, metric in cell["metrics"].items():
        if names is not None and name not in names:
            continue
        other = reference["metrics"][name]["values"]
        pairs = {
            seed: value - other[seed]
            for seed, value in metric["values"].items()
            if value is not None and other.get(seed) is not None
        }
        if not pairs:
            continue
        must_agree = _must_agree(name, settings.across_dtypes)
        left_out = {
            seed: why
            for seed in pairs
            if (why := {what: found for what, found in unlike[seed].items() if what in must_agree})
        }
        pairs = {seed: value for seed, value in pairs.items() if seed not in left_out}
        mixed = {seed: unlike[seed] for seed in pairs if unlike[seed]}
        metric[key] = {
            "values": pairs,
            "mean": None,
            "interval": None,
            "examples_interval": None,
            "left_out": left_out,
            "mixed": mixed,
        }
        if not pairs:
            continue
        values = list(pairs.values())
        ran = [str(seed) for seed in cell["seeds"] if seed in reference["seeds"]]
        metric[key] |= {
            "mean": float(np.mean(values)),
            "interval": t_interval(values, settings.confidence),
        }
        if name == "test/accuracy" and all(seed in found for found in right for seed in pairs):
            ours, theirs = ([found[seed] for seed in pairs] for found in right)
            metric[key]["examples_interval"] = seeds_and_examples_interval(ours, theirs, settings.confidence)
        if name in TESTED:
            look = len(values) >= MIN_SEEDS and looks_reached(settings.looks, studied, ran)
            metric[key] |= {
                "p": _p(pairs, studied, settings.looks, ran) if look else None,
                "probability_of_improvement": probability_of_improvement(values),
            }


def _p(pairs: dict[str, float], studied: list[str], looks: list[int], ran: list[str]) -> float:
    values = np.array(list(pairs.values()))
    return p_of_all_looks(lambda chosen: signed_rank_p(values[chosen]), list(pairs), studied, looks, ran=ran)


def _adjust(rows: Collection[dict], num_missing: int, key: str) -> None:
    """Holm over the schedules of one model, for each tested metric's differences; None where there is no p.

    A schedule that did not run, or that has too few pairs for a test, is a test with p = 1.
    """
    for name in TESTED:
        found = [cell["metrics"][name][key] for cell in rows if key in cell["metrics"].get(name, {})]
        for difference in found:
            difference["p_holm"] = None
        tested = [difference for difference in found if difference.get("p") is not None]
        family = [difference["p"] for difference in tested]
        family += [1.0] * (len(found) - len(tested) + num_missing)
        for difference, adjusted in zip(tested, holm(family), strict=False):
            difference["p_holm"] = float(adjusted)
