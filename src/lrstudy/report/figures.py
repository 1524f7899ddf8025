"""The study's figures, drawn the same way everywhere, with matplotlib.

Figures are plain ``matplotlib.figure.Figure`` objects: no window, no global state, no style set at import.
They are sized for print: one text column is :data:`COLUMN_WIDTH` inches wide and letters are 8 points high.
Lines differ in colour (the palette of Okabe and Ito, 2008, readable with any colour vision) and in dashes
(readable in grey).
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrstudy.errors import StudyError, brought_by

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

    from lrstudy.lr_finder import RangeTest

Curve = tuple[Sequence[float], Sequence[float]]
"""x and y of one line, equally long."""

COLUMN_WIDTH = 3.35
TEXT_WIDTH = 6.9
FORMATS = (".png", ".pdf", ".svg")

# Okabe and Ito's colours without yellow, which vanishes on white paper.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_DASHES = ((), (4, 1.5), (1, 1.2), (6, 1.5, 1, 1.5))

_STYLE: "dict[RcKeyType, Any]" = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "lrstudy",  # the same figure gives the same file
    "pdf.fonttype": 42,  # letters stay text in the PDF, as journals ask
}


def style() -> AbstractContextManager[None]:
    """The settings under which every figure is made and saved; use as ``with style():``."""
    with brought_by("plot"):
        import matplotlib

    return matplotlib.rc_context(_STYLE)


def new_figure(width: float = COLUMN_WIDTH, height: float | None = None) -> "Figure":
    """An empty figure of ``width`` x ``height`` inches; the height defaults to 0.62 of the width."""
    with brought_by("plot"):
        from matplotlib.figure import Figure

    return Figure(figsize=(width, 0.62 * width if height is None else height))


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of line ``index``; 28 lines differ, neighbours in both."""
    dashes = _DASHES[index % len(_DASHES)]  # 7 colours and 4 dashes have no common divisor: 28 pairs
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": (0, dashes) if dashes else "-",
    }


def draw_lines(
    axes: "Axes", curves: Mapping[str, Curve], *, legend: bool = True, **legend_options: Any
) -> None:
    """Draw ``curves`` (label -> x, y), each in its own style; a legend unless there is only one line."""
    for index, (label, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, label=label, **line_style(index))
    if legend and len(curves) > 1:
        axes.legend(**legend_options)


