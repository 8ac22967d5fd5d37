"""What every verb gets from the words before it: the chosen context, and whether errors are shown in full."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Invocation"]


@dataclass(frozen=True, slots=True)
class Invocation:
    context: str = ""
    """Name of the context; empty: the current one."""
    debug: bool = False
