"""Independent runs side by side: the one seam to worker processes, here or on a cluster.

On a cluster the folder that the stage runs in lies under the same path on every machine (docs/cluster.md):
workers read data and code there, and leave checkpoints there.
"""

import contextlib
import os
import platform
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from lrstudy.errors import StudyError

if TYPE_CHECKING:
    from lrstudy.recipe.config import Cluster

T = TypeVar("T")

_SENT_TO_STAGES = (signal.SIGINT, signal.SIGTERM)
_SAME_EVERYWHERE = ("torch", "numpy")  # what a result may depend on; Ray compares Python and itself


def num_workers(threads: int, device: str = "cpu", cluster: "Cluster | None" = None) -> int:
    """How many tasks run at a time: on a CPU the processors that this process may use, ``threads`` for each.

    On an accelerator one, since a run of the paper's size fills it; small runs can share it with
    ``LRSTUDY_WORKERS``, which overrides all. On a cluster as many as its machines have room for. Results
    never depend on it.

    Args:
        threads: ``train.threads``.
        device: ``train.device``; ``auto`` counts as an accelerator where a driver for one is installed.
        cluster: what a task takes of a Ray cluster, see :class:`Pool`; None: this machine.
    """
    asked = _asked_for()
    if asked is not None:
        return asked
    if cluster is not None:
        return _room(_connect(), _demands(cluster, threads))
    if device in ("cuda", "mps") or (device == "auto" and has_accelerator()):
        return 1
    from joblib import cpu_count

    return max(1, cpu_count() // threads)


def _asked_for() -> int | None:
    """``LRSTUDY_WORKERS``; None where the environment does not say."""
    asked = os.environ.get("LRSTUDY_WORKERS")
    if asked is not None and (not asked.isdecimal() or int(asked) < 1):
        raise StudyError(f"LRSTUDY_WORKERS: found {asked!r}; it must be a whole number of at least 1.")
    return None if asked is None else int(asked)


def has_accelerator() -> bool:
    """Whether this machine has a driver for CUDA or ROCm or is a Mac with MPS, found out without torch."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    drivers = (Path("/proc/driver/nvidia"), Path("/dev/kfd"))
    return any(driver.exists() for driver in drivers) or shutil.which("nvidia-smi") is not None


@contextlib.contextmanager
def workers_ready(threads: int, device: str = "cpu", cluster: "Cluster | None" = None) -> Iterator[None]:
    """Fork the workers for every :class:`Pool` inside now, where this process has torch to give to them.

    Forked workers need not import it again. But a process may be forked only while no other thread of it
    works: the child has a copy of each lock that such a thread holds at that moment (of an import, of a
    database), and nobody who would release it. So enter this before a thread is started, as that which sends
    to MLflow; outside of it nothing is forked. No workers are made for a single one, off Linux, where an
    accelerator is in play and on a cluster. The arguments are those of :class:`Pool`.
    """
    global _forked
    workers = 0 if cluster is not None else num_workers(threads, device)
    if workers <= 1 or "torch" not in sys.modules or platform.system() != "Linux" or has_accelerator():
        yield
        return
    _forked = _ForkedWorkers(workers)
    try:
        yield
    except BaseException:
        _end_forked(at_once=True)
        raise
    finally:
        _end_forked(at_once=False)


@dataclass(frozen=True)
class Ended:
    """A task that has ended, with what came of it: a result, or what it raised."""

    task: dict
    result: Any = None
    error: Exception | None = None


class Pool:
    """Workers that take tasks as they come, from this machine or a cluster, and say which one has ended.

        with Pool(threads, device, cluster) as pool:
            pool.submit(function, task)
            ended = pool.next()

    :attr:`room` tasks run at a time; those that were submitted beyond it wait in the order of their
    submission. A worker is a process: one of :func:`workers_ready`, else a fresh one, or one on the cluster.
    A single worker of this machine is this process itself, which runs a task when it is waited for. What
    ends the block by an exception ends the tasks under way. ``threads`` and ``device`` are those of
    :func:`num_workers`.

    Args:
        cluster: run the tasks on the Ray cluster at ``RAY_ADDRESS``. Each takes ``num_cpus`` (None:
            ``threads``), ``num_gpus`` (a fraction: a share of one) and ``memory_gib`` of a machine. One whose
            worker or machine dies runs again, on another, at most ``max_retries`` times.
        most: how many tasks there will be at most, where that is known: no more workers are started.

    Raises:
        StudyError: the cluster is out of reach or has no machine with that much.
    """

    def __init__(
        self, threads: int, device: str = "cpu", cluster: "Cluster | None" = None, most: int | None = None
    ):
        self._backend: _Here | _Processes | _OnCluster
        if cluster is not None:
            self._backend = _OnCluster(cluster, threads)
            return
        workers = num_workers(threads, device)
        workers = workers if most is None else min(workers, most)
        self._backend = _Here() if workers <= 1 else _Processes(workers, threads)

    @property
    def room(self) -> int:
        """How many tasks run at a time; a cluster's may change."""
        return self._backend.room

    @property
    def running(self) -> int:
        """How many tasks were submitted and have not ended."""
        return len(self._backend)

    def submit(self, function: Callable[[dict], Any], task: dict) -> None:
        """Have ``function(task)`` called as soon as a worker is free."""
        self._backend.submit(function, task)

    def next(self) -> Ended:
        """Wait until a task has ended, whichever is first; what it raised is told and not raised.

        Raises:
            StudyError: a worker was killed; a machine sees another folder or has other versions; a task's
            worker
                died too often.
        """
        return self._backend.next()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._backend.close(at_once=kind is not None)


def run_all(
    function: Callable[[dict], T],
    tasks: Iterable[dict],
    threads: int,
    device: str = "cpu",
    cluster: "Cluster | None" = None,
) -> Iterator[T]:
    """Yield ``function(task)`` for every task as it ends, in any order.

    The first exception ends all, an interrupt too. The arguments are those of :class:`Pool`, and what it
    raises.
    """
    tasks = list(tasks)
    if not tasks:
        return
    with Pool(threads, device, cluster, most=len(tasks)) as pool:
        for task in tasks:
            pool.submit(function, task)
        for _ in tasks:
            ended = pool.next()
            if ended.error is not None:
                raise ended.error
            yield ended.result


class _Here:
    """This process: a task runs when it is waited for."""

    room = 1

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[dict], Any], dict]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, function: Callable[[dict], Any], task: dict) -> None:
        self._waiting.append((function, task))

    def next(self) -> Ended:
        function, task = self._waiting.popleft()
        try:
            return Ended(task, function(task))
        except Exception as error:
            return Ended(task, error=error)

    def close(self, *, at_once: bool) -> None:
        self._waiting.clear()


