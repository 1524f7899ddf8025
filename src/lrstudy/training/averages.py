"""Averages of a network's weights over its updates, tracked while it trains.

The last weights of a training at a constant rate are a draw from a cloud that gradient noise keeps up: a
decayed rate shrinks the cloud, an average takes its centre. So an averaged constant rate is the rival that a
schedule must beat, and it costs no training of its own. Both are torch's (``torch.optim.swa_utils``).

- ``ema``: exponential moving average ``a <- a + (w - a) / h`` after every update, ``a = w`` after the first.
  Its horizon ``h`` is a tenth of the training's updates. So weights are as old on average as those in
  ``tail_average``, and a tenth of the training means the same at 3 epochs and at 200.
- ``tail_average``: the plain mean of the weights after each of the last fifth of the updates (stochastic
  weight averaging, Izmailov et al., arXiv 1803.05407; of the latest weights, Kaddour, arXiv 2209.14981).

An average has no batch-norm statistics: those that it carries are the last weights' until
:func:`lrstudy.recipe.optimizers.refresh_batch_norm` takes them anew.
"""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from lrstudy.training.measures import AVERAGES, last_fifth


class WeightAverages:
    """Both averages of ``model``'s weights over a training of ``num_updates`` updates.

    With schedule-free optimizers the averaged weights are those that are trained (``y``).
    """

    def __init__(self, model: nn.Module, num_updates: int):
        decay = 1 - 1 / max(1, num_updates // 10)
        self._first_of_tail = num_updates - last_fifth(num_updates)  # 0-based
        self._ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._tail = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update ``step`` (0-based)."""
        self._ema.update_parameters(model)
        if step >= self._first_of_tail:
            self._tail.update_parameters(model)

    def networks(self) -> dict[str, nn.Module]:
        """Name -> network with the averaged weights; the tail's are the initial ones before its updates."""
        networks = (self._ema.module, self._tail.module)
        return dict(zip(AVERAGES, networks, strict=True))

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """For :meth:`load_state_dict`: the averages go on from it to the same bits."""
        return {"ema": self._ema.state_dict(), "tail_average": self._tail.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Go on from what :meth:`state_dict` gave for the same network."""
        self._ema.load_state_dict(state["ema"])
        self._tail.load_state_dict(state["tail_average"])
