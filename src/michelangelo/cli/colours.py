"""Colours, on a terminal only, and not where NO_COLOR is set. It decides nothing about what a colour means."""

from __future__ import annotations

from typing import TextIO

import click

from michelangelo.app import settings

__all__ = ["paint"]


def paint(text: str, colour: str, stream: TextIO) -> str:
    """`text` in a colour where `stream` shows colours."""
    if not text or not stream.isatty() or settings.load().no_color:
        return text
    return click.style(text, fg=colour)