class _Processes:
    """Worker processes of this machine: those of :func:`workers_ready`, else joblib's."""

    def __init__(self, workers: int, threads: int):
        self.room = workers
        self._forked = _forked
        if self._forked is None:
            from joblib.externals.loky import get_reusable_executor

            # Those of an earlier pool go on, unless this one needs others.
            self._executor = get_reusable_executor(workers, timeout=60, env={"OMP_NUM_THREADS": str(threads)})
        else:
            self._executor = self._forked.pool
        self._tasks: dict[Future, dict] = {}
        self._ended: list[Ended] = []
        self._waiting: deque[tuple[Callable[[dict], Any], dict]] = deque()

    def __len__(self) -> int:
        return len(self._tasks) + len(self._ended) + len(self._waiting)

    def submit(self, function: Callable[[dict], Any], task: dict) -> None:
        self._waiting.append((function, task))
        self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self._tasks) < self.room:
            function, task = self._waiting.popleft()
            self._tasks[self._executor.submit(function, task)] = task

    def next(self) -> Ended:
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool  # joblib's is one too

        if not self._ended:
            for future in wait(self._tasks, return_when=FIRST_COMPLETED).done:
                task = self._tasks.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise StudyError(
                        f"a worker process was killed from outside while {self.room} were at work; a "
                        "machine that is short of memory does that. What was finished is kept: run it again "
                        "to go on, with a smaller LRSTUDY_WORKERS if memory was short (docs/scaling.md)."
                    ) from error
                if error is not None and not isinstance(error, Exception):
                    raise error
                self._ended.append(Ended(task, error=error) if error else Ended(task, future.result()))
            self._begin()
        return self._ended.pop(0)

    def close(self, *, at_once: bool) -> None:
        if not at_once:
            return
        if self._forked is not None:
            _end_forked(at_once=True)
        else:
            self._executor.shutdown(wait=False, kill_workers=True)


