"""What a study can decide, before it trains: python -m lrstudy.design (``make design``).

Reads params.yaml and the ledger, trains nothing. The first line says whether the design can decide anything.
Then for each claim: what it needs, whether the design has it, the smallest p that its test can reach, and the
power, the chance that the test decides, for differences of 0.5, 1 and 2 points; in the end what the trainings
cost that are not yet in the ledger.

Exit status 0 if something can be decided, 1 if nothing can, 2 for a mistake in params.yaml.
"""

import argparse
import json
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from lrstudy.analysis.claim_tests import planned_rows
from lrstudy.analysis.looks import bounds
from lrstudy.analysis.statistics import (
    MIN_SEEDS,
    binomial_chance,
    chance_of_equivalence,
    chance_to_decide,
    smallest_p,
)
from lrstudy.ledger import Ledger, Record
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import CompareParams, Params, load_params, workspace_root
from lrstudy.recipe.identity import content_hash
from lrstudy.words import counted, listed

EFFECTS = (0.005, 0.01, 0.02)
"""True differences of the deciding metric that the power is given for: half a point, one and two."""

SPREADS = (0.5, 1.0, 2.0)
"""The same for metrics without points, in units of their spread."""

SHARES = (0.8, 0.9, 1.0)
"""True shares of runs that the power of a binomial test is given for."""

GUESSED_SPREAD = {"image": 0.007, "text": 0.006}
"""By kind of data the spread over seeds of paired differences, where the ledger cannot tell: a guess.

The study of 73cd819 had 0.70 points of accuracy with ResNet-8, 0.62 with the LSTM and 0.64 with the
Transformer, of 5 seeds each (tests/data/comparison_73cd819.json). Of balanced classes
the macro F1 has nearly accuracy's spread.
"""

_LONG = {"max_length": 800}  # tokens of a review

GUESSED_MINUTES = (
    (0.91, {"architecture": "resnet", "depth": 8, "width": 16}),
    (0.75, _LONG | {"architecture": "lstm", "embedding_size": 64, "hidden_size": 64, "num_layers": 1}),
    (
        0.93,
        _LONG
        | {"architecture": "transformer", "embedding_size": 32, "feedforward_size": 128, "num_layers": 1},
    ),
)
"""Core-minutes an epoch of a network of these sizes, where the ledger has none of its trainings: a guess.

CIFAR-10 or IMDB whole, float32, one thread of an AMD EPYC with AVX-512, other work beside it (docs/study.md).
Networks of other sizes have none.
"""

LEAST_PAIRS = 3
"""Seeds that two rows must share for the spread of their differences to count."""

SEEDS = 10
"""As many seeds are proposed: with MIN_SEEDS a second seed that disagrees already takes the p to 0.04."""


@dataclass(frozen=True)
class Spread:
    """Standard deviation over seeds of a model's paired differences, known of so many; of none: a guess."""

    value: float
    num_differences: int = 0

    @property
    def source(self) -> str:
        """Where it is from, in words."""
        return f"{self.num_differences} differences in the ledger" if self.num_differences else "a guess"


@dataclass(frozen=True)
class Look:
    """The last look that the seeds of the design reach, and the largest p that decides there."""

    num_seeds: int
    bound: float
    one_sided_bound: float

    @property
    def reaches(self) -> bool:
        """Whether any difference decides."""
        return self.num_seeds >= MIN_SEEDS and smallest_p(self.num_seeds) <= self.bound


@dataclass(frozen=True)
class PlannedTest:
    """One test of a claim: a model, rows, and what they are compared with (nothing for a test of runs)."""

    model: str
    rows: list[str]
    control: list[str]


