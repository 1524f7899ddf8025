"""The one exception for mistakes that the person at the keyboard can fix."""

import difflib
from collections.abc import Iterable


class StudyError(ValueError):
    """A mistake in the input: the message says where, what was found, what is allowed, what to do next.

    Stages print the message alone, without a traceback, and exit with status 2.
    """


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
