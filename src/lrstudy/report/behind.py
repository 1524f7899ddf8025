"""What stands behind the numbers: the curves, where trainings took place, and their identities."""

import time

from lrstudy.analysis.records import Comparison
from lrstudy.report.document import Figure, Section, Table
from lrstudy.report.sentences import paragraphs, sentence
from lrstudy.report.series import difference_of, models_beyond_the_paper
from lrstudy.report.words import PAPER_EPOCHS, seeds_words


def curves(comparison: Comparison) -> Section:
    """The figures of curves.csv."""
    reference = comparison.protocol.reference
    everything = [f"{model}-{schedule}" for model, schedule, _ in comparison.each()]
    static = [f"{model}-{reference}" for model, rows in comparison.cells.items() if reference in rows]
    drawn = {"losses": static} if static else {}
    drawn |= dict.fromkeys(("train_accuracy", "validation_accuracy", "validation_loss", "rates"), everything)
    figures = [
        Figure(f"{name}.svg", sentence("curves", name, reference=reference), "curves.csv", cells)
        for name, cells in drawn.items()
    ]
    if longer := models_beyond_the_paper(comparison):
        beginnings = [f"{model}-{reference}" for model in longer]
        for number, name in enumerate(("losses", "train_accuracy", "validation_accuracy"), 1):
            caption = sentence(
                "curves",
                "beginning",
                name=name,
                number=number,
                reference=reference,
                paper_epochs=PAPER_EPOCHS,
            )
            figures.append(Figure(f"{name}_{PAPER_EPOCHS}.svg", caption, "curves.csv", beginnings))
    return Section("Curves", text=paragraphs("curves"), figures=figures)


def origins(comparison: Comparison) -> Section:
    """By cell, on what its trainings ran; then the pairs that differ and were compared all the same."""
    rows = []
    for model, schedule, cell in comparison.each():
        origin = cell.origins
        revisions = {revision[:8] or "no repository": seeds for revision, seeds in origin.revision.items()}
        days = dict.fromkeys(time.strftime("%Y-%m-%d", time.gmtime(ended)) for ended in origin.ended)
        told = [origin.processor, origin.machine, origin.device, origin.dtype, origin.torch]
        rows.append(
            [
                model,
                schedule,
                ", ".join(map(str, cell.seeds)),
                *map(seeds_words, [*told, origin.lrstudy, revisions]),
                " to ".join(days),
            ]
        )
    mixed = {
        f"{model}-{schedule}": difference.mixed
        for model, schedule, cell in comparison.each()
        if (difference := difference_of(comparison, cell)) and difference.mixed
    }
    return Section(
        "What stands behind each cell",
        text=paragraphs("behind", protocol=comparison.protocol),
        tables=[
            Table(
                [
                    "model",
                    "schedule",
                    "seeds",
                    "kind of machine",
                    "machine",
                    "device",
                    "dtype",
                    "torch",
                    "lrstudy",
                    "code revision",
                    "trained",
                ],
                rows,
            )
        ],
        after=paragraphs("behind", "after", mixed=mixed, protocol=comparison.protocol),
    )


def sources(comparison: Comparison) -> Section:
    """Every seed's training by its identity."""
    return Section(
        "Where the numbers come from",
        text=paragraphs("behind", "sources", comparison=comparison),
        tables=[
            Table(
                ["cell", "seed", "identity"],
                [
                    [f"{model}-{schedule}", seed, f"`{identity[:16]}`"]
                    for model, schedule, cell in comparison.each()
                    for seed, identity in cell.identities.items()
                ],
            )
        ],
    )


def identities_in(comparison: Comparison) -> dict[str, dict[str, str]]:
    """By cell and seed."""
    return {f"{model}-{schedule}": cell.identities for model, schedule, cell in comparison.each()}
