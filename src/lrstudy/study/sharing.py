"""What trainings of one engine have in common is trained once (:mod:`lrstudy.training.prefix`).

A training that has more to share with one under way waits until that one has ended, and begins from the
checkpoint that it left. What is the same throughout a recorded training needs none.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrstudy.ledger.record import FORMAT, Labels, Record, Shared
from lrstudy.recipe.cells import Cell
from lrstudy.study.runs import kept_for_others
from lrstudy.study.tasks import record_of
from lrstudy.training.measures import num_steps
from lrstudy.training.prefix import agreeing_epochs, agreeing_with, trunk_key

_REPLAYED = ("epoch", "train/loss", "validation/loss", "gradient_norm", "controller_factor")
_KEPT_AT_MOST = 8  # checkpoints of one training that are kept for those whose values are not known yet


def trunk_of(task: Mapping[str, Any]) -> str | None:
    """The trunk that a training's task belongs to: those of one trunk may begin alike."""
    if task["settings"]["training_share"] != 1:
        return None
    return trunk_key(task["settings"], task["data"])


def steps_per_epoch(task: Mapping[str, Any]) -> int:
    """The updates in an epoch of a training on all of its data."""
    return num_steps(task["described"]["num_examples"]["train"], task["settings"]["batch_size"])


def common(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> int:
    """How many epochs two trainings of one trunk have in common at most, by their schedules."""
    return agreeing_epochs(mine["settings"], theirs["settings"], steps_per_epoch(mine))


def derived(task: Mapping[str, Any], other: Mapping[str, Any], record: Record) -> Record | None:
    """The record of a training that is the same throughout as a recorded one of its trunk; None if it is not.

    Args:
        task: of the training.
        other: the recorded training's task.
    """
    known = record.outcome()["epochs"]
    epochs = agreeing_with(task["settings"], other["settings"], known, steps_per_epoch(task))
    if len(epochs) < len(known):
        return None
    history = dict(record.history) | {"controller_factor": [epoch["controller_factor"] for epoch in epochs]}
    return Record.model_validate(
        record.model_dump()
        | {
            "format": FORMAT,
            "identity": task["identities"][0],
            "settings": task["settings"],
            "code": task["code"],
            "labels": Labels(**task["labels"]).model_dump(),
            "history": history,
            "interventions": [one for epoch in epochs for one in epoch["interventions"]],
            "shared": Shared(identity=record.identity, epochs=len(epochs)).model_dump(),
        }
    )


@dataclass(frozen=True)
class _Known:
    """A training that has ended, with what a controller is told of its epochs."""

    task: dict
    history: list[dict]

    def in_common(self, task: Mapping[str, Any]) -> int:
        """How many epochs from the first another training of its trunk has in common with it."""
        return len(
            agreeing_with(task["settings"], self.task["settings"], self.history, steps_per_epoch(task))
        )

    def left_for(self, task: Mapping[str, Any]) -> int:
        """After how many epochs another training can begin from what this one has left; 0: nothing."""
        kept = [epoch for epoch, _ in kept_for_others(Path(self.task["folder"]))]
        most = self.in_common(task) if kept else 0
        return max((epoch for epoch in kept if epoch <= most), default=0)


@dataclass
class _Trunk:
    """The trainings of one trunk, by key: those that wait, run, and have ended; of the former those that wait
    for one under way."""

    waiting: dict[str, dict] = field(default_factory=dict)
    running: dict[str, dict] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)
    known: dict[str, _Known] = field(default_factory=dict)