@dataclass(frozen=True)
class PlannedClaim:
    """A claim of claims.yaml, and its tests in this design."""

    spec: ClaimSpec
    tests: list[PlannedTest]
    look: Look
    least: float | None  # the share of runs that chance has, where the test is binomial

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p that one test can reach; of equivalence the smallest one-sided one."""
        if isinstance(self.spec, Equivalent):
            return smallest_p(self.look.num_seeds, "greater")
        if self.least is not None:
            return min(1.0, 2 * self.least**self.look.num_seeds)
        return smallest_p(self.look.num_seeds)

    @property
    def by_seeds(self) -> bool:
        """Whether seeds decide it; what a claim of another kind takes is no matter of the design."""
        return not isinstance(self.spec, Timed)

    @property
    def decidable(self) -> bool:
        """Whether its tests can reach the p that decides."""
        of_equivalence = isinstance(self.spec, Equivalent)
        bound = self.look.one_sided_bound if of_equivalence else self.look.bound
        return bool(self.tests) and self.look.num_seeds >= MIN_SEEDS and self.smallest_p <= bound


@dataclass(frozen=True)
class PlannedCell:
    """A cell as far as :func:`lrstudy.analysis.claim_tests.planned_rows` asks before it has run."""

    controller: str
    optimizer: str
    parameters: dict[str, Any]
    num_epochs: int
    lr_range: tuple[float, float]  # all that is asked is whether it moves
    interventions: dict[str, int] = field(default_factory=dict)  # none yet


def planned(params: Params) -> dict[str, dict[str, PlannedCell]]:
    """The cells by model and schedule."""
    cells: dict[str, dict[str, PlannedCell]] = {}
    for row in params.cells.values():
        cell = make_cell(params, row.model, row.schedule)
        cells.setdefault(cell.model_name, {})[cell.schedule_name] = PlannedCell(
            controller=cell.controller.name,
            optimizer=cell.optimizer.name,
            parameters=cell.parameters(),
            num_epochs=cell.num_epochs,
            lr_range=(0.0 if cell.moves() else 1.0, 1.0),
        )
    return cells


def last_look(settings: CompareParams, num_seeds: int) -> Look:
    """The last planned look that ``num_seeds`` reach; with none planned, the one at all of them.

    Where they do not reach the first, it has no seeds.
    """
    level = 1 - settings.confidence
    if not settings.looks:
        return Look(num_seeds, level, level)
    reached = [look for look in settings.looks if look <= num_seeds]
    if not reached:
        return Look(0, 0.0, 0.0)
    place, looks = len(reached) - 1, tuple(settings.looks)
    return Look(reached[-1], bounds(looks, level)[place], bounds(looks, level, sides=1)[place])


def claims_of(params: Params) -> list[PlannedClaim]:
    """Every claim with its tests in this design."""
    cells, look = planned(params), last_look(params.compare, len(params.train.seeds))
    found = []
    for spec in claim_specs():
        tests = [
            PlannedTest(model, rows, control)
            for model, schedules in cells.items()
            for rows, control in planned_rows(spec, schedules)
        ]
        least = None
        if isinstance(spec, Turning) and tests:
            shortest = min(cells[test.model][spec.baseline].num_epochs for test in tests)
            least = max(0.5, spec.epoch / shortest)
        found.append(PlannedClaim(spec, tests, look, least))
    return found


def verdict(params: Params) -> tuple[bool, str]:
    """Whether the design can decide anything, and one line that says so and what would help."""
    claims = claims_of(params)
    decidable = [claim.spec.id for claim in claims if claim.decidable]
    if decidable:
        return True, (
            f"This design can decide {len(decidable)} of {len(claims)} claims: {', '.join(decidable)}."
            + _of_sample(params)
        )
    return False, f"THIS DESIGN CANNOT DECIDE ANYTHING: {_why_nothing(params, claims)}.{_of_sample(params)}"


def _why_nothing(params: Params, claims: list[PlannedClaim]) -> str:
    count, look, settings = len(params.train.seeds), claims[0].look, params.compare
    seeds = f"{count} {'seed' if count == 1 else 'seeds'}"
    helps = f"-S 'train.seeds=[{','.join(map(str, more_seeds(params, SEEDS)))}]' makes it {SEEDS}"
    level = f"{1 - settings.confidence:.2g}"
    if settings.looks and not look.reaches:
        at = f"the first look is at {settings.looks[0]}"
        if look.num_seeds:
            at = f"at the look at {look.num_seeds} a p decides that is at most {look.bound:.2g}: out of reach"
        return f"{seeds}, and {at}; the plan goes to {settings.looks[-1]} seeds: add to train.seeds"
    if count < MIN_SEEDS:
        return f"{seeds}, and a test needs {MIN_SEEDS}; {helps}"
    if not look.reaches:
        return (
            f"{seeds} can reach a p of {smallest_p(count):.2g}, and one decides that is at most {level}; add "
            "seeds to train.seeds"
        )
    chosen = [spec for spec in claim_specs() if isinstance(spec, Paired) and spec.contrast == "chosen"]
    command = run_command(chosen[0], params.train.seeds, ())
    return f"no claim compares rows that are here ({', '.join(params.schedule)}); {command} has some"


def _of_sample(params: Params) -> str:
    if params.data.source != "sample":
        return ""
    return " On the embedded sample, which says nothing of CIFAR-10 and IMDB, whatever it decides."


def more_seeds(params: Params, count: int) -> list[int]:
    """``train.seeds`` and the next free ones, ``count`` in all."""
    seeds = list(params.train.seeds)
    taken = {*seeds, *params.tune.seeds, *params.tune.confirm_seeds}
    free = (seed for seed in range(1, 2**31) if seed not in taken)
    return seeds + [next(free) for _ in range(count - len(seeds))]


def paired_spreads(params: Params, records: Iterable[Record]) -> dict[str, Spread]:
    """By model the spread over seeds of the deciding metric's paired differences to static.

    From the ledger's trainings of this network, length, batch size and optimizer on this data set, which were
    measured on test data: of every other row and static at seeds that both have, LEAST_PAIRS or more, the
    variances are pooled over the rows, weighted by n - 1. Else GUESSED_SPREAD.
    """
    measured = [record for record in records if record.test is not None and record.status == "finished"]
    found = {}
    for model in dict.fromkeys(row.model for row in params.cells.values()):
        first = next(row for row in params.cells.values() if row.model == model)
        settings = make_cell(params, first.model, first.schedule).settings()
        metric = params.dataset[first.dataset].headline
        by_row: dict[str, dict[tuple, float]] = defaultdict(dict)
        static = set()
        for record in measured:
            if not _alike(record.settings, settings):
                continue
            theirs = record.settings
            row = content_hash([theirs["schedule"], theirs["controller"], theirs["optimizer"]])
            if theirs["schedule"]["function"] == "static" and theirs["controller"]["name"] == "none":
                static.add(row)
            score = getattr(record.measured.last, metric)
            if score is not None:
                by_row[row][theirs["seed"], record.dtype, record.data.fingerprint] = score
        samples = []
        for base in static:
            for row in by_row.keys() - static:
                common = by_row[base].keys() & by_row[row].keys()
                if len(common) >= LEAST_PAIRS:
                    samples.append([by_row[row][key] - by_row[base][key] for key in sorted(common)])
        freedom = sum(len(sample) - 1 for sample in samples)
        if freedom:
            variance = sum((len(sample) - 1) * np.var(sample, ddof=1) for sample in samples) / freedom
            found[model] = Spread(math.sqrt(variance), sum(map(len, samples)))
        else:
            found[model] = Spread(GUESSED_SPREAD[params.dataset[first.dataset].kind])
    return found


def _alike(one: dict, other: dict) -> bool:
    same = ("model", "dataset", "batch_size", "num_epochs")
    return all(one[key] == other[key] for key in same) and (
        one["optimizer"]["name"] == other["optimizer"]["name"] and one["training_share"] == 1.0
    )


def power(claim: PlannedClaim, spread: float) -> dict[str, float]:
    """The chance that one test of a claim decides, by the true effect in words.

    The headline metric is told for EFFECTS, a metric without points for SPREADS, shares of runs for SHARES; a
    claim of a margin also for no difference at all, which its two one-sided tests are to show.

    Args:
        claim: with the seeds of the design.
        spread: of the headline metric's paired differences.
    """
    spec, look = claim.spec, claim.look
    found = {}
    if claim.least is not None:
        for share in SHARES:
            chance = binomial_chance(share, claim.least, look.num_seeds, look.bound)
            found[f"{100 * share:.0f}% of runs"] = chance
    elif isinstance(spec, Paired):
        sizes, unit, of = (SPREADS, "spread", 1.0)
        if spec.metric == "headline":
            sizes, unit, of = EFFECTS, "point", spread
        for size in sizes:
            shown = 100 * size if unit == "point" else size
            words = f"{shown:g} {unit}" if shown == 1 else f"{shown:g} {unit}s"
            found[words] = chance_to_decide(size, of, look.num_seeds, look.bound)
    margin = None
    if isinstance(spec, Equivalent):
        margin = spec.margin
    elif isinstance(spec, Paired):
        margin = spec.equivalence
    if margin is not None:
        found["equivalence"] = chance_of_equivalence(
            0.0, spread, look.num_seeds, look.one_sided_bound, margin
        )
    return found


def costs(params: Params, records: Sequence[Record], root: Path) -> dict[str, dict[str, Any]]:
    """By model the trainings that its cells need, those in the ledger, and what the others cost.

    ``needed`` and ``missing`` count a search that is not finished with all trainings that it may take. A
    training is taken to cost as much an epoch as the ledger's of its network (:func:`lrstudy.why.minutes`),
    else as GUESSED_MINUTES has it (``guessed`` is then true); ``core_hours`` is None where neither knows it.
    """
    from lrstudy.search.tuning import most_trainings
    from lrstudy.study.collect import collect
    from lrstudy.why import minutes

    found: dict[str, dict[str, Any]] = {}
    plans, _ = collect(params, records, root, to_train=True)
    for one in plans.values():
        needed = len(one.needs)
        if one.waiting:
            # The first trial of a search is known at once, so who needs nothing yet does not search.
            needed = len(params.train.seeds) + (most_trainings(params.tune) if one.needs else 0)
        there = len(one.needs) - len(one.missing)
        none = {"needed": 0, "in_ledger": 0, "missing": 0, "core_hours": 0.0, "guessed": False}
        row = found.setdefault(one.cell.model_name, none)
        row["needed"] += needed
        row["in_ledger"] += there
        row["missing"] += needed - there
        each = minutes(one.needs[:1], list(records)) if one.needs else None
        if needed > there and each is None:
            each = guessed_minutes(params, one.cell)
            row["guessed"] |= each is not None
        if needed > there and (each is None or row["core_hours"] is None):
            row["core_hours"] = None
        elif needed > there and each is not None:
            row["core_hours"] += (needed - there) * each / 60
    return found


def guessed_minutes(params: Params, cell: Cell) -> float | None:
    """Core-minutes that a training of the cell takes by GUESSED_MINUTES; None where these do not hold.

    They do not on a part of the data or the sample, at another precision, or for other sizes.
    """
    settings = cell.settings()
    if params.data.source == "sample" or params.data.limit is not None or settings["precision"] != "float32":
        return None
    here = settings["model"] | {"max_length": params.data.max_length}
    for each, sizes in GUESSED_MINUTES:
        if sizes.items() <= here.items():
            return each * cell.num_epochs
    return None


def design(params: Params, spreads: dict[str, Spread], cost: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All that is told of a design, as plain values.

    Args:
        params: the study's.
        spreads: by model, :func:`paired_spreads`.
        cost: by model, :func:`costs`.
    """
    can, line = verdict(params)
    look = last_look(params.compare, len(params.train.seeds))
    level = 1 - params.compare.confidence
    return {
        "decides": can,
        "line": line,
        "preset": params.preset,
        "models": list(dict.fromkeys(row.model for row in params.cells.values())),
        "schedules": list(params.schedule),
        "num_cells": len(params.cells),
        "num_seeds": len(params.train.seeds),
        "level": round(level, 12),
        "looks": [
            {"num_seeds": at, "bound": bound}
            for at, bound in zip(
                params.compare.looks,
                bounds(tuple(params.compare.looks), level) if params.compare.looks else (),
                strict=True,
            )
        ],
        "look": {"num_seeds": look.num_seeds, "bound": look.bound},
        "claims": [_told(claim, spreads, params) for claim in claims_of(params)],
        "spreads": {
            model: {"value": spread.value, "num_differences": spread.num_differences, "source": spread.source}
            for model, spread in spreads.items()
        },
        "cost": cost,
    }


