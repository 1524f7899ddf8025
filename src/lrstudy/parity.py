"""Other libraries' schedules as the yardstick for ours: python -m lrstudy.preview --parity.

torch's are always there; those of :data:`PEERS` are compared where they are installed
(``pip install -r requirements-peers.txt``).
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lrstudy.errors import StudyError, brought_by
from lrstudy.schedules import make_schedule, shown

with brought_by("torch"):
    import torch
    from torch.optim import Optimizer
    from torch.optim import lr_scheduler as lrs
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class Parity:
    """How far a schedule is from another library's of the same kind, over a whole training."""

    schedule: str
    theirs: str
    difference: float
    """Largest absolute difference of the rates, at base rate 1."""


def _row(
    schedule: str,
    theirs: str,
    rates: Sequence[float],
    num_epochs: float,
    n: int,
    *,
    first: int = 0,
    **settings: Any,
) -> Parity:
    """Our schedule at updates ``first``, first + 1, ..., n to an epoch, against their rates at these."""
    ours = make_schedule(schedule, num_epochs, **settings)
    difference = max(abs(ours(update / n) - rate) for update, rate in enumerate(rates, first))
    told = [f"{key} {shown(value)}" for key, value in settings.items() if key != "warmup_start_factor"]
    return Parity(", ".join([schedule, *told]), theirs, difference)


def parity_with_torch(num_epochs: int = 12, steps_per_epoch: int = 10) -> list[Parity]:
    """Run torch's own schedulers beside ours, update by update, the last one (t = num_epochs) included.

    torch counts updates where ours count epochs, so its settings are ours times ``steps_per_epoch``, and a
    decay rate per epoch becomes ``exp(-decay_rate / steps_per_epoch)`` per update. Two schedulers need care:

    - CosineAnnealingLR is compared by its closed form; its recursion keeps climbing past T_max.
    - OneCycleLR puts its peak and its end one update before ours, at the last update instead of after it.
      It is asked for one update more, and for its peak one later.
    """
    n = steps_per_epoch
    total = num_epochs * n
    rows = []

    def compare(schedule: str, make: Callable[[Optimizer], LRScheduler], **settings: Any) -> None:
        torch_class, theirs = _rates(make, total)
        rows.append(_row(schedule, torch_class, theirs, num_epochs, n, **settings))

    compare("step", lambda o: lrs.StepLR(o, 5 * n, gamma=0.3), gamma=0.3, step_size=5)
    compare(
        "multistep", lambda o: lrs.MultiStepLR(o, [3 * n, 7 * n], gamma=0.2), gamma=0.2, milestones=[3, 7]
    )
    compare("exponential", lambda o: lrs.ExponentialLR(o, math.exp(-0.3 / n)), decay_rate=0.3)
    for power in (1.0, 2.0):
        compare("polynomial", partial(lrs.PolynomialLR, total_iters=total, power=power), power=power)
    compare("cosine", lambda o: lrs.CosineAnnealingLR(o, total, eta_min=0.1), min_factor=0.1)
    for period, mult in ((5, 1), (2, 2)):
        compare(
            "cosine_restarts",
            partial(lrs.CosineAnnealingWarmRestarts, T_0=period * n, T_mult=mult, eta_min=0.1),
            period=period,
            period_mult=mult,
            min_factor=0.1,
        )
    for mode, decay in (
        ("triangular", {"decay": "none"}),
        ("triangular2", {"decay": "halve"}),
        ("exp_range", {"decay": "exponential", "decay_rate": 0.2}),
    ):
        cycle = partial(lrs.CyclicLR, base_lr=0.1, max_lr=1.0, step_size_up=2 * n, cycle_momentum=False)
        compare("cyclical", partial(cycle, mode=mode, gamma=math.exp(-0.2 / n)), period=4, **decay)
    compare(
        "one_cycle",
        lambda o: lrs.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=total + 1,
            pct_start=(0.25 * total + 1) / (total + 1),
            anneal_strategy="linear",
            cycle_momentum=False,
        ),
        peak_at=0.25,
    )
    one_cycle: Callable[[Optimizer], LRScheduler] = partial(
        lrs.OneCycleLR,
        max_lr=1.0,
        total_steps=total + 1,
        pct_start=(0.25 * total + 1) / (total + 1),
        base_momentum=0.85,
        max_momentum=0.95,
    )
    compare("one_cycle_cosine", one_cycle, peak_at=0.25)
    momentum = _rates(one_cycle, total, "momentum")[1]
    points = [[0, 0.95], [0.25, 0.85], [1, 0.95]]
    rows.append(
        _row(
            "piecewise",
            "OneCycleLR: momentum",
            momentum,
            num_epochs,
            n,
            points=points,
            interpolation="cosine",
        )
    )
    warmup = {"warmup_epochs": 3, "warmup_start_factor": 0.2}
    linear = partial(lrs.LinearLR, start_factor=0.2, total_iters=3 * n)
    compare("static", linear, **warmup)
    compare(
        "cosine",
        lambda o: lrs.SequentialLR(o, [linear(o), lrs.CosineAnnealingLR(o, total - 3 * n)], [3 * n]),
        **warmup,
    )
    return rows


