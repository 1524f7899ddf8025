"""How a command ends: by a result, an error in words, an interrupt, SIGTERM, or because nobody reads on."""

from __future__ import annotations  # the doctor ends by it, on an old Python too

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TextIO

from lrstudy.errors import MissingPackage, StudyError, brought_by


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a stage as an interrupt does: what is under way is put away first."""


# What somebody at the machine can fix, though no input is wrong.
_OF_THE_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow it to this user",
    errno.EPERM: "allow it to this user",
    errno.EIO: "look after the disk",
    errno.EISDIR: "move it away",
    errno.ENOTDIR: "move it away",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def exit_status(main: Callable[[], int | None]) -> int:
    """Call ``main`` and return the exit status.

    What ``main`` returns, and 0 for None; with one message 2 for a mistake that the user can fix, a package
    that is not installed or a full disk, 130 for an interrupt, 143 for SIGTERM; without one 141 where nobody
    reads standard output any more (``| head``).
    """
    try:
        with sigterm_as_exception(), brought_by("study"):
            status = _returned_or_exited(main)
            sys.stdout.flush()
            return status
    except (StudyError, MissingPackage) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        what, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        print(f"{what}; finished epochs and trials are kept, run it again to go on", file=sys.stderr)
        return status
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads(sys.stdout):
            # What is still in the buffer has to go somewhere when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {where}{error.strerror}; {_OF_THE_MACHINE[error.errno]}, then run it again: what was "
            "finished is kept.",
            file=sys.stderr,
        )
        return 2


def _returned_or_exited(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as error:  # argparse's, and a worker's whose stage is gone
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)


def end_where_a_package_is_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """``sys.excepthook`` of a command: its imports may fail before :func:`exit_status` can be called."""
    try:
        with brought_by("study"):
            raise error
    except MissingPackage as missing:
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(2)
    except BaseException:
        sys.__excepthook__(kind, error, trace)


def _nobody_reads(stream: TextIO) -> bool:
    """Whether the stream is a pipe whose reader is gone."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """Raise :class:`Terminated` in the main thread on SIGTERM, unless the process was told to ignore it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
