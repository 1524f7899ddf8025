"""What the study answers: each claim taken to a verdict.

Pure functions of what was compared. The claims are data (claims.yaml). docs/protocol.md is the protocol in
words.

A part is one test: a model, or a model and a pair of rows. A claim is general:

- *supported*: every part decides for it. All must, so none is adjusted for the others (Berger 1982).
- *contradicted*: some part decides against it and none for it, after Holm, since any one would do.
- *mixed*: after Holm, some part decides for it, and another one against it or for equivalence.
- *equivalent*: every part's differences lie within the margin, by two one-sided tests.
- *not tested*: nothing ran that bears on it.
- *undecided*: all else.

It is about all models of the study: as long as one is still to come, what the others decide supports,
contradicts or levels nothing.

What a part is, and how it is tested: :mod:`lrstudy.analysis.claim_tests`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lrstudy.analysis.claim_specs import (
    ClaimSpec,
    Equivalent,
    Paired,
    Timed,
    Turning,
    claim_specs,
    run_command,
)
from lrstudy.analysis.claim_tests import Curves, Part, looks_so_far, tests_of, waits
from lrstudy.analysis.comparison import dynamic_rows
from lrstudy.analysis.looks import bounds
from lrstudy.analysis.records import CellResult, Claim, ClaimPart, ClaimRun, Outcome, Results, Verdict
from lrstudy.analysis.statistics import MIN_SEEDS, holm
from lrstudy.analysis.words import on_data, unit
from lrstudy.words import listed

POWER = 0.8
"""The chance of a decision that ``seeds_needed`` asks for."""

SIGNED_RANK_SEEDS = (
    "The fewest seeds with which every part decides, for, against or within the margin, with a chance of 80% "
    "or more, if its true mean and spread are those seen: lrstudy.analysis.statistics.chance_to_decide, "
    "multiplied over the parts."
)
BINOMIAL_SEEDS = (
    "The fewest seeds with which the exact binomial test of every part decides with a chance of 80% or more, "
    "if the true share of runs is the one seen."
)


def claims(results: Results, curves: Curves) -> list[Claim]:
    """The verdict on every claim of claims.yaml, in its order.

    Args:
        results: what was compared.
        curves: the rows of reports/curves.csv.

    Returns:
        A claim's ``effect`` is the mean over the parts of the mean over seeds; for an equivalence that of the
        pair of rows that differs most, for a cost that of the row that differs most. ``n`` are seeds, or for
        a cost pairs of rounds, of the test that has fewest (0 if nothing could be tested), and ``counted``
        says which of these in words. ``keys`` are paths inside comparison.json. A part's ``interval`` is
        Student's, and of a cost :func:`lrstudy.analysis.statistics.median_interval`. ``untested``: by reason
        the models that have no part.

        Where undecided: ``seeds_needed`` (for a cost: pairs of rounds), the ``chance`` that they decide, the
        ``core_hours`` of the further ones (for a cost of all, timed anew), and ``seeds_needed_by``: how these
        were estimated; None if not computable. Where not tested: ``run``: the command that would run it.

        The claims on the row that validation chose have ``by_schedule`` too: the same for each dynamic
        schedule by itself, a question of its own that no other row has a part in.
    """
    judged = []
    for spec in claim_specs():
        claim = _judge(spec, *tests_of(spec, results, curves), results)
        if isinstance(spec, Paired) and spec.contrast == "chosen":
            alone = {
                row: spec.model_copy(update={"contrast": "row", "row": row})
                for row in _dynamic_anywhere(results)
            }
            by_schedule = {
                row: _judge(of_row, *tests_of(of_row, results, curves), results)
                for row, of_row in alone.items()
            }
            claim = claim.model_copy(update={"by_schedule": by_schedule})
        judged.append(claim)
    return judged


def _dynamic_anywhere(results: Results) -> list[str]:
    reference = results.protocol.reference
    rows = [row for schedules in results.cells.values() for row in dynamic_rows(schedules, reference)]
    return list(dict.fromkeys(rows))


# From parts to a verdict.


class _Judged(NamedTuple):
    """A part, its p after Holm over the claim's parts, and what it decides."""

    part: Part
    p_holm: float
    decides: Outcome


