"""One short script per stage of dvc.yaml: load, call, write."""

import argparse
import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TextIO

from lrstudy.errors import StudyError
from lrstudy.parallel import end_with_parent


def cell_arguments() -> tuple[str, str]:
    """The stage's command line: MODEL SCHEDULE."""
    parser = argparse.ArgumentParser(prog=f"python -m {sys.argv[0]}")
    parser.add_argument("model", help="a model of params.yaml")
    parser.add_argument("schedule", help="a schedule row of params.yaml")
    arguments = parser.parse_args()
    return arguments.model, arguments.schedule


def run_stage(main: Callable[[], None], *, warm: Literal["no", "ahead", "join", "start"] = "no") -> None:
    """Run a stage's ``main`` and exit: a mistake that the user can mend is one message and exit status 2.

    ``warm`` says what the stage has to do with the process that has torch, mlflow and others imported
    (:mod:`lrstudy.warm`), where it is allowed: ``start``: run in a child of it, started if need be; ``join``:
    in a child if it is there; ``ahead``: run here, and start it for the stages that follow.

    On Linux a stage of DVC's gets SIGTERM when DVC is gone, which passes that signal on to nobody.
    """
    if "DVC_STAGE" in os.environ:
        end_with_parent(signal.SIGTERM)
    _use_this_checkout()
    if warm != "no":
        from lrstudy.warm import is_wanted, run_warm, start_ahead

        if not is_wanted():
            pass
        elif warm == "ahead":
            start_ahead()
        else:
            module = sys.modules["__main__"].__spec__.name
            status = run_warm(module, sys.argv[1:], start=warm == "start")
            if status is not None:
                sys.exit(status)
    sys.exit(exit_status(main))


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a stage as an interrupt does: what is under way is put away first."""


# What somebody at the machine can mend, though no input is wrong.
_OF_THE_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow it to this user",
    errno.EPERM: "allow it to this user",
    errno.EIO: "look after the disk",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def exit_status(main: Callable[[], None]) -> int:
    """Call ``main`` and return the exit status.

    0; with one message 2 for a mistake that the user can mend or a full disk, 130 for an interrupt, 143 for
    SIGTERM; without one 141 where nobody reads standard output any more (``| head``).
    """
    try:
        with sigterm_as_exception():
            main()
            sys.stdout.flush()
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        what, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        print(f"{what}; finished epochs and trials are kept, run it again to go on", file=sys.stderr)
        return status
    except SystemExit as error:  # argparse's, and a worker's whose stage is gone
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
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
    return 0


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


def _use_this_checkout() -> None:
    """Start again with the code of the folder that the stage runs in, if the package came from elsewhere.

    A queued or temporary DVC experiment runs in a copy of the repository, while the environment's editable
    install points at the workspace, whose code may have been edited since.
    """
    here = Path("src").resolve()
    loaded = Path(__file__).resolve().parents[2]
    if (here / "lrstudy").is_dir() and here != loaded and os.environ.get("PYTHONPATH") != str(here):
        module = sys.modules["__main__"].__spec__.name
        environment = os.environ | {"PYTHONPATH": str(here)}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)
