"""Controllers: torch's plateau counting event for event, formulas worked by hand, exact resuming."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrstudy.controllers import CONTROLLERS, make_controller
from lrstudy.errors import StudyError
from lrstudy.recipe.optimizers import make_optimizer
from lrstudy.schedules import make_schedule

CONF = Path(__file__).parents[1] / "conf" / "controller"
DOCS = Path(__file__).parents[1] / "docs" / "controllers.md"

untimed = settings(deadline=None)  # a loaded machine must not fail a test

losses = st.floats(0.0, 10.0, allow_subnormal=False)
maybe_diverged = st.one_of(losses, st.sampled_from([math.nan, math.inf]))


def tell(controller, epoch, train_loss=1.0, validation_loss=1.0, gradient_norm=1.0) -> float:
    controller.after_epoch(
        epoch=epoch, train_loss=train_loss, validation_loss=validation_loss, gradient_norm=gradient_norm
    )
    return controller.factor


# --- validation_monitor ---------------------------------------------------------------------------------


@st.composite
def monitor_params(draw):
    return {
        "factor": draw(st.sampled_from([0.1, 0.5, 0.9])),
        "patience": draw(st.integers(0, 4)),
        "threshold": draw(st.sampled_from([0.0, 1e-4, 0.1, 0.5])),
        "threshold_mode": draw(st.sampled_from(["rel", "abs"])),
        "cooldown": draw(st.integers(0, 3)),
        "min_factor": draw(st.sampled_from([0.0, 0.05, 0.3, 1.0])),
    }


def plateau(params, mode="min"):
    """torch's own monitor on a rate of 1, so that its rate is what our factor must be."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    options = {name: value for name, value in params.items() if name != "min_factor"}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, min_lr=params["min_factor"], eps=0.0, **options
    )
    return optimizer, scheduler


@untimed
@given(monitor_params(), st.lists(maybe_diverged, min_size=1, max_size=40))
@example({"factor": 0.5, "patience": 0, "threshold": 0.0, "threshold_mode": "rel", "cooldown": 2,
          "min_factor": 0.0}, [1.0] * 12)  # fmt: skip
def test_monitor_of_the_loss_equals_torch_event_for_event(params, sequence):
    optimizer, scheduler = plateau(params)
    controller = make_controller("validation_monitor", **params)
    events, expected_events = [], []
    for epoch, loss in enumerate(sequence, start=1):
        rate_before, factor_before = optimizer.param_groups[0]["lr"], controller.factor
        scheduler.step(loss)
        tell(controller, epoch, validation_loss=loss)
        assert controller.factor == optimizer.param_groups[0]["lr"]
        assert controller.num_bad_epochs == scheduler.num_bad_epochs
        assert controller.cooldown_left == scheduler.cooldown_counter
        if optimizer.param_groups[0]["lr"] != rate_before:
            expected_events.append((epoch, rate_before, optimizer.param_groups[0]["lr"]))
        if controller.factor != factor_before:
            events.append(epoch)
    records = [(r["epoch"], r["factor_before"], r["factor_after"]) for r in controller.interventions]
    assert records == expected_events
    assert [epoch for epoch, _, _ in records] == events


@untimed
@given(monitor_params(), st.lists(st.tuples(losses, st.floats(0.001, 5.0)), min_size=1, max_size=40))
def test_monitor_of_an_open_gap_equals_torch_on_the_gap(params, sequence):
    optimizer, scheduler = plateau(params)
    controller = make_controller("validation_monitor", watch="gap", **params)
    for epoch, (train_loss, gap) in enumerate(sequence, start=1):
        validation_loss = train_loss + gap
        scheduler.step(validation_loss - train_loss)
        tell(controller, epoch, train_loss=train_loss, validation_loss=validation_loss)
        assert controller.factor == optimizer.param_groups[0]["lr"]


@untimed
@given(monitor_params(), st.lists(st.tuples(losses, losses), max_size=30))
def test_a_model_that_does_not_overfit_is_left_alone_by_the_gap_monitor(params, pairs):
    controller = make_controller("validation_monitor", watch="gap", **params)
    for epoch, pair in enumerate(pairs, start=1):
        assert tell(controller, epoch, train_loss=max(pair), validation_loss=min(pair)) == 1.0
    assert controller.interventions == []


