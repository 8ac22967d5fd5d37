"""Folders and files → documents: which there are, what each is, and its blocks. What is left out has its reason.

A document's name is its path below the source, with slashes. Nothing is indexed here.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from michelangelo import errors
from michelangelo.llm.contexteval import decoding
from michelangelo.llm.contexteval.blocks import Block
from michelangelo.llm.contexteval.formats import code, docx, html, markdown, pdf, plain
from michelangelo.llm.contexteval.settings import CorpusSettings

__all__ = ["FORMATS", "Document", "Skipped", "blocks_of", "find", "format_of"]

FORMATS: Final = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".py", ".pyi", ".pyw"), "python"),
    **dict.fromkeys((".txt", ".text", ".rst", ".adoc", ".org", ".tex", ".log", ".csv", ".tsv"), "text"),
    **dict.fromkeys(
        (
            *(".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".scala", ".swift", ".cs"),
            *(".js", ".mjs", ".jsx", ".ts", ".tsx", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".sql", ".proto"),
            *(".sh", ".bash", ".zsh", ".ps1", ".css", ".scss", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".json"),
            *(".jsonl", ".xml", ".star", ".bzl", ".tf", ".graphql", ".vue", ".dart", ".ex", ".hs", ".ml"),
        ),
        "code",
    ),
    ".pdf": "pdf",
    ".docx": "docx",
}
"""By the end of the name. A file of another name is text if it can be decoded, and left out if it is binary."""
_LEFT_OUT_FOLDERS: Final = frozenset({"__pycache__", "node_modules"})
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Document:
    """A file that may be a document. format: one of FORMATS, or "" where the name does not say."""

    name: str
    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is no document of the corpus, and why not."""

    name: str
    reason: str


def find(sources: Sequence[Path]) -> tuple[list[Document], list[Skipped]]:
    """By name. Hidden files and folders, `__pycache__` and `node_modules` are passed over; links are skipped, so that
    nothing outside a source comes in. Raises CorpusError for a source that is not there, or two of the same name."""
    if missing := [str(source) for source in sources if not source.exists()]:
        raise errors.CorpusError(f"there is no file or folder {', '.join(missing)}: name what is to be ingested")
    found: list[Document] = []
    skipped: list[Skipped] = []
    for source in sources:
        prefix = f"{source.resolve().name}/" if len(sources) > 1 and source.is_dir() else ""
        files = _files(source) if source.is_dir() else iter([source])
        for path in files:
            name = prefix + (path.relative_to(source).as_posix() if source.is_dir() else path.name)
            if path.is_symlink() and source.is_dir():
                skipped.append(Skipped(name, "is a link: ingest what it leads to"))
            elif not path.is_file():
                skipped.append(Skipped(name, "is no regular file"))
            elif not _is_utf8(name):
                skipped.append(Skipped(ascii(name), "has a name that is no UTF-8: rename it"))
            else:
                found.append(Document(name, path, format_of(path.name)))
    found.sort(key=lambda one: one.name)
    for one, other in itertools.pairwise(found):
        if one.name == other.name:
            raise errors.CorpusError(
                f"{one.path} and {other.path} would both be {one.name}: ingest their parent folder"
            )
    return found, sorted(skipped, key=lambda one: one.name)


def format_of(name: str) -> str:
    """By the end of the name; "" where it says nothing."""
    return FORMATS.get(Path(name).suffix.lower(), "")


def blocks_of(document: Document, sniffed: decoding.Sniffed, settings: CorpusSettings) -> Iterator[Block]:
    """Its blocks. Raises CorpusError with the reason why it is left out, at once or on the way."""
    if sniffed.num_bytes > settings.max_document_mb * _MB:
        raise errors.CorpusError(f"is larger than max_document_mb ({settings.max_document_mb:g} MB)")
    max_parsed = int(settings.max_parsed_mb * _MB)
    kind = document.format or "text"
    if kind != "text" and sniffed.num_bytes > max_parsed:
        raise errors.CorpusError(
            f"is larger than max_parsed_mb ({settings.max_parsed_mb:g} MB), which {kind} is held to"
        )
    if kind == "pdf":
        return pdf.blocks(document.path, max_pages=settings.max_pages, max_chars=max_parsed)
    if kind == "docx":
        return docx.blocks(document.path, max_bytes=max_parsed)
    if sniffed.num_bytes == 0:
        raise errors.CorpusError("is empty")
    if not sniffed.encoding:
        raise errors.CorpusError(sniffed.problem)
    if kind == "text":
        return plain.blocks(decoding.lines(document.path, sniffed.encoding))
    text = decoding.text_of(document.path.read_bytes(), sniffed.encoding)
    reader = {"markdown": markdown.blocks, "html": html.blocks, "python": code.python_blocks, "code": code.other_blocks}
    return reader[kind](text)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _LEFT_OUT_FOLDERS)
        for name in sorted(names):
            if name[0] != ".":
                yield Path(parent, name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
