"""The statistics against values worked by hand, counted through, or found by the libraries themselves."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrstudy.analysis.statistics import (
    average_ranks,
    binomial_chance,
    bootstrap_interval,
    critical_difference,
    equivalence_p,
    friedman_p,
    holm,
    median_interval,
    median_time,
    nemenyi_p,
    not_distinguished,
    performance_profile,
    probability_of_improvement,
    seeds_and_examples_interval,
    signed_rank_p,
    smallest_friedman_p,
    smallest_p,
    spread,
    standardized_mean,
    t_interval,
)

NOT_VECTORS = [[1.0, math.nan], [math.inf, 1.0], [-math.inf], [[1.0, 2.0]], 1.0]
NOT_MATRICES = [[1.0, 2.0], [[1.0, math.nan]], [[math.inf], [1.0]], [[]], 1.0]

SHARES = st.integers(0, 40).map(lambda count: count / 40)
"""Shares of correct examples, few enough that ties happen."""


def tables(min_seeds: int = 2, min_schedules: int = 3):
    """Arrays (num_seeds, num_schedules) of shares."""
    shapes = st.tuples(st.integers(min_seeds, 7), st.integers(min_schedules, 5))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=SHARES))


# --- spread and intervals ---


def test_the_spread_is_the_standard_deviation_with_n_minus_1():
    assert spread([0.73, 0.73, 0.79]) == pytest.approx(
        math.sqrt((0.02**2 + 0.02**2 + 0.04**2) / 2), rel=1e-12
    )
    assert spread([0.7]) is None


def test_the_bootstrap_of_two_values_has_three_means():
    # resampled means of [0, 1] are 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4
    assert bootstrap_interval([0.0, 1.0], confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)


def test_the_bootstrap_is_scipys_percentile_bootstrap_from_a_fixed_seed():
    from scipy.stats import bootstrap

    values = [0.71, 0.74, 0.72, 0.78, 0.70]
    expected = bootstrap(
        (np.sort(values),), np.mean, confidence_level=0.9, n_resamples=500, method="percentile",
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


@pytest.mark.parametrize(("num_seeds", "covered"), [(3, 0.75), (5, 0.84), (10, 0.90)])
def test_of_normal_values_the_interval_covers_the_mean_as_often_as_the_report_says(num_seeds, covered):
    """Of three, 95% reach from the smallest to the largest: 1 - 2 / 2^3."""
    samples = np.random.default_rng(0).standard_normal((1000, num_seeds))
    bounds = [bootstrap_interval(values, num_resamples=500) for values in samples]
    share = np.mean([low <= 0 <= high for low, high in bounds])
    assert share == pytest.approx(covered, abs=3 * math.sqrt(covered * (1 - covered) / len(samples)))


def test_equal_values_have_an_interval_without_width_and_one_value_has_none():
    assert bootstrap_interval([0.7, 0.7, 0.7]) == (0.7, 0.7)
    assert bootstrap_interval([0.7]) is None


@given(st.lists(SHARES, min_size=2, max_size=7).flatmap(lambda v: st.tuples(st.just(v), st.permutations(v))))
def test_the_order_of_the_seeds_does_not_move_the_interval(pair):
    values, permuted = pair
    assert bootstrap_interval(values, num_resamples=100) == bootstrap_interval(permuted, num_resamples=100)


# --- Student's interval ---


def test_students_interval_is_the_one_worked_by_hand():
    # mean 2, standard deviation 1, t of two degrees of freedom 4.302653 (tabled), over sqrt(3)
    half = 4.302653 / math.sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    # one degree of freedom is Cauchy's: tan(pi / 4) = 1 at a confidence of one half
    assert t_interval([0.0, 2.0], confidence=0.5) == pytest.approx((0.0, 2.0), abs=1e-12)
    assert t_interval([0.3]) is None
    assert t_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)


def test_students_interval_covers_the_mean_where_the_percentile_bootstrap_does_not():
    samples = np.random.default_rng(0).normal(size=(400, 5))
    covered = {
        interval: np.mean([low <= 0 <= high for low, high in map(interval, samples)])
        for interval in (t_interval, lambda values: bootstrap_interval(values, num_resamples=500))
    }
    students, percentile = covered.values()
    assert 0.93 <= students <= 0.97
    assert percentile <= 0.88


# --- an interval over seeds and test examples ---


def test_the_interval_over_seeds_and_examples_is_the_one_worked_by_hand():
    # d = [[1, 0], [0, 0], [0, 1], [1, 1]]: means of the seeds .5 0 .5 1, of the examples .5 .5, in all .5
    right = [[1, 0], [0, 0], [0, 1], [1, 1]]
    # variance of the seeds' means 1/6, of the examples' 0; residuals +-.5 of two seeds: 1 over 3 x 1
    variance = (1 / 6) / 4 + 0 / 2 - (1 / 3) / 8
    assert variance == pytest.approx(0, abs=1e-15)
    low, high = seeds_and_examples_interval(right, np.zeros((4, 2)))
    assert (low, high) == pytest.approx((0.5, 0.5), abs=1e-6)
    # without a residual both variances add up: rows 0 and 1, columns alike
    low, high = seeds_and_examples_interval([[0, 0], [1, 1]], np.zeros((2, 2)))
    # 0.5 -+ 12.706205 sqrt(0.5 / 2)
    assert (low, high) == pytest.approx((0.5 - 12.706205 / 2, 0.5 + 12.706205 / 2), rel=1e-6)
    assert seeds_and_examples_interval([[1, 0, 1]], [[0, 0, 1]]) is None


def test_the_interval_over_examples_covers_other_test_sets_and_that_over_seeds_does_not():
    rng = np.random.default_rng(1)
    within = {"both": 0, "seeds": 0}
    for _ in range(300):
        example = rng.normal(0, 1, size=400)  # how much likelier the one schedule is right
        seed = rng.normal(0, 0.05, size=(8, 1))
        one, other = (rng.random((8, 400)) < 0.5 + side * np.clip(0.15 * example + seed, -0.3, 0.3) / 2
                      for side in (1, -1))  # fmt: skip
        found = seeds_and_examples_interval(one, other), t_interval((1.0 * one - other).mean(axis=1))
        for name, (low, high) in zip(within, found, strict=True):
            within[name] += low <= 0 <= high
    assert within["both"] / 300 > 0.93
    assert within["seeds"] < within["both"]


def test_seeds_and_examples_are_paired():
    with pytest.raises(ValueError, match="broadcast"):
        seeds_and_examples_interval(np.ones((3, 4)), np.ones((3, 5)))
    with pytest.raises(ValueError, match="expected at least two examples"):
        seeds_and_examples_interval([[1], [0]], [[0], [0]])


# --- across models, in units of the spread ---


def test_the_standardized_mean_is_the_one_worked_by_hand():
    # mean 2, sd 1, n 3: J = 1 - 3 / 7; mean 0: 0
    found = standardized_mean([[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0, 0.0]])
    first, second = 2 * 4 / 7, 0.0
    assert found.effects == pytest.approx([first, second])
    assert found.mean == pytest.approx((first + second) / 2)
    variance = ((4 / 7) ** 2 / 3 + first**2 / 6 + (1 - 3 / 11) ** 2 / 4) / 4
    half = 1.959964 * math.sqrt(variance)
    assert found.interval == pytest.approx((found.mean - half, found.mean + half), rel=1e-6)


@given(st.floats(0.01, 100), st.integers(1, 6))
def test_neither_units_nor_numbers_of_seeds_weigh_a_model(factor, copies):
    small, large = [0.01, 0.02, 0.06], [0.5, -0.2, 0.1, 0.4] * copies
    plain = standardized_mean([small, large])
    scaled = standardized_mean([[factor * value for value in small], large])
    assert scaled.mean == pytest.approx(plain.mean, rel=1e-9)
    assert plain.mean == pytest.approx(np.mean(plain.effects))


@pytest.mark.parametrize("sample", [[0.1, 0.2], [0.1, 0.1, 0.1], [0.1 + 0.2 - 0.3, 0.0, 0.0]])
def test_without_a_spread_there_is_no_standardized_mean(sample):
    assert standardized_mean([[0.1, 0.2, 0.4], sample]) is None


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


@given(st.lists(st.integers(-40, 40).map(lambda count: count / 64), min_size=1, max_size=9))
def test_the_signed_rank_test_takes_no_side(differences):
    p = signed_rank_p(differences)
    assert signed_rank_p(np.negative(differences)) == p
    assert signed_rank_p(differences[::-1]) == p
    assert smallest_p(len(differences)) <= p <= 1


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


def test_the_one_sided_p_counts_the_ranks_on_one_side():
    differences = [-0.1, 0.2, 0.3, 0.4, 0.5]  # 2 of 32 patterns give 1 or less
    assert signed_rank_p(differences, "greater") == 2 / 32
    assert signed_rank_p(np.negative(differences), "greater") == 31 / 32
    assert smallest_p(8, "greater") == signed_rank_p(np.ones(8), "greater") == 1 / 256
    from scipy.stats import wilcoxon

    values = np.random.default_rng(2).normal(0.2, 1.0, size=20)
    exact = wilcoxon(values, method="exact", alternative="greater").pvalue
    assert signed_rank_p(values, "greater") == pytest.approx(exact, rel=1e-9)


def test_the_binomial_chance_is_that_of_enough_events():
    # against one half, 9 of 10 have 11 / 1024 and 8 of 10 have 56 / 1024: only 9 or 10 reach 0.025
    expected = 10 * 0.8**9 * 0.2 + 0.8**10
    assert binomial_chance(0.8, 0.5, 10, 0.05) == pytest.approx(expected, rel=1e-12)
    assert binomial_chance(1.0, 0.5, 7, 0.05) == 0.0  # too few seeds, whatever the share
    assert binomial_chance(1.0, 0.9, 10, 0.05) == 0.0  # 10 of 10 have 0.35 by chance


@given(st.lists(st.integers(-40, 40).map(lambda count: count / 64), min_size=1, max_size=9))
def test_the_two_sided_p_is_twice_the_smaller_one_sided_p(differences):
    one, other = (signed_rank_p(sign * np.array(differences), "greater") for sign in (1, -1))
    assert signed_rank_p(differences) == pytest.approx(min(1.0, 2 * min(one, other)), rel=1e-12)


def test_equivalence_is_two_one_sided_tests_with_one_sided_p():
    # all eight within half a point: both sides have 1 / 2^8, and neither is doubled
    differences = [0.001, -0.002, 0.003, 0.0, 0.001, -0.001, 0.002, -0.003]
    assert equivalence_p(differences, 0.005) == 1 / 2**8
    # one of them 0.65 points off: of the distances to half a point its 0.15 has rank 1, and lies beyond
    assert equivalence_p([*differences[:-1], 0.0065], 0.005) == 2 / 2**8
    assert equivalence_p([0.006] * 8, 0.005) == 1.0
    assert equivalence_p(np.negative(differences), 0.005) == equivalence_p(differences, 0.005)


def test_equivalence_is_decided_with_the_seeds_that_the_one_sided_p_needs():
    """A spread of 0.4 points and a margin of half a point: plain tests need some 8 seeds, the two-sided p 10."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.004, size=(600, 8))
    plain = np.mean([equivalence_p(sample, 0.005) <= 0.05 for sample in samples])
    twice = np.mean([2 * equivalence_p(sample, 0.005) <= 0.05 for sample in samples])
    assert plain - twice > 0.1


