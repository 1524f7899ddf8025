"""The study that the repository holds: its report is what its numbers give, and the README says what it says."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def committed(file: str) -> str:
    """A file as git has it: a run on the sample may have written over the one in the folder."""
    shown = subprocess.run(["git", "show", f":{file}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return shown.stdout


def is_committed(file: str) -> bool:
    """Whether git has the file."""
    shown = ["git", "ls-files", "--error-unmatch", file]
    return subprocess.run(shown, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_committed_report_is_rendered_from_the_committed_numbers_without_any_data(tmp_path):
    if "looks" not in json.loads(committed("reports/comparison.json"))["protocol"]:
        pytest.skip("the committed study is of an earlier version, which rendered it")
    listed = subprocess.run(
        ["git", "ls-files", "reports"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    given = {file for file in listed if file.endswith((".json", ".csv")) or "/late_decay_" in file}
    given |= {file for file in listed if "/level_sets_" in file}
    for file in given:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(committed(file))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    subprocess.run(
        [sys.executable, "-m", "lrstudy.stages.report"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=300,
    )
    rendered = {
        str(file.relative_to(tmp_path)) for file in (tmp_path / "reports").rglob("*") if file.is_file()
    }
    page = "reports/report.html"  # an output of DVC's: over 1 MB, and made from the rest
    assert rendered == {*listed, page} - {"reports/.gitignore"}
    assert {page, "reports/report.md", "reports/figures/differences.svg"} <= rendered - given
    if is_committed("dvc.lock"):  # it is not while the study that is to come has not run
        lock = yaml.safe_load(committed("dvc.lock"))
        (output,) = [out for out in lock["stages"]["report"]["outs"] if out["path"] == page]
        assert hashlib.md5((tmp_path / page).read_bytes()).hexdigest() == output["md5"]
    for file in rendered - given - {page}:
        assert (tmp_path / file).read_text() == committed(file), f"{file}: make report writes another one"


@pytest.mark.slow
def test_a_report_of_another_version_is_refused_in_words(tmp_path):
    """The committed study is of 0.1.0 until the one that is to come has run by this version's protocol."""
    if "looks" in json.loads(committed("reports/comparison.json"))["protocol"]:
        pytest.skip("the committed study is of this version: rendered above")
    for file in ("reports/comparison.json", "reports/curves.csv"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(committed(file))
    done = subprocess.run(
        [sys.executable, "-m", "lrstudy.stages.report"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: reports/comparison.json: has no ")
    assert "another version wrote it" in done.stderr


def readme_row(model: str, schedule: str, found: dict) -> str:
    """A row of the README's table: the headline metric in percent, its difference to static in points."""
    row = f"| {model} | {schedule} | {100 * found['mean']:.2f} ± {100 * found['spread']:.2f} |"
    if "difference" not in found:
        return f"{row} |"
    low, high = found["difference"]["interval"]
    return f"{row} {100 * found['difference']['mean']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) |"


def test_the_readme_has_the_committed_results():
    comparison = json.loads(committed("reports/comparison.json"))
    assert comparison["protocol"]["source"] == "hub"
    assert comparison["missing"] == []
    readme = committed("README.md")
    for model, schedules in comparison["cells"].items():
        for schedule, cell in schedules.items():
            found = cell["metrics"][comparison["protocol"]["headline"][cell["dataset"]]]
            assert readme_row(model, schedule, found) in readme
    assert "(reports/figures/differences.svg)" in readme
    assert all(data["label"] in readme for data in comparison["data"].values())
