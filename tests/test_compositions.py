"""Schedules that are made of others, as rows of conf/ say them: phases, products and restarts of any schedule."""

import itertools
import json
import math
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from composed import ROOT, composed_params
from lrstudy import preview
from lrstudy.errors import StudyError
from lrstudy.ledger.equivalence import Classes, Pair
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import check_params
from lrstudy.recipe.identity import entries_of, training_code
from lrstudy.schedules import SCHEDULES, make_schedule, product, resolve_parameters, sequence

untimed = settings(deadline=None, max_examples=50)
SINGLE = sorted(set(SCHEDULES) - {"phases", "product_of", "restarts"})


@st.composite
def lists(draw):
    """(num_epochs, names of schedules, shares that add up to 1)."""
    num_epochs = draw(st.integers(1, 200) | st.floats(0.5, 200))
    names = draw(st.lists(st.sampled_from(SINGLE), min_size=1, max_size=5))
    weights = draw(st.lists(st.integers(1, 20), min_size=len(names), max_size=len(names)))
    return num_epochs, names, [weight / sum(weights) for weight in weights]


@untimed
@given(case=lists(), share=st.floats(0, 1))
def test_phases_are_the_sequence_of_their_schedules(case, share):
    num_epochs, names, shares = case
    row = [{"schedule": name, "share": one} for name, one in zip(names, shares, strict=True)]
    as_data = make_schedule("phases", num_epochs, phases=row)
    lengths = [one["epochs"] for one in resolve_parameters("phases", num_epochs, phases=row)["phases"]]
    assert math.fsum(lengths) == pytest.approx(num_epochs, rel=1e-9)
    in_python = sequence(
        *((make_schedule(name, length), length) for name, length in zip(names, lengths, strict=True))
    )
    t = share * sum(lengths)
    boundaries = [0.0, *itertools.accumulate(lengths)]
    if (
        min(abs(t - one) for one in boundaries) > 1e-6 * num_epochs
    ):  # which part a boundary is in, rounding says
        assert as_data(min(t, num_epochs)) == pytest.approx(in_python(t), rel=1e-9, abs=1e-12)


@untimed
@given(case=lists(), share=st.floats(0, 1))
def test_a_product_is_the_product_of_its_schedules(case, share):
    num_epochs, names, _ = case
    as_data = make_schedule("product_of", num_epochs, schedules=[{"schedule": name} for name in names])
    in_python = product(*(make_schedule(name, num_epochs) for name in names))
    assert as_data(share * num_epochs) == pytest.approx(in_python(share * num_epochs), rel=1e-12)


@untimed
@given(name=st.sampled_from(SINGLE), num_cycles=st.integers(1, 6), share=st.floats(0, 1, exclude_max=True))
def test_restarts_repeat_the_whole_schedule_under_shrinking_peaks(name, num_cycles, share):
    restarted = make_schedule(
        "restarts", 12, cycle={"schedule": name}, num_cycles=num_cycles, peak_mult=0.5, period_mult=1
    )
    whole = make_schedule(name, 12)
    period = 12 / num_cycles
    for cycle in range(num_cycles):
        t = (cycle + share) * period
        if 1e-6 < share < 1 - 1e-6 and not _jumps(whole, share * 12):
            assert restarted(t) == pytest.approx(0.5**cycle * whole(share * 12), rel=1e-6, abs=1e-9)


def _jumps(schedule, t):
    return abs(schedule(max(0, t - 1e-5)) - schedule(min(12, t + 1e-5))) > 1e-3


def test_restarts_of_cosine_are_cosine_restarts():
    for settings_ in ({"num_cycles": 3, "period_mult": 2}, {"period": 5, "period_mult": 1}):
        ours = make_schedule(
            "restarts", 14, cycle={"schedule": "cosine"}, peak_mult=1, min_factor=0.1, **settings_
        )
        known = make_schedule("cosine_restarts", 14, min_factor=0.1, **settings_)
        times = [14 * i / 500 for i in range(501)]
        assert [ours(t) for t in times] == pytest.approx([known(t) for t in times], rel=1e-12)


def test_compositions_nest():
    row = [
        {"schedule": "product_of", "share": 0.5, "schedules": [{"schedule": "step"}, {"schedule": "cosine"}]},
        {"schedule": "restarts", "cycle": {"schedule": "phases", "phases": [{"schedule": "rex"}]}},
    ]
    found = resolve_parameters("phases", 8, phases=row)
    assert resolve_parameters("phases", 8, **found) == found
    assert json.loads(json.dumps(found)) == found  # as params.yaml and the ledger keep it
    schedule = make_schedule("phases", 8, phases=row)
    assert schedule(2) == pytest.approx(0.1 * 0.5)
    assert schedule(4) == 1


