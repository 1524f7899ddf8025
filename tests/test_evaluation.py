"""Predictions and metrics: parity with scikit-learn and torch, and examples worked by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from lrstudy.ledger.record import SCORES
from lrstudy.training.batches import make_split
from lrstudy.training.evaluation import (
    accuracy_and_f1,
    cross_entropy,
    measure,
    predict,
    score,
    softmax,
    summarize,
)
from tiny_data import image_arrays, text_arrays

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@st.composite
def classified(draw) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels and predictions of 1 to 30 examples in 2 to 6 classes, of which many may be absent."""
    num_classes, count = draw(st.integers(2, 6)), draw(st.integers(1, 30))
    present = st.sampled_from(sorted(draw(st.sets(st.integers(0, num_classes - 1), min_size=1))))
    values = st.lists(present, min_size=count, max_size=count)
    return np.array(draw(values)), np.array(draw(values)), num_classes


@given(classified())
@settings(max_examples=200)
def test_accuracy_and_f1_are_scikit_learns(case):
    from sklearn import metrics

    labels, predicted, num_classes = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class without examples
        average = "binary" if num_classes == 2 else "macro"
        expected = (
            metrics.accuracy_score(labels, predicted),
            metrics.f1_score(labels, predicted, average=average),
            metrics.f1_score(labels, predicted, average="macro"),
        )
    found = accuracy_and_f1(labels, predicted, num_classes)
    assert tuple(found.values()) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_f1_by_hand():
    # class 1: two found, one missed, one wrongly: F1 = 4 / 6
    labels, predicted = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    # class 0: F1 = 2 / 4
    macro = pytest.approx((1 / 2 + 2 / 3) / 2)
    assert accuracy_and_f1(labels, predicted, 2) == {
        "accuracy": 0.6,
        "f1": pytest.approx(2 / 3),
        "f1_macro": macro,
    }
    # class 2 is nowhere and does not count
    assert accuracy_and_f1(labels, predicted, 3) == {"accuracy": 0.6, "f1": macro, "f1_macro": macro}
    # nothing of class 1 anywhere: no F1, taken as 0, and no part of the mean
    none = np.zeros(3, int)
    assert accuracy_and_f1(none, none, 2) == {"accuracy": 1.0, "f1": 0.0, "f1_macro": 1.0}


def test_macro_f1_does_not_move_with_the_threshold_as_the_f1_of_one_class_does():
    """All of one class at 50% accuracy: F1 of that class is 2/3, of the other 0, and macro F1 1/3 either way."""
    labels = np.array([0, 1])
    ones, zeros = (accuracy_and_f1(labels, np.full(2, label), 2) for label in (1, 0))
    assert (ones["f1"], zeros["f1"]) == (pytest.approx(2 / 3), 0)
    assert ones["f1_macro"] == zeros["f1_macro"] == pytest.approx(1 / 3)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 50),
    num_classes=st.integers(2, 10),
    scale=st.sampled_from([0.0, 1.0, 50.0, 1e4]),
)
def test_cross_entropy_and_softmax_are_torchs_in_double_precision(seed, count, num_classes, scale):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(0, 1, (count, num_classes)) * scale).astype(np.float32)
    labels = rng.integers(0, num_classes, count)
    as_tensor = torch.from_numpy(logits).double()
    expected = nn.functional.cross_entropy(as_tensor, torch.from_numpy(labels)).item()
    mean, standard_error = cross_entropy(logits, labels)
    assert mean == pytest.approx(expected, rel=1e-12, abs=1e-12)
    each = nn.functional.cross_entropy(as_tensor, torch.from_numpy(labels), reduction="none").numpy()
    # scipy has none for a single example; where all have one loss, what is left of it is rounding.
    expected_error = stats.sem(each, ddof=0) if count > 1 else 0.0
    assert standard_error == pytest.approx(expected_error, rel=1e-9, abs=1e-12 * (1 + expected))
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities, as_tensor.softmax(dim=1).numpy(), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)


def test_cross_entropy_of_knowing_nothing_is_the_log_of_the_number_of_classes():
    mean, standard_error = cross_entropy(np.full((5, 10), 3.0, np.float32), np.arange(5))
    assert mean == pytest.approx(math.log(10))
    assert standard_error == pytest.approx(0, abs=1e-15)  # every example has this loss


