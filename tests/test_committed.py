"""The study that the repository holds: its report is what its numbers give, and the README says what it says."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lrstudy.analysis.records import Comparison
from lrstudy.docs import DOCUMENTS, PARTS

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
    assert done.stderr.startswith("error: reports/comparison.json: ")
    assert "not what this version of the stage writes" in done.stderr


def test_the_documents_say_what_the_committed_numbers_say():
    comparison = Comparison.model_validate_json(committed("reports/comparison.json"))
    assert comparison.protocol.source == "hub"
    # How many trainings the ledger has may be ahead of the report: whoever adds some need not write it.
    parts = {name: part for name, part in PARTS.items() if name != "trainings"}
    for path in map(str, DOCUMENTS):
        text = committed(path)
        for name, part in parts.items():
            for found in re.findall(
                rf"<!-- made by make docs: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL
            ):
                assert found == f"\n{part(comparison, [])}\n\n", (
                    f"{path}: {name}: `make docs` makes another one"
                )
    assert "(reports/figures/differences.svg)" in committed("README.md")
