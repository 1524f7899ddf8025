"""What kind of machine this is, as results say where they come from. Needs no torch."""

import functools
import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrstudy.ledger.record import Origin

PACKAGES = ("torch", "numpy", "scikit-learn", "lrstudy")
"""Whose versions go with a result."""


@functools.cache
def processor() -> str:
    """The processor's model name, and where Linux tells the widest vector unit and whether it has bfloat16.

    As in ``AMD EPYC (avx512, bfloat16)``.
    """
    known = _told_by_linux()
    if known is None:
        return platform.processor() or platform.machine()
    name, flags = known.get("model name") or platform.machine(), set(known.get("flags", "").split())
    units = [next((unit for unit in ("avx512f", "avx2", "avx") if unit in flags), "").rstrip("f")]
    units += ["bfloat16"] if flags & {"avx512_bf16", "amx_bf16"} else []
    return f"{name} ({', '.join(filter(None, units))})" if any(units) else name


def multiplies_bfloat16() -> bool | None:
    """What :func:`lrstudy.training.devices.has_native_bfloat16` says of the CPU; None where it takes torch
    to tell.
    """
    known = _told_by_linux()
    if known is None or "flags" not in known:
        return None
    return bool(set(known["flags"].split()) & {"avx512_bf16", "amx_tile"})


def _told_by_linux() -> dict[str, str] | None:
    """What /proc/cpuinfo says of the first processor; None where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    return dict(part for line in reversed(lines) if len(part := [p.strip() for p in line.split(":", 1)]) == 2)


def machine_name() -> str:
    """Eight hexadecimal digits that tell this machine from others without naming it."""
    what = "\0".join([platform.node(), processor(), str(os.cpu_count()), platform.system()])
    return hashlib.sha256(what.encode()).hexdigest()[:8]


def system() -> str:
    """Operating system and architecture."""
    return f"{platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    """Python's and the packages' versions; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def origin_here(device: str, revision: str, ended: float) -> "Origin":
    """That something was computed on this machine, as the ledger has it.

    Args:
        device: the kind: cpu, cuda or mps.
        revision: of the code; "" outside of a repository.
        ended: when, in seconds since 1970.
    """
    from lrstudy.ledger.record import Origin

    accelerator = None
    if device != "cpu":
        from lrstudy.training.devices import accelerator_name

        accelerator = accelerator_name(device)
    return Origin(
        machine=machine_name(),
        processor=processor(),
        cores=os.cpu_count() or 1,
        system=system(),
        accelerator=accelerator,
        versions=versions(),
        revision=revision,
        ended=ended,
    )
