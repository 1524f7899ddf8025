"""Trainings that begin alike: as long as their rates agree, two that differ in schedule or controller are
one.

A schedule is a pure function of time and a controller one of what it was told, and for a seed every training
of a model begins with the same weights and meets the same batches. So static, a step before its first drop, a
late decay before its start and a monitor before its first intervention are the same training, bit for bit.
What has been trained once can be branched from: its state after an epoch is the state that the other one
would have come to.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lrstudy.controllers import Controller, make_controller, tell
from lrstudy.controllers import find as find_controller
from lrstudy.schedules import make_schedule

_OF_ITS_OWN = ("schedule", "controller")


def trunk_key(settings: Mapping[str, Any], data: str) -> str | None:
    """What two trainings must have alike to have anything in common, as text; None for one that shares
    nothing.

    All settings but the schedule and the controller, and the data's fingerprint. A controller that acts
    within
    an epoch, or on the loss, is left out: its rates follow from no schedule. So is what need not come out
    the same
    to the bit if it is done twice: an accelerator's kernels, and those of torch.compile.
    """
    controller = find_controller(settings["controller"]["name"])
    if settings["device"] != "cpu" or settings["compile"] or controller.needs or controller.scales_loss:
        return None
    alike = {name: value for name, value in settings.items() if name not in _OF_ITS_OWN}
    return json.dumps([alike, data], sort_keys=True)


def multipliers(settings: Mapping[str, Any], epoch: int, steps_per_epoch: int) -> tuple[float, ...]:
    """What the schedule multiplies the base rate by, in each update of an epoch, from 0."""
    text = json.dumps([settings["schedule"], settings["num_epochs"]], sort_keys=True)
    return _multipliers(text, epoch, steps_per_epoch)


@functools.lru_cache(maxsize=4096)
def _multipliers(text: str, epoch: int, steps_per_epoch: int) -> tuple[float, ...]:
    chosen, num_epochs = json.loads(text)
    schedule = make_schedule(
        chosen["function"],
        num_epochs,
        warmup_epochs=chosen["warmup_epochs"],
        granularity=chosen["granularity"],
        **chosen["parameters"],
    )
    return tuple(schedule(epoch + step / steps_per_epoch) for step in range(steps_per_epoch))


def agreeing_epochs(mine: Mapping[str, Any], theirs: Mapping[str, Any], steps_per_epoch: int) -> int:
    """In how many epochs from the first the schedules of two trainings with one :func:`trunk_key` agree.

    With a controller it may be fewer: :func:`agreeing_with` and :func:`branched` find out.
    """
    for epoch in range(mine["num_epochs"]):
        if multipliers(mine, epoch, steps_per_epoch) != multipliers(theirs, epoch, steps_per_epoch):
            return epoch
    return mine["num_epochs"]


def factors(settings: Mapping[str, Any], epochs: Iterable[Mapping[str, Any]]) -> Iterator[Controller]:
    """The controller of a training with these settings before each of ``epochs``, and after the last of them.

    Args:
        epochs: what a training that began alike has recorded; the controller is told of its metrics.
    """
    controller = make_controller(**settings["controller"], num_epochs=settings["num_epochs"])
    yield controller
    for record in epochs:
        if math.isfinite(record["validation/loss"]) and math.isfinite(record["train/loss"]):
            tell(controller, record)
        yield controller


def branched(settings: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a training with these settings, from that of another with the same :func:`trunk_key`.

    The rates that the other one had are compared, update by update, with those that this one would have had.

    Args:
        settings: of this training.
        state: the other's checkpoint, as :func:`lrstudy.training.loop.train` makes it.

    Returns:
        None where the rates differ in an update before the checkpoint.
    """
    base_lr, epochs = settings["optimizer"]["base_lr"], []
    replay = factors(settings, state["epochs"])
    controller = next(replay)
    for record in state["epochs"]:
        rates = record["steps"]["lr"]
        mine = multipliers(settings, record["epoch"] - 1, len(rates))
        # In the order in which the loop multiplies.
        if rates != [base_lr * controller.factor * multiplier for multiplier in mine]:
            return None
        before = len(controller.interventions)
        next(replay)
        made = {"controller_factor": controller.factor, "interventions": controller.interventions[before:]}
        epochs.append(record | made)
    return dict(state) | {"controller": controller.state_dict(), "epochs": epochs}


def agreeing_with(
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    steps_per_epoch: int,
) -> list[dict[str, Any]]:
    """The epochs from the first that a training has in common with a finished one with the same
    :func:`trunk_key`.

    Args:
        history: of the other one, by epoch, as its record has it.

    Returns:
        these epochs as this training would have recorded them.
    """
    replay = factors(mine, history)
    controller = next(replay)
    factor = controller.factor  # as every controller's, 1 at the start
    epochs: list[dict[str, Any]] = []
    for record in history[: agreeing_epochs(mine, theirs, steps_per_epoch)]:
        if controller.factor != factor:
            break
        before = len(controller.interventions)
        next(replay)
        factor = record["controller_factor"]
        made = {"controller_factor": controller.factor, "interventions": controller.interventions[before:]}
        epochs.append(dict(record) | made)
    return epochs
