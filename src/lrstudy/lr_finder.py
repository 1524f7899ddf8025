"""Learning-rate range tests in any PyTorch loop: train a few updates while the rate rises, and read the loss.

>>> import torch
>>> model = torch.nn.Linear(3, 1)
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
>>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
>>> batches = [(part, part.sum(1, keepdim=True)) for part in x.split(16)]
>>> def loss(model, batch):
...     inputs, targets = batch
...     return torch.nn.functional.mse_loss(model(inputs), targets)
>>> test = find_lr(model, loss, batches, optimizer, lowest=1e-4)
>>> sorted(test.suggestions())
['minimum', 'steepest', 'valley']
>>> optimizer.param_groups[0]["lr"]  # model, optimizer, random numbers: all is as it was
0.1

The test is Smith's (2017, arXiv 1506.01186, section 3.3) with the geometric rise of the rate that Gugger and
fastai made common. What a suggestion is worth was measured against tuned rates: docs/finder.md.
"""

import math
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lrstudy.entries.parameters import Number
from lrstudy.errors import StudyError, brought_by

with brought_by("torch"):
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

STOP_AT = 4.0
"""A run ends where the loss is this many times its lowest so far, both as means of five: fastai's rule."""

_RECENT = 5

# --- Where a curve suggests a rate ------------------------------------------------------------------------


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the loss falls fastest by the logarithm of the rate: argmin d loss / d log(rate).

    Central differences, up to the lowest loss: beyond it the loss jumps, and it falls fastest after a jump.
    Gugger 2018 ("How do you find a good learning rate"), fastai's ``steep``, which looks at all rates, as
    does Lightning's ``suggestion``; that differentiates by the rate itself, which favours small rates.

    Args:
        rates: rising geometrically.
        losses: smoothed, one for each rate; two or more.
    """
    last, lowest = len(losses) - 1, losses.index(min(losses))
    slopes = [
        (losses[min(i + 1, last)] - losses[max(i - 1, 0)]) / (min(i + 1, last) - max(i - 1, 0))
        for i in range(lowest + 1)
    ]
    return rates[slopes.index(min(slopes))]


def minimum(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate with the lowest loss: fastai's ``minimum``.

    At the lowest loss itself the rate is already so high that what it gains and what it spoils balance.
    """
    return rates[losses.index(min(losses))] / 10


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate in the middle of the longest valley, fastai's default since 2021 (``valley``).

    The longest valley is the longest strictly falling subsequence of the losses. With L members and its last
    at index e, the suggestion stands at e - L + int(L / 3) + int(L / 6).
    """
    longest = [1] * len(losses)
    for i, loss in enumerate(losses):
        longest[i] += max((longest[j] for j in range(i) if losses[j] > loss), default=0)
    length = max(longest)
    start = longest.index(length) - length
    return rates[max(0, start + int(length / 3) + int(length / 3) // 2)]


RULES: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    rule.__name__: rule for rule in (steepest, minimum, valley)
}
"""Name -> rule: (rates, smoothed losses) -> suggested rate."""


# --- The result -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    """What a rule suggests.

    Attributes:
        lr: the median over the runs; None where the loss did not fall in half of them or more.
        low, high: the lowest and the highest suggestion of a run; None as ``lr``.
        runs: each run's; None where its loss did not fall.
    """

    lr: float | None
    low: float | None
    high: float | None
    runs: tuple[float | None, ...]


@dataclass(frozen=True)
class RangeTest:
    """The losses of one or more range tests at the same rates.

    Attributes:
        rates: (num_updates,) rising geometrically.
        losses: by run the loss of each update's batch before the update at ``rates[i]``; a run that ended
            early has fewer than ``rates``.
        smoothing: the standard deviation, in updates, of the normal weights with which losses are averaged
            before a rule reads them. Both sides count alike, so that the curve is not shifted to higher
            rates, as it is by an exponential average.
    """

    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    smoothing: float = 3.0

    def smoothed(self, run: int) -> tuple[float, ...]:
        """The averaged losses of a run, as many as it has."""
        return _smoothed(self.losses[run], self.smoothing)

    def curve(self) -> tuple[float, ...]:
        """The median over the runs of the averaged losses, as far as all of them came."""
        curves = [self.smoothed(run) for run in range(len(self.losses))]
        return tuple(statistics.median(values) for values in zip(*curves, strict=False))

    @property
    def confidence(self) -> float:
        """With which ``low`` to ``high`` holds the median of all runs that could be: 1 - 2^(1 - runs)."""
        return 1 - 2.0 ** (1 - len(self.losses))

    def falls(self, run: int) -> bool:
        """Whether the averaged loss of a run falls by more than twice what single losses scatter around it.

        Scatter is the standard deviation of loss minus averaged loss up to the lowest. Where the loss does
        not fall, a rule would read noise: averages of noise differ by about their single losses' scatter.
        """
        averaged = self.smoothed(run)
        lowest = averaged.index(min(averaged))
        scatter = [one - mean for one, mean in zip(self.losses[run], averaged[: lowest + 1], strict=False)]
        return averaged[0] - averaged[lowest] > (2 * statistics.stdev(scatter) if len(scatter) > 1 else 0.0)

    def suggestions(self) -> dict[str, Suggestion]:
        """By rule of :data:`RULES` what the runs suggest."""
        falling = [self.falls(run) for run in range(len(self.losses))]
        return {
            name: _suggestion(
                [rule(self.rates, self.smoothed(run)) if falls else None for run, falls in enumerate(falling)]
            )
            for name, rule in RULES.items()
        }

    def notes(self) -> list[str]:
        """What stands against reading the curve, and what to do about it."""
        found = []
        flat = sum(not self.falls(run) for run in range(len(self.losses)))
        if flat:
            found.append(
                f"in {flat} of {len(self.losses)} runs the loss does not fall by more than its noise; test "
                "more updates, larger batches or another range"
            )
        curve = self.curve()
        if len(curve) == len(self.rates) and curve[-1] <= min(curve):
            found.append(f"the loss still falls at the highest rate, {self.rates[-1]:g}; test higher ones")
        return found


def _smoothed(losses: Sequence[float], deviation: float) -> tuple[float, ...]:
    reach = math.ceil(3 * deviation)
    weights = [math.exp(-0.5 * (d / deviation) ** 2) if d else 1.0 for d in range(reach + 1)]
    averaged = []
    for i in range(len(losses)):
        near = range(max(0, i - reach), min(len(losses), i + reach + 1))
        total = math.fsum(weights[abs(j - i)] for j in near)
        averaged.append(math.fsum(weights[abs(j - i)] * losses[j] for j in near) / total)
    return tuple(averaged)


def _suggestion(runs: Sequence[float | None]) -> Suggestion:
    found = [lr for lr in runs if lr is not None]
    if 2 * len(found) <= len(runs):
        return Suggestion(None, None, None, tuple(runs))
    return Suggestion(statistics.median(found), min(found), max(found), tuple(runs))


# --- The test ---------------------------------------------------------------------------------------------

Loss = Callable[[Any, Any], Tensor]
"""(model, batch) -> the batch's mean loss, a tensor of one number."""


