"""A number of tokens, with what made it and how sure it is. It counts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Count"]


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens of something: low = tokens = high if exact."""

    tokens: int
    low: int
    high: int
    is_exact: bool
    tokenizer: str
    characters: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.tokens + other.tokens,
            self.low + other.low,
            self.high + other.high,
            self.is_exact and other.is_exact,
            self.tokenizer,
            self.characters + other.characters,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tokens": self.tokens,
            "low": self.low,
            "high": self.high,
            "exact": self.is_exact,
            "tokenizer": self.tokenizer,
            "characters": self.characters,
        }
