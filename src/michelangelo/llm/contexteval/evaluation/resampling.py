"""Is the promise kept, and what does it cost? The whole procedure again and again on other splits of the questions.

Each repetition deals the questions anew into three parts: weights, threshold, held out. The last part is what a promise
is about; nothing of it was seen. Splits are stratified by label. Retrieval happens once, before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.contexteval import calibration, features
from michelangelo.llm.contexteval.calibration import Goal, Rows

__all__ = ["Resampled", "resample"]


@dataclass(frozen=True, slots=True)
class Resampled:
    """kept: share of the repetitions whose held-out rate is at most the risk. rates: of the gate on the held-out part.
    coverages, baselines: share of the held-out answerable questions that the gate, and a cosine cut-off with the same
    promise, answered. refused: repetitions in which nothing could be promised."""

    repetitions: int
    refused: int
    kept: float
    rates: npt.NDArray[np.float64]
    coverages: npt.NDArray[np.float64]
    baselines: npt.NDArray[np.float64]

    @property
    def gain(self) -> float:
        """Mean coverage over that of the cosine cut-off."""
        return float(self.coverages.mean() / self.baselines.mean()) if self.baselines.any() else float("inf")


def resample(rows: Rows, goal: Goal, *, repetitions: int = 200, held_out: float = 0.25, seed: int = 0) -> Resampled:
    """`goal.share_for_weights` is of what is not held out. Raises CalibrationError where no repetition could promise
    anything, as the last of them said it."""
    generator = np.random.default_rng(seed)
    found: list[tuple[float, float, float]] = []
    refusal = errors.CalibrationError("no repetition was asked for")
    for _ in range(repetitions):
        out, first, second = map(
            rows.take, _deal(rows.labels, (held_out, goal.share_for_weights * (1 - held_out)), generator)
        )
        try:
            rate, coverage = _once(first, second, out, goal)
        except errors.CalibrationError as e:
            refusal = e
            continue
        try:
            _, baseline = _once(first, second, out, replace(goal, names=features.BASELINE))
        except errors.CalibrationError:
            baseline = 0.0
        found.append((rate, coverage, baseline))
    if not found:
        raise refusal
    rates, coverages, baselines = np.array(found).T
    kept = float((rates <= goal.risk + 1e-12).mean())
    return Resampled(repetitions, repetitions - len(found), kept, rates, coverages, baselines)


def _once(first: Rows, second: Rows, out: Rows, goal: Goal) -> tuple[float, float]:
    """Rate and coverage on the held-out part."""
    score = calibration.fit_score(first, goal.names)
    threshold = calibration.fit_threshold(score.of(second), second, goal, design=score.of(first)).value
    answered = score.of(out) >= threshold
    coverage = float(answered[out.is_answerable].mean())
    if goal.rate == "unanswerable":
        return float(answered[~out.is_answerable].mean()), coverage
    return (float((~out.is_right)[answered].mean()) if answered.any() else 0.0), coverage


def _deal(
    labels: npt.NDArray[np.str_], shares: tuple[float, float], generator: np.random.Generator
) -> list[npt.NDArray[np.intp]]:
    """Three parts of row numbers; the last has what is left of each label."""
    parts: list[list[npt.NDArray[np.intp]]] = [[], [], []]
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares) * len(rows)).astype(int)
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]
