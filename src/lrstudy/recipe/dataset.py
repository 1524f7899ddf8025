"""What a data set's conf file says (conf/dataset/<name>.yaml): what it is, where it comes from, what decides.

Everything that depends on which data set it is stands there and nowhere in the code: a new one is a new file.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lrstudy.errors import StudyError
from lrstudy.recipe.conf import conf_folders

Split = Literal["train", "test"]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=4, le=1024)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Paths = Annotated[list[str], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Columns(_Section):
    """The two columns of a table that are read."""

    input: str  # of the texts; of the images, or of paths to them
    label: str


class _BothSplits(_Section):
    @model_validator(mode="after")
    def _two_splits(self) -> "_BothSplits":
        for name, by_split in ((name, getattr(self, name)) for name in type(self).model_fields):
            if isinstance(by_split, dict) and set(by_split) != {"train", "test"}:
                raise ValueError(f"{name} has {', '.join(by_split) or 'nothing'}; give train and test")
        return self


class Hub(_BothSplits):
    """Files of a data set repository on the Hugging Face hub, at a pinned revision."""

    type: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    columns: Columns
    files: dict[Split, Paths]  # parquet or CSV, paths inside of the repository
    sha256: dict[Split, list[Sha256]] | None = None  # of the files; None: the hub's own at that revision

    @model_validator(mode="after")
    def _readable(self) -> "Hub":
        for split, paths in self.files.items():
            for path in paths:
                check_table_name(path)
            if self.sha256 is not None and len(self.sha256[split]) != len(paths):
                raise ValueError(
                    f"sha256.{split} has {len(self.sha256[split])} hashes for {len(paths)} files"
                )
        return self


class Torchvision(_Section):
    """A data set by its name in ``torchvision.datasets``, which downloads it and checks its MD5."""

    type: Literal["torchvision"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]


class Images(_BothSplits):
    """A folder of one's own, with a folder for each split and in it a folder of images for each class."""

    type: Literal["images"]
    folder: str
    splits: dict[Split, str] = {"train": "train", "test": "test"}


class Table(_BothSplits):
    """CSV or parquet files of one's own, with the texts, the images or paths to them in a column."""

    type: Literal["table"]
    folder: str
    files: dict[Split, Paths]
    columns: Columns

    @field_validator("files")
    @classmethod
    def _readable(cls, files: dict[str, list[str]]) -> dict[str, list[str]]:
        for paths in files.values():
            for path in paths:
                check_table_name(path)
        return files


def check_table_name(path: str) -> None:
    """Raise ValueError for a file that is neither CSV nor parquet by its name."""
    if not re.search(r"\.(csv|parquet)$", path):
        raise ValueError(f"{path} is neither .csv nor .parquet")


class Archive(_BothSplits):
    """A tar archive of pickled batches (``data``: uint8 (n, 3072), channel first; ``labels``: n integers)."""

    url: str
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    members: dict[Split, Paths]  # the batches of each split, in order


Origin = Annotated[Hub | Torchvision | Images | Table, Field(discriminator="type")]


class Dataset(_BothSplits):
    """A data set, as its conf file describes it."""

    kind: Literal["image", "text"]
    title: Annotated[str, Field(min_length=1, max_length=60)]  # as it stands in tables and figures
    headline: Literal["accuracy", "f1_macro", "balanced_accuracy"]  # the test metric that decides
    classes: Annotated[list[str], Field(min_length=2, max_length=10_000)]
    image_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None  # height, width
    channels: Literal[1, 3] | None = None
    resize: bool = False  # images of another size are made to fit; False: they are refused
    rows: dict[Split, Count] | None = None  # None: any number
    balanced: bool = False  # every class must have as many examples
    num_epochs: Count  # where neither the model's row nor the preset says more
    batch_size: Count
    sample: Literal["digits", "reviews", "topics"] | None  # what stands in for it with data=sample
    origin: Origin
    archive: Archive | None = None  # where it comes from with data=archive; None: as with data=hub
    watched: str = ""  # the path whose change makes `download` stale; conf/config.yaml derives it

    @model_validator(mode="after")
    def _agree(self) -> "Dataset":
        if len(set(self.classes)) != len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"classes has {twice!r} twice")
        of_images = {"image_size": self.image_size, "channels": self.channels}
        for name, value in of_images.items():
            if (value is not None) != (self.kind == "image"):
                raise ValueError(f"{name} is for kind image, which needs it; found kind {self.kind}")
        if self.kind == "text":
            if self.resize or self.archive is not None:
                raise ValueError("resize and archive are for kind image")
            if self.origin.type in ("images", "torchvision"):
                raise ValueError(f"origin.type {self.origin.type} has images; kind is text")
        kinds = {"digits": "image", "reviews": "text", "topics": "text"}
        if self.sample is not None and kinds[self.sample] != self.kind:
            raise ValueError(f"sample {self.sample} is of kind {kinds[self.sample]}; kind is {self.kind}")
        if self.sample == "reviews" and len(self.classes) != 2:
            raise ValueError(f"sample reviews has 2 classes, not {len(self.classes)}; topics has any number")
        if self.sample == "digits" and len(self.classes) > 100:
            raise ValueError(f"sample digits has at most 100 classes, not {len(self.classes)}; null is none")
        if self.balanced and self.rows and any(rows % len(self.classes) for rows in self.rows.values()):
            raise ValueError(f"rows {self.rows} are no multiple of the {len(self.classes)} classes")
        return self

    @property
    def metric(self) -> str:
        """The headline metric by its name in comparisons: ``test/...``."""
        return f"test/{self.headline}"


def image_shape(of: "Dataset | Layout") -> tuple[int, int, int]:
    """Height, width and channels of the images; data of kind image have all three."""
    if of.image_size is None or of.channels is None:
        raise ValueError(f"data of kind {of.kind} have no shape of images")
    height, width = of.image_size
    return height, width, of.channels


class Layout(_Section):
    """How the rows of a raw split are to be read; source.json has it."""

    kind: Literal["image", "text"]
    columns: Columns
    class_names: Annotated[list[str], Field(min_length=1)]
    image_size: list[int] | None = None
    channels: int | None = None
    resize: bool = False
    balanced: bool = False


def headlines(root: Path) -> dict[str, str]:
    """By data set the metric that decides, ``test/...``, as the conf files in reach say.

    For who asks the ledger beyond the study of params.yaml. Files are those of conf/dataset under ``root``
    and of the folder that ``LRSTUDY_CONF`` names.

    Raises:
        StudyError: a file is not what such a file says.
    """
    by_name = {}
    folders = reversed(conf_folders(root))  # so that the repository's hold
    for path in (path for folder in folders for path in sorted((folder / "dataset").glob("*.yaml"))):
        try:
            by_name[path.stem] = Dataset.model_validate(yaml.safe_load(path.read_text("utf-8"))).metric
        except (OSError, ValueError, yaml.YAMLError) as error:
            first = str(error).strip().splitlines()
            raise StudyError(f"{path}: not a data set's file ({'; '.join(first[:3])}).") from error
    return by_name
