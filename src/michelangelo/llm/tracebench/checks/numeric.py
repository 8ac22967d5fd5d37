"""The number that an answer gives, within a tolerance of the right one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks.outcome import FieldProblem, Outcome, known, passed

__all__ = ["Numeric", "numbers_of", "numeric", "positive"]

_NUMBER: Final = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,4})?|[-+−]?\.\d+")
_PICKS: Final = ("last", "first", "any")


@dataclass(frozen=True, slots=True)
class Numeric:
    """Passes within `absolute` or within `relative × |expected|`, whichever is wider."""

    expected: float
    absolute: float
    relative: float
    pick: str
    type: str = "numeric"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        found = numbers_of(answer.text)
        if not found:
            return passed(self.type, False, "there is no number in the answer")
        chosen = found if self.pick == "any" else [found[0] if self.pick == "first" else found[-1]]
        width = max(self.absolute, self.relative * abs(self.expected))
        # A decimal fraction that is exactly on the edge may be off by a rounding.
        width += 1e-12 * max(1.0, abs(self.expected))
        fits = any(abs(number - self.expected) <= width for number in chosen)
        return passed(self.type, fits, f"{chosen[-1]:.10g} is not {self.expected:.10g} ± {width:.4g}")


def numeric(document: Mapping[str, Any]) -> Numeric:
    """From `expected`, `absolute`, `relative` and `pick` (which number of the text: last, first, any)."""
    known(document, "expected", "absolute", "relative", "pick")
    expected = document.get("expected")
    if isinstance(expected, bool) or not isinstance(expected, int | float) or not math.isfinite(expected):
        raise FieldProblem("expected", "must be a finite number")
    pick = document.get("pick", "last")
    if pick not in _PICKS:
        raise FieldProblem("pick", f"must be one of {', '.join(_PICKS)}")
    return Numeric(float(expected), positive(document, "absolute", 0.0), positive(document, "relative", 0.0), pick)


def numbers_of(text: str) -> list[float]:
    """All finite numbers of a text, in order; 1,234.5 and 1e-3 are one each."""
    found = [float(match.group().replace(",", "").replace("−", "-")) for match in _NUMBER.finditer(text[:100_000])]
    return [number for number in found if math.isfinite(number)]


def positive(document: Mapping[str, Any], name: str, default: float | None) -> float:
    """A finite number of at least 0. default None: it must be given."""
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise FieldProblem(name, "must be a finite number, 0 or more")
    return float(value)
