"""How answers changed, beside whether they are right: length, refusals, form, logprobs, time, wording, meaning.

Each quantity becomes an array over cases and repeats; distances and p-values are those of `statistics`. It decides
nothing: a change of style is no regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from michelangelo.llm.tracebench.checks import refusal, registry
from michelangelo.llm.tracebench.pairing import Pair
from michelangelo.llm.tracebench.recording import Row
from michelangelo.llm.tracebench.statistics import drift, holm, mcnemar
from michelangelo.llm.tracebench.verdict import Settings

__all__ = ["Drift", "of"]

_MAX_NUMBERS: Final = 2000
_MAX_VECTORS: Final = 500
"""Cases, drawn at random: distances of vectors take the square of them."""
_DIMENSIONS: Final = 256
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drift:
    """One distance of one quantity. mean_a, mean_b: nan for vectors. floor: the same between repeats of one version;
    nan without repeats. adjusted: p-value after Holm over all distances shown. num_cases: those that have it."""

    quantity: str
    statistic: str
    num_cases: int
    mean_a: float
    mean_b: float
    distance: float
    floor: float
    p_value: float
    adjusted: float = 1.0
    has_moved: bool = False

    @property
    def excess(self) -> float:
        """Beyond the noise floor."""
        return self.distance if np.isnan(self.floor) else max(0.0, self.distance - self.floor)


def of(pairs: Sequence[Pair], settings: Settings) -> list[Drift]:
    """All distances that the rows allow. Answers that are errors have no length, wording or meaning."""
    rng = np.random.default_rng(settings.seed)
    found: list[Drift] = []
    for name, read in _RATES:
        found += _rate(name, pairs, read, settings)
    for name, number in _NUMBERS:
        found += _number(name, pairs, number, settings, rng)
    found += _vector("wording", pairs, _wording, settings, rng)
    found += _vector("meaning", pairs, _meaning, settings, rng)
    adjusted = holm.adjusted([one.p_value for one in found]) if found else []
    return [
        replace(one, adjusted=value, has_moved=value <= settings.alpha and one.excess > 0)
        for one, value in zip(found, adjusted, strict=True)
    ]


def _rate(name: str, pairs: Sequence[Pair], read: Callable[[Row], bool | None], settings: Settings) -> list[Drift]:
    a, b = _arrays(pairs, lambda row: None if (flag := read(row)) is None else float(flag))
    if not len(a):
        return []
    drops = np.rint(a.sum(axis=1) - b.sum(axis=1)).astype(np.int64)
    p_value = mcnemar.counts(drops, side="differs", seed=settings.seed)
    floors = [abs(float(x[:, 0].mean() - x[:, 1].mean())) for x in (a, b) if x.shape[1] > 1]
    floor = float(np.mean(floors)) if floors else float("nan")
    mean_a, mean_b = float(a.mean()), float(b.mean())
    return [Drift(name, "difference", len(a), mean_a, mean_b, abs(mean_a - mean_b), floor, p_value)]


def _number(
    name: str,
    pairs: Sequence[Pair],
    read: Callable[[Row], float | None],
    settings: Settings,
    rng: np.random.Generator,
) -> list[Drift]:
    a, b = _arrays(_drawn(pairs, _MAX_NUMBERS, rng), read)
    if len(a) < 2:
        return []
    shifts = drift.numbers(a, b, draws=settings.draws, seed=settings.seed)
    means = (float(a.mean()), float(b.mean()))
    return [Drift(name, s.statistic, len(a), *means, s.distance, s.floor, s.p_value) for s in shifts]


def _vector(
    name: str,
    pairs: Sequence[Pair],
    read: Callable[[Row], _Floats | None],
    settings: Settings,
    rng: np.random.Generator,
) -> list[Drift]:
    usable = []
    for pair in _drawn(pairs, _MAX_VECTORS, rng):
        a, b = [read(row) for row in pair.a], [read(row) for row in pair.b]
        if all(v is not None for v in (*a, *b)):
            usable.append((a, b))
    if len(usable) < 2:
        return []
    repeats = min(min(len(a), len(b)) for a, b in usable)
    left, right = (np.array([one[side][:repeats] for one in usable], dtype=np.float64) for side in (0, 1))
    nan = float("nan")
    shifts = drift.vectors(left, right, draws=settings.draws, seed=settings.seed)
    return [Drift(name, s.statistic, len(left), nan, nan, s.distance, s.floor, s.p_value) for s in shifts]


def _arrays(pairs: Sequence[Pair], read: Callable[[Row], float | None]) -> tuple[_Floats, _Floats]:
    """Shape (cases, repeats) each, of the cases whose rows all have the quantity."""
    usable = []
    for pair in pairs:
        a, b = [read(row) for row in pair.a], [read(row) for row in pair.b]
        if None not in a and None not in b:
            usable.append((a, b))
    if not usable:
        return np.zeros((0, 1)), np.zeros((0, 1))
    repeats = min(min(len(a), len(b)) for a, b in usable)
    left = np.array([a[:repeats] for a, _ in usable], dtype=np.float64)
    right = np.array([b[:repeats] for _, b in usable], dtype=np.float64)
    return left, right


def _drawn(pairs: Sequence[Pair], limit: int, rng: np.random.Generator) -> Sequence[Pair]:
    if len(pairs) <= limit:
        return pairs
    return [pairs[i] for i in sorted(rng.choice(len(pairs), size=limit, replace=False).tolist())]


# --- quantities -------------------------------------------------------------------------------------------


def _refuses(row: Row) -> bool | None:
    return None if row.answer.error else refusal.is_refusal(row.answer)


def _has_form(row: Row) -> bool | None:
    found = [one.passed for one in row.outcomes if one.type in registry.FORMAT_TYPES and one.error != "engine"]
    return all(found) if found else None


def _is_error(row: Row) -> bool | None:
    return bool(row.answer.error)


def _length(row: Row) -> float | None:
    return None if row.answer.error else float(len(row.answer.text))


def _logprob(row: Row) -> float | None:
    return row.answer.mean_logprob


def _latency(row: Row) -> float | None:
    return row.answer.latency_seconds


def _cost(row: Row) -> float | None:
    return row.answer.cost_usd


def _meaning(row: Row) -> _Floats | None:
    return None if row.answer.embedding is None else np.asarray(row.answer.embedding, dtype=np.float64)


def _wording(row: Row) -> _Floats | None:
    """Counts of hashed runs of three bytes, of unit length: words and spelling, without a model."""
    if row.answer.error:
        return None
    data = np.frombuffer(row.answer.text[:2000].encode(), dtype=np.uint8).astype(np.uint64)
    if len(data) < 3:
        data = np.concatenate([data, np.full(3 - len(data), 32, dtype=np.uint64)])
    runs = data[:-2] * np.uint64(65536) + data[1:-1] * np.uint64(256) + data[2:]
    # Knuth's multiplicative hash: the high bits of a product with 2^32 / golden ratio.
    hashed = (runs * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)) >> np.uint64(24)
    counts = np.sqrt(np.bincount(hashed.astype(np.int64), minlength=_DIMENSIONS).astype(np.float64))
    return np.asarray(counts / np.linalg.norm(counts), dtype=np.float64)


_RATES: Final[tuple[tuple[str, Callable[[Row], bool | None]], ...]] = (
    ("refusal rate", _refuses),
    ("format validity", _has_form),
    ("error rate", _is_error),
)
_NUMBERS: Final[tuple[tuple[str, Callable[[Row], float | None]], ...]] = (
    ("length", _length),
    ("mean logprob", _logprob),
    ("latency", _latency),
    ("cost", _cost),
)
