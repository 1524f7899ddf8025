"""What is measured on trained weights, one task per worker process: plain values in, plain values out.

Every task has ``settings`` and ``data`` (as a training's task), and ``num_examples``.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lrstudy.theory import connectivity, landscape

if TYPE_CHECKING:
    import torch

    from lrstudy.theory.network import Network


def at_epochs(task: dict) -> dict:
    """Losses, weight norm and sharpness of one path's weights at some epochs.

    Args:
        task: ``name``; ``files``: epoch -> weights; ``hessian``: None, or ``num_examples``,
        ``num_iterations`` and
            ``num_samples``.

    Returns:
        ``name`` and ``epochs``: per epoch ``epoch``, ``norm``, ``train/loss``, ``test/loss`` and, with a
        Hessian of the training loss, ``eigenvalue``, ``eigenvalue_residual``, ``trace``,
        ``trace_standard_error``.
    """
    import torch

    from lrstudy.theory.curvature import top_eigenvalue, trace

    network = _network(task)
    found = []
    for epoch, file in task["files"].items():
        weights = _load(network, file)
        losses = network.losses(weights)
        record = {
            "epoch": int(epoch),
            "norm": weights.norm().item(),
            "train/loss": losses["train"],
            "test/loss": losses["test"],
        }
        if asked := task["hessian"]:
            product = network.product(weights, asked["num_examples"])
            generator = torch.Generator().manual_seed(0)  # the same directions for all weights
            value, residual = top_eigenvalue(
                product, network.size, generator, num_iterations=asked["num_iterations"], tolerance=0.01
            )
            mean, error = trace(product, network.size, generator, num_samples=asked["num_samples"])
            record |= {
                "eigenvalue": value,
                "eigenvalue_residual": residual,
                "trace": mean,
                "trace_standard_error": error,
            }
        found.append(record)
    return {"name": task["name"], "epochs": found}


def test_metrics(task: dict) -> dict:
    """``accuracy``, ``f1``, ``f1_macro``, ``loss`` on the whole test split, of the weights in ``file``.

    Nothing is chosen by them.
    """
    import torch
    from safetensors.torch import load_file

    from lrstudy.data import read_meta, read_split
    from lrstudy.recipe.models import make_model
    from lrstudy.training.batches import make_split
    from lrstudy.training.devices import choose_device, choose_dtype
    from lrstudy.training.evaluation import BATCH_SIZES, accuracy_and_f1, cross_entropy, predict

    settings = task["settings"]
    torch.set_num_threads(settings["threads"])
    device = choose_device(settings["device"])
    meta = read_meta(task["data"])
    arrays = read_split(task["data"], "test")
    model = make_model(settings["model"], meta).to(device)
    if meta["kind"] == "image":
        model = model.to(memory_format=torch.channels_last)
    model.load_state_dict(load_file(task["file"], device=str(device)))
    dtype = choose_dtype(settings["precision"], device)
    logits = predict(model, make_split(arrays, meta, device), BATCH_SIZES[meta["kind"]], device, dtype)
    labels = arrays["labels"].astype(np.int64)
    return {"name": task["name"], "loss": cross_entropy(logits, labels)[0]} | accuracy_and_f1(
        labels, logits.argmax(axis=1), meta["num_classes"]
    )


def weight_vectors(task: dict) -> NDArray[np.float32]:
    """The weights (num_files, P) of ``files``, without buffers such as batch norm's statistics."""
    network = _network(task)
    return np.stack([_load(network, file).cpu().numpy() for file in task["files"]])


def surface(task: dict) -> dict:
    """Losses on a part of a plane's grid: ``part``, and ``losses`` name -> (len(y), len(x)).

    Args:
        task: ``plane`` (a :class:`lrstudy.theory.landscape.Plane`), ``x``, ``y``, ``part`` (a number).
    """
    import torch

    network = _network(task)

    def losses(weights: NDArray[np.float64]) -> dict[str, float]:
        return network.losses(torch.from_numpy(weights.astype(np.float32)))

    return {
        "part": task["part"],
        "losses": landscape.on_grid(losses, task["plane"], task["x"], task["y"]),
    }


