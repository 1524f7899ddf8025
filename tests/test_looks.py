"""Planned looks: the bounds that the field tables, and what they are for, a size that holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from lrstudy.analysis.looks import (
    alpha_spent,
    bounds,
    conditional_power,
    looks_reached,
    p_of_all_looks,
    repeated_p,
)
from lrstudy.analysis.statistics import signed_rank_p

LOOKS = (6, 9, 12, 16, 20)


def test_the_bounds_of_five_equal_looks_are_the_tabled_ones():
    """Lan and DeMets 1983 and every program since: 4.877, 3.357, 2.680, 2.290, 2.031 for a two-sided 0.05."""
    found = [norm.isf(p / 2) for p in bounds((4, 8, 12, 16, 20), 0.05)]
    assert found == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    one_sided = [norm.isf(p) for p in bounds((4, 8, 12, 16, 20), 0.025, sides=1)]
    assert one_sided == pytest.approx(found, abs=1e-6)


def test_one_look_has_the_whole_level():
    assert bounds((10,), 0.05) == (0.05,)
    assert repeated_p([0.03], (10,)) == 0.03


def test_the_level_is_spent_by_the_end_and_hardly_before():
    # 4 (1 - Phi(z_(1 - 0.0125) / sqrt(t))), z = 2.241403
    assert alpha_spent(1.0, 0.05) == pytest.approx(0.05)
    assert alpha_spent(0.25, 0.05) == pytest.approx(4 * norm.sf(2 * 2.241403), rel=1e-4)
    assert alpha_spent(1.0, 0.05, sides=1) == pytest.approx(0.05)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(8, 60), min_size=2, max_size=5, unique=True).map(sorted), st.floats(0.005, 0.2))
def test_no_bound_is_above_the_level_and_a_lower_level_has_lower_ones(looks, level):
    found = bounds(tuple(looks), level)
    assert found[-1] <= level * (1 + 1e-6)
    stricter = bounds(tuple(looks), level / 2)
    assert all(low < high for low, high in zip(stricter, found, strict=True))


def decides(differences: np.ndarray, looks: tuple[int, ...], levels: tuple[float, ...]) -> bool:
    return any(
        look >= 8 and signed_rank_p(differences[:look]) <= level
        for look, level in zip(looks, levels, strict=True)
    )


def test_looking_as_planned_keeps_the_size_and_looking_at_will_does_not():
    samples = np.random.default_rng(0).normal(size=(1500, 20))
    planned = np.mean([decides(sample, LOOKS, bounds(LOOKS, 0.05)) for sample in samples])
    at_will = np.mean([decides(sample, (8, 12, 16, 20), (0.05,) * 4) for sample in samples])
    assert 0.035 <= planned <= 0.06
    assert at_will > 0.09


def test_the_size_holds_for_heavy_tails():
    samples = np.random.default_rng(1).standard_t(3, size=(1500, 20))
    assert np.mean([decides(sample, LOOKS, bounds(LOOKS, 0.05)) for sample in samples]) <= 0.06


def test_large_effects_end_a_study_early_and_small_ones_are_still_found():
    rng, levels = np.random.default_rng(2), bounds(LOOKS, 0.05)
    large = rng.normal(2.27, 1, size=(300, 20))
    assert np.mean([decides(sample, LOOKS[:3], levels[:3]) for sample in large]) > 0.95
    small = rng.normal(0.8, 1, size=(500, 20))
    assert np.mean([decides(sample, LOOKS, levels) for sample in small]) > 0.85


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=5),
    st.sampled_from([0.01, 0.05, 0.1]),
    st.sampled_from([1, 2]),
)
def test_the_repeated_p_is_at_most_a_level_exactly_if_a_look_decides_at_it(p_values, level, sides):
    found = repeated_p(p_values, LOOKS, sides)
    levels = bounds(LOOKS, level, sides)
    ratios = [p / bound for p, bound in zip(p_values, levels, strict=False)]
    if min(abs(ratio - 1) for ratio in ratios) > 0.01:  # not where the two are the same but for rounding
        assert (found <= level) == (min(ratios) <= 1)
    assert repeated_p([*p_values, 1.0][:5], LOOKS, sides) <= found * (1 + 1e-3) or len(p_values) == 5


def test_an_early_look_that_has_nothing_to_spend_at_a_low_level_is_no_obstacle():
    """A first look at 8 of 60 seeds may spend less than any normal value's chance; the end decides alone."""
    first, last = bounds((8, 60), 1e-6)
    assert first < 1e-18
    assert last == pytest.approx(1e-6)
    assert repeated_p([1.0, 1e-8], (8, 60)) == pytest.approx(1e-8, rel=1e-3)


def p_of(values: np.ndarray):
    return lambda chosen: signed_rank_p(values[chosen])


def test_seeds_that_are_added_between_looks_change_no_p_and_later_ones_undo_no_decision():
    seeds = [str(seed) for seed in range(1, 25)]
    values = np.concatenate([np.linspace(0.9, 1.1, 12), -np.linspace(0.9, 1.1, 12)])

    def p(count: int) -> float:
        return p_of_all_looks(p_of(values[:count]), seeds[:count], seeds[:count], LOOKS)

    assert p(7) == 1.0  # a look at six seeds, which are too few
    assert p(12) == p(13) == p(15) <= 0.05
    assert p(16) <= p(12) * 1.001  # though the four after the twelfth say the contrary
    assert p(24) == p(20) <= 0.05  # the plan has ended


def test_without_a_plan_there_is_one_look_at_what_there_is():
    values = np.linspace(1, 2, 8)
    seeds = [str(seed) for seed in range(8)]
    assert p_of_all_looks(p_of(values), seeds, seeds, ()) == 2 / 2**8
    assert p_of_all_looks(p_of(values[:7]), seeds[:7], seeds, ()) == 1.0


def test_a_look_is_reached_when_all_its_seeds_have_run():
    planned = list("123456789")
    assert looks_reached([8, 9, 12], planned, planned) == [8, 9]
    assert looks_reached([8, 9, 12], planned, planned[:8]) == [8]
    assert looks_reached([8, 9], planned, planned[1:]) == []  # the first is missing
    assert looks_reached([], planned, planned[:8]) == []
    assert looks_reached([], planned, [*planned, "10"]) == [9]
    values = np.linspace(1, 2, 8)
    assert p_of_all_looks(p_of(values), planned[:8], planned, (), ran=planned[:8]) == 1.0
    assert p_of_all_looks(p_of(values), planned[:8], planned, (), ran=planned) == 2 / 2**8  # one diverged


def test_a_look_sees_the_first_seeds_of_the_study_whichever_of_them_the_test_has():
    studied = [str(seed) for seed in range(1, 13)]
    seeds = [seed for seed in studied if seed != "3"]  # one pair is left out
    values = np.ones(11)
    expected = repeated_p([1.0, 2 / 2**8, 2 / 2**11], LOOKS)  # at 9 and 12 seeds there are 8 and 11
    assert p_of_all_looks(p_of(values), seeds, studied, LOOKS) == expected


def test_conditional_power_is_the_formula():
    # z 1 at half of the information, end at 1.96: (1 / sqrt(.5) - 1.96) / sqrt(.5) = -0.7719
    found = conditional_power(2 * norm.sf(1.0), 10, 20, 2 * norm.sf(1.96))
    assert found == pytest.approx(norm.cdf(-0.7719), abs=1e-4)
    assert conditional_power(1.0, 10, 20, 0.05) < 0.005
    assert conditional_power(0.001, 16, 20, 0.04) > 0.9