def _rates(
    make: Callable[[Optimizer], LRScheduler], num_updates: int, option: str = "lr"
) -> tuple[str, list[float]]:
    """The name of a torch scheduler and its rates at updates 0, 1, ..., num_updates."""
    optimizer = _optimizer()
    scheduler = make(optimizer)
    name = type(scheduler).__name__
    closed_form = scheduler if isinstance(scheduler, lrs.CosineAnnealingLR) else None
    rates: list[float] = []
    for _ in range(num_updates + 1):
        rate = closed_form._get_closed_form_lr()[0] if closed_form else optimizer.param_groups[0][option]
        rates.append(float(rate))
        if len(rates) <= num_updates:
            optimizer.step()
            scheduler.step()
    return name, rates


def _optimizer() -> Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)


# --- Other libraries --------------------------------------------------------------------------------------


def parity_with(peer: str, num_epochs: int = 14, steps_per_epoch: int = 10) -> list[Parity]:
    """Run the schedules of one of :data:`PEERS` beside ours, update by update.

    Left out is what is theirs alone: the update after the last one, where timm's rates jump, and the first
    one of pytorch_optimizer's REX, whose rate is its lowest. transformers' warmup-stable-decay begins with
    the rate that it ends with, and ours is told to.

    Raises:
        StudyError: the package is not installed.
    """
    if not is_installed(peer):
        raise StudyError(f"{peer} is not installed; pip install -r requirements-peers.txt brings it.")
    return PEERS[peer](num_epochs, steps_per_epoch)


def is_installed(peer: str) -> bool:
    """Whether the package can be imported here."""
    return importlib.util.find_spec(peer) is not None


def _timm(num_epochs: int, n: int) -> list[Parity]:
    from timm import scheduler as timm

    def compare(schedule: str, class_name: str, given: dict[str, Any], **settings: Any) -> Parity:
        optimizer = _optimizer()
        theirs = getattr(timm, class_name)(optimizer, t_in_epochs=False, **given)
        rates = []
        for update in range(num_epochs * n):
            theirs.step_update(update)
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return _row(schedule, f"timm {class_name}", rates, num_epochs, n, **settings)

    total = num_epochs * n
    rows = [
        compare(
            "tanh",
            "TanhLRScheduler",
            {"t_initial": total, "lb": -6.0, "ub": 3.0, "lr_min": 0.1},
            min_factor=0.1,
        ),
        compare("cosine", "CosineLRScheduler", {"t_initial": total, "lr_min": 0.1}, min_factor=0.1),
        compare("polynomial", "PolyLRScheduler", {"t_initial": total, "power": 0.5}, power=0.5),
    ]
    cycles = {"t_initial": 2 * n, "cycle_mul": 2.0, "cycle_limit": 3, "cycle_decay": 0.5}
    for cycle, class_name in (
        ({"schedule": "cosine"}, "CosineLRScheduler"),
        ({"schedule": "tanh", "lower": -7.0}, "TanhLRScheduler"),
        ({"schedule": "polynomial", "power": 0.5}, "PolyLRScheduler"),
    ):
        rows.append(
            compare(
                "restarts",
                class_name,
                cycles | {"lr_min": 0.1},
                cycle=cycle,
                period=2,
                period_mult=2,
                peak_mult=0.5,
                min_factor=0.1,
            )
        )
    return rows


