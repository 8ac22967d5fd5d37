"""What many calls will cost: an interval, since outputs, retries and cache hits are not known before.

Each of DRAWS times, all that is uncertain is drawn at once and the bill is added up: the mean output length (bootstrap
of a pilot, then the sum over all calls by the central limit theorem, or draw by draw for few calls), the retries
(negative binomial), the share of cached input and the rate of retries (Beta, Jeffreys' prior, where they come from
counts), the tokens of an unpublished tokenizer (triangular over its range). The interval is that of the draws'
quantiles. It is as good as its pilot: inputs of another kind than the pilot's are not covered.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from michelangelo import errors
from michelangelo.llm.tokens import prices
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.prices import OwnPrice, Usage

__all__ = ["DRAWS", "METHOD", "Calls", "Estimate", "Interval", "Lengths", "Share", "estimate"]

DRAWS: Final = 2000
METHOD: Final = f"Monte Carlo, {DRAWS} draws: bootstrap of output lengths, compound with retries and cache hits"
_SEED: Final = 20250101
_FEW_CALLS: Final = 500
_MOST_SAMPLES: Final = 2000
_BINS: Final = 256
_Z95: Final = 1.6448536269514722
"""The 95 % quantile of the standard normal distribution."""
_MOST_CALLS: Final = 10**12
_MOST_TOKENS: Final = 10**8


@dataclass(frozen=True, slots=True)
class Interval:
    """Low and high at `level`; middle is the median of the draws."""

    low: float
    middle: float
    high: float
    level: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"low": self.low, "middle": self.middle, "high": self.high, "level": self.level}

    def times(self, factor: float) -> Interval:
        """In another unit."""
        return Interval(self.low * factor, self.middle * factor, self.high * factor, self.level)


@dataclass(frozen=True, slots=True)
class Share:
    """A rate between 0 and 1: given, or `hits` of `trials` seen, which leaves it uncertain."""

    value: float = 0.0
    trials: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1 or self.trials < 0:
            raise errors.PricingError(f"a share of {self.value} cannot be: give 0 to 1, or K/N as it was counted")

    @staticmethod
    def parse(text: str) -> Share:
        """`0.05`, `5%` or `12/400`. Raises PricingError."""
        left, slash, right = text.partition("/")
        try:
            if slash:
                return Share(int(left) / int(right), int(right))
            return Share(float(text.rstrip("%")) / (100 if text.endswith("%") else 1))
        except (ValueError, ZeroDivisionError) as e:
            raise errors.PricingError(f"{text!r} is no share such as 0.05, 5% or 12/400") from e

    def draw(self, rng: np.random.Generator) -> float:
        """One value it may have."""
        if not self.trials:
            return self.value
        hits = self.value * self.trials
        return float(rng.beta(hits + 0.5, self.trials - hits + 0.5))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Output tokens of a call: those of a pilot, or a log-normal distribution of which two quantiles are given."""

    samples: tuple[int, ...] = ()
    p50: float = 256.0
    p95: float = 1024.0
    source: str = "assumed: p50 256, p95 1024"

    def __post_init__(self) -> None:
        if any(not 0 <= sample <= _MOST_TOKENS for sample in self.samples):
            raise errors.PricingError(f"output lengths of a pilot are 0 to {_MOST_TOKENS} tokens")
        if not 0 < self.p50 <= self.p95 <= _MOST_TOKENS:
            raise errors.PricingError(f"output length: p50 {self.p50:g} and p95 {self.p95:g} cannot be; 0 < p50 <= p95")

    @property
    def quantiles(self) -> tuple[float, float]:
        """p50 and p95."""
        if self.samples:
            return float(np.quantile(self.samples, 0.5)), float(np.quantile(self.samples, 0.95))
        return self.p50, self.p95

    @property
    def mean(self) -> float:
        if self.samples:
            return float(np.mean(self.samples))
        return self.p50 * math.exp(self._sigma**2 / 2)

    @property
    def _sigma(self) -> float:
        return math.log(self.p95 / self.p50) / _Z95

    def draw_sum(self, calls: int, rng: np.random.Generator) -> float:
        """Tokens of so many calls, the uncertainty of the pilot within."""
        if not calls:
            return 0.0
        if not self.samples:
            if calls <= _FEW_CALLS:
                return float(rng.lognormal(math.log(self.p50), self._sigma, calls).sum())
            deviation = self.mean * math.sqrt(math.expm1(self._sigma**2))
            return max(0.0, float(rng.normal(self.mean * calls, deviation * math.sqrt(calls))))
        pilot = rng.choice(np.asarray(self.samples, dtype=np.float64), min(len(self.samples), _MOST_SAMPLES))
        if calls <= _FEW_CALLS:
            return float(rng.choice(pilot, calls).sum())
        return max(0.0, float(rng.normal(pilot.mean() * calls, pilot.std() * math.sqrt(calls))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The calls of a data set or of one stage. input: of all of them once; row_tokens: of each, for tiers by length."""

    name: str
    model: str
    calls: int
    input: Count
    provider: str = ""
    row_tokens: Sequence[int] = ()
    output: Lengths = Lengths()
    reasoning_tokens: int = 0
    """Of each call, beside `output`; billed as output."""
    retries: Share = Share()
    """Of the calls, how many are sent again; each is billed in full."""
    cached: Share = Share()
    """Of the input tokens, how many are read from a cache."""
    batch: bool = False
    own: tuple[OwnPrice, ...] = ()

    def __post_init__(self) -> None:
        wrong = []
        if not 0 <= self.calls <= _MOST_CALLS:
            wrong.append(f"{self.calls} calls are not 0 to {_MOST_CALLS}")
        if not 0 <= self.reasoning_tokens <= _MOST_TOKENS:
            wrong.append(f"{self.reasoning_tokens} reasoning tokens are not 0 to {_MOST_TOKENS}")
        if self.retries.value > 0.95:
            wrong.append(f"{self.retries.value:g} of the calls sent again is more than 0.95: it would not end")
        if wrong:
            raise errors.PricingError(f"{self.name}: {'; '.join(wrong)}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """In USD and tokens, over all stages."""

    usd: Interval
    input_tokens: Interval
    output_tokens: Interval
    stages: tuple[tuple[str, Interval], ...]
    provenance: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    method: str = METHOD

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "usd": self.usd.to_dict(),
            "inputTokens": self.input_tokens.to_dict(),
            "outputTokens": self.output_tokens.to_dict(),
            "stages": [{"name": name, "usd": interval.to_dict()} for name, interval in self.stages],
            "prices": list(self.provenance),
            "notes": list(self.notes),
            "method": self.method,
        }


@dataclass(frozen=True, slots=True)
class _Rates:
    """USD of all calls' input, none and all of it cached, and of one output token."""

    plain: float
    cached: float
    output: float
    provenance: str
    notes: tuple[str, ...]


def estimate(
    stages: Sequence[Calls], *, level: float = 0.9, at: datetime.date | None = None, seed: int = _SEED
) -> Estimate:
    """The same stages and seed give the same interval. Raises PricingError for a level or a price that is missing."""
    if not 0.5 <= level < 1:
        raise errors.PricingError(f"level {level}: give 0.5 to 0.999")
    if not stages:
        raise errors.PricingError("nothing is to be estimated: no stage is given")
    rng = np.random.default_rng(seed)
    rates = [_rates(stage, at) for stage in stages]
    drawn = np.array([_draws(stage, rate, rng) for stage, rate in zip(stages, rates, strict=True)])
    whole = drawn.sum(axis=0)
    return Estimate(
        usd=_interval(whole[:, 0], level),
        input_tokens=_interval(whole[:, 1], level),
        output_tokens=_interval(whole[:, 2], level),
        stages=tuple((stage.name, _interval(one[:, 0], level)) for stage, one in zip(stages, drawn, strict=True)),
        provenance=tuple(dict.fromkeys(f"{s.model}: {r.provenance}" for s, r in zip(stages, rates, strict=True))),
        notes=tuple(dict.fromkeys(note for rate in rates for note in rate.notes)),
    )


def _draws(stage: Calls, rates: _Rates, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """DRAWS rows: USD, input tokens, output tokens."""
    made = np.zeros((DRAWS, 3))
    for index in range(DRAWS):
        failing = min(stage.retries.draw(rng), 0.99)
        extra = int(rng.negative_binomial(stage.calls, 1 - failing)) if failing and stage.calls else 0
        sent = (stage.calls + extra) / stage.calls if stage.calls else 0.0
        factor = _factor(stage.input, rng)
        hit = stage.cached.draw(rng)
        out = stage.output.draw_sum(stage.calls + extra, rng) + stage.reasoning_tokens * (stage.calls + extra)
        paid = (rates.plain * (1 - hit) + rates.cached * hit) * factor * sent + rates.output * out
        made[index] = paid, stage.input.tokens * factor * sent, out
    return made


def _factor(count: Count, rng: np.random.Generator) -> float:
    if count.low == count.high or not count.tokens:
        return 1.0
    left, right = count.low / count.tokens, count.high / count.tokens
    return float(rng.triangular(min(left, 1), 1, max(right, 1)))


def _rates(stage: Calls, at: datetime.date | None) -> _Rates:
    plain = cached = output = 0.0
    provenance = ""
    notes: tuple[str, ...] = ()
    bins = _bins(stage)
    for tokens, calls in bins:
        asked = [Usage(input=tokens), Usage(input=tokens, cached=tokens), Usage(input=tokens, output=1000)]
        made = [prices.cost(one, stage.model, stage.provider, at, batch=stage.batch, own=stage.own) for one in asked]
        plain += float(made[0].input) * calls
        cached += float(made[1].input) * calls
        output += float(made[2].output) / 1000 * calls
        provenance, notes = f"{made[0].provenance} (as of {made[0].priced_at})", made[0].notes
    scale = stage.input.tokens / sum(tokens * calls for tokens, calls in bins) if stage.input.tokens else 0.0
    return _Rates(plain * scale, cached * scale, output / sum(calls for _, calls in bins), provenance, notes)


def _bins(stage: Calls) -> list[tuple[int, int]]:
    """(input tokens of a call, how many calls): at most _BINS, so that millions of rows are priced at once."""
    if not stage.row_tokens:
        return [(max(1, round(stage.input.tokens / max(1, stage.calls))), max(1, stage.calls))]
    counted = Counter(max(1, tokens) for tokens in stage.row_tokens)
    if len(counted) <= _BINS:
        return sorted(counted.items())
    ordered = np.sort(np.maximum(np.asarray(stage.row_tokens), 1))
    return [(max(1, round(float(part.mean()))), len(part)) for part in np.array_split(ordered, _BINS)]


def _interval(values: np.ndarray[Any, Any], level: float) -> Interval:
    low, middle, high = np.quantile(values, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return Interval(float(low), float(middle), float(high), level)
