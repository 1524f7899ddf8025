"""The networks' names and what their sizes may be, from :mod:`lrstudy.recipe.models`' source: no torch."""

import functools
from collections.abc import Mapping
from typing import Any

from lrstudy.entries.meaning import definition_outside, entries
from lrstudy.entries.outside import is_outside
from lrstudy.entries.parameters import Parameter, checked
from lrstudy.entries.signatures import signature
from lrstudy.errors import StudyError, unknown

OF_THE_DATA = ("num_classes", "vocab_size", "max_length", "in_channels", "image_size")
"""Arguments that the data set decides; a network has those that it needs, the rest are the config's."""

_OF_KIND = {"image": ("in_channels", "image_size"), "text": ("vocab_size", "max_length")}
"""Kind of data -> the arguments that only data of this kind decide."""


@functools.cache
def architectures() -> dict[str, str]:
    """The networks of this package by name, each with the ``module.name`` of its definition."""
    return entries("lrstudy.recipe.models.ARCHITECTURES")


def arguments_of(architecture: str) -> dict[str, Parameter]:
    """All arguments of a network, those that the data set decides included.

    Args:
        architecture: a name of :func:`architectures`, or of another package ``package.module:Name``.

    Raises:
        StudyError: there is no such network.
    """
    if is_outside(architecture):
        return signature(definition_outside(architecture))
    if architecture not in architectures():
        raise unknown_network(architecture)
    return signature(architectures()[architecture])


def parameters_of(architecture: str) -> dict[str, Parameter]:
    """The sizes that the config decides: the arguments that are not :data:`OF_THE_DATA`.

    >>> list(parameters_of("resnet"))
    ['depth', 'width']
    """
    return {name: spec for name, spec in arguments_of(architecture).items() if name not in OF_THE_DATA}


def check_sizes(
    where: str, architecture: str, sizes: Mapping[str, Any], beside: tuple[str, ...] = ()
) -> dict:
    """Every size of a network with its value: the given ones checked, the others at the signature's defaults.

    Args:
        where: how errors begin.
        beside: what else may stand in the section, for the list of an error.

    Raises:
        StudyError: an unknown network or size, one that is missing, or a value that is not allowed.

    >>> check_sizes("model.resnet", "resnet", {"depth": 8, "width": 16})
    {'depth': 8, 'width': 16}
    """
    noun = f"an argument of the network '{architecture}'"
    return checked(where, parameters_of(architecture), sizes, noun=noun, beside=beside)


def kinds_of(architecture: str) -> tuple[str, ...]:
    """The kinds of data that a network is for: that whose sizes it has arguments for, or all.

    >>> kinds_of("lstm")
    ('text',)
    """
    arguments = arguments_of(architecture)
    asked = tuple(kind for kind, names in _OF_KIND.items() if any(name in arguments for name in names))
    return asked if len(asked) == 1 else tuple(_OF_KIND)


def check_kind(where: str, architecture: str, dataset: str, kind: str) -> None:
    """Refuse a network that is not for the kind of data that it would train on.

    Raises:
        StudyError: it is for another kind, or there is no such network.
    """
    if kind not in (found := kinds_of(architecture)):
        fitting = [name for name in architectures() if kind in kinds_of(name)]
        raise StudyError(
            f"{where}: the network '{architecture}' is for data of kind {found[0]}, and {dataset} is of kind "
            f"{kind}; choose a data set of kind {found[0]}, or one of the networks {', '.join(fitting)}."
        )


def unknown_network(architecture: object) -> StudyError:
    """The error for a name that is no network's."""
    return unknown(
        "model.architecture",
        architecture,
        architectures(),
        "a network",
    )
