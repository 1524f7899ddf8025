"""What the study answers: each claim taken to a verdict.

Pure functions of what the compare stage has in hand. The claims are data (claims.yaml); here are the few ways
to decide one. docs/protocol.md is the protocol in words.

A part is one test: a model, or a model and a pair of rows. A claim is general:

- *supported*: every part decides for it. All must, so none is adjusted for the others (Berger 1982).
- *contradicted*: some part decides against it and none for it, after Holm, since any one would do.
- *mixed*: after Holm, some part decides for it, and another one against it or for equivalence.
- *equivalent*: every part's differences lie within the margin, by two one-sided tests.
- *not tested*: nothing ran that bears on it.
- *undecided*: all else.

The tests are exact, need :data:`lrstudy.analysis.statistics.MIN_SEEDS` seeds and look as often as was planned
(:mod:`lrstudy.analysis.looks`). Runs are not pooled over models: one model's seeds tell nothing about another
model. Nor are a seed's runs compared where :func:`lrstudy.analysis.comparison.not_compared` has a reason.

What an update costs is no matter of seeds: it is timed (:mod:`lrstudy.analysis.timing`), and a claim on cost
is tested over pairs of rounds, each row by itself.
"""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lrstudy.analysis.comparison import chosen_by_validation, dynamic_rows, not_compared
from lrstudy.analysis.looks import alpha_spent, bounds, conditional_power, looks_reached, p_of_all_looks
from lrstudy.analysis.statistics import (
    MIN_SEEDS,
    binomial_chance,
    chance_of_equivalence,
    chance_to_decide,
    equivalence_p,
    holm,
    median_interval,
    signed_rank_p,
    t_interval,
)
from lrstudy.analysis.timing import log_ratios
from lrstudy.analysis.words import level_of, metric_name, on_data, show, unit
from lrstudy.words import counted, listed, seeds_named

POWER = 0.8
"""The chance of a decision that ``seeds_needed`` asks for."""

FUTILE = 0.1
"""A plan whose end decides with a lower chance than this, as things went so far, need not be ended."""

SIGNED_RANK_SEEDS = (
    "The fewest seeds with which every part decides, for, against or within the margin, with a chance of 80% "
    "or more, if its true mean and spread are those seen: lrstudy.analysis.statistics.chance_to_decide, "
    "multiplied over the parts."
)
BINOMIAL_SEEDS = (
    "The fewest seeds with which the exact binomial test of every part decides with a chance of 80% or more, "
    "if the true share of runs is the one seen."
)


def claims(comparison: dict, curves: list[dict]) -> list[dict[str, Any]]:
    """The verdict on every claim of claims.yaml, in its order.

    Args:
        comparison: what reports/comparison.json holds: ``data``, ``protocol``, ``missing``, ``cells``; where
            updates were timed, ``timing``: by model what the stage wrote.
        curves: the rows of reports/curves.csv.

    Returns:
        Per claim ``id``, ``claim``, ``source``, ``test``, ``verdict`` (supported, contradicted, mixed,
        equivalent, undecided, not tested), ``why``, ``effect`` (mean over the parts of the mean over seeds;
        for an equivalence that of the pair of rows that differs most, for a cost that of the row that differs
        most), ``unit``, ``n`` (seeds, or for a cost pairs of rounds, of the test that has fewest; 0 if
        nothing could be tested), ``counted``: which of these in words, ``keys`` (paths inside
        comparison.json) and ``parts``: the tests, each with its effect, its ``interval`` (Student's, and of a
        cost :func:`lrstudy.analysis.statistics.median_interval`) and what it ``decides``; ``untested``: by
        reason the models that have none.

        Where undecided: ``seeds_needed`` (for a cost: pairs of rounds), the ``chance`` that they decide, the
        ``core_hours`` of the further ones (for a cost of all, timed anew), and ``seeds_needed_by``: how these
        were estimated; None if not computable. Where not tested: ``run``: the ``command`` that would run it
        and its ``core_hours`` (None if not known).

        The main claim has ``by_schedule`` too: the same for each dynamic schedule by itself, a question of
        its own that no other row has a part in.
    """
    judged = []
    for spec in claim_specs():
        parts, untested = _tests(spec, comparison, curves)
        found = _judge(spec, parts, untested, comparison)
        if spec.get("contrast") == "chosen":
            found["by_schedule"] = {}
            for row in _dynamic_anywhere(comparison):
                alone = _tests(spec | {"contrast": "row", "row": row}, comparison, curves)
                found["by_schedule"][row] = _judge(spec, *alone, comparison)
        judged.append(found)
    return judged


@functools.cache
def claim_specs() -> list[dict[str, Any]]:
    """What claims.yaml says of each claim, in its order."""
    from importlib.resources import files

    import yaml

    return yaml.safe_load((files("lrstudy.analysis") / "claims.yaml").read_text(encoding="utf-8"))


