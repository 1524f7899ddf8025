"""Counts and lists in words."""

from collections.abc import Iterable


def seeds_named(seeds: Iterable[object]) -> str:
    """As in ``seeds 1, 2 and 3``."""
    names = [str(seed) for seed in seeds]
    return f"{'seed' if len(names) == 1 else 'seeds'} {listed(names)}"


def listed(names: list[str]) -> str:
    """As in ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, noun: str = "seed") -> str:
    """As in ``1 seed`` and ``2 seeds``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
