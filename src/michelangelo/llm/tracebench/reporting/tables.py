"""A comparison as rows of text, for a terminal and for Markdown."""

from __future__ import annotations

import math
from typing import Final

from michelangelo.llm.tracebench.comparison import Comparison
from michelangelo.llm.tracebench.drifting import Drift
from michelangelo.llm.tracebench.verdict import Measure

__all__ = ["DRIFT_TITLES", "MEASURE_TITLES", "drift_rows", "left_out", "measure_rows", "noise_sentences", "points"]

MEASURE_TITLES: Final = ("MEASURE", "CASES", "A", "B", "DROP", "95 % INTERVAL", "AT MOST", "P", "DETECTABLE", "STATE")
DRIFT_TITLES: Final = ("QUANTITY", "CASES", "A", "B", "DISTANCE", "NOISE", "EXCESS", "P", "MOVED")
_SHOWN: Final = 5


def measure_rows(made: Comparison) -> list[list[str]]:
    """In the columns MEASURE_TITLES; drops in points, a gain has a minus."""
    return [_measure(measure) for measure in made.measures]


def drift_rows(made: Comparison) -> list[list[str]]:
    """In the columns DRIFT_TITLES."""
    return [_drift(one) for one in made.drift]


def noise_sentences(made: Comparison) -> list[str]:
    """What one version does to itself, and which cases are flaky."""
    noise, sentences = made.noise, []
    if noise.floor is None:
        sentences.append(
            f"Answers of A and B disagree on {100 * noise.disagreement:.1f} % of cases. "
            "How much of that is noise is unknown: record repeats."
        )
    else:
        sentences.append(
            f"Answers of A and B disagree on {100 * noise.disagreement:.1f} % of cases, those of one version with "
            f"themselves on {100 * noise.floor:.1f} %: {100 * noise.excess:.1f} % really changed."
        )
    if made.flaky:
        names = ", ".join(one.case for one in made.flaky[:_SHOWN]) + (" …" if len(made.flaky) > _SHOWN else "")
        sentences.append(f"{len(made.flaky)} cases are flaky: {names}")
    return sentences


def left_out(made: Comparison) -> list[str]:
    """Which cases were not compared, and why."""
    found = made.pairing
    return [
        f"{len(names)} {why}: {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
        for names, why in (
            (found.only_in_a, "cases are only in A"),
            (found.only_in_b, "cases are only in B"),
            (found.asked_otherwise, "cases ask something else"),
            (found.judged_otherwise, "cases are judged otherwise (judge one anew: record --rescore)"),
            (found.unanswered, "cases have no answer in one of them"),
        )
        if names
    ]


def points(value: float) -> str:
    """A share as points: 0.0312 is 3.1."""
    return f"{100 * value:.1f}" if math.isfinite(value) else ""


def _measure(measure: Measure) -> list[str]:
    interval = f"{points(measure.low)} … {points(measure.high)}" if math.isfinite(measure.low) else ""
    p_value = "" if measure.adjusted is None else _p(measure.adjusted)
    return [
        measure.name if measure.kind == "score" or not measure.slice else measure.slice,
        f"{measure.num_cases:,}",
        f"{100 * measure.rate_a:.1f} %",
        f"{100 * measure.rate_b:.1f} %",
        points(measure.drop),
        interval,
        points(measure.worst_drop),
        p_value,
        points(measure.detectable),
        measure.state,
    ]


def _drift(one: Drift) -> list[str]:
    return [
        f"{one.quantity} ({one.statistic})",
        f"{one.num_cases:,}",
        _number(one.mean_a),
        _number(one.mean_b),
        _number(one.distance),
        _number(one.floor),
        _number(one.excess),
        _p(one.adjusted),
        "yes" if one.has_moved else "",
    ]


def _number(value: float) -> str:
    return "" if not math.isfinite(value) else f"{value if abs(value) > 1e-12 else 0:.3g}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
