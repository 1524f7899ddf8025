"""Effects over seeds as plain values for JSON, and verdicts on claims."""

import numpy as np
from numpy.typing import ArrayLike

from lrstudy.analysis.statistics import bootstrap_interval, signed_rank_p, smallest_p


def summary(values: ArrayLike, confidence: float, num_resamples: int) -> dict:
    """``values`` (None where not finite), and of the finite ones ``mean``, bootstrap ``interval`` and count
    ``n``."""
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    interval = bootstrap_interval(finite, confidence, num_resamples) if len(finite) else None
    return {
        "values": [float(value) if np.isfinite(value) else None for value in values],
        "mean": float(finite.mean()) if len(finite) else None,
        "interval": list(interval) if interval else None,
        "n": len(finite),
    }


def paired(differences: ArrayLike, confidence: float, num_resamples: int) -> dict:
    """Differences by seed with mean, interval and exact signed-rank p, plain values for JSON."""
    differences = np.asarray(differences, dtype=np.float64)
    interval = bootstrap_interval(differences, confidence, num_resamples)
    return {
        "values": differences.tolist(),
        "mean": float(differences.mean()),
        "interval": list(interval) if interval else None,
        "p": signed_rank_p(differences),
        "smallest_p": smallest_p(len(differences)),
        "n": len(differences),
    }


def verdict(effect: dict, p: float | None, confidence: float, *, better: int = 1) -> str:
    """``supported``, ``contradicted`` or ``undecided``.

    Decided where p is at most 1 - confidence and the interval of the effect leaves out 0; the sign of the
    mean says which way.

    Args:
        effect: what :func:`paired` returns.
        p: of the test that decides.
        better: 1 where larger differences support the claim, -1 where smaller ones do.
    """
    interval = effect["interval"]
    if p is None or interval is None or p > 1 - confidence or interval[0] <= 0 <= interval[1]:
        return "undecided"
    return "supported" if better * effect["mean"] > 0 else "contradicted"


def refutation(values: ArrayLike, limits: ArrayLike, confidence: float) -> dict:
    """Whether any case refutes a statement about all of them, and how large the effect is.

    A single case decides, since the statement speaks of all; none can prove it.

    Args:
        values: (num_cases,), 0 where the statement holds, above where it fails; infinite counts as failing.
        limits: (num_cases,), up to which a value may be the measurement's error.

    Returns:
        ``verdict`` (``refutes``, ``does not refute``, or ``not measured`` without cases), ``mean``,
        ``interval`` of the mean over the cases, ``largest``, the number of cases ``n``, how many ``fail``,
        and ``why``.
    """
    values, limits = np.asarray(values, dtype=np.float64), np.asarray(limits, dtype=np.float64)
    if len(values) == 0:
        nothing = {"mean": None, "interval": None, "largest": None, "n": 0, "fail": 0}
        return {"verdict": "not measured", **nothing, "why": "nothing to measure it on"}
    fail = int((values > limits).sum())
    finite = values[np.isfinite(values)]
    interval = bootstrap_interval(finite, confidence) if len(finite) else None
    return {
        "verdict": "refutes" if fail else "does not refute",
        "mean": float(finite.mean()) if len(finite) else None,
        "interval": list(interval) if interval else None,
        "largest": float(finite.max()) if len(finite) else None,
        "n": len(values),
        "fail": fail,
        "why": f"{fail} of {len(values)} cases fail"
        + (f", the largest effect is {finite.max():.4g}" if len(finite) else ""),
    }
