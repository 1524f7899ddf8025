"""Where and in which precision a run computes."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lrstudy.errors import StudyError


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU; a device that is asked for by name must be there.

    Raises:
        StudyError: the named device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in available.items() if there))
    if not available[name]:
        usable = ", ".join(device for device, there in available.items() if there)
        raise StudyError(f"train.device: {name!r} is not available on this machine; choose auto or {usable}.")
    return torch.device(name)


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated, it is ten times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of the matrix products and convolutions; weights, losses and statistics stay float32.

    ``auto`` is bfloat16 where the device computes it natively, else float32.
    """
    if precision == "auto":
        precision = "bfloat16" if has_native_bfloat16(device) else "float32"
    return getattr(torch, precision)


def resolve(task: dict) -> tuple[str, str]:
    """What ``auto`` comes to on this machine: the kind of device and the name of the dtype.

    Args:
        task: ``device`` and ``precision``, as :func:`choose_device` and :func:`choose_dtype` take them.
    """
    device = choose_device(task["device"])
    return device.type, str(choose_dtype(task["precision"], device)).removeprefix("torch.")


def accelerator_name(kind: str) -> str | None:
    """The accelerator's model name; None on a CPU."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return "Apple MPS" if kind == "mps" else None


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Mixed precision in ``dtype``; nothing for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def compute_clock(device: torch.device) -> float:
    """Seconds on a clock by which two trainings' costs compare, whatever else the machine does.

    On a CPU this process's processor time over the number of its threads; wall-clock time on an accelerator,
    where the processor only hands the work out. Only differences have a meaning.
    """
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else time.perf_counter()


def compiled(model: nn.Module) -> Callable[..., Tensor]:
    """``model`` by way of torch.compile: the same weights, kernels made for it at the first call.

    Raises:
        StudyError: at a call, if the kernels cannot be made here.
    """
    # Dropout draws as it does without: the histories are the same up to rounding.
    network = torch.compile(model, options={"fallback_random": True})

    def forward(*inputs: Tensor) -> Tensor:
        try:
            return network(*inputs)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise StudyError(
                f"train.compile: torch.compile cannot make kernels here ({reason}). On a CPU it needs a C++ "
                "compiler, such as Debian's g++; install one, or set train.compile=false."
            ) from error

    return forward
