"""One short script per stage of dvc.yaml: load, call, write."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lrstudy.errors import StudyError


def cell_arguments() -> tuple[str, str]:
    """The stage's command line: MODEL SCHEDULE."""
    parser = argparse.ArgumentParser(prog=f"python -m {sys.argv[0]}")
    parser.add_argument("model", help="a model of params.yaml")
    parser.add_argument("schedule", help="a schedule row of params.yaml")
    arguments = parser.parse_args()
    return arguments.model, arguments.schedule


def run_stage(main: Callable[[], None], *, heavy: bool = False) -> None:
    """Run a stage's ``main`` and exit: a mistake that the user can mend is one message and exit status 2.

    ``heavy`` stages, which need torch or mlflow, run in a child of a process that has imported them, where
    :mod:`lrstudy.warm` allows it.
    """
    _use_this_checkout()
    if heavy:
        from lrstudy.warm import is_wanted, run_warm

        if is_wanted():
            status = run_warm(sys.modules["__main__"].__spec__.name, sys.argv[1:])
            if status is not None:
                sys.exit(status)
    sys.exit(exit_status(main))


def exit_status(main: Callable[[], None]) -> int:
    """Call ``main``: 0, or with one message 2 for a mistake that the user can mend, 130 for an interrupt."""
    try:
        main()
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished epochs and trials are kept, run it again to go on", file=sys.stderr)
        return 130
    except SystemExit as error:  # argparse's, and a worker's whose stage is gone
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


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
