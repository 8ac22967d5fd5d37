"""Ingest: the corpus becomes what the sources hold now. What did not change is neither read into chunks nor embedded
again; what is gone is removed. All or nothing: until the end, readers see the corpus as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from michelangelo import errors
from michelangelo.llm.contexteval import corpus as corpora
from michelangelo.llm.contexteval import decoding, documents, embedders, generation, locking
from michelangelo.llm.contexteval import settings as corpus_settings
from michelangelo.llm.contexteval.corpus import Corpus, DocumentRecord
from michelangelo.llm.contexteval.documents import Document, Skipped
from michelangelo.llm.contexteval.generation import GenerationWriter, Written
from michelangelo.llm.contexteval.settings import CorpusSettings

__all__ = ["Ingested", "ingest"]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did. added, changed, removed, kept: names of documents. skipped: files that are none."""

    folder: Path
    written: Written
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    seconds: float

    @property
    def digest(self) -> str:
        return self.written.digest

    def to_dict(self) -> dict[str, Any]:
        return {
            "corpus": str(self.folder),
            "digest": self.digest,
            "documents": self.written.num_documents,
            "chunks": self.written.num_chunks,
            "characters": self.written.num_chars,
            "embedded": self.written.num_embedded,
            "index": self.written.index,
            "added": list(self.added),
            "changed": list(self.changed),
            "removed": list(self.removed),
            "kept": len(self.kept),
            "skipped": [{"name": one.name, "reason": one.reason} for one in self.skipped],
            "seconds": round(self.seconds, 3),
        }


def ingest(
    sources: Sequence[str | Path],
    folder: str | Path,
    settings: CorpusSettings | Mapping[str, Any] | None = None,
    *,
    embedder: embedders.Embedder | None = None,
    rebuild: bool = False,
    waits: bool = False,
    report: Callable[[str], object] = lambda said: None,
) -> Ingested:
    """Make the corpus in `folder` hold what is in `sources` (files and folders; none: those of the last time).

    settings: what a mapping leaves out, or None, is as it was for the corpus, or as by default. embedder: for one that
    `embedders.load` does not know. rebuild: use nothing of what is there. waits: for another ingest's end, instead of
    raising. report: gets sentences.
    Raises CorpusError; the corpus is then as it was.
    """
    began = time.monotonic()
    folder = Path(folder)
    given = settings.to_dict() if isinstance(settings, CorpusSettings) else dict(settings or {})
    corpus_settings.parse(given)
    if folder.exists() and not folder.is_dir():
        raise errors.CorpusError(f"{folder} is a file: name a folder for the corpus")
    _check_place([Path(source) for source in sources], folder)
    found = documents.find([Path(source) for source in sources])
    folder.mkdir(parents=True, exist_ok=True)
    with locking.hold(folder, waits=waits):
        old = _old(folder) if not rebuild else None
        if not sources:
            if old is None:
                raise errors.CorpusError(f"{folder} has no corpus yet: name the files and folders to ingest")
            found = documents.find(old.sources)
        places = [Path(source).resolve() for source in sources] or (old.sources if old is not None else [])
        chosen = corpus_settings.parse({**(old.settings.to_dict() if old is not None else {}), **given})
        model = embedder or embedders.load(chosen.embedder)
        current = None if rebuild else corpora.read_current(folder)
        generation.remove_unfinished(folder, [current[0]] if current else _named(folder))
        writer = GenerationWriter(folder, chosen, model, old)
        try:
            changes = _read(writer, found, chosen, old, report)
            written = writer.finish(places, lambda done, total: report(f"embedded {done:,} of {total:,} chunks"))
        except BaseException:
            writer.discard()
            raise
        generation.remove_unfinished(folder, [written.generation, *([current[0]] if current else [])])
    return Ingested(folder, written, *changes, seconds=time.monotonic() - began)


def _old(folder: Path) -> Corpus | None:
    return corpora.open_corpus(folder) if corpora.read_current(folder) is not None else None


def _named(folder: Path) -> list[str]:
    """The generation that holds, if it can be told: kept for its readers until the new one does."""
    try:
        current = corpora.read_current(folder)
    except errors.CorpusError:
        return []
    return [current[0]] if current else []


def _check_place(sources: Sequence[Path], folder: Path) -> None:
    for source in sources:
        if folder.resolve() == source.resolve() or folder.resolve().is_relative_to(source.resolve()):
            raise errors.CorpusError(f"{folder} lies in {source}: the corpus would ingest itself; put it elsewhere")


def _read(
    writer: GenerationWriter,
    found: tuple[list[Document], list[Skipped]],
    settings: CorpusSettings,
    old: Corpus | None,
    report: Callable[[str], object],
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[Skipped, ...]]:
    """Names added, changed, removed, kept; and what was skipped."""
    files, skipped = found
    same_settings = old is not None and _extraction(old.settings) == _extraction(settings)
    added, changed, kept = list[str](), list[str](), list[str]()
    skipped = list(skipped)
    for number, document in enumerate(files, start=1):
        before = old.document(document.name) if old is not None else None
        try:
            sniffed = decoding.sniff(document.path)
            if before is not None and same_settings and before.digest == sniffed.digest:
                writer.copy(before)
                kept.append(document.name)
                continue
            kind = document.format or "text"
            record = DocumentRecord(
                document.name, sniffed.digest, kind, sniffed.encoding, sniffed.num_bytes, 0, 0, 0, 0, 0
            )
            writer.add(record, documents.blocks_of(document, sniffed, settings))
        except errors.CorpusError as e:
            skipped.append(Skipped(document.name, str(e)))
            continue
        except (OSError, UnicodeError) as e:
            # Also: it changed while it was read.
            skipped.append(Skipped(document.name, f"cannot be read: {e}"))
            continue
        (added if before is None else changed).append(document.name)
        if number % 100 == 0 or number == len(files):
            report(f"read {number:,} of {len(files):,} files")
    names = {record.name for record in writer.documents}
    removed = [record.name for record in old.documents if record.name not in names] if old is not None else []
    skipped.sort(key=lambda one: one.name)
    return tuple(added), tuple(changed), tuple(removed), tuple(kept), tuple(skipped)


def _extraction(settings: CorpusSettings) -> tuple[Any, ...]:
    """What a document's text and chunks depend on."""
    return (
        settings.chunk_chars,
        settings.code_chars,
        settings.max_document_mb,
        settings.max_parsed_mb,
        settings.max_pages,
    )
