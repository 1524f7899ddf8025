"""Learning-rate schedules: pure functions from epochs elapsed to a multiplier of the base learning rate.

A schedule is any callable ``t -> multiplier`` on the closed interval 0 <= t <= num_epochs, where ``t`` counts
epochs and may be a fraction: update number ``step`` (from 0) happens at ``t = step / steps_per_epoch``.

>>> schedule = make_schedule("cosine", num_epochs=10, warmup_epochs=2)
>>> [round(schedule(t), 3) for t in (0, 1, 2, 6, 10)]
[0.01, 0.505, 1.0, 0.5, 0.0]

In any PyTorch loop, step the scheduler after each update of the optimizer:

>>> import torch
>>> optimizer = torch.optim.SGD(torch.nn.Linear(3, 1).parameters(), lr=0.1)
>>> scheduler = as_torch_scheduler(optimizer, make_schedule("step", 10, step_size=4), steps_per_epoch=2)
>>> for update in range(8):
...     optimizer.step()
...     scheduler.step()
>>> round(optimizer.param_groups[0]["lr"], 6)  # epoch 4 begins: the first drop
0.01

Parameters are relative to the length: when something happens is a share of num_epochs, how far the rate falls
a factor. So the same values make sense for 3 epochs and for 200. What is usually said in epochs (a decay
rate, an interval, a period, milestones) may be given so instead; each follows from the other:

>>> resolve_parameters("exponential", 10, decay_rate=0.3)
{'final_factor': 0.0497870683679, 'decay_rate': 0.3}

``t`` below 0, beyond num_epochs, or not a number is a :class:`~lrstudy.errors.StudyError`: a schedule has no
value there, and a loop that asks for one has counted wrong. What rounding can do to ``t`` (one part in 10^9)
is forgiven. Needs neither torch nor numpy.
"""

import functools
import inspect
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lrstudy.entries.outside import is_outside, load, told_whose
from lrstudy.entries.parameters import (
    _TOLERANCE,
    Choice,
    Made,
    Number,
    Parameter,
    Points,
    Times,
    as_number,
    is_number,
    of_default,
)
from lrstudy.errors import StudyError, unknown

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrstudy.controllers import Controller
    from lrstudy.torch_schedule import ScheduleLR, ScheduleOption

Schedule = Callable[[float], float]
"""Epochs elapsed, in [0, num_epochs] -> multiplier of the base learning rate.

Any function is one. Those that this module makes pickle, compare equal if they were made alike, know their
length (``num_epochs``), and their ``repr`` says how to make them.
"""

GRANULARITIES = ("step", "epoch")

LEAST_MOVEMENT = 0.1
"""How far a dynamic schedule's multiplier moves at least over a training, as a share of its largest value."""


# --- The registry -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Factory:
    """A formula with its parameters: call it with num_epochs and parameters to get a :data:`Schedule`.

    ``kind`` says with which others it is drawn, ``pictures`` with which parameters the documentation draws
    it. It pickles as a function does, by its name.
    """

    name: str
    formula: Callable[..., float] = field(compare=False)
    parameters: dict[str, Parameter] = field(compare=False)
    problem: Callable[[dict], str | None] = field(compare=False)
    kind: str = field(default="", compare=False)
    pictures: tuple[dict[str, Any], ...] = field(default=({},), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.formula.__doc__)
        object.__setattr__(self, "__module__", self.formula.__module__)

    def __reduce__(self) -> str | tuple:
        if getattr(sys.modules.get(self.__module__), self.formula.__name__, None) is self:
            return self.formula.__name__
        find(self.name)  # an error now, where it can be mended, and not in the process that reads it
        return find, (self.name,)

    def __deepcopy__(self, memo: dict) -> "Factory":
        return self

    def resolve(self, num_epochs: float, **params: Any) -> dict[str, Any]:
        """Check ``params`` and fill in the rest: defaults, and what follows from num_epochs and other values.

        Of two forms of one value either may be given; both only if they agree (to one part in 10^9).
        """
        where = f"schedule {self.name}"
        num_epochs = _check_num_epochs(where, num_epochs)
        for name in params:
            if name not in self.parameters:
                raise unknown(where, name, self.parameters, "a parameter of it")
        given = {name: params.get(name, spec.default) for name, spec in self.parameters.items()}
        values = {
            name: spec.check(where, name, given[name], num_epochs)
            for name, spec in self.parameters.items()
            if given[name] is not None or spec.default is not None
        }
        if problem := self.problem(values):
            raise StudyError(f"{where}: {problem}.")
        for name, spec in self.parameters.items():
            if name in values and spec.form_of in values:
                self._check_forms(where, name, spec, values, num_epochs)
        for name, spec in self.parameters.items():
            # What has neither value nor default is derived.
            if name not in values and (value := _rounded(spec.derive(num_epochs, values))) is not None:  # type: ignore[union-attr, misc]
                values[name] = spec.check(where, name, value, num_epochs)
        return {name: values.get(name) for name in self.parameters}

    def _check_forms(
        self, where: str, name: str, spec: "Number | Times | Points", values: dict, num_epochs: float
    ) -> None:
        relative: Any = spec.form_of
        # Each of two forms can be derived.
        expected, implied = (
            _rounded(self.parameters[one].derive(num_epochs, {k: v for k, v in values.items() if k != one}))  # type: ignore[union-attr, misc]
            for one in (name, relative)
        )
        # Near its bounds one form tells apart what the other cannot, so either may show that they agree.
        if not (_agree(values[name], expected) or _agree(values[relative], implied)):
            raise StudyError(
                f"{where}: {relative} is {values[relative]!r}, but {name} is {values[name]!r}, which over "
                f"{num_epochs:g} epochs is the {relative} {implied!r}; give one of them, the other null."
            )

    def __call__(self, num_epochs: float, **params: Any) -> Schedule:
        """The schedule over num_epochs; raises StudyError for parameters that are unknown or illegal."""
        return _Formula(self, as_number(num_epochs), self.resolve(num_epochs, **params))


SCHEDULES: dict[str, Factory] = {}
"""Every schedule of this package by name; each is called as ``factory(num_epochs, **parameters)``."""


def schedule(
    *,
    problem: Callable[[dict], str | None] = lambda values: None,
    kind: str = "Others",
    pictures: tuple[dict[str, Any], ...] = ({},),
    **parameters: Parameter,
) -> Callable[[Callable[..., float]], Factory]:
    """Make a schedule of a formula ``(t, num_epochs, **parameters) -> multiplier``: decorates it.

    In this package the schedule is found by the formula's name, from another one as ``package.module:name``.

    Args:
        problem: what is wrong with parameters that are each allowed, in words; None where nothing is.
        kind, pictures: for the documentation, as in :class:`Factory`.
        parameters: what each may be.

    ::

        @schedule(knee=Number(0.5, "when the rate begins to fall", "share of num_epochs", ge=0, lt=1))
        def kneed(t, num_epochs, *, knee):
            return min(1.0, (1 - t / num_epochs) / (1 - knee))
    """

    def register(formula: Callable[..., float]) -> Factory:
        ours = formula.__module__.partition(".")[0] == "lrstudy"
        name = formula.__name__ if ours else f"{formula.__module__}:{formula.__name__}"
        factory = Factory(name, formula, parameters, problem, kind, pictures)
        if ours:
            SCHEDULES[name] = factory
        return factory

    return register


def find(name: str) -> Factory:
    """The schedule of this name: one of :data:`SCHEDULES`, or from another package ``package.module:name``.

    The latter is what :func:`schedule` made, or a plain function ``(t, num_epochs, *, knee=0.5)``: each of
    its keyword-only parameters is a number (true or false, any value) like its default. What it raises says
    whose it is, and a multiplier that is no finite number of at least 0 is an error.

    Raises:
        StudyError: there is no such schedule, or it is no function of that form.
    """
    if isinstance(name, str) and is_outside(name):
        found = load(name, "a schedule")
        factory = found if isinstance(found, Factory) else _plain(name, found)
        return replace(factory, name=name, formula=_watched(name, factory.formula))
    if not isinstance(name, str) or name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES, "a schedule")
    return SCHEDULES[name]


