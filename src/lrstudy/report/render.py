"""The report as Markdown and as one HTML file, by a template each: both have the same content."""

import html
import re
from typing import TYPE_CHECKING

from lrstudy.analysis.records import Comparison
from lrstudy.report.behind import identities_in
from lrstudy.report.sections import document
from lrstudy.report.sentences import templates

if TYPE_CHECKING:
    from markupsafe import Markup


def render_markdown(comparison: Comparison) -> str:
    """reports/report.md."""
    # Markdown, not HTML; names in it are checked to be plain words by config.
    return templates().get_template("report.md.j2").render(report=document(comparison))


def render_html(comparison: Comparison, figures: dict[str, str], files: dict[str, str]) -> str:
    """reports/report.html: one file that needs no other and no network.

    Args:
        comparison: what ``compare`` wrote.
        figures: by file name, the image as a ``data:`` address.
        files: by file name, the data behind figures as a ``data:`` address.
    """
    environment = templates(autoescape=True)
    environment.filters["marks"] = _marks
    environment.tests["number_like"] = lambda text: re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?%?( to .*)?", text)
    return environment.get_template("report.html.j2").render(
        report=document(comparison), figures=figures, files=files, identities=identities_in(comparison)
    )


def _marks(text: str) -> "Markup":
    """``code`` and **strong** marks as HTML; all else escaped."""
    from markupsafe import Markup

    text = html.escape(str(text))
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", text))
