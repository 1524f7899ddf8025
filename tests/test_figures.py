"""What the report's figures show, read from their marks."""

import os
import subprocess
import sys

import pytest

from lrstudy.report.figures import budget_figure, profile_figure, rank_figure


def bars(panel) -> list[tuple[float, float]]:
    """From which rank to which the diagram's black bars go."""
    black = (line.get_xdata() for line in panel.lines if line.get_color() == "k")
    return sorted((float(min(x)), float(max(x))) for x in black)


@pytest.mark.parametrize(
    ("difference", "joined"),
    [
        (0.4, []),
        (0.5, [(2.25, 2.75)]),
        (1.3, [(1.0, 2.25), (2.25, 2.75), (2.75, 4.0)]),
        (2.0, [(1.0, 2.75), (2.25, 4.0)]),
        (9.0, [(1.0, 4.0)]),
    ],
)
def test_a_bar_joins_ranks_that_are_not_distinguished(difference, joined):
    ranks = {"cosine": 1.0, "step": 2.25, "exponential": 2.75, "static": 4.0}
    figure = rank_figure({"resnet": (ranks, difference), "lstm": (dict.fromkeys(ranks, 2.5), difference)})
    first, second = figure.axes
    assert bars(first) == joined
    assert bars(second) == [(2.5, 2.5)]
    assert {text.get_text() for text in first.texts} == {
        "cosine (1.00)", "step (2.25)", "(2.75) exponential", "(4.00) static",
    }  # fmt: skip
    assert first.get_xlim() == second.get_xlim()
    assert f"critical difference {difference:.2f}" in first.get_title(loc="left")


@pytest.mark.slow
def test_the_rank_figure_is_the_same_file_in_every_process(tmp_path):
    code = (
        "import sys; from pathlib import Path; from lrstudy.report.figures import rank_figure, save_figure\n"
        "ranks = {'cosine': 1.0, 'step': 2.25, 'exponential': 2.75, 'static': 4.0}\n"
        "save_figure(rank_figure({'resnet': (ranks, 2.0)}), Path(sys.argv[1]))"
    )
    drawn = []
    for seed in ("1", "2"):  # of Python's hashes, by which sets are ordered
        path = tmp_path / f"{seed}.svg"
        subprocess.run(
            [sys.executable, "-c", code, str(path)], env=os.environ | {"PYTHONHASHSEED": seed}, check=True
        )
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1]


def test_a_budgets_figure_has_a_panel_for_every_model_and_a_line_for_every_schedule():
    panels = {
        "lstm, IMDB": {"static": ([1, 2, 3], [0.5, 0.4, 0.3]), "cosine": ([2, 3], [0.45, 0.35])},
        "resnet, CIFAR-10": {"static": ([1, 2], [0.9, 0.8])},
    }
    figure = budget_figure(panels)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(panels)
    for axes, curves in zip(figure.axes, panels.values(), strict=True):
        drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
        assert drawn == curves
        assert axes.get_xscale() == "log"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2"]


def test_a_profiles_lines_are_steps_that_go_on_to_the_panels_end_in_one_style_everywhere():
    panels = {
        "all models, by epochs": ({"cosine": ([1, 2], [0.5, 1.0])}, "times the fewest epochs"),
        "lstm": (
            {"static": ([1, 4], [0.25, 0.75]), "cosine": ([1, 4], [0.5, 0.5])},
            "times the fewest epochs",
        ),
        "resnet": ({"cosine": ([1], [0.0])}, "times the fewest seconds"),
        "transformer": ({"static": ([1], [1.0])}, "times the fewest epochs"),
    }
    figure = profile_figure(panels)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown] == list(panels)
    assert [axes.get_xlabel() for axes in shown] == [label for _, label in panels.values()]
    lines = {line.get_label(): line for line in shown[1].lines}
    assert lines["static"].get_drawstyle() == "steps-post"
    assert list(lines["static"].get_xdata()) == pytest.approx([1, 4, 4.4])
    assert list(lines["static"].get_ydata()) == [0.25, 0.75, 0.75]
    styles = {
        name: {
            (line.get_color(), line.get_linestyle())
            for axes in shown
            for line in axes.lines
            if line.get_label() == name
        }
        for name in ("static", "cosine")
    }
    assert all(len(found) == 1 for found in styles.values())
    assert styles["static"] != styles["cosine"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cosine", "static"]
