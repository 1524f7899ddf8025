"""Optimizers by name: one table of what each accepts, one function that builds it.

    optimizer = make_optimizer("nesterov", model, base_lr=0.1, weight_decay=0.0005)

The table (``OPTIMIZERS``) and the check (``check_options``) need no torch; it is imported when an
optimizer is built. The optimizers themselves are torch's (``muon`` is two of them as one,
:mod:`lrstudy.recipe.muon`), and for those that need no schedule those of the packages ``schedulefree``
(Defazio et al., arXiv 2405.15682) and ``prodigyopt`` (Mishchenko and Defazio, arXiv 2306.06101).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrstudy.entries.meaning import definition_outside
from lrstudy.entries.outside import is_outside, load, told_whose
from lrstudy.entries.parameters import REQUIRED, Flag, Number, Parameter, checked
from lrstudy.entries.signatures import signature
from lrstudy.errors import StudyError, unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OptimizerSpec:
    """Which class an optimizer's name stands for, its options, and what the name fixes."""

    class_path: str
    options: Mapping[str, Parameter]
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _coefficient(default: float, *, zero: bool = True) -> Number:
    """A share of the past that is kept at each step; 1 would forget nothing."""
    return Number(default, ge=0, lt=1) if zero else Number(default, gt=0, lt=1)


_BASE_LR = Number(gt=0)
_DECAY: dict[str, Parameter] = {"weight_decay": Number(0.0, ge=0)}
_BETAS: dict[str, Parameter] = {"beta1": _coefficient(0.9), "beta2": _coefficient(0.999)}
_EPS: dict[str, Parameter] = {"eps": Number(1e-8, gt=0)}
# One call per list of tensors instead of one per tensor. Seen equal to torch's reference loop bit
# for bit on a CPU for all of them but NAdam and RAdam (last bit); the fused kernels are not.
_FOREACH = {"foreach": True}

OPTIMIZERS: Mapping[str, OptimizerSpec] = {
    "sgd": OptimizerSpec("torch.optim.SGD", _DECAY, _FOREACH),
    "momentum": OptimizerSpec(
        "torch.optim.SGD", {"momentum": _coefficient(0.9, zero=False)} | _DECAY, _FOREACH
    ),
    "nesterov": OptimizerSpec(
        "torch.optim.SGD",
        {"momentum": _coefficient(0.9, zero=False)} | _DECAY,
        _FOREACH | {"nesterov": True},
    ),
    "adagrad": OptimizerSpec(
        "torch.optim.Adagrad",
        {
            "lr_decay": Number(0.0, ge=0),
            "initial_accumulator_value": Number(0.0, ge=0),
            "eps": Number(1e-10, gt=0),
        }
        | _DECAY,
        _FOREACH,
    ),
    "rmsprop": OptimizerSpec(
        "torch.optim.RMSprop",
        {"alpha": _coefficient(0.99), "momentum": _coefficient(0.0), "centered": Flag(False)} | _EPS | _DECAY,  # type: ignore[arg-type]  # mypy: values are object
        _FOREACH,
    ),
    "adadelta": OptimizerSpec(
        "torch.optim.Adadelta",
        {"rho": _coefficient(0.9), "eps": Number(1e-6, gt=0)} | _DECAY,
        _FOREACH,
    ),
    "adam": OptimizerSpec("torch.optim.Adam", _BETAS | _EPS | _DECAY | {"amsgrad": Flag(False)}, _FOREACH),
    "adamw": OptimizerSpec(
        "torch.optim.AdamW",
        _BETAS | _EPS | {"weight_decay": Number(0.01, ge=0), "amsgrad": Flag(False)},
        _FOREACH,
    ),
    "adamax": OptimizerSpec("torch.optim.Adamax", _BETAS | _EPS | _DECAY, _FOREACH),
    "nadam": OptimizerSpec(
        "torch.optim.NAdam", _BETAS | _EPS | _DECAY | {"momentum_decay": Number(0.004, ge=0)}, _FOREACH
    ),
    "radam": OptimizerSpec(
        "torch.optim.RAdam", _BETAS | _EPS | _DECAY | {"decoupled_weight_decay": Flag(False)}, _FOREACH
    ),
    # Zero is illegal where the package divides by it to go from the training to the evaluation weights.
    "schedule_free_sgd": OptimizerSpec(
        "schedulefree.SGDScheduleFree", {"momentum": _coefficient(0.9, zero=False)} | _DECAY, _FOREACH
    ),
    "schedule_free_adamw": OptimizerSpec(
        "schedulefree.AdamWScheduleFree",
        _BETAS | {"beta1": _coefficient(0.9, zero=False)} | _EPS | _DECAY,
        _FOREACH,
    ),
    "prodigy": OptimizerSpec(
        "prodigyopt.Prodigy",
        {  # type: ignore[arg-type]  # mypy: values of two kinds are object
            "d_coef": Number(1.0, gt=0),
            "use_bias_correction": Flag(False),
            "safeguard_warmup": Flag(False),
        }
        | _BETAS
        | _EPS
        | _DECAY,
    ),
    "muon": OptimizerSpec(
        "lrstudy.recipe.muon.MuonAdamW",
        {  # type: ignore[arg-type]  # mypy: values of two kinds are object
            "momentum": _coefficient(0.95),
            "nesterov": Flag(True),
            "ns_steps": Number(5, ge=1, lt=100, whole=True),
        }
        | _BETAS
        | _EPS
        | {"weight_decay": Number(0.01, ge=0)},
    ),
}


