"""What a training is known by: what it computes, not where its code stands or which machine asks.

The identity is the SHA-256 of the training's settings (with the device's kind and the dtype that ``auto``
came to), the fingerprint of its data, and the meaning (:mod:`lrstudy.entries.meaning`) of the code that it
uses, in
five parts: the loop with its batches and its evaluation, and by themselves the schedule's formula, the
controller, the optimizer and the network that the settings name; and one more for each schedule that the
schedule is made of. Versions and processors are recorded with
the result and are no part of it.

The lists here are the only ones of code that matters: the identity, the searches, the stages of dvc.yaml and
the theory's measurements all follow from them.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lrstudy.entries.meaning import Definition, digest, entry, reached

Code = dict[str, str]
"""Part of a training's code -> SHA-256 of its meaning."""

LOOP = (
    "lrstudy.training.loop.prepare",
    "lrstudy.training.loop.train",
    "lrstudy.schedules.schedule",  # what a registry's entries become; registries are not followed
    "lrstudy.training.evaluation.test_weights",
)
"""Where a training begins, and its evaluation on test data."""

REGISTRIES = {
    "schedule": ("lrstudy.schedules.SCHEDULES", "function"),
    "controller": ("lrstudy.controllers.CONTROLLERS", "name"),
    "optimizer": ("lrstudy.recipe.optimizers.OPTIMIZERS", "name"),
    "network": ("lrstudy.recipe.models.ARCHITECTURES", "architecture"),
}
"""Part of the code -> the registry that has it, and the setting that names the entry.

Instead of an entry the setting may name what another package has, ``package.module:name``.
"""

_SECTIONS = {"network": "model"}  # of the settings, where they are not named like the part

MACHINERY = (
    "lrstudy.checked", "lrstudy.design", "lrstudy.entries.meaning", "lrstudy.entries.outside",
    "lrstudy.errors", "lrstudy.files", "lrstudy.process", "lrstudy.study.engine", "lrstudy.study.view",
    "lrstudy.tracking",
)  # fmt: skip
"""How something runs, and not what it computes: a clearer message must make nothing stale."""

_NOT_FOLLOWED = (
    *MACHINERY,
    *(registry for registry, _ in REGISTRIES.values()),
    # What these come to stands in the identity itself, or is the time.
    "lrstudy.data.read_meta",
    "lrstudy.data.read_split",
    "lrstudy.training.devices.choose_device",
    "lrstudy.training.devices.choose_dtype",
    "lrstudy.training.devices.compute_clock",
    "lrstudy.recipe.networks.check_sizes",
    "lrstudy.recipe.networks.unknown_network",
    "lrstudy.entries.signatures",
)


def training_identity(settings: Mapping[str, Any], data: str, code: Code) -> str:
    """The identity of a training.

    Args:
        settings: all of them, plain values: see :func:`lrstudy.study.tasks.training_task`.
        data: the fingerprint of the data set's meta.json.
        code: :func:`training_code`, as the ledger's equivalences have it.
    """
    return content_hash({"settings": settings, "data": data, "code": code})


def training_code(settings: Mapping[str, Any]) -> Code:
    """The meaning of the code that a training with these settings uses, part by part."""
    return {part: digest(found) for part, found in training_definitions(settings).items()}


def training_definitions(settings: Mapping[str, Any]) -> dict[str, frozenset[Definition]]:
    """The definitions behind each part of a training's code."""
    entries = entries_of(settings).items()
    return {"loop": _loop()} | {part: _entry(kind_of(part), name) for part, name in entries}


def entries_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Part of the code -> the registry's entry that the settings name for it.

    A schedule that is made of others has a part for each of them: ``schedule.cosine``.
    """
    found = {
        part: settings[_SECTIONS.get(part, part)][key]
        for part, (_, key) in REGISTRIES.items()
        if _SECTIONS.get(part, part) in settings
    }
    made_of = sorted(set(_schedules_in(settings.get("schedule", {}).get("parameters", {}))))
    return found | {f"schedule.{name}": name for name in made_of}


def kind_of(part: str) -> str:
    """The part of :data:`REGISTRIES` that a part of a training's code is of: its own name up to a dot."""
    return part.partition(".")[0]


def _schedules_in(parameters: Any) -> Iterator[str]:
    """The schedules that a schedule's parameters name, at any depth."""
    if isinstance(parameters, Mapping):
        if isinstance(name := parameters.get("schedule"), str):
            yield name
        for value in parameters.values():
            yield from _schedules_in(value)
    elif isinstance(parameters, list):
        for value in parameters:
            yield from _schedules_in(value)


def code_behind(*roots: str, without: Collection[str] = ()) -> frozenset[Definition]:
    """The definitions behind functions (``module.name`` each), without those in or behind ``without``."""
    return reached(roots, stop=(*_NOT_FOLLOWED, *without))


def content_hash(content: object) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.cache
def _loop() -> frozenset[Definition]:
    return reached(LOOP, stop=_NOT_FOLLOWED)


@functools.cache
def _entry(part: str, name: str) -> frozenset[Definition]:
    return entry(REGISTRIES[part][0], name, stop=_NOT_FOLLOWED)
