"""What decides where classes differ in size, and that the report says so."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import known_study
from known_study import SETTINGS, cells, compare_as_written, comparison, measured, read, written
from lrstudy.analysis.comparison import compare
from lrstudy.analysis.time_to_target import time_to_target, validated
from lrstudy.ledger.record import Scores
from lrstudy.report.findings import text_table
from lrstudy.report.render import render_markdown
from lrstudy.training.measures import balanced_accuracy

labels = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=40)
)


def test_the_balanced_accuracy_is_worked_by_hand():
    assert balanced_accuracy([[8, 2], [1, 3]]) == (0.8 + 0.75) / 2
    assert balanced_accuracy([[90, 0, 0], [6, 0, 0], [4, 0, 0]]) == pytest.approx(1 / 3)  # always the largest
    assert balanced_accuracy([[3, 1], [0, 0]]) == 0.75  # no example of the second


@given(labels)
def test_the_balanced_accuracy_is_scikit_learns(pairs):
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix

    true, predicted = np.array(pairs).T
    # a class that is predicted and not there: scikit-learn warns, and leaves it out as well
    if set(predicted) <= set(true):
        expected = balanced_accuracy_score(true, predicted)
        assert balanced_accuracy(confusion_matrix(true, predicted).tolist()) == pytest.approx(expected)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.data())
def test_how_many_examples_a_class_has_does_not_matter(sizes, data):
    shares = [data.draw(st.integers(0, size)) for size in sizes]
    confusion = np.zeros((len(sizes), len(sizes)), int)
    for row, (size, right) in enumerate(zip(sizes, shares, strict=True)):
        confusion[row, row], confusion[row, row - 1] = right, size - right
    tripled = confusion * np.array([3] + [1] * (len(sizes) - 1))[:, None]
    assert balanced_accuracy(tripled) == pytest.approx(balanced_accuracy(confusion))


def test_a_record_knows_its_balanced_accuracy():
    scores = {"accuracy": 11 / 14, "f1": 2 * 3 / 9, "f1_macro": (16 / 19 + 6 / 9) / 2, "loss": 0.5}
    assert Scores(**scores, confusion=[[8, 2], [1, 3]]).balanced_accuracy == (0.8 + 0.75) / 2
    assert Scores(**dict.fromkeys(scores), confusion=None).balanced_accuracy is None


@pytest.fixture
def unbalanced(monkeypatch) -> dict:
    """The known study, whose images have three times as many examples of the first class."""
    monkeypatch.setitem(known_study.HEADLINE, "cifar10", "test/balanced_accuracy")
    references = known_study.REFERENCES["cifar10"]
    metrics = references["metrics"] | {"test/balanced_accuracy": 0.3125}
    monkeypatch.setitem(known_study.REFERENCES, "cifar10", references | {"metrics": metrics})
    study = cells()
    for number, cell in enumerate(study["resnet"].values()):
        for seed, scores in cell["scores"].items():
            for name, found in scores.items():
                if found["confusion"] is not None:
                    scores[name] = found | {"confusion": [[30 - number, number], [int(seed), 10 - int(seed)]]}
    return study


def test_the_headline_that_conf_names_is_compared_and_tested(unbalanced):
    found = compare_as_written(unbalanced)
    cell = found["cells"]["resnet"]["exponential"]
    place = list(unbalanced["resnet"]).index("exponential")
    metric = cell["metrics"]["test/balanced_accuracy"]
    for seed in "123":
        expected = ((30 - place) / 30 + (10 - int(seed)) / 10) / 2
        assert metric["values"][seed] == pytest.approx(expected)
    # the same second class for every schedule: the differences are those of the first alone
    first = list(unbalanced["resnet"]).index("static")
    assert metric["difference"]["mean"] == pytest.approx((first - place) / 60)
    assert {"p", "p_holm"} <= metric["difference"].keys()
    assert found["models"]["resnet"]["metric"] == "test/balanced_accuracy"
    assert "test_ema/balanced_accuracy" in cell["metrics"]
    assert not [name for name in found["cells"]["lstm"]["static"]["metrics"] if "balanced" in name]


def test_epochs_have_no_balanced_accuracy_so_macro_f1_is_timed_and_named(unbalanced):
    assert validated("test/balanced_accuracy") == "validation/f1_macro"
    assert validated("test/accuracy") == "validation/accuracy"
    taken = measured(unbalanced)
    found = time_to_target(taken, compare(taken, SETTINGS).cells, SETTINGS).models["resnet"].target
    assert found.metric == "validation/f1_macro"
    assert math.isfinite(found.value)


def test_the_report_says_that_classes_are_unbalanced_and_what_decides(unbalanced):
    assert "unbalanced" not in render_markdown(comparison(unbalanced))
    found = written(comparison(unbalanced))
    found["protocol"]["test_classes"] = {"cifar10": {"ship": 900, "frog": 300}}
    found = read(found)
    text = render_markdown(found)
    assert (
        "The classes of CIFAR-10 are unbalanced: of 1,200 test examples ship has 900 and frog 300. So balanced "
        "accuracy decides, to which every class counts alike, and not accuracy."
    ) in text
    assert "balanced accuracy 31.25" in text
    assert "test/balanced_accuracy" in text_table(found)
    [gap] = [gap for gap in found.gaps if "% test/balanced_accuracy" in gap.text]
    assert any(value.name == "test/balanced_accuracy" for value in gap.values)


def test_the_report_says_what_accuracy_is_worth_where_it_decides_all_the_same():
    found = written(comparison(cells()))
    found["protocol"]["test_classes"] = {"cifar10": {"ship": 900, "frog": 300}}
    text = render_markdown(read(found))
    assert "Accuracy decides all the same: who always says ship has 75.00." in text
