"""A trained network as a model for others: raw examples in, class probabilities out, in MLflow's format.

What preprocessing a network needs after ``preprocess`` is part of the model: the normalization of pixels, the
lengths of reviews. So a loaded model takes examples as data/processed holds them.
"""

import contextlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lrstudy.recipe.models import make_model


class ImageClassifier(nn.Module):
    """uint8 images (batch, 32, 32, 3) to class probabilities (batch, num_classes).

    Args:
        network: maps normalized images (batch, 3, 32, 32) to logits.
        mean, std: of each channel of the training split, pixels scaled to [0, 1].
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255))

    def forward(self, images: Tensor) -> Tensor:
        pixels = ((images.float() - self.mean) * self.scale).permute(0, 3, 1, 2)
        return self.network(pixels).softmax(dim=1)


class TextClassifier(nn.Module):
    """Token ids (batch, length) of the study's tokenizer, padded with 0, to class probabilities."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.long()
        lengths = (tokens != 0).sum(dim=1)
        return self.network(tokens, lengths).softmax(dim=1)


def make_classifier(settings: dict, meta: dict, weights: dict[str, Tensor]) -> nn.Module:
    """The network that ``settings`` (a model section) describes with ``weights``, taking raw examples."""
    network = make_model(settings, meta)
    network.load_state_dict(weights)
    if meta["kind"] == "image":
        return ImageClassifier(network, meta["mean"], meta["std"]).eval()
    return TextClassifier(network).eval()


def some_examples(arrays: dict[str, np.ndarray], meta: dict, count: int = 2) -> np.ndarray:
    """The first examples of a split as a classifier takes them: images, or token ids padded with 0."""
    if meta["kind"] == "image":
        return arrays["images"][:count]
    reviews = [
        arrays["tokens"][start:end].astype(np.int64)
        for start, end in zip(arrays["offsets"], arrays["offsets"][1 : count + 1], strict=False)
    ]
    longest = max(map(len, reviews))
    return np.stack([np.pad(review, (0, longest - len(review))) for review in reviews])


def save_trained(folder: Path, settings: dict, data: Path, weights: Path, made_by: str) -> None:
    """Write the network that ``settings`` describes, with the ``weights`` of a file, as :func:`save_model`.

    Args:
        data: the processed data set that it was trained on; the example is of its validation split.
        made_by: the stage whose file the weights are.
    """
    from lrstudy.checked import read_tensors
    from lrstudy.data import read_meta, read_split

    meta = read_meta(data)
    classifier = make_classifier(settings, meta, read_tensors(weights, made_by, "torch"))
    save_model(folder, classifier, some_examples(read_split(data, "validation"), meta), meta["num_classes"])


def save_model(folder: Path, classifier: nn.Module, examples: np.ndarray, num_classes: int) -> None:
    """Write ``classifier`` to ``folder`` as MLflow keeps models: whole or not at all.

    With signature, input example, requirements and the code of the network's classes, so that it loads where
    lrstudy is not installed or is another version. ``mlflow.pytorch.load_model`` reads it, and so does
    MLflow's server.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    any_number = -1
    variable = (any_number, *(examples.shape[1:] if examples.ndim > 2 else [any_number]))
    needed = ("torch", "torchvision", "numpy", "mlflow", "cloudpickle")
    signature = ModelSignature(
        inputs=Schema([TensorSpec(examples.dtype, variable)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (any_number, num_classes))]),
    )
    # It advises against pickle for models of others; these are our own, and an LSTM's graph cannot be
    # exported for reviews of any length.
    logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".model-") as scratch:
        with _classes_by_value(classifier):
            mlflow.pytorch.save_model(
                classifier,
                Path(scratch) / "model",
                signature=signature,
                input_example=examples,
                pip_requirements=[f"{name}=={version(name)}" for name in needed],
                serialization_format="pickle",
            )
        if folder.exists():
            shutil.rmtree(folder)
        (Path(scratch) / "model").rename(folder)


@contextlib.contextmanager
def _classes_by_value(classifier: nn.Module) -> Iterator[None]:
    """Pickle this module's classes and the networks' with their code, those of another package, too.

    MLflow's own way, ``code_paths``, puts a copy of part of the package before the installed one on the path
    of whoever loads the model.
    """
    import cloudpickle

    packages = {type(module).__module__.partition(".")[0] for module in classifier.modules()}
    packages -= {"lrstudy", "torch", "torchvision"}
    ours = ("lrstudy.recipe.models", "lrstudy.errors", "lrstudy.entries.parameters", __name__)
    loaded = list(sys.modules.items())  # another thread may be importing
    modules = [module for name, module in loaded if name in ours or name.partition(".")[0] in packages]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
