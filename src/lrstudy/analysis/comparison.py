"""Cells held against each other: paired differences, ranks within a model, effects across models."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from lrstudy.analysis.cells import averaged_view, described
from lrstudy.analysis.looks import looks_reached, p_of_all_looks
from lrstudy.analysis.records import (
    AcrossModels,
    CellResult,
    Cells,
    Difference,
    Kind,
    MetricValues,
    ModelResult,
    Unlike,
    UnlikePair,
)
from lrstudy.analysis.statistics import (
    MIN_SEEDS,
    average_ranks,
    critical_difference,
    friedman_p,
    holm,
    not_distinguished,
    probability_of_improvement,
    seeds_and_examples_interval,
    signed_rank_p,
    smallest_friedman_p,
    standardized_mean,
    t_interval,
)
from lrstudy.recipe.config import CompareParams
from lrstudy.study.collect import MeasuredCell

TESTED = ("test/accuracy", "test/f1_macro", "test/f1", "test/balanced_accuracy")
"""Metrics whose paired differences to the reference are tested; the others get intervals only."""

IN_SECONDS = ("seconds_per_epoch", "seconds_to_target")
"""Metrics that are of the machine as much as of the training."""

_OF_THE_MACHINE: tuple[Kind, ...] = ("processor", "device", "torch")
"""What a pair may differ in and be compared all the same, but in seconds."""


class Row(Protocol):
    """What a row is known by before it has run: a cell of comparison.json, or one that is planned."""

    @property
    def controller(self) -> str: ...

    @property
    def optimizer(self) -> str: ...

    @property
    def lr_range(self) -> tuple[float, float]: ...


class Compared(NamedTuple):
    """The statistics of cells, the ranks of each model's schedules, and their effects over all models."""

    cells: Cells
    views: Cells  # by model <reference>_averaged
    models: dict[str, ModelResult]
    across_models: dict[str, AcrossModels]


def compare(
    cells: Mapping[str, Mapping[str, MeasuredCell]],
    settings: CompareParams,
    missing: Collection[tuple[str, str]] = (),
    planned: Sequence[int] | None = None,
) -> Compared:
    """Statistics of every cell, of the schedules within each model, and of the schedules across models.

    A metric of a cell has a ``difference`` where the reference ran the same seeds. It says by seed which
    pairs are ``left_out`` (:func:`not_compared`), and which of those compared are ``mixed``, each with what
    differs. Where none is left its mean is None. That of test/accuracy has ``examples_interval``, over seeds
    and test examples, where it is known of all pairs which examples were right. Accuracy and F1 are tested:
    ``p`` of all looks that were planned and reached (:func:`lrstudy.analysis.looks.p_of_all_looks`),
    ``p_holm`` adjusted over the model's schedules; both None before the first one, and with fewer than
    MIN_SEEDS pairs.

    A view is the reference's trainings by their averages (:func:`lrstudy.analysis.cells.averaged_view`). In
    TESTED metrics every cell but the reference also has a ``difference_to_averaged``: a schedule that does
    not beat it has done nothing that an average does not do for free.

    Args:
        cells: by model and schedule.
        settings: the reference schedule, the confidence and whether dtypes are compared.
        missing: (model, schedule) of the cells that the study has but that did not run. They stay in the
            family of tests, so that they change no other cell's numbers, and leave their model unranked.
        planned: the study's seeds in their order, those that have not run yet included; None: all that a cell
            has. A pair of rows is tested when both have all seeds of a planned look; until then its numbers
            are shown.
    """
    ran = [seed for schedules in cells.values() for cell in schedules.values() for seed in cell.seeds]
    studied = list(dict.fromkeys(ran)) if planned is None else [str(seed) for seed in planned]
    compared: Cells = {}
    views: Cells = {}
    for model, schedules in cells.items():
        rows = {name: described(cell, settings.confidence) for name, cell in schedules.items()}
        num_missing = sum(name == model for name, _ in missing)
        compared[model], views[model] = _held_against_reference(
            schedules, rows, settings, studied, num_missing
        )
    return Compared(
        compared,
        views,
        {
            model: ranking(
                schedules,
                settings,
                complete=all(name != model for name, _ in missing),
                due=all(set(map(int, studied)) <= set(cell.seeds) for cell in schedules.values()),
            )
            for model, schedules in compared.items()
        },
        across({model: row | views[model] for model, row in compared.items()}, settings, missing),
    )


