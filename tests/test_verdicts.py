"""Simulated studies in which the truth is known: a reduced run of `make bench-verdicts`, and what it is made of."""

import json
import sys
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from composed import composed_params
from lrstudy.analysis.claim_specs import claim_specs
from lrstudy.design import GUESSED_SPREAD
from lrstudy.errors import StudyError
from lrstudy.recipe.config import check_params
from test_committed import ROOT, committed

sys.path.insert(0, str(ROOT / "benchmarks"))
import verdicts
from verdicts import Scenario, into_document, is_wrong, outcome, run, simulate, summary, tables

SEEDS = "train.seeds=[1,2,3,4,5,6,7,8,9,10]"
NEVER = 1e-4
"""The chance with which a bound here may fail, if all is as it should be."""


@pytest.fixture(scope="module")
def params():
    return check_params(
        composed_params(
            "preset=cpu", "model=[lstm,transformer]", "schedule=[static,cosine,static_monitored]", SEEDS
        )
    )


@pytest.fixture(scope="module")
def text(params) -> str:
    return params.model_dump_json(by_alias=True)


def test_without_an_effect_few_verdicts_are_wrong_and_with_one_they_come_as_designed(params, text):
    scenarios = [Scenario(0, "t3", 40), Scenario(2, "normal", 20)]
    outcomes = [outcome(text, one, number) for one in scenarios for number in range(one.studies)]
    rows = {
        (row["claim"], row["effect"]): row
        for row in summary(outcomes, scenarios, params)
        if not row["by_schedule"]
    }
    without, with_one = rows["dynamic_generalizes", "none"], rows["dynamic_generalizes", "1 point"]
    assert without["studies"] == 40
    assert without["wrong"] <= binom.isf(NEVER, 40, 0.05)
    monitored = rows["monitoring_mitigates_overfitting", "none"]
    assert monitored["wrong"] <= binom.isf(NEVER, 40, 0.05)
    # validation chooses the row, and its luck adds to what the design says; it takes nothing away
    said = with_one["design"]["all_models"]
    assert with_one["verdicts"]["supported"] >= binom.ppf(NEVER, 20, 0.97 * said)
    assert with_one["wrong"] == 0
    said = rows["monitoring_mitigates_overfitting", "1 spread"]["design"]["one_model"]
    decided = sum(rows["monitoring_mitigates_overfitting", "1 spread"]["for"].values())
    assert binom.ppf(NEVER, 40, said - 0.03) <= decided <= binom.isf(NEVER, 40, said + 0.03)


@pytest.mark.parametrize("tails", verdicts.TAILS)
def test_the_simulated_differences_have_the_spread_that_the_design_takes(text, tails):
    differences, correlations = [], []
    for number in range(150):
        cells = simulate(text, Scenario(0, tails, 150), number)["lstm"]
        one, other = (
            np.array([cells[row].seeds[str(s)].scores["last"].f1_macro for s in range(1, 11)])
            for row in ("static", "cosine")
        )
        differences.append(other - one)
        losses = [row["validation/loss"] for row in cells["static"].history if row["epoch"] == 4]
        correlations.append(np.corrcoef(one, losses)[0, 1])
    spread = np.std(np.concatenate(differences))
    # 1,500 differences: 2% is one standard error of a normal spread, and more of heavy tails
    assert spread == pytest.approx(GUESSED_SPREAD["text"], rel=0.08 if tails == "normal" else 0.3)
    assert abs(np.mean(differences)) < 5 * GUESSED_SPREAD["text"] / 1500**0.5
    assert np.mean(correlations) == pytest.approx(-0.55, abs=0.1)


