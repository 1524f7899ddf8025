"""Data sets that the project does not know, from an empty folder to the report, through the real command lines."""

import re
from pathlib import Path

import pytest
import yaml

from test_end_to_end import Copy

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[1] / "docs/data.md"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    return Copy(tmp_path_factory.mktemp("own"))


def test_the_example_of_the_page_from_an_empty_folder_to_the_report(copy, tmp_path_factory):
    """Pictures of 48 x 40 pixels in unbalanced classes."""
    mine = tmp_path_factory.mktemp("home") / "mine"
    section = PAGE.read_text().partition("## Your own data\n")[2].partition("\n## ")[0]
    [commands] = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    before = copy.run("git", "status", "--short", "--", "src", "conf", "hydra_plugins", "dvc.yaml")
    copy.run("bash", "-euc", commands.replace("~/mine", str(mine)))
    assert copy.run("git", "status", "--short", "--", "src", "conf", "hydra_plugins", "dvc.yaml") == before

    meta = copy.json("data/processed/pets/meta.json")
    assert (meta["image_size"], meta["in_channels"], meta["label"]) == ([48, 40], 3, "Pets, 200 per split")
    assert meta["class_counts"]["test"] == [100, 30, 20]
    comparison = copy.json("reports/comparison.json")
    assert comparison["protocol"]["headline"] == {"pets": "test/f1_macro"}
    assert comparison["protocol"]["test_classes"] == {"pets": {"cat": 100, "dog": 30, "owl": 20}}
    assert set(comparison["cells"]["pets"]) == {"static", "cosine"}
    for cell in comparison["cells"]["pets"].values():
        assert 0 <= cell["metrics"]["test/f1_macro"]["mean"] <= 1
    report = (copy.folder / "reports/report.md").read_text()
    assert "pets on Pets" in report
    assert (
        "The classes of Pets, 200 per split are unbalanced: of 150 test examples cat has 100 and owl 20. So macro "
        "F1 decides"
    ) in report
    assert copy.json("reports/references/pets.json")["metrics"]["test/f1_macro"] > 0.5
    # what is published takes pictures of that size
    served = yaml.safe_load(next(copy.folder.rglob("MLmodel")).read_text())
    assert "[-1, 48, 40, 3]" in served["signature"]["inputs"]

    assert (
        copy.stages_run(copy.run("dvc", "repro", "download@pets", "preprocess@pets", LRSTUDY_CONF=str(mine)))
        == set()
    )
    (mine / "pictures/train/owl/040.png").write_bytes((mine / "pictures/train/owl/000.png").read_bytes())
    again = copy.run("dvc", "repro", "preprocess@pets", LRSTUDY_CONF=str(mine))
    assert {"download@pets", "preprocess@pets"} <= copy.stages_run(again)


def test_ag_news_in_its_layout_to_the_report(copy):
    copy.run(
        "dvc", "exp", "run", "-S", "data=sample", "-S", "preset=smoke", "-S", "theory=none", "-S", "model=[lstm]",
        "-S", "model.lstm.dataset=ag_news", "-S", "schedule=[static,step]",
    )  # fmt: skip
    meta = copy.json("data/processed/ag_news/meta.json")
    assert (meta["num_classes"], meta["class_names"][3]) == (4, "Sci/Tech")
    comparison = copy.json("reports/comparison.json")
    assert comparison["protocol"]["headline"] == {"ag_news": "test/accuracy"}
    assert comparison["protocol"]["test_classes"] == {}
    assert (
        "lstm on generated topics (sample), 200 per split" in (copy.folder / "reports/report.md").read_text()
    )
