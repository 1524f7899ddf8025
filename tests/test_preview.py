"""The preview's command line, the figures it draws, and docs/schedules.md, which it keeps true."""

import itertools
import math
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from lrstudy import preview
from lrstudy.errors import StudyError
from lrstudy.parity import PEERS, is_installed
from lrstudy.report.figures import (
    COLUMN_WIDTH,
    TEXT_WIDTH,
    curve_of,
    line_style,
    save_figure,
    schedule_figure,
    schedule_panels,
)
from lrstudy.schedules import SCHEDULES, make_schedule

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "schedules.md"


def run(capsys, *arguments):
    """Exit status, stdout and stderr of the command line."""
    try:
        status = preview.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


# --- The command line -------------------------------------------------------------------------------------


def test_draws_the_schedule_that_was_asked_for(capsys, tmp_path, monkeypatch):
    drawn = {}
    draw = preview.schedule_figure
    monkeypatch.setattr(
        preview, "schedule_figure", lambda curves, **k: drawn.update(curves) or draw(curves, **k)
    )
    out = tmp_path / "new folder" / "out.png"
    arguments = ["cosine_restarts", "--epochs", 50, "-P", "period=10", "--warmup", 5, "-o", out]
    assert run(capsys, *arguments) == (0, f"wrote {out}\n", "")
    ((label, (times, rates)),) = drawn.items()
    assert label == "cosine_restarts, period 10, warmup 5"
    schedule = make_schedule("cosine_restarts", 50, period=10, warmup_epochs=5)
    assert (times[0], times[-1]) == (0, 50)
    assert rates == [schedule(t) for t in times]
    with Image.open(out) as image:
        assert image.width == round(COLUMN_WIDTH * 300)  # one column at 300 dots per inch
        assert len(image.convert("RGB").getcolors(1_000_000)) > 10


def test_without_an_output_the_figure_is_named_after_the_schedule(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "cosine") == (0, "wrote cosine.png\n", "")
    assert (tmp_path / "cosine.png").stat().st_size > 1000


def test_table_lists_every_epoch_and_the_end(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "step", "--epochs", 4.5, "-P", "gamma=0.5", "-P", "step_size=2", "--table")
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["epoch", "multiplier"],
        *(["0", "1"], ["1", "1"], ["2", "0.5"], ["3", "0.5"], ["4", "0.25"], ["4.5", "0.25"]),
    ]
    assert not list(tmp_path.iterdir())


def test_table_gives_learning_rates_at_a_base_rate(capsys):
    _, out, _ = run(capsys, "polynomial", "--epochs", 2, "-P", "power=1", "--base-lr", 0.1, "--table")
    assert [line.split()[-1] for line in out.splitlines()] == ["rate", "0.1", "0.05", "0"]


def test_parameters_may_be_words_and_lists(capsys):
    _, out, _ = run(capsys, "multistep", "--epochs", 4, "-P", "milestones=[1, 3]", "--table")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["1", "0.1", "0.1", "0.01", "0.01"]
    _, out, _ = run(capsys, "cyclical", "--epochs", 4, "-P", "window=hann", "-P", "period=4", "--table")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["0.1", "0.55", "1", "0.55", "0.1"]


