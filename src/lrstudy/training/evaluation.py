"""From a trained model to predictions, and from predictions to metrics."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from lrstudy.training.batches import Split

BATCH_SIZES = {"image": 500, "text": 64}  # more reviews are no faster on a CPU, and take more memory


def predict(
    model: "torch.nn.Module", split: "Split", batch_size: int, device: "torch.device", dtype: "torch.dtype"
) -> np.ndarray:
    """Logits float32 (N, num_classes) of every example, in the split's order. Ends in eval mode."""
    import torch

    from lrstudy.training.devices import autocast

    model.eval()
    outputs, order = [], []
    with torch.inference_mode(), autocast(device, dtype):
        for inputs, _, rows in split.evaluation_batches(batch_size):
            outputs.append(model(*inputs).float())
            order.append(rows)
    logits = torch.cat(outputs).cpu()
    return torch.empty_like(logits).index_copy_(0, torch.cat(order), logits).numpy()


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean over examples (N,) of -log softmax(logits)[label] in nats, and its standard error.

    The standard error is the standard deviation over the examples / sqrt(N): how far the mean would move with
    another draw of examples. Computed in float64.
    """
    logits = logits.astype(np.float64)
    largest = logits.max(axis=1, keepdims=True)
    log_normalizer = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
    losses = log_normalizer - logits[np.arange(len(labels)), labels]
    return float(losses.mean()), float(losses.std() / np.sqrt(len(losses)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities float64 (N, num_classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def accuracy_and_f1(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float]:
    """Share of correct predictions, and F1 = 2 TP / (2 TP + FP + FN) of each class in two summaries.

    The same numbers as scikit-learn's (tested), without its two seconds of import in every training worker.

    Args:
        labels, predicted: int (N,), classes from 0.
        num_classes: how many there are.

    Returns:
        ``accuracy``; ``f1``: of class 1 for two classes, else macro; ``f1_macro``: the mean over the classes.
        A class that is neither present nor predicted has no F1 and is left out of the mean, as scikit-learn
        does with the labels that it sees.
    """
    confusion = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    correct = confusion.diagonal()
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    macro = (2 * correct[either > 0] / either[either > 0]).mean()
    of_class_1 = 2 * correct[1] / either[1] if either[1] else 0.0
    f1 = of_class_1 if num_classes == 2 else macro
    return {"accuracy": float(correct.sum() / len(labels)), "f1": float(f1), "f1_macro": float(macro)}


def summarize(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What is reported of a network on a split while it trains.

    Args:
        logits: float (N, num_classes).
        labels: int (N,).

    Returns:
        ``loss`` and ``loss_standard_error`` (:func:`cross_entropy`), ``accuracy``, ``f1`` and ``f1_macro``
        (:func:`accuracy_and_f1`).
    """
    loss, standard_error = cross_entropy(logits, labels)
    return {"loss": loss, "loss_standard_error": standard_error} | accuracy_and_f1(
        labels, logits.argmax(axis=1), logits.shape[1]
    )


NO_SCORES = dict.fromkeys(("accuracy", "f1", "f1_macro", "loss", "confusion"))
"""The test scores of weights that are no numbers."""


def test_weights(
    settings: dict, meta: dict, arrays: dict[str, np.ndarray], weights: "dict[str, torch.Tensor]"
) -> dict:
    """What the test split says of a training's weights: ``logits`` (N, num_classes) and :func:`measure`'s.

    Args:
        settings: the training's.
        meta, arrays: meta.json and the tensors of the test split.
        weights: by name; they are computed with on the training's kind of device, in its dtype.

    Raises:
        RuntimeError: the weights are another network's.
    """
    import torch

    from lrstudy.recipe.models import make_model
    from lrstudy.training.batches import make_split
    from lrstudy.training.devices import choose_device, choose_dtype

    torch.set_num_threads(settings["threads"])
    device = choose_device(settings["device"])
    model = make_model(settings["model"], meta).to(device)
    if meta["kind"] == "image":
        model = model.to(memory_format=torch.channels_last)
    model.load_state_dict(weights)
    dtype = choose_dtype(settings["precision"], device)
    logits = predict(model, make_split(arrays, meta, device), BATCH_SIZES[meta["kind"]], device, dtype)
    return {"logits": logits, **measure(logits, arrays["labels"])}


test_weights.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def measure(logits: np.ndarray, labels: np.ndarray) -> dict:
    """What test data say of a model.

    Args:
        logits: float (N, num_classes).
        labels: int (N,).

    Returns:
        ``scores``: see :func:`score`; None each where a logit is no number, as of a training that
        diverged. ``right``: bool (N,), whether the likeliest class is the label. ``losses``: float16 (N,),
        -log probability of the label in nats, at most 36: probabilities are taken as at least float64's
        epsilon, as scikit-learn's log loss takes them.
    """
    probabilities = softmax(logits)
    if not np.isfinite(probabilities).all():
        return {"scores": dict(NO_SCORES), "right": None, "losses": None}
    of_label = probabilities[np.arange(len(labels)), labels]
    return {
        "scores": score(labels, probabilities),
        "right": probabilities.argmax(axis=1) == labels,
        "losses": -np.log(of_label.clip(np.finfo(np.float64).eps)).astype(np.float16),
    }


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict:
    """scikit-learn's accuracy, F1 (of class 1 for two classes, else macro), macro F1, log loss and confusion.

    Args:
        labels: int (N,).
        probabilities: float (N, num_classes), rows summing to 1.
    """
    from sklearn import metrics

    num_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    classes = list(range(num_classes))
    macro = float(metrics.f1_score(labels, predicted, average="macro", zero_division=0))
    binary = num_classes == 2
    return {
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "f1": float(metrics.f1_score(labels, predicted, zero_division=0)) if binary else macro,
        "f1_macro": macro,
        "loss": float(metrics.log_loss(labels, probabilities, labels=classes)),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
    }
