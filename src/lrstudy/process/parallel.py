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
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

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
        cluster: what a task takes of a Ray cluster, see :func:`run_all`; None: this machine.
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


def in_first_round(tasks: int, workers: int) -> int:
    """How many tasks begin at once where ``workers`` have a processor each: those of a last round, too.

    A last round that is not full leaves processors idle; its tasks cost less as one more for some of the
    processors from the start. Two processors train five ResNet-8 in the time of 2.5 trainings so (three, then
    two), one after the other in that of 3 (docs/scaling.md). Not where the last round is more than half full:
    it would gain little, and every process needs its memory.

    >>> [in_first_round(tasks, 2) for tasks in (1, 2, 3, 4, 5)]
    [1, 2, 3, 2, 3]
    """
    left_over = tasks % workers if tasks > workers else 0
    return min(tasks, workers) + (left_over if left_over <= workers // 2 else 0)


def has_accelerator() -> bool:
    """Whether this machine has a driver for CUDA or is a Mac with MPS, found out without importing torch."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


@contextlib.contextmanager
def workers_ready(threads: int, device: str = "cpu", cluster: "Cluster | None" = None) -> Iterator[None]:
    """Fork the workers for every :func:`run_all` inside now, where this process has torch to give to them.

    Forked workers need not import it again. But a process may be forked only while no other thread of it
    works: the child has a copy of each lock that such a thread holds at that moment (of an import, of a
    database), and nobody who would release it. So enter this before a thread is started, as that which sends
    to MLflow; outside of it nothing is forked. No workers are made for a single one, off Linux, where an
    accelerator is in play and on a cluster. The arguments are those of :func:`run_all`.
    """
    global _forked
    workers = 0 if cluster is not None else num_workers(threads, device)
    if workers <= 1 or "torch" not in sys.modules or platform.system() != "Linux" or has_accelerator():
        yield
        return
    _forked = _ForkedWorkers(workers, spare=workers // 2 if _asked_for() is None else 0)
    try:
        yield
    except BaseException:
        _end_forked(at_once=True)
        raise
    finally:
        _end_forked(at_once=False)


def run_all(
    function: Callable[[dict], T],
    tasks: Iterable[dict],
    threads: int,
    device: str = "cpu",
    cluster: "Cluster | None" = None,
) -> Iterator[T]:
    """Yield ``function(task)`` for every task as it ends, in any order.

    Each runs in a worker process: one of :func:`workers_ready`, else a fresh one. A single worker is this
    process itself. :func:`num_workers` run at a time, and with those of :func:`workers_ready` at first
    :func:`in_first_round`, unless ``LRSTUDY_WORKERS`` says how many. The first exception ends all, an
    interrupt too. ``threads`` and ``device`` are those of :func:`num_workers`.

    Args:
        cluster: run the tasks on the Ray cluster at ``RAY_ADDRESS``. Each takes ``num_cpus`` (None:
            ``threads``), ``num_gpus`` (a fraction: a share of one) and ``memory_gib`` of a machine. One whose
            worker or machine dies runs again, on another, at most ``max_retries`` times.

    Raises:
        StudyError: a worker was killed; the cluster is out of reach or has no machine with that much; a
            machine sees another folder or has other versions; a task's worker died too often.
    """
    tasks = list(tasks)
    if cluster is not None:
        yield from _on_cluster(function, tasks, cluster, threads)
        return
    workers = min(num_workers(threads, device), len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    from concurrent.futures.process import BrokenProcessPool  # joblib's is one too

    try:
        if _forked is not None:
            yield from _forked.run(function, tasks, workers)
        else:
            from joblib import Parallel, delayed

            pool = Parallel(
                n_jobs=workers, backend="loky", return_as="generator_unordered", pre_dispatch="all"
            )
            yield from pool(delayed(function)(task) for task in tasks)
    except BrokenProcessPool as error:
        raise StudyError(
            f"a worker process was killed from outside while {workers} or more were at work; a machine that "
            "is short of memory does that. What was finished is kept: run it again to go on, with a smaller "
            "LRSTUDY_WORKERS if memory was short (docs/scaling.md)."
        ) from error


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
    """A pool of processes forked from this one when it is made: the ``spare`` ones are for a first round."""

    def __init__(self, workers: int, spare: int):
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import active_children, get_context

        others = active_children()  # joblib's, if it was used before
        self.spare = spare
        self.pool = ProcessPoolExecutor(workers + spare, get_context("fork"), initializer=_begin_worker)
        # A worker begins with the stage's handlers: a signal in that moment would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SENT_TO_STAGES)
        try:
            self.pool.submit(os.getpid)  # the first task makes the pool fork them all
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.processes = [child for child in active_children() if child not in others]

    def run(self, function: Callable[[dict], T], tasks: list[dict], workers: int) -> Iterator[T]:
        from concurrent.futures import FIRST_COMPLETED, wait

        at_once = in_first_round(len(tasks), workers) if self.spare else workers
        to_begin = iter(tasks)
        try:
            running = {self.pool.submit(function, task) for task in islice(to_begin, at_once)}
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                places = max(0, workers - len(running))
                running |= {self.pool.submit(function, task) for task in islice(to_begin, places)}
                for one in ended:
                    yield one.result()
        except BaseException:
            _end_forked(at_once=True)
            raise

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


def _on_cluster(
    function: Callable[[dict], T], tasks: list[dict], cluster: "Cluster", threads: int
) -> Iterator[T]:
    import tempfile
    from importlib.metadata import version

    ray = _connect()
    demands = _demands(cluster, threads)
    _room(ray, demands)
    start = ray.remote(
        num_cpus=demands["CPU"],
        num_gpus=demands["GPU"],
        memory=demands["memory"],
        max_retries=cluster["max_retries"],
    )(_make_worker())
    with tempfile.NamedTemporaryFile(prefix=".shared-", dir=Path.cwd()) as marker:
        here = {"folder": str(Path.cwd()), "marker": marker.name} | {
            name: version(name) for name in _SAME_EVERYWHERE
        }
        waiting = {start.remote(ray.cloudpickle.dumps((function, task)), here): task for task in tasks}
        try:
            while waiting:
                (ended, *_), _ = ray.wait(list(waiting))
                task = waiting.pop(ended)
                try:
                    problem, result = ray.get(ended)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    raise StudyError(
                        f"parallel: the worker of {task.get('label', 'a task')} died more than "
                        f"{cluster['max_retries']} times ({str(error).splitlines()[0]}). What it had "
                        "finished is kept; run the stage again to go on."
                    ) from None
                if problem:
                    raise StudyError(problem)
                yield result
        finally:
            for left in waiting:
                ray.cancel(left, force=True)


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
