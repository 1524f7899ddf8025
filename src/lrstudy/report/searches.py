"""What tuning found, what it cost, and what a wrong value would."""

from collections.abc import Iterator
from functools import partial

from lrstudy.analysis.records import CellResult, Comparison, Taken, Term, Tuning
from lrstudy.report.document import Figure, Section, Table
from lrstudy.report.sentences import paragraphs, sentence
from lrstudy.report.series import budgets
from lrstudy.report.words import by_search, change_words, model_title, number_words, range_words


def searches(comparison: Comparison) -> Iterator[Section]:
    """What tuning found for every model's schedules, and what a value off by a factor of 2 costs each."""
    protocol = comparison.protocol
    tuned: dict[str, dict[str, tuple[CellResult, Tuning]]] = {}
    for model, schedule, cell in comparison.each():
        if cell.tuning is not None:
            tuned.setdefault(model, {})[schedule] = cell, cell.tuning
    if not tuned:
        return
    drawn = budgets(comparison)
    cells = [f"{model}-{schedule}" for model, schedules in drawn.items() for schedule in schedules]
    caption = sentence("search", "figure")
    yield Section(
        "What tuning found",
        text=paragraphs(
            "search", protocol=protocol, budgets=bool(drawn), fewer_trials=_fewer_trials(comparison)
        ),
        figures=[Figure("budget.svg", caption, "comparison.json", cells)] if drawn else [],
    )
    for model, searches in tuned.items():
        rows = []
        for schedule, (cell, tuning) in searches.items():
            for term in tuning.terms:
                known = tuning.sensitivity.parameters.get(term.parameter)
                rows.append(
                    [
                        schedule,
                        term.term,
                        by_search(cell, partial(_chosen, term)),
                        range_words(term.as_good),
                        change_words(known.half if known else None),
                        change_words(known.double if known else None),
                    ]
                )
        losses = [
            [
                schedule,
                number_words(tuning.defaults_objective),
                number_words(tuning.search_objective),
                number_words(tuning.objective),
                str(tuning.cost.trainings),
                f"{tuning.cost.epochs:.4g}",
                f"{tuning.cost.seconds / 60:.1f}",
            ]
            for schedule, (_, tuning) in searches.items()
        ]
        rises = {name: tuning.largest_rise for name, (_, tuning) in searches.items() if tuning.largest_rise}
        safest = sorted(rises.items(), key=lambda of_row: of_row[1].change)
        yield Section(
            f"{model_title(comparison, model)}: the values found",
            3,
            tables=[Table(["schedule", "parameter", "chosen", "as good", "half of it", "twice it"], rows)],
            after=paragraphs("search", "safest", safest=safest) if safest else [],
        )
        yield Section(
            f"{model_title(comparison, model)}: what the search gained and cost",
            3,
            tables=[
                Table(
                    [
                        "schedule",
                        "validation loss of the defaults",
                        "of the chosen values",
                        "of those over all tuning seeds",
                        "trainings",
                        "epochs",
                        "minutes",
                    ],
                    losses,
                )
            ],
        )


def _fewer_trials(comparison: Comparison) -> dict[str, int]:
    """By cell the trials of a search that had fewer than were asked for."""
    tried = {
        f"{model}-{schedule}": min(search.num_tried for search in cell.tuning.searches)
        for model, schedule, cell in comparison.each()
        if cell.tuning is not None
    }
    return {name: number for name, number in tried.items() if number < comparison.protocol.num_trials}


def _chosen(term: Term, search: Taken) -> str:
    """A term's value in a search, with its unit."""
    value = (search.parameters | search.values)[term.parameter]
    return f"{number_words(value)} {term.unit}".strip()
