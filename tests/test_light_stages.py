"""Stages that do no training run without torch, MLflow and Optuna: importing those takes longer than they do."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from composed import composed_params
from known_study import REFERENCES, cells, timing

SOURCE = Path(__file__).parents[1] / "src"
STAGES = (
    "code", "compare", "download", "evaluate", "late_decay", "level_sets", "preprocess", "publish", "references",
    "report", "timing", "train", "tune",
)  # fmt: skip

HEAVY = ("torch", "mlflow", "optuna", "ray")

# Each stage in turn in one process, which prints the heavy libraries that it has in the end.
RUN = f"""
import importlib, sys
for line in sys.argv[1:]:
    stage, *arguments = line.split()
    sys.argv = [stage, *arguments]
    importlib.import_module(f"lrstudy.stages.{{stage}}").main()
print("imported", *(name for name in {HEAVY} if name in sys.modules))
"""


def run_light(folder: Path, *lines: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "LRSTUDY_"))}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *lines], cwd=folder, env=environment | {"PYTHONPATH": str(SOURCE)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"


def test_no_stage_imports_a_heavy_library_before_it_knows_what_to_do():
    """A wrong word on the command line must not cost seconds; the heavy ones hand over to a warm process."""
    heavy = ("torch", "mlflow", "optuna", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib")
    code = f"import sys, {', '.join(f'lrstudy.stages.{stage}' for stage in STAGES)}\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def write_finished_cells(folder: Path) -> None:
    """The known study as its stages leave it, with the params.yaml that belongs to it."""
    study = cells()
    schedules = list(study["resnet"])
    params = composed_params(
        f"model=[{','.join(study)}]", f"schedule=[{','.join(schedules)}]", "train.seeds=[1,2,3]"
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for model, row in study.items():
        for schedule, cell in row.items():
            history, tuning = cell.pop("history"), cell.pop("tuning")
            for kind, name, content in (
                ("evaluate", "metrics.json", json.dumps(cell)),
                ("tuned", "best.json", json.dumps(tuning)),
                ("train", "history.csv", ""),
            ):
                path = folder / "artifacts" / kind / model / schedule / name
                path.parent.mkdir(parents=True)
                path.write_text(content)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(history[0]))
                writer.writeheader()
                writer.writerows(history)
    (folder / "artifacts/references").mkdir()
    for dataset, reference in REFERENCES.items():
        (folder / f"artifacts/references/{dataset}.json").write_text(json.dumps(reference))
    (folder / "reports/timing").mkdir(parents=True)
    for model in study:
        (folder / f"reports/timing/{model}.json").write_text(json.dumps(timing(model)))
    for name, drawn in (("late_decay", ["toy.svg"]), ("level_sets", [])):
        (folder / "artifacts/theory" / name).mkdir(parents=True)
        found = {"claims": [], "models": {"lstm": {"figures": drawn}}}
        (folder / f"artifacts/theory/{name}.json").write_text(json.dumps(found))
        for file in drawn:
            (folder / "artifacts/theory" / name / file).write_text("<svg/>")


@pytest.mark.slow
def test_comparing_and_reporting_import_neither_torch_nor_mlflow(tmp_path):
    write_finished_cells(tmp_path)
    run_light(tmp_path, "compare", "report")
    comparison = json.loads((tmp_path / "reports/comparison.json").read_text())
    assert comparison["missing"] == []
    assert comparison["cells"]["lstm"]["cosine"]["metrics"]["test/accuracy"]["mean"] == pytest.approx(0.86)
    assert comparison["timing"]["lstm"]["schedules"]["cosine"]["ratio"] == pytest.approx(1.1)
    assert list((tmp_path / "reports/figures").glob("*.svg"))
    assert (tmp_path / "reports/figures/late_decay_toy.svg").read_text() == "<svg/>"


@pytest.mark.slow
def test_bringing_and_preparing_data_imports_neither_torch_nor_mlflow(tmp_path):
    params = composed_params("data=sample", "preset=smoke")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    run_light(
        tmp_path, *(f"{stage} {data}" for data in ("cifar10", "imdb") for stage in ("download", "preprocess"))
    )
    for data in ("cifar10", "imdb"):
        assert {p.name for p in (tmp_path / "data/processed" / data).iterdir()} >= {
            "train.safetensors",
            "meta.json",
        }
