"""The training loop. It knows no files, no tracker and no tuner: callbacks come in, an outcome goes out."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrstudy.controllers import make_controller, tell
from lrstudy.data import read_meta, read_split
from lrstudy.entries.outside import told_whose
from lrstudy.recipe.models import check_logits, count_parameters, make_model
from lrstudy.recipe.optimizers import (
    evaluation_weights,
    make_optimizer,
    refresh_batch_norm,
    snapshot,
    update_ratio,
)
from lrstudy.schedules import make_schedule
from lrstudy.training.averages import WeightAverages
from lrstudy.training.batches import Split, fixed_sample, make_split, take_share
from lrstudy.training.devices import autocast, choose_device, choose_dtype, compiled, compute_clock
from lrstudy.training.evaluation import BATCH_SIZES, accuracy_and_f1, predict, summarize
from lrstudy.training.measures import num_steps

Weights = dict[str, Tensor]

TRAIN_EVALUATED = 5_000
"""Training examples on which the last weights are evaluated in the end; all where there are fewer."""


@dataclass
class Progress:
    """How far a training has come.

    ``epochs`` has one record per finished epoch: metrics by name, ``seconds``, ``compute_seconds``
    (:func:`lrstudy.training.devices.compute_clock`), the wall-clock ``time`` of its end, ``interventions`` of
    the controller, and ``steps``, the values of every update.

    ``final`` has what is measured once, at the end of a training that finished, each with ``loss``,
    ``loss_standard_error``, ``accuracy``, ``f1`` and ``f1_macro``: ``train_evaluated/...`` of the last
    weights in evaluation mode on 5,000 training examples (:func:`lrstudy.training.batches.fixed_sample`);
    ``validation_ema/...`` and ``validation_tail_average/...`` of the averaged weights
    (:mod:`lrstudy.training.averages`) on validation data.
    """

    status: str = "running"  # running | finished | diverged
    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0  # 1-based, lowest validation loss
    best_weights: Weights | None = None
    last_weights: Weights | None = None
    average_weights: dict[str, Weights] = field(default_factory=dict)  # by name; once finished
    final: dict[str, float] = field(default_factory=dict)
    num_parameters: int = 0


def prepare(settings: dict, data: str) -> tuple[Split, Split, dict]:
    """The training split (or the share of it), the validation split and meta.json of a data set.

    Also sets how this process computes: the number of threads, and that numbers below 1e-38, which decayed
    weights become and which are slow on many processors, are 0.

    Args:
        settings: as for :func:`train`, with ``training_share`` and ``augment``.
        data: the processed data set's folder.
    """
    torch.set_num_threads(settings["threads"])
    torch.set_flush_denormal(True)
    device = choose_device(settings["device"])
    meta = read_meta(data)
    training: Any = take_share(read_split(data, "train"), settings["training_share"])
    training = make_split(training, meta, device, settings["augment"])
    return training, make_split(read_split(data, "validation"), meta, device), meta


def train(
    settings: dict,
    training: Split,
    validation: Split,
    meta: dict,
    *,
    state: dict | None = None,
    on_epoch: Callable[[dict, Callable[[], dict]], None] = lambda record, state: None,
) -> Progress:
    """Train one model with one seed from the first epoch (or from ``state``) to the last.

    At update ``step`` (0-based) ``lr = base_lr * schedule(step / steps_per_epoch) * controller``, in each
    parameter group with the base rate that the optimizer has given it. Initial
    weights, batch order and dropout depend on the seed alone, so that every schedule starts alike.

    Args:
        settings: what :meth:`lrstudy.recipe.cells.Cell.settings` gives, and ``seed``, ``device``,
            ``threads``, ``gradient_clip``, ``compile``.
        training, validation: the splits, on the device.
        meta: the data set's meta.json.
        state: a checkpoint of the same settings to go on from.
        on_epoch: called after each epoch with its record and a function that makes the checkpoint.

    Returns:
        The whole history and the last, best and averaged weights (on the CPU). A loss that is not finite ends
        the training with status ``diverged``: a result, not an error.
    """
    device = choose_device(settings["device"])
    dtype = choose_dtype(settings["precision"], device)
    torch.manual_seed(settings["seed"])
    order = torch.Generator().manual_seed(settings["seed"])
    model = make_model(settings["model"], meta).to(device)
    if meta["kind"] == "image":
        model = model.to(memory_format=torch.channels_last)
    architecture = settings["model"]["architecture"]
    forward = compiled(model) if settings["compile"] else model
    weights = list(model.parameters())
    options = dict(settings["optimizer"])
    optimizer_name, base_lr = options.pop("name"), options["base_lr"]
    optimizer = make_optimizer(optimizer_name, model, **options)
    # An optimizer of another package may give its groups rates of their own.
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    schedule = make_schedule(
        settings["schedule"]["function"],
        settings["num_epochs"],
        warmup_epochs=settings["schedule"]["warmup_epochs"],
        granularity=settings["schedule"]["granularity"],
        **settings["schedule"]["parameters"],
    )
    controller = make_controller(**settings["controller"], num_epochs=settings["num_epochs"])
    progress = Progress(num_parameters=count_parameters(model))
    steps_per_epoch = num_steps(len(training), settings["batch_size"])
    averages = WeightAverages(model, steps_per_epoch * settings["num_epochs"])

    def evaluated(network: nn.Module, split: Split) -> dict[str, float]:
        logits = predict(network, split, BATCH_SIZES[meta["kind"]], device, dtype)
        return summarize(logits, split.labels.cpu().numpy())

    def checkpoint() -> dict:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "controller": controller.state_dict(),
            "averages": averages.state_dict(),
            "order": order.get_state(),
            "rng": _rng_state(device),
            "status": progress.status,
            "epochs": progress.epochs,
            "best_epoch": progress.best_epoch,
            "best_weights": progress.best_weights,
            "last_weights": progress.last_weights,
            "average_weights": progress.average_weights,
            "final": progress.final,
        }

    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        controller.load_state_dict(state["controller"])
        averages.load_state_dict(state["averages"])
        order.set_state(state["order"])
        _set_rng_state(device, state["rng"])
        for name in (
            "status", "epochs", "best_epoch", "best_weights", "last_weights", "average_weights", "final",
        ):  # fmt: skip
            setattr(progress, name, state[name])

    for epoch in range(len(progress.epochs), settings["num_epochs"]):
        if progress.status == "diverged":
            break
        started, clock = time.perf_counter(), compute_clock(device)
        model.train()
        losses = torch.zeros(steps_per_epoch, device=device)
        gradient_norms = torch.zeros(steps_per_epoch, device=device)
        rates, predicted, labels_seen = [], [], []
        num_interventions = len(controller.interventions)

        for index, (inputs, labels, rows) in enumerate(
            training.training_batches(settings["batch_size"], order)
        ):
            multiplier = schedule(epoch + index / steps_per_epoch)
            if "zero_share" in controller.needs:
                controller.before_step(zero_share=training.zero_share(rows))
            loss_scale = multiplier if controller.scales_loss else 1.0
            rate_factor = 1.0 if controller.scales_loss else multiplier
            lr = base_lr * controller.factor * rate_factor
            for group, group_lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = group_lr * controller.factor * rate_factor

            with autocast(device, dtype):
                with told_whose(architecture, "a training batch"):
                    logits = forward(*inputs)
                check_logits(logits, architecture, len(labels), meta["num_classes"])
                loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            (loss * loss_scale if controller.scales_loss else loss).backward()
            gradient_norm = nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
            if settings["gradient_clip"] is not None:
                nn.utils.clip_grads_with_norm_(weights, settings["gradient_clip"], gradient_norm)
            last_step = index == steps_per_epoch - 1
            before = snapshot(weights) if last_step else None
            optimizer.step()
            averages.update(model, epoch * steps_per_epoch + index)

            rates.append(lr)
            losses[index] = loss.detach()
            gradient_norms[index] = gradient_norm
            predicted.append(logits.detach().argmax(dim=1))
            labels_seen.append(labels)
        effective_step = update_ratio(before, weights)  # type: ignore[arg-type]  # the last step left it

        record: dict[str, Any] = {"epoch": epoch + 1}
        # From here on arrays.
        losses, gradient_norms = losses.cpu().double().numpy(), gradient_norms.cpu().double().numpy()  # type: ignore[assignment]
        running = accuracy_and_f1(
            torch.cat(labels_seen).cpu().numpy(), torch.cat(predicted).cpu().numpy(), meta["num_classes"]
        )
        record |= {"train/loss": float(losses.mean())} | _named("train", running)

        with evaluation_weights(optimizer):
            if optimizer_name.startswith("schedule_free"):
                with autocast(device, dtype):
                    refresh_batch_norm(model, _some_inputs(training))
            record |= _named("validation", evaluated(model, validation))
            record["weight_norm"] = nn.utils.get_total_norm([w.detach() for w in weights]).item()
            finite = np.isfinite(losses).all() and math.isfinite(record["validation/loss"])
            best = min((e["validation/loss"] for e in progress.epochs), default=math.inf)
            if finite and record["validation/loss"] < best:
                progress.best_epoch, progress.best_weights = epoch + 1, _copy(model)
            if not finite or epoch + 1 == settings["num_epochs"]:
                progress.last_weights = _copy(model)

        if finite:
            tell(controller, record | {"gradient_norm": float(gradient_norms.mean())})
        record |= {
            "lr": rates[-1],
            "gradient_norm": float(gradient_norms.mean()),
            "effective_step": effective_step,
            "controller_factor": controller.factor,
            "interventions": controller.interventions[num_interventions:],
            "seconds": time.perf_counter() - started,
            "compute_seconds": compute_clock(device) - clock,
            "time": time.time(),
            "steps": {
                "lr": rates,
                "train/loss": losses.tolist(),
                "gradient_norm": gradient_norms.tolist(),
            },
        }
        progress.epochs.append(record)
        if not finite:
            progress.status = "diverged"
        elif epoch + 1 == settings["num_epochs"]:
            progress.status = "finished"
            # Once and not by epoch, and in no epoch's seconds: to refresh a network's batch norm and to
            # evaluate it costs many times what tracking its weights does.
            with evaluation_weights(optimizer):
                sample = fixed_sample(training, TRAIN_EVALUATED)
                progress.final = _named("train_evaluated", evaluated(model, sample))
            for name, network in averages.networks().items():
                with autocast(device, dtype):
                    refresh_batch_norm(network, _some_inputs(training))
                progress.final |= _named(f"validation_{name}", evaluated(network, validation))
                progress.average_weights[name] = _copy(network)
        on_epoch(record, checkpoint)
    return progress


def _named(split: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in metrics.items()}


def _copy(model: nn.Module) -> Weights:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def _some_inputs(training: Split, num_batches: int = 50) -> Iterator[tuple[Tensor, ...]]:
    """The inputs of the first batches in order, to estimate batch-norm statistics from."""
    for number, (inputs, _, _) in enumerate(training.evaluation_batches(128)):
        if number == num_batches:
            return
        yield inputs


def _rng_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def _set_rng_state(device: torch.device, state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state["mps"])
