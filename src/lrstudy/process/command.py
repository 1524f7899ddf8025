"""The start of a command or stage: with this checkout's code, here or in a process that has its libraries."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lrstudy.process.exits import exit_status
from lrstudy.process.parallel import end_with_parent


def run_stage(main: Callable[[], None], *, warm: Literal["no", "ahead", "join", "start"] = "no") -> None:
    """Run a stage's ``main`` and exit: a mistake that the user can fix is one message and exit status 2.

    ``warm`` says what the stage has to do with the process that has torch, mlflow and others imported
    (:mod:`lrstudy.process.warm`), where it is allowed: ``start``: run in a child of it, started if need be;
    ``join``: in a child if it is there; ``ahead``: run here, and start it for the stages that follow.

    On Linux a stage of DVC's gets SIGTERM when DVC is gone, which passes that signal on to nobody.
    """
    if "DVC_STAGE" in os.environ:
        end_with_parent(signal.SIGTERM)
    _use_this_checkout()
    if warm != "no":
        from lrstudy.process.warm import is_wanted, run_warm, start_ahead

        if not is_wanted():
            pass
        elif warm == "ahead":
            start_ahead()
        else:
            status = run_warm(_module(), sys.argv[1:], start=warm == "start")
            if status is not None:
                sys.exit(status)
    sys.exit(exit_status(main))


def _module() -> str:
    """The module that this process runs, as ``python -m`` was given it."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        raise RuntimeError(f"{sys.argv[0]}: a stage is run as a module, `python -m lrstudy.stages...`")
    return spec.name


def _use_this_checkout() -> None:
    """Start again with the code of the folder that the stage runs in, if the package came from elsewhere.

    A queued or temporary DVC experiment runs in a copy of the repository, while the environment's editable
    install points at the workspace, whose code may have been edited since.
    """
    here = Path("src").resolve()
    loaded = Path(__file__).resolve().parents[2]
    if (here / "lrstudy").is_dir() and here != loaded and os.environ.get("PYTHONPATH") != str(here):
        environment = os.environ | {"PYTHONPATH": str(here)}
        os.execve(sys.executable, [sys.executable, "-m", _module(), *sys.argv[1:]], environment)
