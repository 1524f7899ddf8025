"""A split in memory, and its mini-batches made whole: no per-example Python work.

Both kinds share one face: ``len(split)``, ``training_batches(size, generator)`` and
``evaluation_batches(size)``, which yield ``(inputs, labels, rows)``: the model's arguments, int64 labels
(batch,), and the rows of the split (batch,).
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lrstudy.training.measures import num_steps

Batch = tuple[tuple[Tensor, ...], Tensor, Tensor]

_SORT_WINDOW = 50  # batches that are sorted by length together: long enough to save padding, still shuffled
_LENGTH_STEP = 16  # few lengths, so that an allocator finds room for a batch where an earlier one was


class ImageSplit:
    """uint8 images (N, 32, 32, 3), given to the model as float (batch, 3, 32, 32) in channels-last memory.

    Pixels are scaled to [0, 1] and normalized with the training split's ``mean`` and ``std``. With
    ``augment="crop_flip"`` a training image is shifted by up to 4 pixels each way and mirrored with
    probability 1/2.
    """

    def __init__(
        self, arrays: dict[str, np.ndarray], meta: dict, device: torch.device, augment: str = "none"
    ):
        self.images = torch.from_numpy(arrays["images"]).to(device)
        self.labels = torch.from_numpy(arrays["labels"]).to(device)
        self.mean = torch.tensor(meta["mean"], device=device) * 255
        self.scale = 1 / (torch.tensor(meta["std"], device=device) * 255)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def training_batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch in random order; a last batch of fewer than ``size`` is left out."""
        order = torch.randperm(len(self), generator=generator)
        for rows in full_batches(order, size):
            yield self._batch(rows, generator if self.augment == "crop_flip" else None)

    def evaluation_batches(self, size: int) -> Iterator[Batch]:
        """Every example once, in order."""
        for rows in torch.arange(len(self)).split(size):
            yield self._batch(rows, None)

    def subset(self, rows: Tensor) -> "ImageSplit":
        """The split of these examples (int64, on the CPU) alone, in this order."""
        chosen = copy.copy(self)
        on_device = rows.to(self.images.device)
        chosen.images, chosen.labels = self.images[on_device], self.labels[on_device]
        return chosen

    def zero_share(self, rows: Tensor) -> float:
        """Share of pixels that are exactly 0 (black) in these images."""
        return (self.images[rows.to(self.images.device)] == 0).float().mean().item()

    def _batch(self, rows: Tensor, generator: torch.Generator | None) -> Batch:
        on_device = rows.to(self.images.device, non_blocking=True)
        images = self.images[on_device]
        if generator is not None:
            images = shift_and_mirror(images, generator)
        images = images.float().sub_(self.mean).mul_(self.scale).permute(0, 3, 1, 2)
        return (images,), self.labels[on_device], rows


