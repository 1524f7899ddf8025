"""The engine: every job once, whoever asks for it and whatever ends first; no worker idle while something is ready."""

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.errors import StudyError
from lrstudy.process.parallel import Ended
from lrstudy.study.engine import Costs, Job, Jobs, Progress, work

ORDERS = st.integers(0, 2**32).map(random.Random)
"""In which something ends."""


class SimulatedPool:
    """Workers in simulated time: a job takes what its task says, or ends in any order."""

    def __init__(self, room: int, order: random.Random | None = None):
        self.room, self.order = room, order
        self.now, self.busy, self.begun = 0.0, 0.0, []
        self._running: list[tuple[float, int, object, dict]] = []

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, function, task: dict) -> None:
        assert self.running < self.room
        self.begun.append(task["job"])
        ends = self.now + task.get("takes", 1.0) if self.order is None else self.order.random()
        heapq.heappush(self._running, (ends, len(self.begun), function, task))

    def next(self) -> Ended:
        ends, _, function, task = heapq.heappop(self._running)
        self.busy += task.get("takes", 1.0)
        self.now = ends
        try:
            return Ended(task, function(task))
        except Exception as error:
            return Ended(task, error=error)


def done(task: dict) -> str:
    if task.get("fails"):
        raise StudyError(f"{task['job']} is wrong")
    return task["job"]


def job(key: str, results: dict, ahead: float = 1.0, **task) -> Job:
    def take(result: str) -> None:
        results[key] = result

    return Job(key=key, function=done, task=task, take=take, label=key, kind="any", epochs=1.0, ahead=ahead)


def cell(name: str, phases: list[list[str]], ledger: dict | None = None, **task) -> tuple[Jobs, dict]:
    """A cell that needs all jobs of a phase before the next one: a search, and the seeds with what it found.

    What is in the ``ledger``, which cells may share, is not asked for.
    """
    results: dict = {} if ledger is None else ledger

    def jobs() -> Jobs:
        for number, phase in enumerate(phases):
            ahead = float(len(phases) - number)
            while missing := [key for key in phase if key not in results]:
                yield [job(key, results, ahead, **task) for key in missing]
        return name, sorted(results)

    return jobs(), results


@given(st.integers(1, 5), ORDERS)
def test_every_job_is_done_once_in_whatever_order_they_end(room, order):
    ledger: dict = {}
    cells = {
        "a": cell("a", [["shared", "a1", "a2"], ["a3"], ["both"]], ledger)[0],
        "b": cell("b", [["b1"], ["shared", "b2"], ["both", "b3"]], ledger)[0],
    }
    pool = SimulatedPool(room, order)
    found = work(cells, pool, Costs())
    assert sorted(pool.begun) == ["a1", "a2", "a3", "b1", "b2", "b3", "both", "shared"]
    assert set(found.results) == {"a", "b"}
    assert ledger == {key: key for key in pool.begun}
    assert (found.done, found.failed, found.running) == (8, {}, {})
    assert sum(found.asked.values()) == 0
    assert not found.later


def test_the_workers_of_a_cluster_are_busy_until_the_tail():
    """48 cells with ten trainings of a second each on 64 slots; a stage for each cell would keep ten busy."""
    cells = {
        f"cell{n}": cell(
            f"cell{n}", [[f"{n}-trial{k}" for k in range(4)], [f"{n}-seed{k}" for k in range(6)]]
        )[0]
        for n in range(48)
    }
    pool = SimulatedPool(64)
    shares = []

    def show(progress: Progress, ended: Job | None) -> None:
        if progress.ready:
            shares.append(len(progress.running) / progress.room)

    assert work(cells, pool, Costs(), show).done == 480
    assert set(shares) <= {1.0, 63 / 64}  # while something is ready, none is idle
    assert pool.busy / (64 * pool.now) >= 0.9  # 480 / (64 x 8): the last round has 32


def test_what_has_the_longest_way_ahead_is_begun_first():
    """Of one long chain and many short jobs on two workers: the chain is not left for the end."""
    chain = cell("chain", [[f"c{n}"] for n in range(5)])[0]
    short = cell("short", [[f"s{n}" for n in range(5)]])[0]
    pool = SimulatedPool(2)
    work({"short": short, "chain": chain}, pool, Costs())
    assert pool.now == 5.0


def test_costs_that_were_measured_decide_what_is_longer():
    costs = Costs()
    assert not costs.are_known
    for seconds in (2.0, 100.0, 3.0):
        costs.note("slow", seconds)
    costs.note("fast", 1.0)
    assert costs.seconds("slow", 10) == 30.0  # the median
    assert costs.seconds("unknown", 10) == 20.0  # as the others do
    progress = Progress(asked={"slow": 2.0, "fast": 5.0}, later={"a": ("fast", 4.0)})
    assert costs.left(progress) == 15.0


