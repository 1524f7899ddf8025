"""The study's networks. Each maps a batch's inputs to logits of shape (batch, num_classes).

Images come as float (batch, 3, 32, 32); texts as token ids (batch, length), 0 where padded, with the
reviews' lengths (batch,). No result depends on padding.

A network is one class or function under ``@network("name")``. What its arguments may be stands in its
signature (:mod:`lrstudy.recipe.networks` reads it there, without torch); those that the data set decides are
``OF_THE_DATA``.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrstudy.entries.outside import is_outside, load, told_whose
from lrstudy.entries.parameters import Count, Number, Probability
from lrstudy.errors import StudyError
from lrstudy.recipe.networks import OF_THE_DATA, unknown_network

PADDING, UNKNOWN = 0, 1
"""Token ids, as ``preprocess`` gives them."""


_Network = TypeVar("_Network", bound=Callable[..., nn.Module])

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {}
"""Every network of this package by name."""


def network(name: str) -> Callable[[_Network], _Network]:
    """List a class or function under this name; it is called with sizes by name and gives the network."""

    def register(make: _Network) -> _Network:
        ARCHITECTURES[name] = make
        return make

    return register


class BasicBlock(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x)))))), a 1x1 projection where the shape changes (He et al. 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == channels
            else nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)).add_(self.shortcut(x)), inplace=True)


@network("resnet")
class ResNet(nn.Module):
    """The CIFAR ResNet: depth = 6n + 2 layers in three stages of n blocks, width, 2 width, 4 width channels.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2; projections instead of padded shortcuts.
    """

    def __init__(
        self,
        num_classes: int,
        depth: Annotated[int, Number(about="6n + 2 layers", unit="layers", ge=8, whole=True, step=6)],
        # torch 2.14's float32 backward of narrower channels-last convolutions crashes on a CPU.
        width: Annotated[int, Number(about="of the first stage", unit="channels", ge=8, whole=True)],
        in_channels: int = 3,
    ):
        super().__init__()
        blocks_per_stage = (depth - 2) // 6
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        blocks, channels = [], width
        for stage in range(3):
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(images), inplace=True))
        return self.classifier(x.mean(dim=(2, 3)))


@network("resnet18")
def resnet18(num_classes: int, in_channels: int = 3) -> nn.Module:
    """torchvision's ResNet-18 with the stem that CIFAR work uses: a 3x3 convolution and no pooling."""
    from torchvision.models import resnet18 as torchvision_resnet18  # two seconds to import

    model = torchvision_resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def make_embedding(vocab_size: int, embedding_size: int) -> nn.Embedding:
    """Token embeddings whose vectors have length 1 on average; row 0, the padding, stays 0.

    With torch's standard deviation of 1 the rare words' vectors stay noise for a whole short training.
    """
    embedding = nn.Embedding(vocab_size, embedding_size, padding_idx=0)
    nn.init.normal_(embedding.weight, std=embedding_size**-0.5)
    with torch.no_grad():
        embedding.weight[0].zero_()
    return embedding