def test_gap_monitor_by_hand():
    """Validation below training first; from epoch 3 on the gap is open and only grows."""
    controller = make_controller("validation_monitor", watch="gap", factor=0.5, patience=1)
    train = [2.0, 1.5, 1.2, 1.0, 0.8, 0.6]
    validation = [1.8, 1.4, 1.3, 1.3, 1.4, 1.5]
    factors = [tell(controller, e + 1, train[e], validation[e]) for e in range(6)]
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert [record["epoch"] for record in controller.interventions] == [4, 6]
    assert (
        controller.interventions[0]["reason"] == "validation gap 0.3 after 2 epochs without improvement on 0"
    )


def test_monitor_floor_and_cooldown_by_hand():
    controller = make_controller(
        "validation_monitor", factor=0.1, patience=0, cooldown=1, min_factor=0.05, threshold=0.0
    )
    # epoch 1 is the best; bad epochs act at 2, 4 and 6, the epochs between are cooldown
    assert [tell(controller, epoch) for epoch in range(1, 8)] == [1.0, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    assert [(r["factor_before"], r["factor_after"]) for r in controller.interventions] == [
        (1.0, 0.1),
        (0.1, 0.05),
    ]


HIGHER = ("accuracy", "f1", "f1_macro", "train_accuracy", "+bleu")
LOWER = ("train_loss", "-perplexity")


@untimed
@given(
    monitor_params(),
    st.sampled_from(HIGHER + LOWER),
    st.lists(st.one_of(losses, st.just(math.nan)), min_size=1, max_size=40),
)
def test_monitor_of_any_metric_equals_torch_in_its_mode(params, watch, sequence):
    optimizer, scheduler = plateau(params, "max" if watch in HIGHER else "min")
    controller = make_controller("validation_monitor", watch=watch, **params)
    (metric,) = controller.watches
    for epoch, value in enumerate(sequence, start=1):
        scheduler.step(value)
        controller.after_epoch(epoch=epoch, **{metric: value})
        assert controller.factor == optimizer.param_groups[0]["lr"]
        assert controller.num_bad_epochs == scheduler.num_bad_epochs


def test_a_worse_negative_value_is_no_improvement():
    """torch's bar of a negative best, best * (1 - threshold), lies above it: -0.95 passes -1 as an improvement."""
    controller = make_controller("validation_monitor", patience=0, threshold=0.1)
    assert [tell(controller, epoch, validation_loss=loss) for epoch, loss in enumerate([-1, -0.95, -0.91], 1)] == [
        1.0, 0.5, 0.25,
    ]  # fmt: skip
    assert controller.best == -1


@untimed
@given(monitor_params(), st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=1, max_size=30))
def test_watching_a_metric_upwards_is_watching_its_negative_downwards(params, sequence):
    up, down = (make_controller("validation_monitor", watch=watch, **params) for watch in ("+m", "-m"))
    for epoch, value in enumerate(sequence, start=1):
        up.after_epoch(epoch=epoch, m=value)
        down.after_epoch(epoch=epoch, m=-value)
        assert up.factor == down.factor
        assert up.best == -down.best


@untimed
@given(monitor_params(), st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=1, max_size=30))
def test_what_the_monitor_calls_an_improvement_is_one(params, sequence):
    """By the docstring's formula, at whatever sign: the best falls by threshold * abs(best), or by threshold."""
    controller = make_controller("validation_monitor", **params)
    best = None
    for epoch, loss in enumerate(sequence, start=1):
        tell(controller, epoch, validation_loss=loss)
        if controller.best != best:
            assert best is None or loss < best
            if best is not None:
                least = params["threshold"] * (abs(best) if params["threshold_mode"] == "rel" else 1)
                assert best - loss >= least * (1 - 1e-9) - 1e-12
            best = loss
        else:
            least = params["threshold"] * (abs(best) if params["threshold_mode"] == "rel" else 1)
            assert loss >= best - least - 1e-12


def test_of_a_best_of_zero_no_share_is_left():
    controller = make_controller("validation_monitor", patience=0, threshold=0.5)
    assert [tell(controller, epoch, validation_loss=loss) for epoch, loss in enumerate([0, 0, -1e-9, 0], 1)] == [
        1.0, 0.5, 0.5, 0.25,
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [1.0, 2.0])
def test_the_first_value_is_an_improvement_whatever_the_threshold(threshold):
    controller = make_controller("validation_monitor", patience=0, threshold=threshold)
    assert tell(controller, 1, validation_loss=1.0) == 1.0
    assert controller.best == 1.0


