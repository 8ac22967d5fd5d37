"""Checks of what an answer took: seconds and money. What was not measured is not judged, and counts as failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks import numeric
from michelangelo.llm.tracebench.checks.outcome import FieldProblem, Outcome, failed, known, passed

__all__ = ["Cost", "Latency", "cost", "latency"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds to the end, and to the first token; None: any."""

    max_seconds: float | None
    max_first_token_seconds: float | None
    type: str = "latency"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        for what, value, limit in (
            ("the answer", answer.latency_seconds, self.max_seconds),
            ("the first token", answer.first_token_seconds, self.max_first_token_seconds),
        ):
            if limit is None:
                continue
            if value is None:
                return failed(self.type, f"nobody measured when {what} came")
            if value > limit:
                return passed(self.type, False, f"{what} took {value:.3f} s, more than {limit:g} s")
        return passed(self.type, True)


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars: as the engine says, else by the prices per million tokens."""

    max_usd: float
    input_price: float | None
    output_price: float | None
    type: str = "cost"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        usd = answer.cost_usd
        if usd is None and self.input_price is not None and self.output_price is not None:
            usd = (answer.prompt_tokens * self.input_price + answer.output_tokens * self.output_price) / 1e6
        if usd is None:
            return failed(self.type, "nobody said what it cost: give input_price and output_price")
        return passed(self.type, usd <= self.max_usd, f"cost ${usd:.6g}, more than ${self.max_usd:.6g}")


def latency(document: Mapping[str, Any]) -> Latency:
    """From `max_seconds` and `max_first_token_seconds`, at least one."""
    known(document, "max_seconds", "max_first_token_seconds")
    limits = [
        numeric.positive(document, name, None) if name in document else None
        for name in ("max_seconds", "max_first_token_seconds")
    ]
    if limits == [None, None]:
        raise FieldProblem("", "give max_seconds or max_first_token_seconds")
    return Latency(limits[0], limits[1])


def cost(document: Mapping[str, Any]) -> Cost:
    """From `max_usd`, and `input_price` and `output_price` in dollars per million tokens."""
    known(document, "max_usd", "input_price", "output_price")
    if ("input_price" in document) != ("output_price" in document):
        raise FieldProblem("", "give both input_price and output_price, or neither")
    prices = [
        numeric.positive(document, name, None) if name in document else None for name in ("input_price", "output_price")
    ]
    return Cost(numeric.positive(document, "max_usd", None), prices[0], prices[1])