def test_the_effect_is_that_of_the_rows_that_move_and_the_monitors_is_on_the_test_loss(text, monkeypatch):
    monkeypatch.setattr(verdicts, "LOSS_SPREAD", 1e-9)  # no noise: what is left is the effect
    monkeypatch.setattr(verdicts, "SPREAD", {"imdb": 1e-9})
    cells = simulate(text, Scenario(3, "normal", 1), 0)["lstm"]
    scores = {row: cell.seeds["1"].scores["last"].f1_macro for row, cell in cells.items()}
    assert scores["cosine"] - scores["static"] == pytest.approx(0.02)
    assert scores["static_monitored"] == scores["static"]
    monkeypatch.setattr(verdicts, "LOSS_SPREAD", 0.015)
    simulated = [simulate(text, Scenario(3, "normal", 1), number)["lstm"] for number in range(20)]
    losses = {
        row: np.mean(
            [cells[row].seeds[str(seed)].scores["last"].loss for cells in simulated for seed in range(1, 11)]
        )
        for row in cells
    }
    # two spreads of a paired difference, which is 1 to 1.3 of LOSS_SPREAD
    assert 1.9 * 0.015 < losses["static"] - losses["static_monitored"] < 2.8 * 0.015
    assert losses["cosine"] == pytest.approx(losses["static"], abs=0.006)


def test_what_is_wrong_depends_on_what_is_true():
    specs = {spec.id: spec for spec in claim_specs()}
    main, monitored = specs["dynamic_generalizes"], specs["monitoring_mitigates_overfitting"]
    none, half, two = (Scenario(effect, "normal", 1) for effect in (0, 1, 3))
    told = ("supported", "contradicted", "mixed", "equivalent", "undecided")
    assert [is_wrong(verdict, none, main) for verdict in told] == [True, True, True, False, False]
    assert [is_wrong(verdict, two, main) for verdict in told] == [False, True, True, True, False]
    assert [is_wrong(verdict, half, main) for verdict in told] == [False, True, True, True, False]
    assert [is_wrong(verdict, none, monitored) for verdict in told[:3]] == [True, True, True]


def test_an_interrupted_run_goes_on_and_ends_with_the_same(params, tmp_path):
    scenarios = [Scenario(0, "normal", 3), Scenario(1, "t3", 2)]
    whole = run(params, scenarios, tmp_path / "whole.jsonl", False, 1)
    assert [(one["scenario"], one["number"]) for one in whole] == [
        ([0, "normal"], 0), ([0, "normal"], 1), ([0, "normal"], 2), ([1, "t3"], 0), ([1, "t3"], 1)
    ]  # fmt: skip
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "half.jsonl").write_text("".join(lines[:3]))
    assert run(params, scenarios, tmp_path / "half.jsonl", True, 1) == whole
    other = params.model_copy(update={"preset": "other"})
    with pytest.raises(StudyError, match=r"half\.jsonl: of another study; leave --resume out"):
        run(other, scenarios, tmp_path / "half.jsonl", True, 1)


def test_the_documents_tables_are_those_of_the_committed_results():
    found = json.loads(committed("benchmarks/results/verdicts.json"))
    text = (ROOT / "docs/verdicts.md").read_text()
    assert into_document(text, found) == text
    assert committed("benchmarks/results/verdicts.md") == tables(found) + "\n"


def test_the_committed_results_say_that_verdicts_are_calibrated():
    """At most 5% wrong without an effect, give or take what so many studies cannot tell."""
    found = json.loads(committed("benchmarks/results/verdicts.json"))
    assert Counter(row["tails"] for row in found["scenarios"]).keys() == set(verdicts.TAILS)
    for row in found["scenarios"]:
        if row["effect"] == "none":
            assert row["wrong"] / row["judged"] <= 0.05, row["claim"]
            continue
        assert row["studies"] >= 200
        if row["tails"] == "normal":
            models, said = len(found["shape"]["models"]), row["design"]["one_model"]
            power = sum(row["for"].values()) / row["judged"] / models
            allowed = 4 * (said * (1 - said) / row["studies"] / models) ** 0.5 + 0.02
            assert power >= said - allowed, row["claim"]
            # Where validation chooses the row, luck adds up to a tenth, which the design does not count.
            chosen = row["claim"].startswith("dynamic_") and not row["by_schedule"]
            assert power <= said + allowed + 0.1 * chosen, row["claim"]
