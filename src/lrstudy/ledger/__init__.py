"""The ledger: a small record of every finished training, in a folder that belongs to the repository.

    ledger/trainings/<first two digits>/<identity>-<digest>.json.gz    a training
    ledger/code/<digest>.json           what a part of the code consisted of, function by function
    ledger/equivalences/<digest>.json   codes that were proven to compute the same

A training that is here is not done again, on any machine with its kind of device and dtype. Files are only
added, or replaced by fuller ones of the same training (:meth:`Record.says_all_of`), under names that follow
from their content: two ledgers merge by copying files.
"""

import functools
import gzip
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lrstudy.entries.meaning import Definition, listing
from lrstudy.errors import StudyError
from lrstudy.files import write_atomically, write_json
from lrstudy.ledger.equivalence import Classes, read_equivalences
from lrstudy.ledger.record import (
    DamagedRecord,
    NewerRecord,
    Record,
    encode,
    file_name,
    identity_in,
    printable,
    read_record,
)
from lrstudy.recipe.identity import Code, training_identity

__all__ = ["DamagedRecord", "Ledger", "NewerRecord", "Record", "read_code"]

MAX_CODE_BYTES = 1_000_000


class Ledger:
    """The ledger in ``folder``, which need not exist yet."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.trainings = self.folder / "trainings"

    def identities(self, settings: Mapping, data: str, code: Code) -> list[str]:
        """What a training may be called here: by the oldest code proven equal to this, then by others."""
        return [training_identity(settings, data, equal) for equal in self._classes.equal_to(code)]

    def canonical(self, code: Code) -> Code:
        """Each part of the code as the oldest that was proven equal to it."""
        return self._classes.canonical(code)

    @functools.cached_property
    def _classes(self) -> Classes:
        folder = self.folder / "equivalences"
        return _classes(folder, folder.stat().st_mtime_ns if folder.is_dir() else 0)

    def find(self, *identities: str) -> Record | None:
        """The record of the training with one of these identities, or None.

        Of several records the one that :func:`preference` puts first.

        Raises:
            NewerRecord: see :meth:`all_of`.
        """
        return next(iter(self.all_of(*identities)), None)

    def all_of(self, *identities: str) -> list[Record]:
        """Every record of the training with one of these identities, the preferred first.

        One that is damaged is named and set aside.

        Raises:
            NewerRecord: a later version of this code has recorded it. To pass it over would be to train again
                what somebody has trained.
        """
        found = [record for identity in identities for record in self._readable(identity).values()]
        return sorted(found, key=preference)

    def _readable(self, identity: str) -> dict[Path, Record]:
        while True:
            found = {}
            try:
                for path in self.files(identity):
                    try:
                        found[path] = read_record(path)
                    except DamagedRecord as error:
                        self._set_aside(path, error)
            except FileNotFoundError:
                continue  # another process has just put a fuller record in a file's place
            return found

    def files(self, identity: str) -> list[Path]:
        """The files of one training's records.

        Raises:
            StudyError: the folder that they lie in is a link.
        """
        shelf = self.trainings / identity[:2]
        if shelf.is_symlink():
            raise StudyError(f"{shelf}: a link, not a folder of the ledger; remove it.")
        try:
            names = os.listdir(shelf)
        except FileNotFoundError:
            return []
        return sorted(shelf / name for name in names if identity_in(name) == identity)

    def add(self, record: Record) -> Path:
        """Keep a record, in place of those that only lack what it has (:meth:`Record.says_all_of`).

        Returns:
            its file, or that of a record that says all of it and more.

        Raises:
            NewerRecord: see :meth:`all_of`.
        """
        name, content = encode(record)
        Record.model_validate(json.loads(gzip.decompress(content)))  # what is written can be read
        path = self.trainings / record.identity[:2] / name
        known = self._readable(record.identity)  # what is damaged is out of the way after this
        for other, found in known.items():
            if found != record and found.says_all_of(record):
                return other
        if path not in known:
            write_atomically(path, content)
        for other, found in known.items():
            if found != record and record.says_all_of(found):
                other.unlink(missing_ok=True)
        return path

    def note_code(self, meaning: str, definitions: frozenset[Definition]) -> None:
        """Keep what a part of the code consists of, to say later what differs."""
        path = self.folder / "code" / f"{meaning}.json"
        if not path.exists():
            write_json(path, listing(definitions))

    def noted_code(self, meaning: str) -> dict[str, str] | None:
        """What :meth:`note_code` kept: definition -> digest; None where there is nothing or not that."""
        try:
            return read_code(self.folder / "code" / f"{meaning}.json")
        except (StudyError, OSError):
            return None

    def paths(self) -> Iterator[Path]:
        """Everything under ``trainings/`` that is no folder of two digits, in order."""
        for shelf in sorted(self.trainings.iterdir()) if self.trainings.is_dir() else []:
            if shelf.is_dir() and not shelf.is_symlink() and re.fullmatch("[0-9a-f]{2}", shelf.name):
                yield from sorted(path for path in shelf.iterdir() if not _is_unfinished(path))
            elif not _is_unfinished(shelf):
                yield shelf

    def unfinished(self) -> list[Path]:
        """Files that a process is writing anywhere in the ledger, or was killed over."""
        return sorted(path for path in self.folder.rglob(".*.part") if _is_unfinished(path))

    def read(self, path: Path) -> Record:
        """The record in one of :meth:`paths`.

        Raises:
            DamagedRecord: it is none, or does not lie where its training is looked for.
            NewerRecord: a later version of this code has written it.
        """
        record = read_record(path)
        if path.parent != self.trainings / record.identity[:2]:
            raise DamagedRecord(
                f"{printable(path, 4096)}: not in the folder {record.identity[:2]}, where it is looked for."
            )
        return record

    def records(self) -> Iterator[Record]:
        """Every training's record, the preferred where there are several.

        Those that are damaged or of a newer format are named on stderr and left out.
        """
        by_identity: dict[str, list[Record]] = {}
        for path in self.paths():
            try:
                record = self.read(path)
            except (DamagedRecord, NewerRecord) as error:
                print(f"ledger: left out: {error}", file=sys.stderr)
                continue
            by_identity.setdefault(record.identity, []).append(record)
        for records in by_identity.values():
            yield min(records, key=preference) if len(records) > 1 else records[0]

    def _set_aside(self, path: Path, error: StudyError) -> None:
        folder = self.folder / "set-aside"
        folder.mkdir(parents=True, exist_ok=True)
        names = itertools.chain([path.name], (f"{path.name}.{count}" for count in itertools.count(2)))
        aside = next(folder / name for name in names if not os.path.lexists(folder / name))
        os.replace(path, aside)
        print(f"ledger: {error} Set aside as {printable(aside, 4096)}.", file=sys.stderr)


@functools.lru_cache(maxsize=8)
def _classes(folder: Path, changed: int) -> Classes:
    """The equivalences in a folder that was last ``changed`` then: every training asks for them."""
    return read_equivalences(folder)


def read_code(path: Path) -> dict[str, str]:
    """What :meth:`Ledger.note_code` wrote: definition -> digest.

    Raises:
        StudyError: the file is not that; one sentence says why.
        OSError: the system does not let it be read.
    """
    where = printable(path, 4096)
    if path.is_symlink() or not path.is_file():
        raise StudyError(f"{where}: not the file of a code listing.")
    if not re.fullmatch(r"[0-9a-f]{64}\.json", path.name):
        raise StudyError(f"{where}: the name is not <SHA-256>.json.")
    if path.stat().st_size > MAX_CODE_BYTES:
        raise StudyError(f"{where}: {path.stat().st_size:,} bytes; a listing has at most {MAX_CODE_BYTES:,}.")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{where}: not JSON ({printable(str(error).splitlines()[0])}).") from None
    if not (
        isinstance(found, dict)
        and all(
            isinstance(own, str) and re.fullmatch(r"[0-9a-f]{16}( [0-9a-f]{16})*", own)
            for own in found.values()
        )
    ):
        raise StudyError(f"{where}: not definitions with 16 hexadecimal digits each.")
    return found


def preference(record: Record) -> tuple:
    """What several records of one training are sorted by.

    Measured on test data before not, then a study's own (final) before a search's (trial), then the oldest.
    """
    return (record.test is None, record.labels.role != "final", record.origin.ended, file_name(record))


def _is_unfinished(path: Path) -> bool:
    """What :func:`lrstudy.files.write_atomically` is writing, or was killed over."""
    return path.name.startswith(".") and path.name.endswith(".part")