def test_the_equivalence_test_keeps_its_level_at_the_margin():
    samples = np.random.default_rng(3).normal(0.005, 0.002, size=(1000, 10))
    assert np.mean([equivalence_p(sample, 0.005) <= 0.05 for sample in samples]) <= 0.06


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


@settings(max_examples=15, deadline=None)  # statsmodels collects garbage at each call: a tenth of a second
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_adjustment_is_the_step_down_formula_and_keeps_the_order(p_values):
    adjusted, num_tests = holm(p_values), len(p_values)
    order = np.argsort(p_values, kind="stable")
    for place, test in enumerate(order):
        steps = [(num_tests - j) * p_values[order[j]] for j in range(place + 1)]
        assert adjusted[test] == pytest.approx(min(1.0, max(steps)), rel=1e-12)
    assert (np.diff(adjusted[order]) >= 0).all()


@pytest.mark.parametrize(
    ("differences", "share"),
    [([0.1], 1.0), ([-0.1], 0.0), ([0.0], 0.5), ([0.1, -0.2, 0.0, 0.3], 0.625), ([-0.1, -0.1, 0.4], 1 / 3)],
)
def test_the_probability_of_improvement_counts_ties_one_half(differences, share):
    assert probability_of_improvement(differences) == pytest.approx(share, rel=1e-15)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=7))
