"""Quantiles of a stream in bounded memory: counts in buckets whose width is a share of their value, so they add up.

Within 1 % of the value at any quantile, as in DDSketch (Masson et al. 2019, arXiv 1908.10693). No samples are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

__all__ = ["ACCURACY", "Sketch"]

ACCURACY: Final = 0.01
_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LOG: Final = math.log(_GAMMA)
_LEAST: Final = 1e-6
"""Seconds; what is less counts as this."""


@dataclass(slots=True)
class Sketch:
    """Of values that are not negative."""

    buckets: dict[int, int] = field(default_factory=dict)
    total: float = 0.0
    """The sum of all values."""

    def add(self, value: float) -> None:
        bucket = math.ceil(math.log(max(value, _LEAST)) / _LOG)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.total += value

    def merge(self, other: Sketch) -> Self:
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.total += other.total
        return self

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    @property
    def mean(self) -> float | None:
        return self.total / count if (count := self.count) else None

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least `share` of all do not exceed; None without values."""
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return None

    def to_json(self) -> dict[str, Any]:
        return {"total": self.total, "buckets": [[bucket, count] for bucket, count in sorted(self.buckets.items())]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        made = cls(total=float(value["total"]))
        made.buckets.update((int(bucket), int(count)) for bucket, count in value["buckets"])
        return made
