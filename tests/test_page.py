"""The page to play with: what it computes is what Python computes, and what it offers to copy runs."""

import ast
import itertools
import json
import random
import re
import subprocess
import sys
import types

import pytest
import torch
import yaml

from browser import needs_browser, page
from lrstudy import javascript, preview, schedules
from lrstudy.entries.parameters import Choice, Number
from lrstudy.errors import StudyError
from lrstudy.page import write_page
from lrstudy.schedules import SCHEDULES, make_schedule, resolve_parameters

# --- The translation --------------------------------------------------------------------------------------


def translated(source: str) -> str:
    module = javascript._Module()
    return module.function(ast.parse(source).body[0])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(t): return 2 ** -t", "(t) => { return Math.pow(2, (-t)); }"),
        (
            "def f(t, *, a): return t if a is None else a[-1]",
            "(t, {a}) => { return ((a === null) ? t : a.at(-1)); }",
        ),
        ("def f(t): return 0 <= t < 1", "(t) => { return ((0 <= t) && (t < 1)); }"),
        (
            "def f(a): return [x for x, y in a if not y]",
            "(a) => { let x, y; return a.filter(([x, y]) => (!y)).map(([x, y]) => x); }",
        ),
        ("def f(t): return math.tanh(t) + math.inf", "(t) => { return (Math.tanh(t) + Infinity); }"),
    ],
)
def test_python_becomes_javascript(source, expected):
    assert translated(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "def f(t): return t // 2",
        "def f(t): return t % 2",
        "def f(t): return math.gamma(t)",
        "def f(t): return sorted([t])",
        "def f(t):\n    while t: t = t - 1\n    return t",
        "def f(t): return {t: 1}",
        "def f(t): return (lambda *, a: a)(a=t)",
        "def f(t): return t @ t",
        "def f(t): return f'{t:.3f}'",
    ],
)
def test_what_is_not_translated_is_an_error_with_its_line_and_never_a_guess(source):
    with pytest.raises(StudyError, match=r"schedules\.py:\d+: .* is not translated to JavaScript"):
        translated(source)


def test_every_formula_of_the_registry_is_translated():
    text = javascript.registry()
    for name in SCHEDULES:
        assert re.search(rf"^{name}: \{{formula: \(t, num_epochs", text, re.M)


# --- The page in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "schedules.html"
    assert preview.main(["--html", str(path)]) == 0
    assert not re.findall(
        r"""(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)|import\(|fetch\(""", path.read_text()
    )
    with page() as (browser, problems):
        browser.goto(path.as_uri())
        yield browser
        assert problems == []


def cases(per_entry: int = 12) -> list[dict]:
    """Legal parameters of every schedule: those of the pictures, and numbers at random within their ranges."""
    draws, found = random.Random(0), []
    for name, factory in SCHEDULES.items():
        given = [dict(one) for one in factory.pictures]
        while len(given) < per_entry:
            one = {}
            for key, spec in factory.parameters.items():
                if isinstance(spec, Choice):
                    one[key] = draws.choice(spec.choices)
                elif isinstance(spec, Number) and draws.random() < 0.5:
                    low = spec.ge if spec.ge is not None else spec.gt if spec.gt is not None else -5
                    high = spec.lt if spec.lt is not None else spec.le
                    high = 30 if high == "num_epochs" else low + 4 if high is None else high
                    one[key] = draws.uniform(low, high)
            try:
                resolve_parameters(name, 27, **one)
            except StudyError:
                one = {}  # two forms that differ, a parameter that another one excludes
            given.append(one)
        for one, (warmup, granularity) in zip(
            given, itertools.cycle([(0, "step"), (3, "step"), (0, "epoch"), (2.5, "epoch")])
        ):
            found.append({"schedule": name, "given": one, "warmup": warmup, "granularity": granularity})
    return found


EPOCHS = 30
TIMES = sorted({*range(EPOCHS + 1), *(EPOCHS * k / 97 for k in range(98))})


