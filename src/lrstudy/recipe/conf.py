"""Which file of conf/ says what params.yaml does, which is composed: an error names the one to edit."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lrstudy.errors import StudyError

ROWS = ("model", "schedule", "dataset")
"""Sections of params.yaml that have a file for each of their keys."""


def conf_folders(root: Path = Path()) -> list[Path]:
    """The folders whose files can be chosen: conf/ under ``root``, and that which ``LRSTUDY_CONF`` names."""
    own = os.environ.get("LRSTUDY_CONF")
    return [root / "conf", *([Path(own).expanduser()] if own else [])]


def conf_file(group: str, name: str) -> Path | None:
    """The file of a choice, ``conf/schedule/cosine.yaml``; None where there is none."""
    paths = (folder / group / f"{name}.yaml" for folder in conf_folders())
    return next((path for path in paths if path.is_file()), None)


def file_of(place: Sequence[str], content: Mapping[str, Any]) -> Path | None:
    """The file that says what stands at a place of params.yaml.

    Args:
        place: the keys that lead there.
        content: all of params.yaml.

    Returns:
        Of a row its own file, whatever it is based on. Of others the one that has this value there; None
        where that is none, as of what ``-S`` gave, or several.
    """
    section, *inner = place
    if section in ROWS:
        return conf_file(section, inner[0]) if inner else None
    value = _at(content, place)
    if value is _NOTHING:
        return None
    preset = conf_file("preset", str(content.get("preset")))
    for files, where in (
        ([preset] if preset else _files("preset"), place),
        (_files(section) if inner else [], inner),
        ([conf_folders()[0] / "config.yaml"], place),
    ):
        having = [file for file in files if _at(_read(file), where) == value]
        if len(having) == 1:
            return having[0]
    return None


def _files(group: str) -> list[Path]:
    return sorted(path for folder in conf_folders() for path in (folder / group).glob("*.yaml"))


_NOTHING = object()


def _at(content: object, place: Sequence[str]) -> object:
    for key in place:
        if not isinstance(content, Mapping) or key not in content:
            return _NOTHING
        content = content[key]
    return content


def _read(file: Path) -> object:
    try:
        return yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def with_file(message: str, file: Path | None) -> str:
    """A message that ends with the file to look into, if there is one and none is named."""
    return message if file is None or " See " in message else f"{message} See {file}."


@contextmanager
def told_file(group: str, name: str) -> Iterator[None]:
    """Adds the file of a choice to an error that the block raises."""
    try:
        yield
    except StudyError as error:
        raise StudyError(with_file(str(error), conf_file(group, name))) from None
