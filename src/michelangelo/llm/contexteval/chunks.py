"""Blocks → chunks: contiguous spans of the extracted text, each within one section, cut where the structure allows.

A chunk is filled with paragraphs up to its budget. A block of code or a table stays whole while it fits its own,
larger budget; a long paragraph is cut between sentences. Nothing overlaps, so every character has one chunk at most.
It holds one chunk in memory, whatever the size of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.contexteval import words
from michelangelo.llm.contexteval.blocks import Block
from michelangelo.llm.contexteval.retrieval import ChunkKind

__all__ = ["Chunk", "cut", "heading_text"]

_LEAD_CHARS: Final = 300
"""A paragraph up to this length that ends in a colon goes with the code that it introduces."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is characters `start:end` of the extracted text, and bytes `byte_start` … of its UTF-8."""

    section: tuple[str, ...]
    kind: ChunkKind
    start: int
    byte_start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def heading_text(section: tuple[str, ...], text: str) -> str:
    """The headings of a chunk in one line, for what embeds and indexes it; without what the chunk begins with."""
    return " > ".join(section[:-1] if section and text.lstrip().startswith(section[-1]) else section)


def cut(
    blocks: Iterable[Block], write: Callable[[str], object], *, chunk_chars: int, code_chars: int
) -> Iterator[Chunk]:
    """`write` gets the extracted text piece by piece, ahead of the chunks that lie in it."""
    cutter = _Cutter(chunk_chars, code_chars)
    for block in blocks:
        text, gap = _encodable(block.text), block.gap if cutter.position else ""
        if not text:
            continue
        write(gap + text)
        yield from cutter.take(Block(text, block.kind, block.section, gap))
    yield from cutter.end()


class _Cutter:
    """The chunk that is being filled: `_text` from `_start` on, of blocks of one section."""

    def __init__(self, chunk_chars: int, code_chars: int) -> None:
        self.position = 0
        self._byte_position = 0
        self._chunk_chars, self._code_chars = chunk_chars, code_chars
        self._text = ""
        self._start = self._byte_start = 0
        self._section: tuple[str, ...] = ()
        self._code = self._tables = 0
        self._heading: Chunk | None = None

    def take(self, block: Block) -> Iterator[Chunk]:
        self.position += len(block.gap)
        self._byte_position += len(block.gap.encode())
        start, byte_start = self.position, self._byte_position
        self.position += len(block.text)
        self._byte_position += len(block.text.encode())
        if block.kind == "heading":
            yield from self._flush()
            yield from self._lone_heading(block.section)
            self._heading = Chunk(block.section, "prose", start, byte_start, block.text)
            return
        self._heading = None
        if self._text and (block.section != self._section or not self._fits(block)):
            yield from self._flush()
        if not self._text:
            self._start, self._byte_start, self._section = start, byte_start, block.section
            self._text = block.text
        else:
            self._text += block.gap + block.text
        self._code += len(block.text) * (block.kind == "code")
        self._tables += len(block.text) * (block.kind == "table")
        if len(self._text) > (self._chunk_chars if block.kind == "prose" else self._code_chars):
            yield from self._split(by_lines=block.kind != "prose")

    def end(self) -> Iterator[Chunk]:
        yield from self._flush()
        yield from self._lone_heading(())

    def _fits(self, block: Block) -> bool:
        size = len(self._text) + len(block.gap) + len(block.text)
        if size <= self._chunk_chars:
            return True
        leads = len(self._text) <= _LEAD_CHARS and self._text.rstrip().endswith(":")
        return block.kind != "prose" and leads and size <= self._code_chars

    def _flush(self) -> Iterator[Chunk]:
        if self._text.strip():
            half = len(self._text) / 2
            kind: ChunkKind = "code" if self._code > half else "table" if self._tables > half else "prose"
            yield Chunk(self._section, kind, self._start, self._byte_start, self._text)
        self._text = ""
        self._code = self._tables = 0

    def _split(self, *, by_lines: bool) -> Iterator[Chunk]:
        """A block that is too long by itself: into sentences or lines, as many to a chunk as fit."""
        budget = self._code_chars if by_lines else self._chunk_chars
        text, start, byte_start = self._text, self._start, self._byte_start
        kind: ChunkKind = "table" if self._tables else "code" if self._code else "prose"
        begin = last = 0
        for at in [*_ends(text, budget, by_lines=by_lines), len(text)]:
            if at - begin > budget and last > begin:
                yield from self._piece(kind, start, byte_start, text, begin, last)
                begin = last
            last = at
        yield from self._piece(kind, start, byte_start, text, begin, len(text))
        self._text = ""
        self._code = self._tables = 0

    def _piece(self, kind: ChunkKind, start: int, byte_start: int, text: str, begin: int, end: int) -> Iterator[Chunk]:
        piece = text[begin:end]
        left = len(piece) - len(piece.lstrip("\n "))
        if stripped := piece.rstrip()[left:]:
            begin += left
            yield Chunk(self._section, kind, start + begin, byte_start + len(text[:begin].encode()), stripped)

    def _lone_heading(self, section: tuple[str, ...]) -> Iterator[Chunk]:
        """A heading with nothing under it, not even another heading, is a chunk."""
        heading = self._heading
        if heading is not None and section[: len(heading.section)] != heading.section:
            yield heading
        self._heading = None


def _ends(text: str, budget: int, *, by_lines: bool) -> Iterator[int]:
    """Where a chunk may end."""
    if by_lines:
        pieces = []
        begin = 0
        for line in text.split("\n"):
            pieces.append((begin, begin + len(line)))
            begin += len(line) + 1
    else:
        pieces = words.sentences(text)
    for start, end in pieces:
        while end - start > budget:
            start += budget
            yield start
        yield end


def _encodable(text: str) -> str:
    """Without zero characters and halves of surrogate pairs, which some files have and UTF-8 has not."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
