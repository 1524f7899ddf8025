"""What the study answers: the paper's gaps filled, and each claim taken to a verdict.

Pure functions of what the compare stage has in hand. The claims are data (claims.yaml); here are the few ways
to decide one.

A part is one test: a model, or a model and a pair of rows. A claim is general, so it is *supported* only if
every part decides for it and *contradicted* if any decides against it; all else is *undecided*. A part
decides if its p, adjusted after Holm over the claim's parts, is at most 1 - ``protocol.confidence``. The
tests are exact, so with few seeds nothing is decided, whatever the differences. Runs are not pooled over
models: one model's seeds tell nothing about another model. Nor are a seed's runs compared where
:func:`lrstudy.comparison.not_compared` has a reason.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lrstudy.comparison import not_compared
from lrstudy.sensitivity import TERMS
from lrstudy.statistics import bootstrap_interval, holm, percentile_bootstrap, signed_rank_p, smallest_p

POWER = 0.8
"""The chance of a decision that ``seeds_needed`` asks for."""

SIGNED_RANK_SEEDS = (
    "Smallest number at which the exact signed-rank test can reach the level after Holm and has a power of "
    "80% if the true effect and spread are those seen: that of the paired t test (noncentral t) times "
    "pi / 3, the inverse of the signed-rank test's efficiency for normal differences (Hodges and Lehmann "
    "1956)."
)
BINOMIAL_SEEDS = (
    "Smallest number at which the exact binomial test can reach the level after Holm and has a power of 80% "
    "if the true share of runs is the one seen."
)


def claims(comparison: dict, curves: list[dict]) -> list[dict[str, Any]]:
    """The verdict on every claim of claims.yaml, in its order.

    Args:
        comparison: what reports/comparison.json holds: ``data``, ``protocol``, ``missing``, ``cells``.
        curves: the rows of reports/curves.csv.

    Returns:
        Per claim ``id``, ``claim``, ``source``, ``test``, ``verdict`` (supported, contradicted, undecided),
        ``why``, ``effect`` (mean over the models of the mean over seeds; for an equivalence that of the pair
        of rows that differs most), ``interval`` (percentile bootstrap, seeds resampled within each model),
        ``unit``, ``n`` (seeds of the test that has fewest; 0 if nothing could be tested), ``seeds_needed``
        (where undecided; None if not computable), ``seeds_needed_by`` (how it was estimated), ``keys`` (paths
        inside comparison.json) and ``parts``: the tests.
    """
    deciders = {"turning": _turning, "paired": _paired, "equivalent": _equivalent}
    judged = []
    for spec in _specs():
        parts, untested = [], {}
        for model, schedules in comparison["cells"].items():
            found = deciders[spec["decide"]](spec, model, schedules, comparison, curves)
            if isinstance(found, str):
                untested.setdefault(found, []).append(model)
            else:
                parts += found
        judged.append(_judge(spec, parts, untested, comparison))
    return judged


def gaps(comparison: dict) -> list[dict[str, Any]]:
    """Each ``[DATA REQUIRED: ...]`` of the paper (seed 000), in its order, with what the study found.

    Returns:
        Per gap ``gap`` (the words in the brackets), ``where``, ``values``, ``missing`` (cells that should
        have given a value and did not run) and ``text``. A value has ``cell``, ``name``, ``value``, ``unit``,
        ``interval`` (the range that tuning found to be as good, or the bootstrap interval of a metric),
        ``run_ids`` (MLflow) and ``key``: where it stands in comparison.json, names joined by dots.
    """
    return [
        _parameter_gap(comparison, "reduction factor", "section 3.2, Step Decay", "step", "gamma"),
        _parameter_gap(comparison, "number of epochs", "section 3.2, Step Decay", "step", "step_size"),
        _parameter_gap(
            comparison, "decay rate", "section 3.2, Exponential Decay", "exponential", "decay_rate"
        ),
        _performance_gap(comparison),
        _results_gap(comparison),
    ]


def seeds_for_signed_rank(values: np.ndarray, level: float, power: float = POWER) -> int | None:
    """How many seeds decide that paired differences like ``values`` (num_seeds,) are not centred at 0.

    The larger of the smallest n with 2 / 2^n <= level and pi / 3 times the n of the two-sided paired t test
    for the mean and standard deviation (n - 1) of ``values``. None for one value, whose spread is unknown,
    and for a mean of 0. Source of the factor: Hodges and Lehmann 1956 (efficiency 3 / pi if normal).
    """
    mean = round(float(np.mean(values)), 12) if len(values) > 1 else 0.0
    if mean == 0:
        return None
    reachable = math.ceil(math.log2(2 / level) - 1e-9)
    spread = round(float(np.std(values, ddof=1)), 12)
    if spread == 0:
        return reachable
    return max(reachable, math.ceil(math.pi / 3 * _seeds_for_t(abs(mean) / spread, level, power)))


def seeds_for_binomial(share: float, chance: float, level: float, power: float = POWER) -> int | None:
    """How many runs decide that an event which was seen in ``share`` of them has a chance above ``chance``.

    The smallest n <= 1,000 whose exact binomial test (twice the upper tail) has the power; None if none has.
    """
    from scipy.stats import binom

    for n in range(1, 1001):
        critical = int(binom.isf(level / 2, n, chance)) + 1  # smallest count whose upper tail is <= level / 2
        if critical <= n and binom.sf(critical - 1, n, share) >= power:
            return n
    return None


@dataclass(frozen=True)
class _Part:
    model: str
    seen: str  # in words ...
    details: list[str]  # ... and what follows in parentheses
    values: np.ndarray  # (n,): what the effect is the mean of; empty if unknown
    n: int  # seeds
    p: float
    lean: int  # 1: speaks for the claim, -1: against it, 0: neither
    floor: float  # smallest p that n seeds can reach
    needed: Callable[[float], int | None]  # level -> seeds
    needed_by: str
    keys: list[str]


def _specs() -> list[dict[str, Any]]:
    from importlib.resources import files

    import yaml

    return yaml.safe_load((files("lrstudy") / "claims.yaml").read_text(encoding="utf-8"))


# Deciders: (spec, model, its cells, comparison, curves) -> parts, or why there are none.


def _turning(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Has the validation loss turned by ``epoch`` while the training loss goes on falling?"""
    from scipy.stats import binom

    row, epoch = spec["baseline"], spec["epoch"]
    cell = schedules.get(row)
    if cell is None:
        return f"{row} did not run"
    num_epochs = cell["num_epochs"]
    if num_epochs <= epoch:
        return f"{num_epochs} epochs are not more than {epoch}"
    if "turning_epoch" not in cell["metrics"]:
        return "turning_epoch was not measured"
    turned = _finished(cell, "turning_epoch", keep_none=True)
    losses = {
        int(point["epoch"]): float(point["train/loss"])
        for point in curves
        if point["model"] == model and point["schedule"] == row
    }
    if not turned:
        return "every run diverged"
    if epoch not in losses or num_epochs not in losses:
        return "its curves are missing"
    n = len(turned)
    early = sum(value is not None and value <= epoch for value in turned.values())
    never = sum(value is None for value in turned.values())
    # Epochs told apart by noise alone are the lowest equally often.
    chance = max(0.5, epoch / num_epochs)
    falls = losses[num_epochs] < losses[epoch]
    p_for, p_against = (
        min(1.0, 2 * float(binom.sf(count - 1, n, c))) for count, c in ((early, chance), (never, 0.5))
    )
    if early / n > chance and falls:
        lean, p, share, least = 1, p_for, early / n, chance
    elif never / n > 0.5:
        lean, p, share, least = -1, p_against, never / n, 0.5
    else:
        lean, p, share, least = 0, 1.0, 0.0, chance
    return [
        _Part(
            model,
            f"{model}'s validation loss was lowest by epoch {epoch} of {num_epochs} and higher after in "
            f"{early} of {n} runs and lowest at the last epoch in {never}, while the training loss went from "
            f"{losses[epoch]:.3g} to {losses[num_epochs]:.3g}",
            [],
            np.array(list(_finished(cell, "overfitting").values())),
            n,
            p,
            lean,
            min(1.0, 2 * least**n),
            lambda level: seeds_for_binomial(share, least, level) if lean else None,
            BINOMIAL_SEEDS,
            _keys(schedules, model, [row], ["turning_epoch", "overfitting"]),
        )
    ]


