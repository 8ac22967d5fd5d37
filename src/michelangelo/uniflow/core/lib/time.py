"""Upstream's `lib.time`: time for workflow code, recorded in the run's journal, so that a resumed run sees the same."""

from __future__ import annotations

import time as clock

from michelangelo.uniflow import journaled

__all__ = ["datestr", "sleep", "time", "utc_format_seconds"]


def sleep(seconds: float) -> None:
    """Go on `seconds` later; a resumed run waits for the rest only."""
    journaled.sleep(seconds)


def time() -> float:
    """Seconds since 1970."""
    return journaled.now().timestamp()


def utc_format_seconds(pattern: str, seconds: float) -> str:
    """`seconds` since 1970 as UTC, in a pattern of `strftime`."""
    return clock.strftime(pattern, clock.gmtime(seconds))


def datestr(days_offset: int = 0) -> str:
    """Today's date in UTC, `YYYY-MM-DD`, or that of another day."""
    return utc_format_seconds("%Y-%m-%d", time() + 86400 * days_offset)
