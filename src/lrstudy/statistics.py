"""Numbers to intervals, ranks and tests: pure functions on arrays, deterministic given their inputs.

Seeds pair the schedules: at one seed all schedules share initial weights and batch order, so differences and
ranks are taken seed by seed. The order of the seeds changes nothing.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spread(values: ArrayLike) -> float | None:
    """Standard deviation of ``values`` (num_seeds,) over seeds, with n - 1; None for one value."""
    values = _vector(values)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


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


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all ``values`` (num_seeds, num_models), pooled.

    Of N values the floor(N / 4) lowest and as many of the highest are left out, so that a single run that
    failed does not decide. Source: Agarwal et al. 2021 (arXiv 2108.13264); scipy.
    """
    from scipy.stats import trim_mean

    return float(trim_mean(_matrix(values), 0.25, axis=None))


def stratified_bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000
) -> tuple[float, float] | None:
    """Percentile-bootstrap interval of :func:`interquartile_mean`; None for one seed.

    Args:
        values: (num_seeds, num_models).
        confidence: between 0 and 1.
        num_resamples: each draws num_seeds values with replacement from every model by itself, so each model
            keeps its share of the pool.

    Source: Agarwal et al. 2021; resamples by scipy from a fixed seed, of the sorted values.
    """
    from scipy.stats import trim_mean

    values = np.sort(_matrix(values), axis=0)
    if len(values) == 1:
        return None

    def pooled(*models: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return trim_mean(np.concatenate(models, axis=axis), 0.25, axis=axis)

    if (np.ptp(values, axis=0) == 0).all():
        return (interquartile_mean(values),) * 2
    return percentile_bootstrap(tuple(values.T), pooled, confidence, num_resamples)


def smallest_p(num_seeds: int) -> float:
    """The smallest two-sided p that the exact signed-rank test can reach: 2 / 2^n."""
    return min(1.0, 2.0 / 2**num_seeds)


def signed_rank_p(differences: ArrayLike) -> float:
    """Exact two-sided Wilcoxon signed-rank p of paired differences (num_seeds,); zeros are left out.

    The share of all 2^n signs of the ranks whose sum of positive ranks is as far out on one side, twice. Ties
    (equal to 12 decimals) share their mean rank and are counted exactly; scipy's "exact" holds without ties
    only, where it gives the same p. 1 if no difference is left. Source: Wilcoxon 1945.
    """
    from scipy.stats import rankdata

    differences = _as_on_paper(_vector(differences))
    differences = differences[differences != 0]
    ranks = np.rint(2 * rankdata(np.abs(differences))).astype(int)  # doubled, since mean ranks end in .5
    null = np.ones(1)  # null[s]: probability of the sum s
    for rank in ranks:
        null = (np.pad(null, (0, rank)) + np.pad(null, (rank, 0))) / 2
    observed = ranks[differences > 0].sum()
    return float(min(1.0, 2 * null[: observed + 1].sum(), 2 * null[observed:].sum()))


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


def friedman_p(values: ArrayLike) -> float:
    """p of Friedman's test that all schedules rank alike, from values (num_seeds, num_schedules).

    With n seeds and k schedules of average ranks R_j, 12 n / (k (k + 1)) (sum of R_j^2 - k (k + 1)^2 / 4),
    corrected for ties, against chi-square with k - 1 degrees of freedom: an approximation that is rough for
    few seeds. 1 where every seed ties all schedules.

    Raises:
        ValueError: fewer than 3 schedules or 2 seeds.

    Source: Friedman 1937; scipy.
    """
    from scipy.stats import friedmanchisquare

    values = _blocks(values)
    if (np.ptp(values, axis=1) == 0).all():
        return 1.0
    return float(friedmanchisquare(*values.T).pvalue)


def smallest_friedman_p(num_seeds: int, num_schedules: int) -> float:
    """The smallest p that :func:`friedman_p` can reach: all seeds agree, the statistic is n (k - 1)."""
    from scipy.stats import chi2

    return float(chi2.sf(num_seeds * (num_schedules - 1), num_schedules - 1))


def critical_difference(num_seeds: int, num_schedules: int, confidence: float = 0.95) -> float:
    """Nemenyi's critical difference: average ranks farther apart than this are told apart.

    q sqrt(k (k + 1) / (6 n)), with q the ``confidence`` quantile of the studentized range of k and infinitely
    many degrees of freedom, over sqrt(2). Above k - 1 no two schedules can be told apart, whatever their
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


def not_told_apart(values: ArrayLike, confidence: float = 0.95) -> list[list[int]]:
    """The bars of the critical-difference diagram: groups of schedules that :func:`nemenyi_p` can't part.

    Args:
        values: (num_seeds, num_schedules), higher is better.
        confidence: a pair whose p is at most 1 - confidence is told apart.

    Returns:
        Columns of ``values``, the best rank first; the largest groups only, none of a single schedule. A
        schedule in no group is told apart from all others.

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

    found = bootstrap(
        samples,
        statistic,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _as_on_paper(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of correct examples that are equal on paper may differ in their last bits."""
    return np.round(values, 12)


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected a vector of finite numbers, found shape {values.shape}: {values}")
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
