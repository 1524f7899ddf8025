"""What was measured: the main tables, the ranks within a model, the effects over all models."""

from typing import NamedTuple

from lrstudy.analysis.looks import alpha_spent
from lrstudy.analysis.records import CellResult, Comparison, Difference, Kind, Reference, UnlikePair
from lrstudy.analysis.statistics import MIN_SEEDS
from lrstudy.controllers import CONTROLLERS
from lrstudy.report.document import Figure, Section, Table
from lrstudy.report.sentences import paragraphs, sentence
from lrstudy.report.series import difference_of, ranks
from lrstudy.report.words import (
    by_search,
    cell_states,
    headline,
    interval_words,
    number_words,
    p_words,
    parameters_words,
    percent_confidence,
    percent_words,
    points_words,
    reached_words,
    state_words,
    tuned_rows,
)

_METRICS = {
    "test/accuracy": "accuracy",
    "test/balanced_accuracy": "balanced accuracy",
    "test/f1_macro": "macro F1",
    "test/f1": "F1",
}


def results(comparison: Comparison) -> Section:
    """What stands above and below the tables of all models."""
    return Section(
        "Test metrics after the last epoch",
        text=paragraphs(
            "results",
            protocol=comparison.protocol,
            level=comparison.protocol.level,
            min_seeds=MIN_SEEDS,
            plan=_plan(comparison),
            unbalanced=_unbalanced(comparison),
            views=any(comparison.views.values()),
            linear_references=_linear(comparison),
        ),
        after=paragraphs(
            "results",
            "after",
            protocol=comparison.protocol,
            diverged=[
                f"{model}-{schedule} seed {seed}"
                for model, schedule, cell in comparison.each()
                for seed in cell.diverged
            ],
            origins=_origins(comparison),
            other_optimizers=_other_optimizers(comparison),
            tuned_rows=tuned_rows(comparison),
            controllers=_controllers(comparison),
            states=cell_states(comparison),
            absent=_absent(comparison),
        ),
    )


class Plan(NamedTuple):
    """When the study is tested: the planned looks, what those that were reached have spent of the level.

    Where ``num_seeds`` are ``between`` looks: the last one before them and the next, None where none is.
    """

    looks: list[int]
    spent: dict[int, float]
    num_seeds: int
    between: bool
    last: int | None
    next: int | None


def _plan(comparison: Comparison) -> Plan:
    looks, count = comparison.protocol.looks, max(len(cell.seeds) for _, _, cell in comparison.each())
    reached = [look for look in looks if look <= count]
    return Plan(
        looks,
        {look: alpha_spent(look / looks[-1], comparison.protocol.level) for look in reached},
        count,
        count not in looks,
        reached[-1] if reached else None,
        next((look for look in looks if look > count), None),
    )


class Unbalanced(NamedTuple):
    """A data set whose classes differ in size: how many test examples, of which classes, and what decides."""

    label: str
    total: int
    largest: str
    most: int
    smallest: str
    fewest: int
    metric: str


def _unbalanced(comparison: Comparison) -> list[Unbalanced]:
    unbalanced = []
    for dataset, counts in comparison.protocol.test_classes.items():
        largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        unbalanced.append(
            Unbalanced(
                comparison.data[dataset].label,
                sum(counts.values()),
                largest,
                counts[largest],
                smallest,
                counts[smallest],
                _METRICS[comparison.protocol.headline[dataset]],
            )
        )
    return unbalanced


class Linear(NamedTuple):
    """A data set's linear reference and its scores by their names in words."""

    label: str
    reference: Reference
    scores: dict[str, float]


def _linear(comparison: Comparison) -> list[Linear]:
    return [
        Linear(
            comparison.data[dataset].label,
            reference,
            {_METRICS.get(name, name): value for name, value in reference.metrics.items()},
        )
        for dataset, reference in comparison.references.items()
    ]


class TrainedIn(NamedTuple):
    """Seeds that were trained in one dtype."""

    dtype: str
    seeds: list[int]


class CellOrigins(NamedTuple):
    """What a reader of the main table must know of a cell's machines and dtypes.

    ``trained_in`` where there are several dtypes; the pairs that are left out, and those compared ``across``.
    """

    name: str
    trained_in: list[TrainedIn]
    left_out: dict[str, UnlikePair]
    across: dict[str, UnlikePair]


