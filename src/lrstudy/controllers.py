"""Controllers: factors of the learning rate that watch the training. They join any schedule and its warmup.

The loop sets ``lr = base_lr * schedule(t) * controller.factor`` before each update and tells the controller
what it saw:

    controller = make_controller("validation_monitor", patience=2)
    for epoch in range(num_epochs):
        for step, batch in enumerate(batches):
            if "zero_share" in controller.needs:
                controller.before_step(zero_share=share_of_zeros(batch))
            lr = base_lr * schedule(epoch + step / steps_per_epoch) * controller.factor
            ...
        controller.after_epoch(
            epoch=epoch + 1, train_loss=..., validation_loss=..., gradient_norm=...
        )

Where ``controller.scales_loss``, the schedule multiplies the loss instead, and ``lr = base_lr * factor``.
Nothing here imports torch; losses and norms are floats. Once an epoch is often enough for the three
that need them, so no update waits for the device.
"""

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar

from lrstudy.entries.outside import is_outside, load
from lrstudy.entries.parameters import Choice, Number, Parameter, checked
from lrstudy.errors import StudyError, unknown


def _num_epochs(default: int, about: str) -> Number:
    """A whole number of epochs within the training."""
    return Number(default, about, "epochs", ge=0, le="num_epochs", whole=True)


