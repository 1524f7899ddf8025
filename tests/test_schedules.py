"""Schedules: exact values, parity with torch, what is refused, composition, conf rows, other loops."""

import copy
import io
import itertools
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from composed import conf_section
from lrstudy.errors import StudyError
from lrstudy.parity import PEERS, is_installed, parity_with, parity_with_torch
from lrstudy.schedules import (
    SCHEDULES,
    as_torch_scheduler,
    forms_of,
    make_schedule,
    moves,
    multiplier_range,
    parameters_of,
    product,
    replace_parameters,
    resolve_parameters,
    sequence,
    with_warmup,
)

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
    pytest.param("step", {}, 10, {4.9: 1, 5: 0.1, 7.4: 0.1, 7.5: 0.01, 9.9: 0.01, 10: 0.001}, id="step-default"),
    pytest.param("step", {}, 3, {1.4: 1, 1.5: 0.1, 2.2: 0.1, 2.25: 0.01, 2.9: 0.01}, id="step-default-of-3"),
    pytest.param("step", {"interval": 0.25}, 8, {1.9: 1, 2: 0.1, 4: 0.01, 6: 1e-3}, id="step-staircase"),
    pytest.param(
        "step", {"gamma": 0.5, "first_drop": 0.4, "interval": 0.1}, 20,
        {7.9: 1, 8: 0.5, 9.9: 0.5, 10: 0.25, 12: 0.125, 19: 0.5**6}, id="step-late-then-often",
    ),
    pytest.param("step", {"first_drop": 0.2}, 10, {1.9: 1, 2: 0.1, 5.9: 0.1, 6: 0.01}, id="step-first-drop"),
    pytest.param(
        "multistep", {"gamma": 0.1, "milestones": [100, 150]}, 200,
        {0: 1, 99.9: 1, 100: 0.1, 149.9: 0.1, 150: 0.01, 200: 0.01}, id="multistep-resnet",
    ),
    pytest.param("multistep", {"gamma": 0.2}, 8, {3.9: 1, 4: 0.2, 6: 0.04, 8: 0.04}, id="multistep-default"),
    pytest.param("exponential", {"decay_rate": 0.05}, 100, {0: 1, 20: E(-1), 100: E(-5)}, id="exponential"),
    pytest.param("exponential", {"final_factor": 0.01}, 4, {0: 1, 2: 0.1, 4: 0.01}, id="exponential-final"),
    pytest.param("exponential", {}, 20, {0: 1, 10: math.sqrt(0.05), 20: 0.05}, id="exponential-default"),
    pytest.param("exponential", {"decay_rate": 0}, 5, {0: 1, 5: 1}, id="exponential-no-decay"),
    pytest.param("inverse_time", {"decay_rate": 0.5}, 6, {0: 1, 1: 2 / 3, 2: 0.5, 6: 0.25}, id="inverse"),
    pytest.param(  # three times as slow at the end: decay_rate 3 / 6
        "inverse_time", {"final_factor": 0.25}, 6, {0: 1, 2: 0.5, 6: 0.25}, id="inverse-final",
    ),
    pytest.param("inverse_time", {}, 9, {0: 1, 1: 0.5, 4: 0.2, 9: 0.1}, id="inverse-default"),
    pytest.param("inverse_sqrt", {"start": 0.25}, 8, {0: 1, 2: 1, 4: SQRT_HALF, 8: 0.5}, id="sqrt-start"),
    pytest.param("inverse_sqrt", {}, 20, {1: 1, 4: 0.5, 16: 0.25, 20: math.sqrt(0.05)}, id="sqrt-default"),
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
    pytest.param(  # 1 + 2 + 4 sevenths
        "cosine_restarts", {"num_cycles": 3}, 14, {0: 1, 1: 0.5, 2: 1, 4: 0.5, 6: 1, 10: 0.5, 14: 0},
        id="restarts-three-growing",
    ),
    pytest.param(
        "cosine_restarts", {"num_cycles": 4, "period_mult": 1}, 8, {1: 0.5, 2: 1, 4: 1, 7: 0.5, 8: 0},
        id="restarts-four-equal",
    ),
    pytest.param("cosine_restarts", {"period": 10}, 10, {0: 1, 5: 0.5, 10: 0}, id="restarts-one-cycle"),
    pytest.param(
        "cyclical", {"period": 4, "min_factor": 0.2}, 8,
        {0: 0.2, 1: 0.6, 2: 1, 3: 0.6, 4: 0.2, 6: 1, 8: 0.2}, id="cyclical-triangular",
    ),
    pytest.param(
        "cyclical", {"num_cycles": 3, "min_factor": 0}, 12, {0: 0, 2: 1, 4: 0, 6: 1, 8: 0, 10: 1, 12: 0},
        id="cyclical-three",
    ),
    pytest.param(  # the height falls from 1 to 0.01 over the training: 0.1 in its middle
        "cyclical", {"num_cycles": 1, "min_factor": 0, "decay": "exponential", "final_height": 0.01}, 4,
        {1: 0.5 * 0.01**0.25, 2: 0.1, 4: 0}, id="cyclical-final-height",
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
    pytest.param(  # 1 - sqrt(1/4) and 1 - 1/4 of the way, between 1 and 0.2
        "late_decay", {"start": 0.5, "shape": "1-sqrt", "min_factor": 0.2}, 8, {4: 1, 5: 0.6, 8: 0.2},
        id="late_decay-1-sqrt",
    ),
    pytest.param(
        "late_decay", {"start": 0.5, "shape": "1-square", "min_factor": 0.2}, 8, {4: 1, 6: 0.8, 8: 0.2},
        id="late_decay-1-square",
    ),
    pytest.param("power_law", {"start": 0.25, "exponent": 2}, 8, {2: 1, 4: 0.25, 8: 1 / 16}, id="power_law"),
    pytest.param("power_law", {"timescale": 1, "exponent": 0.5}, 9, {0: 1, 4: 0.5, 9: 1 / 3}, id="power-sqrt"),
    pytest.param("rex", {}, 10, {0: 1, 5: 2 / 3, 8: 1 / 3, 10: 0}, id="rex"),
    pytest.param("rex", {"bend": 0, "min_factor": 0.2}, 10, {0: 1, 5: 0.6, 10: 0.2}, id="rex-line"),
    pytest.param(  # tanh crosses 0 where -6 + 9 s = 0
        "tanh", {}, 9, {0: (1 + math.tanh(6)) / 2, 6: 0.5, 9: (1 - math.tanh(3)) / 2}, id="tanh",
    ),
    pytest.param("tanh", {"lower": -2, "upper": 2, "min_factor": 0.2}, 8, {4: 0.6}, id="tanh-floor"),
    pytest.param(
        "one_cycle_cosine", {"peak_at": 0.25, "start_factor": 0.2, "end_factor": 0.1}, 8,
        {0: 0.2, 0.5: 1 - 0.8 * (1 + SQRT_HALF) / 2, 1: 0.6, 2: 1, 5: 0.55, 8: 0.1}, id="one_cycle_cosine",
    ),
    pytest.param(
        "piecewise", {"points": [[0, 0.5], [0.25, 1], [0.5, 0]]}, 8, {0: 0.5, 1: 0.75, 2: 1, 3: 0.5, 4: 0, 8: 0},
        id="piecewise-linear",
    ),
    pytest.param(
        "piecewise", {"points_in_epochs": [[0, 1], [4, 0.2]], "interpolation": "cosine"}, 8,
        {0: 1, 1: 0.2 + 0.8 * (1 + SQRT_HALF) / 2, 2: 0.6, 4: 0.2, 8: 0.2}, id="piecewise-cosine",
    ),
    pytest.param(
        "piecewise", {"points": [[0, 1], [1, 0.01]], "interpolation": "exponential"}, 4, {0: 1, 2: 0.1, 4: 0.01},
        id="piecewise-exponential",
    ),
    pytest.param(
        "piecewise", {"points": [[0, 1], [0.5, 0.1]], "interpolation": "constant"}, 4, {0: 1, 1.99: 1, 2: 0.1, 4: 0.1},
        id="piecewise-constant",
    ),
    pytest.param(  # each part has its own clock and its own length
        "phases",
        {"phases": [{"schedule": "static", "epochs": 2}, {"schedule": "cosine"},
                    {"schedule": "polynomial", "power": 1, "factor": 0.5, "share": 0.4}]}, 10,
        {0: 1, 1.99: 1, 2: 1, 4: 0.5, 6: 0.5, 8: 0.25, 10: 0}, id="phases",
    ),
    pytest.param(
        "phases", {}, 10, {0: 1, 5: 1, 6.5: 0.55, 8: 0.1, 10: 0.1}, id="phases-default",
    ),
    pytest.param(
        "product_of", {"schedules": [{"schedule": "exponential", "final_factor": 0.01}, {"schedule": "step"}]}, 4,
        {0: 1, 1: 10**-0.5, 2: 0.1 * 0.1, 4: 0.01 * 0.001}, id="product_of",
    ),
    pytest.param("restarts", {}, 8, {0: 1, 1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25, 6: 0.125, 8: 0}, id="restarts-shrink"),
    pytest.param(  # cycles of 2 and 4 epochs, of heights 1 and 0.6 above a floor of 0.2
        "restarts",
        {"cycle": {"schedule": "polynomial", "power": 1}, "num_cycles": 2, "period_mult": 2, "peak_mult": 0.6,
         "min_factor": 0.2}, 6, {0: 1, 1: 0.6, 2: 0.6, 4: 0.4, 6: 0.2}, id="restarts-of-a-line",
    ),
    pytest.param(  # begins with the descent
        "restarts",
        {"cycle": {"schedule": "piecewise", "points": [[0, 1], [0.5, 0], [1, 1]]}, "num_cycles": 2, "peak_mult": 1},
        8, {0: 1, 1: 0.5, 2: 0, 3: 0.5, 4: 1, 6: 0, 8: 1}, id="restarts-down-and-up",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "num_epochs", "expected"), VALUES)
