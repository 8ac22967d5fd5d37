"""Bootstrap intervals of a mean over cases. A case is drawn with all its repeats, and with both of its versions.

So the interval is paired, and clustered by case: repeats of a case say how flaky it is, and are no further cases.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["interval"]

_CHUNK_NUMBERS = 4_000_000


def interval(
    values: npt.NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of one number per case, shape (cases,). One case or none: (nan, nan)."""
    n = len(values)
    if n < 2:
        return (float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    distinct, numbers = np.unique(values, return_counts=True)
    if len(distinct) <= 64:
        # To draw n cases with replacement is to draw how often each value comes.
        means = rng.multinomial(n, numbers / n, size=resamples) @ distinct / n
    else:
        rows = max(1, _CHUNK_NUMBERS // n)
        parts = [
            values[rng.integers(0, n, size=(min(rows, resamples - start), n), dtype=np.int32)].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
        means = np.concatenate(parts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return (float(low), float(high))
