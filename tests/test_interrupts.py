"""Interrupts, SIGTERM and kills: what is under way is put away, and no run stays RUNNING for ever."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrstudy.files import is_locked, locked
from lrstudy.process.exits import exit_status
from lrstudy.study.journals import ended_as, finish, is_orphan, under_way
from lrstudy.tracking.journal import Journal

TESTS = Path(__file__).parent


@pytest.fixture
def journal(tmp_path) -> Journal:
    journal = Journal(tmp_path / "run", "key")
    journal.create("run", {})
    return journal


# --- what a run's journal says of it ---


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit("the stage that started this worker is gone"), "KILLED"),
        (RuntimeError("a bug"), "FAILED"),
        (OSError(28, "No space left on device"), "FAILED"),
    ],
)
def test_a_run_that_is_broken_off_ends_and_goes_on_later(journal, error, status):
    with pytest.raises(type(error)), under_way(journal):
        assert ended_as(journal) is None
        raise error
    assert ended_as(journal) == status
    with under_way(journal):
        assert ended_as(journal) is None
        finish(journal, "finished")
    assert ended_as(journal) == "FINISHED"
    assert [e["event"] for e in journal.events()] == ["create", "end", "resume", "tags", "end"]


def test_a_run_that_ended_well_is_left_alone(journal):
    with under_way(journal):
        finish(journal, "finished")
    before = journal.events()
    with pytest.raises(KeyboardInterrupt), under_way(journal):
        raise KeyboardInterrupt
    finish(journal, "finished")
    assert journal.events() == before


def test_a_run_is_an_orphan_while_it_has_neither_ended_nor_a_stage(journal):
    assert is_orphan(journal)
    with under_way(journal), under_way(journal):  # two experiments may share a run
        assert not is_orphan(journal)
    assert is_orphan(journal)  # as after a kill: nothing was written
    journal.end("KILLED")
    assert not is_orphan(journal)


def test_shared_locks_are_held_together_and_keep_others_out(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path, shared=True), locked(path, lambda: pytest.fail("waits"), shared=True):
        assert is_locked(path)
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)


# --- a stage's exit ---


def test_sigterm_is_one_message_and_the_handler_is_put_back(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert exit_status(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert (
        capsys.readouterr().err == "terminated; finished epochs and trials are kept, run it again to go on\n"
    )
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_stays_ignored_where_it_was(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert exit_status(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("lines", [1, 100_000], ids=["in the buffer", "in the middle"])
def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(lines):
    """As in `python -m lrstudy.design | head -1`."""
    code = (
        "import sys; from lrstudy.process.exits import exit_status; sys.stdin.read(); "
        f"sys.exit(exit_status(lambda: print(*range({lines}), sep='\\n')))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "command",
    [
        "preview cosine --table",
        "preview --help",
        "doctor",
        "prove_equal --help",
        "proof --help",
        "why --help",
    ],
)
def test_every_kind_of_command_may_be_cut_short(command, buffered, tmp_path):
    """`| head -0`, as it were: nobody ever reads."""
    process = subprocess.Popen(
        [sys.executable, *([] if buffered else ["-u"]), "-m", *f"lrstudy.{command}".split()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    process.stdout.close()
    assert process.communicate()[1] == b""
    # argparse writes its help whether anybody reads it or not; what is buffered is noticed later.
    unnoticed = "--help" in command and not buffered
    assert process.returncode == (0 if unnoticed else 128 + signal.SIGPIPE)


def test_a_package_that_a_command_lacks_is_one_message(capsys):
    """One that it imports late, when it has begun."""
    assert exit_status(lambda: exec("import gone_package", {"__name__": "lrstudy.late"})) == 2
    assert capsys.readouterr().err == (
        "error: lrstudy.late: No module named 'gone_package'. Install what it needs: pip install 'lrstudy[study]'; "
        "in a clone of the repository, make setup.\n"
    )


def test_a_pipe_that_breaks_elsewhere_is_an_error():
    def main() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        exit_status(main)


POOL = """
import sys
from concurrent.futures import process
from pathlib import Path
import torch
from lrstudy.process.parallel import run_all, workers_ready
from lrstudy.process.exits import exit_status

def task(number):
    Path(sys.argv[1], f"begun-{number['number']}").touch()
    sys.stdout.write("begun\\n"); sys.stdout.flush()  # one write: the workers share the pipe
    open(sys.argv[2]).read()  # a training without end: nobody writes to the pipe

def main():
    with workers_ready(1, "cpu"):
        for _ in run_all(task, [{"number": n} for n in range(6)], 1, "cpu"):
            pass

sys.exit(exit_status(main))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
@pytest.mark.parametrize(("sent", "to_all", "status"), [("SIGINT", True, 130), ("SIGTERM", False, 143)])
def test_workers_end_with_their_stage_and_begin_nothing_more(tmp_path, sent, to_all, status):
    """A terminal sends an interrupt to the stage and its workers, `kill` sends SIGTERM to the stage alone."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "begun").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", POOL, str(tmp_path / "begun"), str(tmp_path / "pipe")],
        env=os.environ | {"LRSTUDY_WORKERS": "2"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    if to_all:
        os.killpg(process.pid, signal.Signals[sent])
    else:
        process.send_signal(signal.Signals[sent])
    _, said = process.communicate(timeout=120)
    assert process.returncode == status
    assert said.endswith("finished epochs and trials are kept, run it again to go on\n")
    assert "Traceback" not in said
    assert len(list((tmp_path / "begun").iterdir())) == 2
    with pytest.raises(ProcessLookupError):  # nobody of its group is left
        os.killpg(process.pid, 0)


# --- the whole of it ---


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="faults.py forks its stages")
def test_killed_stages_end_like_one_left_alone(tmp_path):
    """A short form of `make faults`: kill -9 in the stages that train, start again, compare all."""
    command = [
        sys.executable, str(TESTS / "faults.py"), "--only", "train", "tune", "trainings", "--kills", "2",
        "--seed", "3",
        "-o", str(tmp_path / "found.json"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent / "src")}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    for stage in ("train", "tune", "trainings"):
        assert (found[stage]["kills"], found[stage]["differences"]) == (2, 0), found
        assert found[stage]["moments"] > 50


STAGE = """
import sys
from lrstudy.process.command import run_stage

def main():
    sys.stderr.write("begun\\n")
    open(sys.argv[1]).read()  # a training without end: nobody writes to the pipe

run_stage(main)
"""
DVC = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
@pytest.mark.parametrize("sent", ["SIGTERM", "SIGKILL"])
def test_a_stage_ends_with_the_dvc_that_runs_it(tmp_path, sent):
    """`kill` ends DVC alone: it passes nothing on."""
    os.mkfifo(tmp_path / "pipe")
    dvc = subprocess.Popen(
        [sys.executable, "-c", DVC, STAGE, str(tmp_path / "pipe")],
        env=os.environ | {"DVC_STAGE": "train@resnet-step"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert dvc.stderr.readline() == "begun\n"
    dvc.send_signal(signal.Signals[sent])
    _, said = dvc.communicate(timeout=120)  # the stage has the pipe too: it ends when both have ended
    assert said == "terminated; finished epochs and trials are kept, run it again to go on\n"