def test_values(name, params, num_epochs, expected):
    schedule = make_schedule(name, num_epochs, **params)
    # What follows from a relative value has twelve digits.
    assert {t: schedule(t) for t in expected} == pytest.approx(expected, rel=1e-10, abs=1e-15)


def test_every_row_of_values_is_of_a_schedule():
    """Of those that were worked out by hand; a new one may come without."""
    assert {row.values[0] for row in VALUES} <= set(SCHEDULES)


PARITY = parity_with_torch()


@pytest.mark.parametrize("row", PARITY, ids=lambda row: f"{row.theirs}: {row.schedule}")
def test_parity_with_torch(row):
    assert row.difference < 1e-12


@pytest.mark.parametrize("peer", PEERS)
def test_parity_with_a_peer(peer):
    """Continuous integration installs the peers and says that none is skipped."""
    if not is_installed(peer) and os.environ.get("LRSTUDY_PEERS") != "required":
        pytest.skip(f"{peer} is not installed: pip install -r requirements-peers.txt")
    rows = parity_with(peer)
    assert len(rows) >= 4
    for row in rows:
        assert row.theirs.startswith(f"{peer} ")
        assert row.difference < 1e-12, row


def test_a_peer_that_is_not_installed_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"^timm is not installed; pip install -r requirements-peers\.txt"):
        parity_with("timm")


