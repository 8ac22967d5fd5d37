"""Word documents (docx) → blocks: headings by their styles, paragraphs, lists and tables, in order."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import docx
import docx.opc.exceptions
import docx.table
import docx.text.paragraph
import lxml.etree

from michelangelo import errors
from michelangelo.llm.contexteval.blocks import Block, Headings

__all__ = ["blocks"]

_HEADING: Final = re.compile(r"^heading (\d)$", flags=re.IGNORECASE)


def blocks(path: Path, *, max_bytes: int) -> Iterator[Block]:
    """`max_bytes`: what it may unpack to. Raises CorpusError for a file that is damaged or larger."""
    try:
        with zipfile.ZipFile(path) as archive:
            # The directory may lie about sizes, but zipfile reads no more than it says.
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max_bytes:
            raise errors.CorpusError(f"would unpack to {unpacked:,} bytes, and max_parsed_mb allows {max_bytes:,}")
        document = docx.Document(str(path))
        gap = ""
        for block in _blocks(document):
            yield Block(block.text, block.kind, block.section, gap)
            gap = "\n\n"
    except (zipfile.BadZipFile, docx.opc.exceptions.OpcError, lxml.etree.LxmlError, OSError, KeyError, ValueError,
            AttributeError, EOFError, NotImplementedError) as e:  # fmt: skip
        # python-docx lets the errors of the parts that it is made of out.
        raise errors.CorpusError(f"is no docx that can be read: {str(e)[:200] or type(e).__name__}") from e


def _blocks(document: docx.document.Document) -> Iterator[Block]:
    headings = Headings()
    for part in document.iter_inner_content():
        if isinstance(part, docx.table.Table):
            rows = [" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in part.rows]
            if text := "\n".join(row for row in rows if row.strip(" |")):
                yield Block(text, "table", headings.path)
            continue
        text = part.text.strip()
        if not text:
            continue
        style = part.style.name or "" if part.style is not None else ""
        if (match := _HEADING.match(style)) or style == "Title":
            yield headings.enter(int(match[1]) + 1 if match else 1, text)
        else:
            yield Block(("* " if style.startswith("List") else "") + text, "prose", headings.path)
