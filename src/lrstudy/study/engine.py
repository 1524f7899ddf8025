"""All that a study asks for as one graph of jobs, on every worker at once.

A cell is a generator: it yields the jobs that can be done now, and is asked again when one of them has ended.
What several cells ask for is one job. The engine hands the workers whatever is ready, the longest way to the
end first, so that they are busy until the last jobs of the study; in which order jobs end changes no result.
A job that fails ends its cells and no other one.
"""

import contextlib
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Protocol

from lrstudy.process.parallel import Ended, Pool

Jobs = Generator[list["Job"], None, Any]
"""What a cell is to the engine: the jobs that are missing now, each time that it is asked; then a result."""


@dataclass(frozen=True)
class Job:
    """One thing for a worker to do.

    Attributes:
        key: two jobs with one key are one.
        function: is called with ``task`` in a worker; what it returns is given to ``take``. None: another
            process is at it; it is asked again when nothing else is left, and then waits.
        take: is given the result, in the engine's own process, before the cells that asked are asked again.
        label: what it is called in print.
        kind: jobs of one kind cost alike.
        epochs: how long it is.
        ahead: how many epochs its cell has to do one after the other, from this job's first to its last: the
            more, the sooner it is begun. Infinity: before all others.
        later: how many epochs its cell is expected to ask for when all that it asks for now has ended.
        shares: it may have something in common with others, :class:`Sharing`.
    """

    key: str
    function: Callable[[dict], Any]
    task: dict
    take: Callable[[Any], None]
    label: str
    kind: str
    epochs: float
    ahead: float
    later: float = 0.0
    shares: bool = False


class Sharing(Protocol):
    """Which jobs wait for others since they have more in common with them than with what is there."""

    def add(self, task: dict) -> None:
        """A job is to be done."""

    def begin(self, task: dict) -> dict | None:
        """What a job that could begin now takes along in its task; None if it waits for one under way."""

    def end(self, task: dict) -> list[str]:
        """A job has ended or is not to be done any more; returns the keys of those that waited for it."""


@dataclass
class Progress:
    """How far the engine has come, for who shows it."""

    running: dict[str, Job] = field(default_factory=dict)
    done: int = 0
    ready: int = 0
    asked: dict[str, float] = field(default_factory=dict)  # by kind the epochs of jobs that have not ended
    later: dict[str, tuple[str, float]] = field(default_factory=dict)  # by cell a kind and epochs
    failed: dict[str, Exception] = field(default_factory=dict)  # by cell what is wrong
    results: dict[str, Any] = field(default_factory=dict)  # by cell what its generator returned
    room: int = 1


Show = Callable[[Progress, Job | None], None]


class Costs:
    """Seconds per epoch by kind of job, as measured; a kind without any costs what the others do."""

    def __init__(self) -> None:
        self._measured: dict[str, deque[float]] = {}
        self._medians: dict[str, float] = {}

    def note(self, kind: str, seconds_per_epoch: float) -> None:
        """One more measurement; the latest ones count."""
        known = self._measured.setdefault(kind, deque(maxlen=25))
        known.append(seconds_per_epoch)
        self._medians[kind] = median(known)

    @property
    def are_known(self) -> bool:
        """Whether anything was measured."""
        return bool(self._medians)

    def left(self, progress: Progress) -> float:
        """Seconds of one worker that all is expected to take that has not ended."""
        return math.fsum(
            self.seconds(kind, epochs) for kind, epochs in (*progress.asked.items(), *progress.later.values())
        )

    def seconds(self, kind: str, epochs: float) -> float:
        """What so many epochs of this kind are expected to take."""
        if kind in self._medians:
            return epochs * self._medians[kind]
        return epochs * (median(self._medians.values()) if self._medians else 1.0)


def work(
    cells: Mapping[str, Jobs],
    pool: Pool,
    costs: Costs,
    show: Show = lambda progress, ended: None,
    sharing: Sharing | None = None,
) -> Progress:
    """Do all jobs of all cells.

    Args:
        cells: by name.
        costs: what jobs cost, to begin those with the longest way ahead first.
        show: is told of every change: a job that has ended, or None.

    Returns:
        What was done, and the cells that failed with what was wrong.
    """
    return _Engine(cells, pool, costs, show, sharing).run()


