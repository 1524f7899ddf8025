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

Of the metrics those in ``controller.watches`` are needed; others may be left out, and more may be given.
Where ``controller.scales_loss``, the schedule multiplies the loss instead, and ``lr = base_lr * factor``.
Nothing here imports torch. Once an epoch is often enough for those that watch losses and norms, so no update
waits for the device.
"""

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lrstudy.entries.outside import is_outside, load
from lrstudy.entries.parameters import Choice, Number, Parameter, checked
from lrstudy.errors import StudyError, meant, unknown

METRICS = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "train_f1": "train/f1",
    "train_f1_macro": "train/f1_macro",
    "validation_loss": "validation/loss",
    "accuracy": "validation/accuracy",
    "f1": "validation/f1",
    "f1_macro": "validation/f1_macro",
    "gradient_norm": "gradient_norm",
}
"""What the study's loop can tell a controller after an epoch: metric -> its name in a training's history."""


def _num_epochs(default: int, about: str) -> Number:
    """A whole number of epochs within the training."""
    return Number(default, about, "epochs", ge=0, le="num_epochs", whole=True)


@dataclass(frozen=True)
class _Metric(Choice):
    """A parameter that names a metric: one whose better direction is known, or any with a sign before it.

    ``alike`` are further names: another metric in the same code, of which :mod:`lrstudy.proof` trains none.
    """

    alike: tuple[str, ...] = ()

    def allowed(self, name: str) -> str:
        """The names, and the form of any other."""
        names = ", ".join((*self.choices, *self.alike))
        return f"one of {names}; any other metric as +name (higher is better) or -name (lower is)"

    def check(self, where: str, name: str, value: object, num_epochs: float = math.inf) -> str:
        """The value, or an error that says how a metric is named."""
        known = (*self.choices, *self.alike)
        if value in known or (isinstance(value, str) and re.fullmatch(r"[+-][A-Za-z_]\w*", value)):
            return str(value)
        raise StudyError(f"{where}: {name} is {value!r}; allowed: {self.allowed(name)}.{meant(value, known)}")


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
            setattr(self, name, copy.copy(value))

    @property
    def watches(self) -> tuple[str, ...]:
        """The metrics that ``after_epoch`` must be told of."""
        return ()

    def before_step(self, *, zero_share: float) -> None:
        """Told before each update, if ``needs`` asks for it: the share of the batch's inputs that are 0."""

    def after_epoch(self, *, epoch: int, **metrics: float) -> None:
        """Told after each epoch of its metrics; what changes holds from the next update on.

        Args:
            epoch: its number, from 1; for the record.
            metrics: ``train_loss``, ``validation_loss``: mean losses per example. ``gradient_norm``: mean
                over updates of the norm of the whole gradient, before clipping. Any other by its own name.

        Raises:
            StudyError: one that the controller watches is missing.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that changes, and its parameters, in JSON's types; loading it continues exactly."""
        names = ("name", "factor", "interventions", *self._start)
        state = {name: copy.deepcopy(getattr(self, name)) for name in names}
        return state | {"parameters": copy.deepcopy(self.params)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            StudyError: the state is another controller's, or of one with other parameters.
        """
        names = self.state_dict().keys()
        # Until 0.2.0 a state did not have the parameters.
        if state.get("name") != self.name or state.keys() | {"parameters"} != names:
            raise StudyError(
                f"controller {self.name}: found the saved state of {state.get('name')!r} "
                f"({', '.join(sorted(state))}), expected {', '.join(sorted(names))}; "
                "resume with the controller that saved it, or start the training anew."
            )
        saved = state.get("parameters", self.params)
        if saved != self.params:
            differ = [name for name in {**saved, **self.params} if saved.get(name) != self.params.get(name)]
            theirs, ours = (
                ", ".join(f"{name} {one.get(name)!r}" for name in differ) for one in (saved, self.params)
            )
            raise StudyError(
                f"controller {self.name}: the state was saved with {theirs}, this controller has {ours}; "
                "make it with the saved ones to resume. To change them on purpose, take 'parameters' out of "
                "the state."
            )
        for name in names - {"name", "parameters"}:
            setattr(self, name, copy.deepcopy(state[name]))

    def _told(self, metrics: dict[str, float], name: str) -> float:
        """The metric of this name among those that ``after_epoch`` was told."""
        if name not in metrics:
            raise StudyError(
                f"controller {self.name}: after_epoch was told {', '.join(metrics) or 'no metric'}; it "
                f"watches {name}, so give {name}=... as well."
            )
        return float(metrics[name])

    def _record(self, epoch: int, before: float, after: float, reason: str) -> None:
        if after != before:
            self.interventions.append(
                {"epoch": int(epoch), "factor_before": before, "factor_after": after, "reason": reason}
            )


class _Watcher(Controller):
    """A controller that counts epochs in which the metric ``watch`` improves, and others."""

    _start: ClassVar = {"best": None}
    if TYPE_CHECKING:
        best: float | None

    @property
    def watches(self) -> tuple[str, ...]:
        """The metrics that ``watch`` is made of."""
        watch = self.params["watch"].lstrip("+-")
        return {"loss": ("validation_loss",), "gap": ("train_loss", "validation_loss")}.get(watch, (watch,))

    def _value(self, metrics: dict[str, float]) -> float:
        value, *others = (self._told(metrics, name) for name in self.watches)
        if self.params["watch"] == "gap":
            gap = others[0] - value
            value = 0.0 if gap <= 0 else gap  # not max(): NaN must stay NaN, which is no improvement
        return value

    def _improves(self, value: float) -> bool:
        watch, threshold = self.params["watch"], self.params["threshold"]
        if watch == "gap" and value == 0:
            return True
        if self.best is None or not math.isfinite(value):
            return math.isfinite(value)
        higher = watch.startswith("+") or watch in _HIGHER_IS_BETTER
        if self.params["threshold_mode"] == "rel":
            # A share of the best value's size. Where that is positive this is torch's formula to the bit.
            share = threshold if (self.best >= 0) == higher else -threshold
            bar = self.best * (1.0 + share)
        else:
            bar = self.best + threshold if higher else self.best - threshold
        return value > bar if higher else value < bar

    def _watched(self) -> str:
        """The metric in words."""
        watch = self.params["watch"]
        if watch.startswith("train_"):
            return f"training {watch.removeprefix('train_')}"
        return watch[1:] if watch[0] in "+-" else f"validation {watch}"


_HIGHER_IS_BETTER = ("accuracy", "f1", "f1_macro", "train_accuracy")
_ALIKE = ("f1", "f1_macro", "train_accuracy", "train_loss")


class ValidationMonitor(_Watcher):
    """Multiplies the rate by ``factor`` when validation has stopped improving.

    An epoch improves if the watched value is below ``best - threshold * abs(best)`` (``rel``) or below
    ``best - threshold`` (``abs``); where higher is better, above ``best`` plus that. The first finite value
    is an improvement, one that is not finite never. After more than ``patience`` epochs in a row without
    improvement the controller's factor becomes ``max(factor * now, min_factor)``, and the next ``cooldown``
    epochs don't count. Event for event torch's ``ReduceLROnPlateau`` (with its ``eps`` 0), but relative to
    any schedule, and without its fault on negative values: its bar ``best * (1 - threshold)`` lies above a
    negative best, so that a worse value passes. Of a best of 0 a share is 0, so any value beyond it
    improves.

    ``watch``: ``loss`` is the validation loss; ``accuracy``, ``f1`` and ``f1_macro`` are validation's, and
    higher is better; ``+name`` and ``-name`` are any other metric that ``after_epoch`` is told, of which
    higher or lower is better. ``gap`` watches overfitting, ``max(0, validation loss - training loss)``. No
    gap is as good as it can be, so such an epoch always counts as an improvement. Since a gap that has
    opened seldom closes by itself, this then acts about every ``patience + 1 + cooldown`` epochs.
    """

    name = "validation_monitor"
    parameters: ClassVar = {
        "watch": _Metric("loss", "what must improve", ("loss", "gap", "accuracy"), alike=_ALIKE),
        "factor": Number(0.5, "what an intervention multiplies the rate by", "factor", gt=0, lt=1),
        "patience": _num_epochs(1, "epochs without improvement that are tolerated"),
        "threshold": Number(1e-4, "smallest change that is an improvement", "see threshold_mode", ge=0),
        "threshold_mode": Choice("rel", "how the threshold counts", ("rel", "abs")),
        "cooldown": _num_epochs(0, "epochs after an intervention that don't count"),
        "min_factor": Number(0.0, "smallest product of all interventions", "factor", ge=0, le=1),
    }
    _start: ClassVar = {"best": None, "num_bad_epochs": 0, "cooldown_left": 0}
    if TYPE_CHECKING:
        num_bad_epochs: int
        cooldown_left: int

    def after_epoch(self, *, epoch: int, **metrics: float) -> None:
        """Count the epoch."""
        value = self._value(metrics)
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
            reason = f"{self._watched()} {value:.6g} after {self.num_bad_epochs} epochs without "
            reason += "improvement" + ("" if self.best is None else f" on {self.best:.6g}")
            self._record(epoch, before, self.factor, reason)
            self.cooldown_left = self.params["cooldown"]
            self.num_bad_epochs = 0


class Greedy(_Watcher):
    """Raises the rate as long as the loss improves and lowers it as long as it does not.

        factor / F      after more than ``patience`` epochs in a row that improve, up to max_factor
        factor * F      after more than ``patience`` epochs in a row that do not, down to min_factor

    with F the parameter ``factor``. What improves is as in :class:`ValidationMonitor`, here of the mean
    over the last ``window`` epochs. The ``warmup`` epochs after a rise and the ``cooldown`` epochs after a
    fall don't count. With the defaults every epoch changes the rate: the basic rule.

    Source: GreedyLR, Subramanian, Krishnamoorthy and Murthy 2025, arXiv 2512.14527, as transformers has it:
    event for event its ``GreedyLR`` (with its ``eps`` 0), but relative to any schedule, and without its reset
    after long at the lowest rate. There the rule acts at every evaluation and its patience is 10; ours is 0,
    since it acts once an epoch.
    """

    name = "greedy"
    parameters: ClassVar = {
        "watch": _Metric("loss", "what must improve", ("loss",), alike=("accuracy", *_ALIKE)),
        "factor": Number(
            0.95, "what a fall multiplies the rate by, and a rise divides it by", "factor", gt=0, lt=1
        ),
        "patience": _num_epochs(0, "epochs of either kind in a row before the rate changes"),
        "threshold": Number(1e-6, "smallest change that is an improvement", "see threshold_mode", ge=0),
        "threshold_mode": Choice("abs", "how the threshold counts", ("rel", "abs")),
        "warmup": _num_epochs(0, "epochs after a rise that don't count"),
        "cooldown": _num_epochs(0, "epochs after a fall that don't count"),
        "min_factor": Number(0.1, "smallest product of all changes", "factor", ge=0, le=1),
        "max_factor": Number(10.0, "largest product of all changes", "factor", ge=1),
        "window": Number(1, "epochs whose mean is watched", "epochs", ge=1, whole=True),
    }
    _start: ClassVar = {
        "best": None, "num_good_epochs": 0, "num_bad_epochs": 0, "pause_left": 0, "recent": [],
    }  # fmt: skip
    if TYPE_CHECKING:
        num_good_epochs: int
        num_bad_epochs: int
        pause_left: int
        recent: list[float | None]

    def after_epoch(self, *, epoch: int, **metrics: float) -> None:
        """Count the epoch."""
        value = self._value(metrics)
        seen = [*self.recent, value if math.isfinite(value) else None]  # JSON has no NaN
        self.recent = seen[-self.params["window"] :]
        value = math.nan if None in self.recent else sum(self.recent) / len(self.recent)  # type: ignore[arg-type]  # floats
        if self.pause_left > 0:
            self.pause_left -= 1
            self.num_good_epochs = self.num_bad_epochs = 0
            return
        on = "" if self.best is None else f" on {self.best:.6g}"
        if self._improves(value):
            self.best = value
            self.num_good_epochs, self.num_bad_epochs = self.num_good_epochs + 1, 0
        else:
            self.num_good_epochs, self.num_bad_epochs = 0, self.num_bad_epochs + 1
        before = self.factor
        what = f"{self._watched()} {value:.6g} after"
        if self.num_good_epochs > self.params["patience"]:
            self.factor = min(before / self.params["factor"], self.params["max_factor"])
            self._record(
                epoch, before, self.factor, f"{what} {self.num_good_epochs} epochs of improvement{on}"
            )
            self.pause_left, self.num_good_epochs = self.params["warmup"], 0
        elif self.num_bad_epochs > self.params["patience"]:
            self.factor = max(before * self.params["factor"], self.params["min_factor"])
            reason = f"{what} {self.num_bad_epochs} epochs without improvement{on}"
            self._record(epoch, before, self.factor, reason)
            self.pause_left, self.num_bad_epochs = self.params["cooldown"], 0


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

    @property
    def watches(self) -> tuple[str, ...]:
        """The losses only where they have a weight."""
        losses = ("train_loss", "validation_loss") if self.params["gap_strength"] > 0 else ()
        return ("gradient_norm", *losses)

    def after_epoch(self, *, epoch: int, **metrics: float) -> None:
        """Set the factor from the epoch's mean gradient norm and, where gap_strength is not 0, its losses."""
        gradient_norm, *losses = (self._told(metrics, name) for name in self.watches)
        if math.isfinite(gradient_norm) and self.mean_norm is not None:
            self.mean_norm += (1 - self.params["smoothing"]) * (gradient_norm - self.mean_norm)
        elif 0 < gradient_norm < math.inf:
            self.first_norm = self.mean_norm = gradient_norm
        ratio = self.mean_norm / self.first_norm if self.first_norm else 1.0  # type: ignore[operator]  # come together
        if not math.isfinite(gradient_norm):
            ratio = math.inf  # a norm that overflowed acts now but must not stay in the running mean
        overfit = max(0.0, 1 - losses[0] / losses[1]) if losses and losses[1] > 0 else 0.0
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
        zero_share = float(zero_share)
        self.factor = 1 + self.params["strength"] * zero_share
        self.share_sum += zero_share
        self.num_steps += 1

    def after_epoch(self, *, epoch: int, **metrics: float) -> None:
        """Record the epoch's mean factor; the metrics are not used."""
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
    "greedy": Greedy,
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


def tell(controller: Controller, record: Mapping[str, Any]) -> None:
    """Tell a controller of an epoch, given the study's record of it.

    Args:
        record: ``epoch`` and metrics by their names in a history; ``gradient_norm`` among them.
    """
    names = dict.fromkeys(("train_loss", "validation_loss", "gradient_norm", *controller.watches))
    controller.after_epoch(epoch=record["epoch"], **{name: record[METRICS[name]] for name in names})
