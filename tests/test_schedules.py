"""Schedules: exact values, parity with torch, what is refused, composition, conf rows, other loops."""

import copy
import io
import itertools
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lrstudy.errors import StudyError
from lrstudy.schedules import (
    SCHEDULES,
    as_torch_scheduler,
    make_schedule,
    parameters_of,
    product,
    resolve_parameters,
    sequence,
    with_warmup,
)
from lrstudy.torch_schedule import parity_with_torch

E = math.exp
SQRT_HALF = math.sqrt(0.5)

# (schedule, parameters, num_epochs, {t: multiplier worked from the formula})
VALUES = [
    pytest.param("static", {}, 10, {0: 1, 0.1: 1, 10: 1}, id="static"),
    pytest.param(
        "step",
        {"gamma": 0.5, "step_size": 10},
        100,
        {0: 1, 9: 1, 9.99: 1, 10: 0.5, 19.99: 0.5, 20: 0.25, 99: 0.5**9, 100: 0.5**10},
        id="step-the-reports-toy",
    ),
    pytest.param("step", {"gamma": 0.1, "step_size": 2.5}, 10, {2.4: 1, 2.5: 0.1, 10: 1e-4}, id="step-2.5"),
    # 0.3 / 0.1 is 2.9999999999999996 in floats: the third drop must still come at 0.3
    pytest.param("step", {"gamma": 0.5, "step_size": 0.1}, 1, {0.3: 0.125, 0.7: 0.5**7}, id="step-rounding"),
    pytest.param("step", {}, 10, {2.9: 1, 3: 0.1, 6: 0.01, 9: 0.001}, id="step-default-third-of-10"),
    pytest.param("step", {}, 3, {0.9: 1, 1: 0.1, 2: 0.01, 3: 0.001}, id="step-default-third-of-3"),
    pytest.param("step", {}, 1, {0: 1, 0.9: 1, 1: 0.1}, id="step-default-at-least-1"),
    pytest.param(
        "multistep", {"gamma": 0.1, "milestones": [100, 150]}, 200,
        {0: 1, 99.9: 1, 100: 0.1, 149.9: 0.1, 150: 0.01, 200: 0.01}, id="multistep-resnet",
    ),
    pytest.param("multistep", {"gamma": 0.2}, 8, {3.9: 1, 4: 0.2, 6: 0.04, 8: 0.04}, id="multistep-default"),
    pytest.param("exponential", {"decay_rate": 0.05}, 100, {0: 1, 20: E(-1), 100: E(-5)}, id="exponential"),
    pytest.param("exponential", {"decay_rate": 0}, 5, {0: 1, 5: 1}, id="exponential-no-decay"),
    pytest.param("inverse_time", {"decay_rate": 0.5}, 6, {0: 1, 1: 2 / 3, 2: 0.5, 6: 0.25}, id="inverse"),
    pytest.param("inverse_sqrt", {"timescale": 2}, 8, {0: 1, 2: 1, 4: SQRT_HALF, 8: 0.5}, id="inverse_sqrt"),
    pytest.param("polynomial", {"power": 1}, 10, {0: 1, 2.5: 0.75, 5: 0.5, 10: 0}, id="polynomial-linear"),
    pytest.param("polynomial", {"power": 2}, 10, {0: 1, 5: 0.25, 9: 0.01, 10: 0}, id="polynomial-square"),
    pytest.param(
        "polynomial", {"power": 2, "min_factor": 0.04}, 10, {5: 0.25, 8: 0.04, 9: 0.04, 10: 0.04},
        id="polynomial-floor",
    ),
    pytest.param("cosine", {}, 100, {0: 1, 25: (1 + SQRT_HALF) / 2, 50: 0.5, 100: 0}, id="cosine"),
    pytest.param(  # from 0.1 down to 0.001 at base rate 0.1; the middle is 0.001 + 0.099 / 2
        "cosine", {"min_factor": 0.01}, 100, {0: 1, 50: 0.505, 100: 0.01}, id="cosine-the-reports-toy",
    ),
    pytest.param(
        "cosine_restarts", {"period": 2, "period_mult": 1}, 5,
        {0: 1, 1: 0.5, 1.5: (1 - SQRT_HALF) / 2, 2: 1, 3: 0.5, 4: 1, 5: 0.5}, id="restarts-equal-cycles",
    ),
    pytest.param(  # cycles of 2, 4, 8 epochs begin at 0, 2, 6 and end with the training at 14
        "cosine_restarts", {"period": 2, "period_mult": 2, "min_factor": 0.2}, 14,
        {0: 1, 1: 0.6, 2: 1, 4: 0.6, 6: 1, 10: 0.6, 14: 0.2}, id="restarts-growing-cycles",
    ),
    pytest.param("cosine_restarts", {}, 9, {0: 1, 1.5: 0.5, 3: 1, 6: 0.5, 9: 0}, id="restarts-default"),
    pytest.param("cosine_restarts", {"period": 10}, 10, {0: 1, 5: 0.5, 10: 0}, id="restarts-one-cycle"),
    pytest.param(
        "cyclical", {"period": 4, "min_factor": 0.2}, 8,
        {0: 0.2, 1: 0.6, 2: 1, 3: 0.6, 4: 0.2, 6: 1, 8: 0.2}, id="cyclical-triangular",
    ),
    pytest.param(  # half way up x = 0.5, w = 0.75
        "cyclical", {"period": 4, "min_factor": 0, "window": "welch"}, 4,
        {0: 0, 1: 0.75, 2: 1, 3: 0.75, 4: 0}, id="cyclical-welch",
    ),
    pytest.param(  # a quarter of the way up x = 0.75, w = (1 - sqrt(1/2)) / 2
        "cyclical", {"period": 4, "min_factor": 0, "window": "hann"}, 4,
        {0: 0, 0.5: (1 - SQRT_HALF) / 2, 1: 0.5, 2: 1, 4: 0}, id="cyclical-hann",
    ),
    pytest.param(
        "cyclical", {"period": 2, "min_factor": 0.2, "decay": "halve"}, 6, {1: 1, 3: 0.6, 5: 0.4, 6: 0.2},
        id="cyclical-halve",
    ),
    pytest.param(
        "cyclical", {"period": 2, "min_factor": 0.2, "decay": "exponential", "decay_rate": 0.3}, 4,
        {1: 0.2 + 0.8 * E(-0.3), 2: 0.2, 3: 0.2 + 0.8 * E(-0.9)}, id="cyclical-exponential",
    ),
    pytest.param(
        "one_cycle", {"peak_at": 0.25, "start_factor": 0.2, "end_factor": 0.1}, 8,
        {0: 0.2, 1: 0.6, 2: 1, 5: 0.55, 8: 0.1}, id="one_cycle",
    ),
    pytest.param(
        "late_decay", {"start": 0.5, "shape": "linear", "min_factor": 0}, 8, {0: 1, 4: 1, 6: 0.5, 8: 0},
        id="late_decay-linear",
    ),
    pytest.param(
        "late_decay", {"start": 0.5, "shape": "cosine", "min_factor": 0}, 8,
        {3.9: 1, 4: 1, 5: (1 + SQRT_HALF) / 2, 6: 0.5, 8: 0}, id="late_decay-cosine",
    ),
    pytest.param(
        "late_decay", {"start": 0.5, "shape": "exponential", "min_factor": 0.01}, 8, {4: 1, 6: 0.1, 8: 0.01},
        id="late_decay-exponential",
    ),
    pytest.param(
        "late_decay", {"start": 0.5, "shape": "step", "min_factor": 0.1}, 8, {3.99: 1, 4: 0.1, 8: 0.1},
        id="late_decay-step",
    ),
    pytest.param("late_decay", {}, 10, {8: 1, 9: 0.505, 10: 0.01}, id="late_decay-default"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "num_epochs", "expected"), VALUES)
