"""Schedules as torch's learning-rate schedulers: :func:`lrstudy.schedules.as_torch_scheduler` makes them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrstudy.errors import StudyError


class ScheduleLR(LRScheduler):
    """Sets ``lr = base_lr * schedule(updates / steps_per_epoch)`` in every parameter group.

    ``updates`` counts the calls of :meth:`step`; torch calls it ``last_epoch``. The rate is a function of
    that count alone, so a resumed run goes on exactly where it stopped. The state holds numbers only (no
    functions) and loads with ``torch.load(weights_only=True)``.

    Raises:
        StudyError: ``steps_per_epoch`` is not a whole number above 0, or differs from that of a loaded state;
            :meth:`step` goes past the schedule's end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Callable[[float], float],
        steps_per_epoch: int,
        last_epoch: int = -1,
    ) -> None:
        if isinstance(steps_per_epoch, bool) or not isinstance(steps_per_epoch, int) or steps_per_epoch < 1:
            raise StudyError(
                f"as_torch_scheduler: steps_per_epoch is {steps_per_epoch!r}; allowed: a whole number of "
                "optimizer updates, 1 or more."
            )
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the present update."""
        factor = self.schedule(self.last_epoch / self.steps_per_epoch)
        return [base_lr * factor for base_lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and the schedule, which is made again from its name and parameters."""
        return {key: value for key, value in super().state_dict().items() if key != "schedule"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; also sets the optimizer's rates.

        Making a scheduler overwrites the rates, so without that a checkpoint of the optimizer that was loaded
        earlier would take one update at the rate of update 0.
        """
        saved = state_dict.get("steps_per_epoch")
        if saved != self.steps_per_epoch:
            raise StudyError(
                f"as_torch_scheduler: the state was saved with steps_per_epoch {saved}, this scheduler has "
                f"{self.steps_per_epoch}; make it with {saved} to resume."
            )
        super().load_state_dict(state_dict)
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
