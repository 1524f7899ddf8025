"""What comparison.json holds: a record for each of its parts.

Whoever reads one can rely on all that is named here; what has another shape is refused where it is read. A
part that need not be there (``difference`` of the reference to itself) is None then, and is not written.
"""

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lrstudy.checked import (
    Count,
    FileName,
    Finite,
    Interval,
    Metric,
    Name,
    Natural,
    Output,
    Record,
    Seed,
    Sha256,
    Share,
    Two,
    Value,
    Whole,
)
from lrstudy.ledger.record import Data
from lrstudy.study.outputs import Progress, Reference, TheoryClaim, TimedRow, Timing

Number = Finite | Whole
Confidence = Annotated[float, Field(gt=0, lt=1)]
Date = Annotated[float, Field(ge=0, lt=253_402_300_800)]  # seconds since 1970, before the year 10000
Headline = Annotated[str, Field(pattern="^test/(accuracy|balanced_accuracy|f1_macro|f1)$")]
"""A test metric that is told by a name of its own; one of them decides for a data set."""

Kind = Literal["processor", "device", "dtype", "torch"]
"""What two trainings may differ in beside their settings."""

Unlike = dict[Kind, list[str]]
"""What the trainings of several cells with one seed differ in, with each one's value."""

UnlikePair = dict[Kind, Two[str]]
"""The same of two: the cell's value and that of what it is compared with."""


# --- cells ---


class Difference(Record):
    """The paired difference of a metric to another row.

    The mean is None where no pair is compared; ``p`` and what goes with it are of tested metrics alone.
    """

    values: dict[Seed, Number]
    mean: Finite | None
    interval: Interval | None  # Student's, over seeds
    examples_interval: Interval | None  # over seeds and test examples
    left_out: dict[Seed, UnlikePair]
    mixed: dict[Seed, UnlikePair]  # of the pairs that are compared
    p: Share | None = None
    probability_of_improvement: Share | None = None
    p_holm: Share | None = None

    @model_validator(mode="after")
    def _agree(self) -> "Difference":
        if self.mean is None and (self.interval is not None or self.p is not None):
            raise ValueError("mean is None, and interval or p is not")
        return self


class MetricValues(Record):
    """A metric of a cell: by seed, its mean, spread and interval."""

    values: dict[Seed, Number | None]
    mean: Finite | None
    spread: Finite | None
    interval: Interval | None
    difference: Difference | None = None
    difference_to_averaged: Difference | None = None


class Taken(Record):
    """The values of one search, and the seeds that took them."""

    values: dict[Name, Value]
    base_lr: Number
    parameters: dict[Name, Value]  # all of the schedule's
    seeds: list[Natural]


class Choice(Record):
    """Those of a list."""

    choices: list[Value]


AsGood = Choice | Two[Number]  # in this order: what makes a list of two makes one of anything
"""Where values are as good as the chosen one: [lowest, highest], or those of a list."""


class Term(Record):
    """What was searched, in the paper's words."""

    term: str
    parameter: Name
    value: Value
    unit: str
    as_good: AsGood | None


class Cost(Record):
    """What the searches of a cell took, each training once."""

    trainings: Natural
    epochs: Natural
    seconds: Finite
    at_most: Natural


class Side(Record):
    """By what share the validation loss changes with a value that is off by a factor of two."""

    value: Number
    change: Finite
    interval: Interval


class Sides(Record):
    """Of a chosen value half and twice; None where that was not judged."""

    value: Number
    half: Side | None
    double: Side | None


class Sensitivity(Record):
    """What a wrong value costs, by parameter."""

    num_trials: Natural
    parameters: dict[Name, Sides]
    reason: str | None = None  # why there are none


class WhichSide(Record):
    """A side of a parameter."""

    parameter: Name
    side: Literal["half", "double"]


class Rise(Side, WhichSide):
    """The largest change of a cell."""


class BudgetRow(Record):
    """The validation loss that the best of so many trials is expected to have; None where all may diverge."""

    num_trials: Count
    loss: Finite | None


class Noise(Record):
    """The spread of the loss between seeds at the same values."""

    standard_deviation: Finite
    degrees_of_freedom: Natural
    num_trials: Natural


class WithinNoise(Record):
    """The values of all trials that are as good as the best; none, and a reason, where nothing is known."""

    num_trials: Natural
    threshold: Finite | None = None
    standard_error: Finite | None = None
    noise: Noise | None = None
    values: dict[Name, AsGood]
    reason: str | None = None