class Sharing:
    """Which trainings of an engine wait for others, and what they begin from."""

    def __init__(self) -> None:
        self._trunks: dict[str, _Trunk] = {}
        self._expected: dict[str, Cell] = {}

    # --- trainings that have ended ---

    def know(self, task: dict, record: Record) -> None:
        """Take note of a training that is recorded; what it has left for others counts, too.

        One whose record lacks what a controller is told, as other programs' may, has nothing in common with
        any.
        """
        if (key := trunk_of(task)) is None or not set(_REPLAYED) <= record.history.keys():
            return
        trunk = self._trunks.setdefault(key, _Trunk())
        if task["key"] not in trunk.known:
            history = [{name: epoch[name] for name in _REPLAYED} for epoch in record.outcome()["epochs"]]
            trunk.known[task["key"]] = _Known(task, history)

    def whole(self, task: dict) -> Record | None:
        """The record of a training that is the same throughout as a known one; its weights are brought."""
        if (key := trunk_of(task)) is None or key not in self._trunks:
            return None
        for other in self._trunks[key].known.values():
            if other.in_common(task) < len(other.history):
                continue
            record, source = record_of(other.task), Path(other.task["folder"])
            there = [name for name in record.weights if (source / f"{name}.safetensors").is_file()]
            if task["keep_weights"] and not record.test and len(there) < max(1, len(record.weights)):
                continue  # nothing could be measured
            _bring_weights(source, Path(task["folder"]), there)
            return derived(task, other.task, record)
        return None

    # --- trainings of this engine ---

    def expect(self, cell: Cell) -> None:
        """A cell will ask for trainings with values that are not known yet."""
        self._expected[cell.name] = cell

    def settle(self, cell: Cell) -> None:
        """A cell has asked for all its trainings, or will not."""
        self._expected.pop(cell.name, None)

    def _followers(self, task: dict) -> list[dict]:
        """Trainings that may be asked for later: with their cells' defaults, but for the base rate."""
        settings = task["settings"]
        found = []
        for cell in self._expected.values():
            other = cell.settings()
            if other["model"] == settings["model"]:
                alike = {name: other[name] for name in ("schedule", "controller")}
                found.append(task | {"settings": settings | alike})
        return found

    def add(self, task: dict) -> None:
        """A training is to be done."""
        if (trunk := trunk_of(task)) is not None:
            self._trunks.setdefault(trunk, _Trunk()).waiting[task["key"]] = task

    def begin(self, task: dict) -> dict | None:
        """What a training that could begin now takes along; None if it is better to wait for one under
        way.
        """
        if (key := trunk_of(task)) is None:
            return {}
        trunk = self._trunks[key]
        left = {name: other.left_for(task) for name, other in trunk.known.items()}
        most = max(left.values(), default=0)
        if any(common(task, other) > most for other in trunk.running.values()):
            trunk.parked.add(task["key"])
            return None
        trunk.waiting.pop(task["key"], None)
        trunk.running[task["key"]] = task
        later = max((common(task, other) for other in self._followers(task)), default=0)
        spread = {round(later * part / _KEPT_AT_MOST) for part in range(1, _KEPT_AT_MOST + 1)} - {0}
        return {
            "keep_at": sorted({*self._wanted(task, trunk.waiting.values()), *spread}),
            "trunks": [
                {
                    "folder": other.task["folder"],
                    "key": name,
                    "label": other.task["label"],
                    "epochs": left[name],
                }
                for name, other in trunk.known.items()
                if left[name]
            ],
        }

    @staticmethod
    def _wanted(task: dict, others: Iterable[dict]) -> set[int]:
        """After which epochs of a training one of the others may begin."""
        wanted: set[int] = set()
        for other in others:
            shared = common(task, other)
            alike = other["settings"]["controller"] == task["settings"]["controller"]
            wanted |= {shared} if alike and shared else set(range(1, shared + 1))
        return wanted

    def end(self, task: dict) -> list[str]:
        """A training has ended, and is known if it has a record; returns those that waited for it, by key."""
        if (key := trunk_of(task)) is None or key not in self._trunks:
            return []
        trunk = self._trunks[key]
        trunk.waiting.pop(task["key"], None)
        trunk.running.pop(task["key"], None)
        parked, trunk.parked = sorted(trunk.parked), set()
        if not trunk.waiting and not trunk.running and not self._followers(task):
            self._clear(trunk)
        return parked

    def close(self) -> None:
        """Remove what was kept for others."""
        for trunk in self._trunks.values():
            self._clear(trunk)

    @staticmethod
    def _clear(trunk: _Trunk) -> None:
        for known in trunk.known.values():
            for _, path in kept_for_others(Path(known.task["folder"])):
                path.unlink(missing_ok=True)


def _bring_weights(source: Path, target: Path, weights: Iterable[str]) -> None:
    """Have the weights of one training lie in another's folder, too, where they are here."""
    for name in weights:
        file = f"{name}.safetensors"
        if (source / file).is_file():
            target.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(source / file, target / file)