def test_the_probability_of_improvement_takes_no_side(differences):
    p = probability_of_improvement(differences)
    assert probability_of_improvement(np.negative(differences)) == pytest.approx(1 - p, abs=1e-12)
    assert probability_of_improvement(differences[::-1]) == pytest.approx(p, abs=1e-12)


# --- ranks, Friedman and Nemenyi ---

CLASSIFIERS = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975],  # both 0.975 in print, ranked 2 and 3
    [0.957, 0.978, 0.946, 0.970],
]
"""The worked example of Demsar 2006, table 6: areas under the curve of four classifiers on 14 data sets."""


def test_the_worked_example_of_the_field():
    """Demsar 2006: average ranks 3.143, 2.000, 2.893, 1.964; chi-square 9.28; critical difference 1.25."""
    from scipy.stats import chi2

    assert average_ranks(CLASSIFIERS) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    statistic = 12 * 14 / 20 * (np.sum(average_ranks(CLASSIFIERS) ** 2) - 25)
    assert statistic == pytest.approx(9.28, abs=5e-3)
    # three pairs and one four share ranks; the correction for ties divides by 1 - sum(t^3 - t) / (n (k^3 - k))
    approximate = chi2.sf(statistic / (1 - (3 * 6 + 60) / 840), 3)
    assert friedman_p(CLASSIFIERS).method == "exact"
    assert friedman_p(CLASSIFIERS).p == pytest.approx(approximate, abs=0.004)
    assert critical_difference(14, 4, 0.95) == pytest.approx(2.569 * math.sqrt(20 / (6 * 14)), abs=1e-3)
    assert critical_difference(14, 4, 0.90) == pytest.approx(1.12, abs=5e-3)
    # at 0.95 no pair differs by 1.25; at 0.90 the first is distinguished from the second and the last
    assert not_distinguished(CLASSIFIERS, 0.95) == [[3, 1, 2, 0]]
    assert not_distinguished(CLASSIFIERS, 0.90) == [[3, 1, 2], [2, 0]]


