"""Schedules in a loop of torch: :func:`lrstudy.schedules.as_torch_scheduler` and
:func:`lrstudy.schedules.schedule_option` make what stands here; :func:`layerwise_groups` gives layers their
rates.
"""

import numbers
from collections.abc import Callable, Iterable
from typing import Any

from lrstudy.controllers import Controller
from lrstudy.entries.parameters import Number, as_number, is_number
from lrstudy.errors import StudyError, brought_by, unknown
from lrstudy.schedules import Schedule, described, length_of

with brought_by("torch"):
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class _Updates:
    """What follows a schedule by counting updates: which multiplier holds, and which state is its own."""

    optimizer: Optimizer
    schedule: Schedule
    steps_per_epoch: int
    last_epoch: int
    _where: str
    _of_groups = "base_lrs"  # the entry of a state that has a value for each parameter group

    def _follow(
        self, optimizer: Optimizer, schedule: Schedule, steps_per_epoch: int, replaces: Schedule | None
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise StudyError(
                f"{self._where}: found a {type(optimizer).__name__}; give a torch.optim.Optimizer."
            )
        self.schedule = schedule
        self.steps_per_epoch = _whole(self._where, "steps_per_epoch", steps_per_epoch, least=1)
        self._replaces = replaces

    def _multiplier(self, update: float) -> float:
        """The schedule's value at an update, counted from 0."""
        num_epochs = length_of(self.schedule)
        num_updates = num_epochs * self.steps_per_epoch
        if update > num_updates * (1 + 1e-9):
            raise StudyError(
                f"{self._where}: there is no update {update:g}: the schedule ends after {num_updates:g}, "
                f"{num_epochs:g} epochs x steps_per_epoch {self.steps_per_epoch} (t = "
                f"{update / self.steps_per_epoch:g} epochs elapsed). steps_per_epoch counts calls of "
                "optimizer.step(): len(loader), with gradient accumulation math.ceil(len(loader) / "
                "accumulate). Make the scheduler again with the right count, or stop here; its state is "
                "still that of the update before, and can be saved and loaded."
            )
        return self.schedule(update / self.steps_per_epoch)

    def _own_state(self, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"schedule": described(self.schedule)}

    def _check_state(self, state: dict[str, Any]) -> None:
        """Raises StudyError for a state that is not one of this scheduler, before anything has changed."""
        where = self._where
        expected = ("steps_per_epoch", "last_epoch", self._of_groups)
        if not isinstance(state, dict) or any(key not in state for key in expected):
            found = ", ".join(map(str, state)) if isinstance(state, dict) else repr(state)
            raise StudyError(
                f"{where}: found {found or 'an empty state'}, which is no state of a {type(self).__name__}; "
                f"allowed: what its state_dict() gave, with {', '.join(expected)}."
            )
        saved = state["steps_per_epoch"]
        if saved != self.steps_per_epoch:
            raise StudyError(
                f"{where}: the state was saved with steps_per_epoch {saved}, this scheduler has "
                f"{self.steps_per_epoch}; make it with {saved} to resume."
            )
        mine = described(self.schedule)
        allowed = {mine} if self._replaces is None else {mine, described(self._replaces)}
        # Until 0.2.0 a state did not know its schedule.
        if (schedule := state.get("schedule", mine)) not in allowed:
            raise StudyError(
                f"{where}: the state was saved with the schedule {schedule}, this scheduler has {mine}; "
                "make it with the saved one to resume. To go on with another one on purpose, give the saved "
                "one as replaces=."
            )
        count, groups = len(state[self._of_groups]), len(self.optimizer.param_groups)
        if count != groups:
            raise StudyError(
                f"{where}: the state has {count} parameter groups, the optimizer {groups}; make the groups "
                "of the optimizer as they were when the state was saved, and load it then."
            )


class ScheduleLR(_Updates, LRScheduler):
    """Sets the rate of every parameter group before each update.

        lr = base_lr * schedule(updates / steps_per_epoch) * controller.factor

    ``updates`` counts the calls of :meth:`step`; torch calls it ``last_epoch``. The rate is a function of
    that count and the controller's factor alone, so a resumed run goes on exactly where it stopped. The state
    holds plain values only (no functions), says which schedule it is of, and loads with
    ``torch.load(weights_only=True)``. The whole scheduler pickles, too.

    A group that is added to the optimizer later keeps the ``lr`` that it is given as its base rate, and
    follows the schedule from the next :meth:`step` on.

    With a controller, tell the scheduler what the controller is to be told, :meth:`after_epoch` and
    :meth:`before_step`: what changes holds at once, from the next update on.

    Raises:
        StudyError: ``steps_per_epoch`` is not a whole number above 0; a loaded state is of another schedule,
            ``steps_per_epoch``, number of groups or controller; :meth:`step` goes past the schedule's end, or
            the controller was told past the scheduler. What is refused changes nothing.
    """

    _where = "as_torch_scheduler"

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Callable[[float], float],
        steps_per_epoch: int,
        last_epoch: int = -1,
        *,
        controller: Controller | None = None,
        replaces: Callable[[float], float] | None = None,
    ) -> None:
        self._follow(optimizer, schedule, steps_per_epoch, replaces)
        self.controller = Controller() if controller is None else controller
        self._factor = self.controller.factor  # with which the rates are set
        super().__init__(optimizer, _whole(self._where, "last_epoch", last_epoch, least=-1))

    @property
    def loss_scale(self) -> float:
        """What to multiply the loss of the next update by: the schedule, where ``controller.scales_loss``."""
        return self._multiplier(self.last_epoch) if self.controller.scales_loss else 1.0

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the present update."""
        factor = 1.0 if self.controller.scales_loss else self._multiplier(self.last_epoch)
        return [base_lr * factor * self._factor for base_lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next update; call it after each ``optimizer.step()``."""
        if self.controller.factor != self._factor:
            raise StudyError(
                f"{self._where}: the controller {self.controller.name} changed its factor from "
                f"{self._factor:g} to {self.controller.factor:g}, and the scheduler was not told; call "
                "after_epoch() and before_step() of the scheduler, not of the controller."
            )
        epoch = None if epoch is None else as_number(epoch)  # type: ignore[assignment]  # torch takes floats
        # What is refused is refused here, before torch counts.
        self._multiplier(self.last_epoch + 1 if epoch is None else epoch)
        self._adopt_groups()
        super().step(epoch)

    def after_epoch(self, *, epoch: int, **metrics: float) -> None:
        """Tell the controller of an epoch (:class:`lrstudy.controllers.Controller`), and set the rates."""
        self.controller.after_epoch(epoch=epoch, **metrics)
        self._set_rates()

    def before_step(self, *, zero_share: float) -> None:
        """Tell the controller of a batch (:class:`lrstudy.controllers.Controller`), and set the rates."""
        self.controller.before_step(zero_share=zero_share)
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of the schedule what it is, of the controller its state."""
        self._adopt_groups()
        left_out = ("controller", "_replaces", "_factor")
        state = {key: value for key, value in super().state_dict().items() if key not in left_out}
        return self._own_state(state) | {"controller": self.controller.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; also sets the optimizer's rates.

        Making a scheduler overwrites the rates, so without that a checkpoint of the optimizer that was loaded
        earlier would take one update at the rate of update 0.
        """
        self._check_state(state_dict)
        self._multiplier(state_dict["last_epoch"])
        if "controller" in state_dict or self.controller.name != "none":
            self.controller.load_state_dict(state_dict.get("controller", {}))
        left_out = ("controller", "schedule")
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in left_out})
        self._set_rates()

    def _adopt_groups(self) -> None:
        """Give groups that have been added since a base rate: the rate that they came with."""
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            lr = group["lr"]
            group.setdefault("initial_lr", lr.clone() if isinstance(lr, Tensor) else lr)
            self.base_lrs = [*self.base_lrs, group["initial_lr"]]  # saved states have the former list

    def _set_rates(self) -> None:
        self._factor = self.controller.factor
        self._adopt_groups()
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            _set(group, "lr", lr)
        self._last_lr = [_copied(group["lr"]) for group in self.optimizer.param_groups]


