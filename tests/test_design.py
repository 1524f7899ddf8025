"""What a study can decide before it trains: `python -m lrstudy.design`."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from composed import composed_params
from lrstudy import design, doctor
from lrstudy.analysis.looks import bounds
from lrstudy.analysis.statistics import chance_of_equivalence, chance_to_decide
from lrstudy.design import (
    GUESSED_SPREAD,
    Spread,
    claims_of,
    costs,
    last_look,
    more_seeds,
    paired_spreads,
    power,
    report,
    verdict,
)
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import CompareParams, Params, check_params
from test_committed import ROOT

ROWS = "schedule=[static,step,exponential,cosine,static_monitored]"
TEN = "train.seeds=[1,2,3,4,5,6,7,8,9,10]"


def params_of(*overrides: str) -> Params:
    return check_params(composed_params(*overrides))


@pytest.fixture(scope="module")
def ten_seeds() -> Params:
    return params_of("preset=cpu", ROWS, TEN)


def with_(params: Params, section: str, **changes) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=changes)})


def by_id(params: Params) -> dict[str, design.PlannedClaim]:
    return {claim.spec.id: claim for claim in claims_of(params)}


def settings(*looks: int) -> CompareParams:
    return CompareParams(
        reference="static",
        looks=list(looks),
        confidence=0.95,
        num_resamples=100,
        across_dtypes=False,
        targets={},
    )


# The first line


def test_ten_seeds_of_the_papers_rows_decide_the_main_claim(ten_seeds):
    decides, line = verdict(ten_seeds)
    assert decides
    assert line.startswith("This design can decide ")
    assert "dynamic_generalizes" in line
    assert "late_decay_generalizes" not in line


def test_seven_seeds_decide_nothing_whatever_rows_there_are(ten_seeds):
    """The committed study of 0.1.0 had five seeds, and said so after two hours."""
    decides, line = verdict(with_(ten_seeds, "train", seeds=[1, 2, 3, 4, 5, 6, 7]))
    assert not decides
    assert line.startswith("THIS DESIGN CANNOT DECIDE ANYTHING: 7 seeds, and a test needs 8; ")
    assert "-S 'train.seeds=[1,2,3,4,5,6,7,8,9,10]' makes it 10" in line
    assert verdict(with_(ten_seeds, "train", seeds=[1, 2, 3, 4, 5, 6, 7, 8]))[0]


def test_the_change_that_is_named_makes_the_design_decide():
    smoke = params_of("preset=smoke")
    decides, line = verdict(smoke)
    assert not decides
    assert "1 seed, and a test needs 8" in line
    assert verdict(params_of("preset=smoke", line.split("'")[1]))[0]


def test_seeds_that_tuning_uses_are_not_proposed(ten_seeds):
    tuned_with_2 = with_(with_(ten_seeds, "tune", seeds=[2], confirm_seeds=[4]), "train", seeds=[1])
    assert more_seeds(tuned_with_2, 5) == [1, 3, 5, 6, 7]


def test_rows_that_no_claim_compares_decide_nothing():
    decides, line = verdict(params_of("preset=cpu", "schedule=[static]", "num_epochs.cifar10=10", TEN))
    assert not decides
    assert "no claim compares rows that are here (static)" in line
    assert "-S 'schedule=[static,step,exponential,cosine]'" in line


def test_a_look_too_early_for_any_p_is_told(ten_seeds):
    # at 8 of 80 planned seeds O'Brien and Fleming's bound is far below 2 / 2^8
    early = with_(ten_seeds, "compare", looks=[8, 80])
    decides, line = verdict(early)
    assert not decides
    assert "at the look at 8 a p decides that is at most" in line
    assert "the plan goes to 80 seeds" in line
    decides, line = verdict(with_(ten_seeds, "compare", looks=[12, 20]))
    assert not decides
    assert "10 seeds, and the first look is at 12" in line


def test_of_the_sample_the_line_says_that_it_says_nothing():
    assert "which says nothing of CIFAR-10 and IMDB" in verdict(params_of("data=sample", "preset=cpu"))[1]


# Looks, tests, power


def test_the_look_is_the_last_that_the_seeds_reach():
    assert last_look(settings(), 10) == design.Look(10, pytest.approx(0.05), pytest.approx(0.05))
    looks = (8, 12, 16, 20)
    at_14 = last_look(settings(*looks), 14)
    assert at_14.num_seeds == 12
    assert at_14.bound == bounds(looks, pytest.approx(0.05).expected)[1]
    assert at_14.one_sided_bound == bounds(looks, 1 - 0.95, sides=1)[1]
    assert last_look(settings(*looks), 30).num_seeds == 20


def test_each_claim_has_the_tests_that_its_rows_allow(ten_seeds):
    found = by_id(ten_seeds)
    main = found["dynamic_generalizes"]
    assert [(test.model, test.rows, test.control) for test in main.tests] == [
        (model, ["step", "exponential", "cosine"], ["static"]) for model in ("resnet", "lstm", "transformer")
    ]
    monitored = found["monitoring_mitigates_overfitting"].tests[0]
    assert (monitored.rows, monitored.control) == (["static_monitored"], ["static"])
    for name in ("late_decay_generalizes", "windows_equivalent", "static_overfits"):
        assert found[name].tests == []
        assert not found[name].decidable


def test_overfitting_needs_more_than_ten_epochs():
    # 10 of 20 epochs: a share of one half by chance, so 10 of 10 runs have 2 / 2^10
    found = by_id(params_of("model=resnet", "schedule=[static]", "num_epochs.cifar10=20", TEN))
    overfits = found["static_overfits"]
    assert overfits.least == 0.5
    assert overfits.smallest_p == 2 / 2**10
    assert overfits.decidable
    # 9 or 10 of 10 decide
    assert power(overfits, 0.007)["80% of runs"] == pytest.approx(10 * 0.8**9 * 0.2 + 0.8**10)
    # of 11 epochs 10 have 91% of the lowest losses by chance: no number of 10 runs decides
    short = by_id(params_of("model=resnet", "schedule=[static]", "num_epochs.cifar10=11", TEN))
    assert not short["static_overfits"].decidable


def test_windows_are_pairs_whose_power_is_that_of_equivalence():
    windows = by_id(params_of("model=lstm", "schedule=[triangular,welch,hann]", TEN))["windows_equivalent"]
    assert len(windows.tests) == 3
    assert windows.smallest_p == 1 / 2**10  # one-sided
    assert power(windows, 0.006) == {"equivalence": chance_of_equivalence(0.0, 0.006, 10, 1 - 0.95, 0.005)}


def test_the_power_is_that_of_the_verdicts_own_test(ten_seeds):
    found = power(by_id(ten_seeds)["dynamic_generalizes"], 0.007)
    assert list(found) == ["0.5 points", "1 point", "2 points", "equivalence"]
    assert found["1 point"] == chance_to_decide(0.01, 0.007, 10, 1 - 0.95)
    # the design of the science review: 1.34 spreads at 10 seeds, nearly certain
    assert found["1 point"] > 0.95
    spreads = power(by_id(ten_seeds)["monitoring_mitigates_overfitting"], 0.007)
    assert spreads["1 spread"] == chance_to_decide(1.0, 1.0, 10, 1 - 0.95)


# Spread


def test_the_guess_is_what_the_old_study_had():
    study = json.loads((ROOT / "tests/data/comparison_73cd819.json").read_text())
    variances = {"cifar10": [], "imdb": []}
    for schedules in study["cells"].values():
        base = schedules["static"]["metrics"]["test/accuracy"]["values"]
        for name, cell in schedules.items():
            # transformer-step and the IMDB's exponential never changed or hardly changed their rate
            if name in ("step", "cosine") and not (
                name == "step" and cell["dataset"] == "imdb" and cell["lr_range"][0] == cell["lr_range"][1]
            ):
                values = cell["metrics"]["test/accuracy"]["values"]
                variances[cell["dataset"]].append(np.var([values[s] - base[s] for s in base], ddof=1))
    found = {dataset: math.sqrt(np.mean(values)) for dataset, values in variances.items()}
    assert found["imdb"] == pytest.approx(GUESSED_SPREAD["text"], abs=0.0005)
    assert found["cifar10"] == pytest.approx(GUESSED_SPREAD["image"], abs=0.0015)


def a_record(params: Params, cell: str, seed: int, score: float, **changes) -> SimpleNamespace:
    listed = params.cells[cell]
    wanted = make_cell(params, listed.model, listed.schedule).settings() | {
        "seed": seed,
        "training_share": 1.0,
    }
    test = SimpleNamespace(last=SimpleNamespace(accuracy=score, f1_macro=score - 0.1))
    return SimpleNamespace(
        settings=wanted | changes,
        status="finished",
        dtype="float32",
        data=SimpleNamespace(fingerprint="c1f4"),
        test=test,
        measured=test,
    )


def test_the_spread_is_pooled_over_the_ledgers_pairs(ten_seeds):
    static, step, cosine = (
        [0.70, 0.71, 0.72, 0.73],
        [0.71, 0.71, 0.74, 0.73],  # +0.01, 0, +0.02, 0: variance 0.000275 / 3
        [0.75, 0.76, 0.77],  # the same difference three times
    )
    records = [
        a_record(ten_seeds, f"resnet-{row}", seed, score)
        for row, scores in (("static", static), ("step", step), ("cosine", cosine))
        for seed, score in enumerate(scores, 1)
    ]
    found = paired_spreads(ten_seeds, records)
    assert found["resnet"].value == pytest.approx(math.sqrt(0.000275 / (3 + 2)))
    assert (found["resnet"].num_differences, found["resnet"].source) == (7, "7 differences in the ledger")
    assert found["lstm"] == Spread(GUESSED_SPREAD["text"])
    assert found["lstm"].source == "a guess"
    # of another length they say nothing of this one
    other = [a_record(ten_seeds, "resnet-static", 1, 0.7, num_epochs=20), *records[4:]]
    assert paired_spreads(ten_seeds, other)["resnet"] == Spread(GUESSED_SPREAD["image"])


# Print, cost, and where else it is told


def test_a_search_that_is_not_finished_counts_with_all_it_may_take(ten_seeds, tmp_path):
    # 4 trials, 2 of them confirmed, and 10 seeds, five times
    small = with_(ten_seeds, "tune", num_trials=4, finalists=2, seeds=[101], confirm_seeds=[102])
    small = small.model_copy(update={"cells": {n: c for n, c in small.cells.items() if c.model == "lstm"}})
    found = costs(small, [], tmp_path)
    cost = found["lstm"]
    assert (cost["needed"], cost["in_ledger"], cost["missing"]) == (80, 0, 80)
    without = with_(small, "tune", num_trials=0)
    assert costs(without, [], tmp_path)["lstm"]["needed"] == 50


def of_one_model(params: Params, model: str) -> Params:
    cells = {name: cell for name, cell in params.cells.items() if cell.model == model}
    return with_(params, "tune", num_trials=0).model_copy(update={"cells": cells})


def test_without_trainings_in_the_ledger_the_cost_is_a_guess_that_says_so(ten_seeds, tmp_path):
    # 5 rows x 10 seeds x 4 epochs x 0.75 minutes, and x 10 epochs x 0.91 minutes
    for model, hours in (("lstm", 50 * 4 * 0.75 / 60), ("resnet", 50 * 10 * 0.91 / 60)):
        small = of_one_model(ten_seeds, model)
        found = costs(small, [], tmp_path)
        assert found[model] == {
            "needed": 50, "in_ledger": 0, "missing": 50, "core_hours": pytest.approx(hours), "guessed": True
        }  # fmt: skip
        printed = report(design.design(small, paired_spreads(small, []), found))
        assert f"50           0        50   {hours:.2g}, by a guess" in printed
        assert "  a guess: the ledger has no training of this network on this data yet" in printed


@pytest.mark.parametrize(
    "overrides",
    [
        ("preset=cpu", "model=resnet20"),  # a network of another size
        ("preset=cpu", "model=lstm", "data.max_length=400"),
        ("preset=cpu", "model=lstm", "data.limit=1000"),
        ("preset=cpu", "model=lstm", "data=sample"),
        ("preset=cpu", "model=lstm", "train.precision=bfloat16"),
    ],
)
def test_what_was_not_measured_is_not_guessed(overrides, tmp_path):
    params = params_of(*overrides, "schedule=[static,cosine]", "tune.num_trials=0", TEN)
    found = costs(params, [], tmp_path)
    [row] = found.values()
    assert (row["core_hours"], row["guessed"]) == (None, False)
    assert "unknown: the ledger has no training" in report(
        design.design(params, paired_spreads(params, []), found)
    )


def test_what_is_printed_begins_with_the_verdict(ten_seeds):
    cost = {"resnet": {"needed": 80, "in_ledger": 20, "missing": 60, "core_hours": 5.25, "guessed": False}}
    spreads = dict.fromkeys(("resnet", "lstm", "transformer"), Spread(0.005, 40))
    found = design.design(ten_seeds, spreads, cost)
    lines = report(found).splitlines()
    assert lines[0] == verdict(ten_seeds)[1]
    assert "  resnet            0.50 points, 40 differences in the ledger" in lines
    assert "  resnet                  80          20        60   5.2" in lines
    json.dumps(found)  # plain values


def test_the_command_ends_with_1_where_nothing_can_be_decided(tmp_path, monkeypatch, capsys):
    def written(*overrides: str) -> None:
        chosen = ("preset=smoke", "model=lstm", "tune.num_trials=0", *overrides)
        (tmp_path / "params.yaml").write_text(json.dumps(composed_params(*chosen)))

    written("schedule=[static]")
    command = [sys.executable, "-m", "lrstudy.design"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout[:18]) == (1, "THIS DESIGN CANNOT"), done.stderr

    written("schedule=[static,cosine]", TEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["design"])
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(SystemExit) as ended:
        design.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("This design")


@pytest.mark.parametrize(("seeds", "status"), [(TEN, "ok"), ("train.seeds=[1,2,3,4,5]", "note")])
def test_the_doctor_tells_a_hopeless_design(tmp_path, seeds, status):
    (tmp_path / "params.yaml").write_text(json.dumps(composed_params("preset=cpu", seeds)))
    [finding] = doctor.check_design(tmp_path)
    assert finding.status == status
    assert ("CANNOT DECIDE ANYTHING" in finding.found) == (status == "note")
    assert bool(finding.fix) == (status == "note")