def _transformers(num_epochs: int, n: int) -> list[Parity]:
    from transformers import optimization

    total, warmup = num_epochs * n, 4 * n

    def compare(schedule: str, function: str, given: dict[str, Any], **settings: Any) -> Parity:
        _, rates = _rates(partial(getattr(optimization, function), **given), total)
        warmed = {"warmup_epochs": 4, "warmup_start_factor": 0.0} | settings
        return _row(schedule, f"transformers {function}", rates, num_epochs, n, **warmed)

    length = {"num_warmup_steps": warmup, "num_training_steps": total}
    rows = [
        compare(
            "late_decay",
            "get_wsd_schedule",
            length | {"num_decay_steps": 4 * n, "decay_type": shape, "min_lr_ratio": 0.1},
            start=0.6,
            shape=shape,
            min_factor=0.1,
            warmup_start_factor=0.1,
        )
        for shape in ("linear", "cosine", "1-sqrt")
    ]
    hard_restarts = "get_cosine_with_hard_restarts_schedule_with_warmup"
    wave = {"schedule": "piecewise", "points": [[0, 1], [0.5, 0], [1, 1]], "interpolation": "cosine"}
    return [
        *rows,
        compare("polynomial", "get_linear_schedule_with_warmup", length, power=1),
        compare("cosine", "get_cosine_schedule_with_warmup", length),
        compare(
            "restarts", "get_cosine_schedule_with_warmup", length | {"num_cycles": 2},
            cycle=wave, num_cycles=2, peak_mult=1,
        ),
        compare(
            "cosine_restarts", hard_restarts, length | {"num_cycles": 4}, num_cycles=4, period_mult=1,
        ),
    ]  # fmt: skip


def _optax(num_epochs: int, n: int) -> list[Parity]:
    import jax
    import optax

    total = num_epochs * n
    rows = []

    def compare(schedule: str, theirs: Callable, name: str, **settings: Any) -> None:
        rates = [float(theirs(update)) for update in range(total + 1)]
        rows.append(_row(schedule, f"optax {name}", rates, num_epochs, n, **settings))

    with jax.enable_x64(True):
        cosine_cycle = optax.cosine_onecycle_schedule(total, 1.0, pct_start=0.5)
        # Their last value is relative to the first, as torch's; 1/25/10000 both.
        compare("one_cycle_cosine", cosine_cycle, "cosine_onecycle_schedule", peak_at=0.5, end_factor=4e-6)
        points = {total // 7: 0.5, 4 * total // 7: 0.2}
        shares = [[0, 1], [1 / 7, 0.5], [4 / 7, 0.1]]
        for how in ("linear", "cosine"):
            theirs = optax.piecewise_interpolate_schedule(how, 1.0, points)
            compare("piecewise", theirs, "piecewise_interpolate_schedule", points=shares, interpolation=how)
        theirs = optax.piecewise_constant_schedule(1.0, points)
        compare("piecewise", theirs, "piecewise_constant_schedule", points=shares, interpolation="constant")
        cycles = [
            {"init_value": 0.5**k, "peak_value": 0.5**k, "warmup_steps": 0, "decay_steps": 2 * n * 2**k}
            for k in range(3)
        ]
        compare(
            "restarts", optax.sgdr_schedule(cycles), "sgdr_schedule", period=2, period_mult=2, peak_mult=0.5
        )
        parts = [
            optax.constant_schedule(1.0),
            optax.cosine_decay_schedule(1.0, 4 * n, alpha=0.1),
            optax.linear_schedule(0.1, 0.0, 4 * n),
        ]
        phases = [
            {"schedule": "static"},
            {"schedule": "cosine", "min_factor": 0.1, "epochs": 4},
            {"schedule": "polynomial", "power": 1, "epochs": 4, "factor": 0.1},
        ]
        joined = optax.join_schedules(parts, [total - 8 * n, total - 4 * n])
        compare("phases", joined, "join_schedules", phases=phases)
        decay = optax.exponential_decay(1.0, n, math.exp(-0.3))
        compare("exponential", decay, "exponential_decay", decay_rate=0.3)
    return rows


def _pytorch_optimizer(num_epochs: int, n: int) -> list[Parity]:
    from pytorch_optimizer import lr_scheduler

    total = num_epochs * n
    optimizer = _optimizer()
    rex = lr_scheduler.REXScheduler(optimizer, total)
    rates = []
    for _ in range(1, total):
        optimizer.step()
        rex.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    rows = [_row("rex", "pytorch_optimizer REXScheduler", rates, num_epochs, n, first=1)]
    for shape in ("1-sqrt", "1-square", "linear"):
        theirs = partial(
            lr_scheduler.get_wsd_schedule,
            num_warmup_steps=0,
            num_stable_steps=total - 7 * n,
            num_decay_steps=7 * n,
            cooldown_type=shape,
        )
        _, rates = _rates(theirs, total)
        rows.append(
            _row(
                "late_decay", "pytorch_optimizer get_wsd_schedule", rates, num_epochs, n,
                start=0.5, shape=shape, min_factor=0.0,
            )
        )  # fmt: skip
    return rows


PEERS: dict[str, Callable[[int, int], list[Parity]]] = {
    "optax": _optax,
    "timm": _timm,
    "transformers": _transformers,
    "pytorch_optimizer": _pytorch_optimizer,
}
"""Libraries with schedules, by the package's name, and what of theirs is compared."""