class Search(Record):
    """One of a cell's searches, without its trials."""

    sampler_seed: Natural
    values: dict[Name, Value]
    objective: Finite | None
    best_trial: Natural
    exhausted: bool
    num_tried: Count  # trials that there were, fewer than asked for where the space has no more


class Tuning(Record):
    """What a cell's searches found; a loss is infinite where all diverged."""

    num_trials: Natural  # asked for
    seeds: list[Natural]
    finalists: Natural
    confirm_seeds: list[Natural]
    cost: Cost
    exhausted: bool
    terms: list[Term]
    objective: float
    best_trial: Natural
    search_objective: float
    defaults_objective: float | None  # None where the defaults diverged
    within_the_noise: WithinNoise
    sensitivity: Sensitivity
    budget: list[BudgetRow]
    searches: Annotated[list[Search], Field(min_length=1)]
    largest_rise: Rise | None


SeedsOf = Annotated[dict[str, list[Natural]], Field(min_length=1)]
"""By each value the seeds that have it."""


class Origins(Record):
    """Where and with what a cell's trainings took place."""

    machine: SeedsOf
    processor: SeedsOf  # the accelerator's where one computed
    device: SeedsOf
    dtype: SeedsOf
    torch: SeedsOf
    lrstudy: SeedsOf
    revision: SeedsOf  # "" outside of a repository
    ended: Two[Date]  # of the first and the last

    def of(self, kind: Kind) -> dict[str, list[int]]:
        """By each value of what trainings may differ in, the seeds that have it."""
        return getattr(self, kind)


ALWAYS_MEASURED = (
    "test/accuracy", "test/loss", "test_best/accuracy", "generalization_gap", "best_epoch", "turning_epoch",
    "overfitting", "seconds_per_epoch", "epoch_slowdown", "validation/loss",
)  # fmt: skip
"""Metrics that the report shows of every cell."""


class CellResult(Record):
    """What was measured of a cell, or of a view of another one's trainings."""

    seeds: list[Natural]
    diverged: list[Natural]
    base_lr: Number  # of the first search, as are the parameters
    parameters: dict[Name, Value]
    by_search: Annotated[dict[str, Taken], Field(min_length=1)]
    warmup_epochs: Number
    optimizer: str
    controller: str
    num_epochs: Count
    lr_range: Two[Number]
    compute_seconds: dict[Seed, Number]  # of all epochs
    tuned: str
    tuning: Tuning | None
    interventions: dict[Seed, Natural]
    identities: dict[Seed, str]
    origins: Origins
    dataset: Name
    headline: Headline
    view_of: Name | None = None  # the schedule whose trainings these are
    tuned_as: Name | None = None  # the model whose search found the values
    metrics: dict[Metric, MetricValues]

    @property
    def headline_values(self) -> MetricValues:
        """The metric that decides."""
        return self.metrics[self.headline]

    @model_validator(mode="after")
    def _measured(self) -> "CellResult":
        for name in (self.headline, self.headline.replace("test/", "test_best/"), *ALWAYS_MEASURED):
            if name not in self.metrics:
                raise ValueError(f"metrics has no {name}")
        for number, taken in self.by_search.items():
            for term in self.tuning.terms if self.tuning is not None else ():
                if term.parameter not in taken.parameters | taken.values:
                    raise ValueError(f"by_search.{number} has no {term.parameter}, which was searched")
        return self


# --- models ---


class ModelResult(Record):
    """A model's schedules held against each other over seeds: ranks, and what they tell apart."""

    metric: Metric
    num_seeds: Natural
    left_out: dict[Seed, Unlike]
    chosen: Name | None
    ranks: dict[Name, Finite] | None
    friedman_p: Share | None
    friedman_method: str | None
    smallest_friedman_p: Share | None
    critical_difference: Finite | None
    groups: list[list[Name]] | None

    @property
    def test(self) -> "RankTest | None":
        """The test of the ranks; None before it is due."""
        if (
            self.ranks is None
            or self.friedman_p is None
            or self.friedman_method is None
            or self.critical_difference is None
            or self.groups is None
        ):
            return None
        return RankTest(
            ranks=self.ranks,
            p=self.friedman_p,
            method=self.friedman_method,
            critical_difference=self.critical_difference,
            groups=self.groups,
        )


class RankTest(Record):
    """Friedman's test of a model's ranks, and those that Nemenyi's does not tell apart."""

    ranks: dict[Name, Finite]
    p: Share
    method: str
    critical_difference: Finite
    groups: list[list[Name]]


class AcrossModels(Record):
    """A schedule against the reference over all models, in units of the spread."""

    effect: Finite | None
    interval: Interval | None
    by_model: dict[Name, Finite | None] | None
    num_models: Natural
    num_runs: Natural
    num_diverged: Natural