def test_granularity_and_warmup_reach_the_schedule(capsys):
    _, out, _ = run(capsys, "static", "--epochs", 2.5, "--warmup", 2, "--granularity", "epoch", "--table")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["0.01", "0.505", "1", "1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["expo"], "'expo' is not a schedule; choose one of "),
        (["expo"], "Did you mean 'exponential'?"),
        (["step", "-P", "gama=0.5"], "Did you mean 'gamma'?"),
        (["step", "-P", "gamma=2"], "gamma is 2; allowed: 0 < gamma <= 1"),
        (["step", "-P", "gamma"], "found no NAME=VALUE"),
        (["step", "-P", "=3"], "found no NAME=VALUE"),
        (["step", "--epochs", "0"], "num_epochs is 0.0; allowed: a number above 0"),
        (["step", "--epochs", "ten"], "invalid float value: 'ten'"),
        (["step", "--epochs", "10", "--warmup", "10"], "0 <= warmup_epochs < num_epochs = 10"),
        (["step", "--base-lr", "-1"], "--base-lr is -1; allowed: a learning rate above 0"),
        (["step", "-o", "out.bmp"], "choose one of .png, .pdf, .svg"),
        (["step", "--granularity", "batch"], "invalid choice: 'batch'"),
        ([], "found nothing to show"),
        (["step", "--all"], "found a schedule and --all"),
        (["--all", "-P", "gamma=1"], "leave -P and --table out"),
        (["--docs", "nowhere.md"], "nowhere.md: not found"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("preview: ")
    assert says in err
    assert not list(tmp_path.iterdir())


def test_parity_prints_every_comparison(capsys):
    status, out, _ = run(capsys, "--parity")
    assert status == 0
    header, *rows = out.splitlines()
    assert re.split(r" {2,}", header) == ["schedule", "of another library", "largest difference"]
    absent = [peer for peer in PEERS if not is_installed(peer)]
    if absent:
        assert rows.pop() == (
            f"not installed: {', '.join(absent)}; pip install -r requirements-peers.txt brings them"
        )
    assert len(rows) >= 15
    libraries = set()
    for row in rows:
        schedule, theirs, difference = re.split(r" {2,}", row)
        assert schedule.split(",")[0] in SCHEDULES
        libraries.add(theirs.split()[0])
        assert float(difference) < 1e-12
    assert libraries == {"torch", *PEERS} - set(absent)


def test_all_draws_every_schedule(capsys, tmp_path):
    out = tmp_path / "all.svg"
    assert run(capsys, "--all", "--epochs", 30, "--warmup", 3, "-o", out)[0] == 0
    text = out.read_text()
    for name in SCHEDULES:  # matplotlib notes each label's text; a line by itself is named by its title
        assert f"<!-- {name} -->" in text or f": {name} -->" in text
    drawn = preview.every_schedule(preview._parser().parse_args(["--all"]))
    assert sorted(itertools.chain(*drawn.values())) == sorted(SCHEDULES)


def test_seed_figures_are_the_reports_toy_plots(capsys, tmp_path):
    status, out, _ = run(capsys, "--seed-figures", "-o", tmp_path)
    names = ["step", "exponential", "cosine", "windows", "all"]
    assert status == 0
    assert out.split() == [word for name in names for word in ("wrote", str(tmp_path / f"{name}.png"))]

    # the report's code, at its whole epochs; the step's is read one epoch later (see test_schedules.py)
    report = {
        ("step", "1.0, times 0.5 every 10 epochs"): lambda t: 1.0 * 0.5 ** math.floor((1 + (t - 1)) / 10),
        ("exponential", "1.0, decay rate 0.05"): lambda t: 1.0 * math.exp(-0.05 * t),
        ("exponential", "2.0, decay rate 0.1"): lambda t: 2.0 * math.exp(-0.1 * t),
        ("cosine", "0.1 to 0.001"): lambda t: 0.001 + 0.5 * (0.1 - 0.001) * (1 + math.cos(t / 100 * math.pi)),
    }
    figures = preview.seed_figures()
    for (figure, label), formula in report.items():
        curves, unit = figures[figure]
        at = dict(zip(*curves[label], strict=True))
        assert unit == "learning rate"
        assert [at[t] for t in range(101)] == pytest.approx([formula(t) for t in range(101)], rel=1e-12)
    assert list(figures["windows"][0]) == ["triangular", "welch", "hann"]
    assert len(figures["all"][0]) == 7


def test_runs_as_a_module():
    arguments = [sys.executable, "-m", "lrstudy.preview", "exponential", "--epochs", "1", "--table"]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.split() == ["epoch", "multiplier", "0", "1", "1", "0.05"]


# --- The figures ------------------------------------------------------------------------------------------


def all_schedules_figure():
    options = preview._parser().parse_args(["--all", "--epochs", "30"])
    return schedule_panels(preview.every_schedule(options))


def seed_figure(name):
    curves, unit = preview.seed_figures()[name]
    return schedule_figure(curves, y_label=unit)


FIGURES = [
    pytest.param(all_schedules_figure, id="all"),
    *(pytest.param(partial(seed_figure, name), id=f"seed-{name}") for name in preview.seed_figures()),
    *(
        pytest.param(lambda name=name: schedule_figure(preview.picture_curves(name)), id=f"docs-{name}")
        for name in SCHEDULES
    ),
]


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_are_fit_for_print(draw):
    """Axes say what they show, letters are 7 points or more, nothing is cut off, no legend covers a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure = draw()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert figure.get_figwidth() in (COLUMN_WIDTH, TEXT_WIDTH)
    drawn = figure.get_tightbbox(canvas.get_renderer())  # inches
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth()
    assert drawn.y1 <= figure.get_figheight()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7
    shown = {text.get_text() for text in texts}
    assert "epoch" in shown
    assert shown & {"learning rate", "learning rate / base rate"}
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    assert len(legends) or all(len(axes.lines) == 1 for axes in figure.axes)
    plots = [axes.get_window_extent() for axes in figure.axes]
    for legend, plot in itertools.product(legends, plots):
        assert not legend.get_window_extent().overlaps(plot)
    for one, other in itertools.combinations(legends, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())


def test_lines_differ_in_colour_and_dashes_and_neighbours_in_both():
    styles = [line_style(index) for index in range(28)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 28
    for one, other in itertools.pairwise(styles):
        assert one["color"] != other["color"]
        assert one["linestyle"] != other["linestyle"]


def test_line_colours_stand_out_on_white_paper():
    """Relative luminance contrast (WCAG 2) of at least 2 to white, so that no line vanishes in print."""
    for index in range(7):
        channels = bytes.fromhex(line_style(index)["color"][1:])
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels)
        ]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) > 2


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_same_figure_gives_the_same_file(tmp_path, ending):
    def draw(path):
        curves = {name: curve_of(make_schedule(name, 10), 10) for name in ("cosine", "step")}
        return save_figure(schedule_figure(curves), path, description="what it shows").read_bytes()

    assert draw(tmp_path / f"a.{ending}") == draw(tmp_path / f"b.{ending}")


def test_a_figure_that_cannot_be_written_is_a_clear_error(tmp_path):
    figure = schedule_figure({"cosine": curve_of(make_schedule("cosine", 10), 10)})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match="cannot be written"):
        save_figure(figure, tmp_path / "file" / "out.png")


def test_drawing_leaves_no_trace_in_matplotlibs_global_state(tmp_path):
    code = (
        "import sys, lrstudy.preview as p; assert 'matplotlib' not in sys.modules, 'imported too early';"
        "import matplotlib as m; before = {k: m.rcParams[k] for k in m.rcParams if k != 'backend'};"
        "p.write_seed_figures(sys.argv[1]);"
        "assert {k: m.rcParams[k] for k in before} == before, 'settings changed';"
        "print(sorted({'matplotlib.pyplot', 'torch'} & set(sys.modules)))"
    )

    arguments = [sys.executable, "-c", code, str(tmp_path)]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert shown.stdout == "[]\n", shown.stderr


# --- docs/schedules.md ------------------------------------------------------------------------------------


def test_docs_say_what_the_code_does():
    assert DOCS.read_text(encoding="utf-8") == preview.docs_text(DOCS), (
        "docs/schedules.md is stale; run python -m lrstudy.preview --docs docs/schedules.md"
    )


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_docs_describe_and_picture_every_schedule(name):
    section = DOCS.read_text().split(f"\n### {name}\n")[1].split("\n### ")[0]
    for part in ("```text", "**Use:**", "**Source:**", f'src="schedules/{name}.png"'):
        assert part in section
    for parameter in SCHEDULES[name].parameters:
        assert f"| `{parameter}` |" in section
    with Image.open(DOCS.with_suffix("") / f"{name}.png") as image:
        assert image.text["Description"] == preview.picture_digest(preview.picture_curves(name)), (
            f"{name}.png is stale; run python -m lrstudy.preview --docs docs/schedules.md"
        )


def test_docs_keep_what_is_written_by_hand_and_need_their_marks(tmp_path):
    page = tmp_path / "schedules.md"
    page.write_text(f"before\n{preview._BEGIN}\nwhat was there\n{preview._END}\nafter\n")
    text = preview.docs_text(page)
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "what was there" not in text
    page.write_text("before\n")
    with pytest.raises(StudyError, match="marks of the generated part are missing"):
        preview.docs_text(page)


def test_the_examples_in_the_docs_run():
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    loader = [torch.ones(2, 3)] * 5
    names = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": loader,
        "batches": loader * 20,
        "loss": lambda batch: model(batch).square().mean(),
        "model": model,
        "torch": torch,
        "validate": lambda model: 1.0,  # as good in every epoch, so the monitor acts
    }
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    rates = []
    for block in blocks:
        exec(block, names)
        rates.append(names["optimizer"].param_groups[0]["lr"])
    assert names["lr"] == pytest.approx(0.1 * make_schedule("cosine", 9)(1.5))
    assert rates[1] == pytest.approx(0.1 * 4e-6)
    assert rates[2] == 0
    assert [one["epoch"] for one in names["controller"].interventions] == [4, 7, 10, 13, 16, 19]
    assert names["decay"].get_last_value() == [0.0]  # of plain SGD
    assert [group["lr"] for group in names["finetuning"].param_groups] == [0.0008, 0.0016, 0.001, 0.002]