def test_peers_are_pinned_and_each_is_compared():
    lines = (Path(__file__).parent.parent / "requirements-peers.txt").read_text().splitlines()
    pinned = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    assert sorted(pinned) == sorted([*PEERS, "jax"])


def test_parity_covers_the_torch_schedulers_that_have_a_counterpart():
    assert {row.theirs for row in PARITY} >= {
        "StepLR", "MultiStepLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "OneCycleLR: momentum", "LinearLR", "SequentialLR",
    }  # fmt: skip
    assert sum(row.theirs == "CyclicLR" for row in PARITY) == 3


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
few = settings(untimed, max_examples=30)  # of each of more than twenty rows
factors = st.floats(0, 1)
rates = st.floats(0, 5)
shares = st.floats(0.01, 1)
PARAMETERS = {  # legal values; lengths in epochs are shares of num_epochs here
    "static": {},
    "step": {
        "gamma": st.floats(1e-3, 1),
        "first_drop": st.none() | shares,
        "interval": st.none() | shares,
        "step_size": st.none() | shares,
    },
    "multistep": {
        "gamma": st.floats(1e-3, 1),
        "drops": st.none()
        | st.lists(st.integers(1, 999), min_size=1, max_size=5, unique=True).map(
            lambda found: [one / 1000 for one in sorted(found)]
        ),
    },
    "exponential": {"final_factor": st.none() | st.floats(1e-6, 1), "decay_rate": st.none() | rates},
    "inverse_time": {"final_factor": st.none() | st.floats(1e-6, 1), "decay_rate": st.none() | rates},
    "inverse_sqrt": {"start": st.none() | shares, "timescale": st.none() | shares},
    "polynomial": {"power": st.floats(0.1, 6), "min_factor": factors},
    "cosine": {"min_factor": factors},
    "cosine_restarts": {
        "num_cycles": st.none() | st.floats(1, 6),
        "period": st.none() | shares,
        "period_mult": st.floats(1, 4),
        "min_factor": factors,
    },
    "cyclical": {
        "num_cycles": st.none() | st.floats(1, 30),
        "period": st.none() | shares,
        "min_factor": factors,
        "window": st.sampled_from(["triangular", "welch", "hann"]),
        "decay": st.sampled_from(["none", "halve", "exponential"]),
    },
    "one_cycle": {"peak_at": st.floats(0.01, 0.99), "start_factor": factors, "end_factor": factors},
    "late_decay": {
        "start": st.just(0.0) | st.floats(0.001, 0.99),  # a start within the tolerance of 0 is 0
        "shape": st.sampled_from(["linear", "cosine", "exponential", "step", "1-sqrt", "1-square"]),
        "min_factor": st.floats(1e-3, 1),
    },
    "power_law": {
        "start": st.none() | shares,
        "timescale": st.none() | shares,
        "exponent": st.floats(0.01, 4),
    },
    "rex": {"bend": st.floats(0, 0.99), "min_factor": factors},
    "one_cycle_cosine": {"peak_at": st.floats(0.01, 0.99), "start_factor": factors, "end_factor": factors},
    "restarts": {
        "cycle": st.sampled_from([{"schedule": "cosine"}, {"schedule": "rex"}, {"schedule": "step"}]),
        "num_cycles": st.none() | st.floats(1, 6),
        "period": st.none() | shares,
        "period_mult": st.floats(1, 4),
        "peak_mult": st.floats(0.01, 1),
        "min_factor": factors,
    },
}
NEVER_RISES = sorted(
    set(PARAMETERS) - {"cosine_restarts", "cyclical", "one_cycle", "one_cycle_cosine", "restarts"}
)
LENGTHS_IN_EPOCHS = {"step_size", "period", "timescale"}


