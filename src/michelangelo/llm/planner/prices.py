"""What a GPU costs per hour: a bundled, dated table of list prices with addresses, a file of one's own, a number.

It adds nothing up; `cost` does. Which price is taken is said with it, so that a plan can be checked against a bill.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from michelangelo import errors

__all__ = ["Price", "PriceTable", "bundled", "flat", "read"]

_FILE: Final = Path(__file__).parents[1] / "data" / "prices.json"
_MAX_BYTES: Final = 4 << 20
_MAX_PRICE: Final = 10_000.0
_REQUIRED: Final = ("hardware", "provider", "per_gpu_hour", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one GPU for one hour, as one provider lists it."""

    hardware: str
    provider: str
    per_gpu_hour: float
    date: str
    """When it was read, YYYY-MM-DD; empty for a price that was given."""
    product: str = ""
    address: str = ""
    min_gpus: int = 1
    """What is sold at once."""
    currency: str = "USD"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices of several providers for several GPUs."""

    prices: tuple[Price, ...]
    currency: str = "USD"
    is_flat: bool = False
    """One price for whatever hardware."""

    def of(self, hardware: str, *, provider: str = "") -> tuple[Price, ...]:
        """All that are known, the cheapest first."""
        if self.is_flat:
            return self.prices
        known = (
            p
            for p in self.prices
            if p.hardware == hardware and (not provider or p.provider.lower() == provider.lower())
        )
        return tuple(sorted(known, key=lambda price: price.per_gpu_hour))

    def typical(self, hardware: str, *, provider: str = "") -> Price | None:
        """The median of the providers (the lower one of two): the cheapest is often sold out, the dearest nobody pays.
        None where no price is known."""
        known = self.of(hardware, provider=provider)
        return known[(len(known) - 1) // 2] if known else None

    def spread(self, hardware: str, *, provider: str = "") -> tuple[float, float] | None:
        """The cheapest and the dearest, per GPU and hour."""
        known = self.of(hardware, provider=provider)
        return (known[0].per_gpu_hour, known[-1].per_gpu_hour) if known else None

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(sorted({price.provider for price in self.prices}))


@functools.lru_cache(maxsize=1)
def bundled() -> PriceTable:
    """The table that comes with the package."""
    return _table(json.loads(_FILE.read_text(encoding="utf-8")), str(_FILE))


def flat(per_gpu_hour: float, currency: str = "USD") -> PriceTable:
    """One price for whatever hardware. Raises SettingsError."""
    if not math.isfinite(per_gpu_hour) or not 0 <= per_gpu_hour <= _MAX_PRICE:
        raise errors.SettingsError(f"price {per_gpu_hour}: must be between 0 and {_MAX_PRICE:,.0f} per GPU and hour")
    given = Price(hardware="", provider="given", per_gpu_hour=per_gpu_hour, date="", currency=currency)
    return PriceTable((given,), currency, is_flat=True)


def read(path: str) -> PriceTable:
    """A JSON file as the bundled one: `{"currency": "USD", "prices": [{"hardware": "h100", "provider": "ours",
    "per_gpu_hour": 2.1, "date": "2026-11-01"}]}`. Raises SettingsError that names all wrong rows at once."""
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise errors.SettingsError(f"{path}: larger than {_MAX_BYTES >> 20} MiB, so it is no table of prices")
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise errors.SettingsError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:
        raise errors.SettingsError(f"{path}: is no JSON: {e}") from e
    return _table(document, path)


def _table(document: Any, source: str) -> PriceTable:
    if not isinstance(document, Mapping) or not isinstance(document.get("prices"), Sequence):
        raise errors.SettingsError(f'{source}: must be an object with a list "prices"')
    currency = str(document.get("currency", "USD"))
    made, wrong = [], []
    for position, row in enumerate(document["prices"]):
        fault = _fault(row)
        if fault:
            wrong.append(f"  prices[{position}]: {fault}")
        else:
            made.append(_price(row, currency))
    if wrong:
        raise errors.SettingsError(f"{source}: wrong rows:\n" + "\n".join(wrong))
    return PriceTable(tuple(made), currency)


def _fault(row: Any) -> str:
    if not isinstance(row, Mapping):
        return f"is {type(row).__name__}, where an object is wanted"
    missing = [name for name in _REQUIRED if name not in row]
    if missing:
        return f"{', '.join(missing)} is missing"
    value = row["per_gpu_hour"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_PRICE:
        return f"per_gpu_hour: {value!r} must be a number between 0 and {_MAX_PRICE:,.0f}"
    return ""


def _price(row: Mapping[str, Any], currency: str) -> Price:
    return Price(
        hardware=str(row["hardware"]),
        provider=str(row["provider"]),
        per_gpu_hour=float(row["per_gpu_hour"]),
        date=str(row["date"]),
        product=str(row.get("product", "")),
        address=str(row.get("address", "")),
        min_gpus=int(row.get("min_gpus", 1)),
        currency=currency,
    )
