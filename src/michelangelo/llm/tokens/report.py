"""What was counted and estimated, as one JSON document and as Markdown, so that two of them can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo.llm.tokens.budget import DOLLAR, Money, Rate
from michelangelo.llm.tokens.counting import Counted
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.estimate import Estimate
from michelangelo.llm.tokens.self_hosted import SelfHosted
from michelangelo.llm.tokens.sources import Problems

__all__ = ["FORMAT", "Report"]

FORMAT: Final = "michelangelo.tokens/1"


@dataclass(frozen=True, slots=True)
class Report:
    """Of one call of the program. estimate: None where only tokens were wanted, or `no_price` says why not."""

    model: str
    items: Sequence[Counted]
    total: Count
    calls: int
    problems: Problems = field(default_factory=Problems)
    estimate: Estimate | None = None
    rate: Rate = DOLLAR
    no_price: str = ""
    self_hosted: SelfHosted | None = None
    budget: Money | None = None
    budget_usd: float = 0.0
    outputs: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the upper bound is over the budget."""
        return self.budget is not None and self.estimate is not None and self.estimate.usd.high > self.budget_usd

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        cost = None
        if self.estimate is not None:
            money = self.estimate.usd.times(self.rate.per_usd)
            cost = {
                "currency": self.rate.currency,
                **money.to_dict(),
                "perUsd": self.rate.per_usd,
                "rate": self.rate.provenance,
            }
        return {
            "format": FORMAT,
            "model": self.model,
            "total": self.total.to_dict(),
            "calls": self.calls,
            "items": [{"name": one.name, "rows": one.rows, **one.count.to_dict()} for one in self.items],
            "cost": cost,
            "estimate": self.estimate.to_dict() if self.estimate else None,
            "outputLength": self.outputs,
            "noPrice": self.no_price,
            "selfHosted": self.self_hosted.to_dict() if self.self_hosted else None,
            "budget": self._budget(),
            "problems": {
                "skippedFiles": self.problems.skipped,
                "malformedRows": self.problems.malformed,
                "first": list(self.problems.shown),
            },
        }

    def _budget(self) -> dict[str, Any] | None:
        if self.budget is None:
            return None
        return {"amount": self.budget.amount, "currency": self.budget.currency, "isOver": self.is_over}