def _told(claim: PlannedClaim, spreads: dict[str, Spread], params: Params) -> dict[str, Any]:
    spec, seeds = claim.spec, params.train.seeds
    datasets = dict.fromkeys(row.dataset for row in params.cells.values())
    tests = [
        {
            "model": test.model,
            "rows": test.rows,
            "control": test.control,
            "power": power(claim, spreads[test.model].value),
        }
        for test in claim.tests
    ]
    return {
        "id": spec.id,
        "claim": spec.claim,
        "by_seeds": claim.by_seeds,
        "decidable": claim.decidable,
        "needs": _needs(spec),
        "smallest_p": claim.smallest_p if claim.tests else None,
        "smallest_p_holm": min(1.0, len(claim.tests) * claim.smallest_p) if claim.tests else None,
        "tests": tests,
        "run": None if claim.decidable else run_command(spec, seeds, datasets),
    }


def _needs(spec: ClaimSpec) -> str:
    wanted = spec.run
    if not wanted.rows:
        return "timed updates"
    rows = wanted.rows + [
        override.removeprefix("+schedule.").partition("=")[0] for override in wanted.overrides
    ]
    named = "the row" if len(rows) == 1 else "rows such as" if isinstance(spec, Paired) else "the rows"
    longer = f", more than {spec.epoch} epochs" if isinstance(spec, Turning) else ""
    return f"{named} {listed(rows)}{longer}; {MIN_SEEDS} seeds"