def _paired(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Do some rows of a model differ from others, seed by seed, by more than the margin?"""
    rows = _CONTRASTS[spec["contrast"]](spec, schedules)
    if isinstance(rows, str):
        return rows
    treated, control = rows
    metric, *beside = (
        _metric_name(name, schedules[control[0]], comparison)
        for name in [spec["metric"], *spec.get("beside", [])]
    )
    ratio, margin = spec.get("scale") == "ratio", spec.get("margin", 0.0)
    if metric == "seconds_per_epoch":
        unsteady = _unsteady(schedules, [*treated, *control], margin)
        if unsteady:
            return unsteady
    values, left_out = _differences(schedules, treated, control, metric, comparison, ratio)
    named = metric.replace("_", " ")
    if not len(values):
        return _no_seed(named, [*treated, *control], left_out)
    sign = 1 if spec["favours"] == "higher" else -1
    beyond = sign * values - (math.log1p(margin) if ratio else margin)
    effects = np.expm1(values) if ratio else values
    others = {name: _differences(schedules, treated, control, name, comparison)[0] for name in beside}
    details = [f"{_listed(treated)} against {_listed(control)}", _seeds(len(values)), *_without(left_out)]
    details += [f"{name} {_show(other.mean(), name)}" for name, other in others.items() if len(other)]
    return [
        _signed_rank_part(
            model,
            f"{model} {_show(effects.mean(), metric)} of {named}",
            details,
            effects,
            beyond,
            _lean(beyond),
            _keys(schedules, model, [*treated, *control], [metric, *beside]),
        )
    ]


def _equivalent(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Do the differences between all pairs of rows lie within the margin?"""
    absent = [row for row in spec["rows"] if row not in schedules]
    if absent:
        return f"{_listed(absent)} did not run"
    metric = _metric_name(spec["metric"], schedules[spec["rows"][0]], comparison)
    parts = []
    for one, other in itertools.combinations(spec["rows"], 2):
        values, left_out = _differences(schedules, [one], [other], metric, comparison)
        if not len(values):
            return _no_seed(metric, [one, other], left_out)
        margin, mean = spec["margin"], float(np.mean(values))
        seen = f"{model} {_show(mean, metric)} of {metric}"
        margin_words = f"margin {_show(margin, metric).removeprefix('+')}"
        details = [f"{one} against {other}", margin_words, _seeds(len(values)), *_without(left_out)]
        keys = _keys(schedules, model, [one, other], [metric])
        if abs(mean) > margin:
            beyond = math.copysign(1.0, mean) * values - margin
            parts.append(_signed_rank_part(model, seen, details, values, beyond, -_lean(beyond), keys))
            continue
        # Both one-sided tests must reject, so the one with the larger p decides.
        sides = [margin - values, margin + values]
        within = all(_lean(side) > 0 for side in sides)
        nearer = max(sides, key=lambda side: (signed_rank_p(side), -side.mean()))
        # Each side is given half of the failures, so that both reject with the power asked for.
        power = 1 - (1 - POWER) / 2
        parts.append(_signed_rank_part(model, seen, details, values, nearer, int(within), keys, power))
    return parts


def _signed_rank_part(
    model: str,
    seen: str,
    details: list[str],
    effects: np.ndarray,
    beyond: np.ndarray,
    lean: int,
    keys: list[str],
    power: float = POWER,
) -> _Part:
    """``beyond`` (num_seeds,): how far the differences go beyond the margin, above 0 on the side tested."""
    n = len(beyond)
    return _Part(
        model,
        seen,
        details,
        effects,
        n,
        signed_rank_p(beyond),
        lean,
        smallest_p(n),
        partial(seeds_for_signed_rank, beyond, power=power) if lean else lambda level: None,
        SIGNED_RANK_SEEDS,
        keys,
    )


def _lean(values: np.ndarray) -> int:
    """The side to which the mean and the signed ranks point; 0 if they don't agree.

    One outlier, such as a run that diverged, can turn the mean against all the other seeds.
    """
    from scipy.stats import rankdata

    values = np.round(values, 12)
    by_rank = np.sign(np.sign(values) @ rankdata(np.abs(values)))
    return int(by_rank) if by_rank == np.sign(round(float(np.mean(values)), 12)) else 0


# Contrasts: (spec, a model's cells) -> (rows, rows they are compared with), or why there is none.

_Rows = tuple[list[str], list[str]]


def _dynamic(spec: dict, schedules: dict) -> _Rows | str:
    base = spec["baseline"]
    if base not in schedules:
        return f"{base} did not run"
    # Without parameters it is static by another name; with another controller not the schedule alone differs.
    rows = [
        name
        for name, cell in schedules.items()
        if name != base and cell["parameters"] and _alike(cell, schedules[base])
    ]
    return (rows, [base]) if rows else f"no dynamic schedule ran beside {base}"


def _monitored(spec: dict, schedules: dict) -> _Rows | str:
    treated, control = [], []
    for name, cell in schedules.items():
        if cell["controller"] == spec["controller"]:
            # static_monitored is static with a monitor.
            plain = [
                other
                for other, found in schedules.items()
                if found["controller"] == "none"
                and found["optimizer"] == cell["optimizer"]
                and name.startswith(f"{other}_")
            ]
            if plain:
                treated.append(name)
                control.append(max(plain, key=len))
    return (treated, control) if treated else f"no row ran with {spec['controller']} and without"


def _late_decay(spec: dict, schedules: dict) -> _Rows | str:
    starts = {
        name: cell["parameters"]["start"]
        for name, cell in schedules.items()
        if {"start", "shape"} <= cell["parameters"].keys()
    }
    if len(set(starts.values())) < 2:
        return "no two late_decay rows with different starts ran"
    latest, earliest = max(starts, key=starts.__getitem__), min(starts, key=starts.__getitem__)
    if not _alike(schedules[latest], schedules[earliest]):
        return f"{latest} and {earliest} differ in more than the schedule"
    return [latest], [earliest]


def _optimizer(spec: dict, schedules: dict) -> _Rows | str:
    adaptive, plain = (
        [name for name, cell in schedules.items() if cell["optimizer"] in spec[kind]]
        for kind in ("adaptive", "plain")
    )
    if adaptive and plain:
        return adaptive, plain
    return f"all rows ran with {_listed(sorted({cell['optimizer'] for cell in schedules.values()}))}"


_CONTRASTS = {
    "dynamic": _dynamic,
    "monitored": _monitored,
    "late_decay": _late_decay,
    "optimizer": _optimizer,
}


def _alike(cell: dict, other: dict) -> bool:
    return (cell["controller"], cell["optimizer"]) == (other["controller"], other["optimizer"])


# From parts to a verdict.


def _judge(
    spec: dict, parts: list[_Part], untested: dict[str, list[str]], comparison: dict
) -> dict[str, Any]:
    protocol = comparison["protocol"]
    level = _level(comparison)
    adjusted = [float(p) for p in holm([part.p for part in parts])] if parts else []
    outcomes = [part.lean if p <= level else 0 for part, p in zip(parts, adjusted, strict=True)]
    if -1 in outcomes:
        verdict = "contradicted"
    elif parts and all(outcome == 1 for outcome in outcomes):
        verdict = "supported"
    else:
        verdict = "undecided"
    needed = _seeds_needed(parts, outcomes, level) if verdict == "undecided" else None
    samples = [part.values for part in parts if len(part.values)]
    if spec["decide"] == "equivalent":
        # Differences of several pairs would cancel each other.
        samples = sorted(samples, key=lambda sample: abs(np.mean(sample)))[-1:]
    return {
        "id": spec["id"],
        "claim": spec["claim"],
        "source": spec["source"],
        "test": spec["test"],
        "verdict": verdict,
        "why": _why(parts, adjusted, verdict, needed, untested, comparison),
        "effect": float(np.mean([np.mean(sample) for sample in samples])) if samples else None,
        "interval": _stratified_interval(samples, protocol["confidence"], protocol["num_resamples"]),
        "unit": _unit(spec.get("metric", "overfitting")),
        "n": min((part.n for part in parts), default=0),
        "seeds_needed": needed,
        "seeds_needed_by": None if needed is None else parts[0].needed_by,
        "keys": list(dict.fromkeys(key for part in parts for key in part.keys)),
        "parts": [
            {
                "model": part.model,
                "what": _words(part),
                "n": part.n,
                "effect": float(np.mean(part.values)) if len(part.values) else None,
                "p": part.p,
                "p_holm": p,
                "smallest_p_holm": min(1.0, len(parts) * part.floor),
                "decides": {1: "for", -1: "against", 0: "neither"}[outcome],
            }
            for part, p, outcome in zip(parts, adjusted, outcomes, strict=True)
        ],
    }


def _seeds_needed(parts: list[_Part], outcomes: list[int], level: float) -> int | None:
    """Seeds until some part decides against the claim or, if none points there, until all decide for it."""
    if not parts:
        return None
    level = level / len(parts)  # Holm's for the smallest p; the later ones are milder
    undecided = [part for part, outcome in zip(parts, outcomes, strict=True) if outcome == 0]
    # More than there are: those did not decide.
    seeds = [
        (part.lean, found and max(found, part.n + 1)) for part in undecided for found in [part.needed(level)]
    ]
    against = [found for lean, found in seeds if lean < 0]
    if against:
        return min((found for found in against if found is not None), default=None)
    needed = [found for _, found in seeds]
    return None if None in needed else max(needed)


def _why(
    parts: list[_Part],
    adjusted: list[float],
    verdict: str,
    needed: int | None,
    untested: dict[str, list[str]],
    comparison: dict,
) -> str:
    level = f"{_level(comparison):g}"
    models = list(dict.fromkeys(part.model for part in parts)) or list(comparison["cells"])
    said = [_words(part, f"p {p:.3g} after Holm") for part, p in zip(parts, adjusted, strict=True)]
    said += [f"{_listed(names)} could not be tested ({reason})" for reason, names in untested.items()]
    if comparison["missing"]:
        said.append(f"not run: {', '.join(comparison['missing'])}")
    tests = "the test" if len(parts) == 1 else f"the {len(parts)} tests"
    smallest = min([1.0, *(len(parts) * part.floor for part in parts)])
    if verdict == "supported":
        end = f"so {tests} decided for the claim at {level}"
    elif verdict == "contradicted":
        end = f"so {tests} decided against the claim at {level}"
        if len(parts) > 1:
            end = f"so at least one of {tests} decided against the claim at {level}"
    elif not parts:
        end = "so nothing was decided"
    elif smallest > _level(comparison):
        most = _seeds(max(part.n for part in parts))
        end = f"so nothing could be decided at {level}, as no p can be below {smallest:.3g} with {most}"
    else:
        end = f"so {tests} did not decide at {level}"
    if needed is not None:
        end += f", and about {needed:,} seeds would be needed"
    return f"{_on(comparison, models)}: {'; '.join([*said, end])}."


def _words(part: _Part, *more: str) -> str:
    details = [*part.details, *more]
    return f"{part.seen} ({'; '.join(details)})" if details else part.seen


def _level(comparison: dict) -> float:
    return round(1 - comparison["protocol"]["confidence"], 12)


def _stratified_interval(
    samples: list[np.ndarray], confidence: float, num_resamples: int
) -> tuple[float, float] | None:
    """Percentile-bootstrap interval of the mean of the samples' means, each resampled by itself.

    None if there is none or a sample has one value, which says nothing of its spread.
    """
    if not samples or min(map(len, samples)) < 2:
        return None
    samples = [np.sort(sample) for sample in samples]  # the order of the seeds changes nothing
    if len(samples) == 1:
        return bootstrap_interval(samples[0], confidence, num_resamples)
    if all(np.ptp(sample) == 0 for sample in samples):
        mean = float(np.mean([sample[0] for sample in samples]))
        return mean, mean

    def mean_of_means(*resampled: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([sample.mean(axis=axis) for sample in resampled], axis=0)

    return percentile_bootstrap(tuple(samples), mean_of_means, confidence, num_resamples)


def _seeds_for_t(effect: float, level: float, power: float) -> int:
    """n of the two-sided one-sample t test for a mean of ``effect`` standard deviations."""
    from scipy.stats import nct, norm, t

    n = max(2, math.floor(((norm.isf(level / 2) + norm.ppf(power)) / effect) ** 2))
    # Above this n the t test needs what the normal one needs.
    while n < 10_000 and nct.sf(t.isf(level / 2, n - 1), n - 1, effect * math.sqrt(n)) < power:
        n += 1
    return n


# Values of metrics.


def _keys(schedules: dict, model: str, rows: list[str], metrics: list[str]) -> list[str]:
    return [
        f"cells.{model}.{row}.metrics.{metric}.values"
        for metric in metrics
        for row in rows
        if metric in schedules[row]["metrics"]
    ]


def _metric_name(metric: str, cell: dict, comparison: dict) -> str:
    return comparison["protocol"]["headline"][cell["dataset"]] if metric == "headline" else metric


def _finished(cell: dict, metric: str, keep_none: bool = False) -> dict[str, float | None]:
    """A metric by seed, of the runs that did not diverge."""
    diverged = {str(seed) for seed in cell["diverged"]}
    values = cell["metrics"].get(metric, {}).get("values", {})
    return {s: v for s, v in values.items() if s not in diverged and (keep_none or v is not None)}


def _metric_values(cell: dict, metric: str) -> dict[str, float]:
    """A metric by seed where it is known."""
    values = cell["metrics"].get(metric, {}).get("values", {})
    return {seed: value for seed, value in values.items() if value is not None}


def _unsteady(schedules: dict, rows: list[str], margin: float) -> str | None:
    """Why times can't tell rows apart by ``margin``: epochs of one run differ by more; None if they can."""
    slowdowns = [v for row in rows for v in _metric_values(schedules[row], "epoch_slowdown").values()]
    if not slowdowns:
        return "no run has two epochs, which would show how steady the machine was"
    typical = float(np.median(slowdowns))
    if typical <= margin:
        return None
    return (
        f"a run's median epoch cost {100 * typical:.0f}% more seconds than its cheapest, more than the "
        f"{100 * margin:.0f}% in question: the machine did other work"
    )


def _differences(
    schedules: dict,
    treated: list[str],
    control: list[str],
    metric: str,
    comparison: dict,
    ratio: bool = False,
) -> tuple[np.ndarray, dict[str, dict]]:
    """(num_seeds,): mean over ``treated`` minus mean over ``control`` (of logarithms for ratios).

    The seeds are those at which all the rows have a value, without those that are not compared, which come
    with the reasons.
    """
    rows = [*treated, *control]
    values = {row: _metric_values(schedules[row], metric) for row in rows}
    seeds = sorted(set.intersection(*(set(found) for found in values.values())), key=int)
    cells, across_dtypes = [schedules[row] for row in rows], comparison["protocol"]["across_dtypes"]
    left_out = {seed: why for seed in seeds if (why := not_compared(cells, seed, metric, across_dtypes))}
    seeds = [seed for seed in seeds if seed not in left_out]
    one, other = (
        np.array([[values[row][seed] for seed in seeds] for row in rows], dtype=np.float64)
        for rows in (treated, control)
    )
    if ratio:
        one, other = np.log(one), np.log(other)
    return one.mean(axis=0) - other.mean(axis=0), left_out


# Words.


def _without(left_out: dict[str, dict]) -> list[str]:
    if not left_out:
        return []
    what = _differing(left_out)
    seeds = f"{'seed' if len(left_out) == 1 else 'seeds'} {_listed(list(left_out))}"
    return [f"without {seeds}, where the {_listed(what)} {'differs' if len(what) == 1 else 'differ'}"]


def _no_seed(metric: str, rows: list[str], left_out: dict[str, dict]) -> str:
    same = f" and the same {_listed(_differing(left_out))}" if left_out else ""
    return f"no seed has {metric}{same} for {'both' if len(rows) == 2 else 'all of'} {_listed(rows)}"


def _differing(left_out: dict[str, dict]) -> list[str]:
    """What the runs of the seeds that are not compared differ in, in words."""
    named = {"torch": "version of torch", "processor": "kind of processor"}
    return [
        named.get(name, name) for name in dict.fromkeys(name for why in left_out.values() for name in why)
    ]


def _on(comparison: dict, models: Iterable[str]) -> str:
    """On which data; the embedded sample can't be mistaken for the study's."""
    used = {cell["dataset"]: None for model in models for cell in comparison["cells"][model].values()}
    labels = _listed([comparison["data"][name]["label"] for name in used])
    if comparison["protocol"]["source"] == "sample":
        return f"On the embedded sample alone ({labels}), which says nothing of CIFAR-10 and IMDB"
    return f"On {labels}"


def _show(value: float, metric: str) -> str:
    if metric == "seconds_per_epoch":
        return f"{100 * value:+.1f}%"
    if _unit(metric) == "fraction":
        return f"{100 * value:+.2f} points"
    return f"{value:+.3g} {_unit(metric)}"


def _unit(metric: str) -> str:
    """``fraction``: of examples, or of the other's time; 1 is 100%."""
    return "nats" if metric == "overfitting" or metric.endswith("/loss") else "fraction"


def _seeds(count: int) -> str:
    return f"{count} {'seed' if count == 1 else 'seeds'}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# The paper's gaps.


def _parameter_gap(comparison: dict, gap: str, where: str, schedule: str, parameter: str) -> dict[str, Any]:
    """The value of a schedule's parameter in each model."""
    term, unit = TERMS[parameter]
    values, said = [], []
    for _, row, cell, name, at in _cells(comparison):
        if row != schedule or parameter not in cell["parameters"]:
            continue
        value, as_good = cell["parameters"][parameter], _as_good(cell, parameter)
        values.append(_value(name, gap, value, unit, as_good, [cell], f"{at}.parameters.{parameter}"))
        if cell["tuned"] == "defaults":
            how = "the default, not tuned"
        else:
            how = f"{as_good[0]:.3g} to {as_good[1]:.3g} as good" if as_good else "not searched"
        said.append(f"{value:.4g} for {name}{_first_drop(cell, parameter)} ({how})")
    missing = [name for name in comparison["missing"] if name.partition("-")[2] == schedule]
    if said:
        text = f"the {term}, {unit}, was {', '.join(said)}"
    else:
        text = f"no cell with the schedule {schedule} ran, so there is no {term}"
    return _gap(comparison, gap, where, values, missing, text)


def _first_drop(cell: dict, parameter: str) -> str:
    """When the rate dropped first, where that was not after one interval."""
    parameters, warmup = cell["parameters"], cell["warmup_epochs"]
    if parameter != "step_size" or "first_drop" not in parameters:
        return ""
    length = cell["num_epochs"] - warmup
    first = parameters["first_drop"] * length
    return (
        "" if math.isclose(first, parameters["step_size"]) else f" after a first drop at {warmup + first:.4g}"
    )


def _performance_gap(comparison: dict) -> dict[str, Any]:
    """What the search minimized, how far, and the test metric of the chosen values."""
    values, said = [], []
    for _, _, cell, name, at in _cells(comparison):
        metric = _metric_name("headline", cell, comparison)
        objective = (cell.get("tuning") or {}).get("objective")
        if objective is None:
            reached = "no search"
        else:
            label = "validation loss reached by the search"
            values.append(_value(name, label, objective, "nats", None, [cell], f"{at}.tuning.objective"))
            reached = f"a validation loss of {objective:.3f} nats"
        scores = _means(name, at, cell, [metric])
        said += [f"{name} {reached} and a {metric} of {100 * score['value']:.2f}%" for score in scores]
        values += scores
    text = f"the search minimized the final validation loss, and the cells reached: {', '.join(said)}"
    gap = "specific performance metrics"
    return _gap(comparison, gap, "section 3.3", values, comparison["missing"], text)


def _results_gap(comparison: dict) -> dict[str, Any]:
    """Accuracy and F1 of every cell, differences to the reference, ranks, and the means across models."""
    values, said = [], []
    reference = comparison["protocol"]["reference"]
    percent = f"{100 * comparison['protocol']['confidence']:g}%"
    for model, schedule, cell, name, at in _cells(comparison):
        metric = _metric_name("headline", cell, comparison)
        scores = _means(name, at, cell, ["test/accuracy", "test/f1"])
        values += scores
        words = [
            f"{name} {100 * score['value']:.2f}% {metric}" for score in scores if score["name"] == metric
        ]
        difference = cell["metrics"].get(metric, {}).get("difference")
        if difference and difference["mean"] is not None:
            runs = [cell, comparison["cells"][model][reference]]
            label, key = f"{metric}, difference to {reference}", f"{at}.metrics.{metric}.difference.mean"
            interval = difference["interval"]
            values.append(_value(name, label, difference["mean"], "fraction", interval, runs, key))
            words.append(f"{100 * difference['mean']:+.2f} points against {reference}")
            if interval is not None:
                words.append(f"{percent} interval {100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}")
        ranks = ((comparison.get("models") or {}).get(model) or {}).get("ranks") or {}
        if schedule in ranks:
            label, key = "average rank over seeds, 1 is best", f"models.{model}.ranks.{schedule}"
            values.append(_value(name, label, ranks[schedule], "rank", None, [cell], key))
        said.append(", ".join(words))
    for schedule, found in (comparison.get("across_models") or {}).items():
        runs = [cell for _, row, cell, _, _ in _cells(comparison) if row == schedule]
        key, label = f"across_models.{schedule}", "interquartile mean across models"
        values.append(
            _value(schedule, label, found["iqm"], "fraction", found["interval"], runs, f"{key}.iqm")
        )
        if better := found.get("improvement"):
            runs += [cell for _, row, cell, _, _ in _cells(comparison) if row == reference]
            label, key = f"{label}, difference to {reference}", f"{key}.improvement.iqm"
            values.append(_value(schedule, label, better["iqm"], "fraction", better["interval"], runs, key))
    text = f"means over seeds on the test split were: {'; '.join(filter(None, said))}"
    gap = "Numerical results and comparisons"
    return _gap(comparison, gap, "section 3.4", values, comparison["missing"], text)


def _gap(
    comparison: dict, gap: str, where: str, values: list[dict], missing: list[str], text: str
) -> dict[str, Any]:
    end = f"; not run: {', '.join(missing)}" if missing else ""
    return {
        "gap": gap,
        "where": f"seed 000, {where}",
        "values": values,
        "missing": list(missing),
        "text": f"{_on(comparison, comparison['cells'])}: {text}{end}.",
    }


def _cells(comparison: dict) -> Iterator[tuple[str, str, dict, str, str]]:
    """(model, schedule, cell, its name, its path in comparison.json) of all cells that ran."""
    for model, schedules in comparison["cells"].items():
        for schedule, cell in schedules.items():
            yield model, schedule, cell, f"{model}-{schedule}", f"cells.{model}.{schedule}"


def _means(name: str, at: str, cell: dict, metrics: list[str]) -> list[dict]:
    return [
        _value(
            name, metric, found["mean"], "fraction", found["interval"], [cell], f"{at}.metrics.{metric}.mean"
        )
        for metric in metrics
        if (found := cell["metrics"].get(metric)) and found["mean"] is not None
    ]


def _value(
    cell: str, name: str, value: Any, unit: str, interval: Any, runs: list[dict], key: str
) -> dict[str, Any]:
    """``runs``: the cells whose runs are behind the value."""
    return {
        "cell": cell,
        "name": name,
        "value": value,
        "unit": unit,
        "interval": None if interval is None else list(interval),
        "run_ids": [run_id for found in runs for run_id in found["run_ids"].values() if run_id],
        "key": key,
    }


def _as_good(cell: dict, parameter: str) -> list[float] | None:
    """[lowest, highest] value that tuning found to be as good as the best; None where it was not searched."""
    terms = (cell.get("tuning") or {}).get("terms", [])
    return next((term["as_good"] for term in terms if term["parameter"] == parameter), None)