class Origins(NamedTuple):
    """Kinds of machine, dtypes and versions of torch in all; the cells of which more is to tell."""

    kinds: list[str]
    dtypes: list[str]
    versions: list[str]
    alike: bool
    cells: list[CellOrigins]


def _origins(comparison: Comparison) -> Origins:
    def values(kind: Kind) -> list[str]:
        return list(
            dict.fromkeys(value for _, _, cell in comparison.each() for value in cell.origins.of(kind))
        )

    kinds, dtypes, versions = values("processor"), values("dtype"), values("torch")
    cells = []
    for model, schedule, cell in comparison.each():
        dtype = cell.origins.dtype
        difference = cell.metrics[headline(comparison, cell)].difference
        mixed = difference.mixed if difference is not None else {}
        told = CellOrigins(
            f"{model}-{schedule}",
            [TrainedIn(name, seeds) for name, seeds in dtype.items()] if len(dtype) > 1 else [],
            difference.left_out if difference is not None else {},
            {seed: unlike for seed, unlike in mixed.items() if "dtype" in unlike},
        )
        if told.trained_in or told.left_out or told.across:
            cells.append(told)
    return Origins(kinds, dtypes, versions, len(kinds) == len(dtypes) == len(versions) == 1, cells)


def _other_optimizers(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(cell, its optimizer, the reference's) of rows that have another one: no schedule makes them differ."""
    reference = comparison.protocol.reference
    return [
        (f"{model}-{schedule}", cell.optimizer, base.optimizer)
        for model, schedule, cell in comparison.each()
        if (base := comparison.cells[model].get(reference)) and cell.optimizer != base.optimizer
    ]


class ControllerUse(NamedTuple):
    """Whose formula a controller is, the cells that it was on, and how often it intervened in all."""

    formula: str
    cells: list[str]
    interventions: int


def _controllers(comparison: Comparison) -> dict[str, ControllerUse]:
    """Each controller that was used."""
    used: dict[str, list[tuple[str, CellResult]]] = {}
    for model, schedule, cell in comparison.each():
        if cell.controller != "none":
            used.setdefault(cell.controller, []).append((f"{model}-{schedule}", cell))
    return {
        name: ControllerUse(
            CONTROLLERS[name].reconstruction if name in CONTROLLERS else "",
            [cell_name for cell_name, _ in cells],
            sum(sum(cell.interventions.values()) for _, cell in cells),
        )
        for name, cells in used.items()
    }


def _absent(comparison: Comparison) -> list[str]:
    """What has not run on these data, each with its command."""
    absent = [
        sentence("results", "no_reference", dataset=dataset)
        for dataset in comparison.data
        if dataset not in comparison.references
    ]
    return absent + [
        sentence("results", "no_theory", experiment=experiment) for experiment in comparison.theory.missing
    ]


def of_model(comparison: Comparison, model: str, title: str) -> Section:
    """A model's table, and what is to tell of it."""
    result = comparison.models[model]
    known = {
        schedule: difference.examples_interval
        for schedule, cell in comparison.cells[model].items()
        if (difference := cell.metrics["test/accuracy"].difference) and difference.examples_interval
    }
    after = paragraphs(
        "model",
        "after",
        result=result,
        test=result.test,
        over_examples=known,
        percent=percent_confidence(comparison),
    )
    return Section(title, 3, tables=[_table(comparison, model)], after=after)


def _table(comparison: Comparison, model: str) -> Table:
    schedules = comparison.cells[model] | comparison.views[model]
    metric = headline(comparison, next(iter(schedules.values())))
    percent, reference = percent_confidence(comparison), comparison.protocol.reference
    rows = []
    for schedule, cell in schedules.items():
        measured = cell.metrics[metric]
        difference = difference_of(comparison, cell)
        planned = len(comparison.protocol.seeds)
        part = f" ({len(cell.seeds)} of {planned} seeds)" if len(cell.seeds) < planned else ""
        rows.append(
            [
                f"{schedule}{part}",
                percent_words(measured.mean),
                percent_words(measured.spread),
                interval_words(measured.interval),
                points_words(difference.mean) if difference else "",
                interval_words(difference.interval, "+") if difference else "",
                p_words(difference, "p"),
                p_words(difference, "p_holm"),
                *_to_averaged(measured.difference_to_averaged),
                percent_words(cell.metrics["generalization_gap"].mean),
                number_words(cell.metrics["best_epoch"].mean),
                by_search(cell, lambda search: f"{search.base_lr:.4g}"),
                by_search(cell, lambda search: parameters_words(search.parameters)),
            ]
        )
    header = [
        "schedule",
        metric,
        "spread over seeds",
        f"{percent} interval",
        f"difference to {reference}",
        f"{percent} interval",
        "p",
        "p (Holm)",
        f"difference to {reference}_averaged",
        f"p against {reference}_averaged (Holm)",
        "generalization gap",
        "lowest validation loss at epoch",
        "base rate",
        "parameters",
    ]
    rows += [
        [progress.schedule, state_words(progress) or "", *[""] * (len(header) - 2)]
        for name, progress in comparison.progress.items()
        if name in comparison.missing and progress.model == model
    ]
    grey = [
        [linear.title, percent_words(linear.metrics[metric]), *[""] * (len(header) - 2)]
        for linear in _references(comparison, model)
    ]
    return Table(header, rows, grey)


def _to_averaged(difference: Difference | None) -> list[str]:
    """A row's mean difference to the averaged reference with its interval, and its p's."""
    if difference is None or difference.mean is None:
        return ["", ""]
    mean = points_words(difference.mean)
    if difference.interval is not None:
        mean += f" ({interval_words(difference.interval, '+')})"
    p = p_words(difference, "p")
    return [mean, f"{p} ({p_words(difference, 'p_holm')})" if p else ""]


def _references(comparison: Comparison, model: str) -> list[Reference]:
    """The linear reference of the model's data set, if there is one."""
    dataset = next(iter(comparison.cells[model].values())).dataset
    return [linear for name, linear in comparison.references.items() if name == dataset]


def rank_diagrams(comparison: Comparison) -> Section | None:
    """The figure of all ranked models."""
    ranked = ranks(comparison)
    if not ranked:
        return None
    caption = sentence("model", "ranks", percent=percent_confidence(comparison))
    cells = [f"{model}-{schedule}" for model, schedule, _ in comparison.each() if model in ranked]
    return Section("Ranks within a model", figures=[Figure("ranks.svg", caption, "comparison.json", cells)])


def across(comparison: Comparison) -> Section | None:
    """The effects over all models."""
    effects = {name: row for name, row in comparison.across_models.items() if row.num_models > 1}
    if not effects:
        return None
    again = tuned_rows(comparison)
    models = [model for model in comparison.cells if model not in again]

    def effect(value: float | None) -> str:
        return "none" if value is None else f"{value:+.2f}"

    rows = [
        [
            schedule,
            effect(row.effect),
            "none" if row.interval is None else " to ".join(map(effect, row.interval)),
            *(effect((row.by_model or {}).get(model)) for model in models),
            str(row.num_runs),
        ]
        for schedule, row in effects.items()
    ]
    interval = f"{percent_confidence(comparison)} interval"
    return Section(
        "All models together",
        text=paragraphs("across", protocol=comparison.protocol, again=again),
        tables=[Table(["schedule", "mean of the models", interval, *models, "pairs"], rows)],
    )


def other_metrics(comparison: Comparison) -> Section:
    """What else was measured of every cell."""
    rows = []
    for model, schedule, cell in comparison.each():
        metrics = cell.metrics
        name = headline(comparison, cell)
        best = metrics[name.replace("test/", "test_best/")]
        rows.append(
            [
                f"{model}-{schedule}",
                percent_words(metrics[name].mean),
                percent_words(best.mean),
                number_words(metrics["test/loss"].mean),
                reached_words(metrics["turning_epoch"]),
                number_words(metrics["overfitting"].mean),
                number_words(metrics["seconds_per_epoch"].mean),
                percent_words(metrics["epoch_slowdown"].mean),
                str(sum(cell.interventions.values())),
            ]
        )
    return Section(
        "Other measures",
        text=paragraphs("other"),
        tables=[
            Table(
                [
                    "cell",
                    "test metric, last epoch",
                    "at the epoch of lowest validation loss",
                    "test loss",
                    "validation loss turns at epoch",
                    "overfitting",
                    "seconds per epoch",
                    "median epoch slower by, %",
                    "interventions",
                ],
                rows,
            )
        ],
    )