def find(name: str) -> OptimizerSpec:
    """The optimizer of this name: one of :data:`OPTIMIZERS`, or from another package ``package.module:Name``.

    The latter is a ``torch.optim.Optimizer`` that takes parameters and ``lr``. Its options are the other
    arguments of its constructor, read from its source; of ``betas`` the two parts, ``beta1`` and ``beta2``.

    Raises:
        StudyError: there is no such optimizer, or its constructor has no ``lr``.
    """
    if not (isinstance(name, str) and is_outside(name)):
        if name not in OPTIMIZERS:
            raise unknown("optimizer", name, OPTIMIZERS, "an optimizer")
        return OPTIMIZERS[name]
    _, *arguments = signature(definition_outside(name)).items()  # the first one takes the parameters
    options = dict(arguments)
    if "lr" not in options:
        raise StudyError(
            f"optimizer {name}: its constructor has {', '.join(options) or 'nothing'} and no lr; an "
            "optimizer takes parameters and lr, which the schedule sets."
        )
    del options["lr"]
    if "betas" in options:
        defaults = options.pop("betas").default
        pair = defaults if isinstance(defaults, tuple | list) and len(defaults) == 2 else (REQUIRED, REQUIRED)
        options = {"beta1": Number(pair[0], ge=0, lt=1), "beta2": Number(pair[1], ge=0, lt=1)} | options
    return OptimizerSpec(name.replace(":", "."), options)


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the optimizer ``name``: the given ones checked, the others at their defaults.

    Raises:
        StudyError: an unknown name or option, or a value out of its range.

    >>> check_options("momentum", {"weight_decay": 0.0005})
    {'momentum': 0.9, 'weight_decay': 0.0005}
    """
    return checked(f"optimizer {name}", find(name).options, options, noun="one of its options")


def make_optimizer(
    name: str,
    parameters: torch.nn.Module | Iterable[torch.Tensor],
    base_lr: float,
    **options: Any,
) -> torch.optim.Optimizer:
    """The optimizer ``name`` on a model (or on parameters), ready to step.

    Weight decay falls on parameters with two or more dimensions (matrices, convolution kernels, embeddings)
    and not on biases and normalization scales, the usual practice. All parameters share one learning rate:
    the loop writes ``lr = base_lr * factors`` into every group's ``"lr"`` before each step, which every
    optimizer here obeys (Prodigy multiplies its own estimate of the step size by it).

    A class that treats layers unlike each other, as ``muon``'s does, has ``parameter_groups(model,
    weight_decay)``, which makes the groups instead.

    ``beta1`` and ``beta2`` are the two parts of torch's ``betas``; options left out have torch's defaults
    (momentum 0.9). The schedule-free ones change ``p.grad`` in ``step``: read gradients before it.

    Raises:
        StudyError: an unknown name or option, or a value out of its range.
    """
    options = check_options(name, options)
    _BASE_LR.check(f"optimizer {name}", "base_lr", base_lr)
    spec = find(name)
    weight_decay = options.pop("weight_decay", 0.0)
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if is_outside(name):
        optimizer_class = load(name, "an optimizer")
    else:
        module_name, _, class_name = spec.class_path.rpartition(".")
        optimizer_class = getattr(importlib.import_module(module_name), class_name)
    with told_whose(name, "making it"):
        make_groups = getattr(optimizer_class, "parameter_groups", decay_groups)
        groups = make_groups(parameters, weight_decay)
        optimizer = optimizer_class(groups, lr=base_lr, **options, **spec.fixed)
    if not all("lr" in group for group in getattr(optimizer, "param_groups", [{}])):
        raise StudyError(
            f"optimizer {name}: gives a {type(optimizer).__name__}, no torch.optim.Optimizer with lr."
        )
    if _averages_weights(optimizer):
        optimizer.train()  # the package makes it in evaluation mode, where step() is refused
    return optimizer


def decay_groups(
    parameters: torch.nn.Module | Iterable[torch.Tensor], weight_decay: float
) -> list[dict[str, Any]]:
    """The trained parameters in groups: those on which weight decay falls, and those that it spares."""
    if callable(getattr(parameters, "parameters", None)):
        parameters = parameters.parameters()  # type: ignore[union-attr]  # only a module has that method
    trained = [parameter for parameter in parameters if parameter.requires_grad]  # type: ignore[union-attr]  # a module's, by now
    if weight_decay == 0:
        return [{"params": trained, "weight_decay": 0.0}]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _averages_weights(optimizer: torch.optim.Optimizer) -> bool:
    """Whether this is a schedule-free optimizer, which evaluates at an average of the trained weights."""
    return "train_mode" in optimizer.param_groups[0]


@contextmanager
def evaluation_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside the ``with``, the model holds the weights to evaluate and to keep; outside, those to train.

    Only the schedule-free optimizers tell the two apart: they take gradients at ``y`` and evaluate at the
    average ``x``. For the others this does nothing. On leaving, the training weights come back bit for bit
    (the package's own switch from y to x and back rounds), so evaluating never changes the training.
    Save checkpoints to resume from outside of it, and the finished model inside. A model with batch norm
    needs ``refresh_batch_norm`` inside, because its running statistics are those of ``y``.
    """
    if not (_averages_weights(optimizer) and optimizer.param_groups[0]["train_mode"]):
        yield
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    training_weights = snapshot(weights)
    optimizer.eval()  # type: ignore[attr-defined]  # the schedule-free ones have it
    try:
        yield
    finally:
        for weight, training_weight in zip(weights, training_weights, strict=True):
            weight.data.copy_(training_weight)
        for group in optimizer.param_groups:
            group["train_mode"] = True


