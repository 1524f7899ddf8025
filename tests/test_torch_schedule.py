"""The scheduler in other people's loops: groups, states, controllers and counts as users get them wrong."""

import io
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import Parameter

from lrstudy.controllers import CONTROLLERS, make_controller
from lrstudy.errors import StudyError
from lrstudy.schedules import (
    as_torch_scheduler,
    make_schedule,
    product,
    schedule_option,
    sequence,
    with_warmup,
)
from lrstudy.torch_schedule import layerwise_groups


def sgd(*rates: float, **options) -> torch.optim.SGD:
    return torch.optim.SGD(
        [{"params": [Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (1.0,)], **options
    )


def rates(optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def advance(optimizer, *schedulers, updates=1) -> list[list[float]]:
    """The rates of these updates."""
    seen = []
    for _ in range(updates):
        seen.append(rates(optimizer))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


# --- Parameter groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tensor", [False, True])
def test_a_group_that_is_added_later_has_its_own_base_rate(tensor):
    """Gradual unfreezing: pytorch issues 53712, 79888, 104361."""
    optimizer, schedule = sgd(0.1), make_schedule("cosine", 10)
    scheduler = as_torch_scheduler(optimizer, schedule, 10)
    advance(optimizer, scheduler, updates=50)
    rate = torch.tensor(0.01) if tensor else 0.01
    optimizer.add_param_group({"params": [Parameter(torch.zeros(1))], "lr": rate})
    advance(optimizer, scheduler)
    for update in range(51, 100):
        first, second = rates(optimizer)
        assert first == 0.1 * schedule(update / 10)
        assert float(second) == pytest.approx(0.01 * schedule(update / 10), rel=1e-6)
        assert scheduler.get_last_lr() == [first, second]
        advance(optimizer, scheduler)
    if tensor:
        assert optimizer.param_groups[1]["lr"] is rate  # the same one, filled


def test_a_state_with_an_added_group_resumes_where_the_group_is_there():
    optimizer, schedule = sgd(0.1), make_schedule("cosine", 10)
    scheduler = as_torch_scheduler(optimizer, schedule, 10)
    advance(optimizer, scheduler, updates=50)
    optimizer.add_param_group({"params": [Parameter(torch.zeros(1))], "lr": 0.01})
    state = scheduler.state_dict()  # before the next step
    again = sgd(0.1, 0.01)
    resumed = as_torch_scheduler(again, schedule, 10)
    resumed.load_state_dict(state)
    advance(optimizer, scheduler)
    advance(again, resumed)
    assert advance(again, resumed, updates=40) == advance(optimizer, scheduler, updates=40)


@pytest.mark.parametrize(("saved", "here"), [(2, 1), (1, 2)])
def test_a_state_of_another_number_of_groups_is_refused_before_anything_changes(saved, here):
    theirs, mine = sgd(*[0.3] * saved), sgd(*[0.1] * here)
    schedule = make_schedule("cosine", 10)
    donor, scheduler = as_torch_scheduler(theirs, schedule, 10), as_torch_scheduler(mine, schedule, 10)
    advance(theirs, donor, updates=30)
    before = scheduler.state_dict(), rates(mine)
    with pytest.raises(
        StudyError, match=f"the state has {saved} parameter groups, the optimizer {here}; make"
    ):
        scheduler.load_state_dict(donor.state_dict())
    assert (scheduler.state_dict(), rates(mine)) == before


# --- Which state is whose ---------------------------------------------------------------------------------


COSINE = make_schedule("cosine", 10)
OTHERS = {
    "length": make_schedule("cosine", 20),
    "name": make_schedule("step", 10),
    "parameter": make_schedule("cosine", 10, min_factor=0.1),
    "warmup": make_schedule("cosine", 10, warmup_epochs=1),
    "granularity": make_schedule("cosine", 10, granularity="epoch"),
    "composition": product(COSINE, COSINE),
    "function": math.cos,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_the_state_of_another_schedule_is_refused(other):
    """A cosine over 20 epochs took the state of one over 10 in silence, and the rate rose sevenfold."""
    optimizer, again = sgd(0.1), sgd(0.1)
    scheduler = as_torch_scheduler(optimizer, COSINE, 10)
    advance(optimizer, scheduler, updates=80)
    resumed = as_torch_scheduler(again, other, 10)
    before = resumed.state_dict(), rates(again)
    with pytest.raises(StudyError) as error:
        resumed.load_state_dict(scheduler.state_dict())
    assert "saved with the schedule make_schedule('cosine', 10, min_factor=0.0), this scheduler has" in str(
        error.value
    )
    assert (resumed.state_dict(), rates(again)) == before


def test_the_length_can_be_changed_on_purpose_in_mid_training():
    optimizer, again, longer = sgd(0.1), sgd(0.1), make_schedule("cosine", 20)
    scheduler = as_torch_scheduler(optimizer, COSINE, 10)
    advance(optimizer, scheduler, updates=80)
    resumed = as_torch_scheduler(again, longer, 10, replaces=COSINE)
    resumed.load_state_dict(scheduler.state_dict())
    assert rates(again) == [0.1 * longer(8)]
    advance(again, resumed, updates=5)
    # From here on its states are of the new schedule, and are taken as such.
    last = as_torch_scheduler(sgd(0.1), longer, 10)
    last.load_state_dict(resumed.state_dict())
    assert last.get_last_lr() == [0.1 * longer(8.5)]


def test_a_state_beyond_the_end_is_refused():
    optimizer = sgd(0.1)
    scheduler = as_torch_scheduler(optimizer, COSINE, 10)
    advance(optimizer, scheduler, updates=80)
    shorter = as_torch_scheduler(sgd(0.1), make_schedule("cosine", 5), 10, replaces=COSINE)
    before = shorter.state_dict()
    with pytest.raises(
        StudyError, match="no update 80: the schedule ends after 50, 5 epochs x steps_per_epoch 10"
    ):
        shorter.load_state_dict(scheduler.state_dict())
    assert shorter.state_dict() == before


def test_a_state_of_version_0_2_0_still_loads():
    """It did not have the schedule, nor a controller."""
    optimizer, again = sgd(0.1), sgd(0.1)
    scheduler = as_torch_scheduler(optimizer, COSINE, 10)
    advance(optimizer, scheduler, updates=30)
    old = {
        key: value for key, value in scheduler.state_dict().items() if key not in ("schedule", "controller")
    }
    as_torch_scheduler(again, COSINE, 10).load_state_dict(old)
    assert rates(again) == rates(optimizer)


def test_foreign_states_are_named_for_what_they_are():
    scheduler = as_torch_scheduler(sgd(0.1), COSINE, 10)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd(0.1), 10)
    for state, found in [
        ({}, "an empty state"),
        (cosine.state_dict(), "T_max"),
        (None, "None"),
        ([1], r"\[1\]"),
    ]:
        with pytest.raises(
            StudyError,
            match=rf"found .*{found}.*no state of a ScheduleLR; allowed: what its state_dict\(\) gave, with steps_per_",
        ):
            scheduler.load_state_dict(state)


@pytest.mark.parametrize(
    "schedule",
    [
        COSINE,
        with_warmup(COSINE, 2),
        sequence((COSINE, 4), (math.cos, 6)),
        product(COSINE, abs),
        lambda t: 0.5,
    ],
    ids=["one", "warmup", "sequence", "product", "lambda"],
)
def test_a_state_is_plain_values_and_loads_with_weights_only(schedule):
    optimizer = sgd(0.1)
    scheduler = as_torch_scheduler(
        optimizer,
        schedule,
        np.int64(10),
        last_epoch=np.int64(-1),
        controller=make_controller("validation_monitor"),
    )
    advance(optimizer, scheduler, updates=3)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert json.loads(json.dumps(state)) == state
    scheduler.load_state_dict(state)


# --- Counting updates -------------------------------------------------------------------------------------


def test_one_update_too_many_names_the_count_and_leaves_the_state_loadable():
    """25 batches, accumulated by 4, are 7 updates an epoch and not 25 // 4 = 6."""
    optimizer, schedule = sgd(0.1), make_schedule("cosine", 4)
    scheduler = as_torch_scheduler(optimizer, schedule, 25 // 4)
    advance(optimizer, scheduler, updates=24)
    before = scheduler.state_dict()
    optimizer.step()
    for _ in range(2):
        with pytest.raises(
            StudyError,
            match=r"^as_torch_scheduler: there is no update 25: the schedule ends after 24, 4 epochs x steps_per_epoch "
            r"6 \(t = 4\.16667 .*gradient accumulation math\.ceil\(len\(loader\) / accumulate\)",
        ):
            scheduler.step()
        assert scheduler.state_dict() == before
    again = sgd(0.1)
    as_torch_scheduler(again, schedule, 6).load_state_dict(scheduler.state_dict())
    assert rates(again) == rates(optimizer) == [0.0]


def test_what_a_schedule_of_ones_own_raises_leaves_the_state_as_it_was():
    def ends(t: float) -> float:
        if t >= 2:
            raise ZeroDivisionError
        return 1.0

    optimizer = sgd(0.1)
    scheduler = as_torch_scheduler(optimizer, ends, 2)
    advance(optimizer, scheduler, updates=3)
    before = scheduler.state_dict()
    with pytest.raises(ZeroDivisionError):
        scheduler.step()
    assert scheduler.state_dict() == before


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_whole_numbers_of_any_library_count(integer):
    optimizer = sgd(0.1)
    scheduler = as_torch_scheduler(optimizer, make_schedule("cosine", integer(10)), integer(5))
    advance(optimizer, scheduler, updates=7)
    assert rates(optimizer) == [0.1 * COSINE(7 / 5)]
    assert type(scheduler.state_dict()["steps_per_epoch"]) is int


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64])
def test_numbers_of_any_library_are_those_of_python(number):
    """float32's own arithmetic has seven digits."""
    for name, parameters in [
        ("step", {"step_size": 3}),
        ("multistep", {"milestones": [2, 5]}),
        ("cyclical", {"period": 4}),
    ]:
        ours = {
            key: [number(v) for v in value] if isinstance(value, list) else number(value)
            for key, value in parameters.items()
        }
        theirs = make_schedule(name, number(9), warmup_epochs=number(1), **ours)
        mine = make_schedule(name, 9, warmup_epochs=1, **parameters)
        assert [theirs(t) for t in np.linspace(0, 9, 40)] == [mine(t) for t in np.linspace(0, 9, 40).tolist()]
    warm = with_warmup(make_schedule("static", 7), number(3), start_factor=number(0))
    assert [warm(number(2)), warm(2)] == [2 / 3, 2 / 3]
    joined = sequence((math.cos, number(3)), (math.sin, number(2)))
    assert joined(number(4)) == math.sin(1)


@pytest.mark.parametrize("steps_per_epoch", [2.0, np.float64(2), np.bool_(True), "2"])
def test_what_is_no_whole_number_of_updates_is_refused(steps_per_epoch):
    with pytest.raises(
        StudyError, match=r"steps_per_epoch is .*; allowed: a whole number of optimizer updates, 1 or more"
    ):
        as_torch_scheduler(sgd(), COSINE, steps_per_epoch)


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(StudyError, match=r"as_torch_scheduler: found a list; give a torch\.optim\.Optimizer"):
        as_torch_scheduler([Parameter(torch.zeros(1))], COSINE, 1)


# --- Controllers ------------------------------------------------------------------------------------------


def test_a_controller_acts_from_the_next_update_on():
    """Multiplied into the schedule, its factor came one update late: 1 1 1 1 1 .5 .5 .25."""
    optimizer = sgd()
    controller = make_controller("validation_monitor", patience=0)
    scheduler = as_torch_scheduler(optimizer, make_schedule("static", 4), 2, controller=controller)
    seen = []
    for epoch in range(1, 5):
        seen += advance(optimizer, scheduler, updates=2)
        scheduler.after_epoch(epoch=epoch, validation_loss=1.0)
        assert scheduler.get_last_lr() == rates(optimizer)
    assert [one for (one,) in seen] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("name", CONTROLLERS)
def test_rates_are_those_of_the_documented_loop(name):
    """base_lr * schedule(t) * factor at each update, whatever the controller; the loss's scale where it has one."""
    schedule = make_schedule("cosine", 4, warmup_epochs=1)
    alone, controller = make_controller(name), make_controller(name)
    optimizer = sgd(0.3, 0.1)
    scheduler = as_torch_scheduler(optimizer, schedule, 3, controller=controller)
    for epoch in range(4):
        for step in range(3):
            multiplier = schedule(epoch + step / 3)
            if "zero_share" in alone.needs:
                alone.before_step(zero_share=step / 3)
                scheduler.before_step(zero_share=step / 3)
            scale = multiplier if alone.scales_loss else 1.0
            factor = (1.0 if alone.scales_loss else multiplier) * alone.factor
            assert rates(optimizer) == pytest.approx([0.3 * factor, 0.1 * factor], rel=1e-14)
            assert scheduler.loss_scale == pytest.approx(scale, rel=1e-14)
            advance(optimizer, scheduler)
        told = {"train_loss": 1.0, "validation_loss": 1.0 + epoch, "gradient_norm": 1.0 + epoch}
        alone.after_epoch(epoch=epoch + 1, **told)
        scheduler.after_epoch(epoch=epoch + 1, **told)


@pytest.mark.parametrize("optimizer_first", [True, False])
def test_a_controllers_state_is_part_of_the_schedulers(optimizer_first):
    schedule = make_schedule("cosine", 8)

    def start():
        optimizer = sgd(0.1, momentum=0.9)
        controller = make_controller("validation_monitor", patience=0)
        return optimizer, as_torch_scheduler(optimizer, schedule, 2, controller=controller)

    def go_on(optimizer, scheduler, epochs):
        seen = []
        for epoch in epochs:
            seen += advance(optimizer, scheduler, updates=2)
            scheduler.after_epoch(epoch=epoch, validation_loss=1.0)
        return seen

    optimizer, scheduler = start()
    go_on(optimizer, scheduler, [1, 2, 3])
    states = optimizer.state_dict(), scheduler.state_dict()
    states = json.loads(json.dumps(states[1])), states[0]
    whole = go_on(optimizer, scheduler, [4, 5, 6])
    optimizer, scheduler = start()
    if optimizer_first:
        optimizer.load_state_dict(states[1])
    scheduler.load_state_dict(states[0])
    if not optimizer_first:
        optimizer.load_state_dict(states[1])
    assert go_on(optimizer, scheduler, [4, 5, 6]) == whole
    assert len(scheduler.controller.interventions) == 5


def test_a_controller_that_is_told_past_the_scheduler_is_named():
    optimizer = sgd()
    controller = make_controller("validation_monitor", patience=0)
    scheduler = as_torch_scheduler(optimizer, COSINE, 1, controller=controller)
    advance(optimizer, scheduler)
    for epoch in (1, 2):
        controller.after_epoch(epoch=epoch, validation_loss=1.0)
    with pytest.raises(
        StudyError, match=r"validation_monitor changed its factor from 1 to 0\.5, .*after_epoch\(\)"
    ):
        scheduler.step()


def test_the_state_of_another_controller_is_refused_before_anything_changes():
    optimizer = sgd(0.1)
    donor = as_torch_scheduler(optimizer, COSINE, 1, controller=make_controller("sparsity"))
    advance(optimizer, donor, updates=3)
    mine = sgd(0.1)
    for controller in (make_controller("validation_monitor"), None):
        scheduler = as_torch_scheduler(mine, COSINE, 1, controller=controller)
        before = scheduler.state_dict(), rates(mine)
        with pytest.raises(StudyError, match="found the saved state of 'sparsity'"):
            scheduler.load_state_dict(donor.state_dict())
        assert (scheduler.state_dict(), rates(mine)) == before


# --- Other options ----------------------------------------------------------------------------------------


def test_weight_decay_follows_a_schedule_by_the_groups_own_values():
    optimizer = torch.optim.AdamW(
        [
            {"params": [Parameter(torch.ones(1))], "weight_decay": 0.1},
            {"params": [Parameter(torch.ones(1))], "weight_decay": 0.0},
        ]
    )
    schedule = make_schedule("cosine", 4)
    option = schedule_option(optimizer, "weight_decay", schedule, 3)
    for update in range(12):
        expected = [0.1 * schedule(update / 3), 0.0]
        assert (
            [group["weight_decay"] for group in optimizer.param_groups] == option.get_last_value() == expected
        )
        optimizer.step()
        option.step()


def test_decoupled_decay_shrinks_weights_as_the_schedule_says():
    """AdamW without a gradient multiplies by 1 - lr * weight_decay(t)."""
    weight = Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.2)
    schedule = make_schedule("polynomial", 3, power=1)
    option = schedule_option(optimizer, "weight_decay", schedule, 2)
    expected = 1.0
    for update in range(6):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        option.step()
        expected *= 1 - 0.5 * 0.2 * schedule(update / 2)
    assert weight.item() == pytest.approx(expected, rel=1e-14)


def test_momentum_cycles_against_the_rate_as_torchs_one_cycle_does():
    """From 0.95 to 0.85 and back on straight lines, as multipliers of 0.95; torch peaks an update before its end."""
    theirs = sgd(0.1, momentum=0.95)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        theirs,
        max_lr=0.1,
        total_steps=11,
        pct_start=0.5,
        anneal_strategy="linear",
        base_momentum=0.85,
        max_momentum=0.95,
    )

    def momentum(t: float) -> float:
        return (0.95 - 0.1 * min(t / 4.5, (10 - t) / 5.5)) / 0.95

    ours = sgd(0.1, momentum=0.95)
    option = schedule_option(ours, "momentum", momentum, 1)
    for update in range(11):
        assert ours.param_groups[0]["momentum"] == pytest.approx(
            theirs.param_groups[0]["momentum"], abs=1e-12
        )
        ours.step()
        theirs.step()
        if update < 10:
            option.step()
            one_cycle.step()


