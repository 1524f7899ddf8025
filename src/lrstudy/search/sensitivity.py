"""What a search's trials say beyond their winner: which values are as good, and what a wrong one costs.

Pure functions of the trials that :func:`lrstudy.search.tuning.tune` returns. Both look at the search's own
seeds, with which all trials were trained alike; what a difference is worth, the noise between seeds says,
which the finalists' further seeds tell.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from lrstudy.recipe.config import Choices, FloatRange

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Space = dict[str, FloatRange | Choices]

TERMS = {
    "base_lr": ("base learning rate", ""),
    "gamma": ("reduction factor", "per drop"),
    "step_size": ("reduction interval", "epochs"),
    "decay_rate": ("decay rate", "per epoch"),
}
"""The paper's words (seed 000, section 3.2) and units; what it has no word for keeps its own name."""

MIN_TRIALS = 5
"""Fewer trials than this (or than parameters + 3) say nothing about how the loss depends on a parameter."""


def in_the_papers_terms(
    values: dict, as_good: dict, space: Space, parameters: Callable[[dict], dict]
) -> list[dict]:
    """The chosen ``values`` with the paper's words, units, and from where to where others are as good.

    Behind them what the paper has a word for and follows from them, as a decay rate does from a final factor:
    as good is then what follows from the ends of the ranges that are as good, all combinations of them.

    Args:
        values: the chosen value of everything that was searched.
        as_good: what :func:`within_one_standard_error` says of them; ``values`` is empty if it says nothing.
        space: where they were searched.
        parameters: all parameters of the schedule that follow from searched values.
    """
    chosen, searched = parameters(values), as_good["values"]
    in_terms = [_in_its_terms(name, value, searched.get(name)) for name, value in values.items()]
    ends = {name: _ends(where) for name, where in space.items()}
    for name in TERMS:
        if name in values or chosen.get(name) is None:
            continue
        follows = any(
            parameters(values | {other: end})[name] != chosen[name]
            for other, some in ends.items()
            for end in some
        )
        if follows:
            others = [parameters(some)[name] for some in _combinations(searched)] if searched else []
            in_terms.append(_in_its_terms(name, chosen[name], [min(others), max(others)] if others else None))
    return in_terms


def _in_its_terms(name: str, value: object, as_good: list | dict | None) -> dict:
    term, unit = TERMS.get(name, (name, ""))
    return {"term": term, "parameter": name, "value": value, "unit": unit, "as_good": as_good}


def _ends(where: FloatRange | Choices) -> list:
    return where.choices if isinstance(where, Choices) else list(where.bounds)


def _combinations(as_good: dict[str, list | dict]) -> Iterable[dict]:
    """Every combination of the ends of ranges and of the choices that are as good."""
    ends = [some["choices"] if isinstance(some, dict) else some for some in as_good.values()]
    return (dict(zip(as_good, combination, strict=True)) for combination in itertools.product(*ends))


def noise_between_seeds(trials: list[dict], of: Callable[[float], float] = float) -> dict | None:
    """The spread of the loss between seeds at the same values, pooled over the trials with several seeds.

    sqrt(sum_i sum_s (y_is - mean_i)^2 / sum_i (n_i - 1)) over trials i and their n_i > 1 seeds s. Where some
    trials are finalists these alone count: all their seeds, those of the search and the further ones. A trial
    that diverged with any seed does not.

    Args:
        trials: as :func:`lrstudy.search.tuning.tune` returns them.
        of: what the spread is of: a function of the loss.

    Returns:
        ``standard_deviation``, ``degrees_of_freedom`` and ``num_trials`` that it is of; None where no trial
        has two seeds.
    """
    finalists = [trial for trial in trials if trial["confirmation"] is not None]
    losses = []
    for trial in finalists or trials:
        if trial["objective"] is not None:
            parts = [trial[phase] for phase in ("search", "confirmation") if trial[phase] is not None]
            losses.append([of(loss) for part in parts for loss in part["losses"]])
    losses = [group for group in losses if len(group) > 1]
    freedom = sum(len(group) - 1 for group in losses)
    if not freedom:
        return None
    squares = math.fsum(float(np.var(group)) * len(group) for group in losses)
    return {
        "standard_deviation": math.sqrt(squares / freedom),
        "degrees_of_freedom": freedom,
        "num_trials": len(losses),
    }


def within_the_noise(trials: list[dict], space: Space, best: dict) -> dict:
    """The values of all trials whose loss is at most the lowest plus its standard error, and the chosen ones.

    All losses are means over the same seeds, those of the search. The standard error of such a mean is the
    spread between seeds, pooled over the finalists (:func:`noise_between_seeds`), over the square root of
    their number. The validation examples have no part in it: they are the same for all. Source of the rule:
    Breiman et al. 1984, section 3.4.3.

    Returns:
        ``num_trials`` of those as good, ``threshold``, ``standard_error``, ``noise`` and ``values``: per
        parameter [lowest, highest] or, of a list, {"choices": those}. ``values`` are empty, with a
        ``reason``, where every trial diverged or only one seed was trained: then nothing is known of the
        noise.
    """
    noise = noise_between_seeds(trials)
    worked = [trial for trial in trials if trial["search"]["objective"] is not None]
    nothing = {"num_trials": 0, "threshold": None, "standard_error": None, "noise": noise, "values": {}}
    if not worked:
        return nothing | {"reason": "every trial diverged"}
    if noise is None:
        return nothing | {"reason": "the noise is not known: nothing was trained with two seeds"}
    lowest = min(trial["search"]["objective"] for trial in worked)
    error = noise["standard_deviation"] / math.sqrt(len(worked[0]["search"]["losses"]))
    as_good = [trial for trial in worked if trial["search"]["objective"] <= lowest + error]
    ranges: dict[str, list | dict] = {}
    for name in best["values"]:
        values = [trial["values"][name] for trial in [*as_good, best]]
        if isinstance(where := space[name], Choices):
            ranges[name] = {"choices": [choice for choice in where.choices if choice in values]}
        else:
            ranges[name] = [min(values), max(values)]
    return {
        "num_trials": len(as_good),
        "threshold": lowest + error,
        "standard_error": error,
        "noise": noise,
        "values": ranges,
    }


