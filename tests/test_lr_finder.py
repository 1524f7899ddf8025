"""The range test leaves all as it was to the bit, and its rules say of known curves what their formulas say."""

import copy
import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lrstudy.errors import StudyError
from lrstudy.lr_finder import RULES, STOP_AT, RangeTest, find_lr, minimum, steepest, valley
from lrstudy.report.figures import range_test_figure
from lrstudy.schedules import as_torch_scheduler, make_schedule


def geometric(count: int, lowest: float = 1e-4, highest: float = 10.0) -> tuple[float, ...]:
    return tuple(np.geomspace(lowest, highest, count).tolist())


# --- The rules on curves that are known ---


@given(st.integers(20, 80), st.floats(0.5, 8))
def test_steepest_is_where_a_logistic_fall_is_steepest(centre, width):
    """d/dx of -1 / (1 + e^(-x)) is lowest at 0."""
    losses = [1 - 1 / (1 + math.exp(-(i - centre) / width)) for i in range(100)]
    rates = geometric(100)
    assert steepest(rates, losses) == rates[centre]


def test_steepest_does_not_look_beyond_the_lowest_loss():
    rates = geometric(8)
    losses = [5.0, 4.5, 3.0, 1.0, 9.0, 3.0, 8.0, 9.0]  # after a jump the loss falls by 6 in one update
    assert steepest(rates, losses) == rates[2]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_minimum_is_a_tenth_of_the_rate_with_the_lowest_loss(losses):
    rates = geometric(len(losses))
    assert minimum(rates, losses) == rates[int(np.argmin(losses))] / 10


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_valley_stands_in_the_middle_of_the_longest_falling_subsequence(losses):
    """By trying all subsequences; of several as long, that which ends first."""
    falling = [
        chosen
        for length in range(1, len(losses) + 1)
        for chosen in itertools.combinations(range(len(losses)), length)
        if all(losses[a] > losses[b] for a, b in itertools.pairwise(chosen))
    ]
    length = max(map(len, falling))
    end = min(chosen[-1] for chosen in falling if len(chosen) == length)
    rates = geometric(len(losses))
    assert valley(rates, losses) == rates[max(0, end - length + length // 3 + length // 3 // 2)]


@given(st.floats(0.01, 100), st.floats(-3, 3))
def test_rules_do_not_depend_on_the_losses_scale_and_level(scale, level):
    losses = [4.0 + 2 * math.cos(i / 12) + (i / 70) ** 8 for i in range(90)]
    rates = geometric(90)
    for rule in RULES.values():
        assert rule(rates, [scale * loss + level for loss in losses]) == rule(rates, losses)


@given(st.floats(-5, 5), st.floats(0.5, 6))
def test_averaging_keeps_a_constant_and_in_the_middle_a_line(level, deviation):
    flat = RangeTest(geometric(60), ((level,) * 60,), deviation).smoothed(0)
    assert flat == pytest.approx([level] * 60)
    line = RangeTest(geometric(60), (tuple(float(i) for i in range(60)),), deviation).smoothed(0)
    reach = math.ceil(3 * deviation)
    assert line[reach : 60 - reach] == pytest.approx(
        range(reach, 60 - reach)
    )  # no shift, as of a lagging mean


# --- Several runs ---


def logistic(centre: float, noise: float = 0.0, seed: int = 0) -> tuple[float, ...]:
    rng = np.random.default_rng(seed)
    fall = [1 - 1 / (1 + math.exp(-(i - centre) / 3)) for i in range(100)]
    return tuple(np.array(fall) + noise * rng.standard_normal(100))


def test_a_suggestion_is_the_median_over_the_runs_with_the_lowest_and_the_highest():
    rates, centres = geometric(100), (40, 44, 60)
    test = RangeTest(rates, tuple(logistic(centre) for centre in centres), smoothing=0.5)
    found = test.suggestions()["steepest"]
    assert found.runs == tuple(rates[centre] for centre in centres)
    assert (found.lr, found.low, found.high) == (rates[44], rates[40], rates[60])


@pytest.mark.parametrize("runs", [1, 2, 5, 9])
def test_the_range_of_the_runs_holds_the_median_unless_all_runs_are_on_one_side_of_it(runs):
    test = RangeTest(geometric(100), (logistic(40),) * runs)
    assert test.confidence == 1 - sum(math.comb(runs, k) for k in (0, runs)) / 2**runs


def test_a_run_of_noise_alone_suggests_nothing_and_is_told():
    rates = geometric(100)
    noise = tuple(tuple(np.random.default_rng(k).standard_normal(100) * 0.1 + 2) for k in range(3))
    test = RangeTest(rates, noise)
    assert all(one.lr is None for one in test.suggestions().values())
    assert test.notes()[0].startswith("in 3 of 3 runs the loss does not fall by more than its noise; ")
    # With two that fall beside one of noise the median is of those two.
    test = RangeTest(rates, (noise[0], logistic(40, 0.05), logistic(50, 0.05)))
    assert all(one.lr is not None and one.runs[0] is None for one in test.suggestions().values())


def test_a_loss_that_still_falls_at_the_highest_rate_is_told():
    test = RangeTest(geometric(100, highest=0.5), (logistic(90),))
    assert test.notes() == ["the loss still falls at the highest rate, 0.5; test higher ones"]


def test_noise_moves_a_single_run_more_than_the_median_of_seven():
    rates = geometric(100)

    def spread(runs: int) -> float:
        tests = [
            RangeTest(rates, tuple(logistic(50, 0.15, seed=100 * trial + k) for k in range(runs)))
            for trial in range(30)
        ]
        return float(np.std([math.log(test.suggestions()["steepest"].lr) for test in tests]))

    assert spread(7) < 0.7 * spread(1)


# --- On a problem that is solved by hand: f(w) = h w^2 / 2 by gradient descent ---


def parabola(curvature: float) -> tuple[nn.Module, torch.optim.Optimizer, object]:
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(model.weight, 3.0)

    def loss(model: nn.Module, batch: object) -> torch.Tensor:
        return curvature / 2 * model.weight.square().sum()

    return model, torch.optim.SGD(model.parameters(), lr=0.1), loss


@settings(max_examples=20)
@given(st.floats(0.1, 10))
def test_losses_are_those_of_gradient_descent_at_geometric_rates(curvature):
    """w becomes (1 - rate h) w, and the loss of an update is that before it."""
    model, optimizer, loss = parabola(curvature)
    test = find_lr(model, loss, [None], optimizer, lowest=1e-3, highest=1e3, num_updates=61, runs=1)
    assert test.rates == pytest.approx(geometric(61, 1e-3, 1e3))
    w, expected = 3.0, []
    for rate in test.rates[: len(test.losses[0])]:
        expected.append(curvature / 2 * w * w)
        w *= 1 - rate * curvature
    assert test.losses[0] == pytest.approx(expected)


@settings(max_examples=20)
@given(st.floats(0.1, 10))
def test_suggestions_are_below_the_rate_at_which_gradient_descent_diverges(curvature):
    model, optimizer, loss = parabola(curvature)
    test = find_lr(model, loss, [None], optimizer, lowest=1e-3, highest=1e3, runs=1)
    for one in test.suggestions().values():
        assert 0 < one.lr < 2 / curvature


@settings(max_examples=20)
@given(st.floats(0.1, 10))
def test_suggestions_are_inverse_to_the_curvature(curvature):
    """A steeper parabola over as much smaller rates is the same test."""
    found = []
    for h in (1.0, curvature):
        model, optimizer, loss = parabola(h)
        test = find_lr(model, loss, [None], optimizer, lowest=1e-3 / h, highest=1e2 / h, runs=1)
        found.append({name: h * one.lr for name, one in test.suggestions().items()})
    assert found[1] == pytest.approx(found[0])


@pytest.mark.parametrize("level", [0.0, -2.0])
def test_a_run_ends_where_the_loss_is_far_above_its_lowest_also_where_that_is_negative(level):
    model, optimizer, loss = parabola(1.0)
    test = find_lr(model, lambda m, b: loss(m, b) + level, [None], optimizer, lowest=0.1, highest=1e4, runs=1)
    assert len(test.losses[0]) < len(test.rates)
    recent = np.convolve(test.losses[0], np.ones(5) / 5, "valid")
    assert recent[-1] > recent.min() + (STOP_AT - 1) * abs(recent.min())
    assert all(np.isfinite(test.losses[0]))


# --- All is as it was ---


class Net(nn.Module):
    """Every kind of thing that training changes: weights, batch norm, dropout, a buffer that is replaced."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
        )
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + len(inputs)
        return self.layers(inputs)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adam with a tensor's rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


def begun(name: str, sampler: bool = False):
    torch.manual_seed(7)
    data = TensorDataset(torch.randn(40, 4), torch.arange(40) % 2)
    generator = torch.Generator().manual_seed(3)
    how = (
        {"sampler": RandomSampler(data, generator=generator)}
        if sampler
        else {"shuffle": True, "generator": generator}
    )
    loader = DataLoader(data, batch_size=8, **how)
    model = Net()
    optimizer = OPTIMIZERS[name](model.parameters())
    scheduler = as_torch_scheduler(optimizer, make_schedule("cosine", 4), steps_per_epoch=5)
    return model, optimizer, scheduler, loader


def cross_entropy(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    noise = 0.1 * random.random() + 0.1 * np.random.random()  # noqa: NPY002  the global generator is meant
    return nn.functional.cross_entropy(model(inputs + noise), labels)


def epoch(model, optimizer, scheduler, loader) -> list[float]:
    losses = []
    for batch in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model, batch)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


class Ended(Exception):
    pass


def ending(after: int | None, how: type[BaseException]):
    """The loss, which raises in its call number ``after``."""
    calls = itertools.count(1)

    def loss(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        if next(calls) == after:
            raise how
        return cross_entropy(model, batch)

    return loss


@pytest.mark.parametrize("sampler", [False, True])
@pytest.mark.parametrize(
    ("after", "how"),
    [(None, Ended), (1, Ended), (17, Ended), (17, KeyboardInterrupt), (33, KeyboardInterrupt)],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_goes_on_to_the_bit_as_if_there_had_been_no_test(name, after, how, sampler):
    def trained(tested: bool) -> tuple:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        model, optimizer, scheduler, loader = begun(name, sampler)
        losses = epoch(model, optimizer, scheduler, loader)
        kept = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
        kept += [value for state in optimizer.state.values() for value in state.values()]
        rate = optimizer.param_groups[0]["lr"]
        if tested:
            options = {"lowest": 1e-3, "num_updates": 15, "runs": 3}
            if after is None:
                find_lr(model, cross_entropy, loader, optimizer, **options)
            else:
                with pytest.raises(how):
                    find_lr(model, ending(after, how), loader, optimizer, **options)
        now = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
        now += [value for state in optimizer.state.values() for value in state.values()]
        assert all(one is other for one, other in zip(kept, now, strict=True))  # the same objects
        assert optimizer.param_groups[0]["lr"] is rate
        gradients = [p.grad.clone() for p in model.parameters()]
        losses += epoch(model, optimizer, scheduler, loader) + epoch(model, optimizer, scheduler, loader)
        return (
            losses,
            gradients,
            copy.deepcopy(model.state_dict()),
            model.seen,
            copy.deepcopy(optimizer.state_dict()),
        )

    (losses, *with_test), (expected, *without) = trained(True), trained(False)
    assert losses == expected
    torch.testing.assert_close(with_test, without, rtol=0, atol=0)


def test_a_fresh_optimizer_stays_fresh_and_a_scheduler_still_warns_of_a_wrong_order():
    model, optimizer, scheduler, loader = begun("adamw")
    find_lr(model, cross_entropy, loader, optimizer, num_updates=10, runs=1)
    assert not optimizer.state
    assert all(p.grad is None for p in model.parameters())
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)"):
        scheduler.step()


def test_modes_are_as_they_were_and_parts_in_evaluation_mode_stay_so():
    model, optimizer, _, loader = begun("sgd")
    model.layers[1].eval()  # frozen statistics
    before = model.layers[1].running_mean.clone()
    seen = []

    def loss(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        seen.append((model.training, model.layers[1].training, model.layers[1].running_mean.equal(before)))
        return cross_entropy(model, batch)

    find_lr(model, loss, loader, optimizer, num_updates=10, runs=1)
    assert set(seen) == {(True, False, True)}
    model.eval()
    find_lr(model, cross_entropy, loader, optimizer, num_updates=10, runs=1)
    assert not any(part.training for part in model.modules())


def test_run_k_is_the_run_of_seed_k():
    model, optimizer, _, loader = begun("adamw")

    def loss(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    options = {"lowest": 1e-3, "highest": 1.0, "num_updates": 20}
    three = find_lr(model, loss, loader, optimizer, runs=3, seed=4, **options)
    assert find_lr(model, loss, loader, optimizer, runs=2, seed=5, **options).losses == three.losses[1:]
    assert three.losses[0] != three.losses[1]


def test_groups_keep_their_ratios_and_the_highest_has_the_rate():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD([{"params": [model.weight], "lr": 0.01}, {"params": [model.bias], "lr": 0.1}])
    seen = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append([group["lr"] for group in optimizer.param_groups])
        return model(batch).square().mean()

    test = find_lr(model, loss, [torch.randn(8, 4)], optimizer, highest=1e-2, num_updates=10, runs=1)
    assert [one[1] for one in seen] == pytest.approx(test.rates)
    assert [one[0] for one in seen] == pytest.approx([rate / 10 for rate in test.rates])
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]


def test_clipping_bounds_each_step():
    model, optimizer, loss = parabola(1.0)
    test = find_lr(
        model, loss, [None], optimizer, lowest=0.1, highest=1.0, runs=1, num_updates=10, gradient_clip=0.5
    )
    w = np.sqrt(2 * np.array(test.losses[0]))
    assert -np.diff(w) == pytest.approx(0.5 * np.array(test.rates[:-1]), rel=1e-4)


# --- Mistakes ---


def broken(value: object):
    return lambda model, batch: value


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lowest": 0.0}, "find_lr: lowest is 0.0; allowed: 0 < lowest (rate"),
        ({"highest": math.inf}, "find_lr: highest is inf, not a finite number; allowed: 0 < highest (rate"),
        ({"lowest": 1.0, "highest": 0.1}, "find_lr: lowest is 1 and highest 0.1; allowed: lowest < highest."),
        ({"num_updates": 5}, "find_lr: num_updates is 5; allowed: "),
        ({"runs": 0}, "find_lr: runs is 0; allowed: "),
        ({"smoothing": 0}, "find_lr: smoothing is 0; allowed: 0 < smoothing (updates"),
        ({"loader": []}, "find_lr: loader gave no batch; give one that has at least one."),
        ({"loader": iter([1])}, "find_lr: loader is a list_iterator, which can be read only once; give what"),
        ({"loss": nn.CrossEntropyLoss()}, "find_lr: loss is CrossEntropyLoss, a criterion of outputs and targets; "),
        ({"loss": broken(1.5)}, "find_lr: loss gave a float; it must give one number as a tensor with a gradient"),
        ({"loss": broken(torch.ones(3))}, "find_lr: loss gave a tensor of shape (3,) without a gradient; "),
        ({"loss": broken(torch.tensor(math.nan, requires_grad=True))}, "find_lr: the loss is nan before the first "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error(changed, message):
    model, optimizer, _, loader = begun("sgd")
    arguments = {"loss": cross_entropy, "loader": loader} | changed
    with pytest.raises(StudyError) as found:
        find_lr(model, optimizer=optimizer, **arguments)
    assert str(found.value).startswith(message)


# --- The picture ---


def test_the_picture_has_a_line_at_every_suggestion_and_bands_over_the_runs():
    test = RangeTest(geometric(100), tuple(logistic(centre) for centre in (40, 44, 60)))
    [axes] = range_test_figure(test, title="a model").axes
    assert axes.get_xscale() == "log"
    marked = {
        line.get_label().split()[0]: line.get_xdata()[0] for line in axes.lines if " " in line.get_label()
    }
    assert marked == {name: one.lr for name, one in test.suggestions().items()}
    curves = [line for line in axes.lines if len(line.get_xdata()) == 100]
    assert len(curves) == 4
    np.testing.assert_allclose(curves[-1].get_ydata(), test.curve())


def test_a_picture_without_suggestions_has_no_legend():
    noise = tuple(np.random.default_rng(0).standard_normal(100) * 0.1 + 2)
    figure = range_test_figure(RangeTest(geometric(100), (noise,)))
    assert figure.legends == []
