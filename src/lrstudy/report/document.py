"""What a report is made of, and the file that it is made from."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from lrstudy.analysis.records import Comparison


@dataclass
class Table:
    """Rows of text under a header; below them, in grey, rows to hold the others against."""

    header: list[str]
    rows: list[list[str]]
    grey: list[list[str]] = field(default_factory=list)


@dataclass
class Figure:
    """A figure of reports/figures by file name, the file that has its numbers, and the cells behind it."""

    name: str
    caption: str
    data: str
    cells: list[str]


@dataclass
class Section:
    """A heading and what stands under it, in this order. Text may hold ``code`` and **strong** marks."""

    title: str
    level: int = 2
    text: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Where links point: the title in lower case, all but letters and digits made one hyphen."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass
class Document:
    """The whole report: what stands on its first screen, then the sections."""

    title: str
    warning: str
    measured_on: str
    answer: list[str]
    main_figure: Figure | None
    sections: list[Section]


def read_comparison(path: str | Path = "reports/comparison.json") -> Comparison:
    """What ``compare`` wrote.

    Raises:
        StudyError: it is missing or not that; another version may have written it.
    """
    return Comparison.read(Path(path), "compare")