def test_values(name, params, num_epochs, expected):
    schedule = make_schedule(name, num_epochs, **params)
    assert {t: schedule(t) for t in expected} == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_every_schedule_has_a_row_of_values():
    assert {row.values[0] for row in VALUES} == set(SCHEDULES)


PARITY = parity_with_torch()


@pytest.mark.parametrize("row", PARITY, ids=lambda row: f"{row.torch_class}: {row.schedule}")
def test_parity_with_torch(row):
    assert row.difference < 1e-12


def test_parity_covers_the_torch_schedulers_that_have_a_counterpart():
    assert {row.torch_class for row in PARITY} >= {
        "StepLR", "MultiStepLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "LinearLR", "SequentialLR",
    }  # fmt: skip
    assert sum(row.torch_class == "CyclicLR" for row in PARITY) == 3


# --- Traps in the sources ---------------------------------------------------------------------------------


def test_toy_step_code_of_the_report_drops_one_epoch_earlier_than_the_formula():
    """``floor((1 + epoch) / step_size)`` is our schedule seen one epoch later."""
    schedule = make_schedule("step", 100, gamma=0.5, step_size=10)
    toy = [0.5 ** math.floor((1 + epoch) / 10) for epoch in range(100)]
    assert toy == [schedule(epoch + 1) for epoch in range(100)]
    assert [epoch for epoch in range(100) if toy[epoch] != schedule(epoch)] == list(range(9, 100, 10))