def test_a_metric_that_is_watched_must_be_told():
    controller = make_controller("validation_monitor", watch="+bleu")
    assert controller.watches == ("bleu",)
    controller.after_epoch(epoch=1, bleu=0.3)  # and nothing else
    with pytest.raises(
        StudyError,
        match=r"^controller validation_monitor: after_epoch was told validation_loss; it watches bleu, so give bleu=",
    ):
        controller.after_epoch(epoch=2, validation_loss=1.0)
    with pytest.raises(StudyError, match="was told no metric; it watches train_loss"):
        make_controller("validation_monitor", watch="gap").after_epoch(epoch=1)
    make_controller("none").after_epoch(epoch=1)
    make_controller("gradient_modulated").after_epoch(epoch=1, gradient_norm=1.0)
    with pytest.raises(StudyError, match="it watches validation_loss"):
        make_controller("gradient_modulated", gap_strength=1.0).after_epoch(
            epoch=1, gradient_norm=1.0, train_loss=1.0
        )


@pytest.mark.parametrize("watch", ["accuracy", "+bleu", "train_loss"])
def test_the_reason_names_the_metric(watch):
    controller = make_controller("validation_monitor", watch=watch, patience=0)
    for epoch, value in enumerate([0.5, 0.5], start=1):
        controller.after_epoch(epoch=epoch, **{controller.watches[0]: value})
    said = {"accuracy": "validation accuracy", "+bleu": "bleu", "train_loss": "training loss"}[watch]
    assert controller.interventions[0]["reason"] == (f"{said} 0.5 after 1 epochs without improvement on 0.5")


# --- greedy ---------------------------------------------------------------------------------------------


@st.composite
def greedy_params(draw):
    return {
        "factor": draw(st.sampled_from([0.1, 0.5, 0.95])),
        "patience": draw(st.integers(0, 3)),
        "threshold": draw(st.sampled_from([0.0, 1e-6, 0.1])),
        "threshold_mode": draw(st.sampled_from(["rel", "abs"])),
        "cooldown": draw(st.integers(0, 3)),
        "warmup": draw(st.integers(0, 3)),
        "min_factor": draw(st.sampled_from([0.05, 0.3, 1.0])),
        "max_factor": draw(st.sampled_from([1.0, 2.0, 100.0])),
    }


@untimed
@given(
    greedy_params(),
    st.integers(1, 3),
    st.sampled_from(["-m", "+m"]),
    st.lists(st.integers(1, 64).map(lambda eighths: eighths / 8), min_size=1, max_size=40),
)
def test_greedy_equals_that_of_transformers_event_for_event(params, window, watch, sequence):
    """On eighths, so that a running sum and a sum are the same number."""
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    if not hasattr(optimization, "GreedyLR"):
        pytest.skip("transformers has GreedyLR from version 5 on")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    options = {name: value for name, value in params.items() if name not in ("min_factor", "max_factor")}
    scheduler = optimization.GreedyLR(
        optimizer, mode="max" if watch == "+m" else "min", eps=0.0, min_lr=params["min_factor"],
        max_lr=params["max_factor"], smooth=True, window_size=window, reset_start=10**9, **options,
    )  # fmt: skip
    controller = make_controller("greedy", watch=watch, window=window, **params)
    for epoch, value in enumerate(sequence, start=1):
        scheduler.step(value)
        controller.after_epoch(epoch=epoch, m=value)
        assert controller.factor == optimizer.param_groups[0]["lr"]


def test_greedy_by_hand():
    controller = make_controller("greedy", factor=0.5, patience=1, warmup=1, max_factor=2.0, min_factor=0.25)
    values = [4, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.25]
    # two epochs of improvement: twice the rate; epoch 3 doesn't count; from epoch 5 on nothing improves
    assert [tell(controller, epoch, validation_loss=value) for epoch, value in enumerate(values, 1)] == [
        1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.5,
    ]  # fmt: skip
    assert [(r["epoch"], r["factor_after"]) for r in controller.interventions] == [
        (2, 2.0), (6, 1.0), (8, 0.5), (10, 0.25), (14, 0.5),
    ]  # fmt: skip
    assert controller.interventions[0]["reason"] == "validation loss 3 after 2 epochs of improvement on 4"
    assert (
        controller.interventions[1]["reason"] == "validation loss 1 after 2 epochs without improvement on 1"
    )


