"""What the report's figures show, as plain values."""

from typing import NamedTuple

from lrstudy.analysis.records import COSTS, CellResult, Comparison, CostName, Difference, Profiles
from lrstudy.report.words import PAPER_EPOCHS, headline, model_title, result_rows


class Spread(NamedTuple):
    """Of a schedule's differences to the reference, in points."""

    values: list[float]  # by seed
    mean: float
    interval: tuple[float, float] | None


class Curve(NamedTuple):
    """A line: x and y of its points."""

    x: list[float]
    y: list[float]


class Budget(NamedTuple):
    """The expected validation loss of the best of so many trials."""

    num_trials: list[int]
    losses: list[float]


class Ranked(NamedTuple):
    """A model's average ranks by schedule, and what tells two apart."""

    ranks: dict[str, float]
    critical_difference: float


class ProfilePanel(NamedTuple):
    """By schedule the shares over factors, and of what these are."""

    curves: dict[str, Curve]
    label: str


def differences(comparison: Comparison) -> dict[str, dict[str, Spread]]:
    """The main figure: by model and schedule.

    With the reference's averaged weights, the rival that costs no training.
    """
    panels: dict[str, dict[str, Spread]] = {}
    for model, schedule, cell in result_rows(comparison):
        difference = difference_of(comparison, cell)
        if difference is not None and difference.mean is not None:
            low_high = difference.interval
            panels.setdefault(model, {})[schedule] = Spread(
                [100 * value for value in difference.values.values()],
                100 * difference.mean,
                low_high and (100 * low_high[0], 100 * low_high[1]),
            )
    return panels


def ranks(comparison: Comparison) -> dict[str, Ranked]:
    """The rank figure: by model; ranked ones alone."""
    return {
        model: Ranked(test.ranks, test.critical_difference)
        for model, result in comparison.models.items()
        if (test := result.test) is not None
    }


def budgets(comparison: Comparison) -> dict[str, dict[str, Budget]]:
    """The budget figure: by model and schedule what a budget buys.

    Numbers of trials that may all have diverged have no expectation; models with a single trial no figure.
    """
    panels: dict[str, dict[str, Budget]] = {}
    for model, schedule, cell in comparison.each():
        rows = cell.tuning.budget if cell.tuning is not None else []
        known = [(row.num_trials, row.loss) for row in rows if row.loss is not None]
        if known and len(rows) > 1:
            budget = Budget([k for k, _ in known], [loss for _, loss in known])
            panels.setdefault(model, {})[schedule] = budget
    return panels


def profiles(comparison: Comparison) -> dict[str, ProfilePanel]:
    """The profile figure: by title.

    All models together by epochs and by seconds, then each model by epochs; a single model by both.
    """
    times = comparison.time_to_target
    models = [model for model, timed in times.models.items() if timed.schedules]
    if len(models) == 1:
        title, whole = model_title(comparison, models[0]), times.models[models[0]].profiles
    else:
        title, whole = "all models", times.profiles
    panels: dict[str, tuple[Profiles, CostName]] = {f"{title}, by {cost}": (whole, cost) for cost in COSTS}
    if len(models) > 1:
        panels |= {model_title(comparison, name): (times.models[name].profiles, "epochs") for name in models}
    return {
        title: ProfilePanel(
            {name: Curve(profile.factors, shares) for name, shares in profile.shares.items()},
            f"times the fewest {cost}",
        )
        for title, (by_cost, cost) in panels.items()
        if (profile := by_cost.by(cost)).shares
    }


def models_beyond_the_paper(comparison: Comparison) -> list[str]:
    """The models that the reference trained for more epochs than the paper's figures show."""
    reference = comparison.protocol.reference
    return [
        model
        for model, schedules in comparison.cells.items()
        if reference in schedules and schedules[reference].num_epochs > PAPER_EPOCHS
    ]


def difference_of(comparison: Comparison, cell: CellResult) -> Difference | None:
    """The headline metric's difference to the reference; None where no pair is compared."""
    difference = cell.metrics[headline(comparison, cell)].difference
    return None if difference is None or difference.mean is None else difference
