"""Two experiments and a UI at once on the same databases: nothing is lost, mixed up, or refused."""

import json
import subprocess
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from screenshots import mlflow_ui
from test_end_to_end import SMOKE, Copy

pytestmark = pytest.mark.slow

SEEDS = (1, 2)


def start(study: Copy, *schedules: str) -> subprocess.Popen:
    """``dvc exp run --temp`` of one model's schedules."""
    command = [
        "dvc", "exp", "run", "--temp", *SMOKE, "-S", "model=lstm", "-S", f"schedule=[{','.join(schedules)}]",
        "-S", f"train.seeds={list(SEEDS)}", "-S", "theory=none",
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=study.folder, env=study.environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def watch(address: str, ended: threading.Event, answers: list[int]) -> None:
    """Ask the UI's server for all runs twice a second, more often than an open page does."""
    query = json.dumps({"experiment_ids": ["0", "1"], "max_results": 1000}).encode()
    while not ended.wait(0.5):
        asked = urllib.request.Request(
            f"{address}/ajax-api/2.0/mlflow/runs/search", query, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=120) as answer:
            answers.append(answer.status)
            json.load(answer)


def test_two_temporary_experiments_and_an_open_ui_share_the_databases(tmp_path: Path):
    """Both have the row `static`: it is trained once, and each has it in its results.

    The second begins when the first one's stages do: before, DVC locks the workspace, and waits for a lock only
    seconds.
    """
    study = Copy(tmp_path)
    rows = (("static", "step"), ("static", "cosine"))
    answers, ended = [], threading.Event()
    with mlflow_ui(study.folder, study.environment) as address:
        reader = threading.Thread(target=watch, args=(address, ended, answers))
        reader.start()
        first = start(study, *rows[0])
        begun = ""
        while "Running stage" not in begun and (line := first.stdout.readline()):
            begun += line
        second = start(study, *rows[1])
        printed = [begun + first.stdout.read(), second.stdout.read()]
        ended.set()
        reader.join()
    assert [first.wait(), second.wait()] == [0, 0], "\n".join(printed)
    said = "\n".join(printed)
    for trouble in ("locked", "Traceback", "warning:", "Nothing is lost"):
        assert trouble not in said, said
    assert len(answers) > 10
    assert set(answers) == {200}

    client = study.client()
    experiment = client.get_experiment_by_name("lrstudy").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    kinds = {
        kind: Counter(run.data.tags["schedule"] for run in runs if run.data.tags["kind"] == kind)
        for kind in ("tuning", "cell", "seed")
    }
    once = dict.fromkeys(("static", "step", "cosine"), 1)
    assert kinds["tuning"] == once
    assert kinds["cell"] == once
    assert kinds["seed"] == dict.fromkeys(once, len(SEEDS))
    for run in runs:
        if run.data.tags["kind"] == "seed":
            rows_of = client.get_metric_history(run.info.run_id, "validation/loss")
            assert [row.step for row in rows_of] == [1, 2]

    shown = json.loads(study.run("dvc", "exp", "show", "--json"))
    found = [one for revision in shown for one in revision.get("experiments") or []]
    assert len(found) == len(rows)
    histories = set()
    for one in found:
        study.run("dvc", "exp", "apply", one["name"])
        schedules = tuple(study.json("reports/comparison.json")["cells"]["lstm"])
        assert schedules in rows
        for schedule in schedules:
            history = pd.read_csv(study.folder / f"artifacts/train/lstm/{schedule}/history.csv")
            assert history.groupby("seed").size().tolist() == [2, 2]
            if schedule == "static":
                histories.add(history.to_csv())
    assert len(histories) == 1
