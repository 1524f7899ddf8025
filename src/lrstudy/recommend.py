"""Which schedule should I use? From the ledger alone: python -m lrstudy.recommend --help.

Ranks the schedules for a task like those in the ledger at a budget, says how far the question lies from the
evidence, and refuses to guess beyond it. ``--check`` leaves one network out after the other, recommends for
it from the others, and says what that would have cost. docs/recommend.md has it in words.

A *task* is a network on data at a length, with all else alike but the schedule. Its *rows* are the schedules
with the values that the search found, each with its final trainings by seed and the trials of its search.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from lrstudy.analysis.statistics import MIN_SEEDS, average_ranks, t_interval
from lrstudy.analysis.time_to_target import validated
from lrstudy.errors import StudyError, unknown
from lrstudy.ledger import Ledger, Record
from lrstudy.recipe.config import Choices, FloatRange
from lrstudy.recipe.dataset import headlines
from lrstudy.recipe.identity import content_hash
from lrstudy.schedules import forms_of
from lrstudy.words import counted

REFERENCE = "static"
REACH = 1.5
"""A length is answered from the shortest evidence over this to the longest times this."""

NUM_RESAMPLES = 2000


@dataclass
class Row:
    """A schedule of a task: the headline metric on test data by seed (0: diverged), and its trials."""

    schedule: str
    values: dict
    by_seed: dict[int, float]
    trials: list[dict] = field(default_factory=list)


@dataclass
class Task:
    """What schedules were compared on: ``rows`` by name; ``metric`` is the data set's headline."""

    model: str
    architecture: str
    num_epochs: int
    data: str
    setting: str
    metric: str
    rows: dict[str, Row]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.model}, {counted(self.num_epochs, 'epoch')} of {self.data}, {self.setting}"


def tasks_of(records: Iterable[Record], headline: Mapping[str, str]) -> list[Task]:
    """The tasks in the ledger that were measured, those with most trainings first.

    Two trainings are of one task where their settings agree in all but schedule, controller, base rate and
    seed, and their data and their row's name are the same. Where the ledger has final trainings of a row with
    several values, those count that have most seeds, of equals those that ended last.

    Args:
        records: of the ledger.
        headline: by data set the metric that decides (:func:`lrstudy.recipe.dataset.headlines`); trainings on
            others are left out.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.data.dataset not in headline:
            continue
        shared = {k: v for k, v in record.settings.items() if k not in ("schedule", "controller", "seed")}
        shared["optimizer"] = {k: v for k, v in shared["optimizer"].items() if k != "base_lr"}
        key = content_hash([record.labels.model, record.data.fingerprint, shared])
        groups.setdefault(key, []).append(record)
    found = [task for group in groups.values() if (task := _task(group, headline)).rows]
    return sorted(found, key=lambda task: -sum(len(row.by_seed) for row in task.rows.values()))


def _task(records: list[Record], headline: Mapping[str, str]) -> Task:
    first = records[0]
    metric = headline[first.data.dataset]
    rows = {}
    for schedule in dict.fromkeys(record.labels.schedule for record in records):
        mine = [record for record in records if record.labels.schedule == schedule]
        finals: dict[str, list[Record]] = {}
        for record in mine:
            if record.labels.role == "final" and record.test is not None:
                finals.setdefault(content_hash(_values(record)), []).append(record)
        if not finals:
            continue
        chosen = max(finals.values(), key=lambda some: (len(some), max(r.origin.ended for r in some)))
        rows[schedule] = Row(
            schedule,
            _values(chosen[0]),
            {
                r.settings["seed"]: _measured(r, metric)
                for r in sorted(chosen, key=lambda r: r.settings["seed"])
            },
            _trials([record for record in mine if record.labels.role == "trial"], metric),
        )
    return Task(
        first.labels.model,
        first.settings["model"]["architecture"],
        first.settings["num_epochs"],
        first.data.label,
        f"{first.settings['optimizer']['name']}, {first.dtype} on {first.device}",
        metric,
        rows,
    )


def _values(record: Record) -> dict:
    """Base rate and the schedule's parameters, without those that a relative one says the same as."""
    schedule = record.settings["schedule"]
    other_form = forms_of(schedule["function"])
    parameters = {name: v for name, v in schedule["parameters"].items() if name not in other_form}
    return {"base_lr": record.settings["optimizer"]["base_lr"], **parameters}