def _held_against_reference(
    schedules: Mapping[str, MeasuredCell],
    rows: dict[str, CellResult],
    settings: CompareParams,
    studied: list[str],
    num_missing: int,
) -> tuple[dict[str, CellResult], dict[str, CellResult]]:
    """A model's rows with their differences, and its view; as they are where the reference did not run."""
    if settings.reference not in schedules:
        return rows, {}
    measured, base = schedules[settings.reference], rows[settings.reference]
    name_of_view = f"{settings.reference}_averaged"
    view = described(averaged_view(measured), settings.confidence)
    others = {name: row for name, row in rows.items() if name != settings.reference}
    to_base = {
        name: _differences(row, base, studied, settings, list(row.metrics), _right(schedules[name], measured))
        for name, row in others.items()
    }
    to_view = {name: _differences(row, view, studied, settings, TESTED) for name, row in others.items()}
    of_view = {name_of_view: _differences(view, base, studied, settings, list(view.metrics))}
    # The view is no schedule: with it the others' family has as many tests as without.
    to_base, to_view = _adjusted(to_base, num_missing), _adjusted(to_view, num_missing)
    of_view = _adjusted(of_view, 0)
    return (
        {
            name: _with_differences(row, to_base.get(name, {}), to_view.get(name, {}))
            for name, row in rows.items()
        },
        {name_of_view: _with_differences(view, of_view[name_of_view], {})},
    )


