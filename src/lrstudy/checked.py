"""Files that are checked when they are read: JSON as records, CSV as tables, tensors.

Whoever has touched a file since, what has not the shape that its stage writes gets one sentence that names
the file, the place in it, what was found, and the stage that makes it anew. Names in a record may become
parts of paths, so they are letters, digits and underscores.

More than a record names may stand in its file: what only its own writer knows of.
"""

import contextlib
import csv
import io
import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from lrstudy.errors import StudyError
from lrstudy.files import write_atomically, write_json

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]  # may become part of a path
LARGEST = 2**53  # a whole number up to this is the same as a float, and no count in a study comes near it
Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,18})$")]
Value = Finite | Whole | bool | str | None | list[Finite | Whole]
Metric = Annotated[str, Field(pattern=r"^[a-z0-9_]+(/[a-z0-9_]+)?$")]


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Item = TypeVar("Item")
Two = Annotated[tuple[Item, Item], BeforeValidator(_tuple), PlainSerializer(list)]
"""Two of a kind, in JSON a list."""
Interval = Two[Finite]


def _with_a_rate(values: dict[str, Any]) -> dict[str, Any]:
    rate = values.get("base_lr")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        raise ValueError(f"base_lr is {reprlib.repr(rate)}, which is no rate above 0")
    return values


Values = Annotated[dict[Name, Value], AfterValidator(_with_a_rate)]
"""What a search found: the base rate, and the schedule's parameters."""


def _file_name(name: str) -> str:
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError("must be the name of a file, without a folder")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]


def read_bytes(path: Path, stage: str) -> bytes:
    """What is in ``path``, a file that ``stage`` writes.

    Raises:
        StudyError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"{path}: not found; `{_command(stage)}` makes it.") from None
    except OSError as error:
        raise refused(path, stage, f"cannot be read ({error.strerror})") from None


def read_tensors(path: Path, stage: str, framework: Literal["numpy", "torch"] = "numpy") -> dict[str, Any]:
    """The tensors by name in ``path``, a safetensors file that ``stage`` writes.

    Raises:
        StudyError: it is missing, cannot be read, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        read_bytes(path, stage)  # says what is there instead
    try:
        with safe_open(path, framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise refused(path, stage, f"not a file of tensors ({error})") from None


def refused(path: Path, stage: str, why: str) -> StudyError:
    """The error for a file that is not what ``stage`` writes."""
    return StudyError(f"{path}: {why}; `{_command(stage, '--force -s ')}` makes it anew.")


def _command(stage: str, how: str = "") -> str:
    """What runs a stage; or the command itself that is given in its place."""
    return stage if stage.startswith("python ") else f"dvc repro {how}{stage}"


class Record(BaseModel):
    """A part of an output; what it does not name is kept as it is."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    def told(self) -> dict[str, Any]:
        """By name the parts that were given, as they are, for a record that has more of them."""
        given = self.model_fields_set | (self.model_extra or {}).keys()
        return {name: part for name, part in self if name in given}


class Output(Record):
    """A whole file."""

    @classmethod
    def read(cls, path: Path, stage: str) -> Self:
        """What ``stage`` wrote to ``path``.

        Raises:
            StudyError: it is missing, not readable, or not what that stage writes.
        """
        text = read_bytes(path, stage)
        try:
            content = json.loads(text.decode())
        except json.JSONDecodeError as error:
            raise refused(path, stage, f"not JSON (line {error.lineno})") from None
        except (ValueError, RecursionError):  # no text, a number without end, or nested without end
            raise refused(path, stage, "not JSON") from None
        if not isinstance(content, dict):
            raise refused(path, stage, f"a {type(content).__name__}, not an object")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            what = f"{_first(error)}: not what this version of the stage writes"
            raise refused(path, stage, what) from None

    def write(self, path: Path) -> None:
        """Put it there as JSON, atomically; what was not given is not written."""
        write_json(path, self.model_dump(exclude_unset=True))

    @classmethod
    def write_values(cls, path: Path, values: dict[str, Any]) -> None:
        """Put plain values there as :meth:`write` does, in their order; they must be such a record.

        Raises:
            ValidationError: they are not, which is a mistake of the stage.
        """
        cls.model_validate(json.loads(json.dumps(values)))  # as it will be read
        write_json(path, values)


def _first(error: ValidationError) -> str:
    """The first problem: where, and what was found."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    place = place if place.isprintable() else repr(place)
    if problem["type"] == "missing":
        return f"{place:.200} is missing"
    if problem["type"] == "value_error":  # of several keys together: it says which
        return f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}"
    found = reprlib.repr(problem["input"])  # however deeply it is nested
    return f"{place:.200} is {found if len(found) <= 60 else found[:57] + '...'}"


@dataclass(frozen=True)
class Table:
    """A whole CSV file with a header: what its columns hold. More columns of numbers may stand in it.

    Numbers are finite, or nan where a training that diverged has none.
    """

    names: tuple[str, ...]
    whole: tuple[str, ...]  # whole numbers, at least 0
    numbers: tuple[str, ...]

    def read(self, path: Path, stage: str) -> list[dict[str, Any]]:
        """The rows that ``stage`` wrote to ``path``: by column a text, an int or a float.

        Raises:
            StudyError: it is missing, not readable, or not what that stage writes.
        """
        content = read_bytes(path, stage)
        try:
            header, *lines = csv.reader(io.StringIO(content.decode(), newline=""))
        except (ValueError, csv.Error):  # no text, nothing at all, a field without end
            raise refused(path, stage, "not a table of numbers") from None
        if missing := [name for name in (*self.names, *self.whole, *self.numbers) if name not in header]:
            raise refused(path, stage, f"has no column {missing[0]}")
        if len(set(header)) < len(header):
            raise refused(path, stage, "has a column twice")
        if not lines:
            raise refused(path, stage, "has no rows")
        rows = []
        for number, line in enumerate(lines, 2):
            if len(line) != len(header):
                raise refused(path, stage, f"row {number} has {len(line)} of {len(header)} columns")
            try:
                rows.append({name: self._value(name, text) for name, text in zip(header, line, strict=True)})
            except ValueError as error:
                raise refused(path, stage, f"row {number}: {error}") from None
        return rows

    def write(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put the rows there, atomically; floats in full precision. All have the columns of the first."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue())

    def _value(self, column: str, text: str) -> str | int | float:
        if column in self.names:
            if re.fullmatch(r"[A-Za-z0-9_]+", text):
                return text
        elif column in self.whole:
            if re.fullmatch(r"[0-9]{1,15}", text):
                return int(text)
        else:
            with contextlib.suppress(ValueError):
                if not math.isinf(value := float(text)):
                    return value
        raise ValueError(f"{column} is {reprlib.repr(text)}")