@untimed
@given(greedy_params(), st.lists(maybe_diverged, max_size=40))
def test_greedy_stays_within_its_bounds_and_moves_by_its_factor(params, sequence):
    controller = make_controller("greedy", **params)
    before = 1.0
    for epoch, loss in enumerate(sequence, start=1):
        factor = tell(controller, epoch, validation_loss=loss)
        assert params["min_factor"] <= factor <= params["max_factor"]
        bounds = (params["min_factor"], params["max_factor"])
        assert factor in (before, before * params["factor"], before / params["factor"], *bounds)
        before = factor


# --- gradient_modulated ---------------------------------------------------------------------------------


def test_gradient_modulated_by_hand():
    controller = make_controller("gradient_modulated", gradient_strength=2.0, smoothing=0.5)
    assert tell(controller, 1, gradient_norm=4.0) == 1.0
    # running mean (4 + 8) / 2 = 6, half as much again as the first epoch: 1 / (1 + 2 * 0.5)
    assert tell(controller, 2, gradient_norm=8.0) == 0.5
    # (6 + 2) / 2 = 4, as in the first epoch: recovered
    assert tell(controller, 3, gradient_norm=2.0) == 1.0
    assert tell(controller, 4, gradient_norm=0.0) == 1.0
    assert [(r["epoch"], r["factor_before"], r["factor_after"]) for r in controller.interventions] == [
        (2, 1.0, 0.5),
        (3, 0.5, 1.0),
    ]
    assert controller.interventions[0]["reason"] == "gradient norm 1.5 times the first epoch's"


def test_gap_modulation_by_hand():
    controller = make_controller("gradient_modulated", gradient_strength=0.0, gap_strength=3.0)
    # training loss is a quarter below validation loss: 1 / (1 + 3 * 0.25), whatever the gradient does
    assert tell(controller, 1, 0.75, 1.0, gradient_norm=1.0) == pytest.approx(1 / 1.75, rel=1e-15)
    assert tell(controller, 2, 1.2, 1.0, gradient_norm=9.0) == 1.0
    assert "training loss 25.00% below validation loss" in controller.interventions[0]["reason"]


@untimed
@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0, 0.99),
    st.floats(0.001, 1),
    st.lists(st.tuples(losses, losses, st.one_of(st.floats(0, 1e6), st.sampled_from([math.inf, math.nan])))),
)
def test_gradient_modulation_stays_between_its_floor_and_one(
    gradient_strength, gap_strength, smoothing, floor, epochs
):
    controller = make_controller(
        "gradient_modulated",
        gradient_strength=gradient_strength,
        gap_strength=gap_strength,
        smoothing=smoothing,
        min_factor=floor,
    )
    for epoch, (train_loss, validation_loss, norm) in enumerate(epochs, start=1):
        assert floor <= tell(controller, epoch, train_loss, validation_loss, norm) <= 1


@untimed
@given(st.floats(0.1, 10), st.lists(st.floats(0.01, 1e4), min_size=1, max_size=20))
def test_gradient_modulation_bounds_norm_times_factor(strength, norms):
    """Without smoothing the mean is the epoch's own norm: the length of an SGD update at rate 1."""
    controller = make_controller(
        "gradient_modulated", gradient_strength=strength, smoothing=0.0, min_factor=1e-9
    )
    for epoch, norm in enumerate(norms, start=1):
        factor = tell(controller, epoch, gradient_norm=norm)
        assert norm * factor <= norms[0] * max(1, 1 / strength) * (1 + 1e-9)


def test_the_scale_of_the_gradient_does_not_matter():
    small, large = (make_controller("gradient_modulated") for _ in range(2))
    for epoch, norm in enumerate([1.0, 3.0, 2.0, 5.0], start=1):
        assert tell(small, epoch, gradient_norm=norm) == tell(large, epoch, gradient_norm=1024 * norm)


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_an_overflowing_norm_brakes_fully_and_is_then_forgotten(norm):
    controller = make_controller("gradient_modulated", min_factor=0.02)
    tell(controller, 1, gradient_norm=1.0)
    assert tell(controller, 2, gradient_norm=norm) == 0.02
    assert tell(controller, 3, gradient_norm=1.0) == 1.0


# --- sparsity -------------------------------------------------------------------------------------------


