"""The parts of documents that are made: python -m lrstudy.docs (``make docs``).

A part stands between ``<!-- made by make docs: results -->`` and ``<!-- end -->``. It is made from
reports/comparison.json and the ledger, so that README.md and docs/findings.md say what the report says; or
from the registries and conf/, so that the pages about optimizers, controllers and networks say what is
allowed, and that about the protocol what the presets can decide.
"""

import argparse
import functools
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lrstudy.analysis.records import Comparison, Difference
from lrstudy.analysis.suggestions import ComparedCell, RuleSummary, compare_suggestions, summaries
from lrstudy.controllers import CONTROLLERS
from lrstudy.entries.parameters import REQUIRED, Parameter
from lrstudy.errors import StudyError, unknown
from lrstudy.files import write_atomically
from lrstudy.ledger import Ledger, Record
from lrstudy.process.command import run_stage
from lrstudy.recipe.config import workspace_root
from lrstudy.recipe.networks import OF_THE_DATA, architectures, parameters_of
from lrstudy.recipe.optimizers import OPTIMIZERS
from lrstudy.report.document import read_comparison
from lrstudy.report.findings import findings, verdict
from lrstudy.report.words import (
    cell_states,
    headline,
    model_title,
    percent_confidence,
    percent_words,
    result_rows,
)
from lrstudy.study.outputs import FoundRates, SuggestedRate
from lrstudy.study.workspace import finder_file, ledger_folder
from lrstudy.words import counted

DOCUMENTS = (Path("README.md"), Path("docs/findings.md"), Path("docs/finder.md"))

PAGES = tuple(Path("docs") / f"{name}.md" for name in ("optimizers", "controllers", "networks", "protocol"))
"""What is made from the registries and conf/ alone."""