def test_one_phase_has_what_the_others_leave_whatever_the_length():
    row = [{"schedule": "static", "epochs": 3}, {"schedule": "cosine"}, {"schedule": "static", "share": 0.25}]
    for num_epochs, rest in ((8, 3), (40, 27)):
        phases = resolve_parameters("phases", num_epochs, phases=row)["phases"]
        assert [one["epochs"] for one in phases] == [3, rest, num_epochs / 4]
        assert [one["share"] for one in phases] == pytest.approx([3 / num_epochs, rest / num_epochs, 0.25])


REFUSED = [
    ("phases", {"phases": []}, r"phases is \[\]; allowed: a list of schedules"),
    ("phases", {"phases": "cosine"}, r"phases is 'cosine'; allowed: a list of schedules"),
    ("phases", {"phases": ["cosine"]}, r"phases\[0\] is 'cosine'; allowed: a schedule with its parameters"),
    ("phases", {"phases": [{"share": 1}]}, r"phases\[0\] is \{'share': 1\}; allowed: a schedule"),
    (
        "phases",
        {"phases": [{"schedule": "static", "share": 0.5}, {"schedule": "cosin"}]},
        r"phases\[1\]: .*'cosin' is not a schedule; choose one of .* Did you mean 'cosine'\?",
    ),
    (
        "phases",
        {"phases": [{"schedule": "cosine", "min_facto": 0.1}]},
        r"phases\[0\]: schedule cosine: 'min_facto' is not a parameter of it; .*factor.* Did you mean 'min_factor'",
    ),
    (
        "phases",
        {"phases": [{"schedule": "cosine", "min_factor": 2}]},
        r"phases\[0\]: schedule cosine: min_factor is 2; allowed: 0 <= min_factor <= 1",
    ),
    (
        "phases",
        {"phases": [{"schedule": "static"}, {"schedule": "cosine"}]},
        r"2 of them say no length; give all but one a share or epochs",
    ),
    (
        "phases",
        {"phases": [{"schedule": "static", "epochs": 4}, {"schedule": "cosine", "share": 0.5}]},
        r"come to 9 of 10 epochs without warmup; make their lengths add up, or leave out that of one",
    ),
    (
        "phases",
        {"phases": [{"schedule": "static", "share": 1}, {"schedule": "cosine"}]},
        r"come to 10 of 10 epochs without warmup, which leaves nothing to the one that says no length",
    ),
    (
        "phases",
        {"phases": [{"schedule": "static", "share": 0.5, "epochs": 4}, {"schedule": "cosine"}]},
        r"phases\[0\]: share is 0.5, but epochs is 4, which is the share 0.4 of 10 epochs; give one of them",
    ),
    (
        "phases",
        {"phases": [{"schedule": "static", "epochs": 11}, {"schedule": "cosine"}]},
        r"phases\[0\]: epochs is 11; allowed: 0 < epochs <= num_epochs = 10",
    ),
    (
        "phases",
        {"phases": [{"schedule": "cosine", "factor": 0}]},
        r"phases\[0\]: factor is 0; allowed: 0 < factor",
    ),
    (
        "product_of",
        {"schedules": [{"schedule": "cosine", "share": 1}]},
        r"schedules\[0\]: schedule cosine: 'share' is not a parameter of it; choose one of min_factor",
    ),
    (
        "product_of",
        {"schedules": {"schedule": "cosine"}},
        r"schedules is \{.*\}; allowed: a list of schedules",
    ),
    ("restarts", {"cycle": "cosine"}, r"cycle is 'cosine'; allowed: a schedule with its parameters"),
    ("restarts", {"cycle": {"schedule": 3}}, r"cycle is \{'schedule': 3\}; allowed: a schedule"),
    (
        "restarts",
        {"cycle": {"schedule": "cosine", 3: 1}},
        r"cycle: schedule cosine: '?3'? is not a parameter",
    ),
    ("restarts", {"cycle": {"schedule": "cosine", "num_epochs": 1}}, r"'num_epochs' is not a parameter"),
    ("piecewise", {"points": []}, r"points is \[\]; allowed: a list of \[time, value\]"),
    ("piecewise", {"points": [[0.1, 1]]}, r"points is \[\[0.1, 1\]\]; .*times from 0 on, rising, at most 1"),
    ("piecewise", {"points": [[0, 1], [0.5, 1], [0.5, 0]]}, "rising"),
    ("piecewise", {"points": [[0, 1], [1.5, 0]]}, "at most 1; values of 0 or more"),
    ("piecewise", {"points": [[0, -1]]}, "values of 0 or more"),
    ("piecewise", {"points": [[0, 1, 2]]}, r"has \[0, 1, 2\], no \[time, value\] of two numbers"),
    ("piecewise", {"points": [0, 1]}, r"has 0, no \[time, value\]"),
    ("piecewise", {"points_in_epochs": [[0, 1], [11, 0]]}, "at most num_epochs = 10"),
    ("piecewise", {"points": [[0, 1], [1, 0]], "interpolation": "exponential"}, "a value is 0, which an exp"),
    ("piecewise", {"points": [[0, 1]], "points_in_epochs": [[0, 0.5]]}, "give one of them, the other null"),
    ("tanh", {"lower": 2, "upper": 1}, "lower is 2 and upper 1; allowed: lower < upper"),
]


