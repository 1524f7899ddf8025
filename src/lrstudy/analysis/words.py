"""What is said of data, metrics, seeds and counts, in words."""

from collections.abc import Iterable

from lrstudy.analysis.records import CellResult, Results
from lrstudy.words import listed


def metric_name(metric: str, cell: CellResult, results: Results) -> str:
    """The metric by its name in the records; ``headline`` is its data set's."""
    return results.protocol.headline[cell.dataset] if metric == "headline" else metric


def on_data(results: Results, models: Iterable[str]) -> str:
    """On which data; the embedded sample can't be mistaken for the study's."""
    used: dict[str, str] = {}
    for model in models:
        for cell in results.cells.get(model, {}).values():
            used[cell.dataset] = results.data[cell.dataset].label
        if timing := results.timing.get(model):
            used[timing.dataset] = timing.data.label
    labels = listed(list(used.values()))
    if results.protocol.source == "sample":
        return f"On the embedded sample alone ({labels}), which says nothing of CIFAR-10 and IMDB"
    return f"On {labels}"


def show(value: float, metric: str) -> str:
    """A difference with its sign and unit."""
    if unit(metric) == "fraction":
        return f"{100 * value:+.2f} points"
    return f"{value:+.3g} {unit(metric)}"


def unit(metric: str) -> str:
    """``fraction``: of examples, or of the other's time; 1 is 100%."""
    return "nats" if metric == "overfitting" or metric.endswith("/loss") else "fraction"
