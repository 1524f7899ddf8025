"""Paths between two solutions, and what a loss does on them.

A path is a function of t in [0, 1] to weights. Along it, with the ends' losses included,

    barrier = max over the path - larger end     0: the path stays in the sublevel set of its worse end
    dip     = smaller end - min over the path    0: the path stays in the superlevel set of its better end

so a barrier is an obstacle to connected sublevel sets {L <= c}, a dip one to connected superlevel sets {L >=
c}.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Path = Callable[[float], Tensor]


def line(start: Tensor, end: Tensor) -> Path:
    """(1 - t) start + t end."""
    return lambda t: torch.lerp(start, end, t)


def bezier(start: Tensor, control: Tensor, end: Tensor) -> Path:
    """(1 - t)^2 start + 2 t (1 - t) control + t^2 end. Source: Garipov et al. 2018, arXiv 1802.10026."""
    return lambda t: (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def polyline(corners: Sequence[Tensor]) -> Path:
    """Through all corners in order, each segment taking the same share of [0, 1]."""
    count = len(corners) - 1

    def path(t: float) -> Tensor:
        segment = min(int(t * count), count - 1)
        return torch.lerp(corners[segment], corners[segment + 1], t * count - segment)

    return path


def train_bezier(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    *,
    num_steps: int,
    lr: float,
    rng: np.random.Generator,
) -> Tensor:
    """The control point of the curve of least expected loss, t uniform in [0, 1].

    Each step draws one t, takes the loss' gradient at the curve's point, which is 2 t (1 - t) times as steep
    in the control point, and lets Adam move that. It starts as the middle of the ends: as the straight line.

    Args:
        gradient: weights to the gradient of the loss there, perhaps on a random batch.
        lr: Adam's rate, falling linearly to 0 over the second half of the steps.

    Source: Garipov et al. 2018, arXiv 1802.10026.
    """
    control = ((start + end) / 2).clone()
    optimizer = torch.optim.Adam([control], lr=lr)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / num_steps))
        t = rng.uniform()
        control.grad = 2 * t * (1 - t) * gradient(bezier(start, control, end)(t))
        optimizer.step()
    return control.detach()


def over_the_top(
    start: Tensor,
    end: Tensor,
    *,
    classifier: tuple[slice, slice],
    bias_gradients: tuple[Tensor, Tensor],
    largest_logit: float,
    class_shares: Tensor,
) -> list[Tensor]:
    """Corners of a path on which the cross-entropy is never below both ends: up, across with no features,
    down.

    For a network that ends in a linear layer with a bias, mean cross-entropy on a fixed set of examples, and
    ends whose losses are at most the entropy of the classes' shares:

    1. raise the bias of a class in which the loss does not fall: convex, so it rises all the way;
    2. let the layer's weight matrix go to 0 while that bias outweighs every logit: the features no longer
       matter;
    3. with matrix 0 the loss is at least the entropy of the shares, whatever the bias and all other weights:
       go to
       the other end's;
    4. and down the same way.

    So superlevel sets of such a loss are connected, whatever the optimizer and its schedule: docs/theory.md.

    Args:
        classifier: where the last layer's matrix and bias lie in the vector of weights.
        bias_gradients: the loss' gradient in the bias at either end.
        largest_logit: of the ends, in magnitude, over the examples.
        class_shares: (num_classes,), of the examples.
    """
    matrix, bias = classifier
    up = []
    for weights, gradient in zip((start, end), bias_gradients, strict=True):
        raised_class = int(
            gradient.argmax()
        )  # gradients over the classes sum to 0: the largest is not negative
        # Others' examples lose at least (height - 2 largest logit) each: more than either end's loss by far.
        height = 2 * largest_logit + 20.0 / (1 - class_shares[raised_class].item())
        raised = weights.clone()
        raised[bias][raised_class] += height
        plain = raised.clone()
        plain[matrix] = 0
        up.append((weights, raised, plain))
    return [*up[0], *reversed(up[1])]


def along(
    losses: Callable[[Tensor], dict[str, float]], path: Path, num_points: int
) -> dict[str, list[float]]:
    """Each loss at ``num_points`` evenly spaced t, both ends included."""
    found = [losses(path(float(t))) for t in np.linspace(0, 1, num_points)]
    return {name: [at[name] for at in found] for name in found[0]}


def barrier(losses: ArrayLike) -> float:
    """How far a path's losses (num_points,) rise above its larger end; at least 0, infinite where not
    finite."""
    losses = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(losses).all():
        return float("inf")
    return float(losses.max() - max(losses[0], losses[-1]))


def dip(losses: ArrayLike) -> float:
    """How far a path's losses (num_points,) fall below its smaller end; at least 0."""
    losses = np.asarray(losses, dtype=np.float64)
    return float(min(losses[0], losses[-1]) - np.nanmin(losses))


def worst(losses: dict[str, list[float]]) -> dict[str, float]:
    """The worst case of one path over a family of losses (name -> along the path): the largest barrier and
    dip.

    Sets that are connected uniformly in a parameter (equiconnected) ask for one path that serves all.
    """
    return {
        "barrier": max(barrier(values) for values in losses.values()),
        "dip": max(dip(values) for values in losses.values()),
    }


def pairs(schedules: Sequence[str], seeds: Sequence[int]) -> list[dict]:
    """Which solutions are joined: per schedule each seed with the next; per seed the first schedule with the
    others.

    Returns:
        Per pair ``kind`` (``seeds`` or ``schedules``) and ``ends``, two (schedule, seed).
    """
    by_seed = [
        {"kind": "seeds", "ends": [(schedule, a), (schedule, b)]}
        for schedule in schedules
        for a, b in itertools.pairwise(seeds)
    ]
    by_schedule = [
        {"kind": "schedules", "ends": [(schedules[0], seed), (other, seed)]}
        for other in schedules[1:]
        for seed in seeds
    ]
    return by_seed + by_schedule
