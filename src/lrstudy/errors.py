"""Mistakes that the person at the keyboard can fix: one in the input, and a package that is not installed."""

from __future__ import annotations  # the doctor ends by it, on an old Python too

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator


class StudyError(ValueError):
    """A mistake in the input: the message says where, what was found, what is allowed, what to do next.

    Stages print the message alone, without a traceback, and exit with status 2.
    """


class MissingPackage(ModuleNotFoundError):
    """A package that this one does not bring of itself is not installed; the message says what brings it.

    Commands print the message alone and exit with status 2. ``name`` is the module that was not found.
    """


@contextlib.contextmanager
def brought_by(extra: str) -> Iterator[None]:
    """Say which extra of pyproject.toml brings a package that lrstudy's code fails to import in the block.

    An import by other code fails as it is: what that needs is not ours to say. So does one that no extra
    mends: of a module of lrstudy, of Python, or inside a package that is installed.

    Raises:
        MissingPackage: a package is not installed.
    """
    try:
        yield
    except MissingPackage:  # an inner block knew better
        raise
    except ModuleNotFoundError as error:
        name, importer = error.name, _importer(error)
        if not name or "." in name or name in sys.stdlib_module_names:
            raise
        if importer.partition(".")[0] != "lrstudy":
            raise
        raise MissingPackage(
            f"{importer}: {error.msg}. Install what it needs: pip install 'lrstudy[{extra}]'; in a clone of "
            "the repository, make setup.",
            name=name,
        ) from None


def _importer(error: ModuleNotFoundError) -> str:
    """The module whose import it was; a command's has its own name, and not ``__main__``."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    its = trace.tb_frame.f_globals if trace else {}
    return getattr(its.get("__spec__"), "name", its.get("__name__", ""))


def unknown(where: str, found: object, allowed: Iterable[str], noun: str) -> StudyError:
    """The error for a name that is not one of ``allowed``, with the nearest one as a suggestion.

    >>> print(unknown("conf/schedule", "expo", ["cosine", "exponential"], "a schedule"))
    conf/schedule: 'expo' is not a schedule; choose one of cosine, exponential. Did you mean 'exponential'?
    """
    names = sorted(str(name) for name in allowed)
    allowed_names = ", ".join(names) or "(none)"
    return StudyError(
        f"{where}: {found!r} is not {noun}; choose one of {allowed_names}.{meant(found, names)}"
    )


def meant(found: object, names: Iterable[str]) -> str:
    """A question after the one of ``names`` that begins so or is nearest; empty where none is near.

    >>> meant("expo", ["cosine", "exponential"])
    " Did you mean 'exponential'?"
    """
    names = list(names)
    near = [name for name in names if str(found) and name.startswith(str(found))]
    near = near or difflib.get_close_matches(str(found), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
