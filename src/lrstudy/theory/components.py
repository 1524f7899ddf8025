"""Connected components of level sets on a grid, and the Lyapunov view of a training."""

import numpy as np
from numpy.typing import ArrayLike


def component_counts(field: ArrayLike, levels: ArrayLike, tolerance: float = 0.0) -> list[dict]:
    """The connected components of {field >= c} and {field <= c} on a grid, for every level c.

    Neighbours share a side or a corner. A component that nowhere exceeds c by more than ``tolerance`` (falls
    below it, for sublevel sets) is no more than the error of the values, and is left out.

    Args:
        field: (rows, columns), values of a loss; one that is not finite counts as above every level.
        levels: (num_levels,).
        tolerance: in the field's unit.

    Returns:
        Per level ``level``, ``superlevel`` and ``sublevel``: numbers of components.
    """
    field = np.asarray(field, dtype=np.float64)
    field = np.where(np.isfinite(field), field, np.inf)
    return [
        {
            "level": float(level),
            "superlevel": _count(field - level, tolerance),
            "sublevel": _count(level - field, tolerance),
        }
        for level in np.asarray(levels, dtype=np.float64)
    ]


def _count(excess: np.ndarray, tolerance: float) -> int:
    from scipy import ndimage

    labels, count = ndimage.label(excess >= 0, structure=np.ones((3, 3)))
    highest = ndimage.maximum(excess, labels, np.arange(1, count + 1)) if count else []
    return int(np.sum(np.asarray(highest) > tolerance))


def levels_of(field: ArrayLike, num_levels: int) -> np.ndarray:
    """``num_levels`` levels between the smallest and largest finite value: evenly in the order of the
    values."""
    field = np.asarray(field, dtype=np.float64)
    shares = (np.arange(num_levels) + 0.5) / num_levels
    return np.quantile(field[np.isfinite(field)], shares)


def rises(losses: ArrayLike) -> dict:
    """How far a sequence of losses (num_epochs,) is from falling at every step.

    Returns:
        ``share``: of the steps in which it rose; ``largest``: the largest rise, 0 if there was none, both
        None for fewer than two losses.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if len(losses) < 2:
        return {"share": None, "largest": None}
    steps = np.diff(losses)
    return {"share": float((steps > 0).mean()), "largest": float(max(0.0, steps.max()))}
