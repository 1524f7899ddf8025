"""Numbers to intervals, ranks and tests: pure functions on arrays, deterministic given their inputs.

Seeds pair the schedules: at one seed all schedules share initial weights and batch order, so differences and
ranks are taken seed by seed. The order of the seeds changes nothing.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spread(values: ArrayLike) -> float | None:
    """Standard deviation of ``values`` (num_seeds,) over seeds, with n - 1; None for one value."""
    values = _vector(values)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of ``values`` (num_seeds,); None for one value.

    mean -+ t sd / sqrt(n), with t the quantile of n - 1 degrees of freedom: of normally distributed values it
    covers the mean as often as it says at any n, where the percentile bootstrap of 95% covers it in 84% of
    samples of 5. Source: Student 1908.
    """
    values = _vector(values)
    if len(values) == 0:
        raise ValueError("expected at least one value")
    if len(values) == 1:
        return None
    quantile = _t_quantile((1 - confidence) / 2, len(values) - 1)
    half = float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def seeds_and_examples_interval(
    right: ArrayLike, other: ArrayLike, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the difference of two accuracies over the seeds *and* the test examples; None for one seed.

    The seeds' interval takes the test split as given. Another one would have had other examples, so both are
    samples here: with d (num_seeds, num_examples) the paired differences, the mean's variance is that of the
    seeds' means over n, plus that of the examples' means over N, less the residual's over n N, which both of
    them hold. t has n - 1 degrees of freedom.

    Args:
        right: (num_seeds, num_examples), whether each example was classified right.
        other: the same of the schedule that it is compared with, at the same seeds and examples.
        confidence: between 0 and 1.

    Raises:
        ValueError: the shapes differ, or there are fewer than two examples.

    Source: the crossed random-effects model; Owen 2007 (The pigeonhole bootstrap) resamples the same two.
    """
    from scipy.stats import t

    d = _matrix(right) - _matrix(other)
    num_seeds, num_examples = d.shape
    if num_examples < 2:
        raise ValueError(f"expected at least two examples, found {num_examples}")
    if num_seeds == 1:
        return None
    mean, seeds, examples = d.mean(), d.mean(axis=1), d.mean(axis=0)
    residual = d - seeds[:, None] - examples + mean
    variance = np.var(seeds, ddof=1) / num_seeds + np.var(examples, ddof=1) / num_examples
    variance -= (residual**2).sum() / ((num_seeds - 1) * (num_examples - 1)) / d.size
    half = float(t.isf((1 - confidence) / 2, num_seeds - 1) * np.sqrt(max(0.0, variance)))
    return float(mean) - half, float(mean) + half


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000
) -> tuple[float, float] | None:
    """Percentile-bootstrap interval of the mean of ``values`` (num_seeds,); None for one value.

    One seed says nothing of the spread over seeds: an interval without width would look like certainty.
    Source: Efron and Tibshirani 1993, chapter 13; resamples by scipy from a fixed seed, of the sorted values.
    """
    values = np.sort(_vector(values))
    if len(values) == 0:
        raise ValueError("expected at least one value")
    if len(values) == 1:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    return percentile_bootstrap((values,), np.mean, confidence, num_resamples)


class StandardizedMean(NamedTuple):
    """A mean effect over samples in units of their spread, its interval, and the effect of each sample."""

    mean: float
    interval: tuple[float, float]
    effects: list[float]


def standardized_mean(
    samples: Sequence[Sequence[float]], confidence: float = 0.95
) -> StandardizedMean | None:
    """The mean over samples of paired differences, each in units of its own spread, all with the same weight.

    The effect of a sample of n differences is g = J mean / sd, with J = 1 - 3 / (4 (n - 1) - 1), which takes
    away its bias; its variance J^2 / n + g^2 / (2 n). The mean's interval is normal. None where a sample has
    fewer than 3 values or no spread. Source: Hedges 1981; Borenstein et al. 2009, chapter 4.
    """
    from scipy.stats import norm

    effects, variances = [], []
    for sample in samples:
        values = _vector(sample)
        n = len(values)
        if n < 3 or np.ptp(_as_on_paper(values)) == 0:
            return None
        unbiased = 1 - 3 / (4 * (n - 1) - 1)
        effects.append(float(unbiased * values.mean() / np.std(values, ddof=1)))
        variances.append(unbiased**2 / n + effects[-1] ** 2 / (2 * n))
    mean = float(np.mean(effects))
    half = float(norm.isf((1 - confidence) / 2) * np.sqrt(np.sum(variances)) / len(effects))
    return StandardizedMean(mean, (mean - half, mean + half), effects)


MIN_SEEDS = 8
"""No test decides with fewer seeds. At 8 the smallest two-sided p is 0.0078: one seed that disagrees, or a
family of three tests, does not yet put 0.05 out of reach."""

Alternative = Literal["two-sided", "greater"]


def smallest_p(num_seeds: int, alternative: Alternative = "two-sided") -> float:
    """The smallest p that the exact signed-rank test can reach: 1 / 2^n on one side, twice that on two."""
    return min(1.0, (2.0 if alternative == "two-sided" else 1.0) / 2**num_seeds)


def signed_rank_p(differences: ArrayLike, alternative: Alternative = "two-sided") -> float:
    """Exact Wilcoxon signed-rank p of paired differences (num_seeds,); zeros are left out.

    ``greater``: the share of all 2^n signs of the ranks whose sum of positive ranks is at least the one seen.
    ``two-sided``: the smaller of that and its mirror image, twice. Ties (equal to 12 decimals) share their
    mean rank and are counted exactly; scipy's "exact" holds without ties only, where it gives the same p. 1
    if no difference is left. Source: Wilcoxon 1945.
    """
    from scipy.stats import rankdata

    paired = _as_on_paper(_vector(differences))
    paired = paired[paired != 0]
    ranks = np.rint(2 * rankdata(np.abs(paired))).astype(int)  # doubled, since mean ranks end in .5
    null = _signed_rank_distribution(tuple(sorted(ranks.tolist())))
    observed = ranks[paired > 0].sum()
    greater = null[observed:].sum()
    if alternative == "greater":
        return float(min(1.0, greater))
    return float(min(1.0, 2 * null[: observed + 1].sum(), 2 * greater))


@functools.lru_cache(maxsize=1024)  # without ties, it is the same for every test of so many seeds
def _signed_rank_distribution(ranks: tuple[int, ...]) -> NDArray[np.float64]:
    """The probability of every sum, from 0, of the ranks (doubled) with a positive sign, all signs alike."""
    null = np.ones(1)
    for rank in ranks:
        null = (np.pad(null, (0, rank)) + np.pad(null, (rank, 0))) / 2
    return null


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """p of the test that paired differences (num_seeds,) are centred within -+ ``margin``.

    Two one-sided exact signed-rank tests, that they lie above -margin and that they lie below margin. Both
    must reject, so the larger one-sided p is the p, without a correction for two tests. Source: Schuirmann
    1987; Berger 1982 (intersection-union tests).
    """
    differences = _vector(differences)
    return max(signed_rank_p(margin + differences, "greater"), signed_rank_p(margin - differences, "greater"))


def chance_to_decide(
    mean: float,
    spread: float,
    num_seeds: int,
    level: float,
    margin: float | None = None,
    one_sided_level: float | None = None,
) -> float:
    """The chance that n seeds decide, if paired differences are normal with this ``mean`` and ``spread``.

    Decided is a difference from 0 (two-sided, at ``level``) or, with a ``margin``, that the differences lie
    within it (two one-sided tests, each at ``one_sided_level``, ``level`` where that is None: the bounds of a
    look are two); a mean can do both, and counts once. 0 below :data:`MIN_SEEDS`; a test whose smallest p is
    above its level has no part in it.

    The signed-rank test of n normal differences has about the power of a t test of n - 1 degrees of freedom
    whose mean has the standard error e = spread / sqrt(3 n / pi) (its efficiency: Hodges and Lehmann 1956),
    at the largest p <= ``level`` that ranks can reach. A difference is then found with the chance that a
    noncentral t of noncentrality mean / e is beyond t_(1 - level / 2) to either side, since the test
    estimates the spread (:func:`_chance_of_t_tests`). Where few signs may differ from the others, that says
    too much. A rank sum of at most w has at most k ranks, k (k + 1) / 2 <= w, so the binomial chance of at
    most k such signs is a bound; with w = 0 it is the power itself, Phi(mean / spread)^n and its mirror
    image.

    Against simulated tests of 8 to 20 differences and effects up to 2 spreads it is off by 5 points at most,
    at levels from 0.05 / 3 by 3 (tests/test_statistics_power.py).
    """
    if num_seeds < MIN_SEEDS:
        return 0.0
    one_sided = level if one_sided_level is None else one_sided_level
    within = 0.0 if margin is None else chance_of_equivalence(mean, spread, num_seeds, one_sided, margin)
    beyond_tail, most = _attained(level / 2, num_seeds)
    if beyond_tail == 0:
        return within
    if spread == 0:
        return max(within, float(mean != 0))
    within_tail = 0.0 if margin is None else _attained(one_sided, num_seeds)[0]
    by_t_tests = _chance_of_t_tests(
        mean, _standard_error(spread, num_seeds), num_seeds - 1, beyond_tail, within_tail, margin or 0.0
    )
    return min(by_t_tests, within + _chance_of_few_signs(mean / spread, num_seeds, most))


def chance_of_equivalence(mean: float, spread: float, num_seeds: int, level: float, margin: float) -> float:
    """The chance that n seeds show paired differences of this mean and spread to lie within ``margin``.

    That both one-sided t tests decide, m + t_(1 - level) s <= margin on either side, of normal differences
    whose standard error and level are those of :func:`chance_to_decide`; the spread is estimated here, too
    (:func:`_chance_of_t_tests`). 0 below :data:`MIN_SEEDS` and where no one-sided p can reach ``level``.
    Against simulated tests it is off by 2 points at most. Source: Schuirmann 1987; Phillips 1990.
    """
    tail, _ = _attained(level, num_seeds)
    if num_seeds < MIN_SEEDS or tail == 0:
        return 0.0
    if spread == 0:
        return float(abs(mean) < margin)
    return _chance_of_t_tests(mean, _standard_error(spread, num_seeds), num_seeds - 1, 0.0, tail, margin)


def _standard_error(spread: float, num_seeds: int) -> float:
    """Of the mean of so many normal differences, as the signed-rank test sees them: efficiency 3 / pi."""
    return spread / math.sqrt(3 * num_seeds / math.pi)


def _chance_of_t_tests(
    mean: float, error: float, degrees: int, beyond_tail: float, within_tail: float, margin: float
) -> float:
    """The chance that a t test finds a difference, or two one-sided ones that it is within ``margin``.

    An estimate m ~ N(mean, error^2), whose estimated error is s = error sqrt(X / f), X ~ chi^2 of f degrees.
    One of |m| > t_(1 - beyond_tail) s and |m| < margin - t_(1 - within_tail) s. Given s that is normal;
    integrated over s it is a noncentral t's tails in the first case and Owen's Q in the second one. A tail of
    0 leaves a test out. Source: Owen 1965, Biometrika 52; Phillips 1990, J. Pharmacokinet. Biopharm. 18.
    """
    from scipy.special import ndtr

    ratios, weights = _estimated_errors(degrees)
    beyond = _t_quantile(beyond_tail, degrees) * error * ratios
    within = np.maximum(0.0, margin - _t_quantile(within_tail, degrees) * error * ratios)
    between = sum(
        ndtr((beyond - side * mean) / error) - ndtr((within - side * mean) / error) for side in (1, -1)
    )
    chance = weights @ np.where(within >= beyond, 1.0, 1.0 - between)
    return float(np.clip(chance, 0.0, 1.0))


@functools.lru_cache(maxsize=1024)
def _estimated_errors(degrees: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights (num_points,) of sqrt(X / f), X ~ chi^2 of f degrees, from X's quantiles."""
    from scipy.special import gammaincinv

    points, weights = _gauss_legendre()
    return np.sqrt(2 * gammaincinv(degrees / 2, points) / degrees), weights


@functools.lru_cache(maxsize=1)
def _gauss_legendre(num_points: int = 128) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights (num_points,) that integrate over 0 to 1."""
    points, weights = np.polynomial.legendre.leggauss(num_points)
    return (points + 1) / 2, weights / 2


@functools.lru_cache(maxsize=4096)
def _attained(tail: float, num_seeds: int) -> tuple[float, int]:
    """The largest one-sided p <= ``tail`` of the signed-rank test without ties, and the rank sum that has it.

    0 and -1 where there is none. Of more than 50 seeds it is ``tail`` itself, and the sum of all ranks: there
    are so many p that the next one is nearer to it than the power is known.
    """
    if num_seeds > 50:
        return tail, num_seeds * (num_seeds + 1) // 2
    null = _signed_rank_distribution(tuple(range(2, 2 * num_seeds + 1, 2)))[::2]  # which doubles the ranks
    reached = np.cumsum(null)
    reached = reached[reached <= tail]
    return (float(reached[-1]), len(reached) - 1) if len(reached) else (0.0, -1)


def _chance_of_few_signs(standardized: float, num_seeds: int, most: int) -> float:
    """The chance that the ranks of one sign can have a sum of at most ``most``: so many signs or fewer.

    ``standardized``: mean over spread of the normal differences.
    """
    from scipy.special import bdtr, ndtr

    few = min((math.isqrt(8 * most + 1) - 1) // 2, num_seeds)
    return float(sum(bdtr(few, num_seeds, ndtr(side * standardized)) for side in (1, -1)))


def binomial_chance(share: float, least: float, num_seeds: int, level: float) -> float:
    """The chance that n runs show a ``share`` of events to be above ``least``: exact binomial, two-sided.

    It is decided by so many events that so many or more have at most level / 2 under ``least``. 0 below
    :data:`MIN_SEEDS` and where not even n of n are enough.
    """
    from scipy.stats import binom

    if num_seeds < MIN_SEEDS:
        return 0.0
    critical = int(binom.isf(level / 2, num_seeds, least)) + 1
    return float(binom.sf(critical - 1, num_seeds, share)) if critical <= num_seeds else 0.0


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p values (num_tests,): controls the chance of any false positive.

    The i-th smallest of m (from 0) becomes the largest of (m - j) p_j over j <= i, at most 1. Source: Holm
    1979; statsmodels.
    """
    import gc

    from statsmodels.stats.multitest import multipletests

    # multipletests collects garbage at each call, which takes longer than all else that compare does; what
    # was there before is kept out of it.
    gc.freeze()
    try:
        return multipletests(_vector(p_values), method="holm")[1]
    finally:
        gc.unfreeze()


def probability_of_improvement(differences: ArrayLike) -> float:
    """Share of seeds (num_seeds,) at which the difference is above 0, ties counting one half."""
    differences = _vector(differences)
    if len(differences) == 0:
        raise ValueError("expected at least one difference")
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Mean over seeds of the rank within each seed: (num_seeds, num_schedules) -> (num_schedules,).

    Rank 1 has the highest value; ties (equal to 12 decimals) share their mean rank. Source: Demsar 2006.
    """
    from scipy.stats import rankdata

    return rankdata(-_as_on_paper(_matrix(values)), axis=1).mean(axis=0)


class Friedman(NamedTuple):
    """A p and how it was found."""

    p: float
    method: str


def friedman_p(values: ArrayLike) -> Friedman:
    """Friedman's test that all schedules rank alike, from values (num_seeds, num_schedules).

    The statistic is the sum over schedules of the squared rank sums (ties share their mean rank); p the share
    of all permutations of the ranks within each seed whose statistic is at least the one seen. All are
    enumerated (``exact``): the rank sums, sorted since the schedules are exchangeable, seed by seed with
    their probabilities. Where these are too many (from about 5 schedules and 12 seeds), 100,000 permutations
    from a fixed seed are drawn, and the one seen counts as one of them.

    Raises:
        ValueError: fewer than 3 schedules or 2 seeds.

    Source: Friedman 1937; the chi-square approximation is rough for few seeds.
    """
    from scipy.stats import rankdata

    ranks = np.rint(2 * rankdata(_blocks(values), axis=1)).astype(np.int64)
    observed = int((ranks.sum(axis=0) ** 2).sum())
    exact = _friedman_by_enumeration(ranks, observed)
    if exact is not None:
        return Friedman(exact, "exact")
    rng, count = np.random.default_rng(0), 100_000
    sums = np.zeros((count, ranks.shape[1]), dtype=np.int64)
    for row in ranks:
        sums += row[np.argsort(rng.random(sums.shape), axis=1)]
    reached = int(((sums**2).sum(axis=1) >= observed).sum())
    return Friedman((1 + reached) / (1 + count), f"{count:,} random permutations")


def _friedman_by_enumeration(ranks: NDArray[np.int64], observed: int) -> float | None:
    """The exact p; None where there are too many sums to look at."""
    enumerated = _rank_sums(tuple(sorted(tuple(row) for row in np.sort(ranks, axis=1).tolist())))
    if enumerated is None:
        return None
    sums, chances = enumerated
    return float(min(1.0, chances[(sums**2).sum(axis=1) >= observed].sum()))


@functools.lru_cache(maxsize=64)  # the same for all models of a study but for ties, which come last
def _rank_sums(
    blocks: tuple[tuple[int, ...], ...], most: int = 3_000_000
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """The sums (num_sums, num_schedules), each sorted, of ranks that stand in any order, and their chances.

    None where a step would have more than ``most`` sums to look at.
    """
    *before, block = blocks
    num_schedules = len(block)
    base = 2 * num_schedules * len(blocks) + 1
    if math.factorial(num_schedules) > most or num_schedules * math.log2(base) > 62:
        return None
    reached_before = (
        _rank_sums(tuple(before)) if before else (np.zeros((1, num_schedules), np.int64), np.ones(1))
    )
    if reached_before is None:
        return None
    sums, chances = reached_before
    orders = np.array(list(set(itertools.permutations(block))))
    if len(sums) * len(orders) > most:
        return None
    digits = base ** np.arange(num_schedules, dtype=np.int64)
    reached = np.sort((sums[:, None] + orders).reshape(-1, num_schedules), axis=1)
    _, first, which = np.unique(reached @ digits, return_index=True, return_inverse=True)
    summed = np.bincount(which, np.repeat(chances / len(orders), len(orders)))
    return reached[first], summed.astype(np.float64)  # NumPy says that it only counts; of weights it is so


def smallest_friedman_p(num_seeds: int, num_schedules: int) -> float:
    """The smallest p that :func:`friedman_p` can reach exactly: all seeds agree, 1 / (k!)^(n - 1)."""
    return float(math.factorial(num_schedules)) ** (1 - num_seeds)


def critical_difference(num_seeds: int, num_schedules: int, confidence: float = 0.95) -> float:
    """Nemenyi's critical difference: average ranks farther apart than this are distinguished.

    q sqrt(k (k + 1) / (6 n)), with q the ``confidence`` quantile of the studentized range of k and infinitely
    many degrees of freedom, over sqrt(2). Above k - 1 no two schedules can be distinguished, whatever their
    values. Source: Nemenyi 1963; Demsar 2006.
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(confidence, num_schedules, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(num_schedules * (num_schedules + 1) / (6 * num_seeds)))


def nemenyi_p(values: ArrayLike) -> NDArray[np.float64]:
    """Nemenyi's p of every pair of schedules: (num_seeds, num_schedules) -> (num_schedules, num_schedules).

    Corrected for all pairs; 1 on the diagonal.

    Raises:
        ValueError: fewer than 3 schedules or 2 seeds.

    Source: Nemenyi 1963; scikit-posthocs.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman

    return posthoc_nemenyi_friedman(_blocks(values)).to_numpy()


def not_distinguished(values: ArrayLike, confidence: float = 0.95) -> list[list[int]]:
    """The bars of the critical-difference diagram: groups of schedules that :func:`nemenyi_p` can't part.

    Args:
        values: (num_seeds, num_schedules), higher is better.
        confidence: a pair whose p is at most 1 - confidence is distinguished.

    Returns:
        Columns of ``values``, the best rank first; the largest groups only, none of a single schedule. A
        schedule in no group is distinguished from all others.

    Raises:
        ValueError: fewer than 3 schedules or 2 seeds.

    Source: Demsar 2006.
    """
    alike = nemenyi_p(values) > 1 - confidence
    order = np.argsort(average_ranks(values), kind="stable")
    groups: list[list[int]] = []
    end = 0
    # p falls as two ranks part, so a group is a run of neighbours whose first and last are alike.
    for start, first in enumerate(order):
        reach = 1 + max(place for place, other in enumerate(order) if alike[first, other])
        if reach > max(end, start + 1):
            groups.append([int(column) for column in order[start:reach]])
            end = reach
    return groups


def median_time(times: ArrayLike) -> float:
    """The median of times to an event (num_seeds,), infinite where it never came: none is left out.

    The earliest time by which at least half of the runs had the event, as survival analysis has it: the
    ceil(n / 2)-th in order. With an even number of runs it is the lower of the two in the middle, so that it
    is infinite only where more than half never got there. Source: Kaplan and Meier 1958, without censoring.
    """
    times = np.sort(_times(times))
    if len(times) == 0:
        raise ValueError("expected at least one time")
    return float(times[(len(times) - 1) // 2])


def median_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of the median of values (n,), infinite ones among them, from their order alone.

    From the k-th smallest to the k-th largest, with the largest k for which a binomial of n and 1/2 is below
    k with a chance of at most (1 - confidence) / 2: it covers the median at least as often as it says,
    whatever the distribution. None where not even the smallest and the largest do: with fewer than 6 values
    at 95%. Source: Conover 1999, section 3.2; scipy.stats.quantile_test.
    """
    values = np.sort(_times(values))
    if len(values) == 0:
        raise ValueError("expected at least one value")
    ranks = _median_ranks(len(values), confidence)
    return ranks and (float(values[ranks[0]]), float(values[ranks[1]]))


@functools.cache  # a comparison asks hundreds of times for the same few numbers of values
def _median_ranks(count: int, confidence: float) -> tuple[int, int] | None:
    """Where the ends of the interval of ``count`` sorted values stand: infinite ones have no quantile."""
    from scipy.stats import quantile_test

    ranks = quantile_test(np.arange(count), q=0, p=0.5).confidence_interval(confidence)
    if np.isnan(ranks.low) or np.isnan(ranks.high):
        return None
    return int(ranks.low), int(ranks.high)


class Profile(NamedTuple):
    """Factors of the lowest cost (num_factors,) from 1, and by factor and schedule the share of problems."""

    factors: NDArray[np.float64]
    shares: NDArray[np.float64]


def performance_profile(costs: ArrayLike) -> Profile:
    """For each schedule the share of problems that it solves within a factor of the cheapest schedule's cost.

    With r_ps = t_ps / min_s t_ps: rho_s(tau) = share of problems p with r_ps <= tau. At 1 it is the share at
    which a schedule is the cheapest, at the end the share that it solves at all. A problem that no schedule
    solves stays in the count, so that the shares may all end below 1.

    Args:
        costs: (num_problems, num_schedules), above 0; infinite where a problem was not solved.

    Returns:
        ``factors``: 1 and every finite ratio, growing; equal to 12 decimals is equal. ``shares``:
        (num_factors, num_schedules).

    Raises:
        ValueError: no problem, no schedule, or a cost that is not above 0.

    Source: Dolan and More 2002, Mathematical Programming 91; AlgoPerf, Dahl et al. 2023, arXiv 2306.07179.
    """
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.size == 0 or not (costs > 0).all():
        raise ValueError(f"expected a matrix of costs above 0, found shape {costs.shape}: {costs}")
    ratios = np.full(costs.shape, np.inf)
    solved = np.isfinite(costs)
    np.divide(costs, costs.min(axis=1, keepdims=True), out=ratios, where=solved)
    ratios = _as_on_paper(ratios)
    factors = np.unique(np.append(ratios[solved], 1.0))
    return Profile(factors, (ratios[None] <= factors[:, None, None]).mean(axis=1))


def percentile_bootstrap(
    samples: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., NDArray[np.float64]],
    confidence: float,
    num_resamples: int,
) -> tuple[float, float]:
    """Percentile-bootstrap interval of ``statistic(*samples, axis)``, each sample (n_i,) resampled by itself.

    Source: Efron and Tibshirani 1993, chapter 13; resamples by scipy from a fixed seed.
    """
    from scipy.stats import bootstrap

    interval = bootstrap(
        samples,
        statistic,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@functools.lru_cache(maxsize=4096)
def _t_quantile(tail: float, degrees: int) -> float:
    """What Student's t of so many degrees of freedom exceeds with the chance ``tail``; infinite for 0."""
    from scipy.special import stdtrit

    return -float(stdtrit(degrees, tail)) if tail > 0 else math.inf


def _as_on_paper(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of correct examples that are equal on paper may differ in their last bits."""
    return np.round(values, 12)


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected a vector of finite numbers, found shape {values.shape}: {values}")
    return values


def _times(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or np.isnan(values).any():
        raise ValueError(f"expected a vector of times, found shape {values.shape}: {values}")
    return values


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected a matrix of finite numbers, found shape {values.shape}: {values}")
    return values


def _blocks(values: ArrayLike) -> NDArray[np.float64]:
    values = _as_on_paper(_matrix(values))
    if values.shape[0] < 2 or values.shape[1] < 3:
        raise ValueError(
            f"expected at least 2 seeds x 3 schedules, found {values.shape[0]} x {values.shape[1]}"
        )
    return values