def test_beta1_is_scheduled_inside_of_betas():
    optimizer = torch.optim.Adam([Parameter(torch.zeros(1))], betas=(0.9, 0.99))
    option = schedule_option(optimizer, "beta1", lambda t: 1 - t / 10, 1)
    optimizer.step()
    option.step()
    assert optimizer.param_groups[0]["betas"] == (0.9 * 0.9, 0.99)
    assert option.get_last_value() == [0.9 * 0.9]


def test_an_option_resumes_exactly_and_knows_its_state():
    def start():
        optimizer = sgd(0.1, 0.1, weight_decay=0.1)
        return optimizer, schedule_option(optimizer, "weight_decay", COSINE, 2)

    optimizer, option = start()
    for _ in range(7):
        option.step()
    state = json.loads(json.dumps(option.state_dict()))
    again, resumed = start()
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(state)
    for _ in range(13):
        assert resumed.get_last_value() == option.get_last_value()
        resumed.step()
        option.step()
    before = option.state_dict()
    with pytest.raises(
        StudyError, match="schedule_option: there is no update 21: the schedule ends after 20"
    ):
        option.step()
    with pytest.raises(StudyError, match="state was saved with the schedule make_schedule"):
        schedule_option(sgd(1.0, 1.0), "weight_decay", make_schedule("cosine", 20), 2).load_state_dict(state)
    with pytest.raises(StudyError, match="the state is of 'weight_decay', and 'momentum' is scheduled here"):
        schedule_option(sgd(1.0, 1.0), "momentum", COSINE, 2).load_state_dict(state)
    with pytest.raises(StudyError, match="the state has 2 parameter groups, the optimizer 1"):
        schedule_option(sgd(1.0), "weight_decay", COSINE, 2).load_state_dict(state)
    with pytest.raises(StudyError, match="no state of a ScheduleOption"):
        option.load_state_dict({})
    assert option.state_dict() == before


