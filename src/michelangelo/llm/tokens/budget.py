"""Money: amounts with a currency, rates of exchange that say their day, and whether an estimate is within a budget.

Prices are in USD. A rate is given by the caller, or is of the bundled table, which is old and says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from michelangelo import errors

__all__ = ["DOLLAR", "EXIT_CODE", "Money", "Rate", "parse", "parse_rates", "rate_of"]

EXIT_CODE: Final = 3
"""Of a program whose estimate is over the budget."""
_FILE: Final = Path(__file__).parent / "exchange_rates.json"
_SIGNS: Final = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
_MOST: Final = 1e15


@dataclass(frozen=True, slots=True)
class Money:
    amount: float
    currency: str


@dataclass(frozen=True, slots=True)
class Rate:
    """Units of the currency for one USD."""

    currency: str
    per_usd: float
    provenance: str


DOLLAR: Final = Rate("USD", 1.0, "the currency of the prices")


def parse(text: str) -> Money:
    """`25usd`, `25 EUR`, `$25`, `1,000.50usd`. Raises PricingError."""
    found = re.fullmatch(r"\s*([$€£¥₹]?)\s*(\d[\d,]*(?:\.\d+)?|\.\d+)\s*([A-Za-z]{3})?\s*", text)
    if not found or bool(found[1]) == bool(found[3]):
        raise errors.PricingError(f"{text!r} is no amount of money such as 25usd, 25EUR or $25")
    amount = float(found[2].replace(",", ""))
    if not amount <= _MOST:
        raise errors.PricingError(f"{text!r}: so much money there is not; give less than {_MOST:g}")
    return Money(amount, _SIGNS[found[1]] if found[1] else found[3].upper())


def parse_rates(texts: tuple[str, ...]) -> dict[str, float]:
    """`EUR=0.92`: units for one USD. Raises PricingError with all that is wrong."""
    made: dict[str, float] = {}
    wrong: list[str] = []
    for text in texts:
        name, _, value = text.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = math.nan
        if re.fullmatch(r"[A-Za-z]{3}", name) and 0 < rate < 1e9:
            made[name.upper()] = rate
        else:
            wrong.append(repr(text))
    if wrong:
        raise errors.PricingError(f"no rates of exchange: {', '.join(wrong)}; give units for one USD, such as EUR=0.92")
    return made


def rate_of(currency: str, given: Mapping[str, float] | None = None) -> Rate:
    """Raises PricingError for a currency without a rate."""
    name = currency.upper()
    if name == "USD":
        return DOLLAR
    if given and name in given:
        return Rate(name, given[name], "given by the caller")
    document = json.loads(_FILE.read_text())
    rates = document["per_eur"]
    if name not in rates:
        raise errors.PricingError(
            f"currency {currency!r}: no rate is known; give one, such as {name or 'XXX'}=1.23 for one USD; "
            f"bundled are {', '.join(sorted(rates))}"
        )
    return Rate(name, rates[name] / rates["USD"], f"{document['source']}, {document['date']}")
