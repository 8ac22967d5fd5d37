"""Plain text → blocks, line by line in bounded memory: paragraphs, underlined headings, indented code.

Headings are those of reStructuredText and of Markdown's older style: a line of text over (or between) lines of one
punctuation character. Levels come in the order in which the characters appear. The signature of a function over text
that is indented further is a heading of that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from michelangelo.llm.contexteval import words
from michelangelo.llm.contexteval.blocks import Block, BlockKind, Headings

__all__ = ["MAX_BLOCK_CHARS", "blocks"]

MAX_BLOCK_CHARS: Final = 1 << 16
"""A paragraph that is longer is handed on in pieces."""
_RULE: Final = re.compile(r"^([=\-`:.'\"~^_*+#])\1{2,}\s*$")
_MAX_SIGNATURE_LINES: Final = 6
_SIGNATURE: Final = re.compile(r"^(?:[\w.]+ )?[\w.]+\(.*\)(?: -> .+)?$")


def blocks(lines: Iterable[str]) -> Iterator[Block]:
    """`lines` without their ends."""
    headings, levels = Headings(), list[str]()
    signatures: list[tuple[int, str]] = []
    gap = ""
    following = _paragraphs(lines)
    paragraph = next(following, None)
    while paragraph is not None:
        after = next(following, None)
        rest = paragraph
        while rest:
            title, mark, taken = _heading(rest)
            if not title:
                break
            if mark not in levels:
                levels.append(mark)
            heading = headings.enter(levels.index(mark) + 1, title)
            yield Block(heading.text, "heading", heading.section, gap)
            gap, rest, signatures = "\n\n", rest[taken:], []
        if rest:
            while signatures and signatures[-1][0] >= _indent(rest):
                signatures.pop()
            is_signature = _SIGNATURE.match(rest[0].strip()) is not None and len(rest) <= _MAX_SIGNATURE_LINES
            if is_signature and after is not None and _indent(after) > _indent(rest):
                signatures.append((_indent(rest), rest[0].strip()[:200]))
            kind: BlockKind = "prose" if is_signature or not words.looks_like_code("\n".join(rest)) else "code"
            yield Block("\n".join(rest), kind, headings.path + tuple(one for _, one in signatures), gap)
            gap = "\n\n"
        paragraph = after


def _indent(lines: list[str]) -> int:
    return len(lines[0]) - len(lines[0].lstrip())


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for raw in lines:
        line = raw.rstrip().expandtabs()
        if not line or size > MAX_BLOCK_CHARS:
            if held:
                yield held
            held, size = [], 0
        if line:
            held.append(line)
            size += len(line) + 1
    if held:
        yield held


def _heading(lines: list[str]) -> tuple[str, str, int]:
    """The title, the character below it (twice: also above), and how many lines it takes; or an empty title."""
    if len(lines) >= 3 and _RULE.match(lines[0]) and _RULE.match(lines[2]) and lines[0][0] == lines[2][0]:
        if _is_title(lines[1].strip(), lines[2]):
            return lines[1].strip(), lines[0][0] * 2, 3
    elif len(lines) >= 2 and _RULE.match(lines[1]) and not _RULE.match(lines[0]) and _is_title(lines[0], lines[1]):
        return lines[0].strip(), lines[1][0], 2
    return "", "", 0


def _is_title(title: str, rule: str) -> bool:
    return title[:1].strip() != "" and len(title) <= 200 and len(rule.rstrip()) >= min(len(title), 60) - 2
