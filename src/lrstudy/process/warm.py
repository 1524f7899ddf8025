"""Stages without start-up: a process that has the heavy libraries imported forks one child per stage.

A small study runs dozens of stages, each of which would spend more processor-seconds on importing torch,
mlflow and scikit-learn, and again in its workers, than on its work (notes/log.md). The first stage starts
this server; each hands it its name, arguments, folder, environment and terminal, and waits for the child's
exit status. It ends by itself when nothing has come for 20 seconds.

The server is keyed by the interpreter, the code and the environment, and a child imports the study's own
code from where its stage does, so it never runs other code than a process of its own would. Where the code
lies is no part of the key: experiments in temporary folders share one server. If the stage is killed, its
child ends at once. Not used off Linux or where there is an accelerator (no process should hold it beside the
trainings), nor with ``LRSTUDY_WARM=0``.
"""

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lrstudy.errors import StudyError

_PACKAGE = "lrstudy"
_IDLE_SECONDS = 20
_START_SECONDS = 120  # imports on a busy machine
_PRELOADED = (
    "torch", "torch._dynamo", "safetensors.torch", "sklearn.metrics", "optuna", "pyarrow.parquet", "joblib",
    "mlflow.pytorch", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store",
)  # fmt: skip
# What libraries read when they are imported; all else is the child's own. PYTHONPATH is in sys.path.
_ENVIRONMENT_AT_IMPORT = (
    "PYTHON",
    "OMP",
    "MKL",
    "OPENBLAS",
    "KMP",
    "GOMP",
    "TORCH",
    "ATEN",
    "MLFLOW",
    "LD_",
    "MALLOC",
    "MPL",
)


def is_wanted() -> bool:
    """Whether stages of this process may run in a warm child."""
    from lrstudy.process.parallel import has_accelerator

    return sys.platform == "linux" and os.environ.get("LRSTUDY_WARM") != "0" and not has_accelerator()


def start_ahead() -> None:
    """Start a server, if there is none, without waiting for it."""
    address = _address()
    if not address.exists():
        _launch(address)


def run_warm(module: str, arguments: list[str], *, start: bool = True) -> int | None:
    """Run ``module``'s ``main`` in a child of the server; returns its exit status.

    None if there is no server and none could be started, or should be: the stage then runs in this process.
    """
    from lrstudy.process.exits import Terminated, sigterm_as_exception

    address = _address()
    connection = _connect(address) or (_start(address) if start else None)
    if connection is None:
        return None
    request = json.dumps(
        {
            "module": module,
            "heavy": start,
            "arguments": arguments,
            "folder": os.getcwd(),
            "path": sys.path,
            "environment": dict(os.environ),
        }
    ).encode()
    with connection, sigterm_as_exception():
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        while True:
            try:
                status = connection.recv(1)
                break
            except Terminated:
                connection.sendall(b"T")
            except KeyboardInterrupt:
                connection.sendall(b"I")
    if not status:
        raise RuntimeError(f"the warm process that ran {module} died; LRSTUDY_WARM=0 runs stages without it")
    return status[0]


def _import_figures() -> None:
    import optuna.visualization.matplotlib  # noqa: F401  matplotlib with all that it needs, a second


def _import_statistics() -> None:
    import scikit_posthocs  # noqa: F401  with statsmodels and pandas
    import statsmodels.stats.multitest  # noqa: F401


def _look_up_packages() -> None:
    """MLflow finds out what package each module is of when a process first saves a model: two seconds."""
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    warn_dependency_requirement_mismatches(["mlflow"])


# What only some stages need: done while a stage runs, one after the other.
_LATER = (_look_up_packages, _import_figures, _import_statistics)


def serve(address: Path) -> None:
    """Import, listen at ``address`` and fork a child per request, until idle."""
    import fcntl
    import importlib

    lock = address.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another one serves this address
    os.chdir(address.parent)  # the first stage's folder may go before the server does
    for name in _PRELOADED:
        importlib.import_module(name)
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        children: set[int] = set()
        later = list(_LATER)
        last = time.monotonic()
        while children or time.monotonic() - last < _IDLE_SECONDS:
            if select.select([listener], [], [], 0 if children and later else 0.5)[0]:
                connection, _ = listener.accept()
                with connection:
                    child = os.fork()
                    if child == 0:
                        listener.close()
                        lock.close()
                        _be_the_stage(connection)
                children.add(child)
            elif children and later:
                later.pop(0)()
            for child in list(children):
                if os.waitpid(child, os.WNOHANG)[0]:
                    children.remove(child)
                    last = time.monotonic()
        address.unlink(missing_ok=True)


def _be_the_stage(connection: socket.socket) -> None:
    """Take on the client's folder, environment and terminal, run the stage, report its status and exit."""
    status = 1
    try:
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        size, request = int.from_bytes(head, "big"), b""
        while len(request) < size:
            part = connection.recv(size - len(request))
            if not part:
                os._exit(1)  # the client died before it had asked
            request += part
        request = json.loads(request)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # typeshed knows it as any TextIO
        os.setsid()  # a group of its own, so that an interrupt reaches its workers too
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _import_from(request["path"])
        from lrstudy.process.exits import exit_status

        threading.Thread(target=_follow_client, args=(connection,), daemon=True).start()
        sys.argv = [request["module"], *request["arguments"]]
        status = exit_status(lambda: _run(request["module"], request["heavy"]))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        with contextlib.suppress(OSError):
            connection.sendall(bytes([status]))
        os._exit(status)


def _import_from(path: list[str]) -> None:
    """Have this package imported from where the stage found it, which need not be where the server did."""
    import importlib

    for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
        del sys.modules[name]
    sys.path[:] = path
    importlib.invalidate_caches()


def _run(module: str, heavy: bool) -> None:
    """Run the stage; the workers of a heavy one are forked before it starts threads and opens databases."""
    import importlib

    from lrstudy.process.parallel import workers_ready
    from lrstudy.recipe.config import load_params

    main = importlib.import_module(module).main
    with workers_ready(*load_params().workers) if heavy else contextlib.nullcontext():
        main()


def _follow_client(connection: socket.socket) -> None:
    """Pass on an interrupt or SIGTERM; end with the client."""
    while message := connection.recv(1):
        if message == b"I":
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
    os.killpg(0, signal.SIGKILL)


def _address() -> Path:
    """The socket of the server for this interpreter, code and environment, in a folder of this user alone."""
    package = Path(__file__).parents[1]
    own = {str(package.parent), os.getcwd()}
    others = [path for path in sys.path if os.path.realpath(path) not in own and path not in own]
    digest = hashlib.sha256("\0".join([sys.executable, *others, ""]).encode())
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    for name in sorted(os.environ.keys() - {"PYTHONPATH"}):
        if name.startswith(_ENVIRONMENT_AT_IMPORT):
            digest.update(f"{name}={os.environ[name]}\0".encode())
    folder = Path(tempfile.gettempdir()) / f"lrstudy-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise StudyError(
            f"{folder}: belongs to somebody else or is open to others; remove it, or set LRSTUDY_WARM=0."
        )
    return folder / f"{digest.hexdigest()[:16]}.sock"


def _connect(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


def _launch(address: Path) -> subprocess.Popen:
    with address.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lrstudy.process.warm", str(address)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _start(address: Path, pause: Callable[[float], None] = time.sleep) -> socket.socket | None:
    """Start a server and wait until it listens; None if it ended instead."""
    server = _launch(address)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (connection := _connect(address)) is not None:
            return connection
        if server.poll() not in (None, 0):  # 0: another one serves, or is about to
            return None
        pause(0.05)
    return None


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