@given(ORDERS)
def test_a_job_that_fails_ends_its_cells_and_no_other_one(order):
    wrong, wrong_results = cell("wrong", [["w1"], ["w2"]], fails=True)
    right = cell("right", [["r1", "r2"], ["r3"]])[0]
    pool = SimulatedPool(2, order)
    found = work({"wrong": wrong, "right": right}, pool, Costs())
    assert str(found.failed["wrong"]) == "w1 is wrong"
    assert list(found.failed) == ["wrong"]
    assert found.results == {"right": ("right", ["r1", "r2", "r3"])}
    assert "w2" not in pool.begun
    assert wrong_results == {}
    assert sum(found.asked.values()) == 0


def test_what_only_a_failed_cell_has_asked_for_is_not_begun():
    results: dict = {}

    def jobs() -> Jobs:
        while True:
            yield [job("bad", results, 9.0, fails=True), job("never", results), job("shared", results)]

    pool = SimulatedPool(1)
    found = work({"failing": jobs(), "other": cell("other", [["shared"]])[0]}, pool, Costs())
    assert pool.begun == ["bad", "shared"]
    assert set(found.failed) == {"failing"}


def test_a_cell_that_cannot_take_a_result_fails_alone():
    def refuse(result: str) -> None:
        raise StudyError("no record of it")

    def jobs() -> Jobs:
        yield [Job("x", done, {}, refuse, "x", "any", 1.0, 1.0)]

    found = work({"refusing": jobs(), "other": cell("other", [["x"], ["y"]])[0]}, SimulatedPool(1), Costs())
    assert str(found.failed["refusing"]) == "no record of it"
    assert found.results == {"other": ("other", ["x", "y"])}


def test_what_another_process_does_is_asked_again_when_nothing_else_is_left():
    asked = []

    def elsewhere(task: dict) -> str | None:
        asked.append((task["job"], task["busy"]))
        return None if task["busy"] else "found"

    results: dict = {}

    def jobs() -> Jobs:
        while missing := [key for key in ("x", "y") if key not in results]:
            yield [
                Job(
                    key, elsewhere if key == "x" else done, {"busy": True},
                    lambda result, key=key: results.update({key: result}), key, "any", 1.0, 2.0 if key == "x" else 1.0,
                )
                for key in missing
            ]  # fmt: skip

    pool = SimulatedPool(1)
    found = work({"cell": jobs()}, pool, Costs())
    assert pool.begun == ["x", "y", "x"]
    assert asked == [("x", True), ("x", False)]
    assert results == {"y": "y", "x": "found"}
    assert found.done == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, StudyError])
def test_an_interrupt_reaches_every_cell(error):
    """So that their runs are ended as what they are."""
    seen = []

    class Broken(SimulatedPool):
        def next(self) -> Ended:
            raise error("now")

    def jobs(name: str) -> Jobs:
        try:
            yield [job(name, {})]
        except BaseException as found:
            seen.append((name, type(found)))
            raise

    with pytest.raises(error):
        work({"a": jobs("a"), "b": jobs("b")}, Broken(1), Costs())
    assert seen == [("a", error), ("b", error)]


class Pairs:
    """Of the jobs x1, x2, ... those that wait for the first: what :class:`lrstudy.study.sharing.Sharing` does."""

    def __init__(self):
        self.running, self.parked = set(), []

    def add(self, task: dict) -> None:
        assert task["name"] not in self.running

    def begin(self, task: dict) -> dict | None:
        if self.running:
            self.parked.append(task["name"])
            return None
        self.running.add(task["name"])
        return {"took": "something"}

    def end(self, task: dict) -> list[str]:
        self.running.discard(task["name"])
        parked, self.parked = self.parked, []
        return parked


@given(ORDERS)
def test_a_job_waits_for_one_that_it_has_more_in_common_with(order):
    results: dict = {}
    sharing = Pairs()

    def jobs() -> Jobs:
        while missing := [key for key in ("x1", "x2", "x3", "free") if key not in results]:
            yield [
                Job(
                    key, lambda task: task.get("took", "nothing"), {"name": key},
                    lambda result, key=key: results.update({key: result}), key, "any", 1.0, 1.0, shares=key != "free",
                )
                for key in missing
            ]  # fmt: skip

    pool = SimulatedPool(4, order)
    found = work({"cell": jobs()}, pool, Costs(), sharing=sharing)
    assert results == {"x1": "something", "x2": "something", "x3": "something", "free": "nothing"}
    assert sorted(pool.begun) == ["free", "x1", "x2", "x3"]
    assert found.done == 4
