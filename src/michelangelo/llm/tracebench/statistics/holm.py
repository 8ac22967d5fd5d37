"""Several hypotheses, one promise: Holm's step-down procedure, with weights for hypotheses that matter more.

Whatever depends on whatever, the chance of at least one false rejection is at most the level.
Source: Holm, "A simple sequentially rejective multiple test procedure" (1979), with its weighted form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["adjusted"]


def adjusted(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Each p-value, adjusted: it is rejected at a level when this is at most that level. In the given order.

    weights: positive, one each; equal if left out. A hypothesis of weight w is first tested at level × w / sum of all.
    """
    shares = [1.0] * len(p_values) if weights is None else list(weights)
    if len(shares) != len(p_values) or any(not share > 0 or math.isinf(share) for share in shares):
        raise ValueError("there must be one positive weight per p-value")
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError("p-values must be from 0 to 1")
    order = sorted(range(len(p_values)), key=lambda i: p_values[i] / shares[i])
    left, largest = math.fsum(shares), 0.0
    made = [1.0] * len(p_values)
    for i in order:
        largest = max(largest, min(1.0, p_values[i] * left / shares[i]))
        made[i] = largest
        left = max(left - shares[i], shares[i] * 1e-12)
    return made
