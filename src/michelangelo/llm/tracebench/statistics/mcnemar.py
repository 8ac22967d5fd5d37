"""Is B worse than A on the same cases? Exact: McNemar's test, and its generalisation to repeated answers.

Under the null hypothesis A and B are exchangeable within each case, so the sign of each case's difference is a fair
coin, given its size. With one answer per case that is McNemar's exact (binomial) test; with repeats the sum of
`size × sign` has a distribution that is computed, not approximated: sizes are small whole numbers.
Source: McNemar, Psychometrika 12 (1947); Fisher's randomisation argument for paired data (1935).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["MAX_SUPPORT", "Side", "binomial", "counts", "critical"]

Side: TypeAlias = Literal["worse", "differs"]
"""worse: the alternative is a positive sum. differs: any sum but zero."""
MAX_SUPPORT: Final = 200_000
"""Possible sums beyond which draws take the place of the exact distribution."""
_DIRECT: Final = 20_000_000


def binomial(num_worse: int, num_better: int, *, side: Side = "worse") -> float:
    """P-value of McNemar's exact test: so many discordant pairs or more in the direction of `worse`. 1 without any."""
    total = num_worse + num_better
    if not total:
        return 1.0
    if side == "worse":
        return float(special.bdtrc(num_worse - 1, total, 0.5))
    return min(1.0, 2.0 * float(special.bdtrc(max(num_worse, num_better) - 1, total, 0.5)))


def counts(differences: npt.NDArray[np.int64], *, side: Side = "worse", seed: int = 0) -> float:
    """P-value of the exact sign-flip test of whole numbers, shape (cases,): passes of A minus passes of B.

    Sizes of 0 and 1 only are McNemar's test. Where more than MAX_SUPPORT sums are possible, 100,000 draws of the same
    distribution stand in, with the one observed counted among them, so that the level still holds.
    """
    sizes, numbers = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    observed = int(differences.sum())
    if not sizes.size:
        return 1.0
    if sizes.tolist() == [1]:
        worse = int((differences > 0).sum())
        return binomial(worse, int(numbers[0]) - worse, side=side)
    reach = int((sizes * numbers).sum())
    if 2 * reach + 1 > MAX_SUPPORT:
        return _drawn(sizes, numbers, observed, side, seed)
    distribution = _distribution(sizes, numbers)
    above = float(distribution[observed + reach :].sum())
    if side == "worse":
        return min(1.0, above)
    tail = float(distribution[abs(observed) + reach :].sum())
    return min(1.0, 2.0 * tail)


def critical(totals: npt.NDArray[np.int64], level: float) -> npt.NDArray[np.int64]:
    """For each number of discordant pairs, the fewest worse ones whose p-value is at most `level`; total + 1: none."""
    # The inverse is of the continuous function; one step to either side may be the exact answer.
    found = np.ceil(special.bdtrik(1 - level, np.maximum(totals, 1), 0.5)).astype(np.int64) + 1
    for step in (-1, 0, 1):
        candidate = np.clip(found + step, 0, totals + 1)
        fits = (_above(candidate, totals) <= level) & (_above(candidate - 1, totals) > level)
        found = np.where(fits, candidate, found)
    return np.asarray(np.clip(found, 0, totals + 1), dtype=np.int64)


def _distribution(sizes: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Probabilities of the sums -reach … reach."""
    made = np.ones(1)
    for size, number in zip(sizes.tolist(), numbers.tolist(), strict=True):
        spaced = np.zeros(2 * size * number + 1)
        spaced[:: 2 * size] = _coins(number)
        made = _convolved(made, spaced)
    return np.asarray(made, dtype=np.float64)


def _above(least: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """P(heads >= least) of so many coins."""
    return np.asarray(np.where(least > totals, 0.0, special.bdtrc(least - 1, totals, 0.5)), dtype=np.float64)


def _convolved(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Exactly where that is quick; else by Fourier transforms, right to 1e-15 in all."""
    if len(a) * len(b) <= _DIRECT:
        return np.asarray(np.convolve(a, b), dtype=np.float64)
    size = len(a) + len(b) - 1
    made = np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size), size)
    return np.asarray(np.maximum(made, 0.0), dtype=np.float64)


def _coins(number: int) -> npt.NDArray[np.float64]:
    """Probabilities of 0 … number heads."""
    heads = np.arange(number + 1)
    logs = special.gammaln(number + 1) - special.gammaln(heads + 1) - special.gammaln(number - heads + 1)
    return np.asarray(np.exp(logs - number * np.log(2)), dtype=np.float64)


def _drawn(sizes: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], observed: int, side: Side, seed: int) -> float:
    draws = 100_000
    rng = np.random.default_rng(seed)
    sums = np.zeros(draws, dtype=np.int64)
    for size, number in zip(sizes.tolist(), numbers.tolist(), strict=True):
        sums += size * (2 * rng.binomial(number, 0.5, size=draws) - number)
    hits = int((sums >= observed).sum()) if side == "worse" else int((np.abs(sums) >= abs(observed)).sum())
    return (1 + hits) / (1 + draws)
