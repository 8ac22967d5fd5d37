"""Which of many options are worth a look: those that no other one beats in everything.

Plain arithmetic on tuples of numbers, all of which are to be small; it knows no plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["dominates", "front"]

T = TypeVar("T")


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Nowhere larger, and somewhere smaller."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def front(options: Sequence[T], key: Callable[[T], Sequence[float]]) -> list[T]:
    """Those that no other dominates, by their first number; of equal ones the first that was given. In the order of the
    sorted keys a dominated option comes after what dominates it, so each is compared with the front so far only."""
    found: list[tuple[tuple[float, ...], T]] = []
    for values, _, option in sorted(((tuple(key(o)), i, o) for i, o in enumerate(options)), key=lambda e: e[:2]):
        if not any(all(a <= b for a, b in zip(kept, values, strict=True)) for kept, _ in found):
            found.append((values, option))
    return [option for _, option in found]