_RATE = Number(0.0, "rate", gt=0)
_UPDATES = Number(0, "updates", ge=10, whole=True)
_RUNS = Number(0, "runs", ge=1, whole=True)
_SMOOTHING = Number(0.0, "updates", gt=0)


def geometric_rates(lowest: float, highest: float, num_updates: int) -> tuple[float, ...]:
    """(num_updates,): ``lowest * (highest / lowest) ** (i / (num_updates - 1))``.

    Raises:
        StudyError: not 0 < lowest < highest, or num_updates is no whole number of 10 or more.
    """
    _RATE.check("find_lr", "lowest", lowest)
    _RATE.check("find_lr", "highest", highest)
    _UPDATES.check("find_lr", "num_updates", num_updates)
    if not lowest < highest:
        raise StudyError(f"find_lr: lowest is {lowest:g} and highest {highest:g}; allowed: lowest < highest.")
    growth = (highest / lowest) ** (1 / (num_updates - 1))
    return tuple(lowest * growth**i for i in range(num_updates))


def find_lr(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    optimizer: Optimizer,
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    num_updates: int = 100,
    runs: int = 5,
    seed: int = 0,
    smoothing: float = 3.0,
    gradient_clip: float | None = None,
) -> RangeTest:
    """Train ``num_updates`` updates at rates from ``lowest`` to ``highest``, several times, and undo it.

    The rates are :func:`geometric_rates`. Each run begins at the
    model and the optimizer as they are, with other batches and other dropout: run k after
    ``torch.manual_seed(seed + k)``, with the loader's generators at the same seed. A run ends early where the
    loss is not finite or :data:`STOP_AT` times its lowest.

    With several parameter groups the rate is that of the group with the highest one; the others keep their
    ratio to it.

    Afterwards, also after an exception or Ctrl-C, all is as it was, to the bit: parameters, gradients,
    buffers (batch norm's statistics, too) and training flags; the optimizer's state and rates; the random
    numbers of torch on every device, of Python and of NumPy; the generators of a DataLoader and its samplers.
    What else your code changes (counters of a module, a stateful data set) is not seen.

    Args:
        model: on its device, in the mode it is to be trained in; a model in evaluation mode is trained in
            training mode.
        loss: called with the model and a batch; autocast and the move to a device belong in it. The model's
            criterion goes in like this: ``lambda model, batch: criterion(model(batch[0]), batch[1])``.
        loader: gives batches each time that it is iterated; begun anew where it has too few.
        optimizer: of the model's parameters, as it will train them.
        lowest, highest: rates, above 0.
        num_updates: per run, 10 or more.
        runs: 1 or more. Five give an interval with 94% confidence.
        seed: of the first run.
        smoothing: see :class:`RangeTest`.
        gradient_clip: clip the gradient's norm to this, as the training will.

    Raises:
        StudyError: an argument out of its range, a loader that gives nothing or can be read only once, or a
            loss that is no finite number at the first update.
    """
    rates = geometric_rates(lowest, highest, num_updates)
    _RUNS.check("find_lr", "runs", runs)
    _SMOOTHING.check("find_lr", "smoothing", smoothing)
    if isinstance(loss, nn.modules.loss._Loss):
        raise StudyError(
            f"find_lr: loss is {type(loss).__name__}, a criterion of outputs and targets; it is called with "
            "(model, batch), so give lambda model, batch: criterion(model(batch[0]), batch[1])."
        )
    if hasattr(loader, "__next__"):
        raise StudyError(
            f"find_lr: loader is a {type(loader).__name__}, which can be read only once; give what makes a "
            "new iterator each time, such as a DataLoader or a list of batches."
        )
    modules = [model, *([loss] if isinstance(loss, nn.Module) else [])]
    generators = _generators(loader)
    losses = []
    for run in range(runs):
        with _restored(modules, optimizer, generators, loader):
            torch.manual_seed(seed + run)
            for generator in generators:
                generator.manual_seed(seed + run)
            if not model.training:  # one in training mode may have parts that are to stay in evaluation mode
                model.train()
            losses.append(_run(model, loss, loader, optimizer, rates, gradient_clip))
    return RangeTest(rates, tuple(losses), smoothing)