def test_step_formula_without_the_floor_is_an_exponential():
    """The report's equation 2.2, gamma ** (t / step_size), has decay_rate = -ln(gamma) / step_size."""
    step = make_schedule("step", 30, gamma=0.5, step_size=10)
    exponential = make_schedule("exponential", 30, decay_rate=-math.log(0.5) / 10)
    for t in (0, 3.3, 10, 17, 30):
        assert 0.5 ** (t / 10) == pytest.approx(exponential(t), rel=1e-12)
    assert step(5) == 1.0
    assert exponential(5) == pytest.approx(math.sqrt(0.5))
    assert step(20) == pytest.approx(exponential(20))  # they meet where a drop happens


def test_printed_triangular_formula_is_not_a_triangle_and_smiths_is():
    """max(0, 1 - |t/mu - 2 floor(t/mu) - 1|), mu the period: one rise over a period, then low for good."""
    mu = 10

    def printed(t):
        return max(0.0, 1 - abs(t / mu - 2 * math.floor(t / mu) - 1))

    assert [printed(t) for t in (0, 5, 9)] == pytest.approx([0.0, 0.5, 0.9])  # half height at mid-cycle
    assert [printed(t) for t in range(10, 51)] == [0.0] * 41
    smith = make_schedule("cyclical", 50, period=mu, min_factor=0)
    assert [smith(t) for t in (5, 15, 25, 35, 45)] == pytest.approx([1.0] * 5)
    assert [smith(t) for t in (0, 10, 20, 30, 40, 50)] == pytest.approx([0.0] * 6, abs=1e-12)


def test_torchs_cosine_recursion_climbs_past_its_end_and_ours_ends():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    recursion = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    rates = [1.0]
    for _ in range(15):
        optimizer.step()
        recursion.step()
        rates.append(optimizer.param_groups[0]["lr"])
    ours = make_schedule("cosine", 10)
    assert rates[10] == pytest.approx(ours(10), abs=1e-12)
    assert rates[15] > 0.4
    with pytest.raises(StudyError, match="0 <= t <= 10"):
        ours(15)


# --- Properties -------------------------------------------------------------------------------------------

untimed = settings(deadline=None)
factors = st.floats(0, 1)
rates = st.floats(0, 5)
shares = st.floats(0.01, 1)
PARAMETERS = {  # legal values; lengths are shares of num_epochs
    "static": {},
    "step": {"gamma": st.floats(1e-3, 1), "step_size": shares},
    "multistep": {"gamma": st.floats(1e-3, 1)},
    "exponential": {"decay_rate": rates},
    "inverse_time": {"decay_rate": rates},
    "inverse_sqrt": {"timescale": st.floats(1e-3, 50)},
    "polynomial": {"power": st.floats(0.1, 6), "min_factor": factors},
    "cosine": {"min_factor": factors},
    "cosine_restarts": {"period": shares, "period_mult": st.floats(1, 4), "min_factor": factors},
    "cyclical": {
        "period": shares,
        "min_factor": factors,
        "window": st.sampled_from(["triangular", "welch", "hann"]),
        "decay": st.sampled_from(["none", "halve", "exponential"]),
    },
    "one_cycle": {"peak_at": st.floats(0.01, 0.99), "start_factor": factors, "end_factor": factors},
    "late_decay": {
        "start": st.floats(0, 0.99),
        "shape": st.sampled_from(["linear", "cosine", "exponential", "step"]),
        "min_factor": st.floats(1e-3, 1),
    },
}
NEVER_RISES = sorted(set(SCHEDULES) - {"cosine_restarts", "cyclical", "one_cycle"})
LENGTHS_IN_EPOCHS = {"step_size", "period"}


EVERY_SCHEDULE = sorted(SCHEDULES)


@st.composite
def cases(draw, names=EVERY_SCHEDULE):
    """(name, num_epochs, legal parameters) and some times in [0, num_epochs]."""
    name = draw(st.sampled_from(names))
    num_epochs = draw(st.integers(1, 200) | st.floats(0.5, 200))
    params = {key: draw(value) for key, value in PARAMETERS[name].items()}
    params = {key: v * num_epochs if key in LENGTHS_IN_EPOCHS else v for key, v in params.items()}
    times = draw(st.lists(st.floats(0, num_epochs), min_size=1, max_size=8))
    return name, num_epochs, params, sorted(times)


