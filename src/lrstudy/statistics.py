"""Numbers to intervals and tests: pure functions on arrays, deterministic given their inputs.

Seeds pair the schedules: at one seed all schedules share initial weights and batch order, so differences are
taken seed by seed.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile-bootstrap interval of the mean of ``values`` (num_seeds,); the point itself for one value.

    Source: Efron and Tibshirani 1993, chapter 13; resamples by scipy from a fixed seed.
    """
    values = _finite(values)
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def smallest_p(num_seeds: int) -> float:
    """The smallest two-sided p that the exact signed-rank test can reach: 2 / 2^n."""
    return min(1.0, 2.0 / 2**num_seeds)


def signed_rank_p(differences: ArrayLike) -> float:
    """Exact two-sided Wilcoxon signed-rank p of paired differences (num_seeds,); zeros are left out.

    1 if no difference is left. Source: Wilcoxon 1945; scipy's exact distribution.
    """
    differences = _finite(differences)
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, method="exact").pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p values (num_tests,): controls the chance of any false positive. Source: Holm 1979."""
    p_values = _finite(p_values)
    if len(p_values) == 0:
        return p_values
    from statsmodels.stats.multitest import multipletests

    return multipletests(p_values, method="holm")[1]


def probability_of_improvement(differences: ArrayLike) -> float:
    """Share of seeds (num_seeds,) at which the difference is above 0, ties counting one half."""
    differences = _finite(differences)
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected a vector of finite numbers, found shape {values.shape}: {values}")
    return values
