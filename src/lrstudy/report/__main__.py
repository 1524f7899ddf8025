"""Print a study's table of results: python -m lrstudy.report."""

from lrstudy.process.command import run_stage
from lrstudy.report.document import read_comparison
from lrstudy.report.findings import text_table


def main() -> None:
    """Print the table of results."""
    print(text_table(read_comparison()))


if __name__ == "__main__":
    run_stage(main)
