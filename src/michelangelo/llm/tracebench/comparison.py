"""Two recordings → what changed: measures and the verdict, drift, noise, flaky cases, and each case that changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from michelangelo import errors
from michelangelo.llm.tracebench import drifting, pairing, verdict
from michelangelo.llm.tracebench.drifting import Drift
from michelangelo.llm.tracebench.pairing import Pair, Pairing
from michelangelo.llm.tracebench.recording import Header, Recording, Row
from michelangelo.llm.tracebench.verdict import Evidence, Measure, Settings, State

__all__ = ["Change", "Comparison", "Flaky", "Noise", "compare", "evidence", "summary"]


@dataclass(frozen=True, slots=True)
class Flaky:
    """A case whose repeats disagree: passes of answers, A and B."""

    case: str
    passes_a: int
    repeats_a: int
    passes_b: int
    repeats_b: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Shares of cases on which one answer of A and one of B disagree. floor: what one version does to itself, by its
    repeats; None without repeats. excess: what is left, at least 0: cases that really changed."""

    disagreement: float
    floor: float | None
    num_repeated: int

    @property
    def excess(self) -> float:
        return max(0.0, self.disagreement - (self.floor or 0.0))


@dataclass(frozen=True, slots=True)
class Change:
    """A case that B does otherwise. drop: of its pass rate. score_drop: of its mean score."""

    pair: Pair
    drop: float
    score_drop: float

    @property
    def kind(self) -> str:
        """worse, better, or changed: as many passes, and other scores or another text."""
        return "worse" if self.drop > 0 else "better" if self.drop < 0 else "changed"


@dataclass(frozen=True, slots=True)
class Comparison:
    """measures: the whole suite first. changes: the most important first. errors_a, errors_b: answers that are none,
    by class: `engine` (no answer) and `check` (not judged)."""

    a: Header
    b: Header
    settings: Settings
    state: State
    reasons: tuple[str, ...]
    pairing: Pairing
    measures: tuple[Measure, ...]
    drift: tuple[Drift, ...]
    noise: Noise
    flaky: tuple[Flaky, ...]
    changes: tuple[Change, ...]
    errors_a: Mapping[str, int]
    errors_b: Mapping[str, int]


def compare(a: Recording, b: Recording, settings: Settings | None = None) -> Comparison:
    """Is B worse than A? Raises SuiteError when there is nothing to compare or a setting makes no sense."""
    settings = settings or Settings()
    try:
        verdict.check(settings)
    except ValueError as e:
        raise errors.SuiteError(f"the settings of the comparison cannot be used: {e}") from e
    paired = pairing.pair(a, b)
    found = verdict.measures(evidence(paired.pairs), settings)
    state, reasons = verdict.decide(found, settings)
    errors_b = _errors([row for pair in paired.pairs for row in pair.b])
    if errors_b.get("engine"):
        reasons.append(f"{errors_b['engine']} answers of B are errors of its engine, and count as failed")
    if paired.num_left_out:
        reasons.append(f"{paired.num_left_out} cases could not be compared: the verdict is about the others")
    return Comparison(
        a=a.header,
        b=b.header,
        settings=settings,
        state=state,
        reasons=tuple(reasons),
        pairing=paired,
        measures=tuple(found),
        drift=tuple(drifting.of(paired.pairs, settings)),
        noise=_noise(paired.pairs),
        flaky=_flaky(paired.pairs),
        changes=_changes(paired.pairs),
        errors_a=_errors([row for pair in paired.pairs for row in pair.a]),
        errors_b=errors_b,
    )


def evidence(pairs: Sequence[Pair]) -> Evidence:
    """The first `num_repeats` answers of each version, as counts: with as many of both, swapping them is fair."""
    repeats = np.array([pair.num_repeats for pair in pairs], dtype=np.int64)
    passes = np.array([[_passes(side(p)[: p.num_repeats]) for p in pairs] for side in (_a, _b)])
    scores = None
    if any(row.is_graded for pair in pairs for row in (*pair.a, *pair.b)):
        scores = np.array([[_score(side(p)[: p.num_repeats]) for p in pairs] for side in (_a, _b)], dtype=np.float64)
    slices: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        for name in pair.case.slices:
            slices.setdefault(name, []).append(number)
    return Evidence(
        drops=np.asarray(passes[0] - passes[1], dtype=np.int64),
        repeats=repeats,
        rates=np.asarray(passes / repeats, dtype=np.float64),
        scores=scores,
        slices={name: np.array(numbers, dtype=np.int64) for name, numbers in slices.items()},
    )