def end_with_parent(number: signal.Signals) -> None:
    """Have Linux send this process the signal when its parent is gone; elsewhere nothing."""
    if platform.system() != "Linux":
        return
    import ctypes

    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


def _begin_worker() -> None:
    """Leave this forked worker's end to the process that forked it.

    Linux kills it when that process dies: it would wait for work for ever. An interrupt, which a terminal
    sends to both, would end one task and begin the next; and the handler of SIGTERM is the stage's. What was
    sent before it came this far has waited.
    """
    end_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT_TO_STAGES)


class _ForkedWorkers:
    """A pool of processes forked from this one when it is made."""

    def __init__(self, workers: int):
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import active_children, get_context

        others = active_children()  # joblib's, if it was used before
        self.pool = ProcessPoolExecutor(workers, get_context("fork"), initializer=_begin_worker)
        # A worker begins with the stage's handlers: a signal in that moment would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SENT_TO_STAGES)
        try:
            self.pool.submit(os.getpid)  # the first task makes the pool fork them all
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.processes = [child for child in active_children() if child not in others]

    def end(self, *, at_once: bool) -> None:
        if at_once:
            for process in self.processes:  # the pool would wait until they have trained to the end
                process.terminate()
        self.pool.shutdown(wait=not at_once, cancel_futures=True)


_forked: _ForkedWorkers | None = None


def _end_forked(*, at_once: bool) -> None:
    """Have no forked workers any more."""
    global _forked
    ending, _forked = _forked, None
    if ending is not None:
        ending.end(at_once=at_once)


def _connect() -> ModuleType:
    """Ray, connected to the cluster at ``RAY_ADDRESS``; once a process."""
    # Progress lines of several seeds differ in numbers alone, which Ray takes for repetitions.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
    except ImportError:
        raise StudyError(
            "parallel.backend: ray is not installed; `pip install .[ray]` on every machine, or choose local."
        ) from None
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise StudyError(
            "parallel.backend: found ray, and RAY_ADDRESS names no cluster; `ray start --head` prints what "
            "to set it to (docs/cluster.md), or choose local."
        )
    source = str(Path(__file__).resolve().parents[2])  # a temporary experiment's code is its own
    # The folder itself, for packages in it whose code conf/ names.
    path = os.pathsep.join(part for part in (source, str(Path.cwd()), os.environ.get("PYTHONPATH")) if part)
    try:
        ray.init(address, namespace="lrstudy", runtime_env={"env_vars": {"PYTHONPATH": path}})
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise StudyError(
            f"RAY_ADDRESS: no cluster can be joined at {address!r} ({str(error).splitlines()[0]}). This "
            "machine must be one of it: run `ray start` here too (docs/cluster.md)."
        ) from None
    return ray


def _demands(cluster: "Cluster", threads: int) -> dict[str, float]:
    """What a task takes of a machine, in Ray's names and units."""
    return {
        "CPU": cluster["num_cpus"] or threads,
        "GPU": cluster["num_gpus"],
        "memory": cluster["memory_gib"] * 2**30,
    }


