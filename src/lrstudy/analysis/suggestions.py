"""What range tests suggest against what searches found: suggested rate over tuned rate, cell by cell."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lrstudy.analysis.records import Comparison
from lrstudy.study.outputs import FoundRates


@dataclass(frozen=True)
class ComparedCell:
    """A tuned cell whose model had a range test.

    Attributes:
        tuned: the base rate that its search found.
        as_good: the lowest and the highest base rate of trials that are as good within the search's noise
            (:func:`lrstudy.search.sensitivity.within_the_noise`); None where that is not known, and where it
            is the tuned rate alone: then no trial says how far off a rate may be.
        ratios: by rule suggested over tuned rate; None where the rule suggests nothing.
    """

    model: str
    schedule: str
    tuned: float
    as_good: tuple[float, float] | None
    ratios: dict[str, float | None]

    def is_as_good(self, rule: str) -> bool:
        """Whether the suggestion lies among the rates that are as good as the tuned one."""
        ratio = self.ratios[rule]
        if ratio is None or self.as_good is None:
            return False
        return self.as_good[0] <= ratio * self.tuned <= self.as_good[1]


@dataclass(frozen=True)
class RuleSummary:
    """How a rule did over all cells.

    Attributes:
        models, cells: how many it had a suggestion for; cells of one model have one suggestion.
        without: cells that it had none for.
        low, high: of the ratios.
        factor: exp of the mean of ``abs(log ratio)``: by what factor it is off, in the geometric mean.
        as_good: cells in which the suggestion is as good within the search's noise, of those ``judged``.
    """

    rule: str
    models: int
    cells: int
    without: int
    low: float
    high: float
    factor: float
    as_good: int
    judged: int


def compare_suggestions(tests: Iterable[FoundRates], comparison: Comparison) -> list[ComparedCell]:
    """Every cell that was searched itself, on the data and with the optimizer and batches of a range test.

    Views of other rows and rows with the values of another model have no search of their own.
    """
    found = []
    for test in tests:
        for schedule, cell in comparison.cells.get(test.model, {}).items():
            if cell.tuned != "tuned" or cell.tuning is None or cell.view_of or cell.tuned_as:
                continue
            data = comparison.data[cell.dataset]
            if data.fingerprint != test.data.fingerprint or cell.optimizer != test.optimizer:
                continue
            known = cell.tuning.within_the_noise.values.get("base_lr")
            ratios = {
                rule: None if one.lr is None else one.lr / cell.base_lr
                for rule, one in test.suggestions.items()
            }
            as_good = (known[0], known[1]) if isinstance(known, tuple) and known[0] < known[1] else None
            found.append(ComparedCell(test.model, schedule, cell.base_lr, as_good, ratios))
    return found


def summaries(cells: Sequence[ComparedCell]) -> list[RuleSummary]:
    """Each rule over all cells; those rules alone that suggest something in one."""
    found = []
    for rule in dict.fromkeys(rule for cell in cells for rule in cell.ratios):
        ratios = {
            (cell.model, cell.schedule): ratio
            for cell in cells
            if (ratio := cell.ratios.get(rule)) is not None
        }
        if not ratios:
            continue
        judged = [cell for cell in cells if cell.as_good is not None and cell.ratios.get(rule) is not None]
        logs = [abs(math.log(ratio)) for ratio in ratios.values()]
        found.append(
            RuleSummary(
                rule=rule,
                models=len({model for model, _ in ratios}),
                cells=len(ratios),
                without=len(cells) - len(ratios),
                low=min(ratios.values()),
                high=max(ratios.values()),
                factor=math.exp(math.fsum(logs) / len(logs)),
                as_good=sum(cell.is_as_good(rule) for cell in judged),
                judged=len(judged),
            )
        )
    return found
