"""What claims.yaml says of each claim: what is said, where, the test that decides, and what would test it."""

import functools
from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lrstudy.analysis.statistics import MIN_SEEDS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Wanted(_Strict):
    """What would test a claim: rows, for how many epochs, with which further overrides; or the command."""

    rows: list[str] = Field(default_factory=list)
    epochs: int | None = None
    overrides: list[str] = Field(default_factory=list, alias="set")  # each adds a row
    command: str | None = None


class _Spec(_Strict):
    id: str
    claim: str
    source: list[str]
    test: str
    run: Wanted


class Turning(_Spec):
    """Has the validation loss of ``baseline`` turned by ``epoch``?"""

    decide: Literal["turning"]
    baseline: str
    epoch: int


class Paired(_Spec):
    """Do some rows of a model differ from others, seed by seed?

    ``row`` is that of the contrast ``row``, which the main claim has for each dynamic schedule by itself.
    """

    decide: Literal["paired"]
    contrast: Literal["chosen", "row", "monitored", "late_decay"]
    baseline: str = "static"
    row: str | None = None
    controller: str | None = None
    averaged: bool = False  # the control is the averaged weights of those rows' trainings
    metric: str  # headline, or a metric's name
    favours: Literal["higher", "lower"]
    equivalence: float | None = None
    beside: list[str] = Field(default_factory=list)


class Equivalent(_Spec):
    """Do the differences between all pairs of ``rows`` lie within the margin?"""

    decide: Literal["equivalent"]
    rows: list[str]
    metric: str
    margin: float


class Timed(_Spec):
    """Does an update of some rows cost more than one of others, by more than the margin?"""

    decide: Literal["timed"]
    contrast: Literal["dynamic", "optimizer"]
    baseline: str = "static"
    adaptive: list[str] = Field(default_factory=list)
    plain: list[str] = Field(default_factory=list)
    margin: float


ClaimSpec = Turning | Paired | Equivalent | Timed


@functools.cache
def claim_specs() -> list[ClaimSpec]:
    """The claims, in the order of claims.yaml."""
    from importlib.resources import files

    import yaml

    content = yaml.safe_load((files("lrstudy.analysis") / "claims.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(list[Annotated[ClaimSpec, Field(discriminator="decide")]]).validate_python(content)


def run_command(spec: ClaimSpec, seeds: Collection[int], datasets: Iterable[str]) -> str:
    """The command that would run what a claim needs, with enough seeds."""
    wanted = spec.run
    if wanted.command is not None:
        return wanted.command
    overrides = [f"schedule=[{','.join(wanted.rows)}]", *wanted.overrides]
    if wanted.epochs is not None:
        overrides += [f"num_epochs.{name}={wanted.epochs}" for name in datasets]
    if len(seeds) < MIN_SEEDS:
        overrides.append(f"train.seeds=[{','.join(str(seed) for seed in range(1, MIN_SEEDS + 1))}]")
    return "dvc exp run " + " ".join(f"-S '{override}'" for override in overrides)