def test_sparsity_by_hand():
    controller = make_controller("sparsity", strength=2.0)
    assert controller.needs == {"zero_share"}
    factors = []
    for share in (0.0, 0.25, 1.0, 0.75):
        controller.before_step(zero_share=share)
        factors.append(controller.factor)
    assert factors == [1.0, 1.5, 3.0, 2.5]
    assert tell(controller, 1) == 2.0
    controller.before_step(zero_share=0.5)
    tell(controller, 2)
    controller.before_step(zero_share=0.0)
    tell(controller, 3)
    assert [(r["epoch"], r["factor_before"], r["factor_after"]) for r in controller.interventions] == [
        (1, 1.0, 2.0),
        (3, 2.0, 1.0),
    ]
    assert controller.interventions[0]["reason"] == "50.00% of the inputs are zero, mean over 4 updates"


@untimed
@given(st.floats(0, 10), st.floats(0, 1))
def test_sparsity_is_bounded(strength, share):
    controller = make_controller("sparsity", strength=strength)
    controller.before_step(zero_share=share)
    assert 1 <= controller.factor <= 1 + strength


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_outside_its_range_is_an_error(share):
    with pytest.raises(ValueError, match="a share lies in"):
        make_controller("sparsity").before_step(zero_share=share)


# --- loss_decay -----------------------------------------------------------------------------------------


def trained(optimizer_name, controller_name, dtype=torch.float64, schedule_name="cosine", **options):
    """Weights of a tiny classifier after 3 epochs of 4 updates, composed as in the study's loop."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 16, 5, generator=generator, dtype=dtype)
    labels = torch.randint(3, (4, 16), generator=generator)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).to(dtype)
    optimizer = make_optimizer(optimizer_name, model, 0.1, **options)
    schedule = make_schedule(schedule_name, 3, warmup_epochs=1)
    controller = make_controller(controller_name)
    for epoch in range(3):
        for index in range(4):
            multiplier = schedule(epoch + index / 4)
            lr = 0.1 * controller.factor * (1 if controller.scales_loss else multiplier)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = torch.nn.functional.cross_entropy(model(inputs[index]), labels[index])
            optimizer.zero_grad()
            (loss * multiplier if controller.scales_loss else loss).backward()
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "step", "polynomial"])
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_under_plain_sgd_decaying_the_loss_is_decaying_the_rate(schedule, dtype, precision):
    scaled_rate = trained("sgd", "none", dtype, schedule)
    scaled_loss = trained("sgd", "loss_decay", dtype, schedule)
    torch.testing.assert_close(scaled_loss, scaled_rate, rtol=0, atol=precision)
    assert (scaled_rate - trained("sgd", "none", dtype, "static")).norm() > 1e-3  # the schedule does act


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("adam", {}),
        ("adamw", {}),
        ("rmsprop", {}),
        ("momentum", {}),
        ("nesterov", {}),
        ("sgd", {"weight_decay": 0.1}),
    ],
)
def test_elsewhere_decaying_the_loss_is_something_else(optimizer, options):
    distance = (trained(optimizer, "loss_decay", **options) - trained(optimizer, "none", **options)).norm()
    assert distance > 1e-3


def test_adam_undoes_a_constant_scale_of_the_loss():
    """Adam's update doesn't depend on the gradient's scale, only on how it changes over time."""
    weights = []
    for scale in (1.0, 0.1):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = make_optimizer("adam", [weight], 0.05, eps=1e-16)
        for _ in range(10):
            optimizer.zero_grad()
            (scale * (weight**2).sum()).backward()
            optimizer.step()
        weights.append(weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=0)


# --- all of them ----------------------------------------------------------------------------------------

EXAMPLES = {
    "none": {},
    "validation_monitor": {"patience": 0, "cooldown": 1, "factor": 0.3},
    "gradient_modulated": {"gap_strength": 0.5, "smoothing": 0.7},
    "sparsity": {"strength": 0.5},
    "loss_decay": {},
    "greedy": {"window": 2, "patience": 1},
}


def observe(controller, epochs, first=1):
    """Feed epochs of (train loss, validation loss, norm, zero shares); all the factors a loop would use."""
    factors = []
    for epoch, (train_loss, validation_loss, norm, shares) in enumerate(epochs, start=first):
        for share in shares:
            if "zero_share" in controller.needs:
                controller.before_step(zero_share=share)
            factors.append(controller.factor)
        factors.append(tell(controller, epoch, train_loss, validation_loss, norm))
    return factors


seen_epochs = st.lists(
    st.tuples(losses, maybe_diverged, st.floats(0, 100), st.lists(st.floats(0, 1), max_size=3)), max_size=12
)


