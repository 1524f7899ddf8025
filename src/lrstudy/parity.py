"""torch's own learning-rate schedulers as the yardstick for ours: python -m lrstudy.preview --parity."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs
from torch.optim.lr_scheduler import LRScheduler

from lrstudy.schedules import make_schedule


@dataclass(frozen=True)
class Parity:
    """How far a schedule is from torch's scheduler of the same kind, over a whole training."""

    schedule: str
    torch_class: str
    difference: float
    """Largest absolute difference of the rates, at base rate 1."""


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
        ours = make_schedule(schedule, num_epochs, **settings)
        torch_class, theirs = _rates(make, total)
        difference = max(abs(ours(update / n) - rate) for update, rate in enumerate(theirs))
        shown = {key: value for key, value in settings.items() if key != "warmup_start_factor"}
        label = ", ".join([schedule, *(f"{key} {value}" for key, value in shown.items())])
        rows.append(Parity(label, torch_class, difference))

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
    warmup = {"warmup_epochs": 3, "warmup_start_factor": 0.2}
    linear = partial(lrs.LinearLR, start_factor=0.2, total_iters=3 * n)
    compare("static", linear, **warmup)
    compare(
        "cosine",
        lambda o: lrs.SequentialLR(o, [linear(o), lrs.CosineAnnealingLR(o, total - 3 * n)], [3 * n]),
        **warmup,
    )
    return rows


def _rates(make: Callable[[Optimizer], LRScheduler], num_updates: int) -> tuple[str, list[float]]:
    """The name of a torch scheduler and its rates at updates 0, 1, ..., num_updates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    name = type(scheduler).__name__
    closed_form = scheduler if isinstance(scheduler, lrs.CosineAnnealingLR) else None
    rates: list[float] = []
    for _ in range(num_updates + 1):
        lr = closed_form._get_closed_form_lr()[0] if closed_form else optimizer.param_groups[0]["lr"]
        rates.append(float(lr))
        if len(rates) <= num_updates:
            optimizer.step()
            scheduler.step()
    return name, rates
