"""Markdown (CommonMark with tables) → blocks. Emphasis and links become their text; HTML inside is read as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import markdown_it
from markdown_it.token import Token

from michelangelo.llm.contexteval.blocks import Block, BlockKind, Headings
from michelangelo.llm.contexteval.formats import html

__all__ = ["blocks"]


def blocks(text: str) -> Iterator[Block]:
    """A YAML front matter is left out but for its title."""
    title, text = _front_matter(text)
    headings = Headings()
    gap = ""
    for block in _blocks(markdown_it.MarkdownIt("commonmark").enable("table").parse(text), headings, title):
        yield Block(block.text, block.kind, block.section, gap)
        gap = "\n" if block.text.startswith(("* ", "1. ")) else "\n\n"


def _blocks(tokens: Sequence[Token], headings: Headings, title: str) -> Iterator[Block]:
    if title:
        yield headings.enter(1, title)
    row: list[str] = []
    table: list[str] = []
    marks: list[str] = []
    depth, is_first = 0, False
    inline = ""
    for token in tokens:
        kind = token.type
        if kind == "inline":
            inline = _plain(token.children or [])
        elif kind == "heading_close" and inline:
            yield headings.enter(int(token.tag[1:]), inline)
        elif kind == "paragraph_close" and inline:
            prefix = marks[-1] if marks and is_first else ""
            is_first = False
            yield Block("  " * max(depth - 1, 0) + prefix + inline if marks else inline, "prose", headings.path)
        elif kind in ("fence", "code_block"):
            if token.content.strip():
                yield Block(token.content.rstrip("\n"), "code", headings.path)
        elif kind == "html_block":
            yield from (Block(b.text, _no_heading(b.kind), headings.path) for b in html.blocks(token.content))
        elif kind == "list_item_open":
            depth, is_first = depth + 1, True
            marks.append(f"{token.info}{token.markup} " if token.info else "* ")
        elif kind == "list_item_close":
            depth -= 1
            marks.pop()
        elif kind in ("th_close", "td_close"):
            row.append(inline)
        elif kind == "tr_close":
            table.append(" | ".join(row))
            row = []
        elif kind == "table_close" and table:
            yield Block("\n".join(table), "table", headings.path)
            table = []
        if kind.endswith("_open"):
            inline = ""


def _plain(children: Sequence[Token]) -> str:
    parts = []
    for child in children:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "softbreak":
            parts.append(" ")
        elif child.type == "hardbreak":
            parts.append("\n")
        elif child.type == "image":
            parts.append(child.content)
    return "".join(parts).strip()


def _no_heading(kind: BlockKind) -> BlockKind:
    return "prose" if kind == "heading" else kind


def _front_matter(text: str) -> tuple[str, str]:
    if not text.startswith("---\n"):
        return "", text
    head, end, rest = text[4:].partition("\n---\n")
    if not end:
        return "", text
    titles = [line.partition(":")[2].strip().strip("\"'") for line in head.split("\n") if line.startswith("title:")]
    return titles[0] if titles else "", rest
