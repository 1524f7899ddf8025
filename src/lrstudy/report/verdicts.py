"""What follows: the claims' verdicts, the theory's, and the paper's gaps."""

from collections.abc import Iterator

from lrstudy.analysis.records import Claim, Comparison
from lrstudy.report.document import Figure, Section, Table
from lrstudy.report.findings import AVERAGED_CLAIM, MAIN_CLAIM, claim_of
from lrstudy.report.sentences import paragraphs, sentence
from lrstudy.report.words import hours_words, number_words, percent_confidence, range_words


def claims(comparison: Comparison) -> Section | None:
    """Every claim with its verdict."""
    if not comparison.claims:
        return None
    rows = [
        [claim.claim, claim.verdict, claim.why, _would_decide(claim), ", ".join(claim.source)]
        for claim in comparison.claims
    ]
    return Section(
        "The claims, brought to a verdict",
        text=paragraphs("claims"),
        tables=[Table(["claim", "verdict", "why", "what would decide", "source"], rows)],
    )


def alone(comparison: Comparison) -> Iterator[Section]:
    """The claims on the chosen schedule for each one by itself: against the reference and its average."""
    reference = comparison.protocol.reference
    for name, title, rival in (
        (MAIN_CLAIM, "Each schedule by itself", reference),
        (AVERAGED_CLAIM, f"Each schedule against {reference}_averaged", f"{reference}_averaged"),
    ):
        claim = claim_of(comparison, name)
        if claim is None or not claim.by_schedule:
            continue
        rows = [[row, of_row.verdict, of_row.why] for row, of_row in claim.by_schedule.items()]
        yield Section(
            title,
            3,
            text=paragraphs("claims", "alone", rival=rival),
            tables=[Table(["schedule", "verdict", "why"], rows)],
        )


def _would_decide(claim: Claim) -> str:
    if claim.run is not None:
        return f"`{claim.run.command}`{hours_words(claim.run.core_hours)}"
    if claim.seeds_needed is None or claim.chance is None:
        return ""
    chance = f"chance {100 * claim.chance:.0f}%"
    more = " more" if claim.counted == "seeds" else ""
    return f"{claim.seeds_needed} {claim.counted}{hours_words(claim.core_hours, more)}, {chance}"


_FIGURES = {
    "toy.": "toy",
    "branches_": "branches",
    "sharpness_": "sharpness",
    "landscape_": "landscape",
    "paths_": "paths",
    "components_": "components",
}
"""How a file's name begins -> its caption; figures that are not named here are in artifacts/theory/ alone."""


def theory_figure(experiment: str, file: str) -> str:
    """How a theory stage's figure is called in reports/figures."""
    return f"{experiment}_{file}"


def theory(comparison: Comparison) -> Section | None:
    """The theory's claims, as the experiments judged them."""
    claims = comparison.theory.claims
    if not claims:
        return None
    figures = [
        Figure(theory_figure(experiment, file), sentence("theory", caption), f"{experiment}.json", [])
        for experiment, files in comparison.theory.figures.items()
        for file in files
        for beginning, caption in _FIGURES.items()
        if file.startswith(beginning)
    ]
    rows = [
        [
            claim.claim,
            claim.where,
            claim.verdict,
            claim.effect,
            "" if claim.mean is None else f"{claim.mean:+.4g}",
            range_words(claim.interval),
            "" if claim.n is None else str(claim.n),
            claim.experiment,
        ]
        for claim in claims
    ]
    return Section(
        "The theory behind schedules, tested",
        text=paragraphs("theory"),
        figures=figures,
        tables=[
            Table(
                [
                    "claim",
                    "where",
                    "verdict",
                    "effect",
                    "mean",
                    f"{percent_confidence(comparison)} interval",
                    "n",
                    "experiment",
                ],
                rows,
            )
        ],
    )


def gaps(comparison: Comparison) -> Section | None:
    """The paper's gaps with what fills them."""
    if not comparison.gaps:
        return None
    rows = [
        [
            gap.gap,
            value.cell,
            value.name,
            f"{number_words(value.value)} {value.unit}".strip(),
            range_words(value.interval),
            value.key,
        ]
        for gap in comparison.gaps
        for value in gap.values
    ]
    return Section(
        "The paper's gaps, filled",
        text=paragraphs("gaps", gaps=comparison.gaps),
        tables=[Table(["gap", "cell", "what", "value", "interval", "key in comparison.json"], rows)],
    )
