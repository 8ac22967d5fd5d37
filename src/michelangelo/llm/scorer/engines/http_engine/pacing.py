"""When the next call may go out: rates per minute, pauses that the server asks for, and how many calls at once.

It neither sleeps nor reads a clock: times go in, times come out, in seconds of the caller's clock. Not thread-safe.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Concurrency", "Pacer", "Rate", "pause_asked", "reset_seconds"]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(slots=True)
class Rate:
    """So much per minute, evenly: nothing is saved up, so that no window of a minute sees more than a minute's."""

    per_minute: float
    free_at: float = 0.0

    def delay(self, now: float) -> float:
        return max(0.0, self.free_at - now)

    def take(self, amount: float, now: float) -> None:
        self.free_at = max(now, self.free_at) + 60.0 * amount / self.per_minute

    def give_back(self, amount: float) -> None:
        """It was less than what was taken (or more, if `amount` is negative)."""
        self.free_at -= 60.0 * amount / self.per_minute


class Pacer:
    """Both rates and the server's pauses, which hold for all calls: limits are commonly those of a key."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Rate(requests_per_minute) if requests_per_minute else None
        self._tokens = Rate(tokens_per_minute) if tokens_per_minute else None
        self._paused_until = 0.0

    def take(self, num_tokens: int, now: float) -> float:
        """0: go, it is counted. Else: ask again after so many seconds."""
        rates = [rate for rate in (self._requests, self._tokens) if rate is not None]
        delay = max([self._paused_until - now, *(rate.delay(now) for rate in rates)], default=0.0)
        if delay > 0.0:
            return delay
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(num_tokens, now)
        return 0.0

    def settle(self, taken_tokens: int, used_tokens: int) -> None:
        """What a call really used, once that is known."""
        if self._tokens is not None:
            self._tokens.give_back(taken_tokens - used_tokens)

    def pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)

    def observe(self, headers: Mapping[str, str], now: float) -> None:
        """Pause where the server says that nothing is left until it resets (`x-ratelimit-*`)."""
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
                self.pause(now + reset_seconds(headers.get(f"x-ratelimit-reset-{what}", "")))


class Concurrency:
    """How many calls at once: halved when the server has too many, one more for each round that went well."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._reduced_at = float("-inf")

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    def succeeded(self) -> None:
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def refused(self, sent_at: float, now: float) -> None:
        """A call that was sent before the last reduction says nothing about the limit since."""
        if sent_at >= self._reduced_at:
            self._limit = max(1.0, self._limit / 2.0)
            self._reduced_at = now


def pause_asked(headers: Mapping[str, str], wall_now: float) -> float | None:
    """Seconds that the server asks to wait (`retry-after-ms`, or Retry-After of RFC 9110: seconds or a date).

    headers: names in lower case. wall_now: seconds since the epoch, for dates. None: it does not say, or not clearly.
    """
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000.0)
    except (KeyError, ValueError):
        pass
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - wall_now)
    except (ValueError, OverflowError):
        return None


def reset_seconds(text: str) -> float:
    """`1s`, `6m0s`, `20ms`, or a plain number of seconds; 0 for what is none of these."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        return 0.0
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