def schedule_figure(
    curves: Mapping[str, Curve], *, title: str | None = None, y_label: str = "learning rate / base rate"
) -> "Figure":
    """Learning rate over epochs for one or more schedules (label -> epochs, rates).

    One column wide for up to four lines, with the legend above the axes where no line can run into it; with
    more lines as wide as the text and with the legend beside the axes.
    """
    with style():
        wide = len(curves) > 4
        longest = max(len(label) for label in curves)
        columns = 1 if longest > 24 else min(len(curves), 2 if longest > 10 else 3)
        rows = 0 if wide or len(curves) == 1 else -(-len(curves) // columns)
        figure = new_figure(TEXT_WIDTH, 3.0) if wide else new_figure(height=2.1 + 0.15 * rows)
        axes = figure.subplots()
        draw_lines(axes, curves, legend=False)
        _label_rates(axes, curves, y_label)
        if title:
            axes.set_title(title)
        if wide:
            figure.legend(loc="outside right center")
        elif rows:
            figure.legend(loc="outside upper center", ncols=columns)
    return figure


def schedule_panels(
    panels: Mapping[str, Mapping[str, Curve]], *, y_label: str = "learning rate / base rate"
) -> "Figure":
    """Many schedules in one figure as wide as the text: panels (title -> curves) two in a row.

    All panels share their axes' ranges, so that curves can be compared across them.
    """
    with style():
        rows = -(-len(panels) // 2)
        figure = new_figure(TEXT_WIDTH, 2.4 * rows)
        grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
        for index, (axes, (title, curves)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
            draw_lines(axes, curves, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
            _label_rates(axes, curves, y_label)
            axes.label_outer()
            if index + 2 >= len(panels):  # no panel below
                axes.set_xlabel("epoch")
                axes.tick_params(labelbottom=True)
            axes.set_title(title, pad=6 + 12 * -(-len(curves) // 3), fontweight="bold")
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
    return figure


def _label_rates(axes: "Axes", curves: Mapping[str, Curve], y_label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(y_label)
    axes.set_xlim(min(min(x) for x, _ in curves.values()), max(max(x) for x, _ in curves.values()))
    axes.set_ylim(bottom=0)


def save_figure(figure: "Figure", path: str | Path, *, description: str = "", dpi: int = 300) -> Path:
    """Write ``figure`` as PNG, PDF or SVG by the ending of ``path``; makes the folder if it is not there.

    The same figure gives the same file: no dates are written. ``description`` is kept in the file's metadata;
    ``dpi`` matters to PNG alone.

    Raises:
        StudyError: another ending, or the file cannot be written.
    """
    path = Path(path)
    check_format(path)
    metadata = {
        ".png": {"Description": description, "Software": None},
        ".pdf": {"Subject": description, "CreationDate": None, "ModDate": None},
        ".svg": {"Description": description, "Date": None},
    }[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with style():
            figure.savefig(path, metadata=metadata, dpi=dpi)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}).") from None
    return path


def check_format(path: Path) -> None:
    """Whether :func:`save_figure` can write such a file.

    Raises:
        StudyError: its ending is none of :data:`FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise StudyError(f"{path}: not a figure's ending; choose one of {', '.join(FORMATS)}.")


def curve_of(function: Callable[[float], float], end: float, *, num_points: int = 1500) -> Curve:
    """``function`` sampled evenly on [0, end], both ends included."""
    x = [end * index / num_points for index in range(num_points + 1)]
    return x, [function(t) for t in x]


def curve_figure(
    rows: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    column: str,
    label: str,
    *,
    logarithmic: bool = False,
) -> "Figure":
    """One curve by epoch for every schedule, a panel per model; bands of one standard deviation where known.

    Args:
        rows: as reports/curves.csv has them: ``model``, ``schedule``, ``epoch``, and by column the mean over
            seeds; ``<column>_std`` is the standard deviation.
        titles: what to write over each model's panel; its keys choose and order the models.
        column: what is drawn.
        label: what the y axis says.
    """
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    figure, panels = _panels(titles)
    for panel, model in zip(panels, titles, strict=True):
        for index, schedule in enumerate(schedules):
            mine = [row for row in rows if row["model"] == model and row["schedule"] == schedule]
            if mine:
                _draw_curve(panel, mine, column, schedule, line_style(index))
        if logarithmic:
            panel.set_yscale("log")
    _label_left(panels, label)
    _legend_above(figure, panels)
    return figure


def range_test_figure(test: "RangeTest", *, title: str | None = None) -> "Figure":
    """A learning-rate range test: each run's losses in grey, the curve of them all, and by rule a line at the
    rate that it suggests and a band over those of the runs.
    """
    curve = test.curve()
    with style():
        figure = new_figure(height=2.6)
        axes = figure.subplots()
        for losses in test.losses:
            axes.plot(test.rates[: len(losses)], losses, color="#BBBBBB", linewidth=0.5)
        axes.plot(test.rates[: len(curve)], curve, color="#000000")
        for index, (name, one) in enumerate(test.suggestions().items()):
            if one.lr is not None and one.low is not None and one.high is not None:
                axes.axvline(one.lr, label=f"{name} {one.lr:.2g}", linewidth=1.0, **line_style(index))
                axes.axvspan(one.low, one.high, color=PALETTE[index], alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        # A loss that explodes at the end would flatten all else.
        low, high = min(curve), max(curve[: len(curve) // 2])
        axes.set_ylim(low - 0.15 * (high - low), high + 0.6 * (high - low))
        if title:
            axes.set_title(title)
        if axes.get_legend_handles_labels()[1]:  # none where the loss does not fall
            figure.legend(loc="outside lower center", ncols=2)
    return figure


def loss_figure(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], schedule: str) -> "Figure":
    """Training against validation loss of one schedule, a panel per model, the lowest validation loss marked.

    Args:
        rows, titles: as :func:`curve_figure` takes them.
        schedule: whose losses; models without it have an empty panel.
    """
    figure, panels = _panels(titles)
    for panel, model in zip(panels, titles, strict=True):
        mine = [row for row in rows if row["model"] == model and row["schedule"] == schedule]
        if not mine:
            panel.text(0.5, 0.5, f"{schedule} did not run", ha="center", transform=panel.transAxes)
            continue
        _draw_curve(panel, mine, "train/loss", "training", line_style(0))
        _draw_curve(panel, mine, "validation/loss", "validation", line_style(1))
        lowest = min(mine, key=lambda row: row["validation/loss"])
        panel.axvline(lowest["epoch"], color="#777777", linewidth=0.8, linestyle=(0, (2, 2)))
        panel.annotate(
            f"epoch {lowest['epoch']:g}",
            (lowest["epoch"], 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -8),
            textcoords="offset points",
            ha="right",
            fontsize=7,
        )
    _label_left(panels, "loss")
    _legend_above(figure, panels)
    return figure


def difference_figure(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], float, Sequence[float] | None]]], label: str
) -> "Figure":
    """Differences to the reference: for each panel a row per schedule, with its seeds, mean and interval.

    Args:
        panels: title -> schedule -> (values by seed, mean, (low, high) or None).
        label: what the x axis says.
    """
    most = max(len(rows) for rows in panels.values())
    names = _names(panels.values())
    figure, axes = _grid(list(panels), 0.9 + 0.34 * most)
    for panel, rows in zip(axes, panels.values(), strict=True):
        panel.axvline(0, color="#777777", linewidth=0.8)
        for index, (name, (values, mean, interval)) in enumerate(rows.items()):
            color = PALETTE[names.index(name) % len(PALETTE)]
            panel.plot(values, [index] * len(values), "o", color=color, alpha=0.45, markersize=4, mew=0)
            if interval is not None:
                panel.plot(interval, [index, index], color=color, linewidth=2.2)
            panel.plot([mean], [index], "|", color=color, markersize=11, markeredgewidth=2.2)
        panel.set_yticks(range(len(rows)), list(rows))
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
        panel.set_xlabel(label)
    return figure


def budget_figure(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
) -> "Figure":
    """What the best of so many trials is expected to have, one panel per model, one line per schedule.

    Args:
        panels: title -> schedule -> (numbers of trials, expected validation losses).
    """
    names = _names(panels.values())
    figure, axes = _grid(list(panels), 2.5)
    for panel, curves in zip(axes, panels.values(), strict=True):
        for schedule, (x, y) in curves.items():
            style_of = line_style(names.index(schedule))
            panel.plot(x, y, marker="o", markersize=2.5, label=schedule, **style_of)
        most = max(max(x) for x, _ in curves.values())
        panel.set_xscale("log", base=2)
        ticks = [2**power for power in range(most.bit_length())]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xlabel("trials")
    _label_left(axes, "expected validation loss")
    _legend_above(figure, axes)
    return figure


def profile_figure(panels: Mapping[str, tuple[Mapping[str, Curve], str]]) -> "Figure":
    """Performance profiles, a panel each: what is solved within a factor of the lowest cost.

    Args:
        panels: title -> (schedule -> (factors from 1, shares of the problems), what the x axis says). A
            schedule has the same style in every panel, and its line goes on to the panel's end.

    Source: Dolan and More 2002.
    """
    names = _names(curves for curves, _ in panels.values())
    figure, axes = _grid(list(panels), 2.1)
    for panel, (curves, label) in zip(axes, panels.values(), strict=True):
        end = 1.1 * max(max(x) for x, _ in curves.values())
        for name, (x, y) in curves.items():
            style_of = line_style(names.index(name))
            panel.plot([*x, end], [*y, y[-1]], drawstyle="steps-post", label=name, **style_of)
        panel.set_xlim(1, end)
        panel.set_ylim(0, 1.03)
        panel.set_xlabel(label)
    _label_left(axes, "share that got there")
    _legend_above(figure, axes)
    return figure


def rank_figure(panels: Mapping[str, tuple[Mapping[str, float], float]]) -> "Figure":
    """Critical-difference diagrams: average ranks, those not distinguished joined by a bar.

    Args:
        panels: title -> (schedule -> average rank, 1 is best; the critical difference of two ranks).

    Source: Demsar 2006, JMLR 7, section 3.2.2.
    """
    import pandas as pd
    from scikit_posthocs import critical_difference_diagram

    most = max(len(ranks) for ranks, _ in panels.values())
    everywhere = _names(ranks for ranks, _ in panels.values())
    figure = new_figure(TEXT_WIDTH, len(panels) * (0.75 + 0.17 * -(-most // 2)))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for panel, (title, (ranks, difference)) in zip(axes, panels.items(), strict=True):
        # Numbers for names: sets of names are in another order in every process, and so the library's bars.
        names, values = list(ranks), list(ranks.values())
        distinguished = pd.DataFrame([[float(abs(a - b) <= difference) for b in values] for a in values])
        critical_difference_diagram(
            dict(enumerate(values)),
            distinguished,  # 1: not, 0: distinguished; the diagram joins where this is above its alpha
            ax=panel,
            color_palette={
                index: PALETTE[everywhere.index(name) % len(PALETTE)] for index, name in enumerate(names)
            },
            label_fmt_left="{label}",
            label_fmt_right="-{label}",
        )
        for text in panel.texts:
            number = text.get_text()
            name, rank = names[int(number.strip("-"))], f"({values[int(number.strip('-'))]:.2f})"
            text.set_text(f"{rank} {name}" if number.startswith("-") else f"{name} {rank}")
        panel.set_xlim(0.9, len(ranks) + 0.1)  # all ranks, so that panels can be compared
        panel.set_xticks(range(1, len(ranks) + 1))
        panel.grid(visible=False)
        panel.set_title(f"{title}: critical difference {difference:.2f}", loc="left")
    return figure


def _names(rows: Iterable[Iterable[str]]) -> list[str]:
    """All schedules of all panels: a model need not have each, and a schedule keeps its colour."""
    return list(dict.fromkeys(name for names in rows for name in names))


_SIDE_BY_SIDE = 3  # panels, at most, in the width of the text


def _grid(titles: Sequence[str], height: float) -> "tuple[Figure, Sequence[Axes]]":
    """A figure with a panel for every title, in rows of ``height`` inches that are as even as they can be."""
    num_rows = -(-len(titles) // _SIDE_BY_SIDE)
    columns = -(-len(titles) // num_rows)
    figure = new_figure(TEXT_WIDTH, num_rows * height)
    panels = figure.subplots(num_rows, columns, squeeze=False).ravel()
    for spare in panels[len(titles) :]:
        spare.remove()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(textwrap.fill(title, max(16, 72 // columns)), loc="left")
    return figure, list(panels[: len(titles)])


def _label_left(panels: "Sequence[Axes]", label: str) -> None:
    """What the y axis says, once a row."""
    for panel in panels:
        if (place := panel.get_subplotspec()) is not None and place.is_first_col():
            panel.set_ylabel(label)


def _panels(titles: Mapping[str, str]) -> "tuple[Figure, Sequence[Axes]]":
    figure, panels = _grid(list(titles.values()), 2.4)
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.locator_params(axis="x", integer=True)
    return figure, panels


def _draw_curve(
    panel: "Axes", rows: Sequence[Mapping[str, Any]], column: str, label: str, style: dict[str, Any]
) -> None:
    x, y = [row["epoch"] for row in rows], [row[column] for row in rows]
    panel.plot(x, y, marker="o", markersize=2.5, label=label, **style)
    spread = [row.get(f"{column}_std", 0.0) for row in rows]
    if any(spread):
        low = [mean - by for mean, by in zip(y, spread, strict=True)]
        high = [mean + by for mean, by in zip(y, spread, strict=True)]
        panel.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _legend_above(figure: "Figure", panels: "Sequence[Axes]") -> None:
    """One legend for all panels, each label once."""
    entries: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    # Inches of an entry's line and of its letters, which are no wider: more columns would be cut off.
    widest = 0.5 + 0.06 * max(map(len, entries), default=0)
    columns = max(1, min(6, len(entries), int(TEXT_WIDTH / widest)))
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns)