def test_the_standard_error_by_hand():
    # Losses ln 2 (even odds) and ln 4 (1 : 3 against): each ln(2) / 2 from their mean; of 4 examples, half of it.
    logits = np.log(np.array([[1, 1], [1, 3], [1, 1], [3, 1]], float))
    mean, standard_error = cross_entropy(logits, np.array([0, 0, 1, 1]))
    assert mean == pytest.approx(1.5 * math.log(2))
    assert standard_error == pytest.approx(math.log(2) / 2 / math.sqrt(4))


def test_the_standard_error_shrinks_with_the_root_of_the_examples():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    mean, standard_error = cross_entropy(logits, labels)
    repeated = cross_entropy(np.tile(logits, (9, 1)), np.tile(labels, 9))
    assert repeated == pytest.approx((mean, standard_error / 3))
    assert cross_entropy(logits[:1], labels[:1])[1] == 0  # one example says nothing of others


def test_cross_entropy_of_logits_that_are_not_finite_is_not_finite():
    logits = np.array([[0, 1], [np.nan, 0]], np.float32)
    assert not any(math.isfinite(value) for value in cross_entropy(logits, np.array([0, 1])))


def test_score_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    # predicted 0 1 1 1: class 1 has two found, none missed, one wrongly
    assert score(np.array([0, 0, 1, 1]), probabilities) == {
        "accuracy": 0.75,
        "f1": pytest.approx(2 * 2 / (2 * 2 + 1)),
        "f1_macro": pytest.approx((2 / 3 + 4 / 5) / 2),  # class 0: one found, one missed
        "loss": pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.7) / 4),
        "confusion": [[1, 1], [0, 2]],
    }


def test_score_of_more_than_two_classes_is_macro():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    found = score(np.array([0, 1, 2, 2]), probabilities)
    # predicted 0 1 1 2: F1 1, 2/3, 2/3
    assert found["f1"] == found["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_a_class_that_never_occurs_is_no_error():
    found = score(np.ones(5, int), np.array([[0.25, 0.75]] * 5))
    assert (found["accuracy"], found["f1"], found["confusion"]) == (1.0, 1.0, [[0, 0], [0, 5]])


def logits_of(probabilities: list[list[float]]) -> np.ndarray:
    """Logits float64 whose softmax these probabilities are."""
    return np.log(np.array(probabilities))


def test_what_test_data_say_of_two_classes_by_hand():
    # the probability of class 1: right, right, wrong, wrong, right
    of_one, labels = [0.75, 0.25, 0.375, 0.5625, 0.875], np.array([1, 0, 1, 0, 1])
    found = measure(logits_of([[1 - p, p] for p in of_one]), labels)
    # class 1: two found, one missed, one false: 2 x 2 / (2 x 2 + 1 + 1)
    assert (found["scores"]["accuracy"], found["scores"]["f1"]) == (0.6, pytest.approx(2 / 3, rel=1e-15))
    of_label = np.array([0.75, 0.75, 0.375, 0.4375, 0.875])
    assert found["scores"]["loss"] == pytest.approx(-np.log(of_label).mean(), rel=1e-12)
    assert found["scores"]["confusion"] == [[1, 1], [1, 2]]  # a row per true class
    assert found["right"].tolist() == [True, True, False, False, True]
    assert found["losses"].dtype == np.float16
    np.testing.assert_array_equal(found["losses"], -np.log(of_label).astype(np.float16))


def test_what_test_data_say_of_many_classes_by_hand():
    probabilities = [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]
    found = measure(logits_of(probabilities), np.array([0, 1, 1, 2]))
    scores = found["scores"]
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, rel=1e-15)  # the mean over classes
    assert scores["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert scores["loss"] == pytest.approx(-math.log(0.5 * 0.5 * 0.25 * 0.75) / 4, rel=1e-12)
    assert found["right"].tolist() == [True, True, False, True]


@settings(max_examples=30)  # scikit-learn takes a millisecond for each row of each
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 50),
    num_classes=st.integers(2, 10),
    scale=st.sampled_from([0.0, 1.0, 50.0, 1e4]),
)
def test_what_test_data_say_agrees_with_scikit_learn_example_by_example(seed, count, num_classes, scale):
    """However sure the model is, where it is wrong too: at a scale of 1e4 most probabilities are 0 or 1."""
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    logits = (rng.normal(0, 1, (count, num_classes)) * scale).astype(np.float32)
    labels = rng.integers(0, num_classes, count)
    found = measure(logits, labels)
    probabilities, classes = softmax(logits), list(range(num_classes))
    each = np.array(
        [
            metrics.log_loss([label], [row], labels=classes)
            for label, row in zip(labels, probabilities, strict=True)
        ]
    )
    np.testing.assert_allclose(found["losses"].astype(np.float64), each, rtol=2**-11, atol=2**-24)
    assert found["scores"] == score(labels, probabilities)
    assert found["scores"]["loss"] == pytest.approx(each.mean(), rel=1e-9, abs=1e-12)
    assert found["scores"]["accuracy"] == found["right"].mean()
    assert np.diag(found["scores"]["confusion"]).sum() == found["right"].sum()


