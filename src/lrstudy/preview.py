"""See a schedule before training with it: ``python -m lrstudy.preview --help``."""

import argparse
import ast
import hashlib
import itertools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from lrstudy.entries.parameters import Number, Points, Times
from lrstudy.errors import StudyError
from lrstudy.report.figures import (
    COLUMN_WIDTH,
    Curve,
    curve_of,
    save_figure,
    schedule_figure,
    schedule_panels,
)
from lrstudy.schedules import GRANULARITIES, SCHEDULES, Schedule, make_schedule, shown

EXAMPLES = """\
examples:
  python -m lrstudy.preview cosine_restarts --epochs 50 -P period=10 --warmup 5 -o out.png
  python -m lrstudy.preview step --epochs 10 -P gamma=0.3 --base-lr 0.1 --table
  python -m lrstudy.preview --all --epochs 30 -o all.pdf
  python -m lrstudy.preview --html schedules.html
"""

# Over which docs/schedules.md draws each schedule.
PICTURE_EPOCHS = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; mistakes are one line on stderr and exit status 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    asked = {
        "a schedule": options.schedule is not None,
        "--all": options.all,
        "--seed-figures": options.seed_figures,
        "--parity": options.parity,
        "--docs": options.docs is not None,
        "--html": options.html is not None,
    }
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) != 1:
        parser.error(
            f"found {' and '.join(chosen) or 'nothing'} to show; give exactly one of {', '.join(asked)}"
        )
    try:
        if options.base_lr is not None and not 0 < options.base_lr < math.inf:
            raise StudyError(f"--base-lr is {options.base_lr:g}; allowed: a learning rate above 0.")
        if options.parity:
            print(parity_table())
        elif options.html:
            from lrstudy.page import write_page

            print(f"wrote {write_page(options.html)}; open it in a browser")
        elif options.docs:
            for path in write_docs(options.docs):
                print(f"wrote {path}")
        elif options.seed_figures:
            for path in write_seed_figures(options.output or "seed_figures"):
                print(f"wrote {path}")
        elif options.all:
            if options.parameters or options.table:
                parser.error("--all draws every schedule with its defaults; leave -P and --table out")
            figure = schedule_panels(every_schedule(options), y_label=_unit(options))
            print(f"wrote {save_figure(figure, options.output or 'schedules.png')}")
        else:
            _show_one(options)
    except StudyError as error:
        print(f"preview: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"preview: {message}; see python -m lrstudy.preview --help\n")

    parser = Parser(
        prog="python -m lrstudy.preview",
        description="Draw or print a learning-rate schedule, epoch by epoch.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("schedule", nargs="?", help=f"one of {', '.join(SCHEDULES)}, or package.module:name")
    add("--epochs", type=float, default=100, help="length of the training, warmup included (default: 100)")
    add(
        "-P", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="a parameter; repeat"
    )
    add("--warmup", type=float, default=0.0, help="epochs of linear rise at the start (default: 0)")
    add("--granularity", choices=GRANULARITIES, default="step", help="when the rate changes (default: step)")
    add("--base-lr", type=float, help="show learning rates at this base rate, not multiples of it")
    add("-o", "--output", help="the figure (.png, .pdf, .svg); for --seed-figures a folder")
    add("--table", action="store_true", help="print one line per epoch instead of drawing")
    add("--all", action="store_true", help="every schedule, with its defaults, in one figure")
    add(
        "--seed-figures",
        action="store_true",
        help='the toy plots of the report "Learning Rate Schedule" (2024)',
    )
    add("--parity", action="store_true", help="print how far each schedule is from torch's and from peers'")
    add("--html", metavar="FILE", help="write a page to play with: sliders, curves, conf and code to copy")
    add("--docs", metavar="FILE", help="rewrite the generated part of docs/schedules.md and its pictures")
    return parser


def _show_one(options: argparse.Namespace) -> None:
    parameters = dict(_parameter(text) for text in options.parameters)
    schedule = make_schedule(options.schedule, options.epochs, **_settings(options), **parameters)
    if options.table:
        print(value_table(schedule, options.epochs, options.base_lr))
    if options.output or not options.table:
        shown = {**parameters, **({"warmup": f"{options.warmup:g}"} if options.warmup else {})}
        title = ", ".join([options.schedule, *(f"{name} {value}" for name, value in shown.items())])
        file_name = options.schedule.replace(":", ".")
        figure = schedule_figure({title: _curve(schedule, options)}, title=title, y_label=_unit(options))
        print(f"wrote {save_figure(figure, options.output or f'{file_name}.png')}")


def _curve(schedule: Schedule, options: argparse.Namespace) -> Curve:
    base_lr = 1.0 if options.base_lr is None else options.base_lr
    return curve_of(lambda t: base_lr * schedule(t), options.epochs)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"warmup_epochs": options.warmup, "granularity": options.granularity}


def _unit(options: argparse.Namespace) -> str:
    return "learning rate / base rate" if options.base_lr is None else "learning rate"


def _parameter(text: str) -> tuple[str, Any]:
    """``period=10`` as a name and a number, list or word."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise StudyError(f"-P {text}: found no NAME=VALUE; write for example -P period=10.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


# --- What is shown ----------------------------------------------------------------------------------------


def value_table(schedule: Schedule, num_epochs: float, base_lr: float | None = None) -> str:
    """The schedule's values at the start of every epoch and at the end; rates too, given a base rate."""
    times = [*range(math.ceil(num_epochs)), num_epochs]
    lines = [f"{'epoch':>8}  {'multiplier':<12}" + ("  learning rate" if base_lr is not None else "")]
    for t in times:
        multiplier = schedule(t)
        rate = "" if base_lr is None else f"  {base_lr * multiplier:.6g}"
        lines.append(f"{t:>8g}  {multiplier:<12.6g}{rate}")
    return "\n".join(line.rstrip() for line in lines)


def every_schedule(options: argparse.Namespace) -> dict[str, dict[str, Curve]]:
    """Every schedule with its default parameters, by kind."""
    panels: dict[str, dict[str, Curve]] = {}
    for name, entry in SCHEDULES.items():
        schedule = make_schedule(name, options.epochs, **_settings(options))
        panels.setdefault(entry.kind, {})[name] = _curve(schedule, options)
    # A line by itself has no legend.
    return {kind if len(one) > 1 else f"{kind}: {next(iter(one))}": one for kind, one in panels.items()}


def seed_figures() -> dict[str, tuple[dict[str, Curve], str]]:
    """The toy plots of the report "Learning Rate Schedule" (2024): file name -> curves and their unit.

    Its settings, over 100 epochs: step 1.0 times 0.5 every 10 epochs; exponential 1.0 at 0.05 per epoch and
    2.0 at 0.1; cosine from 0.1 to 0.001. For the windows of its section 2.8 and for its closing plot of the
    schedules that it names it gives no numbers; those here are ours. Its step code drops one epoch earlier
    than its formula; this is the formula.
    """

    def curve(base_lr: float, name: str, **parameters: Any) -> Curve:
        schedule = make_schedule(name, 100, **parameters)
        return curve_of(lambda t: base_lr * schedule(t), 100)

    rate, relative = "learning rate", "learning rate / base rate"
    step = curve(1.0, "step", gamma=0.5, step_size=10)
    exponential = curve(1.0, "exponential", decay_rate=0.05)
    return {
        "step": ({"1.0, times 0.5 every 10 epochs": step}, rate),
        "exponential": (
            {
                "1.0, decay rate 0.05": exponential,
                "2.0, decay rate 0.1": curve(2.0, "exponential", decay_rate=0.1),
            },
            rate,
        ),
        "cosine": ({"0.1 to 0.001": curve(0.1, "cosine", min_factor=0.01)}, rate),
        "windows": (
            {name: curve(1.0, "cyclical", window=name) for name in ("triangular", "welch", "hann")},
            relative,
        ),
        "all": (
            {
                "fixed": curve(1.0, "static"),
                "step": step,
                "exponential": exponential,
                "inverse time": curve(1.0, "inverse_time", decay_rate=0.1),
                "polynomial": curve(1.0, "polynomial", power=1),
                "cyclical": curve(1.0, "cyclical", period=50),
                "cosine": curve(1.0, "cosine", min_factor=0.01),
            },
            relative,
        ),
    }


def write_seed_figures(folder: str | Path) -> list[Path]:
    """Draw :func:`seed_figures` into ``folder`` as PNG."""
    return [
        save_figure(schedule_figure(curves, y_label=unit), Path(folder) / f"{name}.png")
        for name, (curves, unit) in seed_figures().items()
    ]


def parity_table() -> str:
    """Every schedule that torch or an installed peer has too, with the largest difference over a training."""
    from lrstudy.parity import PEERS, is_installed, parity_with, parity_with_torch

    rows = [replace(row, theirs=f"torch {row.theirs}") for row in parity_with_torch()]
    absent = [peer for peer in PEERS if not is_installed(peer)]
    rows += itertools.chain.from_iterable(parity_with(peer) for peer in PEERS if peer not in absent)
    left = max(len(row.schedule) for row in rows)
    middle = max(len(row.theirs) for row in rows)
    lines = [f"{'schedule':<{left}}  {'of another library':<{middle}}  largest difference"]
    lines += [f"{row.schedule:<{left}}  {row.theirs:<{middle}}  {row.difference:.1e}" for row in rows]
    if absent:
        lines += [f"not installed: {', '.join(absent)}; pip install -r requirements-peers.txt brings them"]
    return "\n".join(lines)


# --- docs/schedules.md ------------------------------------------------------------------------------------

_BEGIN = (
    "<!-- generated by python -m lrstudy.preview --docs docs/schedules.md: edit src/lrstudy/schedules.py -->"
)
_END = "<!-- end of the generated part -->"


def write_docs(path: str | Path) -> list[Path]:
    """Rewrite the part of ``path`` between its two marks, and the pictures in the folder beside it.

    Raises:
        StudyError: the file or its marks are missing.
    """
    path = Path(path)
    new = docs_text(path)
    written = []
    for name in SCHEDULES:
        curves = picture_curves(name)
        figure = schedule_figure(curves)
        picture = path.with_suffix("") / f"{name}.png"
        written.append(save_figure(figure, picture, description=picture_digest(curves), dpi=160))
    path.write_text(new, encoding="utf-8")
    return [path, *written]


def docs_text(path: str | Path) -> str:
    """The text of ``path`` with its generated part made again."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(
            f"{path}: not found; the text around the generated part is written by hand."
        ) from None
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise StudyError(
            f"{path}: the marks of the generated part are missing; put back {_BEGIN!r} and {_END!r}."
        )
    sections = "\n".join(_section(name, path.stem) for name in SCHEDULES)
    return f"{before}{_BEGIN}\n\n{sections}\n{_END}{after}"


def picture_curves(name: str) -> dict[str, Curve]:
    """The lines of a schedule's picture, each labelled with the parameters that are not the default's."""
    return {
        ", ".join(f"{key} {shown(value)}" for key, value in parameters.items()) or "default": curve_of(
            make_schedule(name, PICTURE_EPOCHS, **parameters), PICTURE_EPOCHS
        )
        for parameters in SCHEDULES[name].pictures
    }


def picture_digest(curves: Mapping[str, Curve]) -> str:
    """A fingerprint of what a picture shows; kept inside the file, so that a stale picture can be told."""
    shown = repr([(label, [f"{value:.6f}" for value in y]) for label, (_, y) in curves.items()])
    return hashlib.sha256(shown.encode()).hexdigest()


def _section(name: str, folder: str) -> str:
    """One schedule: what its docstring says, its parameters, its picture and a few values."""
    summary, formula, notes = _docstring(SCHEDULES[name].formula.__doc__ or "")
    lines = [f"### {name}", "", summary, "", "```text", *formula, "```", ""]
    for note in notes:
        lines += [note, ""]
    parameters = SCHEDULES[name].parameters
    if parameters:
        lines += ["| parameter | meaning | unit | allowed | default |", "|---|---|---|---|---|"]
        for key, spec in parameters.items():
            default = f"`{shown(spec.default)}`"
            if isinstance(spec, Number | Times | Points) and spec.default is None:
                default = f"`null`: {spec.derived}"
            lines.append(f"| `{key}` | {spec.about} | {spec.unit} | {spec.allowed(key)} | {default} |")
        lines.append("")
    width = round(COLUMN_WIDTH * 140)
    lines += [
        f'<img src="{folder}/{name}.png" width="{width}" alt="{name} over {PICTURE_EPOCHS} epochs: '
        f'{"; ".join(picture_curves(name))}">',
        "",
    ]
    schedule, times = make_schedule(name, 10), (0, 1, 2, 4, 6, 8, 10)
    lines += [
        "| epoch of 10, defaults | " + " | ".join(f"{t}" for t in times) + " |",
        "|---" * (len(times) + 1) + "|",
        "| multiplier | " + " | ".join(f"{schedule(t):.4g}" for t in times) + " |",
        "",
    ]
    return "\n".join(lines)


def _docstring(text: str) -> tuple[str, list[str], list[str]]:
    """A schedule's docstring as its first sentence, the lines of its formula, and its other paragraphs."""
    paragraphs = [paragraph for paragraph in re.split(r"\n\s*\n", text.strip()) if paragraph.strip()]
    formula = [line.strip() for line in paragraphs[1].splitlines()]
    notes = [" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs[2:]]
    notes = [re.sub(r"^(Use|Source):", r"**\1:**", note) for note in notes]
    return paragraphs[0].strip(), formula, notes


if __name__ == "__main__":
    from lrstudy.process.exits import exit_status

    sys.exit(exit_status(main))