def summary(made: Comparison) -> dict[str, Any]:
    """The whole as JSON values, without the answers: what `-o json` prints. Numbers that are not finite are null."""
    left = made.pairing
    document: dict[str, Any] = _plain(
        {
            "a": {"reference": made.a.reference, "engine": made.a.engine, "digest": made.a.digest},
            "b": {"reference": made.b.reference, "engine": made.b.engine, "digest": made.b.digest},
            "verdict": made.state,
            "reasons": list(made.reasons),
            "settings": asdict(made.settings),
            "num_cases": len(left.pairs),
            "left_out": {
                "only_in_a": list(left.only_in_a),
                "only_in_b": list(left.only_in_b),
                "asked_otherwise": list(left.asked_otherwise),
                "judged_otherwise": list(left.judged_otherwise),
                "unanswered": list(left.unanswered),
            },
            "measures": [asdict(measure) for measure in made.measures],
            "drift": [{**asdict(one), "excess": one.excess} for one in made.drift],
            "noise": {**asdict(made.noise), "excess": made.noise.excess},
            "flaky": [asdict(one) for one in made.flaky],
            "errors": {"a": dict(made.errors_a), "b": dict(made.errors_b)},
            "changes": [
                {"case": c.pair.case.id, "kind": c.kind, "drop": c.drop, "score_drop": c.score_drop}
                for c in made.changes
            ],
        }
    )
    return document


def _a(pair: Pair) -> tuple[Row, ...]:
    return pair.a


def _b(pair: Pair) -> tuple[Row, ...]:
    return pair.b


def _passes(rows: Sequence[Row]) -> int:
    return sum(row.passed for row in rows)


def _score(rows: Sequence[Row]) -> float:
    return sum(row.score for row in rows) / len(rows)


def _errors(rows: Sequence[Row]) -> dict[str, int]:
    made: dict[str, int] = {}
    for row in rows:
        for name in {one.error for one in row.outcomes if one.error}:
            made[name] = made.get(name, 0) + 1
    return made


def _noise(pairs: Sequence[Pair]) -> Noise:
    """Two answers of one version disagree with probability 2 p (1 - p), whose unbiased estimate is twice the variance
    of its repeats; one of A and one of B with p (1 - q) + q (1 - p)."""
    disagreements, floors, num_repeated = [], [], 0
    for pair in pairs:
        p, q = _passes(pair.a) / len(pair.a), _passes(pair.b) / len(pair.b)
        disagreements.append(p * (1 - q) + q * (1 - p))
        of_pair = []
        for rows in (pair.a, pair.b):
            if len(rows) > 1:
                share = _passes(rows) / len(rows)
                of_pair.append(2 * share * (1 - share) * len(rows) / (len(rows) - 1))
        if of_pair:
            num_repeated += 1
            floors.append(sum(of_pair) / len(of_pair))
    floor = sum(floors) / len(floors) if floors else None
    return Noise(sum(disagreements) / len(disagreements), floor, num_repeated)


def _flaky(pairs: Sequence[Pair]) -> tuple[Flaky, ...]:
    found = [
        Flaky(pair.case.id, _passes(pair.a), len(pair.a), _passes(pair.b), len(pair.b))
        for pair in pairs
        if 0 < _passes(pair.a) < len(pair.a) or 0 < _passes(pair.b) < len(pair.b)
    ]
    return tuple(sorted(found, key=lambda f: -_doubt(f)))


def _doubt(one: Flaky) -> float:
    a, b = one.passes_a / one.repeats_a, one.passes_b / one.repeats_b
    return a * (1 - a) + b * (1 - b)


def _changes(pairs: Sequence[Pair]) -> tuple[Change, ...]:
    """Worse cases first, by how much; then better ones, then those with other scores or another text."""
    made = []
    for pair in pairs:
        n = pair.num_repeats
        drop = (_passes(pair.a[:n]) - _passes(pair.b[:n])) / n
        score_drop = _score(pair.a[:n]) - _score(pair.b[:n])
        if drop or abs(score_drop) > 1e-12 or pair.a[0].answer.text != pair.b[0].answer.text:
            made.append(Change(pair, drop, score_drop))
    rank = {"worse": 0, "better": 1, "changed": 2}
    return tuple(sorted(made, key=lambda c: (rank[c.kind], -abs(c.drop), -abs(c.score_drop), c.pair.case.id)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
