"""How large a difference can be, given what was seen: score intervals of a paired difference, and exact ones of a rate.

A bootstrap says nothing about what never occurred: ten cases that agree give it an interval of width zero. What decides
whether a drop is excluded is therefore Tango's score interval, which knows how few cases there are.
Sources: Tango, Statistics in Medicine 17 (1998), 891-908; Clopper and Pearson, Biometrika 26 (1934).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["drop_bounds", "largest_drop", "rate_bounds", "within_case_variance"]


def drop_bounds(differences: npt.NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of the mean of `differences`, shape (cases,), each in [-1, 1]: A minus B, a drop is positive.

    With one answer per case this is Tango's interval. With repeats or scores the differences are fractions; then the
    pairs that Tango counts are chosen so that mean and variance are those of the fractions. Each end is a one-sided
    bound at (1 + confidence) / 2. No cases: (-1, 1).
    """
    tail = (1 - confidence) / 2
    return (-largest_drop(-differences, 1 - tail), largest_drop(differences, 1 - tail))


def largest_drop(differences: npt.NDArray[np.float64], confidence: float = 0.95) -> float:
    """The one-sided upper bound alone: with this confidence the mean is at most this. No cases: 1."""
    n = len(differences)
    if not n:
        return 1.0
    total, spread = float(differences.sum()), float((differences**2).sum())
    # A mean of fractions, all of one sign, may exceed its own sum of squares.
    discordant = min(float(n), max(spread, abs(total)))
    worse, better = (discordant + total) / 2, (discordant - total) / 2
    z = float(special.ndtri(confidence))

    def beyond(drop: float) -> float:
        return _score(worse, better, n, drop) + z

    estimate = total / n
    if estimate >= 1 or beyond(1.0) >= 0:
        return 1.0
    low, high = estimate, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) > 0 else (low, middle)
    return high


def rate_bounds(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a rate. No trials: (0, 1)."""
    if not trials:
        return (0.0, 1.0)
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(successes, trials - successes + 1, tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return (low, high)


def within_case_variance(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Unbiased variance of each row of shape (cases, repeats): what the same version does to the same case."""
    if values.shape[1] < 2:
        return np.full(len(values), np.nan)
    return np.asarray(values.var(axis=1, ddof=1), dtype=np.float64)


def _score(worse: float, better: float, n: int, drop: float) -> float:
    """Tango's statistic: standard normal when the true difference is `drop`; falls as `drop` grows."""
    a = 2.0 * n
    b = -worse - better + (2 * n - worse + better) * drop
    c = -better * drop * (1 - drop)
    other = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * other + drop * (1 - drop))
    shift = worse - better - n * drop
    if variance <= 0:
        return 0.0 if abs(shift) < 1e-12 else math.copysign(math.inf, shift)
    return shift / math.sqrt(variance)
