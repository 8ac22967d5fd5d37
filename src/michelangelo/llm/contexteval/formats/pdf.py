"""PDF → blocks, page by page: a page is a section. Only text is read: no pictures, no scripts, no attachments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pypdf.errors

from michelangelo import errors
from michelangelo.llm.contexteval.blocks import Block
from michelangelo.llm.contexteval.formats import plain

__all__ = ["blocks"]


def blocks(path: Path, *, max_pages: int, max_chars: int) -> Iterator[Block]:
    """Raises CorpusError for a PDF that is broken, encrypted, or larger than is allowed."""
    # What pypdf says about odd files is no news to who ingests a folder.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise errors.CorpusError("is encrypted: remove its password first")
        num_pages = len(reader.pages)
        if num_pages > max_pages:
            raise errors.CorpusError(f"has {num_pages:,} pages, and max_pages is {max_pages:,}")
        size, gap = 0, ""
        for number in range(num_pages):
            text = reader.pages[number].extract_text()
            size += len(text)
            if size > max_chars:
                raise errors.CorpusError(f"has more than {max_chars:,} characters of text: raise max_parsed_mb")
            for block in plain.blocks(text.split("\n")):
                kind = "prose" if block.kind == "heading" else block.kind
                yield Block(block.text, kind, (f"page {number + 1}",), gap)
                gap = "\n\n"
    except (pypdf.errors.PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError,
            AssertionError, RecursionError, NotImplementedError, ZeroDivisionError) as e:  # fmt: skip
        # pypdf lets Python's own errors out when a file is damaged.
        raise errors.CorpusError(f"is no PDF that can be read: {str(e)[:200] or type(e).__name__}") from e