def _run(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    optimizer: Optimizer,
    rates: Sequence[float],
    gradient_clip: float | None,
) -> tuple[float, ...]:
    groups = optimizer.param_groups
    base = max(float(group["lr"]) for group in groups)
    shares = [float(group["lr"]) / base if base else 1.0 for group in groups]
    losses: list[float] = []
    lowest = math.inf
    for rate, batch in zip(rates, _endless(loader), strict=False):
        for group, share in zip(groups, shares, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share
        optimizer.zero_grad(set_to_none=True)
        value = loss(model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise StudyError(
                f"find_lr: loss gave {_said(value)}; it must give one number as a tensor with a gradient, "
                "the batch's mean loss."
            )
        number = value.item()
        if not math.isfinite(number):
            break
        losses.append(number)
        recent = statistics.fmean(losses[-_RECENT:])
        lowest = min(lowest, recent)
        if recent > lowest + (STOP_AT - 1) * abs(lowest):  # of a negative loss, as far above it
            break
        value.backward()
        if gradient_clip is not None:
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], gradient_clip)
        optimizer.step()
    if not losses:
        raise StudyError(
            f"find_lr: the loss is {number} before the first update; the model or its inputs are at fault, "
            "no rate is."
        )
    return tuple(losses)


def _said(value: object) -> str:
    if isinstance(value, Tensor):
        gradient = "" if value.requires_grad else " without a gradient"
        return f"a tensor of shape {tuple(value.shape)}{gradient}"
    return f"a {type(value).__name__}"


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise StudyError("find_lr: loader gave no batch; give one that has at least one.")


