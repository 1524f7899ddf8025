"""Stages in children of a warm process: the same as processes of their own, but for the start-up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrstudy.process import warm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not warm.is_wanted(), reason="no warm process off Linux or beside an accelerator"),
]

STAGE = """
import json, os, sys, time
from lrstudy.errors import StudyError
from lrstudy.process.command import run_stage

def main():
    what = sys.argv[1]
    if what == "tell":
        print(json.dumps([os.getcwd(), os.environ["COLOUR"], sys.argv[2:], "torch" in sys.modules, os.getpid()]))
        print("on the error stream", file=sys.stderr)
    if what == "mistake":
        raise StudyError("params.yaml: wrong")
    if what == "fault":
        raise RuntimeError("a bug")
    if what == "wait":
        print(os.getpid(), flush=True)
        time.sleep(600)

if __name__ == "__main__":
    run_stage(main, warm=os.environ.get("MODE", "start"))
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    (folder / "a_stage.py").write_text(STAGE)
    shutil.copy(Path(__file__).parents[1] / "params.yaml", folder)
    (folder / "tmp").mkdir()

    def command(*arguments, **options):
        environment = os.environ | {
            "PYTHONPATH": str(folder),
            "COLOUR": "blue",
            "TMPDIR": str(folder / "tmp"),
        }
        environment.pop("LRSTUDY_WARM", None)
        return subprocess.Popen(
            [sys.executable, "-m", "a_stage", *arguments], cwd=folder, text=True,
            env=environment | options, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # A shell's background jobs ignore interrupts, and so would all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    command.folder = os.path.realpath(folder)
    return command


def test_a_warm_stage_has_its_folder_environment_arguments_and_terminal(stage):
    pids = set()
    for _ in range(2):
        process = stage("tell", "x", "y z")
        out, err = process.communicate()
        folder, colour, arguments, has_torch, pid = json.loads(out)
        assert (process.returncode, folder, colour, arguments) == (0, stage.folder, "blue", ["x", "y z"])
        assert has_torch  # without importing it
        assert "on the error stream" in err
        assert pid != process.pid
        pids.add(pid)
    assert len(pids) == 2


def test_without_it_a_stage_runs_in_its_own_process(stage):
    process = stage("tell", LRSTUDY_WARM="0")
    out, _ = process.communicate()
    *_, has_torch, pid = json.loads(out)
    assert (pid, has_torch) == (process.pid, False)


def test_light_stages_start_it_ahead_or_join_it(stage, tmp_path):
    def told(mode: str) -> tuple[bool, bool]:
        process = stage("tell", MODE=mode, TMPDIR=str(tmp_path))
        *_, has_torch, pid = json.loads(process.communicate()[0])
        return pid == process.pid, has_torch

    here, child = (True, False), (False, True)
    assert told("join") == here  # there is none
    assert not list(tmp_path.rglob("*.log"))
    assert told("ahead") == here
    assert len(list(tmp_path.rglob("*.log"))) == 1  # it was started
    assert told("start") == child
    assert told("join") == child
    assert told("ahead") == here


@pytest.mark.parametrize("kept_warm", ["1", "0"])
def test_mistakes_and_faults_end_alike(stage, kept_warm):
    process = stage("mistake", LRSTUDY_WARM=kept_warm)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (2, "", "error: params.yaml: wrong\n")
    process = stage("fault", LRSTUDY_WARM=kept_warm)
    out, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1] == "RuntimeError: a bug"


def wait_for_end(pid: int) -> None:
    """Return when the process has ended, as the kernel says it."""
    import select

    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([watched], [], [], 60)[0], f"process {pid} goes on"
    finally:
        os.close(watched)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_with_its_stage(stage, sent):
    process = stage("wait")
    child = int(process.stdout.readline())
    assert child != process.pid
    process.send_signal(sent)
    process.communicate()
    wait_for_end(child)


def test_an_interrupt_reaches_the_child(stage):
    process = stage("wait")
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.startswith("interrupted; finished epochs and trials are kept")
    wait_for_end(child)


def test_other_code_or_settings_get_another_process(monkeypatch):
    first = warm._address()
    assert warm._address() == first
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert warm._address() != first


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder for sockets, whose paths the operating system keeps to about a hundred bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_copies_of_the_same_code_share_a_process_and_each_stage_has_its_own(tmp_path, short_tmp):
    """As temporary experiments do: the copy that started the process is gone when the other one asks it."""
    for name in ("one", "two"):
        folder = tmp_path / name
        shutil.copytree(Path(warm.__file__).parents[1], folder / "src/lrstudy")
        shutil.copy(Path(__file__).parents[1] / "params.yaml", folder)
        (folder / "a_stage.py").write_text(WHERE.replace("NAME", name))
        environment = os.environ | {"PYTHONPATH": str(folder / "src"), "TMPDIR": str(short_tmp)}
        environment.pop("LRSTUDY_WARM", None)
        done = subprocess.run(
            [sys.executable, "-m", "a_stage"], cwd=folder, env=environment, capture_output=True, text=True
        )
        told, has_torch, *files = done.stdout.split()
        assert (told, has_torch) == (name, "True"), done.stderr
        assert {Path(file).parents[2] for file in files} == {Path(os.path.realpath(folder))}
        shutil.rmtree(folder)
    assert len(list(short_tmp.rglob("*.log"))) == 1


WHERE = """
import sys
from lrstudy.process.command import run_stage

def main():
    from lrstudy import errors, stages, words
    print("NAME", "torch" in sys.modules, words.__file__, errors.__file__, stages.__path__[0])

if __name__ == "__main__":
    run_stage(main, warm="start")
"""


def test_what_is_fetched_later_is_what_stages_would_wait_for():
    code = """
import sys
from lrstudy.process import warm
for fetch in warm._LATER:
    fetch()
from mlflow.utils import requirements_utils
print("matplotlib.pyplot" in sys.modules, bool(requirements_utils._MODULES_TO_PACKAGES))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
