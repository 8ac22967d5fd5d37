"""What drop would have been found: the exact power of McNemar's test, and the smallest drop that it finds often enough.

The number of discordant pairs is random: power is the mean over it. As the drop grows, the share of discordant pairs is
held as it was seen, until the drop is larger than that share; then all pairs that differ are worse ones.
Source: Miettinen, Biometrics 24 (1968), unconditional power of the conditional test.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from michelangelo.llm.tracebench.statistics import mcnemar

__all__ = ["detection", "smallest_drop"]


def detection(num_cases: int, discordance: float, drop: float, level: float) -> float:
    """Probability that the one-sided exact test at `level` finds a true `drop` of the pass rate (a share, not points).

    discordance: the share of pairs that differ, of either direction; at least `drop`.
    """
    share = min(1.0, max(discordance, drop))
    if num_cases <= 0 or share <= 0:
        return 0.0
    middle, spread = num_cases * share, math.sqrt(num_cases * share * (1 - share))
    low = max(0, math.floor(middle - 8 * spread - 8))
    totals = np.arange(low, min(num_cases, math.ceil(middle + 8 * spread + 8)) + 1)
    needed = mcnemar.critical(totals, level)
    found = stats.binom.sf(needed - 1, totals, (share + drop) / (2 * share))
    return float((stats.binom.pmf(totals, num_cases, share) * found).sum())


def smallest_drop(num_cases: int, discordance: float, level: float, power: float = 0.8) -> float:
    """The smallest drop that is found with probability `power`; infinity: not even if every case broke."""
    if detection(num_cases, discordance, 1.0, level) < power:
        return math.inf
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if detection(num_cases, discordance, middle, level) < power:
            low = middle
        else:
            high = middle
    return high