def test_properties_cover_every_schedule_and_parameter():
    assert set(PARAMETERS) == set(SCHEDULES)
    for name, strategies in PARAMETERS.items():
        assert set(strategies) <= set(parameters_of(name))


@untimed
@given(case=cases())
def test_range_endpoints_and_purity(case):
    name, num_epochs, params, times = case
    schedule = make_schedule(name, num_epochs, **params)
    values = {t: schedule(t) for t in [0, *times, num_epochs]}
    floor = params.get("min_factor", min(params.get("start_factor", 0), params.get("end_factor", 0)))
    assert all(floor - 1e-12 <= value <= 1 + 1e-12 for value in values.values())
    assert {t: schedule(t) for t in reversed(values)} == values  # the order of calls does not matter
    again = make_schedule(name, num_epochs, **params)
    assert {t: again(t) for t in values} == values
    if name not in ("cyclical", "one_cycle") and not (name == "late_decay" and params["start"] < 1e-9):
        assert values[0] == 1.0


@untimed
@given(case=cases(NEVER_RISES))
def test_decays_never_rise(case):
    name, num_epochs, params, times = case
    schedule = make_schedule(name, num_epochs, **params)
    values = [schedule(t) for t in times]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(values))


@untimed
@given(
    name=st.sampled_from(["polynomial", "cosine", "late_decay", "one_cycle", "cosine_restarts", "cyclical"]),
    num_epochs=st.integers(1, 300),
)
def test_schedules_with_an_end_reach_it_at_num_epochs(name, num_epochs):
    ends = {"one_cycle": "end_factor"}
    expected = parameters_of(name)[ends.get(name, "min_factor")]
    assert make_schedule(name, num_epochs)(num_epochs) == pytest.approx(expected, abs=1e-9)


@untimed
@given(case=cases(), steps=st.integers(1, 20), finer=st.integers(2, 7))
def test_more_updates_per_epoch_sample_the_same_curve(case, steps, finer):
    name, num_epochs, params, _ = case
    schedule = make_schedule(name, num_epochs, **params)
    num_updates = math.floor(num_epochs * steps)
    coarse = [schedule(update / steps) for update in range(min(num_updates, 50))]
    fine = [schedule(update * finer / (steps * finer)) for update in range(min(num_updates, 50))]
    assert coarse == fine


@untimed
@given(case=cases(), warmup=st.floats(0.01, 0.9), start_factor=factors)
def test_warmup_rises_on_a_line_and_then_shifts_the_schedule(case, warmup, start_factor):
    name, num_epochs, params, _ = case
    warmup_epochs = warmup * num_epochs
    remaining = num_epochs - warmup_epochs
    params = {k: v * remaining / num_epochs if k in LENGTHS_IN_EPOCHS else v for k, v in params.items()}
    plain = make_schedule(name, remaining, **params)
    warm = make_schedule(
        name, num_epochs, warmup_epochs=warmup_epochs, warmup_start_factor=start_factor, **params
    )
    assert warm(0) == pytest.approx(start_factor * plain(0), abs=1e-12)
    assert warm(warmup_epochs / 2) == pytest.approx((1 + start_factor) / 2 * plain(0), abs=1e-9)
    assert warm(warmup_epochs) == plain(0)
    assert warm(num_epochs) == plain(remaining)


@untimed
@given(case=cases())
def test_epoch_granularity_holds_the_rate_within_an_epoch(case):
    name, num_epochs, params, times = case
    by_step = make_schedule(name, num_epochs, **params)
    by_epoch = make_schedule(name, num_epochs, granularity="epoch", **params)
    for t in times:
        if t % 1 < 1 - 1e-6:  # within rounding of the next epoch either is right
            assert by_epoch(t) == by_step(math.floor(t))


def test_epoch_granularity_counts_an_epoch_that_rounding_made_late():
    schedule = make_schedule("exponential", 3, granularity="epoch", decay_rate=1.0)
    late = sum([0.1] * 10) * 2  # 1.9999999999999998
    assert late < 2
    assert schedule(late) == pytest.approx(math.exp(-2))


# --- What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("t", [-0.001, 10.001, math.nan, math.inf])
def test_no_value_outside_the_training(name, t):
    with pytest.raises(StudyError, match="0 <= t <= 10"):
        make_schedule(name, 10)(t)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_rounding_past_the_end_is_forgiven(name):
    schedule = make_schedule(name, 10)
    assert schedule(10 + 1e-9) == schedule(10)


