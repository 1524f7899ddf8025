"""Render reports/ from what compare wrote: python -m lrstudy.stages.report."""

import base64
import hashlib
from pathlib import Path

from lrstudy.analysis.records import Comparison, TheoryClaims
from lrstudy.checked import read_bytes
from lrstudy.errors import StudyError
from lrstudy.files import write_atomically
from lrstudy.process.command import run_stage
from lrstudy.report.document import read_comparison
from lrstudy.report.figures import (
    budget_figure,
    curve_figure,
    difference_figure,
    loss_figure,
    profile_figure,
    rank_figure,
    save_figure,
    style,
)
from lrstudy.report.findings import text_table
from lrstudy.report.render import render_html, render_markdown
from lrstudy.report.series import budgets, differences, models_beyond_the_paper, profiles, ranks
from lrstudy.report.verdicts import theory_figure
from lrstudy.report.words import PAPER_EPOCHS, model_title
from lrstudy.study.outputs import CURVES
from lrstudy.study.workspace import REPORTS

THEORY = Path("artifacts/theory")
COLUMNS = {
    "train_accuracy": ("train/accuracy", "training accuracy"),
    "validation_accuracy": ("validation/accuracy", "validation accuracy"),
    "validation_loss": ("validation/loss", "validation loss"),
    "rates": ("lr", "learning rate"),
}


def main() -> None:
    comparison = read_comparison(REPORTS / "comparison.json")
    rows = CURVES.read(REPORTS / "curves.csv", "compare")
    figures = draw(comparison, rows) + bring_theory(comparison.theory)
    tables = {"curves.csv": "text/csv", "comparison.json": "application/json"}
    tables |= {f"{experiment}.json": "application/json" for experiment in comparison.theory.figures}
    files = {name: _address((REPORTS / name).read_bytes(), kind) for name, kind in tables.items()}
    for path in (REPORTS / "figures").glob("*.svg"):  # the output persists: DVC would remove the theory's
        if path not in figures:
            path.unlink()
    images = {path.name: _address(path.read_bytes(), "image/svg+xml") for path in figures}
    write_atomically(REPORTS / "report.html", render_html(comparison, images, files))
    write_atomically(REPORTS / "report.md", render_markdown(comparison))
    print(text_table(comparison))
    print(f"report: {REPORTS / 'report.html'}, {REPORTS / 'report.md'}")


def draw(comparison: Comparison, rows: list[dict]) -> list[Path]:
    """The report's figures in reports/figures; returns their paths."""
    titles = {model: model_title(comparison, model, ", ") for model in comparison.cells}
    reference = comparison.protocol.reference
    with style():
        drawn = {
            name: curve_figure(rows, titles, column, label, logarithmic=name == "rates")
            for name, (column, label) in COLUMNS.items()
        }
        if any(row["schedule"] == reference for row in rows):
            drawn["losses"] = loss_figure(rows, titles, reference)
        if longer := {model: titles[model] for model in models_beyond_the_paper(comparison)}:
            first = [row for row in rows if row["schedule"] == reference and row["epoch"] <= PAPER_EPOCHS]
            drawn[f"losses_{PAPER_EPOCHS}"] = loss_figure(first, longer, reference)
            for name in ("train_accuracy", "validation_accuracy"):
                drawn[f"{name}_{PAPER_EPOCHS}"] = curve_figure(first, longer, *COLUMNS[name])
        if panels := differences(comparison):
            drawn["differences"] = difference_figure(
                {titles[model]: of_model for model, of_model in panels.items()},
                f"points ahead of {reference}",
            )
        if bought := budgets(comparison):
            drawn["budget"] = budget_figure({titles[model]: of_model for model, of_model in bought.items()})
        if lines := profiles(comparison):
            drawn["time_to_target"] = profile_figure(lines)
        if ranked := ranks(comparison):
            drawn["ranks"] = rank_figure({titles[model]: of_model for model, of_model in ranked.items()})
        return [
            save_figure(figure, REPORTS / "figures" / f"{name}.svg", description=name.replace("_", " "))
            for name, figure in drawn.items()
        ]


def bring_theory(theory: TheoryClaims) -> list[Path]:
    """Copy the theory stages' figures into reports/figures; returns their paths.

    Only those of the numbers that the comparison was made from: where artifacts/ has none or others, as in a
    fresh clone or after a run on the sample, those that reports/ has are taken.

    Raises:
        StudyError: reports/ has other numbers, or the figures are in neither place.
    """
    figures: list[Path] = []
    for experiment, names in theory.figures.items():
        source, numbers = THEORY / experiment, REPORTS / f"{experiment}.json"
        there = {name: REPORTS / "figures" / theory_figure(experiment, name) for name in names}
        wanted = theory.sha256[experiment]
        if not numbers.exists() or _sha256(numbers) != wanted:
            raise StudyError(
                f"{numbers}: not what {REPORTS / 'comparison.json'} was made from; `make report` makes both "
                "anew from what is here."
            )
        drawn = source / f"{experiment}.json"
        if drawn.exists() and _sha256(drawn) == wanted:
            for name, path in there.items():
                write_atomically(path, read_bytes(source / name, experiment))
        elif absent := [str(path) for path in there.values() if not path.exists()]:
            raise StudyError(
                f"{', '.join(absent)}: not there, nor in {source}; `git restore {REPORTS / 'figures'}` "
                f"brings what is committed, `dvc repro --force -s {experiment}` draws anew."
            )
        figures += there.values()
    return figures


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    run_stage(main, warm="join")