@needs_browser
def test_the_page_computes_what_python_computes(opened):
    every = [one for one in cases() if _legal(one)]
    assert {one["schedule"] for one in every} == set(SCHEDULES)
    assert len(every) > 10 * len(SCHEDULES)
    found = opened.evaluate(
        "([every, times, n]) => every.map((one) => times.map(makeSchedule(one, n)))", [every, TIMES, EPOCHS]
    )
    for one, values in zip(every, found, strict=True):
        expected = make_schedule(
            one["schedule"],
            EPOCHS,
            warmup_epochs=one["warmup"],
            granularity=one["granularity"],
            **one["given"],
        )
        assert values == pytest.approx([expected(t) for t in TIMES], rel=1e-12, abs=1e-14), one


def _legal(one: dict) -> bool:
    try:
        make_schedule(one["schedule"], EPOCHS, warmup_epochs=one["warmup"], **one["given"])
    except StudyError:
        return False
    return True


@needs_browser
def test_the_page_resolves_parameters_as_python_does(opened):
    for one in cases():
        n = EPOCHS - one["warmup"]
        try:
            expected = resolve_parameters(one["schedule"], n, **one["given"])
        except StudyError:
            continue
        found = opened.evaluate(
            "([name, n, given]) => resolve(name, n, given)", [one["schedule"], n, one["given"]]
        )
        assert list(found) == list(expected)
        assert _flat(found) == {
            place: value if value is None or isinstance(value, str) else pytest.approx(value, rel=1e-11)
            for place, value in _flat(expected).items()
        }


def _flat(value, place="") -> dict:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: one for name, inner in pairs for key, one in _flat(inner, f"{place}.{name}").items()}
    return {place: value}


@needs_browser
@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("cosine", {"min_factor": 2}, "min_factor is 2; allowed: 0 <= min_factor <= 1"),
        ("cosine", {"min_facto": 0}, "'min_facto' is not a parameter of it; choose one of min_factor"),
        ("step", {"step_size": 31}, "step_size is 31; allowed: 0 < step_size <= num_epochs = 30"),
        ("exponential", {"final_factor": 0}, "final_factor is 0, which an exponential never reaches"),
        ("exponential", {"final_factor": 0.5, "decay_rate": 1}, "two forms of one value and differ"),
        ("cyclical", {"decay_rate": 1}, "decay_rate is 1 but decay is 'none'"),
        ("late_decay", {"shape": "sqrt"}, "shape is 'sqrt'; allowed: one of linear, cosine"),
        ("multistep", {"drops": [0.5, 0.2]}, "drops is [0.5,0.2]; allowed: 0 < each of drops < 1, rising"),
        ("piecewise", {"points": [[0.5, 1]]}, "times from 0 on, rising"),
        ("phases", {"phases": [{"schedule": "static", "share": 0.5}]}, "come to 15 of 30 epochs"),
        ("phases", {"phases": [{"schedule": "static"}, {"schedule": "rex"}]}, "2 of them say no length"),
        (
            "phases",
            {"phases": [{"schedule": "static", "epochs": 40}, {"schedule": "rex"}]},
            "phases[0]: epochs is 40",
        ),
        ("restarts", {"cycle": {"schedule": "rex", "bend": 1}}, "cycle: schedule rex: bend is 1; allowed"),
        ("product_of", {"schedules": "cosine"}, "allowed: a list of schedules"),
    ],
)
def test_what_python_refuses_the_page_refuses(opened, name, given, says):
    with pytest.raises(StudyError):
        make_schedule(name, EPOCHS, **given)
    told = opened.evaluate(
        "([name, given]) => { try { resolve(name, 30, given); } catch (error) { return error.message; } }",
        [name, given],
    )
    assert says in told


def of(opened, label):
    return opened.get_by_label(label, exact=True)


def line(opened, index):
    return opened.locator(f'[data-curve="{index}"]').get_attribute("points")