def test_options_that_are_none_and_values_that_none_may_have_are_refused():
    with pytest.raises(
        StudyError,
        match=r"'weight_dcay' is not an option of SGD that is a number; .*Did you mean 'weight_decay'",
    ):
        schedule_option(sgd(), "weight_dcay", COSINE, 1)
    for option in ("lr", "nesterov", "params"):
        with pytest.raises(StudyError, match="is not an option of SGD that is a number"):
            schedule_option(sgd(), option, COSINE, 1)
    optimizer = sgd(momentum=0.9)
    option = schedule_option(optimizer, "momentum", lambda t: 1 + t / 10, 1)
    option.step()
    with pytest.raises(
        StudyError,
        match=r"momentum would be 1\.08 at update 2 \(t = 2 epochs elapsed, multiplier 1\.2\); allowed: 0 <= momentum < 1",
    ):
        option.step()
    assert option.last_epoch == 1
    assert optimizer.param_groups[0]["momentum"] == 0.9 * 1.1


# --- Rates by layer ---------------------------------------------------------------------------------------


def test_layers_have_rates_that_fall_towards_the_input_and_follow_the_schedule():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(layerwise_groups(model, 0.8, decay=0.5, bias_factor=4.0, weight_decay=0.01))
    # four children: the first has a half to the third power of the last one's rate
    assert rates(optimizer) == [0.1, 0.4, 1.6, 0.8, 3.2]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0, 0.0, 0.01, 0.0]
    assert sum(one.numel() for group in optimizer.param_groups for one in group["params"]) == sum(
        one.numel() for one in model.parameters()
    )
    base = rates(optimizer)
    scheduler = as_torch_scheduler(optimizer, COSINE, 1)
    advance(optimizer, scheduler, updates=5)
    assert rates(optimizer) == [one * COSINE(5) for one in base]