REFUSED = [
    ("step", {"gamma": 0}, "gamma is 0; allowed: 0 < gamma <= 1"),
    ("step", {"gamma": 1.5}, "gamma is 1.5; allowed: 0 < gamma <= 1"),
    ("step", {"gamma": -0.1}, "0 < gamma <= 1"),
    ("step", {"gamma": None}, "gamma is None, not a finite number"),
    ("step", {"gamma": True}, "gamma is True, not a finite number"),
    ("step", {"gamma": "0.1"}, "gamma is '0.1', not a finite number"),
    ("step", {"step_size": 0}, "step_size is 0; allowed: 0 < step_size <= num_epochs = 10"),
    ("step", {"step_size": 11}, "0 < step_size <= num_epochs = 10"),
    ("step", {"size": 3}, "'size' is not a parameter of it; choose one of gamma, step_size"),
    ("step", {"step_siz": 3}, "Did you mean 'step_size'?"),
    ("multistep", {"milestones": [5, 3]}, "rising"),
    ("multistep", {"milestones": [3, 3]}, "rising"),
    ("multistep", {"milestones": [3, 12]}, "0 < each of milestones < num_epochs"),
    ("multistep", {"milestones": [0, 3]}, "0 < each of milestones < num_epochs"),
    ("multistep", {"milestones": []}, "a list of numbers"),
    ("multistep", {"milestones": 5}, "a list of numbers"),
    ("multistep", {"milestones": "5"}, "a list of numbers"),
    ("multistep", {"milestones": [math.nan]}, "a list of numbers"),
    ("exponential", {"decay_rate": -0.1}, "0 <= decay_rate"),
    ("exponential", {"decay_rate": math.nan}, "decay_rate is nan, not a finite number"),
    ("exponential", {"decay_rate": math.inf}, "decay_rate is inf, not a finite number"),
    ("inverse_time", {"decay_rate": -1}, "0 <= decay_rate"),
    ("inverse_sqrt", {"timescale": 0}, "0 < timescale"),
    ("polynomial", {"power": -1}, "power is -1; allowed: 0 < power"),
    ("polynomial", {"power": 0}, "0 < power"),
    ("polynomial", {"min_factor": 1.1}, "0 <= min_factor <= 1"),
    ("cosine", {"min_factor": -0.1}, "0 <= min_factor <= 1"),
    ("cosine_restarts", {"period": 11}, "period is 11; allowed: 0 < period <= num_epochs = 10"),
    ("cosine_restarts", {"period": 0}, "0 < period"),
    ("cosine_restarts", {"period_mult": 0.5}, "1 <= period_mult"),
    ("cyclical", {"period": 20}, "0 < period <= num_epochs = 10"),
    ("cyclical", {"window": "hamming"}, "choose one of hann, triangular, welch"),
    ("cyclical", {"decay": "half"}, "choose one of exponential, halve, none"),
    ("cyclical", {"window": ["hann"]}, "choose one of hann, triangular, welch"),
    ("cyclical", {"decay_rate": 0.1}, "set decay: exponential, or leave decay_rate out"),
    ("one_cycle", {"peak_at": 0}, "0 < peak_at < 1"),
    ("one_cycle", {"peak_at": 1}, "0 < peak_at < 1"),
    ("late_decay", {"start": 1.0}, "start is 1.0; allowed: 0 <= start < 1 (when the decay begins, share"),
    ("late_decay", {"start": 8}, "0 <= start < 1"),
    ("late_decay", {"shape": "exponential", "min_factor": 0}, "0 < min_factor <= 1"),
]


@pytest.mark.parametrize(
    ("name", "params", "says"),
    REFUSED,
    ids=lambda value: str(value) if not isinstance(value, str) else value[:20],
)
def test_illegal_parameters_are_refused_with_what_is_allowed(name, params, says):
    with pytest.raises(StudyError) as error:
        make_schedule(name, 10, **params)
    assert says in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_epochs", [0, -1, math.nan, math.inf, None, "10", True])
def test_illegal_lengths_are_refused(num_epochs):
    with pytest.raises(StudyError, match=r"num_epochs is .*; allowed: a number above 0"):
        make_schedule("cosine", num_epochs)


@pytest.mark.parametrize("warmup_epochs", [10, 11, -1, math.nan, "1", None])
def test_warmup_must_leave_something_of_the_training(warmup_epochs):
    with pytest.raises(StudyError, match="0 <= warmup_epochs < num_epochs = 10"):
        make_schedule("cosine", 10, warmup_epochs=warmup_epochs)