@needs_browser
def test_moving_a_slider_moves_the_curve_and_what_is_copied(opened, tmp_path):
    opened.reload()
    of(opened, "schedule").select_option("one_cycle")
    before = line(opened, 0)
    of(opened, "peak_at slider").fill("700")
    assert line(opened, 0) != before
    peak = float(of(opened, "peak_at").input_value())
    assert peak == pytest.approx(0.7, abs=0.01)
    of(opened, "start_factor").fill("0.0000004")
    of(opened, "warmup_epochs").fill("2")
    of(opened, "granularity").select_option("epoch")
    given = {"peak_at": peak, "start_factor": 4e-7}

    row = yaml.safe_load(opened.locator("#conf").inner_text())
    assert row.pop("defaults") == ["static@_here_", "_self_"]
    assert row == {"function": "one_cycle", "warmup_epochs": 2, "granularity": "epoch", **given}

    copied = {"optimizer": torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), "loader": [1] * 5}
    exec(opened.locator("#code").inner_text(), copied)
    same = make_schedule("one_cycle", 30, warmup_epochs=2, granularity="epoch", **given)
    assert copied["schedule"] == same
    assert copied["scheduler"].get_last_lr() == [same(0)]


@needs_browser
def test_a_list_of_phases_is_drawn_and_copied(opened):
    opened.reload()
    of(opened, "schedule").select_option("phases")
    phases = [
        {"schedule": "one_cycle", "share": 0.4, "end_factor": 0.5},
        {"schedule": "late_decay", "shape": "1-sqrt", "factor": 0.5},
    ]
    of(opened, "phases").fill(json.dumps(phases))
    assert opened.locator("#problem").inner_text() == ""
    assert yaml.safe_load(opened.locator("#conf").inner_text())["phases"] == phases
    values = opened.evaluate("functions[0](20)")
    assert values == pytest.approx(make_schedule("phases", 30, phases=phases)(20), rel=1e-12)
    of(opened, "phases").fill("[{")  # half-typed
    assert "allowed: a list of schedules" in opened.locator("#problem").inner_text()
    assert opened.locator("#conf").inner_text() == ""


@needs_browser
def test_of_two_forms_of_one_value_the_last_one_set_holds(opened):
    opened.reload()
    of(opened, "schedule").select_option("exponential")
    of(opened, "decay_rate").fill("0.1")
    of(opened, "final_factor").fill("0.2")
    assert yaml.safe_load(opened.locator("#conf").inner_text())["final_factor"] == 0.2
    assert "decay_rate" not in opened.locator("#conf").inner_text()
    of(opened, "final_factor default").click()
    assert "final_factor" not in opened.locator("#conf").inner_text()
    assert float(of(opened, "final_factor").input_value()) == 0.05


@needs_browser
def test_curves_are_added_removed_read_off_and_kept_in_the_address(opened):
    opened.goto(opened.url.partition("#")[0])
    opened.reload()
    opened.get_by_role("button", name="Add a curve").click()
    count = opened.locator("polyline").count()
    of(opened, "schedule").select_option("rex")
    of(opened, "base_lr").fill("0.5")
    box = opened.locator("#chart").bounding_box()
    opened.mouse.move(box["x"] + box["width"] * (62 + 683 / 2) / 760, box["y"] + 50)
    told = opened.locator("#readout").inner_text()
    assert re.match(r"epoch 15: ", told) or re.match(r"epoch 1[45]\.", told)
    assert re.search(r"rex 0\.33\d", told)
    opened.reload()
    assert opened.locator("polyline").count() == count
    assert of(opened, "schedule").input_value() == "rex"
    opened.get_by_role("button", name=f"remove curve {count}", exact=True).click()
    assert opened.locator("polyline").count() == count - 1


def test_a_folder_in_the_way_is_one_clear_error(tmp_path, capsys):
    assert preview.main(["--html", str(tmp_path)]) == 2
    assert re.fullmatch(r"preview: .*: cannot be written \(Is a directory\)\.\n", capsys.readouterr().err)


def test_the_page_needs_neither_torch_nor_matplotlib(tmp_path):
    code = (
        "import sys; from lrstudy.page import write_page; write_page(sys.argv[1]);"
        "print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "page.html")], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"
    assert (tmp_path / "page.html").stat().st_size < 200_000


def test_the_page_is_of_the_registry_as_it_is(tmp_path, monkeypatch):
    assert isinstance(schedules, types.ModuleType)
    monkeypatch.delitem(SCHEDULES, "rex")
    text = write_page(tmp_path / "page.html").read_text()
    assert '"rex"' not in text
    assert "\nrex: " not in text
    assert "\ntanh: " in text
