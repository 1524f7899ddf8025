"""How sharp a loss is: products with its Hessian, the largest eigenvalue, the trace. No Hessian is ever
made."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""A vector (P,) to the Hessian times it."""


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside, torch computes recurrent layers and attention by the kernels that can be differentiated
    twice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def hessian_product(loss: Callable[[], Tensor], weights: Sequence[Tensor]) -> Product:
    """The product with the Hessian of ``loss()`` over ``weights``, by differentiating the gradient again.

    The vector runs through the weights in their order, each flattened. The loss is computed once: call the
    product as often as needed, within :func:`twice_differentiable` as here.

    Source: Pearlmutter 1994.
    """
    with twice_differentiable():
        gradients = torch.autograd.grad(loss(), weights, create_graph=True, materialize_grads=True)
    gradient = torch.cat([part.reshape(-1) for part in gradients])

    def product(vector: Tensor) -> Tensor:
        with twice_differentiable():
            parts = torch.autograd.grad(
                gradient, weights, grad_outputs=vector, retain_graph=True, materialize_grads=True
            )
        return torch.cat([part.reshape(-1) for part in parts]).detach()

    return product


def top_eigenvalue(
    product: Product, size: int, generator: torch.Generator, *, num_iterations: int, tolerance: float = 1e-3
) -> tuple[float, float]:
    """The eigenvalue of largest magnitude, with its sign, by power iteration from a random vector.

    It ends when ||H v - value v|| <= tolerance |value|, or after ``num_iterations`` products.

    Returns:
        The Rayleigh quotient v . H v of the last v, and ||H v - value v||: an eigenvalue lies within that
        distance of the value.
    """
    vector = torch.randn(size, generator=generator)
    value, residual = 0.0, math.inf
    for _ in range(num_iterations):
        length = vector.norm()
        if length == 0:
            return 0.0, 0.0  # the Hessian is 0 on what was left
        vector = vector / length
        image = product(vector)
        value = torch.dot(vector, image).item()
        residual = (image - value * vector).norm().item()
        if residual <= tolerance * abs(value):
            break
        vector = image
    return value, residual


def trace(
    product: Product, size: int, generator: torch.Generator, *, num_samples: int
) -> tuple[float, float]:
    """The trace's estimate: the mean of z . H z over random signs z, and its standard error.

    The standard error is the standard deviation over the samples / sqrt(num_samples), infinite for one
    sample.

    Source: Hutchinson 1990.
    """
    found = []
    for _ in range(num_samples):
        signs = torch.randint(0, 2, (size,), generator=generator).to(torch.float32) * 2 - 1
        found.append(torch.dot(signs.double(), product(signs).double()).item())
    mean = sum(found) / num_samples
    if num_samples == 1:
        return mean, math.inf
    variance = sum((value - mean) ** 2 for value in found) / (num_samples - 1)
    return mean, math.sqrt(variance / num_samples)
