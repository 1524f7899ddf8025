"""The report's sentences, from templates/sentences: a file a section, a block for each place of text.

A block's paragraphs are apart by an empty line; where a line ends is of no matter, as in Markdown, and a
paragraph in which nothing is left is none. Numbers get their words by the filters here. A name that a
template asks for and is not given is an error. Python decides what is said; the template says it.
"""

import functools
import re
from typing import TYPE_CHECKING

from lrstudy.report.words import (
    change_words,
    hours_words,
    interval_words,
    pairs_words,
    percent_words,
    points_words,
)
from lrstudy.words import counted, listed, seeds_named

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def templates(autoescape: bool = False) -> "Environment":
    """The package's templates; what is undefined is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lrstudy.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "change": change_words,
        "counted": counted,
        "hours": hours_words,
        "interval": interval_words,
        "listed": lambda items: listed([str(item) for item in items]),
        "pairs": pairs_words,
        "percent": percent_words,
        "points": points_words,
        "seeds_named": seeds_named,
        "thousands": lambda number: f"{number:,}",
    }
    return environment


def paragraphs(section: str, block: str = "text", **named: object) -> list[str]:
    """The paragraphs of a block of ``sentences/<section>.j2``.

    Raises:
        UndefinedError: it asks for a name that is not among ``named``.
    """
    template = templates().get_template(f"sentences/{section}.j2")
    text = "".join(template.blocks[block](template.new_context(named)))
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def sentence(section: str, block: str, **named: object) -> str:
    """The one paragraph of a block."""
    [text] = paragraphs(section, block, **named)
    return text
