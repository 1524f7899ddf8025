"""Advice from the ledger: known answers, how far it reaches, and what it would have cost."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from composed import composed_params
from filled_ledger import fill
from lrstudy.analysis.statistics import t_interval
from lrstudy.errors import StudyError
from lrstudy.recipe.config import check_params
from lrstudy.recommend import Row, Task, best_of, check, evidence, main, mistuned, recommend, tasks_of


def trial(base_lr: float, loss: float | None, metric: float = 0.0, confirmed: float | None = None) -> dict:
    confirmation = (
        None if confirmed is None else {"losses": [confirmed], "objective": confirmed, "metric": metric}
    )
    losses = [loss] if confirmed is None else [loss, confirmed]
    return {
        "values": {"base_lr": base_lr},
        "search": {"losses": [loss], "objective": loss, "metric": metric},
        "confirmation": confirmation,
        "objective": None if loss is None else float(np.mean(losses)),
    }


def row(name: str, values, trials=()) -> Row:
    return Row(name, {"base_lr": 0.1}, dict(enumerate(values, start=1)), list(trials))


def task(model: str = "resnet", num_epochs: int = 10, architecture: str | None = None, **rows) -> Task:
    made = {name: one if isinstance(one, Row) else row(name, one) for name, one in rows.items()}
    return Task(
        model, architecture or model, num_epochs, "CIFAR-10", "sgd, float32 on cpu", "test/accuracy", made
    )


STATIC = [0.70, 0.71, 0.72, 0.73, 0.70, 0.71, 0.72, 0.73]
BETTER = [value + 0.02 + 0.001 * (-1) ** place for place, value in enumerate(STATIC)]
WORSE = [value - 0.01 for value in STATIC]


def test_schedules_are_ranked_by_their_mean_with_paired_intervals():
    chosen = evidence([task(static=STATIC, cosine=BETTER, step=WORSE)], "resnet", 10)
    first, second, third = recommend(chosen)
    assert [one["schedule"] for one in (first, second, third)] == ["cosine", "static", "step"]
    assert first["expected"] == pytest.approx(0.735)
    assert first["difference"] == pytest.approx(0.02)
    gains = [a - b for a, b in zip(BETTER, STATIC, strict=True)]
    assert first["interval"] == pytest.approx(list(t_interval(gains)))
    assert (second["difference"], second["interval"]) == (None, None)
    assert "behind" not in first
    assert third["behind"][0] == pytest.approx(0.03)
    assert third["behind"][1] == pytest.approx(list(t_interval([gain + 0.01 for gain in gains])))
    assert first["values"] == {"base_lr": 0.1}


def test_between_two_lengths_both_answer_weighted_in_the_logarithm():
    short, long = (
        task(static=STATIC, cosine=BETTER),
        task(num_epochs=40, static=STATIC, cosine=[v + 0.06 for v in STATIC]),
    )
    chosen = evidence([short, long], "resnet", 20)
    assert [(one.num_epochs, weight) for one, weight in chosen] == [(10, 0.5), (40, pytest.approx(0.5))]
    cosine = recommend(chosen)[0]
    assert cosine["difference"] == pytest.approx((0.02 + 0.06) / 2)
    error = (
        0.5 * np.std([a - b for a, b in zip(BETTER, STATIC, strict=True)], ddof=1) / np.sqrt(8)
    )  # the other's is 0
    assert cosine["interval"][1] - cosine["interval"][0] == pytest.approx(2 * 2.364624 * error)  # t with 7
    assert [w for _, w in evidence([short, long], "resnet", 10)] == [1.0]
    assert [(t.num_epochs, w) for t, w in evidence([short, long], "resnet", 8)] == [(10, 1.0)]
    assert [(t.num_epochs, w) for t, w in evidence([short, long], "resnet", 60)] == [(40, 1.0)]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("resnet", 5), r"--epochs: 5 is beyond the evidence: resnet was trained for 10 epochs, which answers for 6\.67 to 15"),
        (("resnet", 16), "beyond the evidence"),
        (("vgg", 10), r"--model: 'vgg' is not a network of the ledger; choose one of lstm, resnet\. --like says .* The ledger has resnet, 10"),
        (("vgg", 10, "resne"), r"--like: 'resne' is not a network of the ledger; .* Did you mean 'resnet'"),
        (("resnet", 10, "lstm"), "--like: the ledger has resnet itself; leave --like out"),
        (("lstm", 3), r"lstm has not yet static and another schedule with 8 seeds each.*lstm, 3 epochs .*static 8, cosine 7 seeds"),
    ],
)  # fmt: skip
def test_what_the_evidence_does_not_reach_is_refused_with_what_there_is(asked, says):
    tasks = [task(static=STATIC, cosine=BETTER), task("lstm", 3, static=STATIC, cosine=BETTER[:7])]
    with pytest.raises(StudyError, match=says):
        evidence(tasks, *asked)


def test_a_network_that_is_not_there_is_answered_for_by_the_one_it_is_said_to_be_like():
    [(found, weight)] = evidence([task("resnet", static=STATIC, cosine=BETTER)], "vgg", 12, like="resnet")
    assert (found.model, weight) == ("resnet", 1.0)


TRIALS = [trial(0.1, 0.5, 0.80), trial(0.2, 0.4, 0.84), trial(0.4, 0.6, 0.78), trial(0.8, None, 0.0)]


def test_the_best_of_some_trials_by_hand():
    # in order of loss: 0.84, 0.80, 0.78, 0; of two: the best is in 3 of 6 pairs, the second in 2, the third in 1
    assert best_of(TRIALS, 1) == pytest.approx((0.84 + 0.80 + 0.78) / 4)
    assert best_of(TRIALS, 2) == pytest.approx((3 * 0.84 + 2 * 0.80 + 0.78) / 6)
    assert best_of(TRIALS, 4) == pytest.approx(0.84)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=9, unique=True))
def test_more_trials_never_have_a_higher_expected_loss(losses):
    trials = [trial(0.1, loss, -loss) for loss in losses]
    expected = [-best_of(trials, k) for k in range(1, len(losses) + 1)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(expected))
    assert (expected[0], expected[-1]) == (pytest.approx(np.mean(losses)), min(losses))


def test_a_budget_ranks_by_the_trials_and_says_what_it_cannot_tell():
    better = [
        trial(t["values"]["base_lr"], t["search"]["objective"], t["search"]["metric"] + 0.01) for t in TRIALS
    ]
    chosen = evidence(
        [task(static=row("static", STATIC, TRIALS), cosine=row("cosine", BETTER, better))], "resnet", 10
    )
    one, two, three = (recommend(chosen, k)[0] for k in (1, 2, 3))
    assert [one["schedule"], two["schedule"]] == ["cosine", "cosine"]
    assert two["difference"] == pytest.approx(0.01)
    assert (
        one["interval"][0] < one["difference"] < one["interval"][1]
    )  # wide: four trials, of which one diverged
    assert three["interval"] is None  # three of four
    with pytest.raises(
        StudyError, match="--trials: found 5; the searches behind this have 4 trials a schedule, so 1 to 4"
    ):
        recommend(chosen, 5)
    with pytest.raises(StudyError, match="nothing can be told of a budget here"):
        recommend(evidence([task(static=STATIC, cosine=BETTER)], "resnet", 10), 1)


def test_a_base_rate_that_is_off_by_two_costs_what_the_trials_say():
    """log loss rises by 0.2 a doubling away from 0.1, to both sides, with hardly any noise."""
    rates = [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
    steep = [trial(rate, 0.5 * np.exp(0.2 * abs(np.log2(rate / 0.1)) ** 2)) for rate in rates]
    found = mistuned(row("cosine", BETTER, steep))
    assert found["change"] == pytest.approx(np.expm1(0.2), abs=0.05)
    assert found["interval"][0] < np.expm1(0.2) < found["interval"][1]
    flat = mistuned(
        row("cosine", BETTER, [trial(rate, 0.5 + 1e-4 * place) for place, rate in enumerate(rates)])
    )
    assert abs(flat["change"]) < 0.01
    assert mistuned(row("cosine", BETTER, steep[:3])) is None  # too few
    assert mistuned(row("cosine", BETTER)) is None
    narrow = [trial(0.1 * (1 + place / 100), 0.5 + place / 100) for place in range(7)]
    assert mistuned(row("cosine", BETTER, narrow)) is None  # no rate that far away was tried


def test_the_check_leaves_each_network_out_and_says_what_advice_would_have_cost():
    """step is best in two networks, cosine in the third: whoever leaves that one out is told step."""
    up, far = [v + 0.02 for v in STATIC], [v + 0.03 for v in STATIC]
    tasks = [
        task("resnet", static=STATIC, cosine=up, step=far),
        task("resnet_20_epochs", 20, "resnet", static=STATIC, cosine=up, step=far),
        task("lstm", 3, static=STATIC, cosine=up, step=far),
        task("transformer", 3, static=STATIC, cosine=far, step=up, linear=STATIC),
    ]
    found = {one["task"].split(",")[0]: one for one in check(tasks)}
    assert found["transformer"]["recommended"] == "step"
    assert found["transformer"]["best"] == "cosine"
    assert found["transformer"]["regret"] == pytest.approx(1.0)
    assert found["transformer"]["regret_of_usual"] == 0
    assert found["transformer"]["gain"] == pytest.approx(-1.0)
    assert found["lstm"]["recommended"] == "step"  # by two networks' lengths against one
    assert (found["lstm"]["regret"], found["lstm"]["regret_of_usual"]) == (0, pytest.approx(1.0))
    assert all("resnet" not in name for name in found["resnet_20_epochs"]["from"])  # its other length neither
    with pytest.raises(
        StudyError, match="--check: takes two architectures with static and cosine at 8 seeds each"
    ):
        check(tasks[:2])


def test_tasks_are_what_the_ledger_has_of_each_network(tmp_path, monkeypatch, capsys):
    params = check_params(
        composed_params(
            "preset=smoke", "model=[lstm]", "schedule=[static,step]", "num_epochs.imdb=3", "tune.num_trials=2",
            "tune.confirm_seeds=[102]", "train.seeds=[1,2,3,4,5,6,7,8]",
        )
    )  # fmt: skip
    ledger = fill(params, tmp_path)
    [found] = tasks_of(ledger.records(), {"cifar10": "test/accuracy", "imdb": "test/f1_macro"})
    assert (found.model, found.architecture, found.num_epochs, found.metric) == (
        "lstm",
        "lstm",
        3,
        "test/f1_macro",
    )
    assert found.name == "lstm, 3 epochs of made-up texts, adamw, float32 on cpu"
    for name, one in found.rows.items():
        assert list(one.by_seed) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert len(one.trials) == 2
        assert sum(t["confirmation"] is not None for t in one.trials) == 1
        assert one.values in [t["values"] for t in one.trials]
        assert ("interval" in one.values, "step_size" in one.values) == (name == "step", False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(Path(__file__).parents[1] / "conf")  # says what decides
    monkeypatch.setattr(sys, "argv", ["recommend", "--model", "lstm", "--epochs", "4", "--trials", "1"])
    main()
    said = capsys.readouterr().out
    assert "evidence: lstm, 3 epochs of made-up texts" in said
    assert "distance: the length is off by a factor of 1.33" in said
    assert "validation/f1_macro of the best of 1 trials" in said
