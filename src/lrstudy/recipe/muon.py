"""Muon for the matrices of hidden layers and AdamW for all else, as one optimizer.

Both parts are torch's own, ``torch.optim.Muon`` and ``torch.optim.AdamW``. What goes where follows Muon's
author (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): input and output layers, embeddings,
biases and normalization are AdamW's, and a hidden convolution's kernel is Muon's as the matrix of a row for
each filter.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lrstudy.errors import StudyError
from lrstudy.recipe.optimizers import decay_groups

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_LAYERS = (nn.Linear, _ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Whose weights multiply what they are given; of other modules nobody knows what their matrices are."""


class MuonAdamW(torch.optim.Optimizer):
    """Muon where a group has ``use_muon``, AdamW in the other groups; each group has its own part's settings.

    Muon steps by ``-lr * 0.2 * sqrt(max(A, B)) * O``, where the (A, B) matrix O is the momentum's nearest
    semi-orthogonal one, nearly (``ns_steps`` of a Newton-Schulz iteration in bfloat16). By that factor an
    entry moves about as far as under AdamW (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that both parts
    have the same rate and the same decoupled weight decay.

    Args:
        params: groups, as :meth:`parameter_groups` makes them; one without ``use_muon`` is AdamW's.
        lr: of both parts.
        momentum: Muon's, the share kept of the running mean of the gradient.
        nesterov: whether Muon looks one step ahead.
        ns_steps: Muon's steps of the Newton-Schulz iteration.
        betas: AdamW's.
        eps: AdamW's.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        # They have no parameters of their own: settings and states are those of this optimizer's groups.
        self._muon = torch.optim.Muon(
            [{"params": []}],
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = torch.optim.AdamW([{"params": []}], lr=lr, betas=betas, eps=eps, foreach=True)
        super().__init__(params, {})

    @staticmethod
    def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """The model's trained parameters in groups: Muon's first, then AdamW's with and without weight decay.

        Raises:
            StudyError: ``model`` is no module, or none of its trained weights is Muon's.
        """
        if not isinstance(model, nn.Module):
            raise StudyError(
                f"optimizer muon: parameters is a {type(model).__name__}; allowed: a torch.nn.Module, since "
                "tensors don't say which of them are hidden layers' weights. Give the model itself."
            )
        hidden = [weight for weight in hidden_weights(model) if weight.requires_grad]
        if not hidden:
            raise StudyError(
                f"optimizer muon: {type(model).__name__} has no trained weight for it; allowed: at least one "
                "matrix or kernel between the first and the last weight of the network. Choose adamw, which "
                "trains the rest here."
            )
        known = set(hidden)
        rest = [parameter for parameter in model.parameters() if parameter not in known]
        return [
            {"params": hidden, "weight_decay": weight_decay, "use_muon": True},
            *(group | {"use_muon": False} for group in decay_groups(rest, weight_decay) if group["params"]),
        ]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with the settings of its part where it has none of its own."""
        part = self._muon if param_group.get("use_muon", False) else self._adamw
        super().add_param_group({"use_muon": False} | part.defaults | param_group)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_muon": self._muon, "_adamw": self._adamw}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient; the closure's loss, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not group["use_muon"]:
                _step(self._adamw, group, {weight: self.state[weight] for weight in weights})
                continue
            matrices = [_as_matrix(weight) for weight in weights]
            for weight, matrix in zip(weights, matrices, strict=True):
                matrix.grad = _as_matrix(weight.grad)
            states = {matrix: self.state[weight] for weight, matrix in zip(weights, matrices, strict=True)}
            _step(self._muon, group, states)
            for weight, matrix in zip(weights, matrices, strict=True):
                if matrix.data_ptr() != weight.data_ptr():  # channels last: the matrix is a copy
                    weight.copy_(matrix.view_as(weight))
        return loss


def hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights for Muon, in the order of definition.

    These are the matrices and kernels of linear, convolution, recurrent and attention layers, without the
    first and the last of them: a network is taken to define its input layer first and its output layer last.
    Where the first is an embedding, that is the input layer. A weight that an embedding or the output layer
    shares is none of them.
    """
    layers = [module for module in model.modules() if isinstance(module, (*_LAYERS, *_EMBEDDINGS))]
    weights = [
        (weight, isinstance(layer, _EMBEDDINGS))
        for layer in layers
        for weight in layer.parameters(recurse=False)
        if weight.ndim >= 2
    ]
    outer = {weight for weight, embeds in weights if embeds}
    outer |= {weight for weight, _ in (*weights[:1], *weights[-1:])}
    return list(dict.fromkeys(weight for weight, _ in weights if weight not in outer))


def _as_matrix(weight: Tensor) -> Tensor:
    """A row for each output: of a kernel (out, in, height, width) the matrix (out, in * height * width)."""
    return weight.detach().flatten(1)


def _step(part: torch.optim.Optimizer, group: dict[str, Any], states: dict[Tensor, dict]) -> None:
    """Step ``part`` on the tensors of ``states`` by the group's settings; it keeps neither."""
    part.param_groups = [group | {"params": list(states)}]
    part.state = defaultdict(dict, states)
    part.step()
    part.param_groups, part.state = [], defaultdict(dict)