EVERY_SCHEDULE = sorted(SCHEDULES)


@st.composite
def cases(draw, names=EVERY_SCHEDULE):
    """(name, num_epochs, legal parameters) and some times in [0, num_epochs]."""
    name = draw(st.sampled_from(names))
    num_epochs = draw(st.integers(1, 200) | st.floats(0.5, 200))
    params = {key: draw(value) for key, value in PARAMETERS.get(name, {}).items()}
    for in_epochs, relative in forms_of(name).items():  # of two forms one, or neither
        if params.get(in_epochs) is not None:
            params[relative] = None
    params = {key: v for key, v in params.items() if v is not None}
    params = {key: v * num_epochs if key in LENGTHS_IN_EPOCHS else v for key, v in params.items()}
    times = draw(st.lists(st.floats(0, num_epochs), min_size=1, max_size=8))
    return name, num_epochs, params, sorted(times)


def test_properties_name_schedules_and_their_parameters():
    """One that is not named here has them with its defaults."""
    assert set(PARAMETERS) <= set(SCHEDULES)
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
    rises = {"cyclical", "one_cycle", "one_cycle_cosine"} | (set(SCHEDULES) - set(PARAMETERS))
    if name not in rises and not (name == "late_decay" and params["start"] == 0):
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
    name=st.sampled_from(
        [
            "polynomial",
            "cosine",
            "late_decay",
            "rex",
            "one_cycle",
            "one_cycle_cosine",
            "cosine_restarts",
            "restarts",
            "cyclical",
        ]
    ),
    num_epochs=st.integers(1, 300),
)
def test_schedules_with_an_end_reach_it_at_num_epochs(name, num_epochs):
    ends = {"one_cycle": "end_factor", "one_cycle_cosine": "end_factor"}
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
    late = 2 * math.nextafter(1, 0)  # what adding 0.1 ten times gives, doubled: 1.9999999999999998
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
    (
        "step",
        {"size": 3},
        "'size' is not a parameter of it; choose one of first_drop, gamma, interval, step_size",
    ),
    (
        "step",
        {"first_drop": 0},
        "first_drop is 0; allowed: 0 < first_drop <= 1 (when the rate drops first, share",
    ),
    ("step", {"interval": 1.1}, "interval is 1.1; allowed: 0 < interval <= 1"),
    (
        "step",
        {"interval": 0.3, "step_size": 2},
        "interval is 0.3, but step_size is 2, which over 10 epochs is the interval 0.2; give one of them, the other null",
    ),
    ("multistep", {"drops": [0.5, 1]}, "0 < each of drops < 1, rising."),
    (
        "multistep",
        {"drops": [0.5], "milestones": [5, 7]},
        "drops is [0.5], but milestones is [5, 7], which over 10 epochs is the drops [0.5, 0.7]",
    ),
    (
        "exponential",
        {"final_factor": 0.05, "decay_rate": 0.3},
        "final_factor is 0.05, but decay_rate is 0.3, which over 10 epochs is the final_factor 0.0497870683679; give one",
    ),
    (
        "exponential",
        {"final_factor": 0},
        "final_factor is 0, which an exponential never reaches; allowed: 0 < final_factor <= 1",
    ),
    ("exponential", {"final_factor": 1.1}, "0 <= final_factor <= 1"),
    ("inverse_time", {"final_factor": 0}, "0 < final_factor <= 1"),
    (
        "inverse_time",
        {"final_factor": 0.5, "decay_rate": 1},
        "which over 10 epochs is the final_factor 0.0909090909091",
    ),
    ("inverse_sqrt", {"timescale": 11}, "0 < timescale <= num_epochs = 10"),
    ("inverse_sqrt", {"start": 0.1, "timescale": 2}, "which over 10 epochs is the start 0.2"),
    ("cosine_restarts", {"num_cycles": 0.5}, "1 <= num_cycles"),
    (
        "cosine_restarts",
        {"num_cycles": 2, "period": 5},
        "which over 10 epochs is the num_cycles 1.58496250072",
    ),  # log2(3)
    ("cosine_restarts", {"num_cycles": 10**6}, "period is 0.0; allowed: 0 < period"),
    ("cyclical", {"num_cycles": 3, "period": 5}, "which over 10 epochs is the num_cycles 2.0"),
    ("cyclical", {"final_height": 0.1}, "set decay: exponential, or leave final_height out"),
    (
        "cyclical",
        {"decay": "exponential", "final_height": 0},
        "final_height is 0, which an exponential never reaches",
    ),
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
    with pytest.raises(StudyError, match=r"'expo' is not a schedule; choose one of .*'exponential'"):
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
    assert moves(name, num_epochs, steps_per_epoch=math.ceil(100 / num_epochs)) == (name != "static")
    implicit, explicit = make_schedule(name, num_epochs), make_schedule(name, num_epochs, **resolved)
    times = [num_epochs * i / 10 for i in range(11)]
    assert [implicit(t) for t in times] == [explicit(t) for t in times]