def join(task: dict) -> dict:
    """Paths between two solutions and the family of losses along them.

    Args:
        task: ``name``; ``ends``: two weights' files; ``epochs``: epoch -> the same two trainings' weights at
        it;
            ``num_batches``, ``num_points``, ``num_curve_steps``, ``curve_lr``, ``curve_batch_size``,
            ``seed``.

    Returns:
        ``name``; ``standard_error`` of the training loss, the larger one of the ends; ``distance`` of the
        ends; for ``line``, ``curve`` and ``over_the_top``: ``along`` (loss name -> values), ``barrier`` and
        ``dip`` (by loss name) and ``worst`` of the family; ``by_epoch``: the straight line's barrier and dip
        on the training loss at each epoch.
    """
    import torch

    network = _network(task, num_batches=task["num_batches"])
    start, end = (_load(network, file) for file in task["ends"])
    points = task["num_points"]

    def gradient(weights: torch.Tensor) -> torch.Tensor:
        return network.batch_gradient(weights, task["curve_batch_size"], order)

    order = torch.Generator().manual_seed(task["seed"])
    control = connectivity.train_bezier(
        gradient,
        start,
        end,
        num_steps=task["num_curve_steps"],
        lr=task["curve_lr"],
        rng=np.random.default_rng(task["seed"]),
    )
    corners = climb(network, start, end)
    paths = {
        "line": (connectivity.line(start, end), points),
        "curve": (connectivity.bezier(start, control, end), points),
        # Its segments differ in kind: each gets enough points for its shape.
        "over_the_top": (connectivity.polyline(corners), (len(corners) - 1) * max(2, points // 3) + 1),
    }
    found: dict = {
        "name": task["name"],
        "distance": (end - start).norm().item(),
        "standard_error": max(network.standard_error(at)["train"] for at in (start, end)),
    }
    for name, (path, count) in paths.items():
        along = connectivity.along(network.family, path, count)
        found[name] = {
            "along": along,
            "barrier": {loss: connectivity.barrier(values) for loss, values in along.items()},
            "dip": {loss: connectivity.dip(values) for loss, values in along.items()},
            "worst": connectivity.worst(along),
        }
    found["by_epoch"] = []
    for epoch, files in task["epochs"].items():
        a, b = (_load(network, file) for file in files)
        values = connectivity.along(network.losses, connectivity.line(a, b), 5)["train"]
        found["by_epoch"].append(
            {
                "epoch": int(epoch),
                "barrier": connectivity.barrier(values),
                "dip": connectivity.dip(values),
            }
        )
    return found


def climb(network: "Network", start: "torch.Tensor", end: "torch.Tensor") -> list:
    """The corners of :func:`lrstudy.theory.connectivity.over_the_top` for a network's training loss."""
    import torch

    labels = network.labels["train"]
    shares = torch.bincount(torch.from_numpy(labels), minlength=network.meta["num_classes"]) / len(labels)
    matrix, bias = network.last_layer()
    gradients, largest = [], 0.0
    for weights in (start, end):
        logits = torch.from_numpy(network.logits(weights))
        # The gradient of the mean cross-entropy in the logits' common offsets, which the bias is.
        gradients.append(logits.double().softmax(dim=1).mean(dim=0) - shares)
        largest = max(largest, logits.abs().max().item(), weights[bias].abs().max().item())
    return connectivity.over_the_top(
        start,
        end,
        classifier=(matrix, bias),
        bias_gradients=(gradients[0], gradients[1]),
        largest_logit=largest,
        class_shares=shares,
    )


def _network(task: dict, num_batches: int = 1) -> "Network":
    import torch

    from lrstudy.theory.network import Network

    torch.set_num_threads(task["settings"]["threads"])
    return Network(task["settings"], task["data"], num_examples=task["num_examples"], num_batches=num_batches)


def _load(network: "Network", file: str) -> "torch.Tensor":
    from safetensors.torch import load_file

    return network.vector(load_file(file))
