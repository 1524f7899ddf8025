"""What one stage writes and another reads: a record each, with one way to read it and one to write it.

A file is checked when it is read, whoever has touched it since: what does not have the record's shape gets
one sentence that names the file, the place in it, what was found, and the stage that makes it anew. Names in
a record may become parts of paths, so they are letters, digits and underscores.

More than is named here may stand in a file: what only its own writer and the report's tables know of.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger.record import Data, Finite, Name, Origin, Sha256

Seed = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,18})$")]
Value = Finite | int | bool | str | None | list[Finite | int]
Values = dict[Name, Value]
Metric = Annotated[str, Field(pattern=r"^[a-z0-9_]+(/[a-z0-9_]+)?$")]
Interval = tuple[Finite, Finite] | list[Finite] | None


def _file_name(name: str) -> str:
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError("must be the name of a file, without a folder")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]


class Record(BaseModel):
    """A part of an output; what it does not name is kept as it is."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class Output(Record):
    """A whole file."""

    @classmethod
    def read(cls, path: Path, stage: str) -> Self:
        """What ``stage`` wrote to ``path``.

        Raises:
            StudyError: it is missing, not readable, or not what that stage writes.
        """
        anew = f"`dvc repro --force -s {stage}` makes it anew."
        try:
            content = json.loads(path.read_bytes().decode())
        except FileNotFoundError:
            raise StudyError(f"{path}: not found; `dvc repro {stage}` makes it.") from None
        except OSError as error:
            raise StudyError(f"{path}: cannot be read ({error.strerror}); {anew}") from None
        except json.JSONDecodeError as error:
            raise StudyError(f"{path}: not JSON (line {error.lineno}); {anew}") from None
        except (ValueError, RecursionError):  # no text, or nested without end
            raise StudyError(f"{path}: not JSON; {anew}") from None
        if not isinstance(content, dict):
            raise StudyError(f"{path}: a {type(content).__name__}, not an object; {anew}")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise StudyError(
                f"{path}: {_first(error)}: not what this version of the stage writes; {anew}"
            ) from None

    def write(self, path: Path) -> None:
        """Put it there as JSON, atomically; what was not given is not written."""
        write_json(path, self.model_dump(exclude_unset=True))


def _first(error: ValidationError) -> str:
    """The first problem: where, and what was found."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    place = place if place.isprintable() else repr(place)
    if problem["type"] == "missing":
        return f"{place:.200} is missing"
    found = repr(problem["input"])
    return f"{place:.200} is {found if len(found) <= 60 else found[:57] + '...'}"


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
    search: Annotated[int, Field(ge=1)]
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
    searches: Annotated[int, Field(ge=1)]
    settings: dict[str, Any]
    cell: Tracked
    seeds: Annotated[dict[Seed, SeedRun], Field(min_length=1)]


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
    diverged: Annotated[int, Field(ge=0)]
    seconds: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    identity: str | None = None


class Timing(Output):
    """reports/timing/<model>.json: what an update costs under each row."""

    model: Name
    dataset: Name
    data: Data
    batch_size: int
    device: str
    precision: str
    threads: int
    rounds: Annotated[int, Field(ge=2, multiple_of=2)]
    updates: Annotated[int, Field(ge=1)]
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
    n: int | None  # None where nothing was measured
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

    values: dict[Seed, Finite | int | None]
    mean: Finite | None
    spread: Finite | None
    interval: Interval
    difference: Difference | None = None
    difference_to_averaged: Difference | None = None


class CellResult(Record):
    """What was measured of a cell."""

    dataset: Name
    optimizer: str
    controller: str
    num_epochs: Annotated[int, Field(ge=1)]
    seeds: list[int]
    diverged: list[int]
    identities: dict[Seed, str]
    metrics: dict[Metric, MetricValues]
    by_search: dict[str, Any]
    origins: dict[str, Any]


class ModelResult(Record):
    """A model's schedules held against each other over seeds."""

    metric: Metric
    chosen: Name | None
    ranks: dict[Name, Finite] | None


class Claim(Record):
    """A claim with its verdict."""

    id: Name
    claim: str
    source: list[str]
    verdict: str
    why: str
    counted: str
    seeds_needed: int | None
    core_hours: Finite | None
    chance: Finite | None
    parts: list[dict[str, Any]]
    untested: dict[str, list[Name]]
    run: dict[str, Any] | None


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
    measured: list[int]
    trained: list[int]
    planned: list[int]
    searches: list[dict[str, Any]]


class Protocol(Record):
    """By what rules the study was done and compared."""

    preset: str
    source: str
    seeds: Annotated[list[int], Field(min_length=1)]
    num_trials: int
    reference: Name
    confidence: Annotated[float, Field(gt=0, lt=1)]
    looks: list[int]
    headline: dict[Name, Metric]
    test_classes: dict[Name, dict[str, int]] = {}  # where classes differ in size


class TheoryClaims(Record):
    """What the experiments of the theory said, all together."""

    claims: list[TheoryClaim]
    figures: dict[Name, list[FileName]]
    missing: list[Name]


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
    across_models: dict[str, Any]
    timing: dict[Name, Timing]
    time_to_target: dict[str, Any]
    gaps: list[Gap]
    claims: list[Claim]
    theory: TheoryClaims