def sensitivity(trials: list[dict], space: Space, best: dict) -> dict:
    """How much the validation loss rises when one chosen value is off by a factor of 2, the others kept.

    A Gaussian process of the log loss over the log2 of the values (choices: one coordinate each) is fitted
    to all trials with the search's seeds. A diverged trial counts as the worst one that did not. The noise
    of a trial is fitted, and at least that between seeds where it is known. ``change`` is predicted loss
    there / predicted loss at the chosen values - 1, ``interval`` holds 95% of the process's own
    uncertainty, noise of single trials included, which is wide where there were few. A value outside of the
    search space is not judged (None).

    Returns:
        ``num_trials`` and ``parameters``: per positive number that was searched its ``value`` and, for
        ``half`` and ``double``, ``value``, ``change`` and ``interval``; or ``reason`` if the trials are too
        few.
    """
    worked = [trial for trial in trials if trial["search"]["objective"] is not None]
    needed = max(MIN_TRIALS, len(space) + 3)
    if len(worked) < needed:
        return {
            "num_trials": len(worked),
            "parameters": {},
            "reason": f"{len(worked)} trials ended with a loss; at least {needed} are needed",
        }
    worst = max(trial["search"]["objective"] for trial in worked)
    losses = [
        worst if trial["search"]["objective"] is None else trial["search"]["objective"] for trial in trials
    ]
    inputs = np.array([_coordinates(trial["values"], space) for trial in trials])
    process = _fit(inputs, _logarithm(np.array(losses)), _noise_of_a_trial(trials))
    here = _coordinates(best["values"], space)
    parameters = {}
    for name, where in space.items():
        value = best["values"][name]
        if isinstance(where, Choices) or not _is_logarithmic(where):
            continue
        parameters[name] = {"value": value}
        for side, factor in (("half", 0.5), ("double", 2.0)):
            other = value * factor
            if where.int_:
                other = math.floor(other + 0.5)
            if other == value or not where.low <= other <= where.high:
                parameters[name][side] = None
                continue
            there = _coordinates(best["values"] | {name: other}, space)
            mean, covariance = process.predict(np.array([here, there]), return_cov=True)
            spread = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
            rise = float(mean[1] - mean[0])
            parameters[name][side] = {
                "value": other,
                "change": math.expm1(rise),
                "interval": [math.expm1(rise - 1.96 * spread), math.expm1(rise + 1.96 * spread)],
            }
    return {"num_trials": len(trials), "parameters": parameters}


def largest_rise(found: dict) -> dict | None:
    """The largest of a cell's sensitivities: ``parameter``, ``side`` and what is known of it, or None."""
    sides = [
        {"parameter": name, "side": side} | known[side]
        for name, known in found["parameters"].items()
        for side in ("half", "double")
        if known[side] is not None
    ]
    return max(sides, key=lambda side: side["change"], default=None)


def _is_logarithmic(where: FloatRange) -> bool:
    return where.bounds[0] > 0


def _coordinates(values: dict, space: Space) -> list[float]:
    coordinates: list[float] = []
    for name, where in space.items():
        if isinstance(where, Choices):
            coordinates += [2.0 * (values[name] == choice) for choice in where.choices]
        elif _is_logarithmic(where):
            coordinates.append(math.log2(values[name]))
        else:
            low, high = where.bounds
            coordinates.append(4.0 * (values[name] - low) / ((high - low) or 1.0))
    return coordinates


def _logarithm(losses: Any) -> Any:
    """Log of losses, of which one may be 0: that has no logarithm, and what is sure of everything has it."""
    return np.log(np.maximum(losses, np.finfo(float).eps))


def _noise_of_a_trial(trials: list[dict]) -> float:
    """Variance between seeds of a trial's log loss on the search's seeds; 0 where it is not known."""
    noise = noise_between_seeds(trials, _logarithm)
    worked = next(trial for trial in trials if trial["search"]["objective"] is not None)
    return noise["standard_deviation"] ** 2 / len(worked["search"]["losses"]) if noise else 0.0


def _fit(inputs: np.ndarray, targets: np.ndarray, noise: float) -> "GaussianProcessRegressor":
    from warnings import catch_warnings, simplefilter

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    # In units of log2: a loss does not change much within a factor of 2 to the 0.5, nor in the same way over
    # more than 2 to the 8.
    smooth = ConstantKernel(1.0, (0.05, 20.0)) * RBF([2.0] * inputs.shape[1], (0.5, 8.0))
    # Noise is in shares of the trials' variance; more than all of it there cannot be.
    least = min(0.99, max(1e-4, noise / (float(np.var(targets)) or math.inf)))
    process = GaussianProcessRegressor(
        smooth + WhiteKernel(max(0.05, least), (least, 1.0)), normalize_y=True, random_state=0
    )
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)  # a length at its bound is an answer
        return process.fit(inputs, targets)
