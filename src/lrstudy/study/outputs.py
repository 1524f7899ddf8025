"""What one stage writes and another reads: a record each (:mod:`lrstudy.checked`)."""

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
)
from lrstudy.ledger.record import ALWAYS_IN_HISTORY, OF_THE_CLOCK, WEIGHTS, Data, Origin, Scores, Shared

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


class Outcome(Record):
    """outcome.json in a training's folder: what it came to, every update included."""

    status: Literal["finished", "diverged"]
    best_epoch: Natural
    num_parameters: Natural
    epochs: Annotated[list[dict[str, Any]], Field(min_length=1)]  # lrstudy.training.loop.Progress's
    final: dict[str, Any]
    weights: dict[Literal["last", "best", "ema", "tail_average"], Sha256] = Field(default_factory=dict)
    origin: dict[str, Any] = Field(default_factory=dict)
    shared: Shared | None = None

    @model_validator(mode="after")
    def _measured(self) -> "Outcome":
        if not all("validation/loss" in epoch for epoch in self.epochs):
            raise ValueError("an epoch has no validation/loss")
        return self


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


class SuggestedRate(Record):
    """What a rule of :mod:`lrstudy.lr_finder` suggests; None where the loss did not fall."""

    lr: Finite | None
    low: Finite | None
    high: Finite | None
    runs: list[Finite | None]


class FoundRates(Output):
    """reports/finder/<model>.json: a model's range tests, and what they suggest."""

    model: Name
    dataset: Name
    data: Data
    optimizer: str
    batch_size: Count
    device: str
    precision: str
    threads: Count
    took: Finite
    origin: Origin
    rates: Annotated[list[Finite], Field(min_length=10)]
    losses: Annotated[list[list[Finite]], Field(min_length=1)]  # by run
    smoothing: Finite
    suggestions: dict[Name, SuggestedRate]


class TheoryClaim(Record):
    """A claim as an experiment of the theory judged it."""

    id: Name
    claim: str
    where: str
    effect: str
    verdict: str
    mean: Finite | None
    interval: Interval | None
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


class SearchProgress(Record):
    """How many trials of a search are there: ``complete`` with fewer where the space has no more."""

    trials: Natural
    of: Natural
    confirmed: Natural
    finalists: Natural
    complete: bool


class Progress(Record):
    """How far a cell has come."""

    model: Name
    schedule: Name
    searches: list[SearchProgress]
    measured: list[Natural]
    trained: list[Natural]  # and not measured yet
    planned: list[Natural]
