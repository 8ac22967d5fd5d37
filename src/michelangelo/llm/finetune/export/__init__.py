"""A run's checkpoint as a model that others load, with a card that says how it was made."""

from __future__ import annotations

__all__: list[str] = []
