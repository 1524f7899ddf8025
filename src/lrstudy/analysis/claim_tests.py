"""The tests of a claim in each model: which rows are compared, how, and what was seen.

A part is one test: a model, or a model and a pair of rows. The tests are exact, need
:data:`lrstudy.analysis.statistics.MIN_SEEDS` seeds and look as often as was planned
(:mod:`lrstudy.analysis.looks`). Runs are not pooled over models: one model's seeds tell nothing about another
model. Nor are a seed's runs compared where :func:`lrstudy.analysis.comparison.not_compared` has a reason.

What an update costs is no matter of seeds: it is timed (:mod:`lrstudy.analysis.timing`), and a claim on cost
is tested over pairs of rounds, each row by itself.
"""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from lrstudy.analysis.claim_specs import ClaimSpec, Equivalent, Paired, Timed, Turning
from lrstudy.analysis.comparison import Row, chosen_by_validation, dynamic_rows, not_compared
from lrstudy.analysis.looks import alpha_spent, bounds, conditional_power, looks_reached, p_of_all_looks
from lrstudy.analysis.records import CellResult, ComparedTiming, Results
from lrstudy.analysis.statistics import (
    MIN_SEEDS,
    binomial_chance,
    chance_of_equivalence,
    chance_to_decide,
    equivalence_p,
    median_interval,
    signed_rank_p,
    t_interval,
)
from lrstudy.analysis.timing import log_ratios
from lrstudy.analysis.words import metric_name, show
from lrstudy.words import counted, listed, seeds_named

Schedules = Mapping[str, CellResult]
Curves = Sequence[Mapping[str, Any]]
"""The rows of reports/curves.csv."""

FUTILE = 0.1
"""A plan whose end decides with a lower chance than this, as things went so far, need not be ended."""


class PlannedRow(Row, Protocol):
    """What a claim's contrasts ask of a row."""

    @property
    def parameters(self) -> Mapping[str, Any]: ...

    @property
    def num_epochs(self) -> int: ...

    @property
    def interventions(self) -> Mapping[str, int]: ...


class Contrast(NamedTuple):
    """Rows, and those that they are compared with."""

    treated: list[str]
    control: list[str]


def planned_rows(spec: ClaimSpec, schedules: Mapping[str, PlannedRow]) -> list[Contrast]:
    """The rows that a claim's tests in one model will compare, before anything has run.

    Args:
        spec: the claim.
        schedules: of a model.

    Returns:
        One a test, without a control where a row is tested alone; none where nothing bears on the claim. Of
        what validation will choose all rows that it chooses from.
    """
    if isinstance(spec, Turning):
        cell = schedules.get(spec.baseline)
        long_enough = cell is not None and cell.num_epochs > spec.epoch
        return [Contrast([spec.baseline], [])] if long_enough else []
    if isinstance(spec, Equivalent):
        pairs = itertools.combinations(spec.rows, 2)
        there = set(spec.rows) <= set(schedules)
        return [Contrast([one], [other]) for one, other in pairs] if there else []
    if isinstance(spec, Timed):
        return []
    if spec.contrast == "chosen":
        rows, base = dynamic_rows(schedules, spec.baseline), spec.baseline
        return [Contrast(rows, [f"{base}_averaged" if spec.averaged else base])] if rows else []
    contrast = _CONTRASTS[spec.contrast](spec, schedules)
    return [] if isinstance(contrast, str) else [contrast]


@dataclass(frozen=True)
class Part:
    """One test of a claim, and what is seen of it."""

    model: str
    seen: str  # in words ...
    details: list[str]  # ... and what follows in parentheses
    values: np.ndarray  # (n,): the effect is their mean, or what centre says
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
    def effect(self) -> float:
        """The size of what is seen."""
        return float(self.centre(self.values))

    def words(self, *more: str) -> str:
        """What is seen, with details."""
        details = [*self.details, *more]
        return f"{self.seen} ({'; '.join(details)})" if details else self.seen


