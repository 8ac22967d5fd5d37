"""What drop would have been found: the exact power of McNemar's test, and the smallest drop that it finds often enough.

The number of discordant pairs is random: power is the mean over it. As the drop grows, the share of discordant pairs is
held as it was seen, until the drop is larger than that share; then all pairs that differ are worse ones.
Source: Miettinen, Biometrics 24 (1968), unconditional power of the conditional test.
"""

from __future__ import annotations

import functools
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from michelangelo.llm.tracebench.statistics import mcnemar

__all__ = ["detection", "smallest_drop"]

_Ints: TypeAlias = npt.NDArray[np.int64]
_Floats: TypeAlias = npt.NDArray[np.float64]


def detection(num_cases: int, discordance: float, drop: float, level: float) -> float:
    """Probability that the one-sided exact test at `level` finds a true `drop` of the pass rate (a share, not points).

    discordance: the share of pairs that differ, of either direction; at least `drop`.
    """
    share = min(1.0, max(discordance, drop))
    if num_cases <= 0 or share <= 0:
        return 0.0
    totals, chances, needed = _plan(num_cases, share, level)
    found = np.where(needed > totals, 0.0, special.bdtrc(needed - 1, totals, (share + drop) / (2 * share)))
    return float((chances * found).sum())


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


@functools.lru_cache(maxsize=64)
def _plan(num_cases: int, share: float, level: float) -> tuple[_Ints, _Floats, _Ints]:
    """Numbers of discordant pairs that may come, how likely each is, and how many worse ones each needs."""
    middle, spread = num_cases * share, math.sqrt(num_cases * share * (1 - share))
    low = max(0, math.floor(middle - 8 * spread - 8))
    totals = np.arange(low, min(num_cases, math.ceil(middle + 8 * spread + 8)) + 1)
    logs = special.gammaln(num_cases + 1) - special.gammaln(totals + 1) - special.gammaln(num_cases - totals + 1)
    logs += special.xlogy(totals, share) + special.xlog1py(num_cases - totals, -share)
    return totals, np.asarray(np.exp(logs), dtype=np.float64), mcnemar.critical(totals, level)