def test_other_mistakes_are_refused():
    with pytest.raises(StudyError, match=r"'expo' is not a schedule; choose one of cosine,.*'exponential'"):
        make_schedule("expo", 10)
    with pytest.raises(StudyError, match="granularity: 'batch' is not known; choose one of epoch, step"):
        make_schedule("cosine", 10, granularity="batch")
    with pytest.raises(StudyError, match="start_factor is 2; allowed: 0 <= start_factor <= 1"):
        make_schedule("cosine", 10, warmup_epochs=1, warmup_start_factor=2)
    with pytest.raises(StudyError, match="num_epochs = 8 without warmup"):
        make_schedule("cyclical", 10, warmup_epochs=2, period=9)
    with pytest.raises(StudyError, match="give at least one"):
        sequence()
    with pytest.raises(StudyError, match="give at least one"):
        product()


# --- Defaults and composition -----------------------------------------------------------------------------


@untimed
@given(name=st.sampled_from(sorted(SCHEDULES)), num_epochs=st.integers(1, 300) | st.floats(0.1, 300))
def test_defaults_are_legal_at_every_length_and_resolve_to_what_runs(name, num_epochs):
    resolved = resolve_parameters(name, num_epochs)
    assert set(resolved) == set(parameters_of(name))
    implicit, explicit = make_schedule(name, num_epochs), make_schedule(name, num_epochs, **resolved)
    times = [num_epochs * i / 10 for i in range(11)]
    assert [implicit(t) for t in times] == [explicit(t) for t in times]


def test_resolved_parameters_are_concrete():
    assert resolve_parameters("step", 10) == {"gamma": 0.1, "step_size": 3}
    assert resolve_parameters("step", 20)["step_size"] == 7
    assert resolve_parameters("multistep", 200)["milestones"] == [100, 150]
    assert resolve_parameters("cosine_restarts", 9)["period"] == 3
    assert resolve_parameters("cyclical", 10)["period"] == 5
    assert resolve_parameters("cyclical", 10, decay="exponential")["decay_rate"] == 0.1
    with pytest.raises(StudyError):
        resolve_parameters("step", 10, gamma=3)


def test_sequence_gives_each_part_its_own_clock():
    joined = sequence((make_schedule("cosine", 4), 4), (make_schedule("exponential", 6, decay_rate=1), 6))
    assert [joined(t) for t in (0, 2, 4, 5, 10)] == pytest.approx([1, 0.5, 1, E(-1), E(-6)], abs=1e-12)
    with pytest.raises(StudyError, match="0 <= t <= 10"):
        joined(10.1)


def test_sequence_of_many_parts_survives_rounding_at_its_boundaries():
    parts = [(make_schedule("step", 0.1, gamma=0.5, step_size=0.1), 0.1)] * 10
    joined = sequence(*parts)
    assert [joined(i / 10) for i in range(10)] == [1.0] * 10  # each part starts afresh


def test_warmup_is_a_sequence_of_a_line_and_the_schedule():
    cosine = make_schedule("cosine", 8)
    by_hand = sequence((lambda t: 0.25 + 0.75 * t / 2, 2), (cosine, 8))
    warm = with_warmup(cosine, 2, start_factor=0.25)
    for t in (0, 0.5, 1.9, 2, 5, 10):
        assert warm(t) == pytest.approx(by_hand(t), rel=1e-12)


def test_warmup_ends_where_rounding_puts_its_end():
    warm = with_warmup(make_schedule("step", 9, step_size=3), 1)
    assert sum([0.1] * 10) < 1
    assert warm(sum([0.1] * 10)) == 1.0


def test_product_multiplies_point_by_point():
    both = product(make_schedule("cosine", 10), make_schedule("exponential", 10, decay_rate=0.2))
    assert both(5) == pytest.approx(0.5 * E(-1))


# --- The rows in conf/schedule ----------------------------------------------------------------------------

ROWS = sorted((Path(__file__).parent.parent / "conf" / "schedule").glob("*.yaml"))
ROW_KEYS = {"function", "warmup_epochs", "granularity", "search", "controller"}


