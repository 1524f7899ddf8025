"""The report's content, section by section, from what the compare stage wrote."""

from collections.abc import Iterator

from lrstudy.analysis.records import Comparison
from lrstudy.report.behind import curves, origins, sources
from lrstudy.report.costs import time_to_target, updates
from lrstudy.report.document import Document, Figure, Section
from lrstudy.report.findings import findings, verdict
from lrstudy.report.results import across, of_model, other_metrics, rank_diagrams, results
from lrstudy.report.searches import searches
from lrstudy.report.sentences import sentence
from lrstudy.report.series import differences
from lrstudy.report.verdicts import alone, claims, gaps, theory
from lrstudy.report.words import lengths_on, model_title, percent_confidence


def document(comparison: Comparison) -> Document:
    """What the report says, from the numbers in ``comparison``."""
    protocol = comparison.protocol
    sample = protocol.source == "sample"
    main_figure = Figure(
        "differences.svg",
        sentence("document", "differences", protocol=protocol, percent=percent_confidence(comparison)),
        "comparison.json",
        [f"{model}-{schedule}" for model, schedule, _ in comparison.each()],
    )
    epochs = {dataset: sorted(lengths_on(comparison, dataset)) for dataset in comparison.data}
    return Document(
        title=sentence("document", "title", sample=sample),
        warning=sentence("document", "warning") if sample else "",
        measured_on=sentence(
            "document", "measured_on", comparison=comparison, protocol=protocol, epochs=epochs
        ),
        answer=verdict(comparison) + findings(comparison),
        main_figure=main_figure if differences(comparison) else None,
        sections=[section for section in _sections(comparison) if section is not None],
    )


def _sections(comparison: Comparison) -> Iterator[Section | None]:
    yield results(comparison)
    for model in comparison.cells:
        yield of_model(comparison, model, model_title(comparison, model))
    yield rank_diagrams(comparison)
    yield across(comparison)
    yield other_metrics(comparison)
    yield time_to_target(comparison)
    yield updates(comparison)
    yield claims(comparison)
    yield from alone(comparison)
    yield theory(comparison)
    yield gaps(comparison)
    yield from searches(comparison)
    yield curves(comparison)
    yield origins(comparison)
    yield sources(comparison)
