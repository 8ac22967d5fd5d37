"""Intervals by resampling the questions: percentile bootstrap, stratified by label so that no resample lacks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["intervals"]

_Interval: TypeAlias = tuple[float, float]


def intervals(
    measure: Callable[[npt.NDArray[np.intp]], Mapping[str, float]],
    strata: npt.NDArray[np.generic],
    *,
    repetitions: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, _Interval]:
    """Of every number that `measure` gives for an array of row numbers. strata: one value per row; of each as many rows
    are drawn as there are. A number that is not a number in some resamples (no answer was given) is left out there; one
    that never is one has the interval 0 … 1."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    drawn: dict[str, list[float]] = {}
    for _ in range(repetitions):
        rows = np.concatenate([generator.choice(group, len(group)) for group in groups])
        for name, value in measure(rows).items():
            drawn.setdefault(name, []).append(value)
    side = (1.0 - confidence) / 2
    found: dict[str, _Interval] = {}
    for name, values in drawn.items():
        real = np.array([value for value in values if np.isfinite(value)])
        low, high = np.quantile(real, [side, 1.0 - side]) if len(real) else (0.0, 1.0)
        found[name] = (float(low), float(high))
    return found
