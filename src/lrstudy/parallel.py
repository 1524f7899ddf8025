"""Independent runs side by side: the one seam to worker processes, and the only importer of joblib."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lrstudy.errors import StudyError


def num_workers(threads: int, device: str = "cpu") -> int:
    """How many worker processes: on a CPU the processors that this process may use, ``threads`` for each.

    On an accelerator one, since a run of the paper's size fills it; small runs can share it with
    ``LRSTUDY_WORKERS``, which overrides all. Results never depend on it.

    Args:
        threads: ``train.threads``.
        device: ``train.device``; ``auto`` counts as an accelerator where a driver for one is installed.
    """
    asked = os.environ.get("LRSTUDY_WORKERS")
    if asked is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise StudyError(f"LRSTUDY_WORKERS: found {asked!r}; it must be a whole number of at least 1.")
        return int(asked)
    if device in ("cuda", "mps") or (device == "auto" and has_accelerator()):
        return 1
    from joblib import cpu_count

    return max(1, cpu_count() // threads)


def has_accelerator() -> bool:
    """Whether this machine has a driver for CUDA or is a Mac with MPS, found out without importing torch."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def run_all(
    function: Callable[[dict], object], tasks: Iterable[dict], threads: int, device: str = "cpu"
) -> Iterator[object]:
    """Yield ``function(task)`` for every task as it ends, in any order.

    Each runs in a worker process; a single worker is this process itself. The first exception ends all, an
    interrupt too.
    ``threads`` and ``device`` are those of :func:`num_workers`. Where this process has torch already and no
    accelerator is in play, workers are forked: they need not import it again.
    """
    tasks = list(tasks)
    workers = min(num_workers(threads, device), len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
    elif "torch" in sys.modules and platform.system() == "Linux" and not has_accelerator():
        yield from _forked(function, tasks, workers)
    else:
        from joblib import Parallel, delayed

        pool = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", pre_dispatch="all")
        yield from pool(delayed(function)(task) for task in tasks)


def _begin_worker() -> None:
    """Leave this forked worker's end to the process that forked it.

    Linux kills it when that process dies: it would wait for work for ever. An interrupt, which a terminal
    sends to both, would end one task and begin the next; and the handler of SIGTERM is the stage's.
    """
    import ctypes
    import signal

    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _forked(function: Callable[[dict], object], tasks: list[dict], workers: int) -> Iterator[object]:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import active_children, get_context

    pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_begin_worker)
    with pool:
        running = [pool.submit(function, task) for task in tasks]
        try:
            for done in as_completed(running):
                yield done.result()
        except BaseException:
            for worker in active_children():  # the pool would wait until they have trained to the end
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