@pytest.mark.parametrize(
    ("num_schedules", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)]
)
def test_the_critical_difference_has_the_tabled_quantiles(num_schedules, q):
    # Demsar 2006, table 5a; sqrt(k (k + 1) / (6 n)) is 1 for n = k (k + 1) / 6
    num_seeds = 5
    expected = q * math.sqrt(num_schedules * (num_schedules + 1) / 30)
    assert critical_difference(num_seeds, num_schedules, 0.95) == pytest.approx(expected, rel=5e-4)


RANKS = [
    ("highest first", [[0.7, 0.9, 0.8]], [3, 1, 2]),
    ("ties share", [[0.7, 0.7, 0.8]], [2.5, 2.5, 1]),
    ("mean over seeds", [[0.7, 0.9], [0.8, 0.6], [0.7, 0.6], [0.5, 0.4]], [1.25, 1.75]),
    ("equal on paper", [[0.1 + 0.2, 0.3]], [1.5, 1.5]),
    ("all failed but one", [[0.0, 0.0, 0.1]], [2.5, 2.5, 1]),
]


@pytest.mark.parametrize(("values", "ranks"), [c[1:] for c in RANKS], ids=[c[0] for c in RANKS])
def test_ranks_are_those_worked_by_hand(values, ranks):
    assert average_ranks(values).tolist() == ranks


