"""What one stage writes and another reads: a record each (:mod:`lrstudy.checked`)."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lrstudy.checked import (
    LARGEST,
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
    Table,
    Values,
    Whole,
)
from lrstudy.ledger.record import ALWAYS_IN_HISTORY, OF_THE_CLOCK, WEIGHTS, Data, Origin, Scores

IN_HISTORY = tuple(name for name in ALWAYS_IN_HISTORY if name not in OF_THE_CLOCK)

HISTORY = Table(names=(), whole=("seed", "epoch"), numbers=IN_HISTORY)
"""artifacts/train/<model>/<schedule>/history.csv: a row per seed and epoch, nothing that a clock decides."""

CURVES = Table(names=("model", "schedule"), whole=("epoch",), numbers=IN_HISTORY)
"""reports/curves.csv: a row per model, schedule and epoch, the mean over seeds of every curve."""


class Tuned(Record):
    """The values that one search found."""

    values: Values


class Best(Output):
    """artifacts/tuned/<model>/<schedule>/best.json: what a cell's searches found."""

    model: Name
    schedule: Name
    source: Literal["tuned", "defaults"]
    values: Values
    searches: Annotated[list[Tuned], Field(min_length=1)] | None = None

    def values_for(self, seed: int) -> tuple[Values, int]:
        """The values that a final training with ``seed`` takes, and the number of their search.

        With two searches the odd seeds have the values of the first and the even ones those of the second, so
        that the spread between seeds has the search's own luck in it (Bouthillier et al. 2021, arXiv
        2103.03098).
        """
        searches = self.searches or [Tuned(values=self.values)]
        index = (seed - 1) % len(searches)
        return searches[index].values, index + 1


class SeedRun(Record):
    """A seed's training, as the ledger's record says; where its weights and its MLflow run are."""

    identity: Sha256
    key: Sha256
    search: Count
    values: Values
    status: Literal["finished", "diverged"]
    weights: bool  # whether they lie beside the file
    run_id: str | None


class Tracked(Record):
    """The MLflow run of a whole cell."""

    key: Annotated[str, Field(pattern=r"^cell-[0-9a-f]{64}$")]
    run_id: str | None


class Training(Output):
    """artifacts/train/<model>/<schedule>/training.json: a cell's trainings by seed."""

    model: Name
    schedule: Name
    dataset: Name
    tuned: str
    tuned_as: Name | None = None
    searches: Count
    settings: dict[str, Any]
    cell: Tracked
    seeds: Annotated[dict[Seed, SeedRun], Field(min_length=1)]


Weights = Annotated[str, Field(pattern=f"^({'|'.join(WEIGHTS)})$")]


class Evaluation(Output):
    """artifacts/evaluate/<model>/<schedule>/metrics.json: what test data say of a cell's trainings."""

    data: Data
    training: Training
    scores: Annotated[dict[Seed, dict[Weights, Scores]], Field(min_length=1)]


class Reference(Output):
    """reports/references/<dataset>.json: what a linear model reaches."""

    title: str
    metrics: dict[Metric, Finite]
    seconds: Finite
    data: Data
    processor: str


class TimedRow(Record):
    """Seconds of computing per update, round by round."""

    optimizer: str
    controller: str
    moves: bool
    diverged: Natural
    seconds: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    identity: str | None = None


class Timing(Output):
    """reports/timing/<model>.json: what an update costs under each row."""

    model: Name
    dataset: Name
    data: Data
    batch_size: Count
    device: str
    precision: str
    threads: Count
    rounds: Annotated[int, Field(ge=2, le=LARGEST, multiple_of=2)]
    updates: Count
    took: Finite
    origin: Origin
    schedules: dict[Name, TimedRow]
    optimizers: dict[Name, TimedRow]


class TheoryClaim(Record):
    """A claim as an experiment of the theory judged it."""

    id: Name
    claim: str
    where: str
    effect: str
    verdict: str
    mean: Finite | None
    interval: Interval
    n: Natural | None  # None where nothing was measured
    why: str


class TheoryPart(Record):
    """What an experiment found in one place: its figures by file name."""

    figures: list[FileName]


class Theory(Output):
    """reports/late_decay.json and reports/level_sets.json."""

    claims: list[TheoryClaim]
    toy: TheoryPart | None = None
    models: dict[Name, TheoryPart]


# --- comparison.json ---


class Difference(Record):
    """A paired difference to another row."""

    mean: Finite | None
    interval: Interval
    values: dict[Seed, Finite | None]
    mixed: dict[str, Any]


class MetricValues(Record):
    """A metric of a cell: by seed, its mean, spread and interval."""

    values: dict[Seed, Finite | Whole | None]
    mean: Finite | None
    spread: Finite | None
    interval: Interval
    difference: Difference | None = None
    difference_to_averaged: Difference | None = None


class Sought(Record):
    """One of a cell's searches."""

    num_tried: Natural


class Tuning(Record):
    """What a cell's searches found, without their trials; a loss is infinite where all diverged."""

    objective: float
    search_objective: float
    defaults_objective: float
    cost: dict[str, Any]
    terms: list[dict[str, Any]]
    sensitivity: dict[str, Any] | None
    largest_rise: Any
    searches: list[Sought]


class Origins(Record):
    """Where and with what a cell's trainings took place, by each value the seeds."""

    machine: dict[str, list[Natural]]
    processor: dict[str, list[Natural]]
    device: dict[str, list[Natural]]
    dtype: dict[str, list[Natural]]
    torch: dict[str, list[Natural]]
    lrstudy: dict[str, list[Natural]]
    revision: dict[str, list[Natural]]
    ended: list[Finite]


