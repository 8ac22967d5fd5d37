"""Dollars: what was spent, what the calls under way may still cost, and whether one more fits under the cap.

A call is charged its upper bound when it is sent, and what it used when that is known. An answer that was lost (a
connection that broke, a time-out) may have been charged by the server: it stays at its upper bound. Not thread-safe.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "Prices"]


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens. cached_input: of those tokens of a prompt that the server had in its cache."""

    input: float
    output: float
    cached_input: float | None = None

    def cost(self, *, prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """In US dollars. Cached tokens are part of the prompt's and counted once."""
        cached = min(cached_tokens, prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        return ((prompt_tokens - cached) * self.input + cached * cached_price + output_tokens * self.output) / 1e6


@dataclass(slots=True)
class Budget:
    """cap_usd None: no limit, and everything is counted all the same."""

    cap_usd: float | None = None
    spent_usd: float = 0.0
    """What servers reported, and the upper bounds of lost answers."""
    promised_usd: float = 0.0
    """Upper bounds of the calls under way."""
    num_under_way: int = 0

    def can_ever_fit(self, most_usd: float) -> bool:
        return self.cap_usd is None or self.spent_usd + most_usd <= self.cap_usd

    def take(self, most_usd: float) -> bool:
        """False: it does not fit beside what is under way. Ask again when a call has ended, if it `can_ever_fit`."""
        if self.cap_usd is not None and self.spent_usd + self.promised_usd + most_usd > self.cap_usd:
            return False
        self.promised_usd += most_usd
        self.num_under_way += 1
        return True

    def settle(self, most_usd: float, used_usd: float) -> None:
        self.num_under_way -= 1
        # Sums of floats in another order leave crumbs, which would add up over millions of calls.
        self.promised_usd = self.promised_usd - most_usd if self.num_under_way else 0.0
        self.spent_usd += used_usd
