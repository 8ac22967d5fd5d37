"""Lengths of time as text: `600s`, `10m`, `1h30m`, `1.5s`, `250ms`; the units of Go and of protobuf's JSON.

It knows no calendar: the longest unit is a day, and always 24 hours.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

__all__ = ["parse", "seconds", "text"]

_UNITS: Final = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(d|h|ms|us|µs|ns|m|s)", re.ASCII)
_LONGEST_SECONDS: Final = 315_576_000_000
"""10,000 years, protobuf's bound."""


def seconds(value: str) -> float:
    """Raises ValueError. Negative durations have no meaning here and are refused."""
    return float(_exact_seconds(value))


def parse(value: str) -> timedelta:
    """To whole microseconds. Raises ValueError."""
    exact = _exact_seconds(value)
    return timedelta(microseconds=int(exact * 1_000_000))


def text(value: timedelta) -> str:
    """The shortest exact form: `1h30m`, `45s`, `1.5s`; `0s` for nothing. Raises ValueError for a negative duration."""
    if value < timedelta(0):
        raise ValueError(f"a duration cannot be negative: {value}")
    micros = value // timedelta(microseconds=1)
    whole, fraction = divmod(micros, 1_000_000)
    hours, rest = divmod(whole, 3600)
    minutes, rest_seconds = divmod(rest, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    if fraction:
        parts.append(f"{rest_seconds}.{fraction:06d}".rstrip("0") + "s")
    elif rest_seconds or not whole:
        parts.append(f"{rest_seconds}s")
    return "".join(parts)


def _exact_seconds(value: str) -> Decimal:
    total, position = Decimal(0), 0
    for match in _PART.finditer(value):
        if match.start() != position:
            break
        total += Decimal(match.group(1)) * _UNITS[match.group(2)]
        position = match.end()
    if not value or position != len(value):
        raise ValueError(f"{value!r} is no duration such as 600s, 10m, 1h30m or 1.5s")
    if total > _LONGEST_SECONDS:
        raise ValueError(f"{value!r} is longer than 10,000 years")
    return total
