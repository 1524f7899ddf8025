"""Codes that compute the same: what was proven, and what each code may be called."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.identity import content_hash
from lrstudy.ledger.record import Origin, Sha256, printable


class Pair(BaseModel):
    """Two meanings of one part of the code (of the entry ``name``, or the loop) that compute the same."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    part: Literal["loop", "schedule", "controller", "optimizer", "network"]
    name: str
    old: Sha256
    new: Sha256


class Equivalence(BaseModel):
    """What ``make prove-equal`` found equal to the bit, between which revisions, by what, and where."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[1]
    pairs: Annotated[list[Pair], Field(min_length=1)]
    base: str
    revision: str
    compared: dict[str, Any]
    origin: Origin


class Classes:
    """Which meanings of a part of the code are equal, from pairs."""

    def __init__(self, pairs: Iterable[Pair]):
        self._members: dict[tuple[str, str], set[str]] = {}
        newer: set[tuple[str, str]] = set()
        for pair in pairs:
            joined = self._of(pair.part, pair.old) | self._of(pair.part, pair.new)
            for meaning in joined:
                self._members[pair.part, meaning] = joined
            newer.add((pair.part, pair.new))
        self._newer = newer

    def members(self, part: str, meaning: str) -> list[str]:
        """All that are equal to ``meaning``, and itself; first one that was proven equal to no older one."""
        return sorted(self._of(part, meaning), key=lambda one: ((part, one) in self._newer, one))

    def _of(self, part: str, meaning: str) -> set[str]:
        return self._members.get((part, meaning), {meaning})


def read_equivalences(folder: Path) -> Classes:
    """The classes that the files in ``folder`` make.

    Raises:
        StudyError: a file is not what :func:`write_equivalence` writes. It is not passed over in silence:
            trainings would be done again.
    """
    return Classes(pair for path in sorted(folder.glob("*.json")) for pair in read_equivalence(path).pairs)


def read_equivalence(path: Path) -> Equivalence:
    """The equivalence in a file; StudyError where it is none, or was changed since it was written."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1_000_000:
        raise StudyError(f"{path}: not the file of an equivalence; remove it.")
    try:
        content = json.loads(path.read_text("utf-8"))
        found = Equivalence.model_validate(content)
    except ValidationError as error:
        where = printable(".".join(str(part) for part in error.errors()[0]["loc"]))
        raise StudyError(f"{path}: {where}: {error.errors()[0]['msg']}; restore it, or remove it.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{path}: not JSON ({reason}); restore it, or remove it.") from None
    if content_hash(content)[:16] != path.stem:
        raise StudyError(
            f"{path}: not the content that its name is made of: it was changed by hand; restore it, or "
            "remove it."
        )
    return found


def write_equivalence(folder: Path, found: Equivalence) -> Path:
    """Add an equivalence to the ledger; returns its file, named after its content."""
    content = found.model_dump()
    path = folder / f"{content_hash(content)[:16]}.json"
    write_json(path, content)
    return path