def _right(cell: MeasuredCell, reference: MeasuredCell) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By seed which test examples the last weights of both got right, where both are known."""
    return {
        seed: (run.right, other.right)
        for seed, run in cell.seeds.items()
        if run.right is not None
        and (other := reference.seeds.get(seed)) is not None
        and other.right is not None
    }


def _with_differences(
    cell: CellResult, to_base: Mapping[str, Difference], to_view: Mapping[str, Difference]
) -> CellResult:
    metrics: dict[str, MetricValues] = {}
    for name, metric in cell.metrics.items():
        more = {
            key: differences[name]
            for key, differences in (("difference", to_base), ("difference_to_averaged", to_view))
            if name in differences
        }
        metrics[name] = metric.model_copy(update=more) if more else metric
    return cell.model_copy(update={"metrics": metrics})


def not_compared(cells: Sequence[CellResult], seed: str, metric: str, across_dtypes: bool) -> Unlike:
    """Why the trainings of cells with one seed are not compared in ``metric``; {} if they are.

    Trainings in different dtypes are compared only if asked for. Seconds are compared only where the kind of
    processor, the device and the version of torch agree.

    Args:
        cells: all of them ran the seed.
        seed: which.
        metric: its name.
        across_dtypes: whether different dtypes were asked for.

    Returns:
        What differs, with every cell's value.
    """
    return _unlike(cells, seed, _must_agree(metric, across_dtypes))


def _must_agree(metric: str, across_dtypes: bool) -> tuple[Kind, ...]:
    kinds: tuple[Kind, ...] = () if across_dtypes else ("dtype",)
    return (*kinds, *_OF_THE_MACHINE) if metric in IN_SECONDS else kinds


def _unlike(cells: Sequence[CellResult], seed: str, kinds: Collection[Kind]) -> Unlike:
    values = {
        kind: [
            value for cell in cells for value, seeds in cell.origins.of(kind).items() if int(seed) in seeds
        ]
        for kind in kinds
    }
    return {kind: of_each for kind, of_each in values.items() if len(set(of_each)) > 1}


def ranking(
    schedules: Mapping[str, CellResult], settings: CompareParams, complete: bool = True, due: bool = True
) -> ModelResult:
    """How one model's schedules rank by the headline metric, over the seeds that all of them ran.

    A diverged run counts as 0 and so has the worst rank of its seed. A seed at which the schedules' trainings
    have several dtypes is left out unless these are to be compared.

    Args:
        schedules: no views: without any effect a schedule and its own average still have like ranks, which
            the test takes for chance.
        settings: the confidence, and whether dtypes are compared.
        complete: whether all of the model's schedules ran; without one, the others' ranks mean other things.
        due: whether all of them ran all planned seeds: before the last one nothing is tested.

    Returns:
        With ``left_out``: by seed, what differs with the value of every schedule; ``chosen``: the dynamic
        schedule that validation chose (:func:`chosen_by_validation`); ``ranks``: the average rank by
        schedule, 1 is best; ``smallest_friedman_p``: that so few seeds can reach; ``critical_difference``
        (Nemenyi's), and ``groups``: lists of schedules that it does not tell apart, best rank first. Ranks
        and what follows are None where there are fewer than 3 schedules or 2 seeds, or the rows are not
        ``complete``; what follows the ranks is None until a test is ``due``.
    """
    rows = list(schedules.values())
    metric = rows[0].headline
    values, seeds = _headline_values(rows)
    left_out = {
        seed: why for seed in seeds if (why := not_compared(rows, seed, metric, settings.across_dtypes))
    }
    values = values[[seed not in left_out for seed in seeds]]
    unranked = ModelResult(
        metric=metric,
        num_seeds=len(values),
        left_out=left_out,
        chosen=chosen_by_validation(schedules, settings.reference),
        ranks=None,
        friedman_p=None,
        friedman_method=None,
        smallest_friedman_p=None,
        critical_difference=None,
        groups=None,
    )
    if len(schedules) < 3 or len(values) < 2 or not complete:
        return unranked
    names = list(schedules)
    ranks = dict(zip(names, average_ranks(values).tolist(), strict=True))
    if not due:
        return unranked.model_copy(update={"ranks": ranks})
    groups = not_distinguished(values, settings.confidence)
    friedman = friedman_p(values)
    return unranked.model_copy(
        update={
            "ranks": ranks,
            "friedman_p": friedman.p,
            "friedman_method": friedman.method,
            "smallest_friedman_p": smallest_friedman_p(*values.shape),
            "critical_difference": critical_difference(len(values), len(names), settings.confidence),
            "groups": [[names[column] for column in group] for group in groups],
        }
    )


def across(
    cells: Mapping[str, Mapping[str, CellResult]],
    settings: CompareParams,
    missing: Collection[tuple[str, str]] = (),
) -> dict[str, AcrossModels]:
    """Each schedule's difference to the reference over all models, in units of its spread.

    A point of CIFAR-10's accuracy and one of IMDB's F1 are not the same. So each model's mean difference is
    divided by the standard deviation of its paired differences, and every model has the same weight, however
    many seeds it ran (:func:`lrstudy.analysis.statistics.standardized_mean`).

    A network that stands in several rows is counted once, by the row that searched for its values: a row that
    is ``tuned_as`` it has the same seeds, values and data and is no further evidence of all models.

    Args:
        cells: with their views.
        settings: the reference and the confidence.
        missing: (model, schedule) of the cells that the study has but that did not run.

    Returns:
        By schedule that was compared on every model which has it and is counted; ``num_runs`` are pairs.
        Effect and interval are None where a model's spread is unknown or 0.
    """
    effects = {}
    counted = {
        model: row
        for model, row in cells.items()
        if all(cell.tuned_as is None for cell in row.values())
        and (settings.reference in row or (model, settings.reference) in missing)
    }
    for name in dict.fromkeys(name for row in counted.values() for name in row):
        pairs = {
            model: {} if (difference := row[name].headline_values.difference) is None else difference.values
            for model, row in counted.items()
            if name in row
        }
        incomplete = any({(model, name), (model, settings.reference)} & set(missing) for model in counted)
        if name == settings.reference or incomplete or not all(pairs.values()):
            continue
        values = {model: list(by_seed.values()) for model, by_seed in pairs.items()}
        summary = standardized_mean(list(values.values()), settings.confidence)
        effects[name] = AcrossModels(
            effect=summary and summary.mean,
            interval=summary and summary.interval,
            by_model=summary and dict(zip(values, summary.effects, strict=True)),
            num_models=len(values),
            num_runs=sum(map(len, values.values())),
            num_diverged=sum(
                int(seed) in cells[model][name].diverged
                for model, by_seed in pairs.items()
                for seed in by_seed
            ),
        )
    return effects


MOVES = 0.1
"""A rate that changes by less than this share of its largest value is constant."""


def moves(row: Row) -> bool:
    """Whether a row's rate changes by a tenth or more over the training: else it is static."""
    low, high = row.lr_range
    return high - low >= MOVES * high


AnyRow = TypeVar("AnyRow", bound=Row)


def dynamic_rows(schedules: Mapping[str, AnyRow], reference: str) -> list[str]:
    """The rows of a model that differ from ``reference`` in that their rate moves, and in nothing else.

    Another optimizer or controller would be a second difference. Empty where the reference did not run.
    """
    base = schedules.get(reference)
    if base is None:
        return []
    return [
        name
        for name, row in schedules.items()
        if name != reference
        and moves(row)
        and (row.controller, row.optimizer) == (base.controller, base.optimizer)
    ]


def chosen_by_validation(schedules: Mapping[str, CellResult], reference: str) -> str | None:
    """The dynamic row with the lowest validation loss after the last epoch, a mean over its seeds.

    Test data choose nothing: what is said of the best schedule is said of this one. The seeds are those that
    all dynamic rows ran; a row of which one of these diverged comes after all that have none. None where no
    row is dynamic or no seed is common.
    """
    rows = dynamic_rows(schedules, reference)
    losses = {name: schedules[name].metrics["validation/loss"].values for name in rows}
    seeds = [
        seed
        for seed in (losses[rows[0]] if rows else ())
        if all(seed in by_seed for by_seed in losses.values())
    ]
    if not seeds:
        return None

    def loss(name: str) -> tuple[int, float]:
        known = [loss for seed in seeds if (loss := losses[name][seed]) is not None]
        return len(seeds) - len(known), float(np.mean(known)) if known else np.inf

    return min(rows, key=loss)


def _headline_values(cells: Sequence[CellResult]) -> tuple[np.ndarray, list[str]]:
    """The headline metrics (num_seeds, num_cells) of cells at the seeds that all of them ran."""
    by_seed = [cell.headline_values.values for cell in cells]
    seeds = [seed for seed in by_seed[0] if all(seed in values for values in by_seed)]
    return np.array([[values[seed] for values in by_seed] for seed in seeds]), seeds


def _differences(
    cell: CellResult,
    reference: CellResult,
    studied: list[str],
    settings: CompareParams,
    names: Collection[str],
    right: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> dict[str, Difference]:
    """The paired differences of those of ``names`` that have a pair.

    Args:
        studied: the seeds of the study, in their order.
        right: by seed, which test examples the weights of cell and reference got right.
    """
    both = [cell, reference]
    common = [str(seed) for seed in cell.seeds if seed in reference.seeds]
    unlike: dict[str, UnlikePair] = {
        seed: {kind: (one, other) for kind, (one, other) in differing.items()}
        for seed in common
        for differing in [_unlike(both, seed, ("dtype", *_OF_THE_MACHINE))]
    }
    differences = {}
    for name, metric in cell.metrics.items():
        if name not in names:
            continue
        others = reference.metrics[name].values
        pairs = {
            seed: value - other
            for seed, value in metric.values.items()
            if value is not None and (other := others.get(seed)) is not None
        }
        if pairs:
            differences[name] = _difference(name, pairs, unlike, studied, common, settings, right or {})
    return differences


def _difference(
    name: str,
    pairs: dict[str, float],
    unlike: Mapping[str, UnlikePair],
    studied: list[str],
    common: list[str],
    settings: CompareParams,
    right: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Difference:
    """Of one metric, from all its ``pairs``; ``common``: the seeds that both ran."""
    must_agree = _must_agree(name, settings.across_dtypes)
    left_out = {
        seed: why
        for seed in pairs
        if (why := {kind: values for kind, values in unlike[seed].items() if kind in must_agree})
    }
    pairs = {seed: value for seed, value in pairs.items() if seed not in left_out}
    values = list(pairs.values())
    examples = None
    if values and name == "test/accuracy" and all(seed in right for seed in pairs):
        ours, theirs = zip(*(right[seed] for seed in pairs), strict=True)
        examples = seeds_and_examples_interval(list(ours), list(theirs), settings.confidence)
    tests: dict[str, float | None] = {}
    if values and name in TESTED:
        due = len(values) >= MIN_SEEDS and looks_reached(settings.looks, studied, common)
        tests = {
            "p": _p(pairs, studied, settings.looks, common) if due else None,
            "probability_of_improvement": probability_of_improvement(values),
        }
    return Difference(
        values=pairs,
        mean=float(np.mean(values)) if values else None,
        interval=t_interval(values, settings.confidence) if values else None,
        examples_interval=examples,
        left_out=left_out,
        mixed={seed: unlike[seed] for seed in pairs if unlike[seed]},
        **tests,
    )


def _p(pairs: Mapping[str, float], studied: list[str], looks: list[int], ran: list[str]) -> float:
    values = np.array(list(pairs.values()))
    return p_of_all_looks(lambda chosen: signed_rank_p(values[chosen]), list(pairs), studied, looks, ran=ran)


def _adjusted(
    rows: Mapping[str, dict[str, Difference]], num_missing: int
) -> dict[str, dict[str, Difference]]:
    """The differences of a model's rows with ``p_holm``: over the schedules, for each tested metric.

    A schedule that did not run, or that has too few pairs for a test, is a test with p = 1. None where there
    is no p.
    """
    adjusted = {name: dict(differences) for name, differences in rows.items()}
    for metric in TESTED:
        family = {name: of[metric].p for name, of in rows.items() if metric in of}
        tested = {name: p for name, p in family.items() if p is not None}
        others = [1.0] * (len(family) - len(tested) + num_missing)
        by_holm = dict(zip(tested, holm([*tested.values(), *others]), strict=False))
        for name in family:
            p_holm = float(by_holm[name]) if name in by_holm else None
            adjusted[name][metric] = rows[name][metric].model_copy(update={"p_holm": p_holm})
    return adjusted