# --- costs and times ---


class ComparedRow(TimedRow):
    """What an update costs under a row, beside the reference."""

    seconds_per_update: Finite
    ratio: Finite | None
    interval: Interval | None


class ComparedTiming(Timing):
    """A model's timing with its ratios."""

    schedules: dict[Name, ComparedRow]  # type: ignore[assignment]  # narrower, and frozen
    optimizers: dict[Name, ComparedRow]  # type: ignore[assignment]


class Target(Record):
    """What the trainings of a model run to; no value where there is none."""

    metric: Metric
    value: Finite | None
    source: str


Time = Finite | Literal["inf"]
"""Until the target was reached; "inf": never."""


class Times(Record):
    """When the trainings of a cell reached their target, by one cost."""

    values: dict[Seed, Time]
    median: Time | None
    interval: Two[Time] | None


CostName = Literal["epochs", "seconds"]
COSTS: tuple[CostName, CostName] = ("epochs", "seconds")


class TimesOfCell(Record):
    """The same by both costs, and how many never did."""

    unreached: Natural
    epochs: Times
    seconds: Times

    def by(self, cost: CostName) -> Times:
        """By one cost."""
        return getattr(self, cost)


class Profile(Record):
    """The shares of trainings in which a schedule costs at most a factor of the cheapest."""

    schedules: list[Name]
    num_problems: Natural
    num_unsolved: Natural
    left_out: dict[Name, dict[Seed, Unlike]]
    factors: list[Finite]
    shares: dict[Name, list[Finite]]

    @model_validator(mode="after")
    def _agree(self) -> "Profile":
        for name, shares in self.shares.items():
            if not shares or len(shares) != len(self.factors):
                raise ValueError(f"shares.{name} has {len(shares)} of {len(self.factors)} factors")
        return self


class Profiles(Record):
    """The profile by each cost."""

    epochs: Profile
    seconds: Profile

    def by(self, cost: CostName) -> Profile:
        """By one cost."""
        return getattr(self, cost)


class TimesOfModel(Record):
    """When a model's trainings reached their target."""

    target: Target
    schedules: dict[Name, TimesOfCell]
    profiles: Profiles


class TimeToTarget(Record):
    """When the trainings of all models reached their targets."""

    models: dict[Name, TimesOfModel]
    profiles: Profiles


# --- verdicts ---

Verdict = Literal["supported", "contradicted", "mixed", "equivalent", "undecided", "not tested"]
Outcome = Literal["for", "against", "equivalent", "neither"]


class ClaimRun(Record):
    """What would test a claim, and what it takes; None where that is not known."""

    command: str
    core_hours: Finite | None


class ClaimPart(Record):
    """One test of a claim."""

    model: Name
    rows: Annotated[list[Name], Field(min_length=1)]
    what: str
    n: Natural
    effect: Finite
    interval: Interval | None
    p: Share
    p_holm: Share
    p_within: Share  # one-sided, that the differences lie within the margin
    decides: Outcome
    waits: str  # until the test is due; empty once it is
    notes: list[str]


class Claim(Record):
    """A claim with its verdict."""

    id: Name
    claim: str
    source: list[str]
    test: str
    verdict: Verdict
    why: str
    effect: Finite | None
    unit: str
    n: Natural
    counted: str
    seeds_needed: Natural | None
    chance: Share | None
    core_hours: Finite | None
    seeds_needed_by: str | None
    run: ClaimRun | None
    untested: dict[str, list[Name]]
    keys: list[str]
    parts: list[ClaimPart]
    by_schedule: "dict[Name, Claim] | None" = None

    @model_validator(mode="after")
    def _agree(self) -> "Claim":
        if self.seeds_needed is not None and self.chance is None:
            raise ValueError("seeds_needed has a value, and chance has none")
        return self


class GapValue(Record):
    """A value of a gap, and where it stands in comparison.json."""

    cell: str
    name: str
    value: Value
    unit: str
    interval: AsGood | None
    identities: list[str]
    key: str


class Gap(Record):
    """A gap of the paper, and what fills it."""

    gap: str
    where: str
    values: list[GapValue]
    missing: list[str]
    text: str


# --- the study ---


