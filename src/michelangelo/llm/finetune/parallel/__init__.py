"""Strategies for several processes, and how the processes are started. What a strategy is, is in `strategy`."""

from __future__ import annotations

__all__: list[str] = []