@pytest.mark.parametrize("name", CONTROLLERS)
@untimed
@given(before=seen_epochs, after=seen_epochs)
def test_state_goes_through_json_and_continues_exactly(name, before, after):
    unbroken = make_controller(name, **EXAMPLES.get(name, {}))
    observe(unbroken, before)
    saved = json.dumps(unbroken.state_dict(), allow_nan=False)
    expected = observe(unbroken, after, first=len(before) + 1)

    resumed = make_controller(name, **EXAMPLES.get(name, {}))
    resumed.load_state_dict(json.loads(saved))
    assert observe(resumed, after, first=len(before) + 1) == expected
    assert resumed.interventions == unbroken.interventions
    assert resumed.state_dict() == unbroken.state_dict()


def test_saved_state_does_not_change_as_training_goes_on():
    controller = make_controller("validation_monitor", patience=0)
    state = controller.state_dict()
    observe(controller, [(1.0, 1.0, 1.0, [])] * 5)
    assert controller.interventions
    assert state["interventions"] == []
    restored = make_controller("validation_monitor", patience=0)
    restored.load_state_dict(state)
    observe(restored, [(1.0, 1.0, 1.0, [])] * 5)
    assert state["interventions"] == []


def test_another_controllers_state_is_refused():
    state = make_controller("sparsity").state_dict()
    with pytest.raises(StudyError, match="controller none: found the saved state of 'sparsity'"):
        make_controller("none").load_state_dict(state)


def test_the_state_of_other_parameters_is_refused():
    state = make_controller("validation_monitor", patience=2).state_dict()
    other = make_controller("validation_monitor", patience=50, factor=0.1)
    with pytest.raises(
        StudyError,
        match=r"saved with factor 0\.5, patience 2, this controller has factor 0\.1, patience 50; make it",
    ):
        other.load_state_dict(state)
    assert other.state_dict() == make_controller("validation_monitor", patience=50, factor=0.1).state_dict()
    del state["parameters"]  # on purpose, and as in a state of version 0.2.0
    other.load_state_dict(state)


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize(
    "number", [np.float32, np.float64, torch.tensor], ids=["float32", "float64", "tensor"]
)
def test_whatever_library_numbers_are_of_the_state_is_plain(name, number):
    controller = make_controller(name)
    for epoch in range(1, 4):
        if controller.needs:
            controller.before_step(zero_share=number(0.25))
        controller.after_epoch(
            epoch=np.int64(epoch),
            train_loss=number(1.0),
            validation_loss=number(1.0 + epoch),
            gradient_norm=number(2.0 * epoch),
        )
    assert json.loads(json.dumps(controller.state_dict(), allow_nan=False)) == controller.state_dict()
    assert type(controller.factor) is float


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize(
    "schedule_name", ["static", "step", "exponential", "cosine", "cyclical", "one_cycle"]
)
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_joins_every_schedule_and_warmup(name, schedule_name, warmup_epochs):
    """The rate over the schedule's is the factor, which depends on what was seen and not on the schedule."""
    schedule = make_schedule(schedule_name, 8, warmup_epochs=warmup_epochs)
    epochs = [(2.0, 2.0, 1.0), (1.5, 2.1, 3.0), (1.2, 2.2, 2.0), (1.0, 1.9, 4.0)] * 2
    controller = make_controller(name, num_epochs=8, **EXAMPLES.get(name, {}))
    alone = make_controller(name, num_epochs=8, **EXAMPLES.get(name, {}))
    rates, multipliers, factors = [], [], []
    for epoch, (train_loss, validation_loss, norm) in enumerate(epochs):
        for each in (controller, alone):
            if "zero_share" in each.needs:
                each.before_step(zero_share=epoch / 10)
        factors.append(alone.factor)
        multipliers.append(schedule(epoch))
        rates.append(0.1 * multipliers[-1] * controller.factor)
        for each in (controller, alone):
            tell(each, epoch + 1, train_loss, validation_loss, norm)
    assert rates == [0.1 * m * f for m, f in zip(multipliers, factors, strict=True)]
    assert (set(factors) == {1.0}) == (name in ("none", "loss_decay"))
    assert controller.scales_loss == (name == "loss_decay")


