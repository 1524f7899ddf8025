"""Looking at a study more than once without being misled: planned looks, alpha spending, when to stop.

A study that is tested again whenever seeds were added finds something in the end. So the numbers of seeds at
which one looks are planned, and each look has a bound of its own, strict at first, that keeps the chance of
any false decision at the level. Pure functions.
"""

import functools
import math
from collections.abc import Callable, Collection, Sequence

import numpy as np

from lrstudy.analysis.statistics import MIN_SEEDS


def alpha_spent(fraction: float, level: float, sides: int = 2) -> float:
    """The chance of a false decision up to a look at ``fraction`` (0 to 1) of the planned seeds.

    On each side 2 - 2 Phi(z_(1 - a/2) / sqrt(fraction)) with a = level / sides, which is ``level`` in all at
    fraction 1: the bounds are like those of O'Brien and Fleming 1979. Source: Lan and DeMets 1983.
    """
    from scipy.stats import norm

    return float(sides * 2 * norm.sf(norm.isf(level / sides / 2) / math.sqrt(fraction)))


@functools.lru_cache(maxsize=4096)
def bounds(looks: tuple[int, ...], level: float, sides: int = 2) -> tuple[float, ...]:
    """The largest p that decides at each look.

    Args:
        looks: numbers of seeds, growing; the last one is the plan's end.
        level: of all looks together, above 0, below 1.
        sides: 2 for a two-sided p, 1 for a one-sided one.

    Returns:
        p values of the same number of sides. That of a single look is ``level``.

    The test statistics at the looks are taken as normal with the correlations of sums of independent
    differences. The chance to cross first at look k, which alpha spending prescribes, is integrated over the
    density of what did not cross before. Source: Armitage, McPherson and Rowe 1969; Lan and DeMets 1983.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr  # scipy.stats.norm checks its arguments for longer than it computes

    if len(looks) == 1:
        return (level,)
    largest: list[float] = []
    spent, before, points, weights = 0.0, 0.0, np.zeros(1), np.ones(1)
    for num_seeds in looks:
        fraction = num_seeds / looks[-1]
        scale = math.sqrt(fraction - before)
        now = alpha_spent(fraction, level, sides) / sides

        def excess(
            bound: float,
            points: np.ndarray = points,
            weights: np.ndarray = weights,
            scale: float = scale,
            left: float = now - spent,
        ) -> float:
            return float(weights @ ndtr((points - bound) / scale)) - left

        # An early look may have less to spend, at a low level, than lies beyond nine standard deviations.
        end = 9 * math.sqrt(fraction)
        bound = brentq(excess, -end, end, xtol=1e-9) if excess(end) < 0 else end
        largest.append(min(1.0, sides * float(ndtr(-bound / math.sqrt(fraction)))))
        if num_seeds == looks[-1]:
            break
        grid = np.linspace(min(-end, bound - 1), bound, 401)
        steps = (grid[:, None] - points) / scale
        density = np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi) @ weights / scale
        weights = density * (grid[1] - grid[0])
        weights[[0, -1]] /= 2  # the trapezoidal rule
        points, spent, before = grid, now, fraction
    return tuple(largest)


def repeated_p(p_values: Sequence[float], looks: tuple[int, ...], sides: int = 2) -> float:
    """One p for all looks so far: the smallest level at which one of them would have decided.

    Args:
        p_values: of the first looks, one or more, with so many ``sides``; 1 where nothing could be tested.
        looks: all that are planned.
        sides: as of :func:`bounds`.

    Returns:
        It is at most a level exactly if a look's p is at most its bound at that level, so it is a p value
        however often one looked, and can be adjusted for other tests as any. With a single look it is its p.

    Source: Jennison and Turnbull 2000, chapter 9 (repeated p values).
    """
    if len(looks) == 1:
        return p_values[0]

    def decides(level: float) -> bool:
        return any(p <= bound for p, bound in zip(p_values, bounds(looks, level, sides), strict=False))

    # In the logarithm, and from the same levels for every test, so that the bounds are found once.
    low, high = -9.0, 0.0
    if not decides(10 ** (high - 1e-9)):
        return 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(10**middle) else (middle, high)
    return 10**high


def looks_reached(looks: Sequence[int], planned: Sequence[str], ran: Collection[str]) -> list[int]:
    """The planned looks at which a test may look: those whose seeds have all been run.

    Args:
        looks: numbers of seeds, growing; none: one look, at all the study's seeds.
        planned: the study's seeds, in its order, whether they have been run or not.
        ran: those at which every row of the test has been trained and measured.
    """
    looks = looks or [len(planned)]
    return [look for look in looks if look <= len(planned) and set(planned[:look]) <= set(ran)]


def p_of_all_looks(
    p_of: Callable[[list[int]], float],
    seeds: Sequence[str],
    planned: Sequence[str],
    looks: Sequence[int],
    sides: int = 2,
    ran: Collection[str] | None = None,
) -> float:
    """The p of a test at the planned looks that the study has reached.

    At a look at n seeds the test sees the first n of the study's seeds and no other. So what is added later
    changes no decision, and seeds beyond the last look that was reached decide nothing.

    Args:
        p_of: positions in ``seeds`` -> p with so many ``sides``.
        seeds: at which the test has values.
        planned: the study's seeds, in its order.
        looks: the planned numbers of seeds, growing; none: one look, at all the study's seeds.
        sides: of ``p_of``, as of :func:`bounds`.
        ran: as of :func:`looks_reached`; None: all that are planned.

    Returns:
        :func:`repeated_p`; 1 where no look was reached that has :data:`lrstudy.analysis.statistics.MIN_SEEDS`
        seeds.
    """
    p_values = []
    for look in looks_reached(looks, planned, planned if ran is None else ran):
        chosen = [place for place, seed in enumerate(seeds) if seed in planned[:look]]
        p_values.append(p_of(chosen) if len(chosen) >= MIN_SEEDS else 1.0)
    return repeated_p(p_values, tuple(looks or [len(planned)]), sides) if p_values else 1.0


def conditional_power(p: float, num_seeds: int, planned: int, bound: float) -> float:
    """The chance that the plan's end decides, if the differences go on as they have been so far.

    With z that of the two-sided ``p`` now, c that of ``bound`` (two-sided) at the end and t = num_seeds /
    planned: Phi((z / sqrt(t) - c) / sqrt(1 - t)). Source: Lan and Wittes 1988, under the current trend.

    Args:
        p: two-sided, at ``num_seeds``.
        num_seeds: so far, above 0 and below ``planned``.
        planned: at the end.
        bound: the largest p that decides there.
    """
    from scipy.stats import norm

    t = num_seeds / planned
    return float(norm.cdf((norm.isf(p / 2) / math.sqrt(t) - norm.isf(bound / 2)) / math.sqrt(1 - t)))
