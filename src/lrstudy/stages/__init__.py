"""One short script per stage of dvc.yaml: load, call, write."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lrstudy.errors import StudyError


def cell_arguments() -> tuple[str, str]:
    """The stage's command line: MODEL SCHEDULE."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("model", help="a model of params.yaml")
    parser.add_argument("schedule", help="a schedule row of params.yaml")
    arguments = parser.parse_args()
    return arguments.model, arguments.schedule


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's ``main``: a mistake the user can mend is one message and exit status 2."""
    _use_this_checkout()
    try:
        main()
    except StudyError as error:
        sys.exit(_fail(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted; finished epochs and trials are kept, run it again to go on", 130))


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


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
