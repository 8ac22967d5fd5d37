"""Ranges of keys, the same for every store: what lies under a prefix, and what comes after a key.

Keys sort by code point, which is also how SQLite compares their UTF-8 bytes. This module reads no store and knows
nothing of how keys are built.
"""

from __future__ import annotations

__all__ = ["check", "first", "stop"]

_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def check(text: str) -> None:
    """Raise ValueError unless `text` can be a key or a term: not empty, and encodable as UTF-8."""
    if not text:
        raise ValueError("a key or term must not be empty")
    text.encode()


def first(prefix: str, after: str) -> str:
    """The least key that starts with `prefix` and sorts after `after`."""
    return max(prefix, after + "\0") if after else prefix


def stop(prefix: str) -> str | None:
    """The least key that sorts after everything under `prefix`; None when nothing does."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < _LAST:
            code += 1
            return prefix[:index] + chr(_SURROGATES.stop if code in _SURROGATES else code)
    return None
