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

from lrstudy.batches import make_split
from lrstudy.evaluation import accuracy_and_f1, cross_entropy, predict, score, softmax
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
        )
    assert accuracy_and_f1(labels, predicted, num_classes) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_f1_by_hand():
    # class 1: two found, one missed, one wrongly: F1 = 4 / 6
    labels, predicted = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert accuracy_and_f1(labels, predicted, 2) == (0.6, pytest.approx(2 / 3))
    # class 0: F1 = 2 / 4; class 1: 4 / 6; class 2 is nowhere and does not count
    assert accuracy_and_f1(labels, predicted, 3) == (0.6, pytest.approx((1 / 2 + 2 / 3) / 2))
    # nothing of class 1 anywhere: no F1, taken as 0
    assert accuracy_and_f1(np.zeros(3, int), np.zeros(3, int), 2) == (1.0, 0.0)


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
        "loss": pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.7) / 4),
        "confusion": [[1, 1], [0, 2]],
    }


def test_score_of_more_than_two_classes_is_macro():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    found = score(np.array([0, 1, 2, 2]), probabilities)
    # predicted 0 1 1 2: F1 1, 2/3, 2/3
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_training_and_test_metrics_agree(num_classes):
    """The loop's metrics by epoch and the test metrics come from two computations: one value."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, num_classes)), rng.integers(0, num_classes, 40)
    found = score(labels, softmax(logits))
    assert (found["accuracy"], found["f1"]) == pytest.approx(
        accuracy_and_f1(labels, logits.argmax(axis=1), num_classes)
    )
    assert found["loss"] == pytest.approx(cross_entropy(logits, labels)[0])
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