@given(tables(min_seeds=1, min_schedules=1), st.randoms(use_true_random=False))
def test_ranks_follow_the_order_of_the_values_alone(values, random):
    ranks, num_schedules = average_ranks(values), values.shape[1]
    assert ranks.sum() == pytest.approx(num_schedules * (num_schedules + 1) / 2)
    order = random.sample(range(len(values)), len(values))
    assert average_ranks(values[order]) == pytest.approx(ranks, abs=1e-12)
    assert average_ranks(np.exp(3 * values)) == pytest.approx(ranks, abs=1e-12)
    assert average_ranks(-values) == pytest.approx(num_schedules + 1 - ranks, abs=1e-12)


@given(tables(min_seeds=1, min_schedules=2))
def test_a_better_run_never_ranks_worse(values):
    better = values.copy()
    better[0, 0] += 0.3
    before, after = average_ranks(values), average_ranks(better)
    assert after[0] <= before[0] + 1e-12
    assert (after[1:] >= before[1:] - 1e-12).all()


FRIEDMANS = [
    # rank sums 8, 5, 5 of three seeds: of 36 pairs of orders (the first fixed) those with squares of 114 or more:
    # 9 6 3 (126) 1, 9 5 4 and 8 7 3 (122) 2 each, twice two orders; counted through below as well
    ("of 3", [[0.70, 0.73, 0.75], [0.72, 0.73, 0.0], [0.74, 0.79, 0.80]], 19 / 36),
    ("agree", [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.1, 0.3, 0.9], [0.2, 0.5, 0.7]], 1 / 6**3),
    ("all alike on average", [[0.1, 0.2, 0.3], [0.2, 0.3, 0.1], [0.3, 0.1, 0.2]], 1.0),
    ("ties everywhere", [[0.5, 0.5, 0.5], [0.7, 0.7, 0.7]], 1.0),
    # both seeds tie the first two: the others' places agree in one case of three
    ("ties", [[0.1, 0.1, 0.9], [0.3, 0.3, 0.4]], 1 / 3),
]


@pytest.mark.parametrize(("values", "p"), [c[1:] for c in FRIEDMANS], ids=[c[0] for c in FRIEDMANS])
def test_friedmans_p_is_the_one_worked_by_hand(values, p):
    assert friedman_p(values).p == pytest.approx(p, rel=1e-12)
    assert friedman_p(values).method == "exact"


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(2, 4), st.just(3)).flatmap(lambda shape: arrays(np.float64, shape, elements=SHARES))
)
def test_friedmans_p_is_the_share_of_permutations_ties_or_not(values):
    def squares(rows) -> float:
        return round(float((np.sum(rows, axis=0) ** 2).sum()), 6)

    ranks = [average_ranks([row]) for row in values]
    orders = itertools.product(*(itertools.permutations(row) for row in ranks))
    sums = [squares(order) for order in orders]
    expected = np.mean([found >= squares(ranks) for found in sums])
    assert friedman_p(values).p == pytest.approx(expected, rel=1e-9)