def planned_rows(spec: dict, schedules: dict[str, dict]) -> list[tuple[list[str], list[str]]]:
    """The rows that a claim's tests in one model will compare, before anything has run.

    Args:
        spec: of :func:`claim_specs`.
        schedules: of a model's cells ``controller``, ``optimizer``, ``parameters``, ``lr_range`` and
            ``num_epochs``, as comparison.json has them.

    Returns:
        A pair a test: rows, and the rows that they are compared with (none where a row is tested alone); no
        pair where nothing bears on the claim. Of what validation will choose all rows that it chooses from.
    """
    if spec["decide"] == "turning":
        cell = schedules.get(spec["baseline"])
        long_enough = cell is not None and cell["num_epochs"] > spec["epoch"]
        return [([spec["baseline"]], [])] if long_enough else []
    if spec["decide"] == "equivalent":
        pairs = itertools.combinations(spec["rows"], 2)
        return [([one], [other]) for one, other in pairs] if set(spec["rows"]) <= set(schedules) else []
    if spec["decide"] == "timed":
        return []
    if spec["contrast"] == "chosen":
        rows, base = dynamic_rows(schedules, spec["baseline"]), spec["baseline"]
        return [(rows, [f"{base}_averaged" if spec.get("averaged") else base])] if rows else []
    found = _CONTRASTS[spec["contrast"]](spec, schedules)
    return [] if isinstance(found, str) else [found]


def run_command(spec: dict, seeds: Collection[int], datasets: Iterable[str]) -> str:
    """The command that would run what a claim needs, with enough seeds."""
    wanted = spec["run"]
    if "command" in wanted:
        return wanted["command"]
    overrides = [f"schedule=[{','.join(wanted['rows'])}]", *wanted.get("set", [])]
    if "epochs" in wanted:
        overrides += [f"num_epochs.{name}={wanted['epochs']}" for name in datasets]
    if len(seeds) < MIN_SEEDS:
        overrides.append(f"train.seeds=[{','.join(str(seed) for seed in range(1, MIN_SEEDS + 1))}]")
    return "dvc exp run " + " ".join(f"-S '{override}'" for override in overrides)


@dataclass(frozen=True)
class _Part:
    model: str
    seen: str  # in words ...
    details: list[str]  # ... and what follows in parentheses
    values: np.ndarray  # (n,): the effect is their mean, or what centre says; empty if unknown
    n: int  # seeds
    p: float  # two-sided, of all looks so far
    lean: int  # 1: speaks for the claim, -1: against it, 0: neither
    chance: Callable[[int, float], float]  # (seeds, level) -> chance to decide
    rows: list[str]  # whose trainings another seed would cost
    keys: list[str]
    p_within: float = 1.0  # one-sided, that the differences lie within the margin
    shown: tuple[float, float] | None = None  # interval of the effect
    notes: list[str] = field(default_factory=list)
    # Seeds with which all that the test depends on has run; None where planned looks do not bear on it.
    ran: list[str] | None = None
    centre: Callable[[np.ndarray], float] = np.mean

    @property
    def effect(self) -> float | None:
        return float(self.centre(self.values)) if len(self.values) else None


def _tests(spec: dict, comparison: dict, curves: list[dict]) -> tuple[list[_Part], dict[str, list[str]]]:
    """The parts of a claim, and why there are none for which models."""
    deciders = {"turning": _turning, "paired": _paired, "equivalent": _equivalent, "timed": _timed}
    parts: list[_Part] = []
    untested: dict[str, list[str]] = {}
    timed = comparison.get("timing", {}) if spec["decide"] == "timed" else {}
    for model in dict.fromkeys([*comparison["cells"], *timed]):
        schedules, row = comparison["cells"].get(model, {}), spec.get("row")
        if row is not None and row not in schedules and f"{model}-{row}" not in comparison["missing"]:
            continue  # the study has no such cell, so it is no question to this model
        found = deciders[spec["decide"]](spec, model, schedules, comparison, curves)
        if isinstance(found, str):
            untested.setdefault(found, []).append(model)
        else:
            parts += found
    return parts, untested


def _dynamic_anywhere(comparison: dict) -> list[str]:
    reference = comparison["protocol"]["reference"]
    found = [dynamic_rows(schedules, reference) for schedules in comparison["cells"].values()]
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def _of_all_looks(
    p_of: Callable[[list[int]], float],
    seeds: list[str],
    comparison: dict,
    ran: Collection[str],
    sides: int = 2,
) -> float:
    looks = comparison["protocol"]["looks"]
    return p_of_all_looks(p_of, seeds, _planned(comparison), looks, sides, ran)


def _of_chosen(p_of: Callable[[np.ndarray], float], values: np.ndarray, chosen: list[int]) -> float:
    return p_of(values[chosen])


def _planned(comparison: dict) -> list[str]:
    return [str(seed) for seed in comparison["protocol"]["seeds"]]


def _looks_so_far(comparison: dict, ran: Collection[str]) -> list[int]:
    return looks_reached(comparison["protocol"]["looks"], _planned(comparison), ran)


def _ran(spec: dict, model: str, schedules: dict, rows: Iterable[str], comparison: dict) -> list[str]:
    """The seeds with which everything has run that the test of these rows depends on.

    What is chosen among all dynamic rows, or is their mean, depends on each: none where one is missing.
    """
    if spec.get("contrast") in ("chosen", "dynamic"):
        if any(name.partition("-")[0] == model for name in comparison["missing"]):
            return []
        rows = [*rows, *dynamic_rows(schedules, spec["baseline"])]
    ran = [set(map(str, schedules[row]["seeds"])) for row in rows]
    return [seed for seed in _planned(comparison) if all(seed in seeds for seeds in ran)]