def _plain(name: str, function: object) -> Factory:
    """A function of another package as a schedule; its signature says what its parameters may be."""
    form = (
        "a schedule is a function (t, num_epochs, *, knee=0.5) of two positional and any keyword-only values"
    )
    if not inspect.isroutine(function):
        raise StudyError(f"{name}: found a {type(function).__name__}; {form}.")
    signature = inspect.signature(function)
    positional = [one for one in signature.parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    others = [one for one in signature.parameters.values() if one.kind is one.KEYWORD_ONLY]
    if len(positional) != 2 or len(positional) + len(others) != len(signature.parameters):
        raise StudyError(f"{name}: found {function.__name__}{signature}; {form}.")
    for one in others:
        if one.default is one.empty:
            raise StudyError(
                f"{name}: the parameter {one.name} has no default; give it one, in the signature."
            )
    return Factory(name, function, {one.name: of_default(one.default) for one in others}, lambda values: None)


def _watched(name: str, formula: Callable[..., float]) -> Callable[..., float]:
    """The formula of another package, whose errors say whose they are, and whose values are looked at."""

    @functools.wraps(formula)
    def watched(t: float, num_epochs: float, **values: Any) -> float:
        with told_whose(name, f"t = {t:g} of {num_epochs:g} epochs"):
            multiplier = formula(t, num_epochs, **values)
        if not is_number(multiplier) or multiplier < 0:
            raise StudyError(
                f"{name}: the multiplier at t = {t:g} of {num_epochs:g} epochs is {multiplier!r}; allowed: a "
                "finite number of at least 0 "
                f"({', '.join(f'{k} {v}' for k, v in values.items()) or 'no parameters'})."
            )
        return float(multiplier)

    return watched


# --- The schedules ----------------------------------------------------------------------------------------

_STEPS = "Constant or in steps"
_NEVER_ZERO = "Falling, never to zero"
_TO_THE_END = "Falling to the end of training"
_RISING = "Rising and falling"

_GAMMA = Number(0.1, "what each drop multiplies the rate by", "factor", gt=0, le=1)
_MIN_FACTOR = Number(0.0, "smallest multiplier", "factor", ge=0, le=1)


@schedule(
    kind=_STEPS,
)
def static(t: float, num_epochs: float) -> float:
    """The rate stays at the base learning rate.

        1

    Use: the baseline that every other schedule has to beat, with a base rate tuned just as carefully.

    Source: the plain stochastic gradient method.
    """
    return 1.0


def _first_drop(num_epochs: float, values: dict) -> float:
    if "step_size" in values:
        return values["step_size"] / num_epochs
    return values.get("interval", 0.5)


def _interval(num_epochs: float, values: dict) -> float:
    if "step_size" in values:
        return values["step_size"] / num_epochs
    return (1 - values["first_drop"]) / 2 or 1.0


@schedule(
    kind=_STEPS,
    pictures=({}, {"gamma": 0.5, "interval": 0.1}),
    gamma=_GAMMA,
    first_drop=Number(
        None,
        "when the rate drops first",
        "share of num_epochs",
        gt=0,
        le=1,
        derive=_first_drop,
        derived="one interval if that is given, else 0.5",
    ),
    interval=Number(
        None,
        "time between drops",
        "share of num_epochs",
        gt=0,
        le=1,
        derive=_interval,
        derived="what step_size comes to, else half of what follows the first drop",
    ),
    step_size=Number(
        None,
        "time between drops",
        "epochs",
        gt=0,
        le="num_epochs",
        derive=lambda num_epochs, values: min(num_epochs, _rounded(values["interval"] * num_epochs)),
        derived="interval * num_epochs",
        form_of="interval",
    ),
)
def step(
    t: float, num_epochs: float, *, gamma: float, first_drop: float, interval: float, step_size: float
) -> float:
    """The rate drops by a constant factor at regular intervals.

        1      for t < first_drop * num_epochs
        gamma ** (1 + floor((t - first_drop * num_epochs) / step_size))      after

    where step_size = interval * num_epochs. An interval or a step_size given alone means
    first_drop = interval: the classic staircase gamma ** floor(t / step_size). By default the rate drops at
    one half and at three quarters of the training. A drop at its very end comes after the last update.

    Use: the usual recipe for image models; each drop shows as a jump in accuracy.

    Source: Ge et al. 2019, arXiv 1904.12838; the default's drops are those of He et al. 2016, arXiv
    1512.03385, section 4.2. The staircase without the floor, as some texts print it, is the exponential
    schedule with decay_rate = -ln(gamma) / step_size.
    """
    return gamma ** max(0, 1 + _floor((t - first_drop * num_epochs) / step_size))


@schedule(
    kind=_STEPS,
    pictures=({}, {"gamma": 0.4, "drops": [0.2, 0.4, 0.8]}),
    gamma=_GAMMA,
    drops=Times(
        None,
        "when the rate drops",
        "shares of num_epochs",
        derive=lambda num_epochs, values: (
            [epoch / num_epochs for epoch in values["milestones"]] if "milestones" in values else [0.5, 0.75]
        ),
        derived="what milestones come to, else [0.5, 0.75]",
    ),
    milestones=Times(
        None,
        "when the rate drops",
        "epochs",
        derive=lambda num_epochs, values: [share * num_epochs for share in values["drops"]],
        derived="drops * num_epochs",
        end="num_epochs",
        form_of="drops",
    ),
)
def multistep(
    t: float, num_epochs: float, *, gamma: float, drops: list[float], milestones: list[float]
) -> float:
    """The rate drops by a constant factor at chosen times.

        gamma ** (number of milestones <= t),   milestones = drops * num_epochs

    Use: when it is known where training flattens; the recipe of the CIFAR ResNets drops by 10 at one half and
    three quarters.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2.
    """
    return gamma ** sum(milestone <= t + _TOLERANCE for milestone in milestones)


def _decay_rate(final: float, num_epochs: float) -> float:
    """The exponential decay that leaves the share ``final`` after num_epochs; infinite if that is 0."""
    return abs(math.log(final)) / num_epochs if final else math.inf


@schedule(
    kind=_NEVER_ZERO,
    pictures=({}, {"final_factor": 0.4}, {"decay_rate": 0.3}),
    problem=lambda values: (
        "final_factor is 0, which an exponential never reaches; allowed: 0 < final_factor <= 1"
        if values.get("final_factor") == 0 and "decay_rate" not in values
        else None
    ),
    final_factor=Number(
        None,
        "multiplier at the end",
        "factor",
        ge=0,  # 0 is what a large decay_rate comes to in floating point
        le=1,
        derive=lambda num_epochs, values: (
            math.exp(-values["decay_rate"] * num_epochs) if "decay_rate" in values else 0.05
        ),
        derived="what decay_rate comes to, else 0.05",
    ),
    decay_rate=Number(
        None,
        "how fast the rate decays",
        "1/epoch",
        ge=0,
        derive=lambda num_epochs, values: _decay_rate(values["final_factor"], num_epochs),
        derived="-ln(final_factor) / num_epochs",
        form_of="final_factor",
    ),
)
def exponential(t: float, num_epochs: float, *, final_factor: float, decay_rate: float) -> float:
    """The rate falls by the same share in every epoch, down to final_factor at the end.

        exp(-decay_rate * t),   decay_rate = -ln(final_factor) / num_epochs

    Use: smooth decay with one number to tune.

    Source: Li, Zhuang and Orabona 2021, arXiv 2002.05273.
    """
    return math.exp(-decay_rate * t)


@schedule(
    kind=_NEVER_ZERO,
    pictures=({}, {"decay_rate": 1.0}),
    final_factor=Number(
        None,
        "multiplier at the end",
        "factor",
        gt=0,
        le=1,
        derive=lambda num_epochs, values: (
            1 / (1 + values["decay_rate"] * num_epochs) if "decay_rate" in values else 0.1
        ),
        derived="what decay_rate comes to, else 0.1",
    ),
    decay_rate=Number(
        None,
        "how fast the rate decays",
        "1/epoch",
        ge=0,
        derive=lambda num_epochs, values: (1 / values["final_factor"] - 1) / num_epochs,
        derived="(1 / final_factor - 1) / num_epochs",
        form_of="final_factor",
    ),
)
def inverse_time(t: float, num_epochs: float, *, final_factor: float, decay_rate: float) -> float:
    """The rate falls as one over time, fast at first and ever slower, down to final_factor at the end.

        1 / (1 + decay_rate * t),   decay_rate = (1 / final_factor - 1) / num_epochs

    Use: the decay of the convergence theory of stochastic gradients on convex problems; on neural networks
    mostly a baseline.

    Source: Robbins and Monro 1951; in this form Bottou 2012, "Stochastic Gradient Descent Tricks".
    """
    return 1.0 / (1.0 + decay_rate * t)


@schedule(
    kind=_NEVER_ZERO,
    pictures=({}, {"start": 0.2}),
    start=Number(
        None,
        "when the decay begins",
        "share of num_epochs",
        gt=0,
        le=1,
        derive=lambda num_epochs, values: values["timescale"] / num_epochs if "timescale" in values else 0.05,
        derived="what timescale comes to, else 0.05",
    ),
    timescale=Number(
        None,
        "how long the rate stays before it falls",
        "epochs",
        gt=0,
        le="num_epochs",
        derive=lambda num_epochs, values: min(num_epochs, _rounded(values["start"] * num_epochs)),
        derived="start * num_epochs",
        form_of="start",
    ),
)
def inverse_sqrt(t: float, num_epochs: float, *, start: float, timescale: float) -> float:
    """The rate holds for one timescale and then falls as one over the square root of time.

        1 / sqrt(max(1, t / timescale)),   timescale = start * num_epochs

    At the end sqrt(start) is left of the rate.

    Use: usual for Transformers after a warmup. With a timescale in epochs the curve does not depend on the
    length of the training, which then need not be known beforehand.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 5.3 (there counted in updates, with warmup).
    """
    return 1.0 / math.sqrt(max(1.0, t / timescale))


@schedule(
    kind=_TO_THE_END,
    pictures=({}, {"power": 1}, {"power": 0.5, "min_factor": 0.1}),
    power=Number(2.0, "exponent; 1 is a straight line", "number", gt=0),
    min_factor=_MIN_FACTOR,
)
def polynomial(t: float, num_epochs: float, *, power: float, min_factor: float) -> float:
    """The rate falls to zero at the end of training along a power of the time that remains.

        max(min_factor, (1 - t / num_epochs) ** power)

    Use: power 1 is the linear decay to zero that is reported to match or beat cosine (arXiv 2310.07831 and
    2502.15938; known to us from the abstracts). Fits a fixed budget; must be restarted to train longer.

    Source: Chen et al. 2018, arXiv 1606.00915 ("poly", power 0.9).
    """
    return max(min_factor, (1.0 - t / num_epochs) ** power)


@schedule(kind=_TO_THE_END, pictures=({}, {"min_factor": 0.2}), min_factor=_MIN_FACTOR)
def cosine(t: float, num_epochs: float, *, min_factor: float) -> float:
    """The rate follows half a cosine from 1 down to min_factor at the end of training.

        min_factor + (1 - min_factor) * (1 + cos(pi * t / num_epochs)) / 2

    Use: a strong default without parameters when the length of the training is fixed. Ends at num_epochs;
    a recursion that runs past its end, as torch's CosineAnnealingLR can, climbs again.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5.
    """
    return min_factor + (1.0 - min_factor) * _half_cosine(t / num_epochs)


def _num_cycles(num_epochs: float, values: dict) -> float:
    """How many cycles, of which each is period_mult times as long as the one before, fill the training."""
    if "period" not in values:
        return 2
    growth = values.get("period_mult", 1) - 1
    ratio = num_epochs / values["period"]
    return max(1.0, math.log1p(growth * ratio) / math.log1p(growth) if growth else ratio)


def _period(num_epochs: float, values: dict) -> float:
    """Length of the first of num_cycles cycles."""
    growth = values.get("period_mult", 1) - 1
    if not growth:
        return min(num_epochs, _rounded(num_epochs / values["num_cycles"]))
    exponent = values["num_cycles"] * math.log1p(growth)
    # growth / (period_mult ** num_cycles - 1), in a form that cannot overflow
    share = growth * math.exp(-exponent) / -math.expm1(-exponent)
    return min(num_epochs, _rounded(share * num_epochs))


_NUM_CYCLES = Number(
    None,
    "number of cycles in the training",
    "number",
    ge=1,
    derive=_num_cycles,
    derived="what period comes to, else 2",
)


@schedule(
    kind=_RISING,
    pictures=({}, {"num_cycles": 3, "period_mult": 1, "min_factor": 0.1}),
    num_cycles=_NUM_CYCLES,
    period=Number(
        None,
        "length of the first cycle",
        "epochs",
        gt=0,
        le="num_epochs",
        derive=_period,
        derived="num_epochs / (1 + period_mult + period_mult ** 2 + ...), num_cycles terms",
        form_of="num_cycles",
    ),
    period_mult=Number(2, "how much longer each cycle is than the one before", "factor", ge=1),
    min_factor=_MIN_FACTOR,
)
def cosine_restarts(
    t: float, num_epochs: float, *, num_cycles: float, period: float, period_mult: float, min_factor: float
) -> float:
    """The rate follows half a cosine, jumps back to 1, and repeats in cycles that may grow.

        min_factor + (1 - min_factor) * (1 + cos(pi * s / p)) / 2

    where s is the time since cycle n began and p = period * period_mult ** n its length. A cycle that ends
    with the training ends low: there is no restart at t = num_epochs. With a whole num_cycles one does; with
    a period in epochs the training may end at a high rate.

    Use: when good snapshots along the way are wanted.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983 (SGDR): period 10 and multiplier 2 were among the
    best on CIFAR-10.
    """
    _, share = _place_in_cycle(t, num_epochs, period, period_mult)
    return min_factor + (1.0 - min_factor) * _half_cosine(share)


def _place_in_cycle(t: float, num_epochs: float, period: float, period_mult: float) -> tuple[int, float]:
    """The number of the cycle at ``t``, from 0, and the share of it that is over.

    At the end of the training the cycle that ends with it is over: no other one begins.
    """
    growth = period_mult - 1
    if growth:  # cycle n begins at period * (period_mult ** n - 1) / growth
        cycle = _floor(math.log1p(growth * t / period) / math.log1p(growth))
        begin = period * math.expm1(cycle * math.log1p(growth)) / growth
    else:
        cycle = _floor(t / period)
        begin = period * cycle
    if cycle and t >= num_epochs and t - begin <= _TOLERANCE * num_epochs:
        return cycle - 1, 1.0
    return cycle, min(1.0, max(0.0, t - begin) / (period * period_mult**cycle))


_WINDOWS = {  # height at x, the distance from the middle of the cycle: 0 there, 1 at its ends
    "triangular": lambda x: 1.0 - x,
    "welch": lambda x: 1.0 - x * x,
    "hann": lambda x: _half_cosine(x),
}


def _decay_of_the_height(values: dict) -> str | None:
    if values["decay"] == "exponential":
        if values.get("final_height") == 0 and "decay_rate" not in values:
            return "final_height is 0, which an exponential never reaches; allowed: 0 < final_height <= 1"
        return None
    for name in ("final_height", "decay_rate"):
        if name in values:
            return (
                f"{name} is {values[name]!r} but decay is {values['decay']!r}; set decay: exponential, or "
                f"leave {name} out"
            )
    return None


def _final_height(num_epochs: float, values: dict) -> float | None:
    if values["decay"] != "exponential":
        return None
    return math.exp(-values["decay_rate"] * num_epochs) if "decay_rate" in values else 0.1


@schedule(
    kind=_RISING,
    pictures=(
        {},
        {"window": "welch", "decay": "halve", "num_cycles": 3},
        {"window": "hann", "decay": "exponential", "final_height": 0.2},
    ),
    problem=_decay_of_the_height,
    num_cycles=_NUM_CYCLES,
    period=Number(
        None,
        "length of a cycle, up and down",
        "epochs",
        gt=0,
        le="num_epochs",
        derive=_period,
        derived="num_epochs / num_cycles",
        form_of="num_cycles",
    ),
    min_factor=Number(0.1, "multiplier at the ends of a cycle", "factor", ge=0, le=1),
    window=Choice("triangular", "shape of a cycle", tuple(_WINDOWS)),
    decay=Choice("none", "what happens to the height of the cycles", ("none", "halve", "exponential")),
    final_height=Number(
        None,
        "height of the cycles at the end, with decay: exponential",
        "factor",
        ge=0,  # 0 is what a large decay_rate comes to in floating point
        le=1,
        derive=_final_height,
        derived="what decay_rate comes to, else 0.1; unused without decay: exponential",
    ),
    decay_rate=Number(
        None,
        "how fast the height decays, with decay: exponential",
        "1/epoch",
        ge=0,
        derive=lambda num_epochs, values: (
            _decay_rate(values["final_height"], num_epochs) if "final_height" in values else None
        ),
        derived="-ln(final_height) / num_epochs; unused without decay: exponential",
        form_of="final_height",
    ),
)
def cyclical(
    t: float,
    num_epochs: float,
    *,
    num_cycles: float,
    period: float,
    min_factor: float,
    window: str,
    decay: str,
    final_height: float | None,
    decay_rate: float | None,
) -> float:
    """The rate swings between min_factor and 1, cycle after cycle.

        min_factor + (1 - min_factor) * a(t) * w(x),   x = abs(2 * t / period - 2 * c + 1)

    where c = floor(1 + t / period) numbers the cycles from 1. Windows: triangular w = 1 - x, welch
    w = 1 - x ** 2, hann w = (1 + cos(pi * x)) / 2. Decay of the height: none a = 1, halve
    a = 2 ** (1 - c), exponential a = exp(-decay_rate * t).

    Use: when the right rate is not known well: each cycle passes through a range of rates. Smith advises a
    period of 4 to 20 epochs. The three windows are reported to give equivalent results (known to us from a
    summary). A formula in circulation, 1 - abs(t / period - 2 * floor(t / period) - 1), rises once, over the
    whole first period, and stays low ever after; this is Smith's.

    Source: Smith 2017, arXiv 1506.01186.
    """
    cycle = 1 + _floor(t / period)
    x = min(1.0, abs(2 * t / period - 2 * cycle + 1))
    height = {"none": 1.0, "halve": 0.5 ** (cycle - 1), "exponential": math.exp(-(decay_rate or 0.0) * t)}
    return min_factor + (1.0 - min_factor) * height[decay] * _WINDOWS[window](x)


@schedule(
    kind=_RISING,
    pictures=({}, {"peak_at": 0.5, "start_factor": 0.3, "end_factor": 0.1}),
    peak_at=Number(0.3, "when the rate is highest", "share of num_epochs", gt=0, lt=1),
    start_factor=Number(0.04, "multiplier at the start", "factor", ge=0, le=1),
    end_factor=Number(4e-6, "multiplier at the end", "factor", ge=0, le=1),
)
def one_cycle(
    t: float, num_epochs: float, *, peak_at: float, start_factor: float, end_factor: float
) -> float:
    """The rate rises on a straight line to 1 and falls on another to almost nothing.

        start_factor + (1 - start_factor) * t / p      for t <= p = peak_at * num_epochs
        1 - (1 - end_factor) * (t - p) / (num_epochs - p)      after

    Use: short trainings at a large base rate ("super-convergence"); the rise doubles as a warmup.

    Source: Smith and Topin 2018, arXiv 1708.07120. The defaults are those of torch's OneCycleLR (1/25 and
    1/25/10000), whose rate peaks one update earlier.
    """
    peak = peak_at * num_epochs
    if t <= peak:
        return _line(start_factor, 1.0, t / peak)
    return _line(1.0, end_factor, (t - peak) / (num_epochs - peak))


_TAILS = ("linear", "cosine", "exponential", "step", "1-sqrt", "1-square")


@schedule(
    kind=_TO_THE_END,
    pictures=tuple({"start": 0.5, "shape": shape, "min_factor": 0.05} for shape in _TAILS),
    problem=lambda values: (
        "min_factor is 0, which an exponential tail never reaches; allowed with shape: exponential: "
        "0 < min_factor <= 1"
        if values["shape"] == "exponential" and values["min_factor"] == 0
        else None
    ),
    start=Number(0.8, "when the decay begins", "share of num_epochs", ge=0, lt=1),
    shape=Choice("linear", "shape of the decay", _TAILS),
    min_factor=Number(0.01, "multiplier at the end", "factor", ge=0, le=1),
)
def late_decay(t: float, num_epochs: float, *, start: float, shape: str, min_factor: float) -> float:
    """The rate stays at 1 for most of the training and decays only at its end.

        1      for u = (t - start * num_epochs) / ((1 - start) * num_epochs) < 0
        1 - (1 - min_factor) * u      linear
        min_factor + (1 - min_factor) * (1 + cos(pi * u)) / 2      cosine
        min_factor ** u      exponential
        min_factor      step
        1 - (1 - min_factor) * sqrt(u)      1-sqrt
        1 - (1 - min_factor) * u ** 2      1-square

    Use: "warmup-stable-decay" with a warmup before it. A long phase at a large rate is reported to generalize
    better than an early decay (arXiv 2401.11600; known to us from a summary), and a decay over the last fifth
    to match cosine (known to us from a summary); unlike cosine, the stable phase can go on. The knee schedule
    is the linear one with min_factor 0 (Iyer et al. 2020, arXiv 2003.03977).

    Source: Hu et al. 2024, arXiv 2404.06395 (warmup-stable-decay); 1-sqrt from Haegele et al. 2024, arXiv
    2405.18392.
    """
    begin = start * num_epochs
    if t < begin - _TOLERANCE * num_epochs:
        return 1.0
    u = max(0.0, t - begin) / (num_epochs - begin)
    tails = {
        "linear": lambda: _line(1.0, min_factor, u),
        "cosine": lambda: min_factor + (1.0 - min_factor) * _half_cosine(u),
        "exponential": lambda: min_factor**u,
        "step": lambda: min_factor,
        "1-sqrt": lambda: _line(1.0, min_factor, math.sqrt(u)),
        "1-square": lambda: _line(1.0, min_factor, u * u),
    }
    return tails[shape]()


@schedule(
    kind=_NEVER_ZERO,
    pictures=({}, {"start": 0.2}, {"exponent": 1.0}),
    start=Number(
        None,
        "when the decay begins",
        "share of num_epochs",
        gt=0,
        le=1,
        derive=lambda num_epochs, values: values["timescale"] / num_epochs if "timescale" in values else 0.1,
        derived="what timescale comes to, else 0.1",
    ),
    timescale=Number(
        None,
        "how long the rate stays before it falls",
        "epochs",
        gt=0,
        le="num_epochs",
        derive=lambda num_epochs, values: min(num_epochs, _rounded(values["start"] * num_epochs)),
        derived="start * num_epochs",
        form_of="start",
    ),
    exponent=Number(0.51, "how steeply the rate falls on logarithmic axes", "number", gt=0),
)
def power_law(t: float, num_epochs: float, *, start: float, timescale: float, exponent: float) -> float:
    """The rate holds for one timescale and then falls as a power of time.

        max(1, t / timescale) ** -exponent,   timescale = start * num_epochs

    At the end start ** exponent is left of the rate. Exponent 1/2 is inverse_sqrt.

    Use: where the length of the training is open. The Power scheduler ends it by a short exponential decay:
    the product of power_law and a late_decay.

    Source: Shen et al. 2024, arXiv 2408.13359 (exponent 0.51).
    """
    return max(1.0, t / timescale) ** -exponent


@schedule(
    kind=_TO_THE_END,
    pictures=({}, {"bend": 0.0}, {"bend": 0.9, "min_factor": 0.1}),
    bend=Number(0.5, "how far the curve lies above the straight line; 0 is the line", "number", ge=0, lt=1),
    min_factor=_MIN_FACTOR,
)
def rex(t: float, num_epochs: float, *, bend: float, min_factor: float) -> float:
    """The rate falls slowly at first and fast at the end, along a hyperbola ("reflected exponential").

        min_factor + (1 - min_factor) * z / (1 - bend + bend * z),   z = 1 - t / num_epochs

    Use: reported to do well for budgets of any length, short ones above all (known to us from the abstract).

    Source: Chen, Wolfe and Kyrillidis 2021, arXiv 2107.04197 (bend 1/2).
    """
    left = 1.0 - t / num_epochs
    return min_factor + (1.0 - min_factor) * left / (1.0 - bend + bend * left)


@schedule(
    kind=_TO_THE_END,
    pictures=({}, {"lower": -3.0}, {"upper": 1.0, "min_factor": 0.1}),
    problem=lambda values: (
        f"lower is {values['lower']:g} and upper {values['upper']:g}; allowed: lower < upper"
        if values["lower"] >= values["upper"]
        else None
    ),
    lower=Number(-6.0, "argument of tanh at the start; the lower, the longer the rate stays", "number"),
    upper=Number(3.0, "argument of tanh at the end", "number"),
    min_factor=_MIN_FACTOR,
)
def tanh(t: float, num_epochs: float, *, lower: float, upper: float, min_factor: float) -> float:
    """The rate stays near 1 and falls along a hyperbolic tangent.

        min_factor + (1 - min_factor) * (1 - tanh(lower + (upper - lower) * t / num_epochs)) / 2

    At the end (1 - tanh(upper)) / 2 of the rate is left above min_factor: 0.0025 by default.

    Use: the shape of cosine with a longer stable phase and a longer tail.

    Source: Hsueh, Li and Wu 2019, arXiv 1806.01593 (HTD; -6 and 3 on CIFAR).
    """
    return min_factor + (1.0 - min_factor) * (1.0 - math.tanh(_line(lower, upper, t / num_epochs))) / 2.0


@schedule(
    kind=_RISING,
    pictures=({}, {"peak_at": 0.5, "start_factor": 0.3, "end_factor": 0.1}),
    peak_at=Number(0.3, "when the rate is highest", "share of num_epochs", gt=0, lt=1),
    start_factor=Number(0.04, "multiplier at the start", "factor", ge=0, le=1),
    end_factor=Number(4e-6, "multiplier at the end", "factor", ge=0, le=1),
)
def one_cycle_cosine(
    t: float, num_epochs: float, *, peak_at: float, start_factor: float, end_factor: float
) -> float:
    """The rate rises along half a cosine to 1 and falls along another to almost nothing.

        1 - (1 - start_factor) * (1 + cos(pi * t / p)) / 2      for t <= p = peak_at * num_epochs
        end_factor + (1 - end_factor) * (1 + cos(pi * (t - p) / (num_epochs - p))) / 2      after

    Use: as one_cycle; this is what torch's OneCycleLR does unless it is told otherwise. It lets momentum fall
    and rise against the rate, too: a piecewise schedule of momentum with the same times.

    Source: Smith and Topin 2018, arXiv 1708.07120; the cosines are fastai's (Howard and Gugger 2020, arXiv
    2002.04688).
    """
    peak = peak_at * num_epochs
    if t <= peak:
        return _line(1.0, start_factor, _half_cosine(t / peak))
    return _line(end_factor, 1.0, _half_cosine((t - peak) / (num_epochs - peak)))


def _points(num_epochs: float, values: dict) -> list[list[float]]:
    if "points_in_epochs" not in values:
        return [[0.0, 0.1], [0.2, 1.0], [0.5, 1.0], [1.0, 0.01]]
    return [[min(1.0, _rounded(time / num_epochs)), value] for time, value in values["points_in_epochs"]]


@schedule(
    kind=_RISING,
    pictures=(
        {},
        {"points": [[0, 1], [0.3, 0.5], [0.6, 0.25]], "interpolation": "constant"},
        {"points": [[0, 0.1], [0.4, 1], [1, 0.01]], "interpolation": "exponential"},
    ),
    problem=lambda values: (
        "a value is 0, which an exponential never reaches; allowed with interpolation: exponential: values "
        "above 0"
        if values["interpolation"] == "exponential"
        and min(value for _, value in values.get("points") or values.get("points_in_epochs") or [[0, 1]]) <= 0
        else None
    ),
    points=Points(
        None,
        "multipliers at times",
        "shares of num_epochs, factors",
        derive=_points,
        derived="what points_in_epochs come to, else [[0, 0.1], [0.2, 1], [0.5, 1], [1, 0.01]]",
    ),
    points_in_epochs=Points(
        None,
        "multipliers at times",
        "epochs, factors",
        derive=lambda num_epochs, values: [
            [min(num_epochs, _rounded(time * num_epochs)), value] for time, value in values["points"]
        ],
        derived="points, their times by num_epochs",
        end="num_epochs",
        form_of="points",
    ),
    interpolation=Choice(
        "linear", "what lies between two points", ("linear", "cosine", "exponential", "constant")
    ),
)
def piecewise(
    t: float,
    num_epochs: float,
    *,
    points: list[list[float]],
    points_in_epochs: list[list[float]],
    interpolation: str,
) -> float:
    """The rate passes through given values at given times; after the last one it stays.

        a + (b - a) * u      linear
        a + (b - a) * (1 - cos(pi * u)) / 2      cosine
        a * (b / a) ** u      exponential
        a      constant

    where u is the share of the time from the point with value a to the next one, with value b, that is over.

    Use: what has no name. Smith's advice on one cycle with a last phase of annihilation is one; so is the
    momentum that belongs to one_cycle_cosine, 0.95, 0.85 and 0.95 at its three times.

    Source: the piecewise schedules of optax (DeepMind 2020) and of Page 2018, "How to train your ResNet".
    """
    index = sum(time <= t + _TOLERANCE * num_epochs for time, _ in points_in_epochs) - 1
    begin, value = points_in_epochs[index]
    if index + 1 == len(points_in_epochs):
        return value
    end, following = points_in_epochs[index + 1]
    u = max(0.0, t - begin) / (end - begin)
    between = {
        "linear": lambda: _line(value, following, u),
        "cosine": lambda: _line(following, value, _half_cosine(u)),
        "exponential": lambda: value * (following / value) ** u,
        "constant": lambda: value,
    }
    return between[interpolation]()


# --- Schedules of schedules -------------------------------------------------------------------------------

_MADE_OF = "Made of others"
_OF_A_PHASE = {
    "share": Number(0.0, "how long it runs", "share of num_epochs", gt=0, le=1),
    "epochs": Number(0.0, "how long it runs", "epochs", gt=0, le="num_epochs"),
    "factor": Number(1.0, "what its multiplier is multiplied by", "factor", gt=0),
}
_NO_PARAMETERS = ("schedule", "share", "epochs", "factor")  # what a part says beside them


def _resolved_part(where: str, value: Any, num_epochs: float, beside: tuple[str, ...] = ()) -> dict[str, Any]:
    """An entry of the registry with its parameters, all at their values; ``beside`` are keys of others."""
    if not isinstance(value, Mapping) or not isinstance(value.get("schedule"), str):
        raise StudyError(
            f"{where} is {value!r}; allowed: a schedule with its parameters, such as "
            "{schedule: cosine, min_factor: 0.1}."
        )
    try:
        factory = find(value["schedule"])
        given = {key: one for key, one in value.items() if key != "schedule" and key not in beside}
        for key in given:
            if key not in factory.parameters:
                raise unknown(
                    f"schedule {factory.name}", key, [*factory.parameters, *beside], "a parameter of it"
                )
        return {"schedule": factory.name, **factory.resolve(num_epochs, **given)}
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None


def _listed(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise StudyError(
            f"{where} is {value!r}; allowed: a list of schedules with their parameters, such as "
            "[{schedule: cosine}, {schedule: step, gamma: 0.5}]."
        )
    return list(value)


def _resolved_parts(where: str, value: Any, num_epochs: float) -> list[dict[str, Any]]:
    return [
        _resolved_part(f"{where}[{index}]", one, num_epochs)
        for index, one in enumerate(_listed(where, value))
    ]


def _resolved_phases(where: str, value: Any, num_epochs: float) -> list[dict[str, Any]]:
    """Every phase with its length in both forms; one that says none has what the others leave."""
    found = _listed(where, value)
    lengths = [_length_of_phase(f"{where}[{index}]", one, num_epochs) for index, one in enumerate(found)]
    unsaid = lengths.count(None)
    said = sum(length for length in lengths if length is not None)
    left = num_epochs - said
    if unsaid > 1:
        raise StudyError(
            f"{where}: {unsaid} of them say no length; give all but one a share or epochs: that one has what "
            "is left."
        )
    if left <= _TOLERANCE * num_epochs if unsaid else abs(left) > _TOLERANCE * num_epochs:
        raise StudyError(
            f"{where}: come to {said:g} of {num_epochs:g} epochs without warmup"
            f"{', which leaves nothing to the one that says no length' if unsaid else ''}; "
            "make their lengths add up, or leave out that of one, which has what is left."
        )
    phases = []
    for index, (one, length) in enumerate(zip(found, lengths, strict=True)):
        at, epochs = f"{where}[{index}]", _rounded(float(left if length is None else length))
        share = one.get("share")
        phases.append(
            {
                **_resolved_part(at, one, epochs, tuple(_OF_A_PHASE)),
                "share": _rounded(epochs / num_epochs) if share is None else as_number(share),
                "epochs": epochs,
                "factor": _of_a_phase(at, one, "factor", num_epochs) or 1.0,
            }
        )
    return phases


def _length_of_phase(where: str, value: Any, num_epochs: float) -> float | None:
    """In epochs; None where the phase says none."""
    if not isinstance(value, Mapping):
        _resolved_part(where, value, num_epochs)  # says what it should be
    share, epochs = (_of_a_phase(where, value, name, num_epochs) for name in ("share", "epochs"))
    if share is None or epochs is None:
        return epochs if share is None else share * num_epochs
    if not _agree(share * num_epochs, epochs):
        raise StudyError(
            f"{where}: share is {share!r}, but epochs is {epochs!r}, which is the share "
            f"{_rounded(epochs / num_epochs)!r} of {num_epochs:g} epochs; give one of them."
        )
    return epochs


def _of_a_phase(where: str, value: Mapping[str, Any], name: str, num_epochs: float) -> float | None:
    """What a phase says of its length or its factor; None where it says nothing."""
    found = value.get(name)
    return None if found is None else _OF_A_PHASE[name].check(where, name, found, num_epochs)


def _multiplier_of(part: dict[str, Any], t: float, num_epochs: float) -> float:
    """The multiplier of an entry with its parameters, as they were resolved."""
    values = {key: value for key, value in part.items() if key not in _NO_PARAMETERS}
    return find(part["schedule"]).formula(t, num_epochs, **values)


_PARTS = "a list of schedules, each {schedule: name} with its parameters"


@schedule(
    kind=_MADE_OF,
    pictures=(
        {},
        {"phases": [{"schedule": "one_cycle", "epochs": 20}, {"schedule": "rex", "factor": 0.5}]},
    ),
    phases=Made(
        [
            {"schedule": "static", "share": 0.5},
            {"schedule": "cosine", "min_factor": 0.1, "share": 0.3},
            {"schedule": "static", "factor": 0.1},
        ],
        "what runs, one after the other",
        f"{_PARTS}, and share or epochs (one may say neither)",
        _resolved_phases,
    ),
)
def phases(t: float, num_epochs: float, *, phases: list[dict[str, Any]]) -> float:
    """Schedules run one after the other, each over its own length.

        factor_i * schedule_i(t - begin_i)      for begin_i <= t < begin_i + epochs_i

    Every phase has its own clock from 0, and its parameters are shares of its own length; its factor (1
    unless given) multiplies it. At a boundary the later one takes over. One phase may leave its length out.

    Use: any schedule that is known in pieces: a constant rate, then a cosine, then a tenth of it.

    Source: torch's SequentialLR and optax's join_schedules; as data in a configuration Wu et al. 2019, arXiv
    1908.06477 (LRBench, "composite").
    """
    begin = 0.0
    for phase in phases[:-1]:
        if t < begin + phase["epochs"] - _TOLERANCE * num_epochs:
            return phase["factor"] * _multiplier_of(phase, max(0.0, t - begin), phase["epochs"])
        begin += phase["epochs"]
    last = phases[-1]
    return last["factor"] * _multiplier_of(last, min(max(0.0, t - begin), last["epochs"]), last["epochs"])


@schedule(
    kind=_MADE_OF,
    pictures=({}, {"schedules": [{"schedule": "step"}, {"schedule": "cyclical", "num_cycles": 4}]}),
    schedules=Made(
        [
            {"schedule": "cosine_restarts", "num_cycles": 4, "period_mult": 1},
            {"schedule": "exponential", "final_factor": 0.1},
        ],
        "what is multiplied",
        _PARTS,
        _resolved_parts,
    ),
)
def product_of(t: float, num_epochs: float, *, schedules: list[dict[str, Any]]) -> float:
    """Schedules run at the same time and are multiplied.

        schedule_1(t) * schedule_2(t) * ...

    Use: a decay over cycles (by default cosine restarts that decay), a drop in the middle of anything.

    Source: torch's ChainedScheduler.
    """
    return math.prod(_multiplier_of(one, t, num_epochs) for one in schedules)


@schedule(
    kind=_MADE_OF,
    pictures=(
        {},
        {"cycle": {"schedule": "rex"}, "peak_mult": 0.7, "period_mult": 2},
        {"cycle": {"schedule": "cyclical", "num_cycles": 1}, "peak_mult": 0.8},
    ),
    cycle=Made(
        {"schedule": "cosine"},
        "what is repeated",
        "a schedule, {schedule: name} with its parameters",
        _resolved_part,
    ),
    num_cycles=Number(
        None,
        "number of cycles in the training",
        "number",
        ge=1,
        derive=lambda num_epochs, values: _num_cycles(num_epochs, values) if "period" in values else 4,
        derived="what period comes to, else 4",
    ),
    period=Number(
        None,
        "length of the first cycle",
        "epochs",
        gt=0,
        le="num_epochs",
        derive=_period,
        derived="num_epochs / (1 + period_mult + period_mult ** 2 + ...), num_cycles terms",
        form_of="num_cycles",
    ),
    period_mult=Number(1, "how much longer each cycle is than the one before", "factor", ge=1),
    peak_mult=Number(0.5, "how much higher each cycle's peak is than the one before", "factor", gt=0, le=1),
    min_factor=_MIN_FACTOR,
)
def restarts(
    t: float,
    num_epochs: float,
    *,
    cycle: dict[str, Any],
    num_cycles: float,
    period: float,
    period_mult: float,
    peak_mult: float,
    min_factor: float,
) -> float:
    """A schedule begins anew, in cycles that may grow and whose peaks may shrink.

        min_factor + (peak - min_factor) * cycle(s * num_epochs),   peak = max(min_factor, peak_mult ** n)

    where n numbers the cycles from 0 and s is the share of cycle n that is over; the cycles lie as those of
    cosine_restarts. In each the whole schedule runs, over num_epochs compressed into the cycle's length. A
    cycle that ends with the training ends as the schedule ends.

    Use: restarts that come back to less each time; a piecewise cycle from 1 to 0 and back begins with the
    descent.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983 (restarts); shrinking peaks as in timm (cycle_decay).
    """
    number, share = _place_in_cycle(t, num_epochs, period, period_mult)
    peak = max(min_factor, peak_mult**number)
    return min_factor + (peak - min_factor) * _multiplier_of(cycle, share * num_epochs, num_epochs)


# --- Making and composing ---------------------------------------------------------------------------------


def make_schedule(
    name: str,
    num_epochs: float,
    *,
    warmup_epochs: float = 0.0,
    warmup_start_factor: float = 0.01,
    granularity: str = "step",
    **params: Any,
) -> Schedule:
    """Build the schedule ``name`` over ``num_epochs``, with a warmup inside that length if one is wanted.

    Args:
        name: as for :func:`find`.
        num_epochs: length of the training in epochs, above 0; may be a fraction.
        warmup_epochs: epochs of linear rise at the start, 0 <= warmup_epochs < num_epochs; the schedule then
            runs over the num_epochs - warmup_epochs that remain (see :func:`with_warmup`).
        warmup_start_factor: what the warmup starts from, a share of the schedule's first value, in [0, 1].
        granularity: ``step`` changes the rate at every update, ``epoch`` only at the start of an epoch
            (the schedule is given floor(t)).
        params: the schedule's own parameters (see :func:`parameters_of`).

    Raises:
        StudyError: an unknown name, parameter or granularity, or a value out of range.
    """
    factory = find(name)
    where = f"schedule {name}"
    num_epochs = _check_num_epochs(where, num_epochs)
    if granularity not in GRANULARITIES:
        raise unknown(f"{where}: granularity", granularity, GRANULARITIES, "known")
    if not is_number(warmup_epochs) or not 0 <= warmup_epochs < num_epochs:
        raise StudyError(
            f"{where}: warmup_epochs is {warmup_epochs!r}; allowed: 0 <= warmup_epochs < num_epochs = "
            f"{num_epochs:g} (epochs)."
        )
    warmup_epochs = as_number(warmup_epochs)
    inner = factory(num_epochs - warmup_epochs, **params)
    warmed = with_warmup(inner, warmup_epochs, start_factor=warmup_start_factor)
    return _Training(warmed, num_epochs, name, granularity)


def parameters_of(name: str) -> dict[str, Any]:
    """The parameters of the schedule ``name`` with their defaults; None means: follows from the others.

    >>> parameters_of("exponential")
    {'final_factor': None, 'decay_rate': None}
    """
    return {parameter: spec.default for parameter, spec in find(name).parameters.items()}


def resolve_parameters(name: str, num_epochs: float, **params: Any) -> dict[str, Any]:
    """All parameters of the schedule ``name`` as it runs over ``num_epochs`` (without warmup), checked.

    Both forms of a value are there, relative to the length and in epochs. What follows from other values has
    twelve digits, since processors differ in the last bit of a logarithm. Giving the result back, here or to
    :func:`make_schedule`, changes nothing.

    >>> resolve_parameters("step", 10, gamma=0.3)
    {'gamma': 0.3, 'first_drop': 0.5, 'interval': 0.25, 'step_size': 2.5}
    """
    return find(name).resolve(num_epochs, **params)


def shown(value: Any) -> str:
    """A parameter's value as a row says it, a part of a schedule in short: ``cosine (min_factor 0.1)``."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        given = ", ".join(f"{key} {shown(one)}" for key, one in value.items() if key != "schedule")
        return f"{value['schedule']} ({given})" if given else value["schedule"]
    return str(value)


def replace_parameters(name: str, given: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """``given`` with ``values`` in it, and without the other forms of these.

    >>> replace_parameters("exponential", {"decay_rate": 0.3}, {"final_factor": 0.1})
    {'final_factor': 0.1}
    """
    other_forms = {other for one, other in forms_of(name).items() if one in values}
    other_forms |= {one for one, other in forms_of(name).items() if other in values}
    return {key: value for key, value in given.items() if key in values or key not in other_forms} | values


def forms_of(name: str) -> dict[str, str]:
    """The parameters of the schedule ``name`` in epochs, each with the relative one that says the same.

    >>> forms_of("step")
    {'step_size': 'interval'}
    """
    return {key: spec.form_of for key, spec in find(name).parameters.items() if spec.form_of}


def moves(
    name: str,
    num_epochs: float,
    *,
    warmup_epochs: float = 0.0,
    granularity: str = "step",
    steps_per_epoch: int = 100,
    **params: Any,
) -> bool:
    """Whether the schedule is dynamic: its multiplier moves by a tenth of its largest value or more.

    That is largest - smallest >= LEAST_MOVEMENT * largest over the updates of the training, at
    t = step / steps_per_epoch < num_epochs. The warmup does not count: a constant rate can have one too.

    >>> moves("step", 3, gamma=0.1, step_size=1), moves("step", 3, gamma=0.1, step_size=3)
    (True, False)

    Raises:
        StudyError: what :func:`make_schedule` raises.
    """
    return any(
        largest - smallest >= LEAST_MOVEMENT * largest - _TOLERANCE and largest > smallest
        for smallest, largest in _extent(
            name, num_epochs, warmup_epochs, granularity, steps_per_epoch, params
        )
    )


def multiplier_range(
    name: str,
    num_epochs: float,
    *,
    warmup_epochs: float = 0.0,
    granularity: str = "step",
    steps_per_epoch: int = 100,
    **params: Any,
) -> tuple[float, float] | None:
    """The smallest and the largest multiplier over the updates that :func:`moves` looks at.

    None where there is no such update: the warmup determines all of them.
    """
    so_far = _extent(name, num_epochs, warmup_epochs, granularity, steps_per_epoch, params)
    last = deque(so_far, maxlen=1)
    return last[0] if last else None


def _extent(
    name: str, num_epochs: float, warmup_epochs: float, granularity: str, steps_per_epoch: int, params: dict
) -> Iterator[tuple[float, float]]:
    """(smallest, largest) multiplier so far, after each update that the warmup does not determine."""
    schedule = make_schedule(name, num_epochs, warmup_epochs=warmup_epochs, granularity=granularity, **params)
    every = steps_per_epoch if granularity == "epoch" else 1
    smallest, largest = math.inf, -math.inf
    for update in range(0, math.ceil(num_epochs * steps_per_epoch - _TOLERANCE), every):
        t = update / steps_per_epoch
        if t >= warmup_epochs - _TOLERANCE:
            multiplier = schedule(t)
            smallest, largest = min(smallest, multiplier), max(largest, multiplier)
            yield smallest, largest


def with_warmup(schedule: Schedule, warmup_epochs: float, *, start_factor: float = 0.01) -> "_Warmup":
    """Rise linearly to the schedule's first value over ``warmup_epochs``, then run the schedule.

        schedule(0) * (start_factor + (1 - start_factor) * t / warmup_epochs)      for t < warmup_epochs
        schedule(t - warmup_epochs)      after

    The result is ``warmup_epochs`` longer than ``schedule``. The rise starts above zero because the first
    update happens at t = 0 and would otherwise do nothing; torch's LinearLR with the same start_factor gives
    the same rates. Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2.

    >>> warm = with_warmup(make_schedule("static", 8), 2, start_factor=0.5)
    >>> [warm(t) for t in (0, 1, 2, 10)]
    [0.5, 0.75, 1.0, 1.0]
    """
    if not is_number(warmup_epochs) or warmup_epochs < 0:
        raise StudyError(
            f"warmup: warmup_epochs is {warmup_epochs!r}; allowed: a number, 0 or more (epochs)."
        )
    if not is_number(start_factor) or not 0 <= start_factor <= 1:
        raise StudyError(f"warmup: start_factor is {start_factor!r}; allowed: 0 <= start_factor <= 1.")
    return _Warmup(schedule, as_number(warmup_epochs), as_number(start_factor))


def sequence(*parts: tuple[Schedule, float]) -> Schedule:
    """Run schedules one after the other: each of ``parts`` is (schedule, epochs that it runs).

    Every part starts its own clock at 0; at a boundary the later part takes over. The result is as long as
    all parts together.

    >>> half = lambda t: 0.5
    >>> both = sequence((make_schedule("static", 4), 4), (half, 6))
    >>> [both(t) for t in (0, 3.9, 4, 10)]
    [1.0, 1.0, 0.5, 0.5]
    """
    if not parts:
        raise StudyError("sequence: nothing to run; give at least one (schedule, num_epochs).")
    return _Sequence(tuple((part, _check_num_epochs("sequence", length)) for part, length in parts))


def product(*schedules: Schedule) -> Schedule:
    """Multiply schedules point by point; the result is defined where all of them are.

    >>> both = product(make_schedule("cosine", 10), make_schedule("static", 10))
    >>> round(both(5), 12)
    0.5
    """
    if not schedules:
        raise StudyError("product: nothing to multiply; give at least one schedule.")
    return _Product(schedules)


def as_torch_scheduler(
    optimizer: "Optimizer",
    schedule: Schedule,
    steps_per_epoch: int,
    last_epoch: int = -1,
    *,
    controller: "Controller | None" = None,
    replaces: Schedule | None = None,
) -> "ScheduleLR":
    """A ``torch.optim.lr_scheduler.LRScheduler`` that follows ``schedule``.

    Call its ``step()`` after every update of the optimizer; with gradient accumulation that is after every
    ``optimizer.step()``, not after every batch, and ``steps_per_epoch`` counts updates. Each parameter group
    keeps its own base rate. See :class:`lrstudy.torch_schedule.ScheduleLR`. In Lightning::

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    Args:
        optimizer: its groups' ``lr`` (or ``initial_lr``, when resuming) are the base rates.
        schedule: epochs elapsed -> multiplier.
        steps_per_epoch: updates per epoch, at least 1.
        last_epoch: updates already done, minus one, as in every torch scheduler.
        controller: multiplies the rate by its factor, too; tell the scheduler what it is to be told.
        replaces: another schedule, whose saved states this scheduler takes as its own: the way to change the
            length or the schedule in mid-training. The count of updates goes on.
    """
    from lrstudy.torch_schedule import ScheduleLR

    return ScheduleLR(
        optimizer, schedule, steps_per_epoch, last_epoch, controller=controller, replaces=replaces
    )


def schedule_option(
    optimizer: "Optimizer",
    option: str,
    schedule: Schedule,
    steps_per_epoch: int,
    *,
    replaces: Schedule | None = None,
) -> "ScheduleOption":
    """Have an option of an optimizer other than the rate follow a schedule: weight decay, momentum, beta1.

        option = base * schedule(updates / steps_per_epoch)      in every parameter group, with its own base

    Call its ``step()`` after every update, beside the scheduler's. See
    :class:`lrstudy.torch_schedule.ScheduleOption`.

    >>> import torch
    >>> optimizer = torch.optim.AdamW(torch.nn.Linear(3, 1).parameters(), weight_decay=0.1)
    >>> decay = schedule_option(optimizer, "weight_decay", make_schedule("cosine", 2), steps_per_epoch=1)
    >>> optimizer.step()
    >>> decay.step()
    >>> optimizer.param_groups[0]["weight_decay"]
    0.05

    Args:
        optimizer: its groups' present values are the base values.
        option: a number of its parameter groups; ``beta1`` and ``beta2`` are the parts of ``betas``.
        schedule: epochs elapsed -> multiplier.
        steps_per_epoch, replaces: as for :func:`as_torch_scheduler`.

    Raises:
        StudyError: there is no such option, or its value would leave the range that it may have.
    """
    from lrstudy.torch_schedule import ScheduleOption

    return ScheduleOption(optimizer, option, schedule, steps_per_epoch, replaces=replaces)


# --- What is made -----------------------------------------------------------------------------------------
#
# Classes and no closures, since these pickle: a schedule goes to a spawned process and into a checkpoint.


@dataclass(frozen=True, repr=False)
class _Formula:
    """A formula with values for all its parameters."""

    factory: Factory
    num_epochs: float
    values: dict[str, Any] = field(hash=False)

    def __call__(self, t: float) -> float:
        factory = self.factory
        return factory.formula(_checked(t, self.num_epochs, factory.name), self.num_epochs, **self.values)

    def __repr__(self) -> str:
        values = "".join(f", {name}={value!r}" for name, value in self.values.items() if value is not None)
        return f"make_schedule({self.factory.name!r}, {self.num_epochs!r}{values})"


@dataclass(frozen=True, repr=False)
class _Warmup:
    """A linear rise, and then a schedule."""

    schedule: Schedule
    warmup_epochs: float
    start_factor: float

    @property
    def num_epochs(self) -> float:
        return length_of(self.schedule) + self.warmup_epochs

    def __call__(self, t: float) -> float:
        t = float(t)
        after = t - self.warmup_epochs
        if t >= 0 and after < -_TOLERANCE:
            return self.schedule(0.0) * _line(self.start_factor, 1.0, t / self.warmup_epochs)
        return self.schedule(0.0 if abs(after) <= _TOLERANCE else after)

    def __repr__(self) -> str:
        inner, start = described(self.schedule), self.start_factor
        return f"with_warmup({inner}, {self.warmup_epochs!r}, start_factor={start!r})"


@dataclass(frozen=True, repr=False)
class _Training:
    """The schedule ``name`` with its warmup, over the whole training."""

    warmed: _Warmup  # whose schedule is a _Formula
    num_epochs: float
    name: str
    granularity: str

    def __call__(self, t: float) -> float:
        t = _checked(t, self.num_epochs, self.name)
        return self.warmed(float(_floor(t)) if self.granularity == "epoch" else t)

    def __repr__(self) -> str:
        around = ""
        if epochs := self.warmed.warmup_epochs:
            around += f", warmup_epochs={epochs!r}, warmup_start_factor={self.warmed.start_factor!r}"
        if self.granularity != "step":
            around += f", granularity={self.granularity!r}"
        formula: Any = self.warmed.schedule
        return repr(replace(formula, num_epochs=self.num_epochs))[:-1] + around + ")"


@dataclass(frozen=True, repr=False)
class _Sequence:
    """Schedules one after the other, each with its length."""

    parts: tuple[tuple[Schedule, float], ...]

    @functools.cached_property
    def begins(self) -> list[float]:
        return [sum(length for _, length in self.parts[:index]) for index in range(len(self.parts))]

    @property
    def num_epochs(self) -> float:
        return self.begins[-1] + self.parts[-1][1]

    def __call__(self, t: float) -> float:
        t = _checked(t, self.num_epochs, "sequence")
        index = max(i for i, begin in enumerate(self.begins) if begin <= t + _TOLERANCE)
        part, length = self.parts[index]
        return part(min(max(0.0, t - self.begins[index]), length))

    def __repr__(self) -> str:
        return f"sequence({', '.join(f'({described(part)}, {length!r})' for part, length in self.parts)})"


@dataclass(frozen=True, repr=False)
class _Product:
    """Schedules that are multiplied."""

    schedules: tuple[Schedule, ...]

    @property
    def num_epochs(self) -> float:
        return min(length_of(schedule) for schedule in self.schedules)

    def __call__(self, t: float) -> float:
        return math.prod(schedule(t) for schedule in self.schedules)

    def __repr__(self) -> str:
        return f"product({', '.join(described(schedule) for schedule in self.schedules)})"


def length_of(schedule: Schedule) -> float:
    """Up to which epoch a schedule is defined; infinite where it does not say (a plain function)."""
    return getattr(schedule, "num_epochs", math.inf)


def described(schedule: Schedule) -> str:
    """What a schedule is, as text that is the same in every process: how to make it, or a function's name.

    >>> described(make_schedule("cosine", 10, warmup_epochs=1))
    "make_schedule('cosine', 10, min_factor=0.0, warmup_epochs=1, warmup_start_factor=0.01)"
    """
    if isinstance(schedule, functools.partial):
        given = [
            *map(repr, schedule.args),
            *(f"{name}={value!r}" for name, value in schedule.keywords.items()),
        ]
        return f"partial({', '.join([described(schedule.func), *given])})"
    if inspect.isroutine(schedule):
        return f"{schedule.__module__}.{schedule.__qualname__}"
    if repr(schedule) == object.__repr__(schedule):  # it has an address in it
        return f"{type(schedule).__module__}.{type(schedule).__qualname__}"
    return repr(schedule)


# --- Arithmetic -------------------------------------------------------------------------------------------


def _check_num_epochs(where: str, num_epochs: object) -> float:
    if not is_number(num_epochs) or num_epochs <= 0:
        raise StudyError(f"{where}: num_epochs is {num_epochs!r}; allowed: a number above 0 (epochs).")
    return as_number(num_epochs)


def _checked(t: float, num_epochs: float, name: str) -> float:
    if not 0 <= t <= num_epochs * (1 + _TOLERANCE):  # also false for NaN
        raise StudyError(
            f"schedule {name}: there is no rate at t = {t!r}; allowed: 0 <= t <= {num_epochs:g} (epochs "
            "elapsed)."
        )
    return min(float(t), float(num_epochs))


def _rounded(value: Any) -> Any:
    """Twelve digits of a number, or of each in a list: the same on every processor."""
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(_agree(a, b) for a, b in zip(one, other, strict=True))
    return math.isclose(one, other, rel_tol=_TOLERANCE)


def _floor(x: float) -> int:
    return math.floor(x + _TOLERANCE)


def _line(begin: float, end: float, share: float) -> float:
    return begin + (end - begin) * share


def _half_cosine(share: float) -> float:
    """From 1 at share 0 to 0 at share 1."""
    return (1.0 + math.cos(math.pi * share)) / 2.0
