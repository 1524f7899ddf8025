"""Independent runs side by side: the same results however many there are at a time."""

import builtins
import contextlib
import importlib
import multiprocessing
import os
import platform
import signal
import sys
import threading
from pathlib import Path

import joblib
import pytest

from lrstudy.errors import StudyError
from lrstudy.process import parallel
from lrstudy.process.exits import sigterm_as_exception
from lrstudy.process.parallel import Pool, num_workers, run_all, workers_ready
from lrstudy.study.runs import read_outcome, train_run
from tiny_data import settings, task, write_dataset


def worker_and_square(task: dict) -> tuple[int, int, int]:
    if task["number"] == task.get("fails"):
        raise StudyError(f"task {task['number']} is wrong")
    return os.getpid(), task["number"], task["number"] ** 2


def kill_the_worker(task: dict) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def import_it(task: dict) -> int:
    sys.path.insert(0, task["folder"])
    return importlib.import_module("slow_to_import").NUMBER


@pytest.fixture
def can_fork(monkeypatch):
    """This process has torch to give to its workers."""
    if platform.system() != "Linux":
        pytest.skip("forks on Linux only")
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", object()))
    monkeypatch.setattr(parallel, "has_accelerator", lambda: False)


@pytest.fixture(params=["forked", "fresh"])
def ready(request):
    """Workers are forked from a process that has torch, or start afresh, as they do where forking is unsafe."""
    if request.param == "fresh":
        return contextlib.nullcontext
    request.getfixturevalue("can_fork")
    return lambda: workers_ready(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_gives_its_result_once(ready, monkeypatch, workers):
    monkeypatch.setenv("LRSTUDY_WORKERS", str(workers))
    with ready():
        results = list(run_all(worker_and_square, ({"number": n} for n in range(6)), threads=1))
    assert sorted(result[1:] for result in results) == [(n, n**2) for n in range(6)]
    processes = {result[0] for result in results}
    assert (processes == {os.getpid()}) == (workers == 1)
    assert len(processes) <= workers


def test_no_tasks_give_nothing():
    assert list(run_all(worker_and_square, [], threads=1)) == []


def test_a_single_task_needs_no_worker(monkeypatch):
    monkeypatch.setenv("LRSTUDY_WORKERS", "8")
    assert list(run_all(worker_and_square, [{"number": 3}], threads=1)) == [(os.getpid(), 3, 9)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_tells_the_caller(ready, monkeypatch, workers):
    monkeypatch.setenv("LRSTUDY_WORKERS", str(workers))
    with pytest.raises(StudyError, match="task 2 is wrong"), ready():
        list(run_all(worker_and_square, [{"number": n, "fails": 2} for n in range(4)], threads=1))


def test_a_worker_that_is_killed_is_said_and_not_waited_for(ready, monkeypatch):
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    with pytest.raises(StudyError, match=r"was killed from outside.* run it again"), ready():
        list(run_all(kill_the_worker, [{"number": n} for n in range(4)], threads=1))


def test_a_worker_that_is_ended_as_it_begins_says_nothing(can_fork, monkeypatch, capfd):
    """It was forked with the stage's handler of SIGTERM, which raises: a traceback below the stage's own words."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    monkeypatch.setattr(parallel, "end_with_parent", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StudyError, match="was killed from outside"), sigterm_as_exception(), workers_ready(1):
        list(run_all(worker_and_square, [{"number": n} for n in range(4)], threads=1))
    assert capfd.readouterr().err == ""


def test_workers_that_are_ready_serve_every_call(can_fork, monkeypatch):
    """A second search asks for no second fork: threads may have begun since."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    tasks = [{"number": n} for n in range(4)]
    with workers_ready(1):
        forked = {child.pid for child in multiprocessing.active_children()}
        for _ in range(2):
            assert {pid for pid, *_ in run_all(worker_and_square, tasks, threads=1)} <= forked
        assert {child.pid for child in multiprocessing.active_children()} == forked
    assert not forked & {child.pid for child in multiprocessing.active_children()}


def test_a_thread_in_the_middle_of_an_import_holds_no_worker_up(can_fork, tmp_path, monkeypatch):
    """A process that was forked then would wait for the import's lock, which nobody in it would release."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_to_import.py").write_text(
        "import threading\n"
        "if threading.current_thread().name == 'importer':\n"
        "    begun.set(); go_on.wait(60)\n"
        "NUMBER = 3\n"
    )
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(builtins, "begun", begun, raising=False)
    monkeypatch.setattr(builtins, "go_on", go_on, raising=False)
    tasks = [{"folder": str(tmp_path)}] * 4
    importer = threading.Thread(target=import_it, args=(tasks[0],), name="importer")
    with workers_ready(1):
        importer.start()
        try:
            assert begun.wait(60)
            assert list(run_all(import_it, tasks, threads=1)) == [3] * 4
        finally:
            go_on.set()
            importer.join()
            sys.modules.pop("slow_to_import", None)


def test_nothing_is_forked_that_was_not_made_ready(can_fork, monkeypatch):
    """Threads may be about by then: fresh workers are slower, and safe."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    results = list(run_all(worker_and_square, [{"number": n} for n in range(4)], threads=1))
    assert sorted(number for _, number, _ in results) == list(range(4))


def test_forked_workers_that_are_ended_take_no_others_along(can_fork, monkeypatch):
    """Of one process: joblib's workers wait for the next call."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    tasks = [{"number": n} for n in range(4)]
    waiting = {pid for pid, *_ in run_all(worker_and_square, tasks, threads=1)}
    with pytest.raises(StudyError, match="task 2 is wrong"), workers_ready(1):
        list(run_all(worker_and_square, [task | {"fails": 2} for task in tasks], threads=1))
    workers = [child for child in multiprocessing.active_children() if child.pid in waiting]
    assert {worker.pid for worker in workers} == waiting
    for worker in workers:
        worker.join(0.5)  # one that was told to end would have ended
        assert worker.is_alive()


@pytest.fixture
def no_answer(monkeypatch):
    """The environment says nothing of workers, and the machine has eight processors and no accelerator."""
    monkeypatch.delenv("LRSTUDY_WORKERS", raising=False)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(parallel, "has_accelerator", lambda: False)


@pytest.mark.parametrize(("threads", "workers"), [(1, 8), (2, 4), (3, 2), (8, 1), (16, 1)])
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_workers_share_the_processors(no_answer, device, threads, workers):
    assert num_workers(threads, device) == workers


@pytest.mark.parametrize(("device", "there", "workers"), [("cuda", True, 1), ("mps", True, 1), ("auto", True, 1), ("cpu", True, 8), ("auto", False, 8)])  # fmt: skip
def test_an_accelerator_serves_one_training_at_a_time(no_answer, monkeypatch, device, there, workers):
    monkeypatch.setattr(parallel, "has_accelerator", lambda: there)
    assert num_workers(1, device) == workers


def test_the_environment_overrides_the_number_of_workers(monkeypatch):
    monkeypatch.setenv("LRSTUDY_WORKERS", "3")
    assert num_workers(1) == num_workers(100) == num_workers(1, "cuda") == 3


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "", " ", "²"])
def test_a_number_of_workers_that_is_none_is_named(monkeypatch, asked):
    monkeypatch.setenv("LRSTUDY_WORKERS", asked)
    with pytest.raises(StudyError, match=r"LRSTUDY_WORKERS: found .*a whole number of at least 1"):
        num_workers(1)


def test_a_pool_takes_tasks_as_they_come(ready, monkeypatch):
    """What ends first may bring further tasks; what fails is told with its task, and the others go on."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    found, failed = {}, []
    with ready(), Pool(1) as pool:
        for number in range(3):
            pool.submit(worker_and_square, {"number": number, "fails": 2})
        while pool.running:
            ended = pool.next()
            if ended.error:
                failed.append((ended.task["number"], str(ended.error)))
            else:
                _, number, found[number] = ended.result
                if number < 3:
                    pool.submit(worker_and_square, {"number": number + 10})
    assert found == {0: 0, 1: 1, 10: 100, 11: 121}
    assert failed == [(2, "task 2 is wrong")]


def test_a_pool_starts_no_more_workers_than_tasks(monkeypatch):
    monkeypatch.setenv("LRSTUDY_WORKERS", "2000")
    with Pool(1, most=3) as pool:
        assert pool.room == 3
        for number in range(3):
            pool.submit(worker_and_square, {"number": number})
        assert len({pool.next().result[0] for _ in range(3)}) <= 3


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_trainings_do_not_depend_on_the_number_of_workers(ready, tmp_path, monkeypatch):
    data = write_dataset("text", tmp_path / "imdb")
    found = {}
    for workers in (1, 2):
        monkeypatch.setenv("LRSTUDY_WORKERS", str(workers))
        root = tmp_path / str(workers)
        tasks = [
            task(root, data, settings("transformer", seed=seed), folder=str(root / str(seed)), journal=False)
            for seed in (1, 2)
        ]
        with ready():
            folders = [Path(folder) for folder in run_all(train_run, tasks, threads=1)]
        found[workers] = {}
        for folder in folders:
            losses = [record["steps"]["train/loss"] for record in read_outcome(folder).epochs]
            found[workers][folder.name] = losses, (folder / "last.safetensors").read_bytes()
    assert found[1] == found[2]
    assert found[1].keys() == {"1", "2"}