def load_row(path):
    row = yaml.safe_load(path.read_text())
    return row.get("function", path.stem), row, {key: row[key] for key in row if key not in ROW_KEYS}


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
class TestRows:
    def test_states_its_package_and_every_parameter_with_a_comment(self, path):
        lines = path.read_text().splitlines()
        assert lines[0] == f"# @package schedule.{path.stem}"
        function, _, parameters = load_row(path)
        assert set(parameters) == set(parameters_of(function))
        for key in [*parameters, "warmup_epochs", "granularity"]:
            at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
            assert lines[at - 1].startswith("# ")
            assert lines[at - 1] not in lines[: at - 1]

    def test_is_the_functions_default_where_it_bears_its_name(self, path):
        function, row, parameters = load_row(path)
        if function == path.stem:
            assert parameters == parameters_of(function)
            assert row["warmup_epochs"] == 0

    @pytest.mark.parametrize("num_epochs", [1, 2, 3, 10, 20, 100])
    def test_is_legal_with_its_whole_search_space_at_every_length(self, path, num_epochs):
        function, row, parameters = load_row(path)
        settings = {"warmup_epochs": row["warmup_epochs"], "granularity": row["granularity"]}
        make_schedule(function, num_epochs, **settings, **parameters)
        assert set(row["search"]) <= set(parameters)
        for key, where in row["search"].items():
            if "choices" in where:
                assert set(where) == {"choices"}
                values = where["choices"]
                assert len(values) >= 2
            else:
                assert set(where) <= {"low", "high", "log", "int"}
                values = [num_epochs if v == "num_epochs" else v for v in (where["low"], where["high"])]
                # a training of one epoch leaves no choice of a length between one epoch and its own
                assert values[0] < values[1] or (num_epochs == 1 and values[0] == values[1])
                if where.get("log"):
                    assert values[0] > 0
                if where.get("int"):
                    assert all(isinstance(value, int) for value in values)
            for value in values:
                make_schedule(function, num_epochs, **settings, **{**parameters, key: value})


def test_every_schedule_is_a_row():
    assert set(SCHEDULES) <= {path.stem for path in ROWS}


# --- In other people's loops ------------------------------------------------------------------------------


def test_importing_schedules_imports_neither_torch_nor_numpy():
    code = (
        "import sys, lrstudy.schedules as s; s.make_schedule('cosine', 10, warmup_epochs=1)(3);"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'yaml'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def linear_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))


def train(model, optimizer, scheduler, num_updates, first=0):
    """A plain loop; returns the rate of each parameter group at every update."""
    rates = []
    for update in range(first, first + num_updates):
        generator = torch.Generator().manual_seed(update)
        x = torch.randn(8, 4, generator=generator)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def groups(model):
    return [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.01}]


