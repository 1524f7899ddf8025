"""What a history says beyond its epochs: values worked by hand, and invariants."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.training.measures import last_fifth, running_median, tail_mean, turn

losses = st.lists(st.floats(0.01, 5), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("count", "last"), [(1, 1), (3, 1), (9, 1), (10, 2), (20, 4), (200, 40), (1053, 210)]
)
def test_the_last_fifth_is_whole_and_never_empty(count, last):
    assert last_fifth(count) == last


def test_the_tail_is_the_mean_of_the_last_fifth_of_the_epochs():
    assert tail_mean([0.5, 0.25, 0.75]) == 0.75  # one of three epochs
    assert tail_mean([9, 9, 9, 9, 9, 9, 9, 9, 0.25, 0.75]) == 0.5  # two of ten


@given(losses)
def test_the_tail_lies_between_the_last_epochs_values(values):
    last = values[-last_fifth(len(values)) :]
    assert min(last) - 1e-12 <= tail_mean(values) <= max(last) + 1e-12


def test_the_running_median_is_of_three_epochs_and_has_no_shorter_windows():
    assert running_median([5, 1, 2, 9, 3]).tolist() == [2, 2, 3]
    assert running_median([5, 1, 2]).tolist() == [2]
    assert len(running_median([5, 1])) == 0


def test_a_single_lucky_or_unlucky_epoch_turns_nothing():
    """Static's validation loss by epoch is a lottery: one low epoch before the end is no overfitting."""
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert turn(falling, [0.0] * 6) == (None, 0.0)
    lucky, unlucky = [*falling], [*falling]
    lucky[2], unlucky[-1] = 0.1, 3.0
    assert turn(lucky, [0.0] * 6) == (None, 0.0)
    assert turn(unlucky, [0.0] * 6) == (None, 0.0)


def test_where_a_loss_turned_and_what_it_rose_by_by_hand():
    values = [1.0, 0.6, 0.5, 0.4, 0.7, 0.8, 0.9, 1.1]
    # medians of epochs 2 to 7: 0.6, 0.5, 0.5, 0.7, 0.8, 0.9; the lowest first at epoch 3
    assert turn(values, [0.0] * 8) == (3, pytest.approx(0.4))


def test_a_rise_counts_only_beyond_twice_its_standard_error():
    values = [0.8, 0.5, 0.5, 0.5, 0.6, 0.6]  # medians 0.5, 0.5, 0.5, 0.6: the last is epoch 5's
    error = 0.1 / 2 / math.sqrt(2)  # 2 sqrt(2 error^2) = 0.1
    assert turn(values, [error * 0.99] * 6) == (2, pytest.approx(0.1))
    assert turn(values, [error * 1.01] * 6) == (None, 0.0)


def test_each_median_has_the_error_of_the_epoch_whose_value_it_is():
    values = [0.5, 0.9, 0.4, 0.6, 0.8, 0.7]
    # medians 0.5 (epoch 1), 0.6 (4), 0.6 (4), 0.7 (6): the rise is 0.2, its error that of epochs 1 and 6
    few = [0.0, 9.0, 9.0, 9.0, 9.0, 0.05]
    assert turn(values, few) == (2, pytest.approx(0.2))
    assert turn(values, [0.0, 9.0, 9.0, 9.0, 9.0, 0.11]) == (None, 0.0)


def test_a_loss_that_rose_and_fell_again_has_turned_and_ends_without_overfitting():
    values = [1.0, 0.5, 0.5, 0.9, 0.9, 0.5, 0.5]
    assert turn(values, [0.01] * 7) == (2, 0.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_than_four_epochs_cannot_show_a_turn(count):
    assert turn([0.1, 0.5, 0.9][:count], [0.0] * count) is None


@given(losses, st.floats(0, 1))
def test_a_rise_is_never_negative_and_needs_a_turn(values, error):
    found = turn(values, [error] * len(values))
    if found is None:
        assert len(values) < 4
        return
    epoch, rise = found
    assert rise == 0 or rise > 2 * math.sqrt(2) * error * (1 - 1e-12)
    assert epoch is None or 2 <= epoch < len(values) - 1
    assert rise == 0 or epoch is not None


@given(losses)
def test_a_loss_that_only_falls_never_turns(values):
    falling = sorted(values, reverse=True)
    assert turn(falling, [0.0] * len(values)) in (None, (None, 0.0))


@given(losses, st.floats(0, 0.1))
def test_a_larger_error_makes_no_rise_count_that_did_not(values, error):
    if len(values) < 4:
        return
    sure, unsure = (turn(values, [factor * error] * len(values)) for factor in (1, 2))
    assert unsure[0] is None or unsure[0] == sure[0]
    assert unsure[1] in (0.0, sure[1])
    assert np.isfinite(sure[1])
