"""Stages that do no training run without torch, MLflow and Optuna: importing those takes longer than they do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from composed import composed_params
from filled_ledger import DATA, fill
from known_study import timing
from lrstudy.files import write_json
from lrstudy.recipe.config import check_params

SOURCE = Path(__file__).parents[1] / "src"
STAGES = (
    "code", "compare", "download", "evaluate", "late_decay", "level_sets", "outside", "preprocess", "publish",
    "references", "report", "timing", "train", "tune",
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


@pytest.mark.slow
def test_comparing_and_reporting_import_neither_torch_nor_mlflow(tmp_path):
    """From a ledger alone, without data; what the search found takes Optuna to tell, so nothing is searched here."""
    composed = composed_params(
        "preset=smoke", "model=[lstm]", "schedule=[static,cosine]", "tune.num_trials=0"
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    fill(check_params(composed), tmp_path, lambda need: (0.5, 0.86))
    for name, drawn in (("late_decay", ["toy.svg"]), ("level_sets", [])):
        for folder in ("reports", f"artifacts/theory/{name}"):
            write_json(
                tmp_path / folder / f"{name}.json", {"claims": [], "models": {"lstm": {"figures": drawn}}}
            )
        for file in drawn:
            (tmp_path / "artifacts/theory" / name / file).write_text("<svg/>")
    write_json(tmp_path / "reports/timing/lstm.json", timing("lstm") | {"data": DATA["imdb"]})
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
