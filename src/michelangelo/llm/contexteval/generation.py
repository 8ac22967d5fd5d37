"""Writing one generation of a corpus: documents one by one, then vectors and indexes, then the switch.

Everything goes into a folder of its own, is flushed to disk, and holds only when `current` names it: who is cut off
before that leaves a folder that nobody reads, and the next writer removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from michelangelo.llm.contexteval import chunks as cutting
from michelangelo.llm.contexteval import corpus as corpora
from michelangelo.llm.contexteval import dense, lexical, vectorizing, words
from michelangelo.llm.contexteval.blocks import Block
from michelangelo.llm.contexteval.corpus import CHUNK, Corpus, DocumentRecord
from michelangelo.llm.contexteval.embedders import Embedder
from michelangelo.llm.contexteval.settings import FORMAT_VERSION, CorpusSettings

__all__ = ["GenerationWriter", "Written", "remove_unfinished"]


@dataclass(frozen=True, slots=True)
class Written:
    """num_embedded: chunks whose vectors were computed; the others' were there already."""

    digest: str
    generation: str
    num_documents: int
    num_chunks: int
    num_chars: int
    num_embedded: int
    index: str


def remove_unfinished(folder: Path, keep: Sequence[str]) -> None:
    """All generations but these. Who has one of them open keeps it open."""
    generations = folder / "generations"
    for path in generations.iterdir() if generations.exists() else ():
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


