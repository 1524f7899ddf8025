"""docs/ledger.md recomputes the report's main table and main claim, in thirty lines without this package's code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from composed import composed_params
from filled_ledger import fill
from lrstudy.ledger.__main__ import main as ledger_command
from lrstudy.recipe.config import check_params
from lrstudy.stages import compare

DOCS = Path(__file__).parents[1] / "docs/ledger.md"


def outcome(need) -> tuple[float, float]:
    """Validation prefers step, cosine is far better in the LSTM and equivalent in the Transformer; ties abound."""
    settings = need.task["settings"]
    schedule, model = settings["schedule"]["function"], settings["model"]["architecture"]
    noise = np.random.default_rng([settings["seed"], len(schedule)]).normal()
    shared = np.random.default_rng(settings["seed"]).normal()
    better = {
        "static": 0.0,
        "cosine": 0.05 if model == "lstm" else 0.001,
        "step": 0.01 if model == "lstm" else 0.0,
    }[schedule]
    loss = {"static": 0.6, "cosine": 0.4 if model == "transformer" else 0.55, "step": 0.5}[schedule]
    return loss + 0.01 * noise, 0.8 + better + 0.01 * shared + 0.002 * noise


@pytest.fixture(scope="module")
def example() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return found


def test_the_example_gives_the_table_and_every_p_of_the_main_claim(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    params = composed_params(
        "preset=smoke", "theory=none", "model=[lstm,transformer]", "schedule=[static,step,cosine]",
        "tune.num_trials=0", "train.seeds=[1,2,3,4,5,6,7,8,9,10]",
    )  # fmt: skip
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    fill(check_params(params), tmp_path, outcome)
    compare.main()
    monkeypatch.setattr("sys.argv", ["ledger", "export", "trainings.parquet"])
    assert ledger_command() in (0, None)
    names: dict = {}
    exec(compile(example, str(DOCS), "exec"), names)
    table, claim = names["table"], names["claim"]

    found = json.loads(Path("reports/comparison.json").read_text())
    for model, schedules in found["cells"].items():
        for schedule, cell in schedules.items():
            metric, row = cell["metrics"]["test/f1_macro"], table.loc[model, schedule]
            assert row["mean"] == pytest.approx(100 * metric["mean"])
            assert row["std"] == pytest.approx(100 * metric["spread"])
            assert row["count"] == 10
            if schedule != "static":
                difference = metric["difference"]
                assert row["difference_mean"] == pytest.approx(100 * difference["mean"])
                assert row["difference_p"] == pytest.approx(difference["p"])
                assert row["p_holm"] == pytest.approx(difference["p_holm"])
    (main,) = (one for one in found["claims"] if one["id"] == "dynamic_generalizes")
    assert [part["rows"][0] for part in main["parts"]] == ["step", "cosine"]  # which validation chose
    for part in main["parts"]:
        row = claim.loc[part["model"]]
        assert row["schedule"] == part["rows"][0]
        assert row["difference_mean"] == pytest.approx(100 * part["effect"])
        for mine, theirs in (("difference_p", "p"), ("p_holm", "p_holm"), ("p_within", "p_within")):
            assert row[mine] == pytest.approx(part[theirs]), (part["model"], theirs)
    assert min(claim["difference_p"]) < 0.05 < max(claim["difference_p"])  # one decides, the other does not
    assert min(claim["p_within"]) < 0.05


def test_the_example_has_thirty_lines(example):
    lines = [line for line in example.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 30
    assert "lrstudy" not in example