class ScheduleOption(_Updates):
    """Sets an option other than the rate in every parameter group before each update.

        option = base * schedule(updates / steps_per_epoch)

    Like :class:`ScheduleLR` for what is not the rate: :func:`schedule_option` makes it. Groups that are
    added later follow from the next :meth:`step` on.
    """

    _of_groups = "base_values"

    def __init__(
        self,
        optimizer: Optimizer,
        option: str,
        schedule: Callable[[float], float],
        steps_per_epoch: int,
        *,
        replaces: Callable[[float], float] | None = None,
    ) -> None:
        self._where = "schedule_option"
        self._follow(optimizer, schedule, steps_per_epoch, replaces)
        self.optimizer = optimizer
        self.option = option
        self.base_values: list[float] = []
        self._go_to(0)

    def step(self) -> None:
        """Set the values of the next update; call it after each ``optimizer.step()``."""
        self._go_to(self.last_epoch + 1)

    def get_last_value(self) -> list[float]:
        """The present value in each parameter group."""
        return [float(self._get(group)) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Plain values: the option, its schedule, the base values and the count of updates."""
        names = ("option", "steps_per_epoch", "last_epoch", "base_values")
        self._adopt_groups()
        state = {name: getattr(self, name) for name in names}
        return self._own_state(state | {"base_values": [*self.base_values]})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; also sets the optimizer's values."""
        self._check_state(state_dict)
        if state_dict.get("option") != self.option:
            raise StudyError(
                f"{self._where}: the state is of {state_dict.get('option')!r}, and {self.option!r} is "
                "scheduled here; load that of the same option."
            )
        self.base_values = [*state_dict["base_values"]]
        self._go_to(state_dict["last_epoch"])

    def _get(self, group: dict[str, Any]) -> float | Tensor:
        if self.option in ("beta1", "beta2") and "betas" in group:
            return group["betas"][self.option == "beta2"]
        value = group.get(self.option)
        if not (is_number(value) or isinstance(value, Tensor)) or self.option in ("lr", "initial_lr"):
            named = {name for name, one in group.items() if is_number(one)} - {"lr", "initial_lr"}
            named |= {"beta1", "beta2"} if "betas" in group else set()
            raise unknown(
                self._where,
                self.option,
                named,
                f"an option of {type(self.optimizer).__name__} that is a number",
            )
        return value

    def _adopt_groups(self) -> None:
        """Groups that are new have what they came with as their base."""
        new = self.optimizer.param_groups[len(self.base_values) :]
        self.base_values += [float(self._get(group)) for group in new]

    def _go_to(self, update: int) -> None:
        self._adopt_groups()
        multiplier = self._multiplier(update)
        values = [base * multiplier for base in self.base_values]
        below_one = self.option in ("momentum", "beta1", "beta2", "alpha", "rho")
        for value in values:
            if not value >= 0 or (below_one and value >= 1):
                raise StudyError(
                    f"{self._where}: {self.option} would be {value:g} at update {update} (t = "
                    f"{update / self.steps_per_epoch:g} epochs elapsed, multiplier {multiplier:g}); allowed: "
                    f"0 <= {self.option}{' < 1' if below_one else ''}. The schedule multiplies the "
                    "optimizer's own value."
                )
        self.last_epoch = update
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            if self.option in ("beta1", "beta2") and "betas" in group:
                betas = [*group["betas"]]
                betas[self.option == "beta2"] = value
                group["betas"] = tuple(betas)
            else:
                _set(group, self.option, value)


def layerwise_groups(
    layers: Module | Iterable[Module],
    base_lr: float,
    *,
    decay: float = 1.0,
    bias_factor: float = 1.0,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Parameter groups for any optimizer, each with a base rate of its own: the earlier a layer, the lower.

        base_lr * decay ** (L - l)      for the matrices, kernels and embeddings of layer l of L base_lr *
        decay ** (L - l) * bias_factor      for its biases and normalization scales, without weight decay

    A schedule holds for every group with the group's own base rate: :class:`ScheduleLR` and the study's loop.

    >>> from torch.nn import Linear, Sequential
    >>> groups = layerwise_groups(Sequential(Linear(4, 3), Linear(3, 2)), 0.1, decay=0.5, bias_factor=2.0)
    >>> [group["lr"] for group in groups]
    [0.05, 0.1, 0.1, 0.2]

    Args:
        layers: the layers from the first to the last; of a module its children.
        base_lr: of the last layer.
        decay: what each layer's rate is of the next one's, above 0; 1 gives all the same.
        bias_factor: for parameters with fewer than two dimensions, 0 or more.
        weight_decay: for the others.

    A parameter of several layers belongs to the first of them; one that is not trained to none.

    Source: Howard and Ruder 2018, arXiv 1801.06146, section 3.2 (discriminative fine-tuning, decay 1 / 2.6);
    Clark et al. 2020, arXiv 2003.10555, appendix A.

    Raises:
        StudyError: a value out of range, or trained parameters of the module that are in none of its
        children.
    """
    where = "layerwise_groups"
    base_lr = Number(gt=0).check(where, "base_lr", base_lr)
    decay = Number(gt=0).check(where, "decay", decay)
    bias_factor = Number(ge=0).check(where, "bias_factor", bias_factor)
    weight_decay = Number(ge=0).check(where, "weight_decay", weight_decay)
    if isinstance(layers, Module):
        missed = [name for name, one in layers.named_parameters(recurse=False) if one.requires_grad]
        if missed:
            raise StudyError(
                f"{where}: {type(layers).__name__} has {', '.join(missed)} beside its children; give the "
                "layers as a list, from the first to the last."
            )
        layers = layers.children()
    layers, seen, groups = list(layers), set(), []
    for number, layer in enumerate(layers, start=1):
        new = [one for one in layer.parameters() if one.requires_grad and one not in seen]
        seen.update(new)
        lr = base_lr * decay ** (len(layers) - number)
        groups += [
            {"params": [one for one in new if one.ndim >= 2], "lr": lr, "weight_decay": weight_decay},
            {"params": [one for one in new if one.ndim < 2], "lr": lr * bias_factor, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def _whole(where: str, name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise StudyError(
            f"{where}: {name} is {value!r}; allowed: a whole number of optimizer updates, {least} or more."
        )
    return int(value)


def _set(group: dict[str, Any], name: str, value: Any) -> None:
    """In place where it is a tensor: compiled and capturable optimizers hold on to it."""
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
