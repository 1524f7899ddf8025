"""What the data stages write: how raw data are read, and what a training takes of prepared data."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lrstudy.checked import Count, Finite, Name, Natural, Output, Record, Sha256
from lrstudy.recipe.dataset import Layout

RawSplit = Literal["train", "test"]
Split = Literal["train", "validation", "test"]


class RawFile(Record):
    """A file of a raw folder."""

    sha256: Sha256
    bytes: Natural
    rows: Count


class Source(Output):
    """data/raw/<dataset>/source.json: what ``download`` brought, and how it is to be read."""

    dataset: Name
    source: str
    official: bool
    label: str
    encoding: str
    revision: str | None
    layout: Layout
    files: Annotated[dict[RawSplit, RawFile], Field(min_length=2)]


class DataMeta(Output):
    """data/processed/<dataset>/meta.json: what a training, its network and its results take of the data."""

    dataset: Name
    kind: Literal["image", "text"]
    label: str
    official: bool
    num_classes: Count
    num_examples: Annotated[dict[Split, Count], Field(min_length=3)]
    fingerprint: str
    image_size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None  # height, width
    in_channels: Count | None = None
    mean: list[Finite] | None = None  # by channel, as shares of 255
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    vocab_size: Count | None = None
    max_length: Count | None = None
    # Of the files that it was made from.
    raw: Annotated[dict[RawSplit, Sha256], Field(min_length=2)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agree(self) -> "DataMeta":
        needed = {"image": ("image_size", "in_channels", "mean", "std"), "text": ("vocab_size", "max_length")}
        for name in needed[self.kind]:
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing, which data of kind {self.kind} have")
        channels = {len(self.mean or ()), len(self.std or ()), self.in_channels}
        if self.kind == "image" and len(channels) > 1:
            raise ValueError(f"mean and std are not of {self.in_channels} channels")
        return self
