"""Independent runs side by side: the one seam to worker processes, and the only importer of joblib."""

import os
from collections.abc import Callable, Iterable, Iterator

from lrstudy.errors import StudyError


def num_workers(threads: int) -> int:
    """Worker processes that fit: the processors this process may use, divided by ``threads`` each.

    ``LRSTUDY_WORKERS`` overrides it. Results never depend on it.
    """
    asked = os.environ.get("LRSTUDY_WORKERS")
    if asked is None:
        return max(
            1,
            len(os.sched_getaffinity(0)) // threads
            if hasattr(os, "sched_getaffinity")
            else (os.cpu_count() or 1) // threads,
        )
    if not asked.isdigit() or int(asked) < 1:
        raise StudyError(f"LRSTUDY_WORKERS: found {asked!r}; it must be a whole number of at least 1.")
    return int(asked)


def run_all(function: Callable[[dict], object], tasks: Iterable[dict], threads: int) -> Iterator[object]:
    """Yield ``function(task)`` for every task as it ends, in any order.

    Each runs in a worker process; a single worker is this process itself. The first exception ends all.
    """
    from joblib import Parallel, delayed

    tasks = list(tasks)
    workers = min(num_workers(threads), len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    pool = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", pre_dispatch="all")
    yield from pool(delayed(function)(task) for task in tasks)
