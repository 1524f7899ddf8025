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
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = dict(
        part for line in reversed(lines) if len(part := [p.strip() for p in line.split(":", 1)]) == 2
    )
    name = known.get("model name") or platform.machine()
    flags = set(known.get("flags", "").split())
    units = [next((unit for unit in ("avx512f", "avx2", "avx") if unit in flags), "").rstrip("f")]
    units += ["bfloat16"] if flags & {"avx512_bf16", "amx_bf16"} else []
    return f"{name} ({', '.join(filter(None, units))})" if any(units) else name


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
