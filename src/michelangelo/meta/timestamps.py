"""Instants as they are on the wire: RFC 3339 in UTC, whole seconds in objects and microseconds in the journal.

It keeps no clock: whoever needs one passes it in, so that tests and replays decide what time it is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["Clock", "age", "format_micros", "format_seconds", "now", "now_micros", "of_millis", "parse", "system_clock"]

Clock = Callable[[], datetime]
"""Returns the present instant with a time zone."""

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_CANONICAL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?Z")
"""What we write ourselves; Python's own parser, which takes more forms than RFC 3339 has, is much faster on it."""


def system_clock() -> datetime:
    return datetime.now(UTC)


def now(clock: Clock = system_clock) -> str:
    """The present as `2026-01-31T12:00:00Z`, the form of `metadata.creationTimestamp`."""
    return format_seconds(clock())


def now_micros(clock: Clock = system_clock) -> str:
    """The present as `2026-01-31T12:00:00.000000Z`, the form of the journal and of leases."""
    return format_micros(clock())


def format_seconds(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micros(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def of_millis(millis: int) -> datetime:
    """Milliseconds since 1970, as protobuf documents have them."""
    return datetime.fromtimestamp(millis / 1000, UTC)


def parse(text: str) -> datetime:
    """An RFC 3339 timestamp; digits below a microsecond are dropped. Raises ValueError."""
    if _CANONICAL.fullmatch(text):
        with contextlib.suppress(ValueError):  # said below
            return datetime.fromisoformat(text)
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no RFC 3339 timestamp such as 2026-01-31T12:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    micros = int((match.group(7) or "0").ljust(9, "0")[:6])
    offset = timedelta(hours=int(match.group(9) or 0), minutes=int(match.group(10) or 0))
    try:
        instant = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
        return instant + offset if match.group(8) == "-" else instant - offset
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no point in time: {error}") from error


def age(since: str, until: datetime) -> str:
    """How long ago, as kubectl shows it: `45s`, `5m12s`, `3h`, `2d4h`, `400d`; `<unknown>` for an empty or wrong
    text."""
    try:
        seconds = int((until - parse(since)).total_seconds())
    except ValueError:
        return "<unknown>"
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(high: int, high_unit: str, low: int, low_unit: str) -> str:
    return f"{high}{high_unit}{low}{low_unit}" if low else f"{high}{high_unit}"
