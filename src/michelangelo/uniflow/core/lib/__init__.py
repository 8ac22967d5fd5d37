"""Upstream's libraries for workflow code: `concurrent` and `time`."""

from __future__ import annotations

__all__: list[str] = []
