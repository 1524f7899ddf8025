"""The statistics against values worked by hand, counted through, or found by the libraries themselves."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.statistics import bootstrap_interval, holm, probability_of_improvement, signed_rank_p, smallest_p

NOT_VECTORS = [[1.0, math.nan], [math.inf, 1.0], [-math.inf], [[1.0, 2.0]], 1.0]


# --- intervals ---


def test_the_bootstrap_of_two_values_has_three_means():
    # resampled means of [0, 1] are 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4
    assert bootstrap_interval([0.0, 1.0], confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)


def test_the_bootstrap_is_scipys_percentile_bootstrap_from_a_fixed_seed():
    from scipy.stats import bootstrap

    values = [0.71, 0.74, 0.72, 0.78, 0.70]
    expected = bootstrap(
        (np.array(values),), np.mean, confidence_level=0.9, n_resamples=500, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    found = bootstrap_interval(values, confidence=0.9, num_resamples=500)
    assert found == (expected.low, expected.high)
    assert bootstrap_interval(values, confidence=0.9, num_resamples=500) == found
    assert [type(bound) for bound in found] == [float, float]


def test_the_interval_holds_the_mean_and_grows_with_the_confidence():
    values = [0.71, 0.74, 0.72, 0.78, 0.70]
    narrow, wide = (bootstrap_interval(values, confidence) for confidence in (0.5, 0.99))
    assert min(values) <= wide[0] < narrow[0] < np.mean(values) < narrow[1] < wide[1] <= max(values)


def test_equal_values_have_an_interval_without_width_and_one_value_has_none():
    assert bootstrap_interval([0.7, 0.7, 0.7]) == (0.7, 0.7)
    assert bootstrap_interval([0.7]) is None


# --- the signed-rank test ---


@pytest.mark.parametrize(
    ("num_seeds", "p"), [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)]
)
def test_the_smallest_p_is_that_of_differences_that_all_agree(num_seeds, p):
    assert smallest_p(num_seeds) == p
    assert signed_rank_p(np.arange(1, num_seeds + 1) / 7) == pytest.approx(p, rel=1e-12)
    assert signed_rank_p(-np.arange(1, num_seeds + 1) / 7) == pytest.approx(p, rel=1e-12)
    assert signed_rank_p(np.ones(num_seeds)) == pytest.approx(p, rel=1e-12)


SIGNED_RANKS = [
    # the negative ranks sum to 5; of 32 sign patterns 10 give 5 or less (1+1+1+2+2+3)
    ("one large loss", [0.1, 0.2, 0.3, 0.4, -0.5], 20 / 32),
    # the negative ranks sum to 1: 2 of 32 patterns give 1 or less
    ("one small loss", [-0.1, 0.2, 0.3, 0.4, 0.5], 4 / 32),
    # all ranks are 3, so one or no loss: 6 of 32 patterns; without regard to ties it would be 10 / 32
    ("all of one size", [0.1, 0.1, -0.1, 0.1, 0.1], 12 / 32),
    # ranks 1.5, 1.5, 3: the negative ones sum to 1.5; 0 and twice 1.5 are 3 of 8 patterns
    ("two of one size", [0.1, -0.1, 0.2], 6 / 8),
    ("zeros are left out", [0.0, 0.1, 0.2, 0.0, 0.3, 0.4, 0.5], 2 / 32),
    ("evenly matched", [0.1, -0.1], 1.0),
    ("no difference at all", [0.0, 0.0, 0.0], 1.0),
    ("one difference", [0.3], 1.0),
    ("no seeds in common", [], 1.0),
]


@pytest.mark.parametrize(
    ("differences", "p"), [c[1:] for c in SIGNED_RANKS], ids=[c[0] for c in SIGNED_RANKS]
)
def test_the_signed_rank_p_is_the_one_worked_by_hand(differences, p):
    assert signed_rank_p(differences) == pytest.approx(p, rel=1e-12)


def counted_p(differences: list[float]) -> float:
    """The two-sided p from all sign patterns of the ranks, with ties at their mean rank."""
    sizes = sorted(abs(d) for d in differences)
    ranks = [np.mean([i + 1 for i, size in enumerate(sizes) if size == abs(d)]) for d in differences]
    observed = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    sums = [
        sum(rank for rank, positive in zip(ranks, signs, strict=True) if positive)
        for signs in itertools.product([False, True], repeat=len(ranks))
    ]
    low, high = (sum(s <= observed for s in sums), sum(s >= observed for s in sums))
    return min(1.0, 2 * min(low, high) / len(sums))


@given(st.lists(st.integers(-4, 4).filter(bool), min_size=1, max_size=7))
def test_the_signed_rank_p_is_the_share_of_sign_patterns_ties_or_not(differences):
    assert signed_rank_p(np.array(differences) / 64) == pytest.approx(counted_p(differences), rel=1e-9)


def test_differences_that_are_equal_on_paper_are_ties():
    # all four are 0.0012, none of them exactly so
    scores = [(0.8712, 0.87), (0.8512, 0.85), (0.7012, 0.7), (0.6, 0.6012)]
    differences = [new - old for new, old in scores]
    assert len({abs(d) for d in differences}) > 1
    assert signed_rank_p(differences) == signed_rank_p([1.0, 1.0, 1.0, -1.0])


def test_without_ties_the_p_is_scipys():
    from scipy.stats import wilcoxon

    differences = np.random.default_rng(1).normal(0.3, 1.0, size=30)
    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue, rel=1e-9)


# --- several tests, and how often one is better ---


HOLM = [
    ("one test", [0.03], [0.03]),
    # smallest first: 3 x 0.01, then 2 x 0.03, then 1 x 0.04, which may not be below the one before
    ("three", [0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
    ("never above 1", [0.5, 0.9], [1.0, 1.0]),
    ("equal ones", [0.0625, 0.0625, 0.0625], [0.1875, 0.1875, 0.1875]),
    ("none", [], []),
]


@pytest.mark.parametrize(("p_values", "adjusted"), [c[1:] for c in HOLM], ids=[c[0] for c in HOLM])
def test_holms_adjustment_is_the_one_worked_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted, rel=1e-12)
    assert len(holm(p_values)) == len(p_values)


@pytest.mark.parametrize("seed", [1, 2])
def test_holms_adjustment_is_that_of_statsmodels(seed):
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(seed).beta(0.3, 2, size=12)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)


@pytest.mark.parametrize(
    ("differences", "share"),
    [([0.1], 1.0), ([-0.1], 0.0), ([0.0], 0.5), ([0.1, -0.2, 0.0, 0.3], 0.625), ([-0.1, -0.1, 0.4], 1 / 3)],
)
def test_the_probability_of_improvement_counts_ties_one_half(differences, share):
    assert probability_of_improvement(differences) == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize("function", [bootstrap_interval, signed_rank_p, holm, probability_of_improvement])
@pytest.mark.parametrize("values", NOT_VECTORS, ids=str)
def test_what_is_no_vector_of_finite_numbers_is_refused(function, values):
    with pytest.raises(ValueError, match="expected a vector of finite numbers"):
        function(values)


@pytest.mark.parametrize("function", [bootstrap_interval, probability_of_improvement])
def test_of_nothing_there_is_no_mean(function):
    with pytest.raises(ValueError, match="expected at least one"):
        function([])
