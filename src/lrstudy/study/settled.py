"""Cells of which all is done, so that who goes on with a study need not go through them again.

Each has a note beside its runs: what it was asked for, which records of the ledger came of it, and how much
its journals hold. It holds good while the cell is asked for the same by the same code, the records are in the
ledger, and MLflow and Optuna have been told all of it. One that does not is of no consequence: the cell is
gone through as if there were none.
"""

import functools
import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lrstudy.checked import Count, Output, Seed, Sha256
from lrstudy.entries.meaning import digest
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger
from lrstudy.ledger.record import file_name
from lrstudy.recipe.cells import Cell, make_cell, searching_cell
from lrstudy.recipe.config import Params
from lrstudy.recipe.identity import LOOP, code_behind, content_hash
from lrstudy.search.tuning import storage_uri
from lrstudy.study.plan import Plan
from lrstudy.study.tasks import training_task
from lrstudy.study.workspace import ledger_folder
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import is_gone, num_sent, server_name, tracking_uri

_GOES_THROUGH = "lrstudy.study.cell_jobs", "cell_jobs"  # apart: it is looked at here, and not used
_SEARCHES = ("optuna", "scipy")  # a search's trials are theirs


def _network(cell: Cell) -> str:
    return content_hash([cell.dataset, cell.model.network])


_Folder = Annotated[str, Field(pattern=r"^checkpoints(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$")]


class Note(Output):
    """What was found when a cell was settled."""

    asked: Sha256
    seeds: dict[Seed, Sha256]
    records: list[str]
    journals: dict[_Folder, Count]  # by folder in the workspace the number of events
    databases: list[str]


@dataclass(frozen=True)
class Settled:
    """The settled cells of a workspace."""

    params: Params
    root: Path
    _known: dict[str, dict[str, str] | None] = field(default_factory=dict)

    def all_of_the_network(self, cell: Cell, meta: dict) -> bool:
        """Whether all cells of the study with this one's network and data are settled: only their trainings
        may share something with its.
        """
        return all(self.seeds(one, meta) is not None for one in self._by_network[_network(cell)])

    @functools.cached_property
    def _by_network(self) -> dict[str, list[Cell]]:
        found: dict[str, list[Cell]] = {}
        for one in self.params.cells.values():
            cell = make_cell(self.params, one.model, one.schedule)
            found.setdefault(_network(cell), []).append(cell)
        return found

    def seeds(self, cell: Cell, meta: dict) -> dict[str, str] | None:
        """By seed the identities of a settled cell's trainings; None where it is to be gone through."""
        if cell.name not in self._known:
            self._known[cell.name] = self._read(cell, meta)
        return self._known[cell.name]

    def _read(self, cell: Cell, meta: dict) -> dict[str, str] | None:
        try:
            note = Note.read(self._path(cell), "trainings")
        except StudyError:
            return None
        there = (
            note.databases == self._databases
            and not self._lost
            and note.asked == self._asked(cell, meta)
            and self._records.issuperset(note.records)
            and all(
                num_sent(self.root / folder, self._tracker) >= count
                for folder, count in note.journals.items()
            )
        )
        return note.seeds if there else None

    def note(self, plan: Plan, meta: dict, journals: list[Journal]) -> None:
        """Note that all of a cell is done, if it is: one whose weights were missing was not measured."""
        if plan.waiting or len(plan.measured) < len(self.params.train.seeds):
            return
        needs = [*plan.needs, *plan.seeds.values()]
        Note(
            asked=self._asked(plan.cell, meta),
            seeds=plan.identities,
            records=sorted({file_name(need.record) for need in needs if need.record is not None}),
            journals={
                os.path.relpath(journal.folder, self.root): len(journal.events()) for journal in journals
            },
            databases=self._databases,
        ).write(self._path(plan.cell))

    def _path(self, cell: Cell) -> Path:
        return self.root / "checkpoints" / cell.name / "settled.json"

    def _asked(self, cell: Cell, meta: dict) -> str:
        """All that a cell's plan follows from."""
        params = self.params
        searching = searching_cell(params, cell)
        trained = [
            training_task(one, params, one.settings(), 0, meta, self.root, one.name)["key"]
            for one in (cell, searching)
        ]
        space = {name: where.model_dump() for name, where in searching.search_space().items()}
        return content_hash(
            [self._code, trained, space, params.tune.model_dump(mode="json"), params.train.seeds]
        )

    @functools.cached_property
    def _code(self) -> list[str]:
        return [digest(code_behind(".".join(_GOES_THROUGH), without=LOOP)), *map(version, _SEARCHES)]

    @functools.cached_property
    def _records(self) -> set[str]:
        return {path.name for path in Ledger(ledger_folder(self.root)).paths()}

    @functools.cached_property
    def _tracker(self) -> str:
        return tracking_uri(self.root)

    @functools.cached_property
    def _databases(self) -> list[str]:
        return [server_name(uri) for uri in (self._tracker, storage_uri(self.root))]

    @functools.cached_property
    def _lost(self) -> bool:
        return is_gone(self._tracker) or is_gone(storage_uri(self.root))