ALWAYS_MEASURED = (
    "test/accuracy", "test/loss", "test_best/accuracy", "generalization_gap", "best_epoch", "turning_epoch",
    "overfitting", "seconds_per_epoch", "epoch_slowdown",
)  # fmt: skip
"""Metrics that the report shows of every cell."""


class CellResult(Record):
    """What was measured of a cell."""

    dataset: Name
    headline: Metric
    optimizer: str
    controller: str
    num_epochs: Count
    seeds: list[Natural]
    diverged: list[Natural]
    identities: dict[Seed, str]
    metrics: dict[Metric, MetricValues]
    by_search: dict[str, Any]
    tuning: Tuning | None
    interventions: dict[Seed, Natural]
    origins: Origins

    @model_validator(mode="after")
    def _measured(self) -> "CellResult":
        headlines = (self.headline, self.headline.replace("test/", "test_best/"))
        for name in (*headlines, *ALWAYS_MEASURED):
            if name not in self.metrics:
                raise ValueError(f"metrics has no {name}")
        return self


class ModelResult(Record):
    """A model's schedules held against each other over seeds."""

    metric: Metric
    chosen: Name | None
    num_seeds: Natural
    left_out: dict[str, Any]
    ranks: dict[Name, Finite] | None
    friedman_p: Finite | None
    friedman_method: str | None
    critical_difference: Finite | None
    groups: list[list[Name]] | None


class AcrossModels(Record):
    """A schedule against the reference over all models."""

    effect: Finite | None
    interval: Interval
    by_model: dict[Name, Finite | None] | None
    num_models: Natural
    num_runs: Natural


class ComparedRow(TimedRow):
    """What an update costs under a row, beside the reference."""

    seconds_per_update: Finite
    ratio: Finite | None
    interval: Interval


class ComparedTiming(Timing):
    """A model's timing with its ratios."""

    schedules: dict[Name, ComparedRow]  # type: ignore[assignment]  # narrower, and frozen
    optimizers: dict[Name, ComparedRow]  # type: ignore[assignment]


class Target(Record):
    """What the trainings of a model run to; no value where there is none."""

    metric: Metric
    value: Finite | None
    source: str


class Times(Record):
    """When the trainings of a cell reached their target, by one cost; "inf": never."""

    values: dict[Seed, Finite | Literal["inf"]]
    median: Finite | Literal["inf"] | None
    interval: list[Finite | Literal["inf"]] | None


class TimesOfCell(Record):
    """The same by both costs, and how many never did."""

    unreached: Natural
    epochs: Times
    seconds: Times


class Profile(Record):
    """The shares of trainings in which a schedule costs at most a factor of the cheapest."""

    schedules: list[Name]
    num_problems: Natural
    num_unsolved: Natural
    left_out: dict[str, Any]
    factors: list[Finite]
    shares: dict[Name, list[Finite]]


class Profiles(Record):
    """The profile by each cost."""

    epochs: Profile
    seconds: Profile


class TimesOfModel(Record):
    """When a model's trainings reached their target."""

    target: Target
    schedules: dict[Name, TimesOfCell]
    profiles: Profiles


class TimeToTarget(Record):
    """When the trainings of all models reached their targets."""

    models: dict[Name, TimesOfModel]
    profiles: Profiles


class ClaimRun(Record):
    """What would test a claim, and what it takes."""

    command: str
    core_hours: Finite | None


class Claim(Record):
    """A claim with its verdict."""

    id: Name
    claim: str
    source: list[str]
    verdict: str
    why: str
    counted: str
    seeds_needed: Natural | None
    core_hours: Finite | None
    chance: Finite | None
    parts: list[dict[str, Any]]
    untested: dict[str, list[Name]]
    run: ClaimRun | None


class Gap(Record):
    """A gap of the paper, and what fills it."""

    gap: str
    where: str
    text: str
    values: list[dict[str, Any]]
    missing: list[str]


class Progress(Record):
    """How far a cell has come."""

    model: Name
    schedule: Name
    measured: list[Natural]
    trained: list[Natural]
    planned: list[Natural]
    searches: list[dict[str, Any]]


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
    across_dtypes: bool
    reference: Name
    confidence: Annotated[float, Field(gt=0, lt=1)]
    looks: list[Natural]
    headline: dict[Name, Metric]
    test_classes: dict[Name, dict[str, Natural]] = Field(default_factory=dict)  # where classes differ in size


class ExperimentsClaim(TheoryClaim):
    """A claim with the experiment that judged it."""

    experiment: Name


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


class Comparison(Output):
    """reports/comparison.json: all that the report says."""

    data: Annotated[dict[Name, Data], Field(min_length=1)]
    references: dict[Name, Reference]
    protocol: Protocol
    progress: dict[str, Progress]
    missing: list[str]
    cells: Annotated[dict[Name, dict[Name, CellResult]], Field(min_length=1)]
    views: dict[Name, dict[Name, CellResult]]
    models: dict[Name, ModelResult]
    across_models: dict[Name, AcrossModels]
    timing: dict[Name, ComparedTiming]
    time_to_target: TimeToTarget
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
            for schedule, cell in schedules.items():
                known_by: dict[str, Collection[str]] = {"data": self.data, "protocol.headline": headline}
                for name, known in known_by.items():
                    if cell.dataset not in known:
                        raise ValueError(
                            f"{name} has no {cell.dataset}, the data of cells.{model}.{schedule}"
                        )
        for dataset, data in self.data.items():
            if not {"train", "validation", "test"} <= data.num_examples.keys():
                raise ValueError(f"data.{dataset}.num_examples has not all of train, validation and test")
        for dataset, reference in self.references.items():
            if headline.get(dataset) not in reference.metrics:
                raise ValueError(f"references.{dataset}.metrics has no {headline.get(dataset)}")
        return self
