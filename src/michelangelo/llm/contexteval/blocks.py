"""What every format is read into: blocks of text in the order of the document, each with the headings above it.

A document's extracted text is the blocks' texts with their gaps, joined: all spans count characters of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Block", "BlockKind", "Headings", "joined"]

BlockKind: TypeAlias = Literal["prose", "code", "table", "heading"]


@dataclass(frozen=True, slots=True)
class Block:
    """section: the headings above it, outermost first; a heading is itself the last of its own. gap: what stands
    between the block before and this one."""

    text: str
    kind: BlockKind = "prose"
    section: tuple[str, ...] = ()
    gap: str = "\n\n"


class Headings:
    """The headings above the place that is being read."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._stack)

    def enter(self, level: int, title: str) -> Block:
        """A heading of this level (1 is the outermost): it ends those of its own and of deeper levels."""
        title = " ".join(title.split())[:200]
        while self._stack and self._stack[-1][0] >= level:
            self._stack.pop()
        self._stack.append((level, title))
        return Block(title, "heading", self.path)


def joined(blocks: Iterator[Block]) -> str:
    """The whole extracted text."""
    parts: list[str] = []
    for block in blocks:
        if parts:
            parts.append(block.gap)
        parts.append(block.text)
    return "".join(parts)
