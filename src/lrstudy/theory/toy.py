"""The toy model of late decay: f(w; x) = ||w||^g (w . x), squared loss, fewer examples than weights.

With v = ||w||^g w the model is linear in v, so the minima of the training loss are a manifold: {w : X v = y}.
Its point of smallest norm belongs to v_min = X^+ y. Labels get fresh noise at every update: a gradient noise
that lasts after the examples are interpolated, and that moves w along the minima. The formulas of this module
that are not the model's own are derived in docs/theory.md.

Source: the model is that of Ren, Ma and Ying 2024 (arXiv 2401.11600), known to us from a summary; data, noise
and everything that follows from them are ours.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrstudy.recipe.config import ToyParams
from lrstudy.theory.effects import paired, summary

Array = NDArray[np.float64]

_STREAMS = {"problem": 0, "start": 1, "updates": 2}  # independent random numbers of one seed
_CHUNK = 1024  # updates whose random numbers are drawn at once


@dataclass(frozen=True)
class Problems:
    """One regression problem per seed: n examples of d Gaussian inputs whose labels a linear teacher gives.

    Attributes:
        inputs: (num_seeds, n, d), standard normal.
        labels: (num_seeds, n), without noise.
        teacher: (num_seeds, d), of length 1: the v that has no test loss.
        minimum: (num_seeds, d), v_min = X^+ y.
    """

    inputs: Array
    labels: Array
    teacher: Array
    minimum: Array


def draw_problems(num_examples: int, dimension: int, seeds: Sequence[int]) -> Problems:
    """The problems of ``seeds``; num_examples below dimension, so that the labels can be interpolated."""
    drawn, teachers = [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, _STREAMS["problem"]])
        drawn.append(rng.standard_normal((num_examples, dimension)))
        one = rng.standard_normal(dimension)
        teachers.append(one / np.linalg.norm(one))
    inputs, teacher = np.array(drawn), np.array(teachers)
    labels = np.einsum("rnd,rd->rn", inputs, teacher)
    minimum = np.einsum("rdn,rn->rd", np.linalg.pinv(inputs), labels)
    return Problems(inputs, labels, teacher, minimum)


def effective(weights: Array, powers: ArrayLike) -> Array:
    """v = ||w||^g w of weights (..., d); ``powers`` g broadcasts with (...)."""
    return np.linalg.norm(weights, axis=-1, keepdims=True) ** np.asarray(powers)[..., None] * weights


def weights_of(v: Array, powers: ArrayLike) -> Array:
    """The w of v (..., d), v not 0: w = v / ||v||^(g / (1 + g)); undoes :func:`effective`."""
    g = np.asarray(powers, dtype=np.float64)[..., None]
    return v / np.linalg.norm(v, axis=-1, keepdims=True) ** (g / (1 + g))


def smallest_norm(problems: Problems, powers: ArrayLike) -> Array:
    """||w|| of the minimum-norm solution, ||v_min||^(1 / (1 + g)); powers (..., 1) -> (..., num_seeds)."""
    return np.linalg.norm(problems.minimum, axis=-1) ** (1 / (1 + np.asarray(powers, dtype=np.float64)))


def test_loss(problems: Problems, weights: Array, powers: ArrayLike) -> Array:
    """Expected loss on new inputs, E (f(x) - teacher . x)^2 / 2 = ||v - teacher||^2 / 2, exact."""
    return ((effective(weights, powers) - problems.teacher) ** 2).sum(axis=-1) / 2


def train_loss(problems: Problems, weights: Array, powers: ArrayLike) -> Array:
    """Mean over the examples of (f - y)^2 / 2, the labels without noise."""
    return (_residuals(problems, effective(weights, powers)) ** 2).mean(axis=-1) / 2


def hessian_trace(problems: Problems, weights: Array, powers: ArrayLike) -> Array:
    """Trace of the training loss' Hessian at weights (..., num_seeds, d).

    Mean over the examples of ||grad f||^2 + (f - y) laplace f, with r = ||w|| and p = w . x
        ||grad f||^2 = r^(2g) ||x||^2 + (g^2 + 2g) r^(2g - 2) p^2,   laplace f = g (g + d) r^(g - 2) p.
    """
    g = np.asarray(powers, dtype=np.float64)[..., None]
    r = np.linalg.norm(weights, axis=-1)[..., None]
    products = np.einsum("rnd,...rd->...rn", problems.inputs, weights)
    lengths = (problems.inputs**2).sum(axis=-1)
    squared = r ** (2 * g) * lengths + (g**2 + 2 * g) * r ** (2 * g - 2) * products**2
    laplace = g * (g + weights.shape[-1]) * r ** (g - 2) * products
    return (squared + (r**g * products - problems.labels) * laplace).mean(axis=-1)


def start(problems: Problems, powers: Sequence[float], initial_norm: float, seeds: Sequence[int]) -> Array:
    """Initial weights (num_powers, num_seeds, d): a random direction per seed, ``initial_norm`` times the
    smallest."""
    directions = np.array(
        [
            np.random.default_rng([seed, _STREAMS["start"]]).standard_normal(problems.inputs.shape[-1])
            for seed in seeds
        ]
    )
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return initial_norm * smallest_norm(problems, np.asarray(powers)[:, None])[..., None] * directions


@dataclass(frozen=True)
class Trajectories:
    """What :func:`descend` found.

    Attributes:
        weights: (num_powers, num_decays, num_seeds, d), after the last update; not finite where it diverged.
        steps: (num_records,), updates done at each record.
        norms: (num_records, num_powers, num_decays, num_seeds), ||w|| at each record.
    """

    weights: Array
    steps: NDArray[np.int64]
    norms: Array


def descend(
    problems: Problems,
    powers: Sequence[float],
    decay_steps: Sequence[int],
    initial: Array,
    *,
    base_lr: float,
    decay_factor: float,
    noise: float,
    num_steps: int,
    seeds: Sequence[int],
    num_records: int = 1,
) -> Trajectories:
    """SGD with label noise: all powers, decay times and seeds side by side in one array.

    At update t an example i is drawn and its label gets noise e ~ N(0, noise^2):
    w <- w - lr (f(x_i) - y_i - e) grad f(x_i), with lr = base_lr before the decay's step and base_lr *
    decay_factor from it on. For a seed, all powers and decay times see the same examples and noise. Every run
    has ``num_steps`` updates, whenever it decays.

    Args:
        powers: g of each run.
        decay_steps: the update from which the rate is lower; ``num_steps`` never decays.
        initial: (num_powers, num_seeds, d).
        noise: standard deviation of the label noise.
        num_records: how often the norms are kept, evenly, the end included.
    """
    g = np.asarray(powers, dtype=np.float64)[:, None, None]
    decays = np.asarray(decay_steps)
    w = np.repeat(initial[:, None], len(decays), axis=1)
    rngs = [np.random.default_rng([seed, _STREAMS["updates"]]) for seed in seeds]
    num_seeds, num_examples, _ = problems.inputs.shape
    rows = np.arange(num_seeds)
    kept = {int(step) for step in np.linspace(0, num_steps, num_records + 1).round()[1:]}
    steps, norms = [], []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in range(num_steps):
            place = step % _CHUNK
            if place == 0:
                count = min(_CHUNK, num_steps - step)
                examples = np.array([rng.integers(num_examples, size=count) for rng in rngs])
                errors = noise * np.array([rng.standard_normal(count) for rng in rngs])
            drawn = examples[:, place]
            x = problems.inputs[rows, drawn]
            y = problems.labels[rows, drawn] + errors[:, place]
            lr = np.where(step < decays, base_lr, base_lr * decay_factor)[:, None]
            squared = np.einsum("...d,...d->...", w, w)
            product = np.einsum("...d,...d->...", w, x)
            scale = squared ** (g / 2)
            pull = lr * (scale * product - y) * scale
            # grad f = ||w||^g (x + g (w . x) / ||w||^2 w): a part along w and a part along x.
            w *= (1 - pull * g * product / squared)[..., None]
            w -= pull[..., None] * x
            if step + 1 in kept:
                steps.append(step + 1)
                norms.append(np.linalg.norm(w, axis=-1))
    return Trajectories(w, np.array(steps), np.array(norms))


def norm_drift(problems: Problems, powers: ArrayLike, norm: Array, lr: ArrayLike, noise: float) -> Array:
    """Expected change of r = ||w|| per update on the manifold of minima, to leading order in lr.

        dr = -(lr^2 noise^2 / 4) phi'(r) q(r)
        phi(r) = A r^(2g) + (g^2 + 2g) B / r^2     the Hessian's trace there; A = mean ||x||^2, B = mean y^2
        q(r) = s / ((1 + g)^2 (1 - s) + s)     how freely r can change; s = 1 - (r_min / r)^(2g + 2)

    Args:
        powers: g, broadcasting with ``norm``.
        norm: (..., num_seeds), at least the smallest norm.

    Source: derived in docs/theory.md from the regularization of label noise (Blanc et al. 2020, arXiv
    1904.09080; Damian, Ma and Lee 2021, arXiv 2106.06530).
    """
    g = np.asarray(powers, dtype=np.float64)
    a = (problems.inputs**2).sum(axis=-1).mean(axis=-1)
    b = (problems.labels**2).mean(axis=-1)
    slope = 2 * g * a * norm ** (2 * g - 1) - 2 * (g**2 + 2 * g) * b / norm**3
    null_share = np.clip(1 - (smallest_norm(problems, g) / norm) ** (2 * g + 2), 0, 1)
    freedom = null_share / ((1 + g) ** 2 * (1 - null_share) + null_share)
    return -(np.asarray(lr) ** 2) * noise**2 / 4 * slope * freedom


def flattest_norm(problems: Problems, powers: ArrayLike) -> Array:
    """The ||w|| of smallest Hessian trace among all minima, were every norm possible: ((g + 2) B / A)^(1 /
    (2g + 2)).

    Where it is below the smallest norm, the trace grows with the norm on the whole manifold, so that the
    flattest minimum is the one of minimum norm.
    """
    g = np.asarray(powers, dtype=np.float64)
    a = (problems.inputs**2).sum(axis=-1).mean(axis=-1)
    b = (problems.labels**2).mean(axis=-1)
    return ((g + 2) * b / a) ** (1 / (2 * g + 2))


def _residuals(problems: Problems, v: Array) -> Array:
    return np.einsum("rnd,...rd->...rn", problems.inputs, v) - problems.labels


def sweep(settings: ToyParams, confidence: float, num_resamples: int) -> dict:
    """All powers, decay times and seeds, with intervals over seeds: does a later decay end with less test
    loss?

    Returns:
        ``decay_steps`` (the last one never decays); ``powers``: per g for every decay step summaries of
        ``test_loss``, ``norm`` (over the smallest), ``trace`` (over that of the minimum-norm solution) and
        the seeds that ``diverged``; ``late_minus_early``, the test loss of the last decay minus that of the
        first, seed by seed; ``flattest_norm`` (over the smallest); ``drift``, the norm of the run that never
        decays, measured and predicted; and the minimum-norm solution's own ``minimum_norm_test_loss``.
    """
    seeds = list(range(settings.num_seeds))
    steps = [round(share * settings.num_steps) for share in settings.decay_shares]
    never = settings.num_steps
    problems = draw_problems(settings.num_examples, settings.dimension, seeds)
    found = descend(
        problems,
        settings.powers,
        [*steps, never],
        start(problems, settings.powers, settings.initial_norm, seeds),
        base_lr=settings.base_lr,
        decay_factor=settings.decay_factor,
        noise=settings.noise,
        num_steps=settings.num_steps,
        seeds=seeds,
        num_records=20,
    )
    column, plane = (np.asarray(settings.powers)[(..., *[None] * axes)] for axes in (1, 2))
    smallest = smallest_norm(problems, column)
    minimum = weights_of(np.broadcast_to(problems.minimum, (*smallest.shape, settings.dimension)), column)
    flattest = hessian_trace(problems, minimum, column)
    with np.errstate(all="ignore"):  # runs that diverged
        values = {
            "test_loss": test_loss(problems, found.weights, plane),
            "norm": np.linalg.norm(found.weights, axis=-1) / smallest[:, None],
            "trace": hessian_trace(problems, found.weights, plane) / flattest[:, None],
        }
    predicted = [found.norms[0, :, -1]]
    for before, after in itertools.pairwise(found.steps):
        norm, count = predicted[-1], 20
        for _ in range(count):
            drift = norm_drift(problems, column, norm, settings.base_lr, settings.noise)
            norm = np.maximum(norm + (after - before) / count * drift, smallest)
        predicted.append(norm)
    powers = {}
    for row, g in enumerate(settings.powers):
        losses = values["test_loss"][row]
        finite = np.isfinite(losses).all(axis=0)
        powers[f"{g:g}"] = {
            **{
                name: [
                    summary(by_seed[row, place], confidence, num_resamples) for place in range(len(steps) + 1)
                ]
                for name, by_seed in values.items()
            },
            "diverged": [seed for seed, whole in zip(seeds, finite, strict=True) if not whole],
            "late_minus_early": paired(losses[-2, finite] - losses[0, finite], confidence, num_resamples)
            if finite.any()
            else None,
            "flattest_norm": float((flattest_norm(problems, g) / smallest[row]).mean()),
            "drift": {
                "steps": found.steps.tolist(),
                "measured": [float(n[row, -1].mean()) for n in found.norms],
                "predicted": [float(n[row].mean()) for n in predicted],
            },
        }
    own = ((problems.minimum - problems.teacher) ** 2).sum(axis=-1) / 2
    return {
        "settings": settings.model_dump(),
        "decay_steps": [*steps, never],
        "minimum_norm_test_loss": summary(own, confidence, num_resamples),
        "powers": powers,
    }