def report(found: dict[str, Any]) -> str:
    """What :func:`design` found, as it is printed."""
    models, seeds = found["models"], found["num_seeds"]
    looks = "looked at once"
    if found["looks"]:
        planned_looks = ", ".join(f"{look['num_seeds']} (p {look['bound']:.2g})" for look in found["looks"])
        looks = f"looks at {planned_looks}; now at {found['look']['num_seeds']}"
    size = f"{counted(len(models), 'model')} x {counted(len(found['schedules']), 'schedule')}"
    size += f", {counted(found['num_cells'], 'cell')}; {counted(seeds, 'seed')}"
    lines = [
        found["line"],
        "",
        f"preset {found['preset']}: {size}, {looks}; level {found['level']:g}",
    ]
    for claim in found["claims"]:
        lines += ["", *_claim_lines(claim, found)]
    lines += [
        "",
        "power: the chance that a test decides, if the difference is the one above; equivalence: that",
        "it shows differences within the margin, if there is none. It takes the spread over seeds of the",
        "deciding metric's paired differences:",
    ]
    for model, spread in found["spreads"].items():
        lines.append(f"  {model:<{_WIDTH}}{100 * spread['value']:.2f} points, {spread['source']}")
    lines += [
        "",
        f"{'trainings':<{_WIDTH + 2}}{'needed':>8}{'in ledger':>12}{'missing':>10}   core-hours of these",
    ]
    for model, row in found["cost"].items():
        lines.append(f"  {model:<{_WIDTH}}{_cost_words(row)}")
    if len(found["cost"]) > 1:
        rows = list(found["cost"].values())
        total = {key: sum(row[key] for row in rows) for key in ("needed", "in_ledger", "missing")}
        hours = [row["core_hours"] for row in rows]
        total["core_hours"] = None if None in hours else sum(hours)
        total["guessed"] = any(row["guessed"] for row in rows)
        lines.append(f"  {'in all':<{_WIDTH}}{_cost_words(total)}")
    if any(row["core_hours"] is None for row in found["cost"].values()):
        lines.append("  unknown: the ledger has no training of this network on this data yet")
    if any(row["guessed"] for row in found["cost"].values()):
        lines += [
            "  a guess: the ledger has no training of this network on this data yet; an epoch as on an AMD",
            "  EPYC with AVX-512, float32, one thread",
        ]
    return "\n".join(lines)