class WordDropout(nn.Dropout):
    """In training, token ids (batch, length) with each word made the unknown one with probability p.

    Padding stays. It keeps a network from resting on single rare words. Source: Bowman et al. 2016, arXiv
    1511.06349.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return tokens
        dropped = torch.rand(tokens.shape, device=tokens.device) < self.p
        return tokens.masked_fill(dropped & (tokens != PADDING), UNKNOWN)


@network("lstm")
class LSTM(nn.Module):
    """Embedding, left-to-right LSTM, maximum over the review's positions, linear classifier.

    Padding stands at the end, so no real position has seen it, and the maximum leaves it out. In training
    words are dropped (:class:`WordDropout`).
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        embedding_size: Count,
        hidden_size: Count,
        num_layers: Count,
        dropout: Probability,
        word_dropout: Probability,
    ):
        super().__init__()
        self.word_dropout = WordDropout(word_dropout)
        self.embedding = make_embedding(vocab_size, embedding_size)
        self.lstm = nn.LSTM(
            embedding_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        features, _ = self.lstm(self.dropout(self.embedding(self.word_dropout(tokens))))
        padded = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
        features = features.masked_fill(padded[..., None], float("-inf"))
        return self.classifier(self.dropout(features.amax(dim=1)))


def attend_to(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value over the keys where ``mask`` is true; (..., length, d) each.

    On a CPU in float32 at least: torch's bfloat16 kernel is nearly twice as slow there, forward and backward.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype), attn_mask=mask)


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)) (pre-norm: arXiv 2002.04745).

    The first weights are ``nn.MultiheadAttention``'s: Xavier's for query, key and value, no biases.
    """

    def __init__(self, embedding_size: int, num_heads: int, feedforward_size: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(embedding_size)
        self.query_key_value = nn.Linear(embedding_size, 3 * embedding_size)
        self.output = nn.Linear(embedding_size, embedding_size)
        self.norm2 = nn.LayerNorm(embedding_size)
        self.feedforward = nn.Sequential(
            nn.Linear(embedding_size, feedforward_size),
            nn.GELU(),
            nn.Linear(feedforward_size, embedding_size),
        )
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, attend: Tensor) -> Tensor:
        batch, length, size = x.shape
        heads = self.query_key_value(self.norm1(x)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attention = attend_to(query, key, value, attend)
        x = x + self.dropout(self.output(attention.transpose(1, 2).reshape(batch, length, size)))
        return x + self.dropout(self.feedforward(self.norm2(x)))


@network("transformer")
class Transformer(nn.Module):
    """Token and position embeddings, pre-norm encoder blocks, mean over the review's positions, classifier.

    Padded positions are masked as keys and left out of the mean. In training words are dropped
    (:class:`WordDropout`).
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        max_length: int,
        embedding_size: Count,
        num_heads: Count,
        num_layers: Count,
        feedforward_size: Count,
        dropout: Probability,
        word_dropout: Probability,
    ):
        super().__init__()
        if embedding_size % num_heads:
            raise StudyError(
                f"model: embedding_size {embedding_size} is not a multiple of num_heads {num_heads}; change "
                "one of them."
            )
        self.word_dropout = WordDropout(word_dropout)
        self.embedding = make_embedding(vocab_size, embedding_size)
        self.position = nn.Embedding(max_length, embedding_size)
        nn.init.normal_(self.position.weight, std=embedding_size**-0.5)
        self.blocks = nn.ModuleList(
            EncoderBlock(embedding_size, num_heads, feedforward_size, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(embedding_size, num_classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        real = positions < lengths[:, None]
        x = self.dropout(self.embedding(self.word_dropout(tokens)) + self.position(positions))
        for block in self.blocks:
            x = block(x, real[:, None, None, :])
        x = self.norm(x).masked_fill(~real[..., None], 0.0).sum(dim=1) / lengths[:, None]
        return self.classifier(self.dropout(x))


def make_model(settings: dict, meta: dict) -> nn.Module:
    """Build the network that ``settings`` (a model section of the config) describes for a data set.

    Args:
        settings: ``architecture``, as for :func:`find`, and its sizes.
        meta: the data set's meta.json. Of what it decides, :data:`lrstudy.recipe.networks.OF_THE_DATA`, a
            network gets what it has arguments for.

    Raises:
        StudyError: there is no such network; the data set does not say what it asks for; code of another
            package raises, or makes something that is no ``nn.Module``.
    """
    sizes = dict(settings)
    architecture = sizes.pop("architecture")
    make = find(architecture)
    arguments = inspect.signature(make).parameters
    asked = {name: argument for name, argument in arguments.items() if name in OF_THE_DATA}
    if missing := [
        name for name, argument in asked.items() if name not in meta and argument.default is argument.empty
    ]:
        raise StudyError(
            f"model.architecture: {architecture} has the argument {missing[0]}, which the data set does not "
            f"decide; it decides {', '.join(name for name in OF_THE_DATA if name in meta)}."
        )
    with told_whose(
        architecture, f"making it with {', '.join(f'{k} {v}' for k, v in sizes.items()) or 'no sizes'}"
    ):
        made = make(**{name: meta[name] for name in asked if name in meta}, **sizes)
    if not isinstance(made, nn.Module):
        raise StudyError(
            f"model.architecture: {architecture} gives a {type(made).__name__}, no torch.nn.Module."
        )
    return made


def find(architecture: str) -> Callable[..., nn.Module]:
    """The class or function of this name: of :data:`ARCHITECTURES`, or ``package.module:Name``.

    Raises:
        StudyError: there is no such network.
    """
    if is_outside(architecture):
        found = load(architecture, "a network")
        if not callable(found):
            raise StudyError(f"{architecture}: found {found!r}; a network is a class or a function.")
        return found
    if architecture not in ARCHITECTURES:
        raise unknown_network(architecture)
    return ARCHITECTURES[architecture]


def check_logits(logits: object, architecture: str, num_examples: int, num_classes: int) -> None:
    """Refuse what is no batch of logits.

    Raises:
        StudyError: ``logits`` is no float tensor of shape (num_examples, num_classes); names the network.
    """
    if (
        isinstance(logits, Tensor)
        and logits.shape == (num_examples, num_classes)
        and logits.is_floating_point()
    ):
        return
    found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    raise StudyError(
        f"model.architecture: {architecture} gives {found} for a batch of {num_examples} examples of "
        f"{num_classes} classes; allowed: logits, a float tensor of shape ({num_examples}, {num_classes})."
    )


def count_parameters(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