def test_where_there_are_too_many_permutations_some_are_drawn_from_a_fixed_seed():
    values = np.random.default_rng(6).normal([0, 0, 0.5, 0.5, 1.0, 1.0], 1.0, size=(8, 6))
    found = friedman_p(values)
    assert found.method == "100,000 random permutations"
    assert friedman_p(values) == found
    from scipy.stats import friedmanchisquare

    assert found.p == pytest.approx(friedmanchisquare(*values.T).pvalue, abs=0.02)


def test_the_p_of_the_committed_study_are_the_exact_ones():
    """As recomputed by 400,000 permutations in a review: .0023 and .0168 where chi-square had .0109 and .0263."""
    old = json.loads((Path(__file__).parent / "data/comparison_73cd819.json").read_text())
    for model, p in (("resnet", 0.0023), ("transformer", 0.0168)):
        metric = old["protocol"]["headline"][{"resnet": "cifar10"}.get(model, "imdb")]
        values = [list(cell["metrics"][metric]["values"].values()) for cell in old["cells"][model].values()]
        assert friedman_p(np.array(values).T).p == pytest.approx(p, abs=4e-4)


@settings(max_examples=15, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_friedmans_test_takes_no_side(values, random):
    p = friedman_p(values).p
    order = random.sample(range(len(values)), len(values))
    assert friedman_p(-values[order, ::-1]).p == pytest.approx(p, rel=1e-9)
    assert smallest_friedman_p(*values.shape) * (1 - 1e-9) <= p <= 1


def test_the_smallest_friedman_p_is_that_of_seeds_that_agree():
    for num_seeds, num_schedules in ((2, 3), (3, 4), (5, 4)):
        values = np.tile(np.arange(num_schedules) / 10, (num_seeds, 1))
        expected = smallest_friedman_p(num_seeds, num_schedules)
        assert friedman_p(values).p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_friedmans_p_is_near_the_approximate_one_and_nemenyis_is_the_librarys(seed):
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare

    values = np.random.default_rng(seed).normal([0.0, 0.5, 1.0, 3.0], 1.0, size=(9, 4))
    assert friedman_p(values).p == pytest.approx(friedmanchisquare(*values.T).pvalue, abs=0.01)
    assert nemenyi_p(values) == pytest.approx(posthoc_nemenyi_friedman(values).to_numpy(), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from([0.5, 0.8, 0.95]))
def test_schedules_share_a_group_exactly_if_their_ranks_are_within_the_critical_difference(
    values, confidence
):
    num_schedules = values.shape[1]
    ranks = average_ranks(values)
    critical = critical_difference(*values.shape, confidence)
    groups = not_distinguished(values, confidence)
    for a, b in itertools.combinations(range(num_schedules), 2):
        together = any(a in group and b in group for group in groups)
        if abs(abs(ranks[a] - ranks[b]) - critical) > 1e-6:
            assert together == (abs(ranks[a] - ranks[b]) < critical)
    for group in groups:
        assert len(group) > 1
        assert list(ranks[group]) == sorted(ranks[group])
        assert not any(set(group) < set(other) for other in groups)
    assert [ranks[group[0]] for group in groups] == sorted(ranks[group[0]] for group in groups)


def test_the_bars_are_those_that_scikit_posthocs_draws():
    import matplotlib.pyplot as plt
    from pandas import DataFrame
    from scikit_posthocs import critical_difference_diagram

    values = np.random.default_rng(5).normal([0.0, 0.3, 0.9, 1.5, 3.0, 3.1], 0.6, size=(8, 6))
    ranks, names = average_ranks(values), list("abcdef")
    figure, axes = plt.subplots()
    try:
        drawn = critical_difference_diagram(
            dict(zip(names, ranks, strict=True)), DataFrame(nemenyi_p(values), names, names), ax=axes
        )["crossbars"]
        bars = {tuple(sorted(line.get_xdata())) for (line,) in drawn}
    finally:
        plt.close(figure)
    groups = not_distinguished(values)
    assert len(groups) > 1
    assert {tuple(ranks[group]) for group in groups} == bars


def test_schedules_that_are_all_distinguished_make_no_group():
    values = np.tile([0.9, 0.5, 0.1], (40, 1))
    assert critical_difference(40, 3) < 1
    assert not_distinguished(values) == []


# --- what is refused ---


# Times to a target


INF = math.inf


@pytest.mark.parametrize(
    ("times", "median"),
    [
        ([3], 3),
        ([INF], INF),
        ([5, 2, 9], 5),
        ([4, 2, INF, INF], 4),  # half got there: by epoch 4
        ([4, INF, INF], INF),  # more than half did not
        ([1, 1, 1, INF, INF], 1),
    ],
)
def test_the_median_is_the_time_by_which_half_got_there(times, median):
    assert median_time(times) == median


times = st.lists(st.one_of(st.integers(1, 20), st.just(INF)), min_size=1, max_size=25)


@given(times)
def test_no_run_that_never_got_there_is_left_out_of_the_median(found):
    median = median_time(found)
    assert (median == INF) == (2 * sum(time == INF for time in found) > len(found))
    assert 2 * sum(time <= median for time in found) >= len(found)
    assert median <= median_time([*found, INF, INF])


@pytest.mark.parametrize(
    ("times", "interval"),
    [
        # 2 P(none of n below the median) = 2 / 2^n: 0.0625 at five, 0.031 at six
        ([1, 2, 3, 4, 5], None),
        ([1, 2, 3, 4, 5, 6], (1, 6)),
        # at ten the second from both sides: 2 (1 + 10) / 2^10 = 0.021; the third would be 2 x 56 / 2^10 = 0.11
        ([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], (2, 9)),
        ([10, 9, INF, 7, 6, 5, 4, 3, 2, INF], (3, INF)),
        ([INF] * 8, (INF, INF)),
    ],
)
def test_the_interval_of_the_median_is_from_the_order_alone(times, interval):
    assert median_interval(times) == interval


def test_the_interval_of_the_median_covers_it_as_often_as_it_says_whatever_never_got_there():
    """A geometric number of epochs of which those above 12 count as never: the median is 7."""
    rng = np.random.default_rng(0)
    drawn = rng.geometric(0.1, size=(1000, 10)).astype(float)
    drawn[drawn > 12] = INF
    bounds = [median_interval(sample) for sample in drawn]
    assert np.mean([low <= 7 <= high for low, high in bounds]) >= 0.95


def test_a_performance_profile_is_the_one_worked_by_hand():
    costs = [
        [2, 4, INF],  # ratios 1, 2, never
        [6, 3, 3],  # 2, 1, 1
        [INF, 5, 10],  # never, 1, 2
        [INF, INF, INF],  # solved by none, and still a problem
    ]
    found = performance_profile(costs)
    assert found.factors.tolist() == [1, 2]
    assert found.shares.tolist() == [[0.25, 0.5, 0.25], [0.5, 0.75, 0.5]]


def test_a_profile_of_problems_that_nobody_solves_is_zero():
    found = performance_profile([[INF, INF], [INF, INF]])
    assert (found.factors.tolist(), found.shares.tolist()) == ([1], [[0, 0]])


costs = st.lists(
    st.tuples(*[st.one_of(st.floats(0.01, 1e6), st.just(INF))] * 3), min_size=1, max_size=12
).map(np.array)


@given(costs)
def test_a_profile_grows_to_the_share_that_is_solved_and_somebody_is_the_cheapest(found):
    profile = performance_profile(found)
    assert profile.factors[0] == 1
    assert (np.diff(profile.factors) > 0).all()
    assert (np.diff(profile.shares, axis=0) >= 0).all()
    assert profile.shares[-1] == pytest.approx(np.isfinite(found).mean(axis=0))
    somebody = np.isfinite(found).any(axis=1).mean()
    assert profile.shares[0].sum() >= somebody - 1e-12


@given(costs, st.floats(0.1, 10))
def test_a_profile_knows_no_unit_of_cost(found, factor):
    one, other = performance_profile(found), performance_profile(found * factor)
    assert other.shares[[0, -1]] == pytest.approx(one.shares[[0, -1]])


@given(costs, st.randoms())
def test_a_profile_follows_its_schedules_in_any_order(found, random):
    order = random.sample(range(3), 3)
    assert (performance_profile(found[:, order]).shares == performance_profile(found).shares[:, order]).all()


@pytest.mark.parametrize("wrong", [[], [[]], [[0.0, 1.0]], [[math.nan, 1.0]], [[-1.0, 1.0]], [1.0, 2.0]])
def test_what_is_no_cost_has_no_profile(wrong):
    with pytest.raises(ValueError, match="expected a matrix of costs above 0"):
        performance_profile(wrong)


@pytest.mark.parametrize("function", [median_time, median_interval])
@pytest.mark.parametrize("wrong", [[], [math.nan], [[1.0]]])
def test_what_is_no_time_has_no_median(function, wrong):
    with pytest.raises(ValueError, match="expected"):
        function(wrong)


@pytest.mark.parametrize(
    "function", [spread, t_interval, bootstrap_interval, signed_rank_p, holm, probability_of_improvement]
)
@pytest.mark.parametrize("values", NOT_VECTORS, ids=str)
def test_what_is_no_vector_of_finite_numbers_is_refused(function, values):
    with pytest.raises(ValueError, match="expected a vector of finite numbers"):
        function(values)


@pytest.mark.parametrize("function", [t_interval, bootstrap_interval, probability_of_improvement])
def test_of_nothing_there_is_no_mean(function):
    with pytest.raises(ValueError, match="expected at least one"):
        function([])


@pytest.mark.parametrize(
    "function",
    [average_ranks, friedman_p, nemenyi_p, not_distinguished],
)
@pytest.mark.parametrize("values", NOT_MATRICES, ids=str)
def test_what_is_no_matrix_of_finite_numbers_is_refused(function, values):
    with pytest.raises(ValueError, match="expected a matrix of finite numbers"):
        function(values)


@pytest.mark.parametrize("function", [friedman_p, nemenyi_p, not_distinguished])
@pytest.mark.parametrize("shape", [(1, 3), (5, 2)])
def test_two_schedules_or_one_seed_are_not_tested_by_ranks(function, shape):
    found = f"expected at least 2 seeds x 3 schedules, found {shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=found):
        function(np.zeros(shape))


# The median's interval


@pytest.mark.parametrize(
    ("count", "interval"),
    [(5, None), (6, (1.0, 6.0)), (8, (1.0, 8.0)), (9, (2.0, 8.0)), (10, (2.0, 9.0)), (16, (4.0, 13.0))],
)
def test_the_interval_of_the_median_lies_between_the_values_that_fair_coins_leave_out(count, interval):
    """Two sides of 1/2^n each at the range: 6.2% with 5 values, 3.1% with 6; 20/512 without 9's outermost."""
    values = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    assert median_interval(values) == interval
    if interval:
        k = int(interval[0])
        left_out = [2 * sum(math.comb(count, j) for j in range(n)) / 2**count for n in (k, k + 1)]
        assert left_out[0] <= 0.05 < left_out[1]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0.5, 0.99))
def test_the_interval_of_the_median_holds_it_and_grows_with_the_confidence(values, confidence):
    found, wider = median_interval(values, confidence), median_interval(values, (1 + confidence) / 2)
    if wider:
        assert wider[0] <= found[0] <= np.median(values) <= found[1] <= wider[1]


def test_the_median_of_nothing_has_no_interval():
    with pytest.raises(ValueError, match="at least one value"):
        median_interval([])
