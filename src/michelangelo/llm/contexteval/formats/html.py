"""HTML → blocks: headings, paragraphs, lists, tables, preformatted text. Without scripts, styles and navigation.

The tree is walked with a stack of our own, and pages that are nested absurdly deep are refused before they are parsed:
the time that HTML's own rules take grows with the square of the depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from selectolax.lexbor import LexborHTMLParser

from michelangelo import errors
from michelangelo.llm.contexteval.blocks import Block, BlockKind, Headings

__all__ = ["MAX_DEPTH", "blocks"]

_LEFT_OUT: Final = frozenset(
    {
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "nav",
        "header",
        "footer",
        "aside",
        "form",
        "button",
        "select",
        "iframe",
        "head",
    }
)
_BREAKS: Final = frozenset(
    {
        "p",
        "div",
        "section",
        "article",
        "main",
        "body",
        "html",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "blockquote",
        "figure",
        "figcaption",
        "table",
        "thead",
        "tbody",
        "tr",
        "hr",
        "pre",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "address",
        "details",
        "summary",
        "fieldset",
    }
)
_TAG: Final = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_NEED_NO_END: Final = frozenset(
    {
        *(
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "param",
            "source",
            "track",
            "wbr",
        ),
        *("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "body", "html", "head"),
    }
)
MAX_DEPTH: Final = 2000
_SPACE: Final = re.compile(r"\s+")


def blocks(text: str) -> Iterator[Block]:
    """From the body of a page, or from a fragment. Raises CorpusError when it is nested more than MAX_DEPTH deep."""
    depth = 0
    for match in _TAG.finditer(text):
        if match[2].lower() not in _NEED_NO_END:
            depth = max(depth - 1, 0) if match[1] else depth + 1
        if depth > MAX_DEPTH:
            raise errors.CorpusError(f"is nested more than {MAX_DEPTH:,} elements deep")
    parser = LexborHTMLParser(text)
    reader = _Reader()
    title = parser.css_first("title")
    if title is not None and parser.css_first("h1") is None and title.text().strip():
        reader.found.append(reader.headings.enter(1, title.text()))
    root = parser.body or parser.root
    stack: list[tuple[Any, bool]] = [(root, False)] if root is not None else []
    gap = ""
    while stack:
        node, is_end = stack.pop()
        tag = node.tag
        if is_end:
            reader.leave(tag)
        elif tag == "-text":
            reader.add(node.text_content or "")
        elif tag == "br":
            reader.add_break()
        elif tag not in _LEFT_OUT and not tag.startswith(("-", "!", "_")):
            reader.enter(tag)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(list(node.iter(include_text=True))))
        for block in reader.taken():
            yield Block(block.text, block.kind, block.section, gap)
            gap = "\n\n"
    reader.flush()
    for block in reader.taken():
        yield Block(block.text, block.kind, block.section, gap)
        gap = "\n\n"


class _Reader:
    """What has been read of the block that is open."""

    def __init__(self) -> None:
        self.headings = Headings()
        self.found: list[Block] = []
        self._parts: list[str] = []
        self._rows: list[str] = []
        self._cells: list[str] = []
        self._preformatted = 0
        self._tables = 0
        self._prefix = ""

    def taken(self) -> list[Block]:
        taken, self.found = self.found, []
        return taken

    def add(self, text: str) -> None:
        self._parts.append(text if self._preformatted else _SPACE.sub(" ", text))

    def add_break(self) -> None:
        self._parts.append("\n")

    def enter(self, tag: str) -> None:
        if tag in _BREAKS and not self._tables:
            self.flush()
        if tag == "pre":
            self._preformatted += 1
        elif tag == "table":
            self._tables += 1
        elif tag == "li":
            self._prefix = "* "

    def leave(self, tag: str) -> None:
        if tag in ("td", "th") and self._tables:
            self._cells.append(" ".join(self._take().split()))
        elif tag == "tr" and self._tables:
            self._rows.append(" | ".join(self._cells))
            self._cells = []
        elif tag == "table":
            self._tables -= 1
            if not self._tables:
                self._found("\n".join(row for row in self._rows if row.strip(" |")), "table")
                self._rows = []
        elif len(tag) == 2 and tag[0] == "h" and tag[1].isdigit() and not self._tables:
            if title := self._take().strip():
                self.found.append(self.headings.enter(int(tag[1]), title))
        elif tag == "pre":
            self._preformatted -= 1
            self._found(self._take().strip("\n"), "code")
        elif tag in _BREAKS and not self._tables:
            self.flush()

    def flush(self) -> None:
        lines = [" ".join(line.split()) for line in self._take().split("\n")]
        if text := "\n".join(line for line in lines if line):
            self._found(self._prefix + text, "prose")
            self._prefix = ""

    def _take(self) -> str:
        text, self._parts = "".join(self._parts), []
        return text

    def _found(self, text: str, kind: BlockKind) -> None:
        if text.strip():
            self.found.append(Block(text, kind, self.headings.path))
