"""The statistics against values worked by hand, counted through, or found by the libraries themselves."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrstudy.statistics import (
    average_ranks,
    bootstrap_interval,
    critical_difference,
    friedman_p,
    holm,
    interquartile_mean,
    nemenyi_p,
    not_told_apart,
    probability_of_improvement,
    signed_rank_p,
    smallest_friedman_p,
    smallest_p,
    spread,
    stratified_bootstrap_interval,
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


# --- the interquartile mean across models ---


IQMS = [
    ("4 values: the middle two", [[0.0], [0.4], [0.6], [9.0]], 0.5),
    ("6 values: one off on each side", [[0.70, 0.79], [0.72, 0.81], [0.74, 0.80]], (0.72 + 0.74 + 0.79 + 0.80) / 4),
    ("15 values: three off on each side", np.arange(15.0).reshape(5, 3) ** 2, np.mean(np.arange(3, 12) ** 2)),
    ("3 values: none off", [[0.1, 0.2, 0.6]], 0.3),
    ("one", [[0.7]], 0.7),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), [c[1:] for c in IQMS], ids=[c[0] for c in IQMS])
def test_the_interquartile_mean_is_the_mean_of_the_middle_half(values, expected):
    assert interquartile_mean(values) == pytest.approx(expected, rel=1e-12)


@given(tables(min_seeds=1, min_schedules=1))
def test_the_interquartile_mean_is_symmetric_and_ignores_the_order(values):
    found = interquartile_mean(values)
    assert interquartile_mean(-values) == pytest.approx(-found, abs=1e-12)
    assert interquartile_mean(values[::-1, ::-1]) == pytest.approx(found, abs=1e-12)
    assert values.min() - 1e-12 <= found <= values.max() + 1e-12


def test_a_quarter_of_failed_runs_does_not_move_the_interquartile_mean():
    values = np.linspace(0.7, 0.8, 12).reshape(4, 3)
    failed = values.copy()
    failed[0] = 0.0  # the three lowest anyway
    assert interquartile_mean(failed) == interquartile_mean(values)


def test_the_stratified_bootstrap_counted_through():
    # of 0 or 1 twice and 10 or 11 twice the larger of the first and the smaller of the second are left
    values = [[0.0, 10.0], [1.0, 11.0]]
    means = [
        interquartile_mean([[a, c], [b, d]])
        for a, b in itertools.product([0.0, 1.0], repeat=2)
        for c, d in itertools.product([10.0, 11.0], repeat=2)
    ]
    shares = {mean: means.count(mean) / 16 for mean in set(means)}
    assert shares == {5.0: 3 / 16, 5.5: 10 / 16, 6.0: 3 / 16}
    assert stratified_bootstrap_interval(values, confidence=0.95) == (5.0, 6.0)
    assert stratified_bootstrap_interval(values, confidence=0.5) == (5.5, 5.5)


def test_seeds_are_drawn_within_their_model():
    # every model's seeds agree, so nothing varies; drawn from one pool of six they would
    assert stratified_bootstrap_interval([[0.1, 0.5, 0.9], [0.1, 0.5, 0.9]]) == (0.5, 0.5)
    values = np.array([[0.10, 0.90], [0.11, 0.91], [0.12, 0.92], [0.13, 0.93]])
    low, high = stratified_bootstrap_interval(values)
    pooled_low, pooled_high = bootstrap_interval(values.ravel())
    assert high - low < 0.05 < pooled_high - pooled_low


def test_the_stratified_bootstrap_is_a_loop_over_resamples_of_every_model():
    values = np.random.default_rng(3).uniform(0.6, 0.9, size=(5, 3))
    rng = np.random.default_rng(4)
    means = [
        np.mean(np.sort(np.concatenate([rng.choice(model, size=5) for model in values.T]))[3:12])
        for _ in range(4000)
    ]
    expected = np.percentile(means, [5, 95])
    assert stratified_bootstrap_interval(values, confidence=0.9) == pytest.approx(expected, abs=0.004)
    assert stratified_bootstrap_interval(values) == stratified_bootstrap_interval(values)


@settings(max_examples=30)
@given(tables(min_seeds=2, min_schedules=1), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_move_the_stratified_interval(values, random):
    order = random.sample(range(len(values)), len(values))
    expected = stratified_bootstrap_interval(values, num_resamples=100)
    assert stratified_bootstrap_interval(values[order], num_resamples=100) == expected


def test_one_seed_has_no_stratified_interval():
    assert stratified_bootstrap_interval([[0.7, 0.8, 0.9]]) is None


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
    assert friedman_p(CLASSIFIERS) == pytest.approx(
        chi2.sf(statistic / (1 - (3 * 6 + 60) / 840), 3), rel=1e-9
    )
    assert critical_difference(14, 4, 0.95) == pytest.approx(2.569 * math.sqrt(20 / (6 * 14)), abs=1e-3)
    assert critical_difference(14, 4, 0.90) == pytest.approx(1.12, abs=5e-3)
    # at 0.95 no pair differs by 1.25; at 0.90 the first is told apart from the second and the last
    assert not_told_apart(CLASSIFIERS, 0.95) == [[3, 1, 2, 0]]
    assert not_told_apart(CLASSIFIERS, 0.90) == [[3, 1, 2], [2, 0]]


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
    # rank sums 8, 5, 5: 12 / (3 * 3 * 4) * 114 - 3 * 3 * 4 = 2; chi-square with two degrees: exp(-2 / 2)
    ("of 3", [[0.70, 0.73, 0.75], [0.72, 0.73, 0.0], [0.74, 0.79, 0.80]], math.exp(-1)),
    # all agree: n (k - 1) = 8
    ("agree", [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.1, 0.3, 0.9], [0.2, 0.5, 0.7]], math.exp(-4)),
    ("all alike on average", [[0.1, 0.2, 0.3], [0.2, 0.3, 0.1], [0.3, 0.1, 0.2]], 1.0),
    ("ties everywhere", [[0.5, 0.5, 0.5], [0.7, 0.7, 0.7]], 1.0),
]


@pytest.mark.parametrize(("values", "p"), [c[1:] for c in FRIEDMANS], ids=[c[0] for c in FRIEDMANS])
def test_friedmans_p_is_the_one_worked_by_hand(values, p):
    assert friedman_p(values) == pytest.approx(p, rel=1e-12)


@given(tables(), st.randoms(use_true_random=False))
def test_friedmans_test_takes_no_side(values, random):
    p = friedman_p(values)
    order = random.sample(range(len(values)), len(values))
    assert friedman_p(-values[order, ::-1]) == pytest.approx(p, rel=1e-9)
    assert smallest_friedman_p(*values.shape) * (1 - 1e-9) <= p <= 1


def test_the_smallest_friedman_p_is_that_of_seeds_that_agree():
    for num_seeds, num_schedules in ((2, 3), (3, 4), (5, 4)):
        values = np.tile(np.arange(num_schedules) / 10, (num_seeds, 1))
        expected = smallest_friedman_p(num_seeds, num_schedules)
        assert friedman_p(values) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_friedmans_and_nemenyis_p_are_the_libraries(seed):
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare

    values = np.random.default_rng(seed).normal([0.0, 0.5, 1.0, 3.0], 1.0, size=(9, 4))
    assert friedman_p(values) == friedmanchisquare(*values.T).pvalue
    assert nemenyi_p(values) == pytest.approx(posthoc_nemenyi_friedman(values).to_numpy(), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from([0.5, 0.8, 0.95]))
def test_schedules_share_a_group_exactly_if_their_ranks_are_within_the_critical_difference(
    values, confidence
):
    num_schedules = values.shape[1]
    ranks = average_ranks(values)
    critical = critical_difference(*values.shape, confidence)
    groups = not_told_apart(values, confidence)
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
    groups = not_told_apart(values)
    assert len(groups) > 1
    assert {tuple(ranks[group]) for group in groups} == bars


def test_schedules_that_are_all_told_apart_make_no_group():
    values = np.tile([0.9, 0.5, 0.1], (40, 1))
    assert critical_difference(40, 3) < 1
    assert not_told_apart(values) == []


# --- what is refused ---


@pytest.mark.parametrize(
    "function", [spread, bootstrap_interval, signed_rank_p, holm, probability_of_improvement]
)
@pytest.mark.parametrize("values", NOT_VECTORS, ids=str)
def test_what_is_no_vector_of_finite_numbers_is_refused(function, values):
    with pytest.raises(ValueError, match="expected a vector of finite numbers"):
        function(values)


@pytest.mark.parametrize("function", [bootstrap_interval, probability_of_improvement])
def test_of_nothing_there_is_no_mean(function):
    with pytest.raises(ValueError, match="expected at least one"):
        function([])


@pytest.mark.parametrize(
    "function",
    [interquartile_mean, stratified_bootstrap_interval, average_ranks, friedman_p, nemenyi_p, not_told_apart],
)
@pytest.mark.parametrize("values", NOT_MATRICES, ids=str)
def test_what_is_no_matrix_of_finite_numbers_is_refused(function, values):
    with pytest.raises(ValueError, match="expected a matrix of finite numbers"):
        function(values)


@pytest.mark.parametrize("function", [friedman_p, nemenyi_p, not_told_apart])
@pytest.mark.parametrize("shape", [(1, 3), (5, 2)])
def test_two_schedules_or_one_seed_are_not_tested_by_ranks(function, shape):
    found = f"expected at least 2 seeds x 3 schedules, found {shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=found):
        function(np.zeros(shape))