class TextSplit:
    """Token ids of reviews, flat with offsets, given to the model padded with 0.

    A batch is as long as its longest review, rounded up to a multiple of 16, at most the split's longest.

    Training batches hold reviews of like length: the shuffled reviews are sorted by length within windows of
    50 batches, and the batches are shuffled again.
    """

    def __init__(self, arrays: dict[str, np.ndarray], device: torch.device):
        self.tokens = torch.from_numpy(arrays["tokens"].astype(np.int32)).to(device)
        offsets = torch.from_numpy(arrays["offsets"].astype(np.int64))
        self.starts, self.lengths = offsets[:-1], offsets.diff()
        self.longest = int(self.lengths.max())
        self.labels = torch.from_numpy(arrays["labels"]).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self.labels)

    def training_batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch in random order; a last batch of fewer than ``size`` is left out."""
        order = torch.randperm(len(self), generator=generator)
        order = torch.cat(full_batches(order, size))  # before sorting: else the longest were left out
        windows = order.split(size * _SORT_WINDOW)
        order = torch.cat([w[self.lengths[w].argsort(stable=True)] for w in windows])
        batches = full_batches(order, size)
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield self._batch(batches[index])

    def evaluation_batches(self, size: int) -> Iterator[Batch]:
        """Every example once, shortest first."""
        for rows in self.lengths.argsort(stable=True).split(size):
            yield self._batch(rows)

    def subset(self, rows: Tensor) -> "TextSplit":
        """The split of these reviews (int64, on the CPU) alone, in this order; tokens are not copied."""
        chosen = copy.copy(self)
        chosen.starts, chosen.lengths = self.starts[rows], self.lengths[rows]
        chosen.longest = int(chosen.lengths.max())
        chosen.labels = self.labels[rows.to(self.device)]
        return chosen

    def zero_share(self, rows: Tensor) -> float:
        """Share of padded positions in the batch that these reviews make."""
        lengths = self.lengths[rows]
        return 1 - lengths.sum().item() / (self._padded_length(lengths) * len(rows))

    def _padded_length(self, lengths: Tensor) -> int:
        return min(-(-int(lengths.max()) // _LENGTH_STEP) * _LENGTH_STEP, self.longest)

    def _batch(self, rows: Tensor) -> Batch:
        lengths = self.lengths[rows]
        positions = torch.arange(self._padded_length(lengths))
        real = positions < lengths[:, None]
        flat = (self.starts[rows][:, None] + positions).where(real, 0)
        tokens = self.tokens[flat.to(self.device)].long().where(real.to(self.device), 0)
        return (tokens, lengths.to(self.device)), self.labels[rows.to(self.device)], rows


Split = ImageSplit | TextSplit


def make_split(
    arrays: dict[str, np.ndarray], meta: dict, device: torch.device, augment: str = "none"
) -> Split:
    """The split of the data set that ``meta`` describes, on ``device``."""
    if meta["kind"] == "image":
        return ImageSplit(arrays, meta, device, augment)
    return TextSplit(arrays, device)


def take_share(arrays: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """The first ``share`` (0 to 1) of every class in a fixed random order, at least one example of each.

    A smaller share's examples are among a larger one's, and classes keep their proportions.
    """
    if share == 1:
        return arrays
    labels = arrays["labels"]
    generator = np.random.default_rng(0)
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: max(1, round(share * len(members)))])
    rows = np.sort(np.concatenate(chosen))
    if "images" in arrays:
        return {"images": arrays["images"][rows], "labels": labels[rows]}
    starts, lengths = arrays["offsets"][rows], np.diff(arrays["offsets"])[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(arrays["offsets"].dtype)
    tokens = np.concatenate([arrays["tokens"][a : a + n] for a, n in zip(starts, lengths, strict=True)])
    return {"tokens": tokens, "offsets": offsets, "labels": labels[rows]}


def fixed_sample(split: Split, count: int) -> Split:
    """``count`` examples of a split without replacement, all of them if it has fewer, in the split's order.

    Which ones depends on the split's size alone (NumPy's generator seeded with 0): every training on one
    data set has the same.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
    return split.subset(torch.from_numpy(rows))


def full_batches(order: Tensor, size: int) -> list[Tensor]:
    """``order`` cut into whole batches of ``size``; all of it as one batch if it is shorter."""
    steps = num_steps(len(order), size)
    return list(order[: steps * min(size, len(order))].view(steps, -1))


def shift_and_mirror(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Shift each image (N, H, W, C) by up to ``padding`` pixels, zeros moving in, and mirror half of them."""
    count, height, width, _ = images.shape
    draw = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    mirror = torch.rand(count, 1, generator=generator) < 0.5
    rows = torch.arange(height) + draw[0]
    columns = torch.arange(width).expand(count, -1)
    columns = columns.flip(1).where(mirror, columns) + draw[1]
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    device = images.device
    example = torch.arange(count, device=device)[:, None, None]
    return padded[example, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