_PART = re.compile(r"(<!-- made by make docs: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def answer(comparison: Comparison, records: Sequence[Record]) -> str:
    """The verdict on the question, and a sentence per model."""
    return "\n".join(f"- {said}" for said in [*verdict(comparison), *findings(comparison)])


def results(comparison: Comparison, records: Sequence[Record]) -> str:
    """Model x schedule: the metric that decides, its distance to the reference, how many seeds."""
    reference, planned = comparison.protocol.reference, len(comparison.protocol.seeds)
    rows = []
    for model, schedule, cell in result_rows(comparison):
        metric = headline(comparison, cell)
        measured = cell.metrics[metric]
        spread = "" if measured.spread is None else f" ± {percent_words(measured.spread)}"
        rows.append(
            [
                model_title(comparison, model, ", "),
                schedule,
                metric.removeprefix("test/"),
                f"{percent_words(measured.mean)}{spread}",
                _ahead(measured.difference),
                f"{len(cell.seeds)} of {planned}",
            ]
        )
    for dataset, linear in comparison.references.items():
        metric = comparison.protocol.headline[dataset]
        score = percent_words(linear.metrics[metric])
        label = comparison.data[dataset].label
        rows.append([f"*{linear.title}, {label}*", "", metric.removeprefix("test/"), score, "", ""])
    return table(
        [
            "model",
            "schedule",
            "metric",
            "test, %",
            f"ahead of {reference}, points ({percent_confidence(comparison)} interval)",
            "seeds",
        ],
        rows,
    )


def _ahead(difference: Difference | None) -> str:
    if difference is None or difference.mean is None:
        return ""
    words = f"{100 * difference.mean:+.2f}"
    if difference.interval is not None:
        low, high = difference.interval
        words += f" ({100 * low:+.2f} to {100 * high:+.2f})"
    return words


def progress(comparison: Comparison, records: Sequence[Record]) -> str:
    """What is planned and not there yet, cell by cell."""
    states = cell_states(comparison)
    if not states:
        return "All planned trainings are there."
    return table(["cell", "so far"], states.items())


def claims(comparison: Comparison, records: Sequence[Record]) -> str:
    """Each claim with its verdict and the reason for it."""
    return table(
        ["claim", "verdict", "why", "source"],
        [[claim.claim, claim.verdict, claim.why, ", ".join(claim.source)] for claim in comparison.claims],
    )


def gaps(comparison: Comparison, records: Sequence[Record]) -> str:
    """Each of the paper's gaps with the sentence that fills it."""
    return "\n".join(f"- **{gap.gap}** ({gap.where}): {gap.text}" for gap in comparison.gaps)


def trainings(comparison: Comparison, records: Sequence[Record]) -> str:
    """What the ledger's trainings took, on what: per model and row, of all trainings that are in it."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.labels.model, record.labels.schedule), []).append(record)
    rows = [[*name, *_took(of_row)] for name, of_row in sorted(groups.items())]
    rows.append(["all", "", *_took(list(records))])
    header = [
        "model",
        "schedule",
        "trials",
        "seeds",
        "core-hours",
        "processors",
        "machines",
        "dtypes",
        "ended (UTC)",
    ]
    return table(header, rows)


def range_tests(comparison: Comparison, records: Sequence[Record]) -> str:
    """What each model's range tests suggest, with the ranges over the runs."""
    rows = [
        [
            f"{test.model}, {test.data.label}",
            f"{test.optimizer}, {test.batch_size}",
            f"{len(test.losses)} x {len(test.rates)}",
            *(_suggested(one) for one in test.suggestions.values()),
            f"{test.took:.0f}, {test.origin.accelerator or test.origin.processor}",
        ]
        for test in _range_tests()
    ]
    rules = list(dict.fromkeys(rule for test in _range_tests() for rule in test.suggestions))
    return table(["model", "optimizer, batch", "runs x updates", *rules, "seconds, on"], rows)


def _suggested(one: SuggestedRate) -> str:
    return "none" if one.lr is None else f"{one.lr:.2g} ({one.low:.2g} to {one.high:.2g})"


def suggested_against_tuned(comparison: Comparison, records: Sequence[Record]) -> str:
    """By cell the tuned rate, and by rule suggested over tuned; below, a sentence a rule."""
    cells = compare_suggestions(_range_tests(), comparison)
    if not cells:
        return "No cell has both a range test and a finished search yet."
    rules = list(dict.fromkeys(rule for cell in cells for rule in cell.ratios))
    rows = [
        [
            cell.model,
            cell.schedule,
            f"{cell.tuned:.2g}",
            "not known" if cell.as_good is None else f"{cell.as_good[0]:.2g} to {cell.as_good[1]:.2g}",
            *(_ratio(cell, rule) for rule in rules),
        ]
        for cell in cells
    ]
    found = table(["model", "schedule", "tuned rate", "as good", *rules], rows)
    return "\n\n".join([found, *(_summary(one) for one in summaries(cells))])


def _ratio(cell: ComparedCell, rule: str) -> str:
    ratio = cell.ratios[rule]
    return "none" if ratio is None else f"{ratio:.2f}{' ✓' if cell.is_as_good(rule) else ''}"


def _summary(one: RuleSummary) -> str:
    without = f"; none in {counted(one.without, 'cell')}" if one.without else ""
    judged = f"; as good in {one.as_good} of the {one.judged} that say" if one.judged else ""
    return (
        f"**{one.rule}**: {one.low:.2f} to {one.high:.2f} times the tuned rate in "
        f"{counted(one.cells, 'cell')} of {counted(one.models, 'model')}{without}; off by a factor of "
        f"{one.factor:.2f} in the geometric mean{judged}."
    )


def _range_tests() -> list[FoundRates]:
    return [
        FoundRates.read(path, f"python -m lrstudy.find {path.stem} --keep")
        for path in sorted(finder_file("any").parent.glob("*.json"))
    ]


def _took(records: Sequence[Record]) -> list[object]:
    def named(name: Callable[[Record], str]) -> str:
        return ", ".join(sorted({name(record) for record in records}))

    seconds = sum(sum(record.numbers("compute_seconds")) * record.settings["threads"] for record in records)
    days = sorted({time.strftime("%Y-%m-%d", time.gmtime(record.origin.ended)) for record in records})
    return [
        sum(record.labels.role == "trial" for record in records),
        sum(record.labels.role == "final" for record in records),
        f"{seconds / 3600:.2f}",
        named(lambda record: record.origin.accelerator or record.origin.processor),
        named(lambda record: record.origin.machine),
        named(lambda record: record.dtype),
        " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "",
    ]


def optimizers() -> str:
    """Every optimizer with its class and its options at their defaults."""
    rows = [
        [
            name,
            f"`{entry.class_path}`",
            ", ".join(f"{o} {_value(s.default)}" for o, s in entry.options.items()),
        ]
        for name, entry in OPTIMIZERS.items()
    ]
    return table(["name", "class", "options and their defaults"], rows)


def muon() -> str:
    """Which matrices and kernels of every network ``muon`` gives to Muon, and which to AdamW."""
    import torch

    from lrstudy.proof import sizes_of
    from lrstudy.recipe.models import make_model
    from lrstudy.recipe.muon import hidden_weights

    of_the_data = dict.fromkeys(OF_THE_DATA, 32) | {"in_channels": 3}  # any: no name depends on them
    rows = []
    for name in architectures():
        with torch.device("meta"):
            model = make_model({"architecture": name, **sizes_of(name, 0)}, of_the_data)
        hidden = set(hidden_weights(model))
        parts: dict[bool, dict[str, None]] = {True: {}, False: {}}
        weights = [(parameter, weight) for parameter, weight in model.named_parameters() if weight.ndim > 1]
        for parameter, weight in weights:
            parts[weight in hidden][re.sub(r"(?<=\.)\d+(?=\.)", "*", parameter, count=1)] = None
        alike = parts[True].keys() & parts[False].keys()
        if alike:
            raise StudyError(f"python -m lrstudy.docs: {name} has {min(alike)} in both parts of muon.")
        rows.append([name, *(", ".join(f"`{one}`" for one in parts[of_muon]) for of_muon in (True, False))])
    return table(["network", "matrices and kernels for Muon", "for AdamW"], rows)


def networks() -> str:
    """Every network with what its sizes may be."""
    rows = [
        [
            name,
            f"`{definition}`",
            "; ".join(_size(size, spec) for size, spec in parameters_of(name).items()) or "none",
        ]
        for name, definition in architectures().items()
    ]
    return table(["architecture", "definition", "sizes"], rows)


def _size(name: str, spec: Parameter) -> str:
    """What a size may be, with its name and its default, if it has one."""
    allowed = spec.allowed(name)
    said = allowed if re.search(rf"\b{name}\b", allowed) else f"{name}: {allowed}"
    return said if spec.default is REQUIRED else f"{said}, default {_value(spec.default)}"


def parameters(entry: str) -> str:
    """The parameters of a controller."""
    rows = [
        [f"`{name}`", _value(spec.default), spec.allowed(name), spec.about]
        for name, spec in CONTROLLERS[entry].parameters.items()
    ]
    return table(["parameter", "default", "allowed", "meaning"], rows)


def _value(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


ENTRIES: dict[str, Callable[[], str]] = {
    "optimizers": optimizers,
    "muon": muon,
    "networks": networks,
    **{
        f"controller {name}": functools.partial(parameters, name)
        for name, one in CONTROLLERS.items()
        if one.parameters
    },
}
"""What can stand in a page about the registries' entries, by name."""

_DESIGN = "design "


def designed(overrides: str) -> str:
    """What ``make design`` prints for conf/ with these overrides and an empty ledger."""
    from lrstudy.design import printed

    return f"```\n{printed(overrides.split())}\n```"


PARTS: dict[str, Callable[[Comparison, Sequence[Record]], str]] = {
    part.__name__: part
    for part in (answer, results, progress, claims, gaps, trainings, range_tests, suggested_against_tuned)
}
"""What can stand in a document, by name."""


def made(text: str, where: str, comparison: Comparison | None, records: Sequence[Record]) -> str:
    """The document with its parts as they are made now.

    Args:
        text: the document.
        where: its name, for errors.
        comparison, records: the study; None and none for a page of :data:`PAGES`, which has no part of it.

    Raises:
        StudyError: it names a part that there is not.
    """

    def part(mark: re.Match) -> str:
        begin, name, _, end = mark.groups()
        if name.startswith(_DESIGN):
            text = designed(name.removeprefix(_DESIGN))
        elif name in ENTRIES:
            text = ENTRIES[name]()
        elif name in PARTS and comparison is not None:
            text = PARTS[name](comparison, records)
        else:
            raise unknown(f"{where}: made by make docs", name, [*PARTS, *ENTRIES], "a part of documents")
        return f"{begin}\n{text}\n\n{end}"

    return _PART.sub(part, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lrstudy.docs",
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 if anything would change"
    )
    parser.add_argument(
        "--entries", action="store_true", help="the pages about the registries' entries alone"
    )
    arguments = parser.parse_args()
    check = arguments.check
    comparison = None if arguments.entries else read_comparison()
    records = [] if arguments.entries else list(Ledger(ledger_folder(workspace_root())).records())
    stale = {}
    for path in PAGES if arguments.entries else (*DOCUMENTS, *PAGES):
        text = path.read_text("utf-8")
        if (new := made(text, str(path), comparison, records)) != text:
            stale[str(path)] = new
    for name, new in stale.items() if not check else ():
        write_atomically(name, new)
    if check and stale:
        raise StudyError(
            f"{', '.join(stale)}: not what the committed study gives; `make docs` makes them anew."
        )
    print(f"docs: {', '.join(stale) or 'nothing'} {'would change' if check else 'changed'}")


if __name__ == "__main__":
    run_stage(main)
