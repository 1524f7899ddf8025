"""Render reports/report.md and its figures from what compare wrote: python -m lrstudy.stages.report."""

import csv
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.figures import history_figure, rate_figure, save_figure, style
from lrstudy.files import write_atomically
from lrstudy.report import read_comparison, render_markdown, text_table
from lrstudy.stages import run_stage


def main() -> None:
    comparison = read_comparison()
    rows = read_curves(Path("reports/curves.csv"))
    titles = {
        model: f"{model}: {comparison['data'][next(iter(schedules.values()))['dataset']]['label']}"
        for model, schedules in comparison["cells"].items()
    }
    with style():
        save_figure(
            history_figure(rows, titles),
            "reports/figures/curves.png",
            description="Training and validation curves by epoch",
        )
        save_figure(
            rate_figure(rows, titles), "reports/figures/rates.png", description="Learning rate by epoch"
        )
    write_atomically("reports/report.md", render_markdown(comparison))
    print(text_table(comparison))
    print("report: reports/report.md")


def read_curves(path: Path) -> list[dict]:
    """reports/curves.csv with its numbers as numbers."""
    try:
        with path.open(newline="") as file:
            return [
                {
                    name: value if name in ("model", "schedule") else float(value)
                    for name, value in row.items()
                }
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise StudyError(f"{path}: not found; `dvc repro compare` makes it.") from None


if __name__ == "__main__":
    run_stage(main)