def test_warmup_is_kept_when_the_monitor_acts_in_it():
    """What torch's SequentialLR can't do (pytorch #68978): the rate goes on rising, from a lower place."""
    schedule = make_schedule("static", 6, warmup_epochs=4)
    controller = make_controller("validation_monitor", patience=0, factor=0.5, cooldown=9)
    rates = []
    for epoch in range(6):
        rates.append(schedule(epoch) * controller.factor)
        tell(controller, epoch + 1, validation_loss=1.0)
    assert rates == [schedule(0), schedule(1), schedule(2) / 2, schedule(3) / 2, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "validation",
            {},
            r"controller: 'validation' is not a controller.*Did you mean 'validation_monitor'\?",
        ),
        ("none", {"patience": 1}, "controller none: 'patience' is not a parameter of it"),
        ("validation_monitor", {"patienc": 1}, r"Did you mean 'patience'\?"),
        (
            "validation_monitor",
            {"patience": 1.5},
            "patience is 1.5; allowed: 0 <= patience <= num_epochs = 10, a whole number",
        ),
        ("validation_monitor", {"patience": -1}, "patience is -1; allowed: 0 <= patience"),
        (
            "validation_monitor",
            {"patience": 11},
            "patience is 11; allowed: 0 <= patience <= num_epochs = 10, a whole number",
        ),
        ("validation_monitor", {"cooldown": True}, "cooldown is True"),
        ("validation_monitor", {"factor": 1.0}, "factor is 1.0; allowed: 0 < factor < 1"),
        ("validation_monitor", {"factor": 0.0}, "factor is 0.0; allowed: 0 < factor < 1"),
        ("validation_monitor", {"threshold": math.nan}, "threshold is nan"),
        ("validation_monitor", {"min_factor": 1.1}, "min_factor is 1.1; allowed: 0 <= min_factor <= 1"),
        (
            "validation_monitor",
            {"watch": "acc"},
            r"watch is 'acc'; allowed: one of loss, gap, accuracy, .*; any other metric as \+name \(higher is "
            r"better\) or -name \(lower is\)\. Did you mean 'accuracy'\?",
        ),
        ("validation_monitor", {"watch": "bleu"}, r"watch is 'bleu'; allowed: .* \+name"),
        ("validation_monitor", {"watch": ["loss"]}, r"watch is \['loss'\]; allowed"),
        ("greedy", {"max_factor": 0.5}, "max_factor is 0.5; allowed: 1 <= max_factor"),
        ("greedy", {"window": 0}, "window is 0; allowed: 1 <= window, a whole number"),
        ("validation_monitor", {"threshold_mode": "relative"}, "choose one of abs, rel"),
        ("gradient_modulated", {"gradient_strength": -1}, "gradient_strength is -1"),
        ("gradient_modulated", {"smoothing": 1.0}, "smoothing is 1.0; allowed: 0 <= smoothing < 1"),
        ("gradient_modulated", {"min_factor": 0}, "min_factor is 0; allowed: 0 < min_factor <= 1"),
        ("sparsity", {"strength": "much"}, "strength is 'much'"),
        ("sparsity", {"strength": math.inf}, "strength is inf"),
    ],
)
def test_mistakes_are_named(name, params, message):
    with pytest.raises(StudyError, match=message):
        make_controller(name, num_epochs=10, **params)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_conf_files_name_every_parameter_at_its_default(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# @package controller\n")
    section = yaml.safe_load(text)
    assert section.pop("name") == name
    assert section == {param: spec.default for param, spec in CONTROLLERS[name].parameters.items()}
    assert make_controller(name, **section).params == section
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), f"{name}: {line} has no comment"
    if CONTROLLERS[name].reconstruction:
        assert "# Our re" in text


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_documentation_has_every_parameter_as_it_is(name):
    section = DOCS.read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"<!-- made by make docs: controller {name} -->" in section or not CONTROLLERS[name].parameters
    assert ("reconstruction" in section or "our reading" in section.lower()) == bool(
        CONTROLLERS[name].reconstruction
    )


def test_there_is_one_conf_file_per_controller():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(CONTROLLERS)


def test_what_is_reconstructed_says_so():
    labelled = {name for name, controller in CONTROLLERS.items() if controller.reconstruction}
    assert labelled >= {"gradient_modulated", "sparsity", "loss_decay"}
    for name in labelled:
        assert "OUR" in CONTROLLERS[name].__doc__ or "RECONSTRUCTION" in CONTROLLERS[name].__doc__


def test_controllers_need_no_torch():
    code = "import sys, lrstudy.controllers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
