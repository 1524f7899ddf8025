"""What a person sees while the engine works: in a terminal what runs and how far all is, in a log what has ended."""

import io
import re

import pytest
from rich.console import Console

from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.study.engine import Costs, Job, Progress
from lrstudy.study.runs import PROGRESS
from lrstudy.study.view import View


def job(label: str, folder: str = "", epochs: float = 4) -> Job:
    return Job(label, print, {"folder": folder}, print, label, "lstm", epochs, epochs)


@pytest.fixture
def costs() -> Costs:
    found = Costs()
    found.note("lstm", 900.0)
    return found


def test_a_log_has_a_dated_line_for_what_has_ended(costs, capsys):
    running = {"b": job("lstm-cosine seed 2")}
    progress = Progress(running=running, done=3, ready=5, asked={"lstm": 24.0}, room=2)
    with View(costs) as view:
        view.show(progress, None)  # nothing to say
        view.show(progress, job("lstm-cosine seed 1"))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  lstm-cosine seed 1 has ended; 3 done, 1 running, 5 ready, 6\.0 core-hours left, 3 h 00 min",
        line,
    )


def test_nothing_is_reckoned_before_anything_was_measured(capsys):
    with View(Costs()) as view:
        view.show(Progress(done=1, asked={"lstm": 8.0}), job("a"))
    assert capsys.readouterr().err.endswith("a has ended; 1 done, 0 running, 0 ready\n")


def test_a_cell_that_failed_is_said_once_and_at_once_if_others_go_on(costs, capsys):
    progress = Progress(running={"b": job("b")}, failed={"lstm-step": StudyError("no such rate")})
    with View(costs) as view:
        view.show(progress, None)
        view.show(progress, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("lstm-step has failed, the others go on: no such rate")
    with View(costs) as view:  # the only one: who asked for it says so
        view.show(Progress(failed={"lstm-step": StudyError("no such rate")}), None)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_each_training_with_its_last_epoch_and_a_line_for_all(costs, tmp_path):
    last = {
        "epoch": 2, "train/loss": 0.31, "validation/loss": 0.2871, "validation/accuracy": 0.8804, "seconds": 41.6,
    }  # fmt: skip
    write_json(tmp_path / PROGRESS, last)
    running = {
        "a": job("lstm-cosine seed 1", str(tmp_path)),
        "b": job("lstm-cosine seed 2", str(tmp_path / "not begun")),
    }
    view = View(costs)
    failed = {"resnet-step": StudyError("wrong")}
    view.show(Progress(running=running, done=7, ready=1, asked={"lstm": 12.0}, failed=failed, room=2), None)
    console = Console(file=io.StringIO(), width=120)
    console.print(view)
    first, second, summary = (line.rstrip() for line in console.file.getvalue().splitlines())
    assert first.split() == (
        [
            "lstm-cosine",
            "seed",
            "1",
            "epoch",
            "2/4",
            "train",
            "0.3100",
            "validation",
            "0.2871",
            "accuracy",
            "0.8804",
            "41.6",
            "s",
        ]
    )
    assert second == "lstm-cosine seed 2"
    assert summary == "7 done, 2 running, 1 ready, 1 cell failed, 3.0 core-hours left, 1 h 30 min"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"epoch": 1}'])
def test_half_a_file_of_a_training_under_way_is_no_error(costs, tmp_path, content):
    (tmp_path / PROGRESS).write_text(content)
    view = View(costs)
    view.show(Progress(running={"a": job("lstm-cosine seed 1", str(tmp_path))}), None)
    console = Console(file=io.StringIO(), width=120)
    console.print(view)
    assert "lstm-cosine seed 1" in console.file.getvalue()
