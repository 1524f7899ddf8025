"""What a study found, in a few sentences and one table."""

from lrstudy.analysis.records import Claim, Comparison
from lrstudy.analysis.statistics import MIN_SEEDS
from lrstudy.report.sentences import paragraphs, sentence
from lrstudy.report.words import (
    cell_states,
    headline,
    model_title,
    percent_confidence,
    percent_words,
    result_rows,
)

MAIN_CLAIM, AVERAGED_CLAIM = "dynamic_generalizes", "dynamic_beats_averaged"
"""The claim that the report begins with, and the same against static with averaged weights."""


def claim_of(comparison: Comparison, name: str = MAIN_CLAIM) -> Claim | None:
    return next((claim for claim in comparison.claims if claim.id == name), None)


def verdict(comparison: Comparison) -> list[str]:
    """The question's own claim with its verdict; nothing if claims were not judged."""
    claim = claim_of(comparison)
    return [] if claim is None else paragraphs("findings", "verdict", claim=claim)


def findings(comparison: Comparison) -> list[str]:
    """One sentence per model: the schedule that validation chose, how far from the reference, verdict.

    And how far from the reference's averaged weights.
    """
    claim, against = claim_of(comparison), claim_of(comparison, AVERAGED_CLAIM)
    if claim is None:
        return []
    parts = {part.model: part for part in claim.parts}
    rivals = {part.model: part for part in (against.parts if against else ())}
    why = {model: reason for reason, models in claim.untested.items() for model in models}
    said = []
    for model, schedules in comparison.cells.items():
        title = model_title(comparison, model)
        if model not in parts:
            said.append(sentence("findings", "untested", title=title, why=why[model]))
            continue
        said.append(
            sentence(
                "findings",
                "finding",
                title=title,
                part=parts[model],
                rival=rivals.get(model),
                metric=headline(comparison, next(iter(schedules.values()))),
                reference=comparison.protocol.reference,
                percent=percent_confidence(comparison),
                min_seeds=MIN_SEEDS,
            )
        )
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
