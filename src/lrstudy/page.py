"""A page to play with the schedules: python -m lrstudy.preview --html FILE.

One file that needs nothing else, so that it opens from a disk and can be sent to anybody. It computes the
curves itself, by the registry's formulas in JavaScript (:mod:`lrstudy.javascript`).
"""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from lrstudy.entries.parameters import Made
from lrstudy.errors import StudyError
from lrstudy.javascript import registry
from lrstudy.schedules import SCHEDULES, Factory

_TEMPLATE = Path(__file__).parent / "page.html"


def write_page(path: str | Path) -> Path:
    """Write the page; StudyError where the file cannot be written."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    for mark, script in {"/* FORMULAS */": registry(), "/* ENTRIES */": _entries()}.items():
        # In a script element the text </script would end it.
        text = text.replace(mark, script.replace("</", "<\\/"))
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}).") from None
    return path


def _entries() -> str:
    """What the page has to know of every schedule beside its formula, as JSON."""
    return json.dumps({name: _entry(factory) for name, factory in SCHEDULES.items()}, indent=1)


def _entry(factory: Factory) -> dict[str, Any]:
    paragraphs = [
        " ".join(one.split()) for one in re.split(r"\n\s*\n", (factory.formula.__doc__ or "").strip())
    ]
    return {
        "summary": paragraphs[0],
        "source": next((one for one in paragraphs if one.startswith("Source:")), ""),
        "parameters": {
            name: {
                "kind": type(spec).__name__.lower(),
                "allowed": spec.allowed(name),
                # What is said in words or plain values; functions are translated with the formulas.
                **{
                    field.name: value
                    for field in fields(spec)
                    if not callable(value := getattr(spec, field.name)) and field.name != "derived"
                },
                **(
                    {"resolver": spec.resolve.__name__.removeprefix("_resolved_")}
                    if isinstance(spec, Made)
                    else {}
                ),
            }
            for name, spec in factory.parameters.items()
        },
    }