def tests_of(spec: ClaimSpec, results: Results, curves: Curves) -> tuple[list[Part], dict[str, list[str]]]:
    """The parts of a claim, and by reason the models that have none."""
    parts: list[Part] = []
    untested: dict[str, list[str]] = {}
    timed = results.timing if isinstance(spec, Timed) else {}
    row = spec.row if isinstance(spec, Paired) else None
    for model in dict.fromkeys([*results.cells, *timed]):
        schedules = results.cells.get(model, {})
        if row is not None and row not in schedules and f"{model}-{row}" not in results.missing:
            continue  # the study has no such cell, so it is no question to this model
        if isinstance(spec, Turning):
            tests = _turning(spec, model, schedules, results, curves)
        elif isinstance(spec, Paired):
            tests = _paired(spec, model, schedules, results)
        elif isinstance(spec, Equivalent):
            tests = _equivalent(spec, model, schedules, results)
        else:
            tests = _timed(spec, model, results)
        if isinstance(tests, str):
            untested.setdefault(tests, []).append(model)
        else:
            parts += tests
    return parts, untested


def _of_all_looks(
    p_of: Callable[[list[int]], float],
    seeds: list[str],
    results: Results,
    ran: Collection[str],
    sides: int = 2,
) -> float:
    looks = results.protocol.looks
    return p_of_all_looks(p_of, seeds, _planned(results), looks, sides, ran)


def _of_chosen(p_of: Callable[[np.ndarray], float], values: np.ndarray, chosen: list[int]) -> float:
    return p_of(values[chosen])


def _planned(results: Results) -> list[str]:
    return [str(seed) for seed in results.protocol.seeds]


def looks_so_far(results: Results, ran: Collection[str]) -> list[int]:
    return looks_reached(results.protocol.looks, _planned(results), ran)


def _ran(schedules: Schedules, rows: Iterable[str], results: Results) -> list[str]:
    """The seeds with which all these rows have run, in the study's order."""
    ran = [set(map(str, schedules[row].seeds)) for row in rows]
    return [seed for seed in _planned(results) if all(seed in seeds for seeds in ran)]


def _ran_for(spec: Paired, model: str, schedules: Schedules, rows: list[str], results: Results) -> list[str]:
    """The seeds with which everything has run that the test of these rows depends on.

    What is chosen among all dynamic rows depends on each: none where one is missing.
    """
    if spec.contrast != "chosen":
        return _ran(schedules, rows, results)
    if any(name.partition("-")[0] == model for name in results.missing):
        return []
    return _ran(schedules, [*rows, *dynamic_rows(schedules, spec.baseline)], results)


def waits(part: Part, results: Results) -> str:
    """How many of the first planned look's seeds have run; nothing once it was reached: the test is due."""
    if part.ran is None or looks_so_far(results, part.ran):
        return ""
    planned = _planned(results)
    first = (results.protocol.looks or [len(planned)])[0]
    return f"{len(set(planned[:first]) & set(part.ran))} of {first} planned seeds so far"


# Deciders: (spec, model, its cells, results, curves) -> parts, or why there are none.


def _turning(
    spec: Turning, model: str, schedules: Schedules, results: Results, curves: Curves
) -> list[Part] | str:
    """Has the smoothed validation loss turned by ``epoch`` while the training loss goes on falling?"""
    from scipy.stats import binom

    row, epoch = spec.baseline, spec.epoch
    cell = schedules.get(row)
    if cell is None:
        return f"{row} did not run"
    num_epochs = cell.num_epochs
    if num_epochs <= epoch:
        return f"{num_epochs} epochs are not more than {epoch}"
    finished, rises = _finished(cell, "turning_epoch"), _known(_finished(cell, "overfitting"))
    # A loss that never turned has no epoch and a rise of 0; where the rise has no value neither is defined.
    turned = {seed: turn for seed, turn in finished.items() if seed in rises}
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
    ran = _ran(schedules, [row], results)
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
        Part(
            model,
            f"{model}'s smoothed validation loss had turned, to rise by more than twice its standard error, "
            f"by epoch {epoch} of {num_epochs} in {sum(early)} of {n} runs, and did not rise by as much in "
            f"{sum(never)}, while the mean training loss went from {losses[epoch]:.3g} to "
            f"{losses[num_epochs]:.3g}",
            [],
            np.array(list(rises.values())),
            n,
            _of_all_looks(p_of, seeds, results, ran) if lean else 1.0,
            lean,
            power,
            [row],
            _keys(schedules, model, [row], ["turning_epoch", "overfitting"]),
            ran=ran,
        )
    ]