class Controller:
    """The controller ``none``, whose factor is always 1, and the face of all the others.

    Attributes:
        factor: what multiplies the learning rate now.
        interventions: one record for each change, oldest first: ``epoch`` (as given to ``after_epoch``),
            ``factor_before``, ``factor_after``, ``reason`` (a sentence).
        params: the values of its parameters.
        parameters: what parameters ``make_controller`` accepts, with defaults and ranges.
        needs: what ``before_step`` must be told of each batch; empty if it need not be called.
        scales_loss: whether the schedule is to multiply the loss instead of the learning rate.
        reconstruction: where its formula is ours for want of the source's, the words to say so in reports.
    """

    name = "none"
    parameters: ClassVar[dict[str, Parameter]] = {}
    needs: ClassVar[frozenset[str]] = frozenset()
    scales_loss = False
    reconstruction = ""
    # What changes as training goes on, besides factor and interventions, and its value at the start. JSON
    # has no infinity: None stands for "nothing seen yet".
    _start: ClassVar[dict[str, Any]] = {}

    def __init__(self, **params: Any):
        self.params = params
        self.factor = 1.0
        self.interventions: list[dict[str, Any]] = []
        for name, value in self._start.items():
            setattr(self, name, value)

    def before_step(self, *, zero_share: float) -> None:
        """Told before each update, if ``needs`` asks for it: the share of the batch's inputs that are 0."""

    def after_epoch(
        self, *, epoch: int, train_loss: float, validation_loss: float, gradient_norm: float
    ) -> None:
        """Told after each epoch: mean losses per example, and the mean over updates of the gradient's norm.

        The norm is that of the whole gradient before clipping. What changes holds from the next update on.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that changes, in JSON's types; loading it into a new controller continues exactly."""
        names = ("name", "factor", "interventions", *self._start)
        return {name: copy.deepcopy(getattr(self, name)) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            StudyError: the state is another controller's.
        """
        names = self.state_dict().keys()
        if state.get("name") != self.name or state.keys() != names:
            raise StudyError(
                f"controller {self.name}: found the saved state of {state.get('name')!r} "
                f"({', '.join(sorted(state))}), expected {', '.join(sorted(names))}; "
                "resume with the controller that saved it, or start the training anew."
            )
        for name in names - {"name"}:
            setattr(self, name, copy.deepcopy(state[name]))

    def _record(self, epoch: int, before: float, after: float, reason: str) -> None:
        if after != before:
            self.interventions.append(
                {"epoch": epoch, "factor_before": before, "factor_after": after, "reason": reason}
            )


class ValidationMonitor(Controller):
    """Multiplies the rate by ``factor`` when validation has stopped improving.

    An epoch improves if the watched value is below ``best * (1 - threshold)`` (``rel``) or below
    ``best - threshold`` (``abs``). After more than ``patience`` epochs in a row without improvement the
    controller's factor becomes ``max(factor * now, min_factor)``, and the next ``cooldown`` epochs don't
    count. Event for event torch's ``ReduceLROnPlateau`` (with its ``eps`` 0), but relative to any schedule.

    ``watch="gap"`` watches overfitting, ``max(0, validation loss - training loss)``. No gap is as good as it
    can be, so such an epoch always counts as an improvement; it also keeps the relative threshold meaningful,
    which a negative value would turn around. Since a gap that has opened seldom closes by itself, this
    then acts about every ``patience + 1 + cooldown`` epochs.
    """

    name = "validation_monitor"
    parameters: ClassVar = {
        "watch": Choice("loss", "what must improve", ("loss", "gap")),
        "factor": Number(0.5, "what an intervention multiplies the rate by", "factor", gt=0, lt=1),
        "patience": _num_epochs(1, "epochs without improvement that are tolerated"),
        "threshold": Number(1e-4, "smallest change that is an improvement", "see threshold_mode", ge=0),
        "threshold_mode": Choice("rel", "how the threshold counts", ("rel", "abs")),
        "cooldown": _num_epochs(0, "epochs after an intervention that don't count"),
        "min_factor": Number(0.0, "smallest product of all interventions", "factor", ge=0, le=1),
    }
    _start: ClassVar = {"best": None, "num_bad_epochs": 0, "cooldown_left": 0}
    if TYPE_CHECKING:
        best: float | None
        num_bad_epochs: int
        cooldown_left: int

    def after_epoch(
        self, *, epoch: int, train_loss: float, validation_loss: float, gradient_norm: float
    ) -> None:
        """Count the epoch; the gradient's norm is not used."""
        value = validation_loss
        if self.params["watch"] == "gap":
            gap = validation_loss - train_loss
            value = 0.0 if gap <= 0 else gap  # not max(): NaN must stay NaN, which is no improvement
        if self._improves(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.params["patience"]:
            before = self.factor
            self.factor = max(before * self.params["factor"], self.params["min_factor"])
            reason = (
                f"validation {self.params['watch']} {value:.6g} after {self.num_bad_epochs} epochs without "
            )
            reason += "improvement" + ("" if self.best is None else f" on {self.best:.6g}")
            self._record(epoch, before, self.factor, reason)
            self.cooldown_left = self.params["cooldown"]
            self.num_bad_epochs = 0

    def _improves(self, value: float) -> bool:
        if self.params["watch"] == "gap" and value == 0:
            return True
        best = math.inf if self.best is None else self.best
        threshold = self.params["threshold"]
        return value < (
            best * (1.0 - threshold) if self.params["threshold_mode"] == "rel" else best - threshold
        )


class GradientModulated(Controller):
    """Slows down while gradients are larger than in the first epoch, and while the model overfits.

        factor = max(min_factor, 1 / (1 + gradient_strength * excess + gap_strength * overfit))
        excess  = max(0, g / g_1 - 1)    g: running mean of the epochs' mean gradient norms, g_1: the first
        overfit = max(0, 1 - training loss / validation loss)    both of the last epoch

    ``g`` keeps the share ``smoothing`` of itself each epoch. The factor is 1 in the first epoch, lies in
    (0, 1], and recovers when the gradients do. It bounds what a growing gradient can do under plain SGD:
    ``g * factor`` stays below ``g_1 * max(1, 1 / gradient_strength)`` until min_factor is reached.

    A RECONSTRUCTION of our own: arXiv 2409.16769 joins exponential decay with gradient-based modulation
    against overfitting, but its formula was not available to us. For its exponential decay, pair this with
    the schedule ``exponential``. It uses one mean per epoch, so no update waits for the device.
    """

    name = "gradient_modulated"
    reconstruction = (
        "our reconstruction after the abstract of arXiv 2409.16769; its formula was not available"
    )
    parameters: ClassVar = {
        "gradient_strength": Number(
            1.0, "weight of the gradient's excess over the first epoch's", "ratio", ge=0
        ),
        "gap_strength": Number(0.0, "weight of overfitting; 0 leaves it out", "ratio", ge=0),
        "smoothing": Number(0.5, "share of the running mean norm kept each epoch", "share", ge=0, lt=1),
        "min_factor": Number(0.01, "smallest value of the factor", "factor", gt=0, le=1),
    }
    _start: ClassVar = {"first_norm": None, "mean_norm": None}
    if TYPE_CHECKING:
        first_norm: float | None
        mean_norm: float | None

    def after_epoch(
        self, *, epoch: int, train_loss: float, validation_loss: float, gradient_norm: float
    ) -> None:
        """Set the factor from the epoch's mean gradient norm and, where gap_strength is not 0, its losses."""
        if math.isfinite(gradient_norm) and self.mean_norm is not None:
            self.mean_norm += (1 - self.params["smoothing"]) * (gradient_norm - self.mean_norm)
        elif 0 < gradient_norm < math.inf:
            self.first_norm = self.mean_norm = gradient_norm
        ratio = self.mean_norm / self.first_norm if self.first_norm else 1.0  # type: ignore[operator]  # come together
        if not math.isfinite(gradient_norm):
            ratio = math.inf  # a norm that overflowed acts now but must not stay in the running mean
        overfit = max(0.0, 1 - train_loss / validation_loss) if validation_loss > 0 else 0.0
        pull = self.params["gap_strength"] * overfit
        if self.params["gradient_strength"] > 0:
            pull += self.params["gradient_strength"] * max(0.0, ratio - 1)
        before, self.factor = self.factor, max(self.params["min_factor"], 1 / (1 + pull))
        reason = f"gradient norm {ratio:.4g} times the first epoch's"
        if self.params["gap_strength"] > 0:
            reason += f", training loss {overfit:.2%} below validation loss"
        self._record(epoch, before, self.factor, reason)


class Sparsity(Controller):
    """Raises the rate on batches with many zero inputs: ``factor = 1 + strength * zero_share``.

    ``zero_share`` in [0, 1] is the share of inputs that are 0: black pixel values of images, padded positions
    of texts. The factor lies in [1, 1 + strength] and changes with each batch. Its record of interventions
    has one line an epoch, for the mean over the epoch's updates, which ``factor`` also holds between epochs;
    the exact values are in the logged learning rate.

    A RECONSTRUCTION of our own: the source asks for eta_t = eta_0 * sparsity_factor(x_t), so that the weights
    of features that are often zero get meaningful updates, and leaves sparsity_factor open.
    """

    name = "sparsity"
    reconstruction = "our reconstruction: the source names a sparsity factor and leaves its formula open"
    needs: ClassVar = frozenset({"zero_share"})
    parameters: ClassVar = {
        "strength": Number(1.0, "what an all-zero batch adds to the factor", "factor", ge=0)
    }
    _start: ClassVar = {"mean_factor": 1.0, "share_sum": 0.0, "num_steps": 0}
    if TYPE_CHECKING:
        mean_factor: float
        share_sum: float
        num_steps: int

    def before_step(self, *, zero_share: float) -> None:
        """Set the factor for the update on this batch; ``zero_share`` outside [0, 1] is a ValueError."""
        if not 0 <= zero_share <= 1:
            raise ValueError(f"zero_share is {zero_share!r}; a share lies in [0, 1]")
        self.factor = 1 + self.params["strength"] * zero_share
        self.share_sum += zero_share
        self.num_steps += 1

    def after_epoch(
        self, *, epoch: int, train_loss: float, validation_loss: float, gradient_norm: float
    ) -> None:
        """Record the epoch's mean factor; losses and norm are not used."""
        if self.num_steps == 0:
            return
        share = self.share_sum / self.num_steps
        before = self.mean_factor
        self.factor = self.mean_factor = 1 + self.params["strength"] * share
        reason = f"{share:.2%} of the inputs are zero, mean over {self.num_steps} updates"
        self._record(epoch, before, self.factor, reason)
        self.share_sum, self.num_steps = 0.0, 0


class LossDecay(Controller):
    """The schedule multiplies the loss, and the learning rate stays fixed.

    Under plain SGD ``w - lr * grad(s * loss) = w - (lr * s) * grad(loss)``: the same as scaling the rate.
    Not so with weight decay (the penalty is not scaled), with momentum (old gradients keep the scale of
    their time), or with Adam and its relatives (which divide the scale out again). The
    logged gradient norm is that of the scaled loss, and clipping acts on it; the logged loss is unscaled.

    OUR READING of loss decay (Wei, arXiv 1905.00094), whose formula was not available to us.
    """

    name = "loss_decay"
    reconstruction = "our reading of the abstract of arXiv 1905.00094: the schedule multiplies the loss"
    scales_loss = True


CONTROLLERS: dict[str, type[Controller]] = {
    "none": Controller,
    "validation_monitor": ValidationMonitor,
    "gradient_modulated": GradientModulated,
    "sparsity": Sparsity,
    "loss_decay": LossDecay,
}


def find(name: str) -> type[Controller]:
    """The controller of this name: one of :data:`CONTROLLERS`, or from another package
    ``package.module:Name``.

    Raises:
        StudyError: there is no such controller, or it is no subclass of :class:`Controller`.
    """
    if isinstance(name, str) and is_outside(name):
        found = load(name, "a controller")
        if not (isinstance(found, type) and issubclass(found, Controller)):
            raise StudyError(
                f"{name}: found {found!r}; a controller is a subclass of lrstudy.controllers.Controller."
            )
        return found
    if name not in CONTROLLERS:
        raise unknown("controller", name, CONTROLLERS, "a controller")
    return CONTROLLERS[name]


def make_controller(name: str, *, num_epochs: float = math.inf, **params: Any) -> Controller:
    """The controller ``name`` at the start of a training of ``num_epochs``.

    Args:
        name: as for :func:`find`.
        num_epochs: length of the training, which patience and cooldown can't exceed.
        params: its parameters; ``find(name).parameters`` has their defaults and ranges.

    Raises:
        StudyError: an unknown name or parameter, or a value out of range.

    >>> make_controller("validation_monitor", patience=0).factor
    1.0
    """
    controller = find(name)
    return controller(**checked(f"controller {name}", controller.parameters, params, num_epochs=num_epochs))
