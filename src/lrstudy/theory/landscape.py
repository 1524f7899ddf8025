"""A plane through weights, and losses on a grid in it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """A plane in the space of weights: ``origin + x axes[0] + y axes[1]``.

    Attributes:
        origin: (P,), the mean of the points that the plane was laid through.
        axes: (2, P), orthonormal; the first shows more of the points' spread.
        coordinates: (num_points, 2), each point's nearest place in the plane.
        explained: (2,), the share of the points' squared distance from their mean that each axis shows.
    """

    origin: Array
    axes: Array
    coordinates: Array
    explained: Array

    def at(self, x: float, y: float) -> Array:
        """The weights (P,) at a place in the plane."""
        return self.origin + x * self.axes[0] + y * self.axes[1]

    def place(self, weights: ArrayLike) -> Array:
        """The coordinates (..., 2) in the plane nearest to weights (..., P)."""
        return (np.asarray(weights, dtype=np.float64) - self.origin) @ self.axes.T


def principal_plane(points: ArrayLike) -> Plane:
    """The plane of the first two principal directions of ``points`` (num_points, P), num_points at least 3.

    Each axis' sign is such that the last point's coordinate is not negative, so that the same points give the
    same picture.

    Raises:
        ValueError: the points lie on one line.
    """
    points = np.asarray(points, dtype=np.float64)
    origin = points.mean(axis=0)
    centred = points - origin
    # Few points of many weights: the eigenvectors of the small Gram matrix give those of the covariance.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    if len(values) < 3 or values[1] <= 1e-12 * values[0]:
        raise ValueError("the points lie on one line: there is no plane of principal directions")
    axes = (vectors[:, :2].T @ centred) / np.sqrt(values[:2, None])
    coordinates = centred @ axes.T
    signs = np.where(coordinates[-1] < 0, -1.0, 1.0)
    explained = values[:2] / np.maximum(values, 0).sum()
    return Plane(origin, axes * signs[:, None], coordinates * signs, explained)


def grid(coordinates: ArrayLike, resolution: int, margin: float) -> tuple[Array, Array]:
    """``resolution`` values on each axis that cover all ``coordinates`` (num_points, 2) and ``margin``
    beyond.

    The margin is a share of the larger extent, on every side of both axes.
    """
    coordinates = np.asarray(coordinates)
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    beyond = margin * (high - low).max()
    x, y = (np.linspace(a - beyond, b + beyond, resolution) for a, b in zip(low, high, strict=True))
    return x, y


def on_grid(
    losses: Callable[[Array], dict[str, float]], plane: Plane, x: ArrayLike, y: ArrayLike
) -> dict[str, Array]:
    """Each of the losses, at every place of the grid: arrays (len(y), len(x))."""
    rows = [[losses(plane.at(a, b)) for a in np.asarray(x)] for b in np.asarray(y)]
    return {name: np.array([[cell[name] for cell in row] for row in rows]) for name in rows[0][0]}
