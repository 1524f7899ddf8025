"""Codes that compute the same: what was proven, and what each code may be called."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrstudy.checked import Sha256
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger.record import Origin, printable
from lrstudy.recipe.identity import Code, content_hash, kind_of

Part = Literal["loop", "schedule", "controller", "optimizer", "network"]
"""Of the code that a training uses."""


class Pair(BaseModel):
    """Two meanings of one part of the code (of the entry ``name``, or the loop) that compute the same."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    part: Part
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
    """Which codes compute the same, from what was proven equal: for each proof its pairs."""

    def __init__(self, proofs: Iterable[Iterable[Pair]]):
        self._members: dict[tuple[str, str], set[str]] = {}
        self._newer: set[tuple[str, str]] = set()
        self._steps: list[dict[tuple[str, str], str]] = []
        for proof in proofs:
            pairs = list(proof)
            for pair in pairs:
                joined = self._of(pair.part, pair.old) | self._of(pair.part, pair.new)
                for meaning in joined:
                    self._members[pair.part, meaning] = joined
                self._newer.add((pair.part, pair.new))
            self._steps.append({(pair.part, pair.new): pair.old for pair in pairs})
            self._steps.append({(pair.part, pair.old): pair.new for pair in pairs})

    def holds(self, pair: Pair) -> bool:
        """Whether the two are equal by what was proven."""
        return pair.new in self._of(pair.part, pair.old)

    def canonical(self, code: Code) -> Code:
        """Each part as the one that was proven equal to no older one."""
        return {
            part: min(((kind_of(part), one) in self._newer, one) for one in self._of(part, meaning))[1]
            for part, meaning in code.items()
        }

    def equal_to(self, code: Code) -> list[Code]:
        """The codes that a training may be recorded under: the canonical one, then what proofs lead to.

        A proof is gone as a whole, forwards or backwards: parts that changed together have no mixtures.
        """
        found, waiting = [self.canonical(code)], [code]
        while waiting:
            one = waiting.pop(0)
            if one not in found:
                found.append(one)
            for step in self._steps:
                other = {part: step.get((kind_of(part), meaning), meaning) for part, meaning in one.items()}
                if other not in found and other not in waiting:
                    waiting.append(other)
        return found

    def _of(self, part: str, meaning: str) -> set[str]:
        return self._members.get((kind_of(part), meaning), {meaning})


def read_equivalences(folder: Path) -> Classes:
    """The classes that the files in ``folder`` make.

    Raises:
        StudyError: a file is not what :func:`write_equivalence` writes. It is not passed over in silence:
            trainings would be done again.
    """
    return Classes(read_equivalence(path).pairs for path in sorted(folder.glob("*.json")))


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