def test_a_loss_is_at_most_that_of_a_probability_of_float64s_epsilon():
    """A class that was ruled out would cost infinitely much: then no mean over examples says anything."""
    logits = np.array([[0, 1e4], [1e4, 0]], np.float32)
    found = measure(logits, np.array([0, 0]))
    assert found["losses"].tolist() == [np.float16(-math.log(np.finfo(np.float64).eps)), 0]
    assert found["scores"]["loss"] == pytest.approx(-math.log(np.finfo(np.float64).eps) / 2)
    assert found["losses"][0] == pytest.approx(36.04, abs=0.02)
    assert found["right"].tolist() == [False, True]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_have_no_scores(value):
    """As of a training that diverged; a single example of them is enough. -inf alone rules a class out."""
    logits = np.zeros((3, 2), np.float32)
    logits[1, 0] = value
    found = measure(logits, np.array([0, 1, 1]))
    if value == -math.inf:
        assert found["right"].tolist() == [True, True, False]
        assert found["scores"]["loss"] == pytest.approx(2 * math.log(2) / 3)
    else:
        scores = {"accuracy": None, "f1": None, "f1_macro": None, "loss": None, "confusion": None}
        assert found == {"scores": scores, "right": None, "losses": None}


@pytest.mark.parametrize("num_classes", [2, 4])
def test_training_and_test_metrics_agree(num_classes):
    """The loop's metrics by epoch and the test metrics come from two computations: one value."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, num_classes)), rng.integers(0, num_classes, 40)
    found = score(labels, softmax(logits))
    by_epoch = summarize(logits, labels)
    assert (by_epoch.pop("loss"), by_epoch.pop("loss_standard_error")) == cross_entropy(logits, labels)
    assert by_epoch == accuracy_and_f1(labels, logits.argmax(axis=1), num_classes)
    for name in SCORES:
        assert found[name] == pytest.approx(summarize(logits, labels)[name])
    np.testing.assert_array_equal(
        np.sum(found["confusion"], axis=1), np.bincount(labels, minlength=num_classes)
    )


class SumAndLength(nn.Module):
    """Logits that say which review they belong to; in training mode others, as dropout makes them."""

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.stack([tokens.sum(dim=1), lengths], dim=1).float() + self.training


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_predictions_of_reviews_come_in_the_splits_order(batch_size):
    arrays = text_arrays(30)
    split = make_split(arrays, {"kind": "text"}, CPU)
    model = SumAndLength()
    logits = predict(model, split, batch_size, CPU, torch.float32)
    reviews = [arrays["tokens"][a:b] for a, b in zip(arrays["offsets"], arrays["offsets"][1:], strict=False)]
    np.testing.assert_array_equal(logits, [[review.sum(), len(review)] for review in reviews])
    assert logits.dtype == np.float32
    assert not model.training


def test_predictions_need_no_gradients_and_are_float32_in_mixed_precision():
    split = make_split(image_arrays(10), {"kind": "image", "mean": [0.5] * 3, "std": [0.2] * 3}, CPU)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    full = predict(model, split, 4, CPU, torch.float32)
    mixed = predict(model, split, 4, CPU, torch.bfloat16)
    assert full.shape == mixed.shape == (10, 4)
    assert mixed.dtype == np.float32
    assert not np.array_equal(full, mixed)
    np.testing.assert_allclose(full, mixed, atol=0.1)
    assert all(parameter.grad is None for parameter in model.parameters())