def _paired(spec: Paired, model: str, schedules: Schedules, results: Results) -> list[Part] | str:
    """Do some rows of a model differ from others, seed by seed?"""
    contrast = (
        _chosen(spec, schedules) if spec.contrast == "chosen" else _CONTRASTS[spec.contrast](spec, schedules)
    )
    if isinstance(contrast, str):
        return contrast
    treated, control = contrast
    if spec.averaged:
        control = [f"{row}_averaged" for row in control]
    schedules = {**schedules, **results.views[model]}
    if absent := [row for row in control if row not in schedules]:
        return f"{listed(absent)} is not known"
    metric, *beside = (
        metric_name(name, schedules[control[0]], results) for name in [spec.metric, *spec.beside]
    )
    values, seeds, left_out = _differences(schedules, treated, control, metric, results)
    if not len(values):
        return _no_seed(metric, [*treated, *control], left_out)
    sign = 1 if spec.favours == "higher" else -1
    others = {name: _differences(schedules, treated, control, name, results).values for name in beside}
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
            _ran_for(spec, model, schedules, [*treated, *control], results),
            results,
            # A view's trainings are those of its schedule.
            [schedules[row].view_of or row for row in (*treated, *control)],
            _keys(schedules, model, [*treated, *control], [metric, *beside]),
            spec.equivalence,
        )
    ]


def _equivalent(spec: Equivalent, model: str, schedules: Schedules, results: Results) -> list[Part] | str:
    """Do the differences between all pairs of rows lie within the margin?"""
    absent = [row for row in spec.rows if row not in schedules]
    if absent:
        return f"{listed(absent)} did not run"
    metric, margin = metric_name(spec.metric, schedules[spec.rows[0]], results), spec.margin
    parts = []
    for one, other in itertools.combinations(spec.rows, 2):
        values, seeds, left_out = _differences(schedules, [one], [other], metric, results)
        if not len(values):
            return _no_seed(metric, [one, other], left_out)
        mean = float(np.mean(values))
        ran = _ran(schedules, [one, other], results)
        within = _of_all_looks(
            functools.partial(_of_chosen, functools.partial(equivalence_p, margin=margin), values),
            seeds,
            results,
            ran,
            sides=1,
        )
        # The two sides exclude each other: the p of a difference beyond the margin is that of the side seen.
        beyond = math.copysign(1.0, mean) * values - margin
        outside = abs(mean) > margin
        p = _of_all_looks(functools.partial(_of_chosen, signed_rank_p, beyond), seeds, results, ran)
        parts.append(
            Part(
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
                else functools.partial(_chance_within_at_looks, values, margin, results),
                [one, other],
                _keys(schedules, model, [one, other], [metric]),
                shown=t_interval(values, results.protocol.confidence),
                ran=ran,
            )
        )
    return parts


def _timed(spec: Timed, model: str, results: Results) -> list[Part] | str:
    """Does an update of each row of a model cost more than one of others, by more than the margin?

    A part each: in a mean over the rows one that costs much would be lost among those that cost nothing.
    """
    timing = results.timing.get(model)
    if timing is None:
        return "its updates were not timed"
    rows = _TIMED[spec.contrast](spec, timing)
    if isinstance(rows, str):
        return rows
    kind, treated, control = rows
    seconds = {name: row.seconds for name, row in getattr(timing, kind).items()}
    margin = math.log1p(spec.margin)
    parts = []
    for row in treated:
        values = log_ratios(seconds, [row], control)
        n, centre = len(values), float(np.median(values))
        side = (centre > margin) - (centre < -margin)
        beyond = (side or 1) * values - margin
        enough = n >= MIN_SEEDS
        interval = median_interval(values, results.protocol.confidence)
        parts.append(
            Part(
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
    results: Results,
    rows: list[str],
    keys: list[str],
    margin: float | None,
) -> Part:
    """``beyond`` (num_seeds,): how far the differences go beyond what counts, above 0 on the claim's side.

    ``margin``: differences within it are equivalent; None where that is not asked.
    """
    lean = _lean(beyond)
    p = _of_all_looks(lambda chosen: signed_rank_p(beyond[chosen]), seeds, results, ran)
    within = 1.0
    if margin is not None:
        within = _of_all_looks(
            lambda chosen: equivalence_p(beyond[chosen], margin), seeds, results, ran, sides=1
        )
    return Part(
        model,
        seen,
        details,
        effects,
        len(beyond),
        p,
        lean,
        lambda n, level: _chance(beyond, n, level, margin, _one_sided(n, level, results)),
        rows,
        keys,
        within,
        t_interval(effects, results.protocol.confidence),
        _stops(beyond, seeds, ran, p, within, margin, results),
        ran,
    )


def _one_sided(num_seeds: int, level: float, results: Results) -> float:
    """The largest one-sided p that decides at a planned look; ``level`` where there is one look."""
    looks = tuple(results.protocol.looks)
    return bounds(looks, results.protocol.level, sides=1)[looks.index(num_seeds)] if looks else level


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
    values: np.ndarray, margin: float, results: Results, num_seeds: int, level: float
) -> float:
    """:func:`_chance_within` at the one-sided level of a planned look."""
    return _chance_within(values, num_seeds, _one_sided(num_seeds, level, results), margin)


