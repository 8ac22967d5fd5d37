"""Pass, regression or inconclusive: what decides, and at what risk. Arrays in; it knows no recordings.

Gating hypotheses are "B's pass rate is not lower" over all cases, the same in each slice, and "B's mean score is not
lower". They are tested one-sided and together by a weighted Holm procedure, so that the chance of any false alarm is at
most `alpha`, whatever depends on whatever. The whole suite has more than half of that (`overall_weight`): with half of
the level it still finds a drop of 3 points in 1,000 cases of which 10 % are discordant with probability 0.83, and
one-sided because an improvement is no alarm. Drift informs, and never decides.

- regression: a gating hypothesis is rejected, unless the drop is shown to be within the tolerance.
- pass: the drop is shown to be within the tolerance: its one-sided upper bound at 1 - alpha is below it.
- inconclusive: neither; more cases or repeats would tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from michelangelo.llm.tracebench.statistics import bootstrap, holm, intervals, mcnemar, permutation, power

__all__ = ["EXIT_CODES", "Evidence", "Measure", "Settings", "State", "check", "decide", "measures"]

State: TypeAlias = Literal["pass", "regression", "inconclusive"]
EXIT_CODES: Final[Mapping[State, int]] = {"pass": 0, "regression": 1, "inconclusive": 4}
_MAX_SCALE: Final = 5040


@dataclass(frozen=True, slots=True)
class Settings:
    """alpha: risk of any false alarm. tolerance: the drop (share of cases, or score) that is accepted. every_slice:
    pass only if each slice excludes its drop too, of `slice_tolerance`. power: with which the smallest detectable drop
    is found. min_slice: slices of fewer cases are shown, and not tested. seed: of what is drawn."""

    alpha: float = 0.05
    tolerance: float = 0.03
    slice_tolerance: float = 0.1
    every_slice: bool = False
    power: float = 0.8
    overall_weight: float = 0.6
    min_slice: int = 5
    resamples: int = 2000
    draws: int = 999
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Per compared case. drops: passes of A minus passes of B, whole numbers. repeats: how many of each were compared.
    rates: pass rates of A and B, shape (2, cases). scores: the same of mean scores; None: nothing is graded. slices:
    numbers of the cases in each."""

    drops: npt.NDArray[np.int64]
    repeats: npt.NDArray[np.int64]
    rates: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64] | None
    slices: Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One gating quantity. drop: A minus B; positive is worse. low, high: its bootstrap interval. worst_drop: with
    1 - alpha certainty the drop is at most this. detectable: the smallest drop that would be found. p_value: one-sided;
    adjusted: by Holm; None: not tested, too few cases. worse, better: cases that B does worse or better."""

    kind: Literal["pass rate", "score"]
    slice: str
    num_cases: int
    rate_a: float
    rate_b: float
    drop: float
    low: float
    high: float
    worst_drop: float
    detectable: float
    worse: int
    better: int
    p_value: float | None
    adjusted: float | None = None
    state: State = "inconclusive"

    @property
    def name(self) -> str:
        return f"{self.kind} of {self.slice}" if self.slice else self.kind


def check(settings: Settings) -> None:
    """Raises ValueError that names every setting that makes no sense."""
    problems = [
        f"{name} must be more than 0 and less than {top:g}"
        for name, top in (("alpha", 0.5), ("tolerance", 1), ("slice_tolerance", 1), ("power", 1), ("overall_weight", 1))
        if not 0 < getattr(settings, name) < top
    ]
    if settings.min_slice < 1 or settings.resamples < 1 or settings.draws < 19:
        problems.append("min_slice and resamples must be at least 1, and draws at least 19")
    if problems:
        raise ValueError("; ".join(problems))


def measures(evidence: Evidence, settings: Settings, *, describes: bool = True) -> list[Measure]:
    """The whole suite first, then its score if anything is graded, then the slices by name.

    describes False: only what decides; the bootstrap interval and the detectable drop are nan.
    """
    everything = np.arange(len(evidence.drops))
    tested = [name for name, cases in evidence.slices.items() if len(cases) >= settings.min_slice]
    others = len(tested) + (evidence.scores is not None)
    share = (1 - settings.overall_weight) / max(1, others)
    weight = settings.overall_weight if others else 1.0
    found = [_pass_rate(evidence, everything, "", _Plan(settings, weight, describes))]
    if evidence.scores is not None:
        found.append(_score(evidence.scores, _Plan(settings, share, describes)))
    for name, cases in sorted(evidence.slices.items()):
        plan = _Plan(settings, share if name in tested else 0.0, describes)
        found.append(_pass_rate(evidence, cases, name, plan))
    return _adjusted(found, settings, share)


def decide(found: list[Measure], settings: Settings) -> tuple[State, list[str]]:
    """The verdict, and sentences that say why."""
    reasons = [_sentence(m, settings) for m in found if m.state == "regression"]
    whole = [m for m in found if not m.slice]
    slices = [m for m in found if m.slice]
    open_slices = [m for m in slices if m.state == "inconclusive"]
    if reasons:
        return "regression", reasons
    open_wholes = [m for m in whole if m.state != "pass"]
    reasons = [_sentence(m, settings) for m in (open_wholes or whole)]
    if open_slices:
        names = ", ".join(m.slice for m in open_slices[:5]) + (" …" if len(open_slices) > 5 else "")
        reasons.append(
            f"{len(open_slices)} of {len(slices)} slices are too small to exclude a drop of "
            f"{100 * settings.slice_tolerance:g} points: {names}"
        )
    if open_wholes or (settings.every_slice and open_slices):
        return "inconclusive", reasons
    return "pass", reasons


@dataclass(frozen=True, slots=True)
class _Plan:
    """weight: of the hypothesis, as a share of alpha; 0: it is not tested."""

    settings: Settings
    weight: float
    describes: bool


def _pass_rate(evidence: Evidence, cases: npt.NDArray[np.int64], name: str, plan: _Plan) -> Measure:
    counts, repeats = evidence.drops[cases], evidence.repeats[cases]
    p_value = _exact(counts, repeats, plan.settings) if plan.weight else None
    return _described("pass rate", name, evidence.rates[:, cases], p_value, plan)


def _score(scores: npt.NDArray[np.float64], plan: _Plan) -> Measure:
    draws, seed = max(4999, plan.settings.draws), plan.settings.seed
    return _described("score", "", scores, permutation.sign_flip(scores[0] - scores[1], draws=draws, seed=seed), plan)


def _described(
    kind: Literal["pass rate", "score"],
    name: str,
    rates: npt.NDArray[np.float64],
    p_value: float | None,
    plan: _Plan,
) -> Measure:
    settings, drops = plan.settings, rates[0] - rates[1]
    n = len(drops)
    low, high, detectable = math.nan, math.nan, math.nan
    if plan.describes:
        low, high = bootstrap.interval(drops, resamples=settings.resamples, seed=settings.seed)
        # Where nothing differs, half a case might have.
        spread, level = max(float((drops**2).sum()), 0.5), settings.alpha * plan.weight
        detectable = power.smallest_drop(n, spread / n, level, settings.power) if plan.weight else math.inf
    return Measure(
        kind=kind,
        slice=name,
        num_cases=n,
        rate_a=float(rates[0].mean()),
        rate_b=float(rates[1].mean()),
        drop=float(drops.mean()),
        low=low,
        high=high,
        worst_drop=intervals.largest_drop(drops, 1 - settings.alpha),
        detectable=detectable,
        worse=int((drops > 0).sum()),
        better=int((drops < 0).sum()),
        p_value=p_value,
    )


def _exact(counts: npt.NDArray[np.int64], repeats: npt.NDArray[np.int64], settings: Settings) -> float:
    scale = math.lcm(*(int(r) for r in np.unique(repeats)))
    if scale <= _MAX_SCALE:
        return mcnemar.counts(counts * (scale // repeats), seed=settings.seed)
    return permutation.sign_flip(counts / repeats, draws=max(4999, settings.draws), seed=settings.seed)


def _adjusted(found: list[Measure], settings: Settings, share: float) -> list[Measure]:
    tested = [(i, m.p_value) for i, m in enumerate(found) if m.p_value is not None]
    weights = [settings.overall_weight if i == 0 else share for i, _ in tested]
    values = holm.adjusted([p for _, p in tested], weights)
    adjusted = {i: value for (i, _), value in zip(tested, values, strict=True)}
    made = []
    for i, measure in enumerate(found):
        tolerance = settings.slice_tolerance if measure.slice else settings.tolerance
        # A slice may drop less than its own tolerance and still be an alarm: that one is for what is excluded only.
        is_within = measure.worst_drop < tolerance
        is_negligible = measure.worst_drop < settings.tolerance
        value = adjusted.get(i)
        is_worse = value is not None and value <= settings.alpha and not is_negligible
        state: State = "regression" if is_worse else "pass" if is_within else "inconclusive"
        made.append(replace(measure, adjusted=value, state=state))
    return made


def _sentence(measure: Measure, settings: Settings) -> str:
    what = f"{measure.name} {_percent(measure.rate_a)} → {_percent(measure.rate_b)} ({measure.num_cases:,} cases)"
    bound = f"with {100 * (1 - settings.alpha):g} % certainty it drops by at most {100 * measure.worst_drop:.2f} points"
    accepted = f"{100 * settings.tolerance:g} points are accepted"
    match measure.state:
        case "regression":
            return f"{what}: worse beyond chance, p = {measure.adjusted:.2g} of {settings.alpha:g} after Holm"
        case "pass":
            is_worse = measure.adjusted is not None and measure.adjusted <= settings.alpha
            return f"{what}: {bound}, and {accepted}" + ("; it is worse, but by less than that" if is_worse else "")
        case _:
            found = (
                f"a drop of {100 * measure.detectable:.2f} points is the smallest that would probably be found"
                if math.isfinite(measure.detectable)
                else "no drop would probably be found with so few cases"
            )
            return f"{what}: {bound}, and {accepted}; {found}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
