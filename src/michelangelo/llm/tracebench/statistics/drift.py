"""Has a distribution moved? Kolmogorov-Smirnov and energy distance of numbers, energy distance and MMD of vectors.

P-values come from swapping A and B within cases, so that answers to the same question stay paired, and the repeats of
a case together. Distances are descriptive: they say that answers changed, not that they are worse.
Sources: Székely and Rizzo, "Energy statistics" (2013); Gretton et al., "A kernel two-sample test" (2012).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from michelangelo.llm.tracebench.statistics import permutation

__all__ = ["Shift", "numbers", "vectors"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """A distance between A and B. floor: the same distance between repeats of one version, nan without repeats."""

    statistic: str
    distance: float
    floor: float
    p_value: float

    @property
    def excess(self) -> float:
        """The distance beyond the noise floor, at least 0; without repeats the distance itself."""
        return self.distance if np.isnan(self.floor) else max(0.0, self.distance - self.floor)


def numbers(a: _Floats, b: _Floats, *, draws: int = 999, seed: int = 0) -> list[Shift]:
    """KS and energy distance of two arrays of shape (cases, repeats) without NaN, both in one sorting. Energy distance
    has the numbers' unit."""
    made = []
    for name, observed, drawn in zip(
        ("KS", "energy"), _line(a[:, :1], b[:, :1]), _line_p_values(a, b, draws, seed), strict=True
    ):
        position = 0 if name == "KS" else 1
        made.append(Shift(name, observed, _floor(a, b, functools.partial(_line_at, position)), drawn))
    return made


def vectors(a: _Floats, b: _Floats, *, draws: int = 999, seed: int = 0) -> list[Shift]:
    """Energy distance and MMD (Gaussian kernel, median distance as its width) of shape (cases, repeats, dimensions).

    Memory grows with the square of the cases: give at most about 1,000.
    """
    first_a, first_b = a.mean(axis=1), b.mean(axis=1)
    made = []
    between = {
        "ab": _distances(first_a, first_b),
        "aa": _distances(first_a, first_a),
        "bb": _distances(first_b, first_b),
    }
    pooled = np.concatenate([between["ab"].ravel(), between["aa"].ravel(), between["bb"].ravel()])
    positive = pooled[pooled > 1e-12]
    width = float(np.median(positive)) if positive.size else 1.0

    def kernel(d: _Floats) -> _Floats:
        return np.asarray(np.exp(-(d**2) / (2 * width**2)), dtype=np.float64)

    def negative(d: _Floats) -> _Floats:
        return -d

    for name, of in (("energy", negative), ("MMD", kernel)):
        form = _form(of(between["aa"]), of(between["bb"]), of(between["ab"]))
        p_value = _form_p_value(form, draws, seed)
        distance = _vector_distance(a[:, 0], b[:, 0], of)
        made.append(Shift(name, distance, _floor(a, b, functools.partial(_vector_distance_of_first, of)), p_value))
    return made


# --- on a line --------------------------------------------------------------------------------------------


def _line(a: _Floats, b: _Floats) -> tuple[float, float]:
    values, signs, _ = _sorted(a, b)
    return _gaps(values, signs[None, :])[0].item(), _gaps(values, signs[None, :])[1].item()


def _line_at(position: int, a: _Floats, b: _Floats) -> float:
    return _line(a, b)[position]


def _sorted(a: _Floats, b: _Floats) -> tuple[_Floats, _Floats, npt.NDArray[np.int64]]:
    """All values in order; what each adds to F_A - F_B; the case of each."""
    cases = np.arange(len(a))
    values = np.concatenate([a.ravel(), b.ravel()])
    owners = np.concatenate([np.repeat(cases, a.shape[1]), np.repeat(cases, b.shape[1])])
    signs = np.concatenate([np.full(a.size, 1 / a.size), np.full(b.size, -1 / b.size)])
    order = np.argsort(values, kind="stable")
    return values[order], signs[order], owners[order]


def _gaps(values: _Floats, signs: npt.NDArray[np.floating]) -> tuple[_Floats, _Floats]:
    """Per row of signs: the largest |F_A - F_B|, and twice the integral of its square."""
    steps = np.diff(values)
    # Within ties the difference of the two distribution functions is not yet what it will be.
    gaps = np.cumsum(signs, axis=1)[:, :-1][:, steps > 0]
    if not gaps.shape[1]:
        return np.zeros(len(signs)), np.zeros(len(signs))
    return (
        np.asarray(np.abs(gaps).max(axis=1), dtype=np.float64),
        np.asarray(2 * (gaps**2 @ steps[steps > 0]), dtype=np.float64),
    )


def _line_p_values(a: _Floats, b: _Floats, draws: int, seed: int) -> tuple[float, float]:
    values, signs, owners = _sorted(a, b)
    largest, integral = (float(x[0]) for x in _gaps(values, signs[None, :]))
    hits = np.zeros(2, dtype=np.int64)
    for block in permutation.signs(len(a), draws, seed):
        for rows in np.array_split(block, max(1, block.shape[0] * len(values) // 2_000_000)):
            if len(rows):
                maxima, integrals = _gaps(values, rows[:, owners] * signs[None, :])
                hits += [(maxima >= largest - 1e-9).sum(), (integrals >= integral * (1 - 1e-6)).sum()]
    return (1 + int(hits[0])) / (1 + draws), (1 + int(hits[1])) / (1 + draws)


# --- in space ---------------------------------------------------------------------------------------------


def _distances(a: _Floats, b: _Floats) -> _Floats:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.clip(squares, 0.0, None)), dtype=np.float64)


def _form(aa: _Floats, bb: _Floats, ab: _Floats) -> _Floats:
    """The matrix D with distance = sᵀ D s / n² for signs s: swapping a case's versions is a sign."""
    return np.asarray(aa + bb - ab - ab.T, dtype=np.float64)


def _form_p_value(form: _Floats, draws: int, seed: int) -> float:
    observed = float(form.sum())
    slack = 1e-6 * float(np.abs(form).sum()) / max(1, len(form))
    hits = 0
    for block in permutation.signs(len(form), draws, seed):
        rows = block.astype(np.float64)
        hits += int((np.einsum("ij,ij->i", rows @ form, rows) >= observed - slack).sum())
    return (1 + hits) / (1 + draws)


def _vector_distance_of_first(of: Callable[[_Floats], _Floats], a: _Floats, b: _Floats) -> float:
    return _vector_distance(a[:, 0], b[:, 0], of)


def _vector_distance(a: _Floats, b: _Floats, of: Callable[[_Floats], _Floats]) -> float:
    form = _form(of(_distances(a, a)), of(_distances(b, b)), of(_distances(a, b)))
    return max(0.0, float(form.sum()) / len(a) ** 2)


def _floor(a: _Floats, b: _Floats, distance: Callable[[_Floats, _Floats], float]) -> float:
    """The mean over both versions of the distance between their first two repeats; nan without repeats."""
    found = [distance(x[:, :1], x[:, 1:2]) for x in (a, b) if x.shape[1] > 1]
    return float(np.mean(found)) if found else float("nan")