def _stops(
    values: np.ndarray,
    seeds: list[str],
    ran: list[str],
    p: float,
    within: float,
    margin: float | None,
    results: Results,
) -> list[str]:
    """What the look says of going on: alpha spent, futility, equivalence; nothing without planned looks."""
    looks = results.protocol.looks
    level, reached = results.protocol.level, looks_so_far(results, ran)
    if not looks or not reached:
        return []
    now = reached[-1]
    seen = {str(seed) for seed in results.protocol.seeds[:now]}
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


# Contrasts: (spec, a model's rows) -> which are compared, or why none is.


def _chosen(spec: Paired, schedules: Schedules) -> Contrast | str:
    """The dynamic row that validation chose: test data choose nothing."""
    base = spec.baseline
    if base not in schedules:
        return f"{base} did not run"
    row = chosen_by_validation(schedules, base)
    return Contrast([row], [base]) if row else f"no dynamic schedule ran beside {base}"


def _row(spec: Paired, schedules: Mapping[str, PlannedRow]) -> Contrast | str:
    """One dynamic row by itself."""
    base, row = spec.baseline, spec.row
    if row is not None and row in dynamic_rows(schedules, base):
        return Contrast([row], [base])
    return f"{row} is not dynamic" if {base, row} <= set(schedules) else f"{row} or {base} did not run"


def _monitored(spec: Paired, schedules: Mapping[str, PlannedRow]) -> Contrast | str:
    treated, control = [], []
    for name, cell in schedules.items():
        if cell.controller == spec.controller:
            # static_monitored is static with a monitor.
            plain = [
                other
                for other, row in schedules.items()
                if row.controller == "none"
                and row.optimizer == cell.optimizer
                and name.startswith(f"{other}_")
            ]
            if plain:
                treated.append(name)
                control.append(max(plain, key=len))
    if not treated:
        return f"no row ran with {spec.controller} and without"
    interventions = [count for row in treated for count in schedules[row].interventions.values()]
    if interventions and not any(interventions):
        return f"{spec.controller} never intervened in {listed(treated)}"
    return Contrast(treated, control)


def _late_decay(spec: Paired, schedules: Mapping[str, PlannedRow]) -> Contrast | str:
    starts = {
        name: row.parameters["start"]
        for name, row in schedules.items()
        if {"start", "shape"} <= row.parameters.keys()
    }
    if len(set(starts.values())) < 2:
        return "no two late_decay rows with different starts ran"
    latest, earliest = max(starts, key=starts.__getitem__), min(starts, key=starts.__getitem__)
    if not _alike(schedules[latest], schedules[earliest]):
        return f"{latest} and {earliest} differ in more than the schedule"
    return Contrast([latest], [earliest])


_CONTRASTS = {"row": _row, "monitored": _monitored, "late_decay": _late_decay}


# Contrasts of what was timed: (spec, a model's timing) -> which are compared, or why none is.


class TimedContrast(NamedTuple):
    """Rows of one kind, and those that they are compared with."""

    kind: Literal["schedules", "optimizers"]
    treated: list[str]
    control: list[str]


def _dynamic(spec: Timed, timing: ComparedTiming) -> TimedContrast | str:
    """The schedules whose rate moves, by themselves or by a controller; the optimizer is the model's."""
    rows, base = timing.schedules, spec.baseline
    if base not in rows:
        return f"{base} was not timed"
    dynamic = [
        name
        for name, row in rows.items()
        if name != base and (row.moves or row.controller != rows[base].controller)
    ]
    return (
        TimedContrast("schedules", dynamic, [base])
        if dynamic
        else f"no dynamic schedule was timed beside {base}"
    )


def _optimizer(spec: Timed, timing: ComparedTiming) -> TimedContrast | str:
    adaptive, plain = (
        [name for name, row in timing.optimizers.items() if row.optimizer in names]
        for names in (spec.adaptive, spec.plain)
    )
    if adaptive and plain:
        return TimedContrast("optimizers", adaptive, plain)
    return f"no {'plain' if adaptive else 'adaptive'} optimizer was timed"