def _judge(spec: ClaimSpec, parts: list[Part], untested: dict[str, list[str]], results: Results) -> Claim:
    level = results.protocol.level
    adjusted, within = (
        [float(p) for p in holm(family)] if parts else []
        for family in ([part.p for part in parts], [part.p_within for part in parts])
    )
    outcomes = _outcomes(parts, adjusted, within, level)
    verdict = so_far = _verdict(spec, parts, outcomes, level)
    to_come = _to_come(spec, parts, results)
    if to_come and verdict in ("supported", "contradicted", "equivalent"):
        verdict = "undecided"
    if so_far in ("supported", "equivalent"):  # each part decided at the level, as all of them had to
        outcomes = ["for" if so_far == "supported" else "equivalent"] * len(parts)
    judged = [_Judged(*of_part) for of_part in zip(parts, adjusted, outcomes, strict=True)]
    due = not to_come and not any(waits(part, results) for part in parts)
    needed = _needed(spec, parts, results) if verdict == "undecided" and due else _Needed()
    effects = [part.effect for part in parts]
    if isinstance(spec, Equivalent | Timed):
        # Differences of several pairs, or rows, would cancel each other.
        effects = sorted(effects, key=abs)[-1:]
    run = _run(spec, results) if verdict == "not tested" else None
    return Claim(
        id=spec.id,
        claim=spec.claim,
        source=spec.source,
        test=spec.test,
        verdict=verdict,
        why=_why(spec, judged, verdict, needed, untested, run, to_come, results),
        effect=float(np.mean(effects)) if effects else None,
        unit=_unit(spec),
        n=min((part.n for part in parts), default=0),
        counted=_counted(spec),
        seeds_needed=needed.seeds,
        chance=needed.chance,
        core_hours=needed.core_hours,
        seeds_needed_by=needed.by,
        run=run,
        untested=untested,
        keys=list(dict.fromkeys(key for part in parts for key in part.keys)),
        parts=[_told(of_part, results) for of_part in judged],
    )


def _told(judged: _Judged, results: Results) -> ClaimPart:
    part = judged.part
    return ClaimPart(
        model=part.model,
        rows=part.rows,
        what=part.words(),
        n=part.n,
        effect=part.effect,
        interval=part.shown,
        p=part.p,
        p_holm=judged.p_holm,
        p_within=part.p_within,
        decides=judged.decides,
        waits=waits(part, results),
        notes=part.notes,
    )


def _to_come(spec: ClaimSpec, parts: list[Part], results: Results) -> list[str]:
    """The models of the study that have no part in the claim yet, and may have one when they have run."""
    planned = dict.fromkeys(one.model for one in results.progress.values())
    if isinstance(spec, Timed):
        return [model for model in planned if model not in results.timing]
    there = {part.model for part in parts}
    lacking = {one.model for name, one in results.progress.items() if name in results.missing}
    return [model for model in planned if model in lacking and model not in there]


def _unit(spec: ClaimSpec) -> str:
    if isinstance(spec, Timed):
        return "fraction"
    return unit("overfitting" if isinstance(spec, Turning) else spec.metric)


def _outcomes(parts: list[Part], adjusted: list[float], within: list[float], level: float) -> list[Outcome]:
    """What each part decides, after Holm over the parts."""
    outcomes: list[Outcome] = []
    for part, p, p_within in zip(parts, adjusted, within, strict=True):
        if p <= level and part.lean:
            outcomes.append("for" if part.lean > 0 else "against")
        else:
            outcomes.append("equivalent" if p_within <= level else "neither")
    return outcomes


def _verdict(spec: ClaimSpec, parts: list[Part], outcomes: list[Outcome], level: float) -> Verdict:
    if not parts:
        return "not tested"
    if all(part.lean > 0 and part.p <= level for part in parts):
        return "supported"
    if all(part.p_within <= level for part in parts) and not {"for", "against"} & set(outcomes):
        return "equivalent"
    if "against" in outcomes and ("for" not in outcomes or isinstance(spec, Equivalent)):
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


