"""What a study found, in a few sentences and one table."""

from lrstudy.analysis.records import Claim, Comparison, Outcome
from lrstudy.analysis.statistics import MIN_SEEDS
from lrstudy.report.words import (
    cell_states,
    headline,
    hours_words,
    interval_words,
    model_title,
    percent_confidence,
    percent_words,
    result_rows,
)
from lrstudy.words import counted

MAIN_CLAIM, AVERAGED_CLAIM = "dynamic_generalizes", "dynamic_beats_averaged"
"""The claim that the report begins with, and the same against static with averaged weights."""


def claim_of(comparison: Comparison, name: str = MAIN_CLAIM) -> Claim | None:
    return next((claim for claim in comparison.claims if claim.id == name), None)


def verdict(comparison: Comparison) -> list[str]:
    """The question's own claim with its verdict; nothing if claims were not judged."""
    claim = claim_of(comparison)
    if claim is None:
        return []
    words = f"**{claim.verdict.capitalize()}**: {claim.claim}"
    if claim.verdict == "undecided" and claim.seeds_needed is not None and claim.chance is not None:
        words += (
            f" {claim.seeds_needed} seeds{hours_words(claim.core_hours, ' more')} would decide with a "
            f"chance of {100 * claim.chance:.0f}%, if the effects are those seen."
        )
    return [words]


_DECIDES: dict[Outcome, str] = {
    "for": "better than {reference}",
    "against": "worse than {reference}",
    "equivalent": "equivalent to {reference} within half a point",
    "neither": "undecided",
}


def findings(comparison: Comparison) -> list[str]:
    """One sentence per model: the schedule that validation chose, how far from the reference, verdict.

    And how far from the reference's averaged weights.
    """
    reference, claim = comparison.protocol.reference, claim_of(comparison)
    if claim is None:
        return []
    against = claim_of(comparison, AVERAGED_CLAIM)
    parts = {part.model: part for part in claim.parts}
    rivals = {part.model: part for part in (against.parts if against else ())}
    why = {model: reason for reason, models in claim.untested.items() for model in models}
    said = []
    for model, schedules in comparison.cells.items():
        title = f"**{model_title(comparison, model)}**"
        if model not in parts:
            said.append(f"{title}: {why[model]}, so there is no difference to tell.")
            continue
        part = parts[model]
        metric = headline(comparison, next(iter(schedules.values())))
        words = (
            f"{title}: validation chose {part.rows[0]}, {100 * part.effect:+.2f} points of {metric} "
            f"from {reference}"
        )
        if part.interval is not None:
            words += f" ({percent_confidence(comparison)} interval {interval_words(part.interval, '+')})"
        if part.waits:
            words += f"; undecided: of the rows that validation chooses from one has {part.waits}"
        elif part.n < MIN_SEEDS:
            words += f"; undecided: {counted(part.n)}, and a test needs {MIN_SEEDS}"
        else:
            words += f"; {_DECIDES[part.decides].format(reference=reference)} (p {part.p:.3g}"
            if part.p_holm != part.p:
                words += f", {part.p_holm:.3g} after Holm over the models"
            words += f"; {counted(part.n)})"
        if model in rivals:
            rival, averaged = rivals[model], f"{reference}_averaged"
            words += f"; {100 * rival.effect:+.2f} points from {averaged}"
            if rival.n >= MIN_SEEDS and not rival.waits:
                decided = _DECIDES[rival.decides].format(reference=averaged)
                words += f", {decided} (p {rival.p:.3g})"
        said.append("; ".join([words, *part.notes]) + ".")
    return said


def text_table(comparison: Comparison) -> str:
    """Model x schedule for a terminal: metric, mean over seeds, spread."""
    wide = max([12, *(len(model) for model, _, _ in comparison.each())])
    lines = [f"{'model':<{wide}} {'schedule':<20} {'metric':<14} {'mean':>7} {'spread':>7}  seeds  data"]
    for model, schedule, cell in result_rows(comparison):
        metric = headline(comparison, cell)
        measured = cell.metrics[metric]
        label = comparison.data[cell.dataset].label
        lines.append(
            f"{model:<{wide}} {schedule:<20} {metric:<14} {percent_words(measured.mean):>7}"
            f" {percent_words(measured.spread):>7}  {len(cell.seeds):>5}  {label}"
        )
    metric_of = comparison.protocol.headline
    for name, linear in comparison.references.items():
        value = percent_words(linear.metrics[metric_of[name]])
        lines.append(
            f"{linear.title:<{wide + 21}} {metric_of[name]:<14} {value:>7}"
            f"                 {comparison.data[name].label}"
        )
    lines += [f"{name:<{wide + 21}} {words}" for name, words in cell_states(comparison).items()]
    return "\n".join(lines)