class GenerationWriter:
    """For one thread that holds the folder's lock. `old`: the generation before, for what is the same."""

    def __init__(self, folder: Path, settings: CorpusSettings, embedder: Embedder, old: Corpus | None) -> None:
        self._root = folder
        self._name = uuid.uuid4().hex
        self.folder = folder / "generations" / self._name
        self.folder.mkdir(parents=True)
        self._settings, self._embedder, self._old = settings, embedder, old
        self._texts = (self.folder / "texts.utf8").open("wb")
        self._records: list[npt.NDArray[np.void]] = []
        self._num_chunks = 0
        self._sections: dict[tuple[str, ...], int] = {}
        self.documents: list[DocumentRecord] = []

    def add(self, document: DocumentRecord, blocks: Iterator[Block]) -> None:
        """A document, of which `document` says what is known before it is read. When `blocks` raise, nothing of it
        stays."""
        start = self._texts.tell()
        num_chars = 0

        def write(text: str) -> None:
            nonlocal num_chars
            num_chars += len(text)
            self._texts.write(text.encode())

        rows = []
        try:
            for chunk in cutting.cut(
                blocks, write, chunk_chars=self._settings.chunk_chars, code_chars=self._settings.code_chars
            ):
                rows.append(self._row(chunk, start))
        except BaseException:
            self._texts.seek(start)
            self._texts.truncate()
            raise
        record = replace(document, num_chars=num_chars, byte_start=start, byte_end=self._texts.tell())
        self._append(record, np.array(rows, dtype=CHUNK))

    def copy(self, record: DocumentRecord) -> None:
        """A document of the generation before that is the same."""
        old, start = self._kept(), self._texts.tell()
        self._texts.write(old.raw(record.byte_start, record.byte_end))
        rows = np.array(old.chunks[record.first_chunk : record.first_chunk + record.num_chunks])
        moved = start - record.byte_start
        rows["byte_start"] = (rows["byte_start"].astype(np.int64) + moved).astype(np.uint64)
        rows["byte_end"] = (rows["byte_end"].astype(np.int64) + moved).astype(np.uint64)
        rows["document"] = len(self.documents)
        rows["section"] = [self._section(old.sections[int(number)]) for number in rows["section"]]
        self._append(replace(record, byte_start=start, byte_end=self._texts.tell()), rows)

    def finish(self, sources: Sequence[Path], report: Callable[[int, int], object]) -> Written:
        """Embed what is new, index everything, and switch. `report` gets the chunks embedded and to embed."""
        self._texts.close()
        rows = np.concatenate(self._records) if self._records else np.zeros(0, CHUNK)
        with (self.folder / "documents.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(corpora.as_line(record) for record in self.documents)
        (self.folder / "sections.json").write_text(json.dumps([list(one) for one in self._sections]), encoding="utf-8")
        num_embedded, kind = self._index(rows, report) if len(rows) else (0, "flat")
        np.save(self.folder / "chunks.npy", rows)
        digest = corpora.corpus_digest(self._settings, self._embedder.id, self.documents)
        manifest = {
            "format": FORMAT_VERSION,
            "digest": digest,
            "settings": self._settings.to_dict(),
            "embedder": self._embedder.id,
            "index": kind,
            "sources": [str(source) for source in sources],
            "num_documents": len(self.documents),
            "num_chunks": len(rows),
            "num_chars": sum(record.num_chars for record in self.documents),
            "files": self._files(),
        }
        self._switch(manifest)
        return Written(
            digest,
            self._name,
            len(self.documents),
            len(rows),
            int(manifest["num_chars"]),  # type: ignore[call-overload]
            num_embedded,
            kind,
        )

    def discard(self) -> None:
        """Nothing of it stays."""
        self._texts.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _append(self, record: DocumentRecord, rows: npt.NDArray[np.void]) -> None:
        self.documents.append(replace(record, first_chunk=self._num_chunks, num_chunks=len(rows)))
        self._records.append(rows)
        self._num_chunks += len(rows)

    def _row(self, chunk: cutting.Chunk, start: int) -> tuple[Any, ...]:
        byte_start = start + chunk.byte_start
        kind = corpora.KINDS.index(chunk.kind)
        section = self._section(chunk.section)
        above = cutting.heading_text(chunk.section, chunk.text)
        key, text_key = _key(_embedded(above, chunk.text)), _key(" ".join(chunk.text.split()))
        byte_end = byte_start + len(chunk.text.encode())
        return (len(self.documents), section, kind, chunk.start, chunk.end, byte_start, byte_end, key, text_key, 0, 0)

    def _section(self, section: tuple[str, ...]) -> int:
        return self._sections.setdefault(section, len(self._sections))

    def _kept(self) -> Corpus:
        if self._old is None:
            raise ValueError("there is no generation to copy from")
        return self._old

    def _index(self, rows: npt.NDArray[np.void], report: Callable[[int, int], object]) -> tuple[int, str]:
        sections = list(self._sections)
        with (self.folder / "texts.utf8").open("rb") as texts, tempfile.TemporaryFile(dir=self.folder) as space:

            def text_of(row: Any) -> tuple[str, str]:
                texts.seek(int(row["byte_start"]))
                text = texts.read(int(row["byte_end"]) - int(row["byte_start"])).decode()
                return cutting.heading_text(sections[int(row["section"])], text), text

            analyzer = words.Analyzer(self._settings.language)
            lexical.build((analyzer.stems(_embedded(*text_of(row))) for row in rows), self.folder / "bm25")
            vectors = np.memmap(space, np.float32, "w+", shape=(len(rows), self._embedder.dimensions))
            with vectorizing.Vectorizer(self.folder, self._embedder, self._old) as vectorizer:
                num_embedded = vectorizer.fill(rows, vectors, text_of, report)
            kind = dense.build(vectors, self._settings.index, self.folder / "index.faiss")
            del vectors
        return num_embedded, kind

    def _files(self) -> dict[str, dict[str, Any]]:
        files = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    os.fsync(file.fileno())
                name = path.relative_to(self.folder).as_posix()
                files[name] = {"bytes": path.stat().st_size, "sha256": digest}
        return files

    def _switch(self, manifest: dict[str, Any]) -> None:
        data = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
        _write(self.folder / "manifest.json", data)
        for folder in (self.folder, self.folder.parent):
            _sync(folder)
        pointer = {"generation": self._name, "manifest": hashlib.sha256(data).hexdigest()}
        temporary = self._root / "current.new"
        _write(temporary, json.dumps(pointer).encode())
        temporary.replace(self._root / "current")
        _sync(self._root)


def _embedded(above: str, text: str) -> str:
    """What is embedded, and what BM25 counts: the headings and the text."""
    return f"{above}\n{text}" if above else text


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