_TIMED = {"dynamic": _dynamic, "optimizer": _optimizer}


def _alike(row: Row, other: Row) -> bool:
    return (row.controller, row.optimizer) == (other.controller, other.optimizer)


# Values of metrics.


def _keys(schedules: Schedules, model: str, rows: list[str], metrics: list[str]) -> list[str]:
    return [
        f"{'cells' if schedules[row].view_of is None else 'views'}.{model}.{row}.metrics.{metric}.values"
        for metric in metrics
        for row in rows
        if metric in schedules[row].metrics
    ]


def _finished(cell: CellResult, metric: str) -> dict[str, float | None]:
    """A metric by seed, of the runs that did not diverge."""
    diverged = {str(seed) for seed in cell.diverged}
    known = cell.metrics.get(metric)
    return {seed: value for seed, value in (known.values if known else {}).items() if seed not in diverged}


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    """By seed, where there is a value."""
    return {seed: value for seed, value in values.items() if value is not None}


def _overfitted(schedules: Schedules, rows: list[str]) -> str:
    """Whether there was any overfitting to lower: in how many runs of ``rows`` the validation loss rose."""
    rises = [rise for row in rows for rise in _known(_finished(schedules[row], "overfitting")).values()]
    if not rises:
        return f"whether {listed(rows)} overfit is not defined for fewer than four epochs"
    risen = f"{sum(map(bool, rises))} of {len(rises)} runs"
    return f"the validation loss of {listed(rows)} ended risen in {risen}"


LeftOut = dict[str, dict[str, list[str]]]
"""By seed what differs, with every row's value; ``diverged``: the rows that have none."""


class Differences(NamedTuple):
    """(num_seeds,): mean over some rows minus mean over others; the seeds, and those that are left out."""

    values: np.ndarray
    seeds: list[str]
    left_out: LeftOut


def _differences(
    schedules: Schedules, treated: list[str], control: list[str], metric: str, results: Results
) -> Differences:
    """The seeds are those at which all the rows have a value, without those that are not compared.

    The latter, and those at which a row diverged and so has no value, come with the reasons.
    """
    rows = [*treated, *control]
    values = {
        row: _known(known.values if (known := schedules[row].metrics.get(metric)) else {}) for row in rows
    }
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in values.values())), key=int)
    cells, across_dtypes = [schedules[row] for row in rows], results.protocol.across_dtypes
    left_out: LeftOut = {
        seed: {str(kind): values for kind, values in why.items()}
        for seed in seeds
        if (why := not_compared(cells, seed, metric, across_dtypes))
    }
    seeds = [seed for seed in seeds if seed not in left_out]
    for row in rows:
        for seed in map(str, schedules[row].diverged):
            if seed not in values[row]:
                left_out.setdefault(seed, {}).setdefault("diverged", []).append(row)
    one, other = (
        np.array([[values[row][seed] for seed in seeds] for row in rows], dtype=np.float64)
        for rows in (treated, control)
    )
    return Differences(one.mean(axis=0) - other.mean(axis=0), seeds, left_out)


# Words.


def _without(left_out: LeftOut) -> list[str]:
    diverged = {seed: why["diverged"] for seed, why in left_out.items() if "diverged" in why}
    unlike = {seed: why for seed, why in left_out.items() if seed not in diverged}
    said = []
    if unlike:
        what = _differing(unlike)
        differ = "differs" if len(what) == 1 else "differ"
        said.append(f"without {seeds_named(unlike)}, where the {listed(what)} {differ}")
    if diverged:
        rows = list(dict.fromkeys(row for of_seed in diverged.values() for row in of_seed))
        said.append(f"without {seeds_named(diverged)}, where {listed(rows)} diverged")
    return said


def _no_seed(metric: str, rows: list[str], left_out: LeftOut) -> str:
    unlike = {seed: why for seed, why in left_out.items() if "diverged" not in why}
    same = f" and the same {listed(_differing(unlike))}" if unlike else ""
    return f"no seed has {metric}{same} for {'both' if len(rows) == 2 else 'all of'} {listed(rows)}"


def _differing(left_out: LeftOut) -> list[str]:
    """What the runs of the seeds that are not compared differ in, in words."""
    named = {"torch": "version of torch", "processor": "kind of processor"}
    return [
        named.get(name, name) for name in dict.fromkeys(name for why in left_out.values() for name in why)
    ]