class Protocol(Record):
    """By what rules the study was done and compared."""

    preset: str
    source: str
    seeds: Annotated[list[Natural], Field(min_length=1)]
    num_trials: Natural
    finalists: Natural
    searches: Natural
    tune_seeds: list[Natural]
    confirm_seeds: list[Natural]
    reference: Name
    looks: list[Count]
    targets: dict[Name, Finite]
    confidence: Confidence
    num_resamples: Natural
    across_dtypes: bool
    planned_seeds: Natural
    test_classes: dict[Name, dict[str, Natural]] = Field(default_factory=dict)  # where classes differ in size
    headline: dict[Name, Headline]

    @property
    def level(self) -> float:
        """The largest p that counts as a difference, without the last bits of the subtraction."""
        return round(1 - self.confidence, 12)

    @model_validator(mode="after")
    def _agree(self) -> "Protocol":
        if any(low >= high for low, high in itertools.pairwise(self.looks)):
            raise ValueError("looks do not grow")
        for dataset, counts in self.test_classes.items():
            if not any(counts.values()):
                raise ValueError(f"test_classes.{dataset} has no example")
            if dataset not in self.headline:
                raise ValueError(f"headline has no {dataset}, which test_classes has")
        return self


class ByExperiment(Record):
    """What an experiment of the theory said."""

    experiment: Name


class ExperimentsClaim(TheoryClaim, ByExperiment):
    """A claim with the experiment that judged it."""


class TheoryClaims(Record):
    """What the experiments of the theory said, all together."""

    claims: list[ExperimentsClaim]
    figures: dict[Name, list[FileName]]
    sha256: dict[Name, Sha256]  # by experiment that of its numbers
    missing: list[Name]

    @model_validator(mode="after")
    def _agree(self) -> "TheoryClaims":
        if without := sorted(self.figures.keys() - self.sha256.keys()):
            raise ValueError(f"sha256 has no {without[0]}, which figures has")
        return self


Cells = dict[Name, dict[Name, CellResult]]
"""By model and schedule."""


class Results(Record):
    """What was measured and compared: what gaps are filled with and claims are judged by."""

    data: Annotated[dict[Name, Data], Field(min_length=1)]
    references: dict[Name, Reference]
    protocol: Protocol
    progress: dict[str, Progress]
    missing: list[str]
    cells: Annotated[Cells, Field(min_length=1)]
    views: Cells
    models: dict[Name, ModelResult]
    across_models: dict[Name, AcrossModels]
    timing: dict[Name, ComparedTiming]
    time_to_target: TimeToTarget

    def each(self) -> Iterator[tuple[str, str, CellResult]]:
        """(model, schedule, cell) of all cells that ran."""
        for model, schedules in self.cells.items():
            for schedule, cell in schedules.items():
                yield model, schedule, cell


class Comparison(Results, Output):
    """reports/comparison.json: all that the report says."""

    gaps: list[Gap]
    claims: list[Claim]
    theory: TheoryClaims

    @model_validator(mode="after")
    def _agree(self) -> "Comparison":
        for name in ("views", "models"):
            if getattr(self, name).keys() != self.cells.keys():
                raise ValueError(f"{name} and cells are not of the same models")
        if self.time_to_target.models.keys() != self.cells.keys():
            raise ValueError("time_to_target.models and cells are not of the same models")
        headline = self.protocol.headline
        for model, schedules in self.cells.items():
            if not schedules:
                raise ValueError(f"cells.{model} has no cell")
            for schedule, cell in (schedules | self.views[model]).items():
                for place, known in (("data", self.data.keys()), ("protocol.headline", headline.keys())):
                    if cell.dataset not in known:
                        raise ValueError(
                            f"{place} has no {cell.dataset}, the data of cells.{model}.{schedule}"
                        )
                if headline[cell.dataset] not in cell.metrics:
                    raise ValueError(
                        f"cells.{model}.{schedule}.metrics has no {headline[cell.dataset]}, which decides"
                    )
        for place, datasets in (
            ("references", self.references.keys()),
            ("protocol.test_classes", self.protocol.test_classes.keys()),
        ):
            if strange := sorted(datasets - self.data.keys()):
                raise ValueError(f"data has no {strange[0]}, which {place} has")
        for dataset, data in self.data.items():
            if not {"train", "validation", "test"} <= data.num_examples.keys():
                raise ValueError(f"data.{dataset}.num_examples has not all of train, validation and test")
        for dataset, reference in self.references.items():
            if headline.get(dataset) not in reference.metrics:
                raise ValueError(f"references.{dataset}.metrics has no {headline.get(dataset)}")
        for claim in self.claims:
            told = {part.model for part in claim.parts}.union(*claim.untested.values())
            if silent := [model for model in self.cells if model not in told]:
                raise ValueError(f"claims of the id {claim.id} say nothing of {silent[0]}")
        return self
