"""What trainings cost: the time to a target, and what an update takes."""

from typing import NamedTuple

from lrstudy.analysis.records import COSTS, ComparedTiming, Comparison
from lrstudy.report.document import Figure, Section, Table
from lrstudy.report.sentences import paragraphs, sentence
from lrstudy.report.series import profiles
from lrstudy.report.words import interval_words, less_one, number_words, percent_confidence, range_words


def time_to_target(comparison: Comparison) -> Section:
    """How soon each schedule's runs reached one target per model; runs that never did are in every number."""
    times, percent = comparison.time_to_target, percent_confidence(comparison)
    rows = []
    for model, timed in times.models.items():
        for schedule, of_cell in timed.schedules.items():
            number = len(of_cell.epochs.values)
            row = [f"{model}-{schedule}", f"{number - of_cell.unreached} of {number}"]
            for cost in COSTS:
                row += [number_words(of_cell.by(cost).median), range_words(of_cell.by(cost).interval)]
            rows.append(row)
    header = [words for cost in COSTS for words in (f"median {cost}", f"{percent} interval of {cost}")]
    with_target = [timed.schedules for timed in times.models.values() if timed.schedules]
    whole = times.profiles.epochs
    some = dict.fromkeys(name for schedules in with_target for name in schedules)
    caption = sentence(
        "time_to_target",
        "figure",
        whole=whole,
        several=len(with_target) > 1,
        partly=[name for name in some if name not in whole.schedules],
    )
    figure = Figure("time_to_target.svg", caption, "comparison.json", [row[0] for row in rows])
    return Section(
        "Time to target",
        text=paragraphs("time_to_target", models=times.models),
        figures=[figure] if profiles(comparison) else [],
        tables=[Table(["cell", "seeds that got there", *header], rows)] if rows else [],
    )


class TimedOn(NamedTuple):
    """A model's timing, the machine in words, and by row how often its loss was not finite."""

    timing: ComparedTiming
    machine: str
    diverged: dict[str, int]


def updates(comparison: Comparison) -> Section | None:
    """What an update costs under each schedule and each optimizer, per model."""
    if not comparison.timing:
        return None
    reference, percent = comparison.protocol.reference, percent_confidence(comparison)
    tables, timed = [], {}
    for model, timing in comparison.timing.items():
        rows = timing.schedules | {f"static, {name}": row for name, row in timing.optimizers.items()}
        origin, threads = timing.origin, timing.threads
        on = origin.accelerator or f"{origin.processor}, {threads} thread{'s' * (threads > 1)}"
        diverged = {name: row.diverged for name, row in rows.items() if row.diverged}
        timed[model] = TimedOn(timing, on, diverged)
        header = ["optimizer", "controller", "ms per update", f"more than {reference}, %"]
        tables.append(
            Table(
                [f"{model}: schedule", *header, f"{percent} interval"],
                [
                    [
                        name,
                        row.optimizer,
                        row.controller,
                        f"{1000 * row.seconds_per_update:.4g}",
                        "" if row.ratio is None else f"{100 * (row.ratio - 1):+.1f}",
                        "" if row.ratio is None else interval_words(less_one(row.interval), "+"),
                    ]
                    for name, row in rows.items()
                ],
            )
        )
    return Section("What an update costs", text=paragraphs("costs", timed=timed), tables=tables)
