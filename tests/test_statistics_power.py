"""The chance that a test decides: against published powers, by hand, and against the simulated tests themselves."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, nct, norm, t, wilcoxon

from lrstudy.analysis.looks import bounds
from lrstudy.analysis.statistics import (
    _attained,
    _chance_of_t_tests,
    chance_of_equivalence,
    chance_to_decide,
    equivalence_p,
    signed_rank_p,
)

LEVEL = 0.05

# --- t tests ---


def test_the_power_of_a_paired_t_test_is_that_of_other_programs():
    """statsmodels; in R it is power.t.test(n = 20, delta = 1, sd = 1, type = "paired", strict = TRUE)."""
    from statsmodels.stats.power import TTestPower

    for num_pairs, delta, power in ((20, 1.0, 0.98859), (10, 0.5, 0.29318), (10, 1.0, 0.80310)):
        found = _chance_of_t_tests(delta, 1 / math.sqrt(num_pairs), num_pairs - 1, 0.025, 0.0, 0.0)
        assert found == pytest.approx(power, abs=1e-5)
        assert found == pytest.approx(TTestPower().power(delta, num_pairs, 0.05), abs=1e-5)


@given(st.floats(0, 6), st.integers(3, 200), st.sampled_from([0.025, 0.001]))
def test_a_difference_is_found_with_the_tails_of_a_noncentral_t(standardized, degrees, tail):
    beyond = t.isf(tail, degrees)
    expected = nct.sf(beyond, degrees, standardized)
    # The other tail is nothing where scipy's is not a number.
    expected += np.nan_to_num(nct.cdf(-beyond, degrees, standardized))
    assert _chance_of_t_tests(standardized, 1.0, degrees, tail, 0.0, 0.0) == pytest.approx(expected, abs=2e-4)


def test_the_power_of_two_one_sided_tests_is_the_published_one():
    """PowerTOST's sampleN.TOST(CV = 0.30): 40 subjects of a 2 x 2 crossover have 0.815845 (Owen's Q)."""
    within_subject = math.sqrt(math.log1p(0.3**2))
    found = _chance_of_t_tests(
        math.log(0.95), within_subject * math.sqrt(2 / 40), 38, 0.0, 0.05, math.log(1.25)
    )
    assert found == pytest.approx(0.815845, abs=2e-6)


# --- what ranks can reach ---


def test_the_level_that_counts_is_the_largest_p_that_ranks_reach():
    # of 2^8 signs of the ranks 1 to 8 the sums 0, 1, 2, 3, 4 have 1, 1, 1, 2, 2
    assert _attained(0.025, 8) == (5 / 256, 3)
    assert _attained(0.05 / 6, 8) == (2 / 256, 1)
    assert _attained(1 / 256, 8) == (1 / 256, 0)
    assert _attained(0.0039, 8) == (0.0, -1)


def test_where_every_sign_must_agree_the_power_is_the_chance_of_that():
    # at 0.01 eight seeds decide only if all are better or all are worse: 2 / 2^8
    for effect in (0.0, 0.5, 1.34):
        expected = norm.cdf(effect) ** 8 + norm.cdf(-effect) ** 8
        found = chance_to_decide(effect, 1.0, 8, 0.01)
        assert found <= expected + 1e-12
        assert found == pytest.approx(expected, abs=0.04)
    assert chance_to_decide(1.34, 1.0, 8, 0.01) == pytest.approx(norm.cdf(1.34) ** 8, abs=1e-5)


def test_fewer_than_eight_seeds_and_levels_out_of_reach_decide_nothing():
    assert chance_to_decide(10.0, 0.1, 7, LEVEL) == 0.0
    assert chance_to_decide(10.0, 0.1, 8, LEVEL) == pytest.approx(1.0)
    assert chance_to_decide(10.0, 0.1, 8, 0.007) == 0.0  # 2 / 2^8 is 0.0078
    assert chance_to_decide(0.1, 0.0, 8, LEVEL) == 1.0
    assert chance_to_decide(0.0, 0.0, 8, LEVEL) == 0.0
    assert chance_to_decide(0.0, 0.0, 8, LEVEL, 0.005) == 1.0
    assert chance_of_equivalence(0.0, 0.006, 7, LEVEL, 0.005) == 0.0
    assert chance_of_equivalence(0.001, 0.0, 10, LEVEL, 0.005) == 1.0
    assert chance_of_equivalence(0.006, 0.0, 10, LEVEL, 0.005) == 0.0
    assert chance_of_equivalence(0.0, 0.001, 8, 0.001, 0.005) == 0.0  # 1 / 2^8 is more than the level


def test_where_only_the_one_sided_p_is_within_reach_equivalence_decides():
    # 8 seeds, level 0.005: 2 / 2^8 is above it, 1 / 2^8 is not
    assert chance_to_decide(0.0, 0.001, 8, 0.005) == 0.0
    found = chance_to_decide(0.0, 0.001, 8, 0.005, 0.005)
    assert found == chance_of_equivalence(0.0, 0.001, 8, 0.005, 0.005) > 0.9


def test_a_looks_two_bounds_are_two_levels():
    """At 8 of 16 planned seeds 2 / 2^8 is out of reach of 0.003, and 1 / 2^8 within reach of 0.0056."""
    two, one = (bounds((8, 16), LEVEL, sides)[0] for sides in (2, 1))
    assert chance_to_decide(0.0, 0.001, 8, two, 0.005) == 0.0
    found = chance_to_decide(0.0, 0.001, 8, two, 0.005, one)
    assert found == chance_of_equivalence(0.0, 0.001, 8, one, 0.005) > 0.9


def test_of_more_than_fifty_seeds_the_level_is_as_good_as_reached():
    before, after = (chance_to_decide(0.4, 1.0, n, LEVEL) for n in (50, 51))
    assert before < after < before + 0.02


# --- invariants ---


@given(
    st.floats(-2, 2), st.floats(0.1, 3), st.integers(8, 60), st.sampled_from([0.05, 0.01]), st.floats(0.1, 3)
)
def test_what_decides_is_a_difference_or_equivalence(mean, spread, num_seeds, level, margin):
    """A mean that is beyond chance and within the margin is one decision, so the chances add up to more."""
    difference = chance_to_decide(mean, spread, num_seeds, level)
    within = chance_of_equivalence(mean, spread, num_seeds, level, margin)
    both = chance_to_decide(mean, spread, num_seeds, level, margin)
    assert max(difference, within) - 1e-12 <= both <= difference + within + 1e-12


@given(st.floats(0, 3), st.integers(8, 60), st.sampled_from([0.05, 0.05 / 3]))
def test_a_larger_effect_is_found_more_often_and_its_sign_does_not_matter(mean, num_seeds, level):
    chance = chance_to_decide(mean, 1.0, num_seeds, level)
    assert 0 <= chance <= 1
    assert chance_to_decide(-mean, 1.0, num_seeds, level) == pytest.approx(chance, abs=1e-12)
    assert chance_to_decide(mean + 0.1, 1.0, num_seeds, level) >= chance - 1e-6


@pytest.mark.parametrize("effect", [0.2, 0.5, 0.7, 1.0])
def test_at_the_level_of_a_study_more_seeds_decide_more_often(effect):
    """So the fewest seeds that have a chance of 80% are the ones from which on it is never less."""
    chances = [chance_to_decide(effect, 1.0, num_seeds, LEVEL) for num_seeds in range(8, 201)]
    assert min(np.diff(chances)) > -0.01
    first = next((place for place, chance in enumerate(chances) if chance >= 0.8), len(chances))
    assert all(chance >= 0.79 for chance in chances[first:])


@given(st.floats(0, 1), st.floats(0.1, 2), st.integers(8, 60))
def test_a_wider_margin_is_shown_more_often_and_a_larger_difference_less(mean, margin, num_seeds):
    chance = chance_of_equivalence(mean, 1.0, num_seeds, LEVEL, margin)
    assert chance_of_equivalence(mean, 1.0, num_seeds, LEVEL, margin + 0.1) >= chance - 1e-9
    assert chance_of_equivalence(mean + 0.1, 1.0, num_seeds, LEVEL, margin) <= chance + 1e-9


# --- against the tests themselves ---

STUDIES = 4000


@functools.cache
def tail_of(num_seeds: int) -> np.ndarray:
    """P(W >= w) of the sum W of the positive ranks, all signs alike, for w from 0: by counting."""
    count = np.ones(1)
    for rank in range(1, num_seeds + 1):
        count = np.pad(count, (0, rank)) + np.pad(count, (rank, 0))
    return count[::-1].cumsum()[::-1] / 2**num_seeds


def one_sided(samples: np.ndarray) -> np.ndarray:
    """The exact signed-rank p of each row (num_studies, num_seeds) without ties, that it lies above 0."""
    ranks = np.abs(samples).argsort(axis=1).argsort(axis=1) + 1
    return tail_of(samples.shape[1])[(ranks * (samples > 0)).sum(axis=1)]


def two_sided(samples: np.ndarray) -> np.ndarray:
    return np.minimum(1.0, 2 * np.minimum(one_sided(samples), one_sided(-samples)))


@functools.cache
def standard(num_seeds: int) -> np.ndarray:
    return np.random.default_rng(num_seeds).standard_normal((STUDIES, num_seeds))


def noise(chance: float) -> float:
    """Four standard errors of a share that was simulated."""
    return 4 * math.sqrt(chance * (1 - chance) / STUDIES) + 1 / STUDIES


def test_the_simulated_p_is_that_of_the_study():
    for row in standard(9)[:20]:
        assert two_sided(row[None])[0] == pytest.approx(signed_rank_p(row), rel=1e-9)
        exact = wilcoxon(row, alternative="greater", method="exact").pvalue
        assert one_sided(row[None])[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("num_seeds", [6, 8, 9, 10, 12, 16, 20])
def test_the_power_is_that_of_the_simulated_test(num_seeds):
    """With the spread taken for known, 10 seeds find half a spread in 24% of studies; they do in 28."""
    looks = (8, 12, 16, 20)
    at_look = [bound for at, bound in zip(looks, bounds(looks, LEVEL), strict=True) if at == num_seeds]
    for effect in (0.0, 0.25, 0.5, 0.75, 1.0, 1.34, 2.0):
        p = two_sided(standard(num_seeds) + effect)
        for level in (LEVEL, LEVEL / 3, 0.005, *at_look):
            found = chance_to_decide(effect, 1.0, num_seeds, level)
            if num_seeds < 8:
                assert found == 0.0
                continue
            decided = np.mean(p <= level)
            allowed = 0.03 if level >= LEVEL / 3 else 0.05
            assert abs(found - decided) <= allowed + noise(decided), (effect, level)
    if num_seeds == 10:
        half = np.mean(two_sided(standard(10) + 0.5) <= LEVEL)
        assert chance_to_decide(0.5, 1.0, 10, LEVEL) == pytest.approx(half, abs=0.02)


@pytest.mark.parametrize("num_seeds", [8, 10, 12, 16, 20])
def test_the_chances_with_a_margin_are_those_of_the_simulated_tests(num_seeds):
    """With the spread taken for known, 10 seeds of 0.6 points show equivalence in 54% of studies; they do in 48."""
    for effect in (0.0, 0.3, 0.5):
        samples = standard(num_seeds) + effect
        p = two_sided(samples)
        for margin in (0.5, 0.7, 5 / 6, 1.0, 1.25, 2.0):
            p_within = np.maximum(one_sided(margin + samples), one_sided(margin - samples))
            for level in (LEVEL, LEVEL / 3):
                shown, either = np.mean(p_within <= level), np.mean((p_within <= level) | (p <= level))
                found = chance_of_equivalence(effect, 1.0, num_seeds, level, margin)
                assert abs(found - shown) <= 0.025 + noise(shown), (effect, margin, level)
                found = chance_to_decide(effect, 1.0, num_seeds, level, margin)
                assert abs(found - either) <= 0.025 + noise(either), (effect, margin, level)
    assert equivalence_p(samples[0], 2.0) == pytest.approx(p_within[0], rel=1e-9)


def test_without_a_difference_the_chance_is_the_size_of_the_test():
    for num_seeds in (8, 10, 20):
        attained, _ = _attained(LEVEL / 2, num_seeds)
        assert chance_to_decide(0.0, 1.0, num_seeds, LEVEL) == pytest.approx(2 * attained, abs=1e-4)


def test_a_rank_sum_has_no_more_ranks_than_fit():
    # 9 seeds at 0.01: sums up to 1, so at most one sign differs
    assert _attained(0.005, 9) == (2 / 512, 1)
    for effect in (0.0, 1.0, 3.0):
        most = sum(binom.cdf(1, 9, norm.cdf(side * effect)) for side in (1, -1))
        assert chance_to_decide(effect, 1.0, 9, 0.01) <= most + 1e-12