def _needed(spec: ClaimSpec, parts: list[Part], results: Results) -> _Needed:
    """The seeds with which every part decides, whichever way, with a chance of POWER.

    Not those until the first part decides against the claim: taking what few seeds saw for true, one outlying
    row would then be asked to contradict it. Of planned looks, the first that has the chance, else the last
    one with the chance that it has.
    """
    level, looks = results.protocol.level, results.protocol.looks
    timed = isinstance(spec, Timed)
    if looks and not timed:
        levels = dict(zip(looks, bounds(tuple(looks), level), strict=True))
        reached = set.intersection(
            *(set(looks_so_far(results, part.ran)) for part in parts if part.ran is not None)
        )
        candidates: Sequence[int] = [look for look in looks if look not in reached]
    else:
        # More than there are: those did not decide. A part that has fewer than MIN_SEEDS decides with these.
        first = max([MIN_SEEDS, *(part.n + 1 for part in parts)])
        candidates, levels = range(first, MOST_SEEDS + 1), {}
    by = BINOMIAL_SEEDS if isinstance(spec, Turning) else SIGNED_RANK_SEEDS

    def chance(n: int) -> float:
        return math.prod(part.chance(n, levels.get(n, level)) for part in parts)

    seeds = next(
        (n for n in candidates if chance(n) >= POWER),
        candidates[-1] if looks and not timed and candidates else None,
    )
    if seeds is None:
        return _Needed()
    if timed:  # anew: pairs of another day are not added
        timings = [results.timing[part.model] for part in _apart(parts)]
        took = [timing.took / (timing.rounds / 2) * seeds / 3600 for timing in timings]
        return _Needed(seeds, chance(seeds), sum(took), by)
    hours = [_core_hours(results.cells[part.model], part.rows, seeds - part.n) for part in _apart(parts)]
    known = [each for each in hours if each is not None]
    return _Needed(seeds, chance(seeds), sum(known) if len(known) == len(hours) else None, by)


def _apart(parts: list[Part]) -> list[Part]:
    """One part a model and set of rows: pairs that share a row would count its trainings twice."""
    by_model: dict[str, Part] = {}
    for part in parts:
        known = by_model.get(part.model)
        if known is None:
            by_model[part.model] = part
        else:
            rows = list(dict.fromkeys([*known.rows, *part.rows]))
            by_model[part.model] = replace(known, rows=rows, n=min(known.n, part.n))
    return list(by_model.values())


def _core_hours(schedules: Mapping[str, CellResult], rows: Iterable[str], num_seeds: int) -> float | None:
    """Processor hours of so many trainings of each of the rows; None where a row's time is not known."""
    hours = 0.0
    for row in rows:
        seconds = [value for value in schedules[row].compute_seconds.values() if value]
        if not seconds:
            return None
        hours += num_seeds * float(np.mean(seconds)) / 3600
    return hours


def _run(spec: ClaimSpec, results: Results) -> ClaimRun:
    """The command that would run what a claim needs, and its cost: as long as the study's own epochs take."""
    wanted, seeds = spec.run, results.protocol.seeds
    command = run_command(spec, seeds, results.data)
    if wanted.command is not None:
        return ClaimRun(command=command, core_hours=None)
    hours = 0.0
    num_rows = len(wanted.rows) + len(wanted.overrides)
    for schedules in results.cells.values():
        if any(cell.tuned_as is not None for cell in schedules.values()):
            continue  # the same network once more, whose row lists its schedules
        seconds = [
            value / cell.num_epochs
            for cell in schedules.values()
            for seed, value in cell.compute_seconds.items()
            if value and int(seed) not in cell.diverged
        ]
        if not seconds:
            return ClaimRun(command=command, core_hours=None)
        epochs = wanted.epochs or max(cell.num_epochs for cell in schedules.values())
        hours += num_rows * max(MIN_SEEDS, len(seeds)) * epochs * float(np.mean(seconds)) / 3600
    return ClaimRun(command=command, core_hours=hours)


def _why(
    spec: ClaimSpec,
    judged: list[_Judged],
    verdict: Verdict,
    needed: _Needed,
    untested: dict[str, list[str]],
    run: ClaimRun | None,
    to_come: list[str],
    results: Results,
) -> str:
    parts = [of_part.part for of_part in judged]
    models = list(dict.fromkeys(part.model for part in parts)) or list(results.cells)
    if isinstance(spec, Timed):
        said = _timed_words(judged, results)
    else:
        said = [part.words(*_p_words(part, p_holm, results), *part.notes) for part, p_holm, _ in judged]
    said += [f"{listed(names)} could not be tested ({reason})" for reason, names in untested.items()]
    if results.missing:
        said.append(f"not run: {', '.join(results.missing)}")
    if to_come and verdict == "undecided":
        return f"{on_data(results, models)}: {'; '.join(said)}; {listed(to_come)} still to come."
    end = _end(spec, judged, verdict, run, results)
    if verdict == "undecided" and not any(waits(part, results) for part in parts):
        end += _needed_words(spec, needed, results)
    return f"{on_data(results, models)}: {'; '.join([*said, end])}."


