"""Independent runs side by side: the one seam to worker processes, and the only importer of joblib."""

import os
import platform
import shutil
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

    Each runs in a worker process; a single worker is this process itself. The first exception ends all.
    ``threads`` and ``device`` are those of :func:`num_workers`.
    """
    from joblib import Parallel, delayed

    tasks = list(tasks)
    workers = min(num_workers(threads, device), len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    pool = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", pre_dispatch="all")
    yield from pool(delayed(function)(task) for task in tasks)
