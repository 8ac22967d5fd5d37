"""Paired permutation (sign-flip) test of scores that are any numbers: all sign patterns where there are few cases,
drawn ones else. A drawn p-value counts the observed pattern as one of the draws, so that it never is too small.

Source: Phipson and Smyth, "Permutation p-values should never be zero" (2010).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from michelangelo.llm.tracebench.statistics.mcnemar import Side

__all__ = ["ALL_PATTERNS", "sign_flip", "signs"]

ALL_PATTERNS: Final = 14
"""Cases that differ, up to which all 2^n patterns are looked at."""
_ROUNDING: Final = 1e-9
"""Sums that are equal but for the order of their additions are ties, relative to the sum of sizes."""


def sign_flip(differences: npt.NDArray[np.float64], *, side: Side = "worse", draws: int = 4999, seed: int = 0) -> float:
    """P-value that the mean of `differences`, shape (cases,), A minus B, is above 0 (or other than 0) by chance."""
    values = differences[differences != 0]
    if not values.size:
        return 1.0
    observed, slack = float(values.sum()), _ROUNDING * float(np.abs(values).sum())
    if values.size <= ALL_PATTERNS:
        patterns = np.arange(2**values.size)[:, None] >> np.arange(values.size)[None, :] & 1
        sums = (1 - 2 * patterns) @ np.abs(values)
        return float(_hits(sums, observed, slack, side)) / len(sums)
    hits = 0
    for pattern in signs(values.size, draws, seed):
        hits += _hits(pattern @ values.astype(np.float32), observed, max(slack, 1e-6 * abs(observed)), side)
    return (1 + hits) / (1 + draws)


def signs(num_cases: int, draws: int, seed: int) -> list[npt.NDArray[np.float32]]:
    """Random +1 and -1 in blocks of shape (at most 500, num_cases): `draws` rows in all."""
    rng = np.random.default_rng(seed)
    width = (num_cases + 7) // 8
    blocks = []
    for start in range(0, draws, 500):
        raw = rng.integers(0, 256, size=(min(500, draws - start), width), dtype=np.uint8)
        bits = np.unpackbits(raw, axis=1)[:, :num_cases]
        blocks.append(np.asarray(1 - 2 * bits.astype(np.int8), dtype=np.float32))
    return blocks


def _hits(sums: npt.NDArray[np.floating], observed: float, slack: float, side: Side) -> int:
    if side == "worse":
        return int((sums >= observed - slack).sum())
    return int((np.abs(sums) >= abs(observed) - slack).sum())