def _waits(part: _Part, comparison: dict) -> str:
    """How many of the first planned look's seeds have run; nothing once it was reached: the test is due."""
    if part.ran is None or _looks_so_far(comparison, part.ran):
        return ""
    planned = _planned(comparison)
    first = (comparison["protocol"]["looks"] or [len(planned)])[0]
    return f"{len(set(planned[:first]) & set(part.ran))} of {first} planned seeds so far"


# Deciders: (spec, model, its cells, comparison, curves) -> parts, or why there are none.


def _turning(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Has the smoothed validation loss turned by ``epoch`` while the training loss goes on falling?"""
    from scipy.stats import binom

    row, epoch = spec["baseline"], spec["epoch"]
    cell = schedules.get(row)
    if cell is None:
        return f"{row} did not run"
    num_epochs = cell["num_epochs"]
    if num_epochs <= epoch:
        return f"{num_epochs} epochs are not more than {epoch}"
    finished, rises = _finished(cell, "turning_epoch", keep_none=True), _finished(cell, "overfitting")
    # A loss that never turned has no epoch and a rise of 0; where the rise has no value neither is defined.
    turned = {seed: found for seed, found in finished.items() if seed in rises}
    losses = {
        int(point["epoch"]): float(point["train/loss"])
        for point in curves
        if point["model"] == model and point["schedule"] == row
    }
    if not finished:
        return "every run diverged"
    if not turned:
        return "a turn is defined for no run: it takes four epochs"
    if epoch not in losses or num_epochs not in losses:
        return "its curves are missing"
    n, seeds = len(turned), list(turned)
    ran = _ran(spec, model, schedules, [row], comparison)
    early = [value is not None and value <= epoch for value in turned.values()]
    never = [value is None for value in turned.values()]
    # Were every epoch the lowest equally often, and every rise one that counts, as many would turn by then.
    chance = max(0.5, epoch / num_epochs)
    falls = losses[num_epochs] < losses[epoch]
    if sum(early) / n > chance and falls:
        lean, events, least = 1, early, chance
    elif sum(never) / n > 0.5:
        lean, events, least = -1, never, 0.5
    else:
        lean, events, least = 0, early, chance
    share = sum(events) / n

    def p_of(chosen: list[int]) -> float:
        count = sum(events[place] for place in chosen)
        return min(1.0, 2 * float(binom.sf(count - 1, len(chosen), least)))

    def power(num_seeds: int, level: float) -> float:
        return binomial_chance(share, least, num_seeds, level) if lean else 0.0

    return [
        _Part(
            model,
            f"{model}'s smoothed validation loss had turned, to rise by more than twice its standard error, "
            f"by epoch {epoch} of {num_epochs} in {sum(early)} of {n} runs, and did not rise by as much in "
            f"{sum(never)}, while the mean training loss went from {losses[epoch]:.3g} to "
            f"{losses[num_epochs]:.3g}",
            [],
            np.array(list(rises.values())),
            n,
            _of_all_looks(p_of, seeds, comparison, ran) if lean else 1.0,
            lean,
            power,
            [row],
            _keys(schedules, model, [row], ["turning_epoch", "overfitting"]),
            ran=ran,
        )
    ]


def _paired(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Do some rows of a model differ from others, seed by seed?"""
    rows = _CONTRASTS[spec["contrast"]](spec, schedules)
    if isinstance(rows, str):
        return rows
    treated, control = rows
    if spec.get("averaged"):
        control = [f"{row}_averaged" for row in control]
    schedules = schedules | comparison["views"][model]
    if absent := [row for row in control if row not in schedules]:
        return f"{listed(absent)} is not known"
    metric, *beside = (
        metric_name(name, schedules[control[0]], comparison)
        for name in [spec["metric"], *spec.get("beside", [])]
    )
    values, seeds, left_out = _differences(schedules, treated, control, metric, comparison)
    if not len(values):
        return _no_seed(metric, [*treated, *control], left_out)
    sign = 1 if spec["favours"] == "higher" else -1
    others = {name: _differences(schedules, treated, control, name, comparison)[0] for name in beside}
    details = [f"{listed(treated)} against {listed(control)}", counted(len(values)), *_without(left_out)]
    details += [f"{name} {show(other.mean(), name)}" for name, other in others.items() if len(other)]
    if "overfitting" in beside:
        details.append(_overfitted(schedules, control))
    return [
        _signed_rank_part(
            model,
            f"{model} {show(values.mean(), metric)} of {metric}",
            details,
            values,
            sign * values,
            seeds,
            _ran(spec, model, schedules, [*treated, *control], comparison),
            comparison,
            # A view's trainings are those of its schedule.
            [schedules[row].get("view_of", row) for row in (*treated, *control)],
            _keys(schedules, model, [*treated, *control], [metric, *beside]),
            spec.get("equivalence"),
        )
    ]


def _equivalent(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Do the differences between all pairs of rows lie within the margin?"""
    absent = [row for row in spec["rows"] if row not in schedules]
    if absent:
        return f"{listed(absent)} did not run"
    metric, margin = metric_name(spec["metric"], schedules[spec["rows"][0]], comparison), spec["margin"]
    parts = []
    for one, other in itertools.combinations(spec["rows"], 2):
        values, seeds, left_out = _differences(schedules, [one], [other], metric, comparison)
        if not len(values):
            return _no_seed(metric, [one, other], left_out)
        mean = float(np.mean(values))
        ran = _ran(spec, model, schedules, [one, other], comparison)
        within = _of_all_looks(
            functools.partial(_of_chosen, functools.partial(equivalence_p, margin=margin), values),
            seeds,
            comparison,
            ran,
            sides=1,
        )
        # The two sides exclude each other: the p of a difference beyond the margin is that of the side seen.
        beyond = math.copysign(1.0, mean) * values - margin
        outside = abs(mean) > margin
        p = _of_all_looks(functools.partial(_of_chosen, signed_rank_p, beyond), seeds, comparison, ran)
        parts.append(
            _Part(
                model,
                f"{model} {show(mean, metric)} of {metric}",
                [
                    f"{one} against {other}",
                    f"margin {show(margin, metric).removeprefix('+')}",
                    counted(len(values)),
                    *_without(left_out),
                ],
                values,
                len(values),
                p if outside else within,
                -_lean(beyond) if outside else 1,
                functools.partial(_chance, beyond)
                if outside
                else functools.partial(_chance_within_at_looks, values, margin, comparison),
                [one, other],
                _keys(schedules, model, [one, other], [metric]),
                shown=t_interval(values, comparison["protocol"]["confidence"]),
                ran=ran,
            )
        )
    return parts


def _timed(
    spec: dict, model: str, schedules: dict, comparison: dict, curves: list[dict]
) -> list[_Part] | str:
    """Does an update of each row of a model cost more than one of others, by more than the margin?

    A part each: in a mean over the rows one that costs much would be lost among those that cost nothing.
    """
    timing = comparison.get("timing", {}).get(model)
    if timing is None:
        return "its updates were not timed"
    rows = _TIMED[spec["contrast"]](spec, timing)
    if isinstance(rows, str):
        return rows
    kind, treated, control = rows
    seconds = {name: row["seconds"] for name, row in timing[kind].items()}
    margin = math.log1p(spec["margin"])
    parts = []
    for row in treated:
        values = log_ratios(seconds, [row], control)
        n, centre = len(values), float(np.median(values))
        side = (centre > margin) - (centre < -margin)
        beyond = (side or 1) * values - margin
        enough = n >= MIN_SEEDS
        interval = median_interval(values, comparison["protocol"]["confidence"])
        parts.append(
            _Part(
                model,
                f"{row} {100 * math.expm1(centre):+.1f}%",
                [f"against {listed(control)}"],
                np.expm1(values),
                n,
                signed_rank_p(beyond) if side and enough else 1.0,
                side if _lean(beyond) > 0 else 0,
                functools.partial(_chance, beyond)
                if side
                else functools.partial(_chance_within, values, margin=margin),
                [row, *control],
                [f"timing.{model}.{kind}.{name}.seconds" for name in [row, *control]],
                equivalence_p(values, margin) if enough else 1.0,
                interval and (math.expm1(interval[0]), math.expm1(interval[1])),
                centre=np.median,
            )
        )
    return parts


def _signed_rank_part(
    model: str,
    seen: str,
    details: list[str],
    effects: np.ndarray,
    beyond: np.ndarray,
    seeds: list[str],
    ran: list[str],
    comparison: dict,
    rows: list[str],
    keys: list[str],
    margin: float | None,
) -> _Part:
    """``beyond`` (num_seeds,): how far the differences go beyond what counts, above 0 on the claim's side.

    ``margin``: differences within it are equivalent; None where that is not asked.
    """
    lean = _lean(beyond)
    p = _of_all_looks(lambda chosen: signed_rank_p(beyond[chosen]), seeds, comparison, ran)
    within = 1.0
    if margin is not None:
        within = _of_all_looks(
            lambda chosen: equivalence_p(beyond[chosen], margin), seeds, comparison, ran, sides=1
        )
    return _Part(
        model,
        seen,
        details,
        effects,
        len(beyond),
        p,
        lean,
        lambda n, level: _chance(beyond, n, level, margin, _one_sided(n, level, comparison)),
        rows,
        keys,
        within,
        t_interval(effects, comparison["protocol"]["confidence"]),
        _stops(beyond, seeds, ran, p, within, margin, comparison),
        ran,
    )


def _one_sided(num_seeds: int, level: float, comparison: dict) -> float:
    """The largest one-sided p that decides at a planned look; ``level`` where there is one look."""
    looks = tuple(comparison["protocol"]["looks"])
    return bounds(looks, level_of(comparison), sides=1)[looks.index(num_seeds)] if looks else level


def _chance(
    values: np.ndarray,
    num_seeds: int,
    level: float,
    margin: float | None = None,
    one_sided_level: float | None = None,
) -> float:
    """That so many seeds decide if the differences ``values`` have the true mean and spread; 0 if unknown."""
    if len(values) < 2:
        return 0.0
    mean, spread = (round(float(value), 12) for value in (np.mean(values), np.std(values, ddof=1)))
    return chance_to_decide(mean, spread, num_seeds, level, margin, one_sided_level)


def _chance_within(values: np.ndarray, num_seeds: int, level: float, margin: float) -> float:
    """That both one-sided tests of ``margin`` reject: what the margin adds to the test of a difference."""
    if len(values) < 2:
        return 0.0
    return chance_of_equivalence(
        float(np.mean(values)), float(np.std(values, ddof=1)), num_seeds, level, margin
    )


def _chance_within_at_looks(
    values: np.ndarray, margin: float, comparison: dict, num_seeds: int, level: float
) -> float:
    """:func:`_chance_within` at the one-sided level of a planned look."""
    return _chance_within(values, num_seeds, _one_sided(num_seeds, level, comparison), margin)


def _stops(
    values: np.ndarray,
    seeds: list[str],
    ran: list[str],
    p: float,
    within: float,
    margin: float | None,
    comparison: dict,
) -> list[str]:
    """What the look says of going on: alpha spent, futility, equivalence; nothing without planned looks."""
    looks = comparison["protocol"]["looks"]
    level, reached = level_of(comparison), _looks_so_far(comparison, ran)
    if not looks or not reached:
        return []
    now = reached[-1]
    seen = {str(seed) for seed in comparison["protocol"]["seeds"][:now]}
    values = values[[seed in seen for seed in seeds]]
    said = [f"{alpha_spent(now / looks[-1], level):.2g} of {level:g} spent at {now} of {looks[-1]} seeds"]
    if margin is not None and within <= level:
        said.append("equivalence is shown: more seeds would not change it")
    elif p > level and now < looks[-1] and len(values) >= MIN_SEEDS:
        end = bounds(tuple(looks), level)[-1]
        chance = conditional_power(signed_rank_p(values), now, looks[-1], end)
        if chance < FUTILE:
            said.append(
                f"futile: as the differences went so far, {looks[-1]} seeds would show one with a chance of "
                f"{100 * chance:.0f}%"
            )
    return said


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


def _chosen(spec: dict, schedules: dict) -> _Rows | str:
    """The dynamic row that validation chose: test data choose nothing."""
    base = spec["baseline"]
    if base not in schedules:
        return f"{base} did not run"
    row = chosen_by_validation(schedules, base)
    return ([row], [base]) if row else f"no dynamic schedule ran beside {base}"


def _row(spec: dict, schedules: dict) -> _Rows | str:
    """One dynamic row by itself."""
    base, row = spec["baseline"], spec["row"]
    if row in dynamic_rows(schedules, base):
        return [row], [base]
    return f"{row} is not dynamic" if {base, row} <= set(schedules) else f"{row} or {base} did not run"


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
    if not treated:
        return f"no row ran with {spec['controller']} and without"
    interventions = [c for row in treated for c in schedules[row].get("interventions", {}).values()]
    if interventions and not any(interventions):
        return f"{spec['controller']} never intervened in {listed(treated)}"
    return treated, control


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


_CONTRASTS = {"chosen": _chosen, "row": _row, "monitored": _monitored, "late_decay": _late_decay}


# Contrasts of what was timed: (spec, a model's timing) -> (kind of rows, rows, rows that they are compared
# with), or why there is none.


def _dynamic(spec: dict, timing: dict) -> tuple[str, list[str], list[str]] | str:
    """The schedules whose rate moves, by themselves or by a controller; the optimizer is the model's."""
    rows, base = timing["schedules"], spec["baseline"]
    if base not in rows:
        return f"{base} was not timed"
    dynamic = [
        name
        for name, row in rows.items()
        if name != base and (row["moves"] or row["controller"] != rows[base]["controller"])
    ]
    return ("schedules", dynamic, [base]) if dynamic else f"no dynamic schedule was timed beside {base}"


def _optimizer(spec: dict, timing: dict) -> tuple[str, list[str], list[str]] | str:
    adaptive, plain = (
        [name for name, row in timing["optimizers"].items() if row["optimizer"] in spec[kind]]
        for kind in ("adaptive", "plain")
    )
    if adaptive and plain:
        return "optimizers", adaptive, plain
    return f"no {'plain' if adaptive else 'adaptive'} optimizer was timed"


_TIMED = {"dynamic": _dynamic, "optimizer": _optimizer}


def _alike(cell: dict, other: dict) -> bool:
    return (cell["controller"], cell["optimizer"]) == (other["controller"], other["optimizer"])


# From parts to a verdict.


def _judge(
    spec: dict, parts: list[_Part], untested: dict[str, list[str]], comparison: dict
) -> dict[str, Any]:
    level = level_of(comparison)
    adjusted, within = (
        [float(p) for p in holm(found)] if parts else []
        for found in ([part.p for part in parts], [part.p_within for part in parts])
    )
    outcomes = _outcomes(parts, adjusted, within, level)
    verdict = _verdict(spec, parts, outcomes, level)
    if verdict in ("supported", "equivalent"):  # each part decided at the level, as all of them had to
        outcomes = [{"supported": "for"}.get(verdict, "equivalent")] * len(parts)
    due = not any(_waits(part, comparison) for part in parts)
    needed = _needed(spec, parts, comparison) if verdict == "undecided" and due else _Needed()
    effects = [part.effect for part in parts if part.effect is not None]
    if spec["decide"] in ("equivalent", "timed"):
        # Differences of several pairs, or rows, would cancel each other.
        effects = sorted(effects, key=abs)[-1:]
    run = _run(spec, comparison) if verdict == "not tested" else None
    return {
        "id": spec["id"],
        "claim": spec["claim"],
        "source": spec["source"],
        "test": spec["test"],
        "verdict": verdict,
        "why": _why(spec, parts, adjusted, outcomes, verdict, needed, untested, run, comparison),
        "effect": float(np.mean(effects)) if effects else None,
        "unit": "fraction" if spec["decide"] == "timed" else unit(spec.get("metric", "overfitting")),
        "n": min((part.n for part in parts), default=0),
        "counted": _counted(spec),
        "seeds_needed": needed.seeds,
        "chance": needed.chance,
        "core_hours": needed.core_hours,
        "seeds_needed_by": needed.by,
        "run": run,
        "untested": untested,
        "keys": list(dict.fromkeys(key for part in parts for key in part.keys)),
        "parts": [
            {
                "model": part.model,
                "rows": part.rows,
                "what": _words(part),
                "n": part.n,
                "effect": part.effect,
                "interval": part.shown and list(part.shown),
                "p": part.p,
                "p_holm": p,
                "p_within": part.p_within,
                "decides": outcome,
                "waits": _waits(part, comparison),
                "notes": part.notes,
            }
            for part, p, outcome in zip(parts, adjusted, outcomes, strict=True)
        ],
    }


def _outcomes(parts: list[_Part], adjusted: list[float], within: list[float], level: float) -> list[str]:
    """Of each part ``for``, ``against``, ``equivalent`` or ``neither``, after Holm over the parts."""
    found = []
    for part, p, p_within in zip(parts, adjusted, within, strict=True):
        if p <= level and part.lean:
            found.append("for" if part.lean > 0 else "against")
        else:
            found.append("equivalent" if p_within <= level else "neither")
    return found


def _verdict(spec: dict, parts: list[_Part], outcomes: list[str], level: float) -> str:
    if not parts:
        return "not tested"
    if all(part.lean > 0 and part.p <= level for part in parts):
        return "supported"
    if all(part.p_within <= level for part in parts) and not {"for", "against"} & set(outcomes):
        return "equivalent"
    if "against" in outcomes and ("for" not in outcomes or spec["decide"] == "equivalent"):
        return "contradicted"
    if "for" in outcomes and {"against", "equivalent"} & set(outcomes):
        return "mixed"
    return "undecided"


@dataclass(frozen=True)
class _Needed:
    seeds: int | None = None
    chance: float | None = None
    core_hours: float | None = None
    by: str | None = None


MOST_SEEDS = 200
"""More seeds than this are not asked for: an effect that needs them is not worth its trainings."""


def _needed(spec: dict, parts: list[_Part], comparison: dict) -> _Needed:
    """The seeds with which every part decides, whichever way, with a chance of POWER.

    Not those until the first part decides against the claim: taking what few seeds saw for true, one outlying
    row would then be asked to contradict it. Of planned looks, the first that has the chance, else the last
    one with the chance that it has.
    """
    level, looks = level_of(comparison), comparison["protocol"]["looks"]
    timed = spec["decide"] == "timed"
    if looks and not timed:
        levels = dict(zip(looks, bounds(tuple(looks), level), strict=True))
        reached = set.intersection(
            *(set(_looks_so_far(comparison, part.ran)) for part in parts if part.ran is not None)
        )
        candidates: Sequence[int] = [look for look in looks if look not in reached]
    else:
        # More than there are: those did not decide. A part that has fewer than MIN_SEEDS decides with these.
        first = max([MIN_SEEDS, *(part.n + 1 for part in parts)])
        candidates, levels = range(first, MOST_SEEDS + 1), {}
    by = BINOMIAL_SEEDS if spec["decide"] == "turning" else SIGNED_RANK_SEEDS

    def chance(n: int) -> float:
        return math.prod(part.chance(n, levels.get(n, level)) for part in parts)

    seeds = next(
        (n for n in candidates if chance(n) >= POWER),
        candidates[-1] if looks and not timed and candidates else None,
    )
    if seeds is None:
        return _Needed()
    if timed:  # anew: pairs of another day are not added
        timings = [comparison["timing"][part.model] for part in _apart(parts)]
        hours = [timing["took"] / (timing["rounds"] / 2) * seeds / 3600 for timing in timings]
        return _Needed(seeds, chance(seeds), sum(hours), by)
    hours = [
        _core_hours(comparison["cells"][part.model], part.rows, seeds - part.n) for part in _apart(parts)
    ]
    return _Needed(seeds, chance(seeds), None if None in hours else sum(hours), by)


def _apart(parts: list[_Part]) -> list[_Part]:
    """One part a model and set of rows: pairs that share a row would count its trainings twice."""
    found: dict[str, _Part] = {}
    for part in parts:
        known = found.get(part.model)
        if known is None:
            found[part.model] = part
        else:
            rows = list(dict.fromkeys([*known.rows, *part.rows]))
            found[part.model] = replace(known, rows=rows, n=min(known.n, part.n))
    return list(found.values())


def _core_hours(schedules: dict, rows: Iterable[str], num_seeds: int) -> float | None:
    """Processor hours of so many trainings of each of the rows; None where a row's time is not known."""
    hours = 0.0
    for row in rows:
        seconds = [value for value in schedules[row].get("compute_seconds", {}).values() if value]
        if not seconds:
            return None
        hours += num_seeds * float(np.mean(seconds)) / 3600
    return hours


def _run(spec: dict, comparison: dict) -> dict[str, Any]:
    """The command that would run what a claim needs, and its cost: as long as the study's own epochs take."""
    command = run_command(spec, comparison["protocol"]["seeds"], comparison["data"])
    if command == spec["run"].get("command"):
        return {"command": command, "core_hours": None}
    wanted = spec["run"]
    hours: float | None = 0.0
    num_seeds = max(MIN_SEEDS, len(comparison["protocol"]["seeds"]))
    num_rows = len(wanted["rows"]) + len(wanted.get("set", []))
    for schedules in comparison["cells"].values():
        if any("tuned_as" in cell for cell in schedules.values()):
            continue  # the same network once more, whose row lists its schedules
        seconds = [
            value / cell["num_epochs"]
            for cell in schedules.values()
            for seed, value in cell.get("compute_seconds", {}).items()
            if value and int(seed) not in cell["diverged"]
        ]
        if not seconds:
            hours = None
            break
        epochs = wanted.get("epochs", max(cell["num_epochs"] for cell in schedules.values()))
        hours = hours + num_rows * num_seeds * epochs * float(np.mean(seconds)) / 3600
    return {"command": command, "core_hours": hours}


def _why(
    spec: dict,
    parts: list[_Part],
    adjusted: list[float],
    outcomes: list[str],
    verdict: str,
    needed: _Needed,
    untested: dict[str, list[str]],
    run: dict[str, Any] | None,
    comparison: dict,
) -> str:
    level = f"{level_of(comparison):g}"
    models = list(dict.fromkeys(part.model for part in parts)) or list(comparison["cells"])
    if spec["decide"] == "timed":
        said = _timed_words(spec, parts, adjusted, comparison)
    else:
        said = [
            _words(part, *_p_words(part, p, comparison), *part.notes)
            for part, p in zip(parts, adjusted, strict=True)
        ]
    said += [f"{listed(names)} could not be tested ({reason})" for reason, names in untested.items()]
    if comparison["missing"]:
        said.append(f"not run: {', '.join(comparison['missing'])}")
    several = len(parts) > 1
    tests = f"the {len(parts)} tests" if several else "the test"
    few = [part for part in parts if part.n < MIN_SEEDS]
    waiting = [part for part in parts if _waits(part, comparison)]
    if verdict == "supported":
        end = f"so {f'all of {tests}' if several else tests} decided for the claim at {level}"
    elif verdict == "contradicted":
        end = f"so {f'at least one of {tests}' if several else tests} decided against the claim at {level}"
    elif verdict == "equivalent":
        end = f"so {tests} found the differences within the margin at {level}"
    elif verdict == "mixed":
        kinds = {"for": "for it", "against": "against it", "equivalent": "no difference beyond the margin"}
        whose: dict[str, list[str]] = {}
        for part, outcome in zip(parts, outcomes, strict=True):
            whose.setdefault(outcome, []).append(_who(part))
        end = "so it depends: " + ", ".join(
            f"{words} {listed(whose[kind])}" for kind, words in kinds.items() if kind in whose
        )
    elif verdict == "not tested":
        end = "so nothing that ran bears on it"
        if run is not None:
            hours = "" if run["core_hours"] is None else f", about {run['core_hours']:.2g} core-hours,"
            end += f"; `{run['command']}`{hours} would test it"
    elif waiting:
        end = f"so {'not all of the tests were' if several else 'the test was not'} due"
    elif len(few) == len(parts):
        end = f"so there are not enough {_counted(spec)}: a test needs {MIN_SEEDS}"
    else:
        end = f"so {tests} did not decide at {level}"
    if verdict == "undecided" and not waiting:
        end += _needed_words(spec, needed, comparison)
    return f"{on_data(comparison, models)}: {'; '.join([*said, end])}."


def _p_words(part: _Part, adjusted: float, comparison: dict, of: str = "seeds") -> list[str]:
    if waits := _waits(part, comparison):
        return [f"undecided: {waits}"]
    if part.n < MIN_SEEDS:
        return [f"not enough {of} for a test, which needs {MIN_SEEDS}"]
    words = f"p {part.p:.3g}"
    if adjusted != part.p:
        words += f", {adjusted:.3g} after Holm"
    return [words, *([f"p {part.p_within:.3g} of equivalence"] if part.p_within < 1 else [])]


def _needed_words(spec: dict, needed: _Needed, comparison: dict) -> str:
    timed = spec["decide"] == "timed"
    if needed.seeds is None and comparison["protocol"]["looks"] and not timed:
        return ", and the planned looks are over"
    if needed.seeds is None or needed.chance is None:
        return f", and not even {MOST_SEEDS} {_counted(spec)} would, if the effects are those seen"
    more = "; timing.rounds is twice that" if timed else " more"
    hours = "" if needed.core_hours is None else f" ({needed.core_hours:.2g} core-hours{more})"
    return (
        f", and {needed.seeds} {_counted(spec)}{hours} would with a chance of {100 * needed.chance:.0f}%, if "
        "the effects are those seen"
    )


def _counted(spec: dict) -> str:
    """What a claim's tests count."""
    return "pairs of rounds" if spec["decide"] == "timed" else "seeds"


def _timed_words(spec: dict, parts: list[_Part], adjusted: list[float], comparison: dict) -> list[str]:
    """Per model, its rows and on what machine they were timed."""
    said = []
    for model in dict.fromkeys(part.model for part in parts):
        timing = comparison["timing"][model]
        mine = [(part, p) for part, p in zip(parts, adjusted, strict=True) if part.model == model]
        of = _counted(spec)
        rows = ", ".join(
            f"{part.seen} ({'; '.join([*_interval_words(part), *_p_words(part, p, comparison, of)])})"
            for part, p in mine
        )
        on = timing["origin"]["accelerator"] or timing["origin"]["processor"]
        first, _ = mine[0]
        said.append(
            f"{model}, {first.details[0]}: {rows}; {first.n} pairs of rounds of {timing['updates']} updates "
            f"in {timing['precision']} on {on}"
        )
    return said


def _interval_words(part: _Part) -> list[str]:
    if part.shown is None:
        return []
    low, high = (f"{100 * end:+.1f}%" for end in part.shown)
    return [f"{low} to {high}"]


def _who(part: _Part) -> str:
    return f"{part.model} ({part.rows[0]})"


def _words(part: _Part, *more: str) -> str:
    details = [*part.details, *more]
    return f"{part.seen} ({'; '.join(details)})" if details else part.seen


# Values of metrics.


def _keys(schedules: dict, model: str, rows: list[str], metrics: list[str]) -> list[str]:
    return [
        f"{'views' if 'view_of' in schedules[row] else 'cells'}.{model}.{row}.metrics.{metric}.values"
        for metric in metrics
        for row in rows
        if metric in schedules[row]["metrics"]
    ]


def _finished(cell: dict, metric: str, keep_none: bool = False) -> dict[str, float | None]:
    """A metric by seed, of the runs that did not diverge."""
    diverged = {str(seed) for seed in cell["diverged"]}
    values = cell["metrics"].get(metric, {}).get("values", {})
    return {s: v for s, v in values.items() if s not in diverged and (keep_none or v is not None)}


def _metric_values(cell: dict, metric: str) -> dict[str, float]:
    """A metric by seed where it is known."""
    values = cell["metrics"].get(metric, {}).get("values", {})
    return {seed: value for seed, value in values.items() if value is not None}


def _overfitted(schedules: dict, rows: list[str]) -> str:
    """Whether there was any overfitting to lower: in how many runs of ``rows`` the validation loss rose."""
    rises = [rise for row in rows for rise in _finished(schedules[row], "overfitting").values()]
    if not rises:
        return f"whether {listed(rows)} overfit is not defined for fewer than four epochs"
    risen = f"{sum(map(bool, rises))} of {len(rises)} runs"
    return f"the validation loss of {listed(rows)} ended risen in {risen}"


def _differences(
    schedules: dict,
    treated: list[str],
    control: list[str],
    metric: str,
    comparison: dict,
) -> tuple[np.ndarray, list[str], dict[str, dict]]:
    """(num_seeds,): mean over ``treated`` minus mean over ``control``; the seeds.

    The seeds are those at which all the rows have a value, without those that are not compared. The latter,
    and those at which a row diverged and so has no value, come with the reasons.
    """
    rows = [*treated, *control]
    values = {row: _metric_values(schedules[row], metric) for row in rows}
    seeds = sorted(set.intersection(*(set(found) for found in values.values())), key=int)
    cells, across_dtypes = [schedules[row] for row in rows], comparison["protocol"]["across_dtypes"]
    left_out = {seed: why for seed in seeds if (why := not_compared(cells, seed, metric, across_dtypes))}
    seeds = [seed for seed in seeds if seed not in left_out]
    for row in rows:
        for seed in map(str, schedules[row]["diverged"]):
            if seed not in values[row]:
                left_out.setdefault(seed, {}).setdefault("diverged", []).append(row)
    one, other = (
        np.array([[values[row][seed] for seed in seeds] for row in rows], dtype=np.float64)
        for rows in (treated, control)
    )
    return one.mean(axis=0) - other.mean(axis=0), seeds, left_out


# Words.


def _without(left_out: dict[str, dict]) -> list[str]:
    diverged = {seed: why["diverged"] for seed, why in left_out.items() if "diverged" in why}
    unlike = {seed: why for seed, why in left_out.items() if seed not in diverged}
    said = []
    if unlike:
        what = _differing(unlike)
        differ = "differs" if len(what) == 1 else "differ"
        said.append(f"without {seeds_named(unlike)}, where the {listed(what)} {differ}")
    if diverged:
        rows = list(dict.fromkeys(row for found in diverged.values() for row in found))
        said.append(f"without {seeds_named(diverged)}, where {listed(rows)} diverged")
    return said


def _no_seed(metric: str, rows: list[str], left_out: dict[str, dict]) -> str:
    unlike = {seed: why for seed, why in left_out.items() if "diverged" not in why}
    same = f" and the same {listed(_differing(unlike))}" if unlike else ""
    return f"no seed has {metric}{same} for {'both' if len(rows) == 2 else 'all of'} {listed(rows)}"


def _differing(left_out: dict[str, dict]) -> list[str]:
    """What the runs of the seeds that are not compared differ in, in words."""
    named = {"torch": "version of torch", "processor": "kind of processor"}
    return [
        named.get(name, name) for name in dict.fromkeys(name for why in left_out.values() for name in why)
    ]
