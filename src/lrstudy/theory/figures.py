"""The figures of the theory experiments, in the style of all others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from lrstudy.report.figures import PALETTE, TEXT_WIDTH, line_style, new_figure, save_figure, style
from lrstudy.theory.landscape import Array

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write the figure as SVG and PNG; returns both paths."""
    paths = []
    for ending in (".svg", ".png"):
        path = folder / f"{name}{ending}"
        paths.append(save_figure(figure, path, description=name.replace("_", " "), dpi=150))
        figure.set_layout_engine("none")  # it stays as laid out: that is half of the time
    return paths


def toy_figure(steps: Sequence[int], panels: Mapping[str, Mapping[str, list[dict]]]) -> "Figure":
    """Panels (title -> line label -> summaries with ``mean`` and ``interval``) against the step of the
    decay."""
    with style():
        figure = new_figure(TEXT_WIDTH, 2.5)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            for index, (label, summaries) in enumerate(lines.items()):
                shown = [(step, s) for step, s in zip(steps, summaries, strict=True) if s["mean"] is not None]
                x = [step for step, _ in shown]
                axes.plot(x, [s["mean"] for _, s in shown], "o", ms=2.5, label=label, **line_style(index))
                if all(s["interval"] for _, s in shown):
                    low, high = zip(*(s["interval"] for _, s in shown), strict=True)
                    axes.fill_between(x, low, high, color=PALETTE[index], alpha=0.15, linewidth=0)
            axes.set_title(title, loc="left")
            axes.set_xlabel("update at which the rate decays")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


class Branches(TypedDict):
    """One metric of the branches' ends: of every seed and branch, and over the seeds of each branch."""

    values: Array  # (num_seeds, num_branches)
    mean: list[float]
    intervals: list[tuple[float, float] | None]


def branching_figure(
    epochs: Sequence[int], panels: Mapping[str, Branches], trunk: Mapping[str, Sequence[float]]
) -> "Figure":
    """Metrics of the branches' ends against the epoch at which they left: seeds, mean and interval.

    Args:
        epochs: (num_branches,).
        panels: label -> ``values`` (num_seeds, num_branches), ``mean`` and ``intervals`` (num_branches each).
        trunk: label -> the trunk's own values (num_seeds,).
    """
    with style():
        figure = new_figure(TEXT_WIDTH, 2.5)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (label, found) in zip(grid, panels.items(), strict=True):
            for values in np.asarray(found["values"]):
                axes.plot(epochs, values, "-", color="#999999", linewidth=0.6)
            axes.plot(epochs, found["mean"], "o", ms=3.5, label="branches", **line_style(0))
            intervals = [interval for interval in found["intervals"] if interval is not None]
            if len(intervals) == len(epochs):
                low, high = np.transpose(intervals)
                axes.fill_between(epochs, low, high, color=PALETTE[0], alpha=0.15, linewidth=0)
            axes.axhline(np.mean(trunk[label]), label="trunk, never decayed", **line_style(1))
            axes.set_xticks(epochs)
            axes.set_xlabel("branching epoch")
            axes.set_title(label, loc="left")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def plane_figure(
    x: Array,
    y: Array,
    surfaces: Mapping[str, Array],
    paths: Mapping[str, Array],
    axis_labels: Sequence[str],
) -> "Figure":
    """Losses on a plane as filled contours, a panel each, with trajectories drawn in.

    Args:
        x, y: the grid.
        surfaces: title -> (len(y), len(x)).
        paths: label -> (num_points, 2), places in the plane; the last point is marked.
        axis_labels: what the axes are.
    """
    with style():
        figure = new_figure(TEXT_WIDTH, 3.3)
        grid = figure.subplots(1, len(surfaces), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, values) in zip(grid, surfaces.items(), strict=True):
            finite = values[np.isfinite(values)]
            # Equally many grid points between levels: the basin shows whatever the heights around it.
            levels = np.unique(np.quantile(finite, np.linspace(0, 1, 16)))
            if len(levels) > 1:
                clipped = np.where(np.isfinite(values), values, finite.max())
                filled = axes.contourf(x, y, clipped, levels=levels, cmap="viridis_r")
                bar = figure.colorbar(filled, ax=axes, shrink=0.8, format="%.4g")
                bar.ax.tick_params(labelsize=6)
            for index, (label, points) in enumerate(paths.items()):
                look = {"color": "#FFFFFF", "linewidth": 1.8} if index == 0 else line_style(index)
                points = np.asarray(points)
                axes.plot(points[:, 0], points[:, 1], marker=".", ms=3.5, label=label, **look)
                axes.plot(*points[-1], marker="*", ms=8, color=look["color"], mec="black", mew=0.5)
            axes.set_title(title, loc="left")
            axes.set_xlabel(axis_labels[0])
            axes.grid(visible=False)
        grid[0].set_ylabel(axis_labels[1])
        handles, labels = grid[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=6)
        legend.get_frame().set(facecolor="#BBBBBB")
        legend.set_frame_on(True)  # the first line is white
    return figure


def lines_figure(
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    x_label: str,
    y_label: str = "",
    *,
    logarithmic: bool = False,
    columns: int = 3,
) -> "Figure":
    """Panels (title -> label -> x, y); equal labels look alike in all panels.

    ``y_label`` is what all panels show, where their titles do not say it.
    ``logarithmic`` panels are so where their values span more than a factor of 20.
    """
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    with style():
        columns = min(columns, len(panels))
        rows = -(-len(panels) // columns)
        figure = new_figure(TEXT_WIDTH, 0.4 + 2.1 * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        handles: dict[str, Artist] = {}
        for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
            for label, (x, y) in lines.items():
                drawn = axes.plot(x, y, marker="o", ms=2.2, label=label, **line_style(labels.index(label)))
                handles.setdefault(label, drawn[0])
            shown = np.concatenate([np.asarray(y, dtype=float) for _, y in lines.values()])
            if logarithmic and shown.min() > 0 and shown.max() > 20 * shown.min():
                axes.set_yscale("log")
            elif (shown == shown.round()).all():  # counts
                axes.locator_params(axis="y", integer=True)
            axes.set_title(title, loc="left")
            axes.set_xlabel(x_label)
            if x_label == "epoch":
                axes.locator_params(axis="x", integer=True)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel(y_label)
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper center", ncols=min(6, len(handles))
        )
    return figure