_WIDTH = 18  # of a model's name in print


def _claim_lines(claim: dict[str, Any], found: dict[str, Any]) -> list[str]:
    if not claim["by_seeds"]:
        return [f"{claim['id']}: decided by timings, whatever the seeds"]
    said = [f"{claim['id']}: {'can be decided' if claim['decidable'] else 'CANNOT BE DECIDED'}"]
    said.append(f"  needs       {claim['needs']}")
    by_rows: dict[tuple[str, str], list[str]] = {}
    for test in claim["tests"]:
        by_rows.setdefault((", ".join(test["rows"]), ", ".join(test["control"])), []).append(test["model"])
    for (rows, control), models in by_rows.items():
        against = f" against {control}" if control else ""
        said.append(f"  has         {rows}{against}: {', '.join(models)}")
    if not claim["tests"]:
        said.append("  has         no model with that")
    if not claim["decidable"]:
        return [*said, *([f"  would run   {claim['run']}"] if claim["run"] else [])]
    several = len(claim["tests"]) > 1
    holm = f"; {claim['smallest_p_holm']:.2g} after Holm, where one of {len(claim['tests'])} is to decide"
    said.append(f"  smallest p  {claim['smallest_p']:.2g}{holm if several else ''}")
    said.append(f"  {'power':<{_WIDTH}}" + "".join(f"{name:>14}" for name in claim["tests"][0]["power"]))
    shown = {test["model"]: list(test["power"].values()) for test in claim["tests"]}  # pairs have the same
    if several:
        every = zip(*(test["power"].values() for test in claim["tests"]), strict=True)
        shown["all of them"] = [math.prod(column) for column in every]
    for name, row in shown.items():
        said.append(f"    {name:<{_WIDTH - 2}}" + "".join(f"{chance:>14.2f}" for chance in row))
    return said


def _cost_words(row: dict[str, Any]) -> str:
    hours = "unknown" if row["core_hours"] is None else f"{row['core_hours']:.2g}"
    if row["guessed"] and row["core_hours"] is not None:
        hours += ", by a guess"
    return f"{row['needed']:>8}{row['in_ledger']:>12}{row['missing']:>10}   {hours}"


def printed(overrides: Sequence[str]) -> str:
    """The print for conf/ with these overrides and an empty ledger."""
    from lrstudy.compose import compose

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        compose(Path.cwd(), root / "params.yaml", list(overrides))
        params = load_params(root / "params.yaml")
        cost = costs(params, [], root)
        return report(design(params, paired_spreads(params, []), cost))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lrstudy.design",
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    arguments = parser.parse_args()
    params, root = load_params(), workspace_root()
    ledger = Ledger(root / "ledger")
    records = list(ledger.records())
    found = design(params, paired_spreads(params, records), costs(params, records, root))
    print(json.dumps(found, indent=1) if arguments.json else report(found))
    sys.exit(0 if found["decides"] else 1)


if __name__ == "__main__":
    run_stage(main)