def _measured(record: Record, metric: str) -> float:
    value = getattr(record.measured.last, metric.removeprefix("test/"))
    return 0.0 if record.status == "diverged" or value is None else value


def _trials(records: list[Record], metric: str) -> list[dict]:
    """The trials as :func:`lrstudy.search.tuning.tune` returns them, as far as records tell, with the metric.

    The search's seeds are those with which every trial was trained; others confirm.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(content_hash(_values(record)), []).append(record)
    if not groups:
        return []
    searched = set.intersection(*({r.settings["seed"] for r in group} for group in groups.values()))
    name = validated(metric)

    def phase(some: list[Record]) -> dict | None:
        if not some:
            return None
        losses = [None if r.status == "diverged" else r.numbers("validation/loss")[-1] for r in some]
        ended = [loss for loss in losses if loss is not None]
        worked = len(ended) == len(losses)
        return {
            "losses": losses,
            "objective": mean(ended) if worked else None,
            "metric": mean(r.numbers(name)[-1] for r in some) if worked else 0.0,
        }

    trials = []
    for group in groups.values():
        parts = [[r for r in group if (r.settings["seed"] in searched) == of] for of in (True, False)]
        search, confirmation = map(phase, parts)
        if search is None:
            return []  # no seed is common: nothing can be compared
        losses = [loss for part in (search, confirmation) if part for loss in part["losses"]]
        trials.append(
            {
                "values": _values(group[0]),
                "search": search,
                "confirmation": confirmation,
                "objective": None if None in losses else mean(losses),
            }
        )
    return trials


def evidence(
    tasks: list[Task], model: str, epochs: float, like: str | None = None
) -> list[tuple[Task, float]]:
    """The tasks that answer for a network and a length, each with its weight; the weights add up to 1.

    A task of that length, else the two between whose lengths it lies, weighted linearly in the logarithm,
    else the nearest. Only rows with :data:`lrstudy.analysis.statistics.MIN_SEEDS` seeds are evidence.

    Args:
        model: the name of a row of networks in the ledger, or of an architecture.
        like: which of these a network that the ledger has not is taken to be like.

    Raises:
        StudyError: the ledger does not know the network, the length is out of :data:`REACH`, or there are too
            few seeds; it says what there is.
    """
    there = _there(tasks)
    wanted = like or model
    if like and any(model in (task.model, task.architecture) for task in tasks):
        raise StudyError(f"--like: the ledger has {model} itself; leave --like out.")
    known = [task for task in tasks if wanted in (task.model, task.architecture)]
    if not known:
        names = {name for task in tasks for name in (task.model, task.architecture)}
        error = unknown("--like" if like else "--model", wanted, names, "a network of the ledger")
        more = "" if like else " --like says which of these it is taken to be like."
        raise StudyError(f"{error}{more} The ledger has {there}.")
    whole = [
        whole for task in known if len((whole := _with_seeds(task)).rows) > 1 and REFERENCE in whole.rows
    ]
    if not whole:
        raise StudyError(
            f"--model: {wanted} has not yet {REFERENCE} and another schedule with {MIN_SEEDS} seeds each, as "
            f"an answer takes; the ledger has {there}."
        )
    by_length: dict[int, Task] = {}
    for task in whole:
        by_length.setdefault(task.num_epochs, task)  # of several the one with most trainings
    lengths = sorted(by_length)
    if not lengths[0] / REACH <= epochs <= lengths[-1] * REACH:
        raise StudyError(
            f"--epochs: {epochs:g} is beyond the evidence: {wanted} was trained for "
            f"{' and '.join(map(str, lengths))} epochs, which answers for {lengths[0] / REACH:.3g} to "
            f"{lengths[-1] * REACH:.3g}. Train it for about so long (`-S num_epochs...`), or ask within."
        )
    below, above = (
        max((n for n in lengths if n <= epochs), default=None),
        min((n for n in lengths if n >= epochs), default=None),
    )
    if below is None or above is None or below == above:
        nearest = next(n for n in (above, below) if n is not None)
        return [(by_length[nearest], 1.0)]
    share = math.log(epochs / below) / math.log(above / below)
    return [(by_length[below], 1 - share), (by_length[above], share)]


def _with_seeds(task: Task) -> Task:
    rows = {name: row for name, row in task.rows.items() if len(row.by_seed) >= MIN_SEEDS}
    return Task(**{**vars(task), "rows": rows})


def _there(tasks: list[Task]) -> str:
    said = [
        f"{task.name} ({', '.join(f'{name} {len(row.by_seed)}' for name, row in task.rows.items())} seeds)"
        for task in tasks
    ]
    return "; ".join(said) or "no measured trainings"


def recommend(chosen: Sequence[tuple[Task, float]], trials: int | None = None) -> list[dict]:
    """The schedules that all chosen tasks have, best first.

    Args:
        chosen: :func:`evidence`.
        trials: a budget: how many trials the search has; None: as many as each task's search had.

    Returns:
        By row ``schedule`` and

        - ``expected``: the headline metric; without ``trials`` on test data over final seeds, else what the
          best of so many trials is expected to have on validation data (:func:`best_of`);
        - ``difference`` of it to static and ``interval``: Student's over seeds, or that of trials drawn again
          (None where ``trials`` is more than half of those there are: too few to tell);
        - ``behind``, without ``trials``: how far behind the first row, and the interval;
        - ``mistuned``: by what the validation loss rises if the base rate is off by a factor of two, at worst
          (:func:`mistuned`; None where the trials cannot tell);
        - ``values``: of the task with the largest weight.

    Raises:
        StudyError: ``trials`` is more than the searches had.
    """
    names = [name for name in chosen[0][0].rows if all(name in task.rows for task, _ in chosen)]
    main = max(chosen, key=lambda pair: pair[1])[0]
    if trials is not None:
        fewest = min(len(task.rows[name].trials) for task, _ in chosen for name in names)
        if not 1 <= trials <= fewest:
            told = f"1 to {fewest} can be told of" if fewest else "nothing can be told of a budget here"
            raise StudyError(
                f"--trials: found {trials}; the searches behind this have {fewest} trials a schedule, "
                f"so {told}. Leave --trials out for the values that the searches found."
            )
    found: list[dict[str, Any]] = []
    for name in names:
        expected, difference, interval = (
            _by_seeds(chosen, name) if trials is None else _by_trials(chosen, name, trials)
        )
        found.append(
            {
                "schedule": name,
                "expected": expected,
                "difference": difference,
                "interval": interval,
                "mistuned": mistuned(main.rows[name]),
                "values": main.rows[name].values,
            }
        )
    found.sort(key=lambda row: -row["expected"])
    for row in found[1:] if trials is None else ():
        row["behind"] = _by_seeds(chosen, found[0]["schedule"], row["schedule"])[1:]
    return found


def _by_seeds(
    chosen: Sequence[tuple[Task, float]], name: str, base: str = REFERENCE
) -> tuple[float, float | None, list | None]:
    """Mean metric; mean difference to another row at the same seed, and Student's interval.

    Of two lengths the means are weighted, the squared standard errors with the squares of the weights, and t
    has the degrees of freedom of the one with fewer seeds.
    """
    expected = sum(weight * mean(task.rows[name].by_seed.values()) for task, weight in chosen)
    if name == base:
        return expected, None, None
    from scipy.stats import t

    differences = [
        np.array([value - other[seed] for seed, value in task.rows[name].by_seed.items() if seed in other])
        for task, _ in chosen
        for other in [task.rows[base].by_seed]
    ]
    if min(map(len, differences)) < 2:
        return expected, None, None
    weights = [weight for _, weight in chosen]
    difference = sum(w * d.mean() for w, d in zip(weights, differences, strict=True))
    error = math.sqrt(sum(w**2 * d.var(ddof=1) / len(d) for w, d in zip(weights, differences, strict=True)))
    half = float(t.isf(0.025, min(map(len, differences)) - 1)) * error
    return expected, float(difference), [float(difference - half), float(difference + half)]


def _by_trials(
    chosen: Sequence[tuple[Task, float]], name: str, trials: int
) -> tuple[float, float | None, list | None]:
    expected = sum(weight * best_of(task.rows[name].trials, trials) for task, weight in chosen)
    if name == REFERENCE:
        return expected, None, None
    difference = expected - sum(w * best_of(task.rows[REFERENCE].trials, trials) for task, w in chosen)
    if any(2 * trials > len(task.rows[row].trials) for task, _ in chosen for row in (name, REFERENCE)):
        return expected, difference, None
    rng = np.random.default_rng(0)

    def again(some: list[dict]) -> list[dict]:
        return [some[place] for place in rng.integers(0, len(some), len(some))]

    drawn = [
        sum(
            weight
            * (
                best_of(again(task.rows[name].trials), trials)
                - best_of(again(task.rows[REFERENCE].trials), trials)
            )
            for task, weight in chosen
        )
        for _ in range(NUM_RESAMPLES)
    ]
    return expected, difference, [float(bound) for bound in np.quantile(drawn, [0.025, 0.975])]


def best_of(trials: list[dict], drawn: int) -> float:
    """The validation metric that the best of ``drawn`` trials is expected to have, of lowest loss.

    Every choice of them is equally likely, the defaults among them, without replacement; one that diverged
    comes last and has 0. Source: Sivaprasad et al. 2020, arXiv 1910.11758
    (:func:`lrstudy.search.tuning.budget`).
    """
    from lrstudy.search.tuning import chances_of_best

    def order(trial: dict) -> float:
        objective = trial["search"]["objective"]
        return math.inf if objective is None else objective

    ranked = sorted(trials, key=order)
    chances = chances_of_best(len(ranked), drawn)
    return math.fsum(c * trial["search"]["metric"] for c, trial in zip(chances, ranked, strict=False))


def mistuned(row: Row) -> dict | None:
    """By what the validation loss rises where the base rate is off by a factor of two, to the worse side.

    Interpolated among the search's trials by :func:`lrstudy.sensitivity.sensitivity`, between the lowest and
    the highest rate that was tried.

    Returns:
        ``side`` (half, double), ``change`` as a share of the loss and its ``interval`` (95%); None where the
        trials are too few or tried no rate so far away.
    """
    from lrstudy.search.sensitivity import sensitivity

    worked = [trial for trial in row.trials if trial["search"]["objective"] is not None]
    if not worked:
        return None
    tried = {name: [trial["values"][name] for trial in row.trials] for name in worked[0]["values"]}
    space: dict[str, FloatRange | Choices] = {
        name: FloatRange(low=float(min(values)), high=float(max(values)))
        for name, values in tried.items()
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        and min(values) < max(values)
    }
    if "base_lr" not in space:
        return None
    chosen = [trial for trial in worked if trial["objective"] is not None] or worked[:1]
    best = min(chosen, key=lambda trial: (trial["confirmation"] is None, trial["objective"]))
    known = sensitivity(row.trials, space, best)["parameters"].get("base_lr", {})
    sides = [{"side": side, **known[side]} for side in ("half", "double") if known.get(side)]
    return max(sides, key=lambda side: side["change"], default=None)


def check(tasks: list[Task], usual: str = "cosine") -> list[dict]:
    """Each network left out, and recommended for from the others: what would that have cost?

    From the tasks of all other architectures that have static, ``usual`` and MIN_SEEDS seeds, the schedule
    with the best mean rank of its mean metric, among those that the task left out and all others have.

    Returns:
        By task ``task``, ``recommended``, ``best``, and in points of the task's own test metric: ``regret``,
        how far the recommended one lies below the best, ``regret_of_usual``, how far ``usual`` does, and
        ``gain``: recommended minus ``usual`` at the same seed, with Student's ``interval`` (both None where
        they are the same).

    Raises:
        StudyError: there are not two architectures to compare.
    """
    whole = [_with_seeds(task) for task in tasks]
    whole = [task for task in whole if {REFERENCE, usual} <= task.rows.keys()]
    if len({task.architecture for task in whole}) < 2:
        raise StudyError(
            f"--check: takes two architectures with {REFERENCE} and {usual} at {MIN_SEEDS} seeds each; the "
            f"ledger has {_there(tasks)}."
        )
    found = []
    for task in whole:
        others = [other for other in whole if other.architecture != task.architecture]
        names = [name for name in task.rows if all(name in other.rows for other in others)]
        means = np.array([[mean(other.rows[name].by_seed.values()) for name in names] for other in others])
        ranks = average_ranks(means)
        recommended = names[int(np.argmin(ranks))]
        mine = {name: mean(task.rows[name].by_seed.values()) for name in names}
        best = max(mine, key=mine.__getitem__)
        one, other = (task.rows[name].by_seed for name in (recommended, usual))
        gains = [100 * (one[seed] - other[seed]) for seed in one if seed in other]
        same = recommended == usual
        interval = None if same else t_interval(gains)
        found.append(
            {
                "task": task.name,
                "from": [other.name for other in others],
                "recommended": recommended,
                "best": best,
                "regret": 100 * (mine[best] - mine[recommended]),
                "regret_of_usual": 100 * (mine[best] - mine[usual]),
                "gain": None if same else mean(gains),
                "interval": interval and list(interval),
            }
        )
    return found


def words(
    chosen: Sequence[tuple[Task, float]], ranked: list[dict], tasks: list[Task], asked: argparse.Namespace
) -> str:
    """The answer for a terminal: how far the evidence lies, the ranking, and how sure it is."""
    main = chosen[0][0]
    lines = [f"evidence: {task.name}" + (f" (weight {w:.2f})" if w < 1 else "") for task, w in chosen]
    distance = []
    if asked.like:
        distance.append(f"{asked.model} is not in the ledger and taken to be like {asked.like}: an analogy")
    elif asked.model not in (main.model, main.architecture):
        distance.append(f"another network than {asked.model}")
    off = max(max(asked.epochs / task.num_epochs, task.num_epochs / asked.epochs) for task, _ in chosen)
    distance.append(
        "of the same length"
        if off == 1
        else f"the length lies off by a factor of up to {off:.2f}, interpolated"
        if len(chosen) > 1
        else f"the length is off by a factor of {off:.2f}"
    )
    distance.append("other data than these were not looked at")
    lines.append(f"distance: {'; '.join(distance)}")
    used = {task.name for task, _ in chosen}
    if others := [t.name for t in tasks if t.name not in used and main.model == t.model]:
        lines.append(f"not used: {'; '.join(others)}")
    what = (
        f"{main.metric} after a search as in the ledger"
        if asked.trials is None
        else f"{validated(main.metric)} of the best of {asked.trials} trials"
    )
    lines += [
        "",
        f"{'schedule':<20} {what}; difference to {REFERENCE} (95% interval); base rate off by 2 costs",
    ]
    for row in ranked:
        difference = "" if row["difference"] is None else f"{100 * row['difference']:+.2f}"
        if row["interval"]:
            difference += f" ({100 * row['interval'][0]:+.2f} to {100 * row['interval'][1]:+.2f})"
        cost = "not known"
        if off_by_two := row["mistuned"]:
            low, high = off_by_two["interval"]
            cost = (
                f"{100 * off_by_two['change']:+.1f}% of the loss ({100 * low:+.1f} to {100 * high:+.1f}), "
                f"{off_by_two['side']}"
            )
        lines.append(f"{row['schedule']:<20} {100 * row['expected']:.2f}  {difference:<26} {cost}")
    best = ranked[0]
    values = ", ".join(
        f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in best["values"].items()
    )
    lines += ["", f"first: {best['schedule']} with {values}"]
    equal = [
        row["schedule"]
        for row in ranked[1:]
        if row.get("behind") and row["behind"][1] and row["behind"][1][0] <= 0
    ]
    if equal:
        lines.append(f"not told from it by these seeds: {', '.join(equal)}")
    safe = [row for row in ranked if row["mistuned"]]
    if safe:
        order = sorted(safe, key=lambda row: row["mistuned"]["change"])
        lines.append(f"least hurt by a base rate off by two: {', '.join(row['schedule'] for row in order)}")
    return "\n".join(lines)


def check_words(found: list[dict]) -> str:
    """The check for a terminal, a line per task and their means."""
    lines = []
    for row in found:
        gain = "the same schedule"
        if row["gain"] is not None:
            low, high = row["interval"]
            gain = f"{row['gain']:+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(
            f"{row['task']}: from the others {row['recommended']}; best was {row['best']}; regret "
            f"{row['regret']:.2f} points, of always cosine {row['regret_of_usual']:.2f}; against it {gain}"
        )
    mine, usual = (mean(row[name] for row in found) for name in ("regret", "regret_of_usual"))
    return "\n".join([*lines, f"mean regret: {mine:.2f} points; of always cosine: {usual:.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lrstudy.recommend",
        description="Which schedule should I use, by what the ledger has?",
    )
    parser.add_argument("--model", help="a network of the ledger, by its row's or its architecture's name")
    parser.add_argument("--epochs", type=float, help="how long it will be trained")
    parser.add_argument(
        "--trials", type=int, help="how many trials its search may have; else as the ledger's"
    )
    parser.add_argument(
        "--like", help="the network of the ledger that an unknown --model is taken to be like"
    )
    parser.add_argument(
        "--check", action="store_true", help="leave one network out: what would advice have cost?"
    )
    parser.add_argument("--ledger", type=Path, default=Path("ledger"), help="its folder")
    parser.add_argument("--json", action="store_true", help="write JSON")
    asked = parser.parse_args()
    if not asked.check and (asked.model is None or asked.epochs is None):
        parser.error("--model and --epochs are needed, or --check")
    if asked.epochs is not None and not (asked.epochs > 0 and math.isfinite(asked.epochs)):
        parser.error(f"--epochs: found {asked.epochs:g}; a number above 0")
    records, headline = list(Ledger(asked.ledger).records()), headlines(Path.cwd())
    if unknown := sorted({record.data.dataset for record in records} - set(headline)):
        print(
            f"recommend: left out: trainings on {', '.join(unknown)}, of which no file in conf/dataset says "
            "what decides",
            file=sys.stderr,
        )
    tasks = tasks_of(records, headline)
    if asked.check:
        found = check(tasks)
        print(json.dumps(found, indent=1) if asked.json else check_words(found))
        return
    chosen = evidence(tasks, asked.model, asked.epochs, asked.like)
    ranked = recommend(chosen, asked.trials)
    if asked.json:
        used = [{"task": task.name, "weight": weight} for task, weight in chosen]
        print(json.dumps({"evidence": used, "schedules": ranked}, indent=1))
        return
    print(words(chosen, ranked, tasks, asked))


if __name__ == "__main__":
    from lrstudy.process.command import run_stage

    run_stage(main)
