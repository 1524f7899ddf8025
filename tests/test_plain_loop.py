"""What makes training fast changes no mathematics: the loop against one written as plainly as possible.

The plain one makes every example by itself, keeps images in the default memory order, reads the loss of every
step, evaluates one example at a time and uses torch's optimizers directly. Both see the same batches, padded to
the same length, since dropout draws a number for each place.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lrstudy.recipe.models import make_model
from lrstudy.training.batches import make_split
from lrstudy.training.loop import train
from tiny_data import dataset, settings

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
WEIGHT_DECAY = 0.01
OPTIMIZERS = {
    "nesterov": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True, foreach=False),
    "adamw": lambda groups, lr: torch.optim.AdamW(groups, lr, foreach=False),
}


def example(arrays: dict[str, np.ndarray], row: int, meta: dict) -> torch.Tensor:
    """One image (3, 32, 32), or the token ids of one review (length,)."""
    if meta["kind"] == "image":
        pixels = torch.tensor(arrays["images"][row]).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(meta[name], dtype=torch.float32)[:, None, None] for name in ("mean", "std"))
        return (pixels - mean) / std
    start, end = arrays["offsets"][row], arrays["offsets"][row + 1]
    return torch.tensor(arrays["tokens"][start:end].tolist())


def inputs(examples: list[torch.Tensor], meta: dict, longest: int = 0) -> tuple[torch.Tensor, ...]:
    if meta["kind"] == "image":
        return (torch.stack(examples),)
    lengths = torch.tensor([len(review) for review in examples])
    padded = pad_sequence(examples, batch_first=True)
    room = max(0, longest - padded.shape[1])
    return F.pad(padded, (0, min(-padded.shape[1] % 16, room))), lengths


def train_plainly(chosen: dict, splits: dict, meta: dict, batches: list[list[list[int]]]) -> tuple:
    """Losses of every update, validation losses of every epoch, and the trained network."""
    torch.manual_seed(chosen["seed"])
    model = make_model(chosen["model"], meta)
    base_lr = chosen["optimizer"]["base_lr"]
    groups = [
        {"params": [w for w in model.parameters() if w.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in model.parameters() if w.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = OPTIMIZERS[chosen["optimizer"]["name"]](groups, base_lr)
    losses, validation_losses = [], []
    training, validation = splits["train"], splits["validation"]
    longest = int(np.diff(training["offsets"]).max()) if meta["kind"] == "text" else 0
    for epoch, rows_of_batches in enumerate(batches):
        model.train()
        for index, rows in enumerate(rows_of_batches):
            t = epoch + index / len(rows_of_batches)
            for group in optimizer.param_groups:
                group["lr"] = base_lr * (0.1 + 0.9 * (1 + np.cos(np.pi * t / len(batches))) / 2)
            labels = torch.tensor(training["labels"][rows])
            logits = model(*inputs([example(training, row, meta) for row in rows], meta, longest))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            every = [
                F.cross_entropy(
                    model(*inputs([example(validation, row, meta)], meta)), torch.tensor([label])
                ).item()
                for row, label in enumerate(validation["labels"].tolist())
            ]
        validation_losses.append(np.mean(every))
    return losses, validation_losses, model


@pytest.mark.parametrize(("name", "optimizer", "base_lr"), [("resnet", "nesterov", 0.05), ("lstm", "adamw", 0.01), ("transformer", "adamw", 0.01)])  # fmt: skip
def test_the_loop_trains_as_the_plain_one_does(name, optimizer, base_lr):
    """The same numbers up to rounding, dropout included: 1e-3 of them after three epochs."""
    splits, meta = dataset("image" if name == "resnet" else "text")
    chosen = settings(name, optimizer={"name": optimizer, "base_lr": base_lr, "weight_decay": WEIGHT_DECAY})
    training = make_split(splits["train"], meta, CPU)
    ours = train(chosen, training, make_split(splits["validation"], meta, CPU), meta)

    order = torch.Generator().manual_seed(chosen["seed"])
    batches = [
        [rows.tolist() for _, _, rows in training.training_batches(chosen["batch_size"], order)]
        for _ in range(chosen["num_epochs"])
    ]
    losses, validation_losses, model = train_plainly(chosen, splits, meta, batches)

    found = [value for record in ours.epochs for value in record["steps"]["train/loss"]]
    np.testing.assert_allclose(found[0], losses[0], rtol=1e-5)
    np.testing.assert_allclose(found, losses, rtol=1e-3)
    np.testing.assert_allclose([r["validation/loss"] for r in ours.epochs], validation_losses, rtol=1e-3)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(ours.last_weights[key], value, rtol=1e-2, atol=1e-3)
    # The weights have come a long way, so the numbers had every chance to part.
    torch.manual_seed(chosen["seed"])
    start = torch.cat([w.flatten() for w in make_model(chosen["model"], meta).parameters()])
    moved = torch.cat([w.detach().flatten() for w in model.parameters()]) - start
    assert moved.norm() > 0.03 * start.norm()