def _room(ray: ModuleType, demands: dict[str, float]) -> int:
    """How many such tasks fit on the cluster's machines at a time."""
    needed = {name: amount for name, amount in demands.items() if amount > 0}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(machine.get(name, 0) / amount + 1e-9) for name, amount in needed.items())
        for machine in machines
    )
    if room == 0:
        asked, *found = (
            f"{found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs, "
            f"{found.get('memory', 0) / 2**30:.1f} GiB"
            for found in (demands, *machines)
        )
        raise StudyError(
            f"parallel: a task asks for {asked}, and no machine of the cluster has that; found "
            f"{'; '.join(found)}. Change num_cpus, num_gpus or memory_gib, or add a machine."
        )
    return room


class _OnCluster:
    """Workers of a Ray cluster."""

    def __init__(self, cluster: "Cluster", threads: int):
        import tempfile
        from importlib.metadata import version

        self._ray = _connect()
        self._demands = _demands(cluster, threads)
        self._retries = cluster["max_retries"]
        self.room = _room(self._ray, self._demands)
        self._start = self._ray.remote(
            num_cpus=self._demands["CPU"],
            num_gpus=self._demands["GPU"],
            memory=self._demands["memory"],
            max_retries=self._retries,
        )(_make_worker())
        self._marker = tempfile.NamedTemporaryFile(prefix=".shared-", dir=Path.cwd())  # noqa: SIM115  close()
        self._here = {"folder": str(Path.cwd()), "marker": self._marker.name} | {
            name: version(name) for name in _SAME_EVERYWHERE
        }
        self._tasks: dict[Any, dict] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def submit(self, function: Callable[[dict], Any], task: dict) -> None:
        content = self._ray.cloudpickle.dumps((function, task))
        self._tasks[self._start.remote(content, self._here)] = task

    def next(self) -> Ended:
        (ended, *_), _ = self._ray.wait(list(self._tasks))
        task = self._tasks.pop(ended)
        try:
            problem, result = self._ray.get(ended)
        except self._ray.exceptions.RayTaskError as error:
            return Ended(task, error=error.cause)
        except self._ray.exceptions.RayError as error:
            raise StudyError(
                f"parallel: the worker of {task.get('label', 'a task')} died more than "
                f"{self._retries} times ({str(error).splitlines()[0]}). What it had "
                "finished is kept; run the stage again to go on."
            ) from None
        if problem:
            raise StudyError(problem)
        return Ended(task, result)

    def close(self, *, at_once: bool) -> None:
        for left in self._tasks:
            self._ray.cancel(left, force=True)
        self._tasks.clear()
        self._marker.close()


def _make_worker() -> Callable[[bytes, dict], tuple[str, object]]:
    """What runs on the cluster's machines: (what is wrong with the machine, or else nothing; the result).

    A nested function, which is sent by value: it must be able to say that the machine cannot import lrstudy.
    """

    def work(function_and_task: bytes, here: dict) -> tuple[str, object]:
        import os
        import pickle
        import platform
        from importlib.metadata import PackageNotFoundError, version

        machine = platform.node()
        if not os.path.exists(here["marker"]):
            return (
                f"parallel: the machine {machine} does not see {here['folder']} of the machine that runs the "
                "stage; mount it there under the same path (docs/cluster.md).",
                None,
            )
        for name in sorted(here.keys() - {"folder", "marker"}):
            try:
                found = version(name)
            except PackageNotFoundError:
                found = "none"
            if found != here[name]:
                return (
                    f"parallel: the machine {machine} has {name} {found}, the one that runs the stage "
                    f"{here[name]}; install requirements.lock on both, results depend on it.",
                    None,
                )
        os.chdir(here["folder"])
        function, task = pickle.loads(function_and_task)
        return "", function(task)

    return work