def test_a_shared_parameter_belongs_to_one_layer_and_a_frozen_one_to_none():
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    frozen = nn.Linear(3, 3).requires_grad_(False)
    (group,) = layerwise_groups([embedding, frozen, head], 1.0, decay=0.5)
    assert group["lr"] == 0.25
    assert group["params"] == [embedding.weight]


def test_what_would_be_left_out_or_has_no_rate_is_refused():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = nn.Linear(2, 2), Parameter(torch.ones(1))

    with pytest.raises(
        StudyError, match="layerwise_groups: Scaled has scale beside its children; give the layers as a"
    ):
        layerwise_groups(Scaled(), 0.1)
    with pytest.raises(StudyError, match="decay is 0; allowed: 0 < decay"):
        layerwise_groups(nn.Sequential(nn.Linear(1, 1)), 0.1, decay=0)


def test_messages_say_a_range_in_order():
    with pytest.raises(StudyError, match=r"0 < each of milestones < num_epochs = 10, rising\.$"):
        make_schedule("multistep", 10, milestones=[3, 12])
    with pytest.raises(StudyError, match=r"0 < each of drops < 1, rising\.$"):
        make_schedule("multistep", 10, drops=[0.3, 1.2])
    with pytest.raises(StudyError, match=r"0 <= patience <= num_epochs, a whole number \("):
        make_controller("validation_monitor", patience=-1)
