"""The ledger: a small record of every finished training, in a folder that belongs to the repository.

    ledger/trainings/<first two digits>/<identity>-<digest>.json.gz    a training
    ledger/code/<digest>.json           what a part of the code consisted of, function by function
    ledger/equivalences/<digest>.json   codes that were proven to compute the same

A training that is here is not done again, on any machine. Files are only added, or replaced by fuller ones of
the same training, under names that follow from their content: two ledgers merge by copying files.
"""

import functools
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.files import write_atomically, write_json
from lrstudy.identity import Code, training_identity
from lrstudy.ledger.equivalence import Classes, read_equivalences
from lrstudy.ledger.record import DamagedRecord, Record, encode, identity_in, read_record
from lrstudy.meaning import Definition

__all__ = ["DamagedRecord", "Ledger", "Record"]


class Ledger:
    """The ledger in ``folder``, which need not exist yet."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.trainings = self.folder / "trainings"

    def identities(self, settings: Mapping, data: str, code: Code) -> list[str]:
        """What a training may be called here: by this code first, then by codes proven equal to it."""
        parts = list(code)
        choices = [self._classes.members(part, code[part]) for part in parts]
        return [
            training_identity(settings, data, dict(zip(parts, chosen, strict=True)))
            for chosen in itertools.product(*choices)
        ]

    def canonical(self, code: Code) -> Code:
        """Each part of the code as the oldest that was proven equal to it."""
        return {part: self._classes.members(part, meaning)[0] for part, meaning in code.items()}

    @functools.cached_property
    def _classes(self) -> Classes:
        return read_equivalences(self.folder / "equivalences")

    def find(self, *identities: str) -> Record | None:
        """The record of the training with one of these identities, or None.

        Of several records the fullest, then the oldest.
        """
        return next(iter(self.all_of(*identities)), None)

    def all_of(self, *identities: str) -> list[Record]:
        """Every record of the training with one of these identities, the preferred first.

        One that is damaged is named and set aside.
        """
        found = []
        for identity in identities:
            for path in self.files(identity):
                try:
                    found.append(read_record(path))
                except DamagedRecord as error:
                    self._set_aside(path, error)
        return sorted(found, key=_preference)

    def files(self, identity: str) -> list[Path]:
        """The files of one training's records."""
        try:
            names = os.listdir(self.trainings / identity[:2])
        except FileNotFoundError:
            return []
        return sorted(self.trainings / identity[:2] / name for name in names if identity_in(name) == identity)

    def add(self, record: Record) -> Path:
        """Keep a record, in place of those of the same training in the same place that say less."""
        Record.model_validate(record.model_dump())  # what is written can be read
        name, content = encode(record)
        path = self.trainings / record.identity[:2] / name
        if not path.exists():
            write_atomically(path, content)
        for other in self.files(record.identity):
            if other != path and record.test is not None:
                try:
                    known = read_record(other)
                except DamagedRecord:
                    continue
                if known == record.model_copy(update={"test": None}):
                    other.unlink()
        return path

    def note_code(self, meaning: str, definitions: frozenset[Definition]) -> None:
        """Keep what a part of the code consists of, to say later what differs."""
        path = self.folder / "code" / f"{meaning}.json"
        if not path.exists():
            names: dict[str, list[str]] = {}
            for one in sorted(definitions, key=lambda one: (one.name, one.own)):
                names.setdefault(one.name, []).append(one.own[:16])
            write_json(path, {name: " ".join(hashes) for name, hashes in names.items()})

    def noted_code(self, meaning: str) -> dict[str, str] | None:
        """What :meth:`note_code` kept: definition -> digest; None where there is nothing or not that."""
        import json

        path = self.folder / "code" / f"{meaning}.json"
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def paths(self) -> Iterator[Path]:
        """Everything under ``trainings/`` that is no folder of two digits, in order."""
        for shelf in sorted(self.trainings.iterdir()) if self.trainings.is_dir() else []:
            if shelf.is_dir() and not shelf.is_symlink() and re.fullmatch("[0-9a-f]{2}", shelf.name):
                yield from sorted(path for path in shelf.iterdir() if not _is_unfinished(path))
            elif not _is_unfinished(shelf):
                yield shelf

    def records(self) -> Iterator[Record]:
        """Every training's record, the fullest where there are several; damaged ones are named on stderr."""
        by_identity: dict[str, list[Record]] = {}
        for path in self.paths():
            try:
                record = read_record(path)
            except DamagedRecord as error:
                print(f"ledger: left out: {error}", file=sys.stderr)
                continue
            by_identity.setdefault(record.identity, []).append(record)
        for records in by_identity.values():
            yield min(records, key=_preference)

    def _set_aside(self, path: Path, error: StudyError) -> None:
        aside = self.folder / "set-aside" / path.name
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, aside)
        print(f"ledger: {error} Set aside as {aside}.", file=sys.stderr)


def _preference(record: Record) -> tuple:
    return (record.test is None, record.origin.ended, encode(record)[0])


def _is_unfinished(path: Path) -> bool:
    """What :func:`lrstudy.files.write_atomically` was killed over."""
    return path.name.startswith(".") and path.name.endswith(".part")
