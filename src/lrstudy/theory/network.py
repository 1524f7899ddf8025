"""A network's losses as functions of its weights alone, written as one vector."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from lrstudy.data import read_meta, read_split
from lrstudy.recipe.models import make_model
from lrstudy.recipe.optimizers import refresh_batch_norm
from lrstudy.theory.curvature import Product, hessian_product
from lrstudy.training.batches import Split, make_split, take_share
from lrstudy.training.devices import choose_device
from lrstudy.training.evaluation import BATCH_SIZES, predict


class Network:
    """A network with a fixed set of training and test examples.

    Weights are float32 vectors (P,) in the order of the model's parameters. Batch-norm statistics are no
    weights: they are computed anew from the training examples for every vector. All in float32.

    Args:
        settings: of a training, as :meth:`lrstudy.recipe.cells.Cell.settings` gives them, with ``device``.
        data: the processed data set's folder.
        num_examples: how many training and test examples, in the classes' proportions; all if there are
            fewer.
        num_batches: into how many parts the training examples are cut for the family of losses.
    """

    def __init__(self, settings: dict, data: str, *, num_examples: int, num_batches: int = 1):
        self.device = choose_device(settings["device"])
        self.meta = read_meta(data)
        self.model = make_model(settings["model"], self.meta).to(self.device)
        if self.meta["kind"] == "image":
            self.model = self.model.to(memory_format=torch.channels_last)
        self.data = data
        self.splits = {}
        for name in ("train", "test"):
            arrays = read_split(data, name)
            share = min(1.0, num_examples / len(arrays["labels"]))
            self.splits[name] = make_split(take_share(arrays, share), self.meta, self.device)
        self.labels = {name: split.labels.cpu().numpy() for name, split in self.splits.items()}
        self.parameters = list(self.model.parameters())
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.batch_size = BATCH_SIZES[self.meta["kind"]]
        shuffled = np.random.default_rng(0).permutation(len(self.labels["train"]))
        self.batches = np.array_split(shuffled, num_batches)

    @cached_property
    def training(self) -> Split:
        """The whole training split: what is trained on the few measured examples alone would learn them."""
        return make_split(read_split(self.data, "train"), self.meta, self.device)

    def vector(self, state: Mapping[str, Tensor]) -> Tensor:
        """The weights of a saved model (its ``state_dict``) as one vector."""
        return torch.cat(
            [state[name].reshape(-1).to(self.device) for name, _ in self.model.named_parameters()]
        )

    def put(self, weights: Tensor) -> None:
        """Give the model these weights."""
        weights = weights.to(self.device, torch.float32)
        start = 0
        with torch.no_grad():
            for parameter in self.parameters:
                count = parameter.numel()
                parameter.copy_(weights[start : start + count].view(parameter.shape))
                start += count

    def example_losses(self, weights: Tensor) -> dict[str, np.ndarray]:
        """Cross-entropy in nats of every training and test example (N,), batch-norm statistics anew."""
        self.put(weights)
        self._refresh()
        found = {}
        for name, split in self.splits.items():
            logits = predict(self.model, split, self.batch_size, self.device, torch.float32)
            found[name] = _cross_entropies(logits, self.labels[name])
        return found

    def losses(self, weights: Tensor) -> dict[str, float]:
        """``train`` and ``test``: mean losses over the examples."""
        return {name: float(found.mean()) for name, found in self.example_losses(weights).items()}

    def family(self, weights: Tensor) -> dict[str, float]:
        """``train``, ``test`` and ``batch 1`` ...: the same function of the weights on several sets of
        examples."""
        found = self.example_losses(weights)
        batches = {
            f"batch {number}": float(found["train"][rows].mean())
            for number, rows in enumerate(self.batches, 1)
        }
        return {name: float(values.mean()) for name, values in found.items()} | batches

    def standard_error(self, weights: Tensor) -> dict[str, float]:
        """Of the mean losses, over the examples."""
        return {
            name: float(found.std() / np.sqrt(len(found)))
            for name, found in self.example_losses(weights).items()
        }

    def batch_gradient(self, weights: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """The loss' gradient (P,) on one random batch of the whole training split, without dropout.

        Batch norm takes the batch's own statistics, as in training.
        """
        split = self.training
        inputs, labels, _ = next(split.training_batches(min(size, len(split)), generator))
        self.put(weights)
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.Dropout | nn.LSTM):
                module.eval()
        # cuDNN refuses the gradient of a recurrent layer in evaluation mode.
        with torch.backends.cudnn.flags(enabled=self.meta["kind"] == "image"):
            loss = nn.functional.cross_entropy(self.model(*inputs), labels)
        return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, self.parameters)])

    def product(self, weights: Tensor, num_examples: int) -> Product:
        """The product with the Hessian of the mean loss of the first training examples of a fixed order.

        Batch norm keeps its statistics, those of all training examples, and counts as a constant. Call the
        product before anything else that takes weights: torch refuses it afterwards.
        """
        self.put(weights)
        self._refresh()
        self.model.eval()
        split = self.splits["train"]
        generator = torch.Generator().manual_seed(0)
        inputs, labels, _ = next(split.training_batches(min(num_examples, len(split)), generator))
        return hessian_product(
            lambda: nn.functional.cross_entropy(self.model(*inputs), labels), self.parameters
        )

    def last_layer(self) -> tuple[slice, slice]:
        """Where the last linear layer's matrix and bias lie in the vector of weights."""
        layer = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1]
        places, start = {}, 0
        for parameter in self.parameters:
            places[id(parameter)] = slice(start, start + parameter.numel())
            start += parameter.numel()
        return places[id(layer.weight)], places[id(layer.bias)]

    def logits(self, weights: Tensor) -> np.ndarray:
        """Of the training examples (N, num_classes), batch-norm statistics anew."""
        self.put(weights)
        self._refresh()
        return predict(self.model, self.splits["train"], self.batch_size, self.device, torch.float32)

    def _refresh(self) -> None:
        refresh_batch_norm(
            self.model,
            (inputs for inputs, _, _ in self.splits["train"].evaluation_batches(self.batch_size)),
        )


def _cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    largest = logits.max(axis=1, keepdims=True)
    return (
        largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    )