def test_plain_loop_sets_each_groups_rate_before_each_update():
    model = linear_model()
    optimizer = torch.optim.SGD(groups(model), momentum=0.9)
    schedule = make_schedule("cosine", 3, warmup_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = as_torch_scheduler(optimizer, schedule, steps_per_epoch=4)
        rates = train(model, optimizer, scheduler, 12)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert rates == [[0.1 * schedule(k / 4), 0.01 * schedule(k / 4)] for k in range(12)]
    assert scheduler.get_last_lr() == [0.0, 0.0]  # the rate at the very end, which no update uses
    with pytest.raises(StudyError, match=r"t = 3\.25"):
        scheduler.step()


@pytest.mark.parametrize("optimizer_first", [True, False], ids=["optimizer-first", "scheduler-first"])
def test_resume_is_exact_whatever_is_loaded_first(optimizer_first):
    def start():
        model = linear_model()
        optimizer = torch.optim.Adam(groups(model))
        return model, optimizer, make_schedule("cosine_restarts", 5, warmup_epochs=1, period=1.5)

    model, optimizer, schedule = start()
    scheduler = as_torch_scheduler(optimizer, schedule, 3)
    train(model, optimizer, scheduler, 7)
    file = io.BytesIO()
    states = [model.state_dict(), optimizer.state_dict(), scheduler.state_dict()]
    torch.save(states, file)
    file.seek(0)
    whole = train(model, optimizer, scheduler, 8, first=7)

    model_state, optimizer_state, scheduler_state = torch.load(file, weights_only=True)
    resumed, optimizer2, schedule2 = start()
    resumed.load_state_dict(model_state)
    if optimizer_first:
        optimizer2.load_state_dict(optimizer_state)
    scheduler2 = as_torch_scheduler(optimizer2, schedule2, 3)
    scheduler2.load_state_dict(scheduler_state)
    if not optimizer_first:
        optimizer2.load_state_dict(optimizer_state)
    assert train(resumed, optimizer2, scheduler2, 8, first=7) == whole
    for ours, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_resume_by_last_epoch_as_torchs_own_schedulers_do():
    model = linear_model()
    optimizer = torch.optim.SGD(groups(model))
    schedule = make_schedule("exponential", 4)
    train(model, optimizer, as_torch_scheduler(optimizer, schedule, 2), 5)
    scheduler = as_torch_scheduler(optimizer, schedule, 2, last_epoch=4)
    assert scheduler.get_last_lr() == [0.1 * schedule(2.5), 0.01 * schedule(2.5)]


def test_a_state_of_another_number_of_updates_per_epoch_is_refused():
    def scheduler(steps_per_epoch):
        optimizer = torch.optim.SGD(linear_model().parameters(), lr=0.1)
        return as_torch_scheduler(optimizer, make_schedule("cosine", 3), steps_per_epoch)

    with pytest.raises(StudyError, match="saved with steps_per_epoch 4, this scheduler has 8"):
        scheduler(8).load_state_dict(scheduler(4).state_dict())


@pytest.mark.parametrize("steps_per_epoch", [0, -1, 2.5, True, None])
def test_updates_per_epoch_must_be_a_positive_whole_number(steps_per_epoch):
    optimizer = torch.optim.SGD(linear_model().parameters(), lr=0.1)
    with pytest.raises(StudyError, match=r"steps_per_epoch is .*; allowed: a whole number"):
        as_torch_scheduler(optimizer, make_schedule("cosine", 3), steps_per_epoch)


def test_gradient_accumulation_counts_updates_not_batches():
    model = linear_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    num_batches, accumulate = 10, 4
    updates_per_epoch = math.ceil(num_batches / accumulate)
    schedule = make_schedule("polynomial", 2, power=1)
    scheduler = as_torch_scheduler(optimizer, schedule, updates_per_epoch)
    rates = []
    for _ in range(2):
        for batch in range(num_batches):
            (model(torch.ones(2, 4)).mean() / accumulate).backward()
            if (batch + 1) % accumulate == 0 or batch + 1 == num_batches:
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
    assert rates == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_tensor_rate_stays_the_same_tensor():
    """Capturable and compiled optimizers hold their rate in a tensor that must be updated in place."""
    optimizer = torch.optim.Adam(linear_model().parameters(), lr=torch.tensor(0.1))
    tensor = optimizer.param_groups[0]["lr"]
    scheduler = as_torch_scheduler(optimizer, make_schedule("cosine", 2), 2)
    optimizer.step()
    scheduler.step()
    scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    assert optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == pytest.approx(0.1 * make_schedule("cosine", 2)(0.5))


def test_lightnings_configure_optimizers_contract():
    """The calls that Lightning makes on ``{"scheduler": ..., "interval": "step"}``, in its order.

    It takes the optimizer from the scheduler and requires it to be one of those returned, steps after every
    update without arguments, reads ``get_last_lr`` through param_groups for its monitor, and puts state_dict
    of both into the checkpoint, which it restores onto freshly configured ones.
    """

    def configure_optimizers(model):
        optimizer = torch.optim.AdamW(groups(model))
        scheduler = as_torch_scheduler(optimizer, make_schedule("one_cycle", 2), steps_per_epoch=5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def fit(model, configured, first, num_updates):
        config = {"interval": "epoch", "frequency": 1, **configured["lr_scheduler"]}
        assert config["interval"] == "step"
        assert isinstance(config["scheduler"], torch.optim.lr_scheduler.LRScheduler)
        assert config["scheduler"].optimizer is configured["optimizer"]
        return train(model, configured["optimizer"], config["scheduler"], num_updates, first)

    model = linear_model()
    whole = fit(model, configure_optimizers(model), 0, 10)

    model = linear_model()
    configured = configure_optimizers(model)
    before = fit(model, configured, 0, 4)
    checkpoint = copy.deepcopy(
        {
            "state_dict": model.state_dict(),
            "optimizer_states": [configured["optimizer"].state_dict()],
            "lr_schedulers": [configured["lr_scheduler"]["scheduler"].state_dict()],
        }
    )
    model = linear_model()
    configured = configure_optimizers(model)
    model.load_state_dict(checkpoint["state_dict"])
    configured["optimizer"].load_state_dict(checkpoint["optimizer_states"][0])
    configured["lr_scheduler"]["scheduler"].load_state_dict(checkpoint["lr_schedulers"][0])
    assert before + fit(model, configured, 4, 6) == whole


@untimed
@given(case=cases(), steps_per_epoch=st.integers(1, 5))
def test_torch_scheduler_follows_every_schedule(case, steps_per_epoch):
    name, _, params, _ = case
    if LENGTHS_IN_EPOCHS & set(params):
        params = {}
    schedule = make_schedule(name, 4, **params)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = as_torch_scheduler(optimizer, schedule, steps_per_epoch)
    for update in range(4 * steps_per_epoch):
        assert optimizer.param_groups[0]["lr"] == 0.3 * schedule(update / steps_per_epoch)
        optimizer.step()
        scheduler.step()