def refresh_batch_norm(model: torch.nn.Module, batches: Iterable[Any]) -> None:
    """Set batch norm's running statistics to those of the model's present weights over ``batches``.

    Every running mean and (unbiased) variance becomes the plain average over the batches, each weighing
    the same. Momenta, training mode and random-number state are as before. A model without batch norm reads
    no batch. ``batches`` yields the model's input, or a tuple that starts with it, on the model's device.

    Raises:
        ValueError: the model has batch norm and ``batches`` is empty.
    """
    import torch
    from torch.optim.swa_utils import update_bn

    layers = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    device = next(model.parameters()).device
    # Dropout draws in update_bn's forward passes; a refresh must not shift the training's random numbers.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        update_bn(batches, model)
    if any(layer.track_running_stats and not layer.num_batches_tracked for layer in layers):
        raise ValueError("refresh_batch_norm: there was no batch to take statistics from")


def snapshot(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of the parameters' values, to compare with after a step."""
    return [parameter.detach().clone() for parameter in parameters]


def update_ratio(before: Iterable[torch.Tensor], parameters: Iterable[torch.Tensor]) -> float:
    """The effective step ``||after - before|| / ||before||`` (Euclidean, over all parameters together).

    Comparable between optimizers where ``lr`` is not, since each scales the gradient differently; values
    near 0.001 are common in healthy training. It costs a copy of the weights and, on a GPU, a wait for the
    device: take it around one step an epoch, not around each.

    Infinite if all weights were zero before and have moved; NaN if they were zero and have not.

        weights = snapshot(model.parameters())
        optimizer.step()
        effective_step = update_ratio(weights, model.parameters())
    """
    import torch

    before = list(before)
    updates = [new.detach() - old for old, new in zip(before, parameters, strict=True)]
    norm = torch.nn.utils.get_total_norm
    return (norm(updates) / norm(before)).item()