class _Engine:
    def __init__(
        self,
        cells: Mapping[str, Jobs],
        pool: Pool,
        costs: Costs,
        show: Show,
        sharing: Sharing | None,
    ):
        self.cells, self.pool, self.costs, self.show = dict(cells), pool, costs, show
        self.sharing = sharing
        self.ranks: dict[str, float] = {}
        self.progress = Progress(room=pool.room)
        self.wanted: dict[str, dict[str, Job]] = {}  # key -> by cell the job that it asks for
        self.queue: list[tuple[float, int, str]] = []  # the longest way first, then as they came
        self.order = itertools.count()

    def run(self) -> Progress:
        try:
            for name in list(self.cells):
                self._ask(name)
            self._begin()
            while self.pool.running:
                ended = self._end(self.pool.next())
                self._begin()
                self.show(self.progress, ended)
        except BaseException as error:
            for cell in self.cells.values():
                _throw(cell, error)
            raise
        return self.progress

    def _ask(self, name: str) -> None:
        """Take the jobs that the cell has now."""
        try:
            jobs = next(self.cells[name])
        except StopIteration as end:
            del self.cells[name]
            self.progress.later.pop(name, None)
            self.progress.results[name] = end.value
            return
        except Exception as error:
            self._fail(name, error)
            return
        for job in jobs:
            by_cell = self.wanted.setdefault(job.key, {})
            if not by_cell:
                self.ranks[job.key] = -self.costs.seconds(job.kind, job.ahead)
                self._queue(job.key, self.ranks[job.key])
                if self.sharing and job.shares:
                    self.sharing.add(job.task)
                asked = self.progress.asked
                asked[job.kind] = asked.get(job.kind, 0.0) + job.epochs
            by_cell.setdefault(name, job)
            self.progress.later[name] = job.kind, job.later

    def _queue(self, key: str, rank: float) -> None:
        heapq.heappush(self.queue, (rank, next(self.order), key))

    def _begin(self) -> None:
        """Give the workers what is ready."""
        while self.queue and self.pool.running < self.pool.room:
            key = heapq.heappop(self.queue)[-1]
            if not self.wanted[key]:  # its cells have failed
                del self.wanted[key]
                continue
            job = next(iter(self.wanted[key].values()))
            along = self.sharing.begin(job.task) if self.sharing and job.shares else {}
            if along is None:
                continue
            self.progress.running[key] = job
            self.pool.submit(job.function, job.task | along | {"job": key})
        self.progress.ready, self.progress.room = len(self.queue), self.pool.room
        self.show(self.progress, None)

    def _end(self, ended: Ended) -> Job | None:
        """Take what came of a job; returns it, or None where it failed or another process is at it."""
        key = ended.task["job"]
        job, by_cell = self.progress.running.pop(key), self.wanted[key]
        if ended.error is None and ended.result is None:  # another process is at it
            self.wanted[key] = {
                name: replace(one, task=one.task | {"busy": False}) for name, one in by_cell.items()
            }
            self._unpark(job)
            if self.sharing and job.shares:
                self.sharing.add(job.task)
            self._queue(key, 0.0)
            return None
        del self.wanted[key]
        for name, one in by_cell.items():
            try:
                if ended.error is not None:
                    raise ended.error
                one.take(ended.result)
            except Exception as error:
                self._fail(name, error)
        self._unpark(job)
        self.progress.asked[job.kind] -= job.epochs
        self.progress.done += ended.error is None
        for name in by_cell:
            if name in self.cells:
                self._ask(name)
        return job if ended.error is None else None

    def _fail(self, name: str, error: Exception) -> None:
        """Give a cell up; what only it has asked for is not begun any more."""
        if (cell := self.cells.pop(name, None)) is not None:
            _throw(cell, error)
        self.progress.failed[name] = error
        self.progress.later.pop(name, None)
        for key, by_cell in self.wanted.items():
            job = by_cell.pop(name, None)
            if job is not None and not by_cell and key not in self.progress.running:
                self.progress.asked[job.kind] -= job.epochs
                self._unpark(job)

    def _unpark(self, job: Job) -> None:
        """Have those that waited for a job wait no longer."""
        if self.sharing and job.shares:
            for key in self.sharing.end(job.task):
                self._queue(key, self.ranks[key])


def _throw(cell: Jobs, error: BaseException) -> None:
    """Have the cell say in its journals how it ended."""
    with contextlib.suppress(type(error), StopIteration):
        cell.throw(error)