# The usual terms, in epochs, of the relative ones: worked from the formulas.
FORMS = [
    ("step", 10, {}, {"gamma": 0.1, "first_drop": 0.5, "interval": 0.25, "step_size": 2.5}),
    ("step", 20, {"gamma": 0.3, "first_drop": 0.4}, {"gamma": 0.3, "first_drop": 0.4, "interval": 0.3, "step_size": 6.0}),
    ("step", 20, {"interval": 0.2}, {"gamma": 0.1, "first_drop": 0.2, "interval": 0.2, "step_size": 4.0}),
    ("step", 100, {"step_size": 10}, {"gamma": 0.1, "first_drop": 0.1, "interval": 0.1, "step_size": 10}),
    ("multistep", 200, {}, {"gamma": 0.1, "drops": [0.5, 0.75], "milestones": [100, 150]}),
    ("multistep", 20, {"milestones": [4, 16]}, {"gamma": 0.1, "drops": [0.2, 0.8], "milestones": [4, 16]}),
    ("exponential", 20, {}, {"final_factor": 0.05, "decay_rate": -math.log(0.05) / 20}),
    ("exponential", 10, {"decay_rate": 0.3}, {"final_factor": E(-3), "decay_rate": 0.3}),
    ("inverse_time", 3, {}, {"final_factor": 0.1, "decay_rate": 3}),
    ("inverse_time", 10, {"decay_rate": 0.1}, {"final_factor": 0.5, "decay_rate": 0.1}),
    ("inverse_sqrt", 20, {}, {"start": 0.05, "timescale": 1}),
    ("inverse_sqrt", 10, {"timescale": 2.5}, {"start": 0.25, "timescale": 2.5}),
    ("cosine_restarts", 9, {}, {"num_cycles": 2, "period": 3, "period_mult": 2, "min_factor": 0.0}),
    ("cosine_restarts", 15, {"period": 1}, {"num_cycles": 4, "period": 1, "period_mult": 2, "min_factor": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "num_epochs", "given", "expected"), FORMS)
def test_both_forms_of_a_parameter_follow_from_either(name, num_epochs, given, expected):
    resolved = resolve_parameters(name, num_epochs, **given)
    assert list(resolved) == list(expected)
    for key, value in expected.items():
        assert resolved[key] == pytest.approx(value, rel=1e-11)
    for key, value in given.items():
        assert resolved[key] == value  # to the last bit: it was given
    assert resolve_parameters(name, num_epochs, **resolved) == resolved


def test_the_forms_of_a_cycle_follow_from_either():
    assert resolve_parameters("cyclical", 10)["period"] == 5
    assert resolve_parameters("cyclical", 10, period=2.5)["num_cycles"] == 4
    heights = resolve_parameters("cyclical", 10, decay="exponential")
    assert heights["final_height"] == 0.1
    assert heights["decay_rate"] == pytest.approx(math.log(10) / 10, rel=1e-11)
    given = resolve_parameters("cyclical", 10, decay="exponential", decay_rate=0.2)
    assert given["final_height"] == pytest.approx(E(-2), rel=1e-11)
    assert resolve_parameters("cyclical", 10)["final_height"] is None


@untimed
@given(case=cases())
def test_resolving_what_is_resolved_changes_nothing(case):
    name, num_epochs, params, _ = case
    resolved = resolve_parameters(name, num_epochs, **params)
    assert resolve_parameters(name, num_epochs, **resolved) == resolved


@untimed
@given(case=cases(), longer=st.sampled_from([2, 3, 10, 100]))
def test_relative_parameters_give_the_same_curve_over_any_length(case, longer):
    name, num_epochs, params, times = case
    relative = {key: value for key, value in params.items() if key not in forms_of(name)}
    short, long = (make_schedule(name, n, **relative) for n in (num_epochs, longer * num_epochs))
    falls = {"step", "multistep", "late_decay"}  # which jump, and rounding moves a jump
    jumps = name in falls or (name == "cosine_restarts" and params.get("num_cycles") is not None)
    for t in times:
        if not jumps:
            assert long(longer * t) == pytest.approx(short(t), abs=1e-6)
    assert long(0) == short(0)


def test_a_contradiction_is_one_only_beyond_rounding():
    decay_rate = -math.log(0.05) / 10
    resolve_parameters("exponential", 10, final_factor=0.05, decay_rate=decay_rate * (1 + 1e-12))
    with pytest.raises(StudyError, match="give one of them"):
        resolve_parameters("exponential", 10, final_factor=0.05, decay_rate=decay_rate * (1 + 1e-6))
    # A rate so large that nothing is left, and one so small that nothing happens, survive their other form.
    for extreme in ({"decay_rate": 500.0}, {"decay_rate": 1e-15}, {"final_factor": 1.0}):
        resolved = resolve_parameters("exponential", 10, **extreme)
        assert resolve_parameters("exponential", 10, **resolved) == resolved
    with pytest.raises(StudyError, match="final_factor is 0, but decay_rate is 2"):
        resolve_parameters("exponential", 10, final_factor=0, decay_rate=2)


def test_a_value_replaces_the_other_form_of_itself():
    row = {"gamma": 0.5, "first_drop": None, "interval": None, "step_size": 2}
    assert replace_parameters("step", row, {"interval": 0.1}) == {
        "gamma": 0.5,
        "first_drop": None,
        "interval": 0.1,
    }
    assert replace_parameters("step", row, {"gamma": 0.1}) == row | {"gamma": 0.1}
    milestones = replace_parameters("multistep", {"drops": [0.5]}, {"milestones": [3]})
    assert milestones == {"milestones": [3]}


# --- What is dynamic ----------------------------------------------------------------------------------------

MOVES = [
    ("static", 10, {}, False),
    # The committed study's transformer-step: the first drop falls on the end of the training.
    ("step", 3, {"gamma": 0.13594476582572051, "step_size": 3}, False),
    ("step", 3, {"gamma": 0.13594476582572051, "step_size": 2}, True),
    ("step", 10, {"gamma": 1}, False),
    ("step", 10, {"gamma": 0.9}, True),  # a tenth
    ("step", 10, {"gamma": 0.96}, False),  # 0.96 ** 2 = 0.922
    ("step", 10, {"gamma": 0.97, "interval": 0.2}, True),  # 0.97 ** 4 = 0.885
    ("exponential", 10, {"final_factor": 0.88}, True),
    ("exponential", 10, {"final_factor": 0.91}, False),
    ("exponential", 3, {"decay_rate": 0.01}, False),
    ("inverse_time", 3, {"decay_rate": 0.01}, False),
    ("inverse_sqrt", 10, {"timescale": 10}, False),
    ("cosine", 10, {"min_factor": 0.95}, False),
    ("late_decay", 10, {"min_factor": 1}, False),
    ("cyclical", 10, {"min_factor": 1}, False),
    # The warmup is not what makes a schedule dynamic: the rates before its end do not count.
    ("static", 10, {"warmup_epochs": 5}, False),
    ("step", 10, {"warmup_epochs": 4, "step_size": 6}, False),
    ("step", 10, {"warmup_epochs": 4, "step_size": 5}, True),
    ("cosine", 3, {"warmup_epochs": 2.5}, True),
    # Rates that only change at the start of an epoch, of which there is one.
    ("cosine", 1, {}, True),
    ("cosine", 1, {"granularity": "epoch"}, False),
    ("cosine", 2, {"granularity": "epoch"}, True),
    ("cyclical", 4, {"granularity": "epoch", "period": 1}, False),  # always at the foot of a cycle
    ("cosine", 2, {"granularity": "epoch", "warmup_epochs": 1.5}, False),
    # Updates that are too few to see the end.
    ("late_decay", 1, {"steps_per_epoch": 100}, True),
    ("late_decay", 1, {"steps_per_epoch": 5}, False),  # the last one, at 0.8, still has the full rate
]  # fmt: skip


@pytest.mark.parametrize(("name", "num_epochs", "settings", "expected"), MOVES)
def test_a_schedule_is_dynamic_if_its_multiplier_moves_by_a_tenth(name, num_epochs, settings, expected):
    assert moves(name, num_epochs, **settings) == expected


@untimed
@given(case=cases(), granularity=st.sampled_from(["step", "epoch"]), warmup=st.sampled_from([0, 0.3]))
def test_moving_is_the_range_of_the_multipliers_of_the_updates(case, granularity, warmup):
    name, num_epochs, params, _ = case
    params = {key: value for key, value in params.items() if key not in forms_of(name)}
    settings = {"granularity": granularity, "warmup_epochs": warmup * num_epochs, **params}
    schedule = make_schedule(name, num_epochs, **settings)
    times = [update / 7 for update in range(math.ceil(7 * num_epochs - 1e-9))]
    looked_at = [math.floor(t) if granularity == "epoch" else t for t in times]
    found = [schedule(t) for t in looked_at if t >= warmup * num_epochs - 1e-9]
    expected = (min(found), max(found)) if found else None
    assert multiplier_range(name, num_epochs, steps_per_epoch=7, **settings) == expected
    does = bool(found) and max(found) > min(found) and max(found) - min(found) >= 0.1 * max(found) - 1e-9
    assert moves(name, num_epochs, steps_per_epoch=7, **settings) == does


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
    assert warm(math.nextafter(1, 0)) == 1.0


def test_product_multiplies_point_by_point():
    both = product(make_schedule("cosine", 10), make_schedule("exponential", 10, decay_rate=0.2))
    assert both(5) == pytest.approx(0.5 * E(-1))


# --- The rows in conf/schedule ----------------------------------------------------------------------------

ROWS = sorted((Path(__file__).parent.parent / "conf" / "schedule").glob("*.yaml"))
ROW_KEYS = {"defaults", "optimizer", "function", "warmup_epochs", "granularity", "search", "controller"}


def chain_of(path):
    """The row's file and those that it is based on."""
    based = yaml.safe_load(path.read_text()).get("defaults", [])
    [base] = [one.removesuffix("@_here_") for one in based if str(one).endswith("@_here_")] or [None]
    return [path, *(chain_of(path.with_stem(base)) if base else [])]


def load_row(path):
    row = conf_section("schedule", path.stem)
    return row.get("function", path.stem), row, {key: row[key] for key in row if key not in ROW_KEYS}


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
class TestRows:
    def test_states_its_package_and_every_parameter_with_a_comment_once(self, path):
        assert path.read_text().splitlines()[0] == f"# @package schedule.{path.stem}"
        function, _, parameters = load_row(path)
        assert set(parameters) == set(parameters_of(function))
        told = {}
        for base in chain_of(path):
            lines = base.read_text().splitlines()
            for before, line in itertools.pairwise(lines):
                if re.match(r"[a-z_]+:", line) and before.startswith("# ") and before != lines[1]:
                    told.setdefault(line.partition(":")[0], []).append(before)
        for key in [*parameters, "warmup_epochs", "granularity", "search"]:
            assert len(told[key]) == 1 or key == "start", key  # of late_decay_50 it says more
        comments = list(itertools.chain.from_iterable(told.values()))
        assert len(set(comments)) == len(comments)

    def test_repeats_nothing_of_what_it_is_based_on(self, path):
        own = yaml.safe_load(path.read_text())
        for base in chain_of(path)[1:]:
            known = yaml.safe_load(base.read_text())
            assert not [
                key
                for key in own
                if key not in ("defaults", "search") and key in known and own[key] == known[key]
            ]

    def test_is_the_functions_default_where_it_bears_its_name(self, path):
        function, row, parameters = load_row(path)
        if function == path.stem:
            assert parameters == parameters_of(function)
            assert row["warmup_epochs"] == 0

    @pytest.mark.parametrize("num_epochs", [1, 2, 3, 10, 20, 100, 200])
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
                values = [where["low"], where["high"]]  # numbers: nothing here depends on the length
                assert values[0] < values[1]
                if where.get("log"):
                    assert values[0] > 0
                if where.get("int"):
                    assert all(isinstance(value, int) for value in values)
            for value in values:
                make_schedule(function, num_epochs, **settings, **{**parameters, key: value})

    @pytest.mark.parametrize("num_epochs", [3, 10, 20, 200])
    def test_begins_and_ends_as_the_table_says(self, path, num_epochs):
        function, row, parameters = load_row(path)
        if path.stem not in FIRST_AND_LAST:
            pytest.skip("a new row may come without")
        first, last = FIRST_AND_LAST[path.stem]
        warmup = row["warmup_epochs"]
        schedule = make_schedule(function, num_epochs, warmup_epochs=warmup, **parameters)
        assert schedule(warmup) == pytest.approx(first, rel=1e-11)
        just_before = num_epochs * (1 - 1e-8)  # a drop at the very end comes after the last update
        assert schedule(just_before) == pytest.approx(last, rel=1e-6, abs=1e-7)

    @pytest.mark.parametrize("num_epochs", [3, 10, 20, 200])
    def test_moves_with_its_defaults_and_wherever_it_is_searched(self, path, num_epochs):
        function, row, parameters = load_row(path)
        settings = {"warmup_epochs": row["warmup_epochs"], "granularity": row["granularity"]}
        assert moves(function, num_epochs, **settings, **parameters) == (function != "static")
        ends = {
            key: where.get("choices") or [where["low"], where["high"]] for key, where in row["search"].items()
        }
        for corner in itertools.product(*ends.values()):
            values = replace_parameters(function, parameters, dict(zip(ends, corner, strict=True)))
            assert moves(function, num_epochs, **settings, **values) == (function != "static")

    @few
    @given(num_epochs=st.integers(1, 300), data=st.data())
    def test_moves_at_every_point_of_its_search_at_every_length(self, path, num_epochs, data):
        function, row, parameters = load_row(path)
        drawn = {}
        for key, where in row["search"].items():
            if "choices" in where:
                drawn[key] = data.draw(st.sampled_from(where["choices"]))
            else:
                between = st.integers if where.get("int") else st.floats
                drawn[key] = data.draw(between(where["low"], where["high"]))
        values = replace_parameters(function, parameters, drawn)
        settings = {"warmup_epochs": row["warmup_epochs"], "steps_per_epoch": math.ceil(200 / num_epochs)}
        assert moves(function, num_epochs, **settings, **values) == (function != "static")

    @pytest.mark.parametrize("num_epochs", [3, 10, 20, 200])
    def test_searches_around_its_defaults_in_relative_terms(self, path, num_epochs):
        function, row, parameters = load_row(path)
        defaults = resolve_parameters(function, num_epochs - row["warmup_epochs"], **parameters)
        assert not set(row["search"]) & set(forms_of(function))
        for key, where in row["search"].items():
            if "choices" in where:
                assert defaults[key] in where["choices"]
            else:
                assert where["low"] <= defaults[key] <= where["high"]
                assert defaults[key] == int(defaults[key]) or not where.get("int")

    @few
    @given(num_epochs=st.integers(1, 300))
    def test_resolves_and_moves_at_every_length(self, path, num_epochs):
        function, row, parameters = load_row(path)
        available = num_epochs - row["warmup_epochs"]
        resolved = resolve_parameters(function, available, **parameters)
        assert resolve_parameters(function, available, **resolved) == resolved
        settings = {"warmup_epochs": row["warmup_epochs"], "granularity": row["granularity"]}
        steps = {"steps_per_epoch": math.ceil(200 / num_epochs)}
        assert moves(function, num_epochs, **settings, **steps, **resolved) == (function != "static")


FIRST_AND_LAST = {  # the multiplier at the start, after any warmup, and at the last moment of the training
    "cosine": (1, 0),
    "cosine_restarts": (1, 0),
    "cosine_warmup": (1, 0),
    "cyclical": (0.1, 0.1),
    "exponential": (1, 0.05),
    "hann": (0.1, 0.1),
    "inverse_sqrt": (1, math.sqrt(0.05)),
    "inverse_time": (1, 0.1),
    "late_decay": (1, 0.01),
    "late_decay_50": (1, 0.01),
    "late_decay_70": (1, 0.01),
    "late_decay_90": (1, 0.01),
    "linear": (1, 0),
    "multistep": (1, 0.01),
    "one_cycle": (0.04, 4e-6),
    "one_cycle_cosine": (0.04, 4e-6),
    "phases": (1, 0.1),
    "piecewise": (0.1, 0.01),
    "polynomial": (1, 0),
    "power_law": (1, 0.1**0.51),
    "product_of": (1, 0),
    "restarts": (1, 0),
    "rex": (1, 0),
    "schedule_free": (1, 1),
    "static": (1, 1),
    "static_monitored": (1, 1),
    "step": (1, 0.01),
    "triangular": (0.1, 0.1),
    "welch": (0.1, 0.1),
}


def test_the_table_has_rows():
    assert set(FIRST_AND_LAST) <= {path.stem for path in ROWS}


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
