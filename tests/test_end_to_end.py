"""The real command lines on the embedded sample, in a copy of the repository with a history of its own."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file
from sklearn.metrics import f1_score

from browser import needs_browser, page
from lrstudy.ledger import Ledger
from screenshots import mlflow_ui, runs_address

ROOT = Path(__file__).parents[1]
SMOKE = [
    "-S", "data=sample", "-S", "preset=smoke",
    "-S", "num_epochs.cifar10=2", "-S", "num_epochs.imdb=2",  # of a single epoch MLflow draws no curve
]  # fmt: skip
pytestmark = pytest.mark.slow


class Copy:
    """A copy of the repository's files as they are now, committed, and a way to run commands in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        for name in listed:
            # Neither the study's reports nor its trainings: a test's study has its own.
            if (ROOT / name).is_file() and not name.startswith(("reports/", "ledger/trainings/")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (folder / "dvc.lock").unlink(missing_ok=True)
        (folder / "metrics.json").unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
        self.environment = environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "PYTHONPATH": str(folder / "src"),
        }
        self.run("git", "init", "-q", ".")
        self.run("git", "config", "user.name", "test")
        self.run("git", "config", "user.email", "test@localhost")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "copy")

    def run(self, *command: str, fails: bool = False, **environment: str) -> str:
        """Run a command here; returns what it printed. Fails the test unless it ends as expected."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=540, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, (
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        )
        return done.stdout

    def kill_at(self, *command: str, line: Callable[[str], bool]) -> None:
        """kill -9 a command and all that it started when it prints such a line."""
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        if any(line(printed) for printed in process.stdout):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL

    def stages_run(self, printed: str) -> set[str]:
        """The stages that DVC says it ran."""
        return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")}

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Copy:
    """A finished smoke study of two models and two schedules."""
    copy = Copy(tmp_path_factory.mktemp("study"))
    copy.printed = copy.run(
        "dvc", "exp", "run", *SMOKE, "-S", "model=[resnet,lstm]", "-S", "schedule=[static,exponential]"
    )
    return copy


def test_the_whole_walk_runs_and_reports(study):
    cells = ["resnet-static", "resnet-exponential", "lstm-static", "lstm-exponential"]
    ran = study.stages_run(study.printed)
    expected = {f"{stage}@{cell}" for stage in ("tune", "train", "evaluate") for cell in cells}
    of_data = ("download", "preprocess", "references")
    expected |= {f"{stage}@{data}" for stage in of_data for data in ("cifar10", "imdb")}
    expected |= {f"timing@{model}" for model in ("resnet", "lstm")}
    assert ran == expected | {"code", "trainings", "late_decay", "level_sets", "compare", "report", "publish"}
    comparison = study.json("reports/comparison.json")
    assert comparison["missing"] == []
    assert {name: found["data"]["dataset"] for name, found in comparison["references"].items()} == {
        name: name for name in ("cifar10", "imdb")
    }
    assert {m: set(s) for m, s in comparison["cells"].items()} == {
        "resnet": {"static", "exponential"}, "lstm": {"static", "exponential"},
    }  # fmt: skip
    timing = comparison["timing"]["lstm"]
    assert set(timing["schedules"]) == {"static", "exponential"}
    assert all(
        len(row["seconds"]) == 2 and row["seconds_per_update"] > 0 for row in timing["optimizers"].values()
    )
    report = (study.folder / "reports/report.md").read_text()
    assert "What an update costs" in report
    assert "embedded sample" in report.splitlines()[0]
    for picture in ("losses.svg", "validation_loss.svg", "rates.svg", "train_accuracy.svg"):
        assert f"figures/{picture}" in report
        assert (study.folder / "reports/figures" / picture).read_bytes().startswith(b"<?xml")
    page = (study.folder / "reports/report.html").read_text()
    assert "embedded sample, not a result</title>" in page
    assert len(page) < 5_000_000
    metrics = study.json("metrics.json")
    assert (
        metrics["lstm"]["static"] == comparison["cells"]["lstm"]["static"]["metrics"]["test/f1_macro"]["mean"]
    )


def test_every_reported_number_can_be_computed_again_from_the_ledger(study):
    ledger = Ledger(study.folder / "ledger")
    for model, dataset, metric in (("resnet", "cifar10", "test/accuracy"), ("lstm", "imdb", "test/f1_macro")):
        cell = study.json("reports/comparison.json")["cells"][model]["exponential"]
        training = study.json(f"artifacts/train/{model}/exponential/training.json")
        record = ledger.find(training["seeds"]["1"]["identity"])
        labels = load_file(study.folder / f"data/processed/{dataset}/test.safetensors")["labels"]
        right, losses = record.test.is_right(), record.test.example_losses()
        assert len(labels) == len(right) == len(losses)
        values = {name: found["values"].get("1") for name, found in cell["metrics"].items()}
        assert values["test/accuracy"] == pytest.approx(right.mean(), abs=1e-12)
        assert values["test/loss"] == pytest.approx(losses.mean(dtype=float), rel=1e-3)
        confusion = np.array(record.test.last.confusion)
        assert confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=len(confusion)).tolist()
        assert np.trace(confusion) == right.sum()
        if dataset == "imdb":  # of two classes a wrong one is the other
            predicted = np.where(right, labels, 1 - labels)
            for name, average in (("test/f1", "binary"), ("test/f1_macro", "macro")):
                f1 = f1_score(labels, predicted, average=average, zero_division=0)
                assert values[name] == pytest.approx(f1, abs=1e-12)
        assert values["validation/loss"] == record.history["validation/loss"][-1]
        assert values[metric] is not None


def test_mlflow_has_one_experiment_with_a_parent_per_cell_and_a_child_per_seed(study):
    client = study.client()
    experiment = client.get_experiment_by_name("lrstudy")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_kind: dict[str, list] = {}
    for run in runs:
        by_kind.setdefault(run.data.tags["kind"], []).append(run)
        assert run.info.status == "FINISHED"
    theory = {kind: len(by_kind[kind]) for kind in ("theory", "path")}  # tests/test_theory_experiments.py
    assert {kind: len(found) for kind, found in by_kind.items()} == {
        "cell": 4, "seed": 4, "tuning": 4, "trial": 4, "report": 1, **theory,
    }  # fmt: skip
    parents = {run.info.run_id: run for run in by_kind["cell"]}
    for run in by_kind["seed"]:
        parent = parents[run.data.tags["mlflow.parentRunId"]]
        for tag in ("model", "schedule", "data", "preset"):
            assert run.data.tags[tag] == parent.data.tags[tag]
        assert {"train/loss", "validation/loss", "lr", "test/accuracy", "test/f1"} <= set(run.data.metrics)
        training = study.json(
            f"artifacts/train/{run.data.tags['model']}/{run.data.tags['schedule']}/training.json"
        )
        assert training["seeds"]["1"]["run_id"] == run.info.run_id
        history = pd.read_csv(
            study.folder / f"artifacts/train/{run.data.tags['model']}/{run.data.tags['schedule']}/history.csv"
        )
        logged = client.get_metric_history(run.info.run_id, "validation/loss")
        assert [m.value for m in logged] == history["validation/loss"].tolist()
        assert float(run.data.params["optimizer.base_lr"]) == training["settings"]["optimizer"]["base_lr"]
    names = {run.info.run_name for run in by_kind["cell"]}
    assert names == {"resnet-static", "resnet-exponential", "lstm-static", "lstm-exponential"}


def test_mlflow_has_the_data_of_every_seed_and_the_model_of_a_champion_per_task(study):
    import mlflow
    import torch

    from lrstudy.training.devices import has_native_bfloat16

    client = study.client()
    experiment = client.get_experiment_by_name("lrstudy")
    seeds = client.search_runs([experiment.experiment_id], "tags.kind = 'seed'")
    for run in seeds:
        names = {found.dataset.name.split("-")[1] for found in run.inputs.dataset_inputs}
        assert names == {"train", "validation", "test"}
    assert sum(len(run.outputs.model_outputs or []) for run in seeds) == 2
    (report,) = client.search_runs([experiment.experiment_id], "tags.kind = 'report'")
    assert "report.html" in {found.path for found in client.list_artifacts(report.info.run_id)}
    comparison = study.json("reports/comparison.json")
    mlflow.set_tracking_uri(f"sqlite:///{study.folder / 'mlflow.db'}")
    # The model that is kept computes in float32 wherever it is loaded, the study in bfloat16 where it can.
    tolerance = 1e-2 if has_native_bfloat16(torch.device("cpu")) else 1e-5
    for dataset, model in (("cifar10", "resnet"), ("imdb", "lstm")):
        version = client.get_model_version_by_alias(f"lrstudy-{dataset}-sample", "champion")
        assert report.info.run_id in version.description
        losses = {
            schedule: cell["metrics"]["validation/loss"]["values"]["1"]
            for schedule, cell in comparison["cells"][model].items()
        }
        best = min(losses, key=losses.get)
        assert version.tags["schedule"] == best
        loaded = mlflow.pytorch.load_model(f"models:/lrstudy-{dataset}-sample@champion")
        examples = mlflow.pyfunc.load_model(f"models:/lrstudy-{dataset}-sample@champion").input_example
        with torch.inference_mode():
            found = loaded(torch.from_numpy(np.asarray(examples))).numpy()
        training = study.json(f"artifacts/train/{model}/{best}/training.json")
        record = Ledger(study.folder / "ledger").find(training["seeds"]["1"]["identity"])
        labels = load_file(study.folder / f"data/processed/{dataset}/test.safetensors")["labels"]
        of_label = found[np.arange(len(found)), labels[: len(found)]]
        recorded = np.exp(-record.test.example_losses()[: len(found)].astype(float))
        np.testing.assert_allclose(of_label, recorded, atol=tolerance + 1e-3)  # which halves round


@needs_browser
@pytest.mark.parametrize("colors", ["light", "dark"])
def test_the_report_opens_in_a_browser_without_a_failed_request_or_an_error(study, colors):
    with page(colors=colors) as (opened, problems):
        opened.goto((study.folder / "reports/report.html").as_uri())
        assert "learning-rate schedules" in opened.get_by_role("heading", level=1).inner_text()
        widths = opened.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) >= 5
        assert min(widths) > 0
        table = opened.locator("table").first
        before = [row.inner_text() for row in table.locator("tbody tr").all()]
        table.locator("th button").first.click()
        table.locator("th button").first.click()
        after = [row.inner_text() for row in table.locator("tbody tr").all()]
        assert sorted(after) == sorted(before)
        assert after == sorted(before, reverse=True)
        dark = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", dark)[:3])) < 100) == (colors == "dark")
    assert problems == []


@needs_browser
def test_mlflows_ui_overlays_the_curves_of_two_schedules_and_compares_their_test_metrics(study):
    experiment = study.client().get_experiment_by_name("lrstudy").experiment_id
    cells = study.json("reports/comparison.json")["cells"]["lstm"]
    with mlflow_ui(study.folder, study.environment) as ui, page() as (opened, _):
        runs = runs_address(ui, experiment, 'tags.kind = "cell" and tags.model = "lstm"')
        opened.goto(f"{runs}&compareRunsMode=CHART")
        opened.get_by_placeholder("Search metric charts").fill("^(validation/loss|lr)$")
        for schedule in cells:
            for metric in ("validation/loss", "lr"):
                opened.get_by_text(f"lstm-{schedule} ({metric})").first.wait_for()
        opened.locator("path.js-line").nth(2 * len(cells) - 1).wait_for(state="attached")

        opened.goto(runs)
        opened.get_by_role("checkbox", name="Select all runs").check()
        opened.get_by_role("button", name="Compare").click()
        opened.get_by_text("Run details").wait_for()
        for schedule, cell in cells.items():
            opened.get_by_text(f"lstm-{schedule}", exact=True).first.wait_for()
            for name in ("test/accuracy", "test/f1"):
                opened.get_by_role("link", name=name, exact=True).wait_for()
                shown = f"{cell['metrics'][name]['mean']:.3f}".rstrip("0").rstrip(".")
                opened.get_by_text(shown, exact=True).first.wait_for()


def test_a_second_repro_runs_nothing(study):
    printed = study.run("dvc", "repro")
    assert study.stages_run(printed) == set()
    assert "up to date" in printed


def test_the_same_cell_trained_again_from_nothing_has_the_same_history_and_predictions(study):
    """Determinism: checkpoints and ledger are moved away, so that everything is computed a second time."""
    cell = study.folder / "artifacts/train/lstm/exponential"
    before = {
        path.name: path.read_bytes() for path in (cell / "history.csv", cell / "seed-1/last.safetensors")
    }
    for folder in ("checkpoints", "ledger"):
        shutil.move(study.folder / folder, study.folder / f"{folder}-first")
    shutil.rmtree(cell)
    try:
        study.run(sys.executable, "-m", "lrstudy.stages.train", "lstm", "exponential", LRSTUDY_WORKERS="1")
    finally:
        for folder in ("checkpoints", "ledger"):
            shutil.rmtree(study.folder / folder)
            shutil.move(study.folder / f"{folder}-first", study.folder / folder)
    after = {
        path.name: path.read_bytes() for path in (cell / "history.csv", cell / "seed-1/last.safetensors")
    }
    assert after == before
    study.run("dvc", "checkout", "--force")


def test_editing_one_schedule_runs_its_column_alone(study):
    """Of another one nothing is trained, even where the ledger lacks it."""
    best = study.json("artifacts/tuned/lstm/static/best.json")
    identity = best["searches"][0]["trials"][0]["search"]["identities"][0]
    (record,) = (study.folder / "ledger/trainings" / identity[:2]).glob(f"{identity}-*")
    lost = record.rename(study.folder / record.name)
    printed = study.run(
        "dvc", "exp", "run", *SMOKE, "-S", "model=[resnet,lstm]", "-S", "schedule=[static,exponential]",
        "-S", "schedule.exponential.decay_rate=0.3",
    )  # fmt: skip
    assert study.stages_run(printed) == {
        f"{stage}@{model}-exponential"
        for stage in ("tune", "train", "evaluate")
        for model in ("resnet", "lstm")
    } | {"code", "trainings", "timing@resnet", "timing@lstm", "compare", "report", "publish"}
    assert "lstm-static: not all of it is in the ledger, but no stage of it changed: left as it is" in printed
    assert not record.exists()
    lost.rename(record)
    cells = study.json("reports/comparison.json")["cells"]
    assert cells["resnet"]["exponential"]["parameters"] == {
        "final_factor": pytest.approx(math.exp(-0.6), rel=1e-11),  # over two epochs
        "decay_rate": 0.3,
    }
    assert cells["resnet"]["static"]["parameters"] == {}


def test_one_schedule_alone_runs_its_column_alone(study):
    printed = study.run("dvc", "exp", "run", *SMOKE, "-S", "model=lstm", "-S", "schedule=exponential")
    # The theory stages read the study's models, of which there is one less now; no training is done again.
    assert study.stages_run(printed) <= {"code", "trainings", "timing@lstm", "late_decay", "level_sets", "compare", "report", "publish", *(
        f"{stage}@lstm-exponential" for stage in ("tune", "train", "evaluate")
    )}  # fmt: skip
    assert list(yaml.safe_load((study.folder / "params.yaml").read_text())["cells"]) == ["lstm-exponential"]
    assert set(study.json("reports/comparison.json")["cells"]) == {"lstm"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("schedule=expo", ["schedule: 'expo' has no file in conf/schedule", "exponential", "cosine"]),
        ("schedule.exponential.decay_rte=0.3", ["decay_rte"]),
    ],
)
def test_a_typo_names_the_choices_and_runs_nothing(study, override, says):
    printed = study.run("dvc", "exp", "run", *SMOKE, "-S", override, fails=True)
    assert study.stages_run(printed) == set()
    for words in says:
        assert words in printed


def test_a_value_out_of_range_stops_at_the_first_stage_that_reads_it(study):
    printed = study.run(
        "dvc", "exp", "run", *SMOKE, "-S", "model=lstm", "-S", "schedule=exponential",
        "-S", "schedule.exponential.decay_rate=-1", fails=True,
    )  # fmt: skip
    assert "error: params.yaml: lstm-exponential: schedule exponential: decay_rate is -1" in printed
    assert "Traceback" not in printed


def test_a_killed_stage_leaves_nothing_that_is_taken_for_good(study):
    """kill -9 in the middle of a training; then the same command ends as an uninterrupted run does."""
    row = [
        "-S", "model=lstm", "-S", "schedule=cosine", "-S", "num_epochs.imdb=6", "-S", "data.limit=400",
        "-S", "theory=none",
    ]  # fmt: skip
    study.kill_at("dvc", "exp", "run", *SMOKE, *row, line=lambda s: "seed 1 " in s and "epoch  2/6" in s)
    assert not (study.folder / "artifacts/train/lstm/cosine/training.json").exists()
    study.run(
        "git", "checkout", "-q", "-f", "--detach"
    )  # what a killed `dvc exp run` leaves: HEAD moved away
    study.run("git", "checkout", "-q", "-f", "-B", "main")
    printed = study.run("dvc", "exp", "run", *SMOKE, *row)
    assert "goes on after epoch" in printed
    resumed = (study.folder / "artifacts/train/lstm/cosine/history.csv").read_text()
    assert len(resumed.splitlines()) == 1 + 6
    shutil.rmtree(study.folder / "checkpoints/lstm-cosine")
    shutil.rmtree(study.folder / "ledger/trainings")
    study.run(sys.executable, "-m", "lrstudy.stages.train", "lstm", "cosine")
    assert (study.folder / "artifacts/train/lstm/cosine/history.csv").read_text() == resumed


def test_a_killed_search_ends_with_the_trials_of_one_that_was_not(study):
    """kill -9 in the middle of `dvc repro tune@...`, then the same command; no trial is lost or done twice."""
    study.run(
        sys.executable, "-m", "lrstudy.compose", "data=sample", "preset=smoke", "data.limit=400", "model=lstm",
        "schedule=step", "num_epochs.imdb=2", "tune.num_trials=6", "tune.finalists=2", "tune.confirm_seeds=[102]",
    )  # fmt: skip
    command = ["dvc", "repro", "tune@lstm-step"]
    study.kill_at(*command, line=lambda s: "trial 4 " in s and "epoch  1/2" in s)
    best = study.folder / "artifacts/tuned/lstm/step/best.json"
    assert not best.exists()
    printed = study.run(*command)
    assert not any(f"trial {number} seed" in printed for number in range(4))  # these were finished
    resumed = json.loads(best.read_text())

    shutil.rmtree(study.folder / "checkpoints/lstm-step")
    shutil.rmtree(study.folder / "ledger/trainings")
    undisturbed = f"sqlite:///{study.folder / 'undisturbed.db'}"
    study.run(
        sys.executable, "-m", "lrstudy.stages.tune", "lstm", "step",
        LRSTUDY_OPTUNA_STORAGE=undisturbed, MLFLOW_TRACKING_URI=undisturbed.replace("undisturbed", "other"),
    )  # fmt: skip
    assert without_clock(json.loads(best.read_text())) == without_clock(resumed)
    done = resumed["searches"][0]["trials"]
    assert [trial["number"] for trial in done] == list(range(6))
    assert sum(trial["confirmation"] is not None for trial in done) == 2
    assert resumed["cost"]["trainings"] == resumed["cost"]["at_most"] == 6 + 2

    client = study.client()
    experiment = client.get_experiment_by_name("lrstudy")
    searches = client.search_runs(
        [experiment.experiment_id], "tags.kind = 'tuning' and tags.schedule = 'step' and tags.model = 'lstm'"
    )
    [search] = [run for run in searches if run.data.params["confirm_seeds"] == "[102]"]
    trials = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{search.info.run_id}'", max_results=1000
    )
    told = [(int(run.data.tags["trial"]), run.data.tags["phase"]) for run in trials]
    phases = ("search", "confirmation")
    assert sorted(told) == sorted((t["number"], phase) for t in done for phase in phases if t[phase])
    [winner] = [run for run in trials if run.data.tags.get("best") == "true"]
    [best] = [trial for trial in done if trial["number"] == resumed["best_trial"]]
    assert best["objective"] == resumed["objective"]
    assert winner.data.metrics["objective"] == best["confirmation"]["objective"]
    assert {info.path for info in client.list_artifacts(search.info.run_id, "figures")} == {
        f"figures/{name}.png" for name in ("optimization_history", "param_importances", "slice")
    }


def without_clock(found: object) -> object:
    """Without what a clock decides."""
    if isinstance(found, dict):
        return {k: without_clock(v) for k, v in found.items() if k not in ("seconds", "ended")}
    return [without_clock(value) for value in found] if isinstance(found, list) else found


def test_queued_experiments_land_in_the_same_mlflow_database(study):
    rows = ["-S", "model=lstm", "-S", "schedule=step,cosine", "-S", "theory=none"]
    study.run("dvc", "exp", "run", "--queue", *SMOKE, *rows)
    study.run("dvc", "queue", "start", "-j", "2")
    queued = [line.split()[0] for line in study.run("dvc", "queue", "status").splitlines()[1:3]]
    for task in queued:
        study.run("dvc", "queue", "logs", "--follow", task)
    shown = json.loads(study.run("dvc", "exp", "show", "--json"))
    names = {
        experiment["name"]
        for revision in shown
        for experiment in revision.get("experiments") or []
        if experiment["executor"] is None or experiment["executor"]["state"] == "success"
    }
    client = study.client()
    experiment = client.get_experiment_by_name("lrstudy")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'", max_results=1000)
    mine = {run.data.tags["schedule"]: run.data.tags for run in runs if run.data.tags["model"] == "lstm"}
    assert {"step", "cosine"} <= set(mine)
    assert mine["step"]["dvc.experiment"] in names
    assert not (study.folder / ".dvc/tmp/exps/mlflow.db").exists()


def test_mlflow_runs_the_project(study):
    study.run(sys.executable, "-m", "lrstudy.compose", "data=sample", "preset=smoke")
    printed = study.run(
        "mlflow", "run", ".", "--env-manager", "local", "-e", "train",
        "-P", "model=lstm", "-P", "schedule=exponential",
        MLFLOW_TRACKING_URI=f"sqlite:///{study.folder / 'mlflow.db'}",
    )  # fmt: skip
    assert "succeeded" in printed
    assert study.json("artifacts/train/lstm/exponential/training.json")["settings"]["num_epochs"] == 1


@pytest.mark.skipif("LRSTUDY_DATA_MIRROR" not in os.environ, reason="LRSTUDY_DATA_MIRROR names no real data")
def test_a_slice_of_real_data_walks_through_all_stages(tmp_path):
    copy = Copy(tmp_path)
    copy.run("dvc", "exp", "run", "-S", "preset=smoke", "-S", "model=[resnet,lstm]", "-S", "schedule=cosine")
    comparison = copy.json("reports/comparison.json")
    for dataset in comparison["data"].values():
        assert dataset["num_examples"] == {"train": 180, "validation": 20, "test": 200}
        assert "sample" not in dataset["label"]
    title = (copy.folder / "reports/report.md").read_text().splitlines()[0]
    assert "sample" not in title