# --- Undoing it -------------------------------------------------------------------------------------------


def _generators(loader: object) -> list[torch.Generator]:
    """The generators of a loader, its samplers and its data set, each once."""
    found: dict[int, torch.Generator] = {}
    waiting, seen = [loader], set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(generator := getattr(one, "generator", None), torch.Generator):
            found[id(generator)] = generator
        waiting += [getattr(one, name, None) for name in ("sampler", "batch_sampler", "dataset")]
    return list(found.values())


@contextmanager
def _restored(
    modules: Sequence[nn.Module],
    optimizer: Optimizer,
    generators: Sequence[torch.Generator],
    loader: object,
) -> Iterator[None]:
    """Everything as it was before the block, in the same tensors and containers, however the block ends."""
    memo: dict[int, Callable[[], Any]] = {}
    parts = [part for module in modules for part in module.modules()]
    weights = [weight for part in parts for weight in part.parameters(recurse=False)]
    back = [
        _keeper([weight.grad for weight in weights], memo),
        _keeper([*weights], memo),
        *(_keeper(part._buffers, memo) for part in parts),
    ]
    gradients = [(weight, weight.grad) for weight in weights]
    flags = [(part, part.training) for part in parts]
    attributes = dict(vars(optimizer))  # a scheduler notes on it that it has stepped
    back += [_keeper(optimizer.state, memo), _keeper(optimizer.param_groups, memo)]
    states = [(generator, generator.get_state()) for generator in generators]
    random_numbers = _random_numbers()
    workers = getattr(loader, "_iterator", None)
    try:
        yield
    finally:
        for restore in back:
            restore()
        for weight, gradient in gradients:
            weight.grad = gradient
        for part, training in flags:
            part.training = training
        vars(optimizer).clear()
        vars(optimizer).update(attributes)
        for generator, state in states:
            generator.set_state(state)
        if workers is None and getattr(loader, "_iterator", None) is not None:
            loader._iterator = None  # type: ignore[attr-defined]  # a DataLoader's persistent workers
        random_numbers()


def _keeper(value: Any, memo: dict[int, Callable[[], Any]]) -> Callable[[], Any]:
    """What puts ``value`` back as it is now: the same object with the same content."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Tensor):
        content = value.detach().clone()

        def restore() -> Any:
            with torch.no_grad():
                value.copy_(content)
            return value
    elif isinstance(value, dict):
        items = {key: _keeper(item, memo) for key, item in value.items()}

        def restore() -> Any:
            value.clear()
            value.update({key: item() for key, item in items.items()})
            return value
    elif isinstance(value, list):
        members = [_keeper(item, memo) for item in value]

        def restore() -> Any:
            value[:] = [member() for member in members]
            return value
    elif isinstance(value, tuple) and type(value) is tuple:
        members = [_keeper(item, memo) for item in value]

        def restore() -> Any:
            return tuple(member() for member in members)
    else:

        def restore() -> Any:
            return value

        return restore
    memo[id(value)] = restore
    return restore


def _random_numbers() -> Callable[[], None]:
    """What sets the random numbers of torch, Python and NumPy to where they are now."""
    cpu, python = torch.get_rng_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    numpy = sys.modules["numpy"].random if "numpy" in sys.modules else None
    legacy = numpy.get_state() if numpy else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        if numpy is not None:
            numpy.set_state(legacy)

    return restore