@pytest.mark.parametrize(("name", "given", "says"), REFUSED)
def test_a_mistake_says_where_and_what_is_allowed(name, given, says):
    with pytest.raises(StudyError, match=says) as error:
        make_schedule(name, 10, **given)
    assert str(error.value).startswith(f"schedule {name}: ")
    assert "\n" not in str(error.value)


# --- Identity ---------------------------------------------------------------------------------------------


def code_of(function, **given):
    parameters = resolve_parameters(function, 10, **given)
    return training_code({"schedule": {"function": function, "parameters": parameters}})


def test_a_training_is_known_by_its_own_formula_and_by_those_of_its_parts():
    parts = {"schedule": "phases", "schedule.cosine": "cosine", "schedule.step": "step"}
    row = [{"schedule": "step", "share": 0.5}, {"schedule": "cosine"}]
    chosen = {"schedule": {"function": "phases", "parameters": {"phases": row}}}
    assert entries_of(chosen) == parts
    found = code_of("phases", phases=row)
    assert set(found) == {"loop", *parts}
    # The formula of a part has the meaning that it has by itself.
    assert found["schedule.cosine"] == code_of("cosine")["schedule"]
    assert found["schedule.step"] == code_of("step")["schedule"]
    assert set(code_of("cosine")) == {"loop", "schedule"}


def test_parts_are_found_at_any_depth():
    cycle = {"schedule": "product_of", "schedules": [{"schedule": "rex"}, {"schedule": "tanh"}]}
    assert set(code_of("restarts", cycle=cycle)) == {
        "loop", "schedule", "schedule.product_of", "schedule.rex", "schedule.tanh",
    }  # fmt: skip


def test_what_was_proven_of_a_formula_holds_where_it_is_a_part():
    old, new = "a" * 64, "b" * 64
    classes = Classes([[Pair(part="schedule", name="rex", old=old, new=new)]])
    assert classes.canonical({"schedule": "c" * 64, "schedule.rex": new}) == {
        "schedule": "c" * 64, "schedule.rex": old,
    }  # fmt: skip
    assert {"schedule.rex": old} in classes.equal_to({"schedule.rex": new})
    assert classes.canonical({"optimizer": new}) == {"optimizer": new}  # of another kind


# --- As people write them ---------------------------------------------------------------------------------


def test_the_row_of_the_documentation_is_a_schedule_at_every_length():
    text = (ROOT / "docs/schedules.md").read_text()
    row = yaml.safe_load(
        text.split("## Rows that are made of schedules")[1].split("```yaml\n")[1].split("```")[0]
    )
    assert row.pop("defaults") == ["static@_here_", "_self_"]
    function = row.pop("function")
    for num_epochs in (4, 10, 200):
        schedule = make_schedule(function, num_epochs, **row)
        assert schedule(0.2 * num_epochs) == pytest.approx(0.1)  # between two cycles
        assert schedule(0.4 * num_epochs) == 1
        assert schedule(num_epochs) == 0.01


def test_a_row_of_phases_is_composed_checked_and_known_by_its_parts():
    phases = "[{schedule: static, share: 0.5}, {schedule: rex, bend: 0.7}]"
    params = check_params(
        composed_params(
            "preset=smoke", "data=sample", "schedule=[static,phases]", f"schedule.phases.phases={phases}"
        )
    )
    cell = make_cell(params, "lstm", "phases")
    settings_ = cell.settings()
    found = settings_["schedule"]["parameters"]["phases"]
    assert [one["schedule"] for one in found] == ["static", "rex"]
    assert found[1]["epochs"] == cell.num_epochs / 2
    assert {"schedule", "schedule.static", "schedule.rex"} <= set(training_code(settings_))


def test_the_preview_takes_a_list_of_phases(capsys):
    phases = "phases=[{'schedule': 'static', 'share': 0.5}, {'schedule': 'rex', 'factor': 0.5}]"
    assert preview.main(["phases", "--epochs", "4", "-P", phases, "--table"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["0", "1"], ["1", "1"], ["2", "0.5"], ["3", "0.333333"], ["4", "0"]]
    assert preview.main(["phases", "-P", "phases=[{'schedule': 'rexx'}]"]) == 2
    assert re.match(r"preview: schedule phases: phases\[0\]: .*'rex'", capsys.readouterr().err)