def _end(
    spec: ClaimSpec, judged: list[_Judged], verdict: Verdict, run: ClaimRun | None, results: Results
) -> str:
    """What follows from the parts."""
    level, several = f"{results.protocol.level:g}", len(judged) > 1
    tests = f"the {len(judged)} tests" if several else "the test"
    if verdict == "supported":
        return f"so {f'all of {tests}' if several else tests} decided for the claim at {level}"
    if verdict == "contradicted":
        return f"so {f'at least one of {tests}' if several else tests} decided against the claim at {level}"
    if verdict == "equivalent":
        return f"so {tests} found the differences within the margin at {level}"
    if verdict == "mixed":
        kinds = {"for": "for it", "against": "against it", "equivalent": "no difference beyond the margin"}
        whose: dict[str, list[str]] = {}
        for part, _, outcome in judged:
            whose.setdefault(outcome, []).append(f"{part.model} ({part.rows[0]})")
        return "so it depends: " + ", ".join(
            f"{words} {listed(whose[kind])}" for kind, words in kinds.items() if kind in whose
        )
    if verdict == "not tested":
        end = "so nothing that ran bears on it"
        if run is None:
            return end
        hours = "" if run.core_hours is None else f", about {run.core_hours:.2g} core-hours,"
        return f"{end}; `{run.command}`{hours} would test it"
    if any(waits(of_part.part, results) for of_part in judged):
        return f"so {'not all of the tests were' if several else 'the test was not'} due"
    if all(of_part.part.n < MIN_SEEDS for of_part in judged):
        return f"so there are not enough {_counted(spec)}: a test needs {MIN_SEEDS}"
    return f"so {tests} did not decide at {level}"


def _p_words(part: Part, adjusted: float, results: Results, of: str = "seeds") -> list[str]:
    if waiting := waits(part, results):
        return [f"undecided: {waiting}"]
    if part.n < MIN_SEEDS:
        return [f"not enough {of} for a test, which needs {MIN_SEEDS}"]
    words = f"p {part.p:.3g}"
    if adjusted != part.p:
        words += f", {adjusted:.3g} after Holm"
    return [words, *([f"p {part.p_within:.3g} of equivalence"] if part.p_within < 1 else [])]


def _needed_words(spec: ClaimSpec, needed: _Needed, results: Results) -> str:
    timed = isinstance(spec, Timed)
    if needed.seeds is None and results.protocol.looks and not timed:
        return ", and the planned looks are over"
    if needed.seeds is None or needed.chance is None:
        return f", and not even {MOST_SEEDS} {_counted(spec)} would, if the effects are those seen"
    more = "; timing.rounds is twice that" if timed else " more"
    hours = "" if needed.core_hours is None else f" ({needed.core_hours:.2g} core-hours{more})"
    return (
        f", and {needed.seeds} {_counted(spec)}{hours} would with a chance of {100 * needed.chance:.0f}%, if "
        "the effects are those seen"
    )


def _counted(spec: ClaimSpec) -> str:
    """What a claim's tests count."""
    return "pairs of rounds" if isinstance(spec, Timed) else "seeds"


def _timed_words(judged: list[_Judged], results: Results) -> list[str]:
    """Per model, its rows and on what machine they were timed."""
    said = []
    for model in dict.fromkeys(of_part.part.model for of_part in judged):
        timing = results.timing[model]
        mine = [(part, p_holm) for part, p_holm, _ in judged if part.model == model]
        of = "pairs of rounds"
        rows = ", ".join(
            f"{part.seen} ({'; '.join([*_interval_words(part), *_p_words(part, p_holm, results, of)])})"
            for part, p_holm in mine
        )
        on = timing.origin.accelerator or timing.origin.processor
        first, _ = mine[0]
        said.append(
            f"{model}, {first.details[0]}: {rows}; {first.n} {of} of {timing.updates} updates "
            f"in {timing.precision} on {on}"
        )
    return said


def _interval_words(part: Part) -> list[str]:
    if part.shown is None:
        return []
    low, high = (f"{100 * end:+.1f}%" for end in part.shown)
    return [f"{low} to {high}"]
