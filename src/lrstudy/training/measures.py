"""What a training's history and its confusion say beyond single numbers: pure functions."""

from collections.abc import Sequence

import numpy as np

AVERAGES = ("ema", "tail_average")
"""The averages of its weights that a training tracks: see :mod:`lrstudy.training.averages`."""

WINDOW = 3
"""Epochs of a running median."""

RISE = 2.0
"""By how many standard errors a loss must have risen to count."""


def balanced_accuracy(confusion: Sequence[Sequence[int]]) -> float:
    """Mean over the classes of their share of right predictions; a class without examples is left out.

    Args:
        confusion: examples by class and predicted class, (num_classes, num_classes).
    """
    counts = np.asarray(confusion)
    of_class = counts.sum(axis=1)
    return float((counts.diagonal()[of_class > 0] / of_class[of_class > 0]).mean())


def last_fifth(count: int) -> int:
    """How many of ``count`` epochs or updates the last fifth has: whole ones, at least one."""
    return max(1, count // 5)


def tail_mean(values: Sequence[float]) -> float:
    """Mean of a metric over the last fifth of its epochs: less of a draw than the last epoch alone."""
    return float(np.mean(values[-last_fifth(len(values)) :]))


def running_median(values: Sequence[float]) -> np.ndarray:
    """Medians of every three neighbouring values: float64 (n - 2,), the first of epochs 1 to 3.

    Windows at the ends are not cut short: a shorter median would follow a single epoch's noise just where
    a training ends. Fewer than three values have none.
    """
    if len(values) < WINDOW:
        return np.empty(0)
    return np.median(np.lib.stride_tricks.sliding_window_view(np.asarray(values, float), WINDOW), axis=1)


def turn(losses: Sequence[float], standard_errors: Sequence[float]) -> tuple[int | None, float] | None:
    """Where the smoothed loss was lowest if it rose later, and how much higher it ended.

    The loss is smoothed by :func:`running_median`; each median stands for the middle of its epochs and has
    the standard error of the epoch whose value it is. A rise from ``a`` to ``b`` counts only above
    ``2 sqrt(error_a^2 + error_b^2)``. That takes both errors for independent. They are of the same examples,
    mostly hard or easy in both epochs, so the difference's own error is smaller: a rise is found too rarely
    rather than too often.

    Args:
        losses: by epoch, n of them.
        standard_errors: of each, over the examples.

    Returns:
        The epoch (from 1) of the lowest median if a later one is higher by more than the error, else None;
        and the last median minus the lowest if that is more than the error, else 0. None for fewer than four
        epochs: one median has nothing to rise from.
    """
    smooth = running_median(losses)
    if len(smooth) < 2:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(losses, float), WINDOW)
    of_median = np.argsort(windows, axis=1, kind="stable")[:, WINDOW // 2]
    errors = np.asarray(standard_errors, float)[np.arange(len(smooth)) + of_median]
    lowest = int(np.argmin(smooth))
    rises = smooth[lowest:] - smooth[lowest]
    counts = rises > RISE * np.hypot(errors[lowest:], errors[lowest])
    middle = lowest + 1 + WINDOW // 2
    return (middle if counts.any() else None), float(rises[-1]) if counts[-1] else 0.0


def num_steps(num_examples: int, size: int) -> int:
    """Updates in an epoch: whole batches, at least one."""
    return max(1, num_examples // size)
