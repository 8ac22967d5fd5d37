"""A corpus on disk, as readers see it: one generation of documents, chunks and indexes, checked by its digests.

    FOLDER/current                 which generation holds, and the digest of its manifest; replaced atomically
    FOLDER/generations/NAME/
        manifest.json              settings, counts, and the size and SHA-256 of every other file
        documents.jsonl            one line per document: name, digest, format, where its text and chunks are
        sections.json              the heading paths that chunks refer to
        texts.utf8                 the extracted texts, one after the other
        chunks.npy                 one record per chunk (CHUNK)
        index.faiss, bm25/         what finds chunks
        sentences.i8, .f4          sentences' vectors in eight bits, and the scale of each

A reader keeps the generation that it opened, also while a newer one is written. Nothing is written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.contexteval import dense, lexical
from michelangelo.llm.contexteval import settings as corpus_settings
from michelangelo.llm.contexteval.embedders import Vectors
from michelangelo.llm.contexteval.retrieval import ChunkKind

__all__ = [
    "CHUNK",
    "KINDS",
    "ChunkView",
    "Corpus",
    "DocumentRecord",
    "as_line",
    "corpus_digest",
    "open_corpus",
    "read_current",
]

CHUNK: Final = np.dtype(
    [
        ("document", "<u4"),
        ("section", "<u4"),
        ("kind", "u1"),
        ("start", "<u8"),
        ("end", "<u8"),
        ("byte_start", "<u8"),
        ("byte_end", "<u8"),
        ("key", "V16"),
        ("text_key", "V16"),
        ("first_sentence", "<u4"),
        ("num_sentences", "<u4"),
    ]
)
"""start, end: characters of the document's extracted text. byte_start, byte_end: bytes of texts.utf8. key: of what was
embedded (headings and text). text_key: of the text alone, whatever the space in it: copies have the same.
first_sentence, num_sentences: rows of sentences.i8, where the embedder gives sentences' vectors; else 0."""
KINDS: Final[tuple[ChunkKind, ...]] = ("prose", "code", "table")
_REBUILD: Final = "ingest again with --rebuild"
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """digest: SHA-256 of the file as it was. byte_start, byte_end: its text in texts.utf8; num_chars: of that text."""

    name: str
    digest: str
    format: str
    encoding: str
    num_bytes: int
    num_chars: int
    byte_start: int
    byte_end: int
    first_chunk: int
    num_chunks: int


@dataclass(frozen=True, slots=True)
class ChunkView:
    """A chunk, read."""

    number: int
    document: str
    section: tuple[str, ...]
    kind: ChunkKind
    start: int
    end: int
    text: str


def corpus_digest(settings: corpus_settings.CorpusSettings, embedder: str, documents: Sequence[DocumentRecord]) -> str:
    """What an answer can depend on: the settings, the embedder, the names and digests of the documents. SHA-256."""
    what = {
        "format": corpus_settings.FORMAT_VERSION,
        "settings": settings.to_dict(),
        "embedder": embedder,
        "documents": sorted([one.name, one.digest] for one in documents),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def read_current(folder: Path) -> tuple[str, str] | None:
    """The name of the generation that holds and the digest of its manifest; None: nothing was ingested yet. Raises
    CorpusError when the file says something else."""
    try:
        data = json.loads((folder / "current").read_text(encoding="utf-8"))
        name, digest = data["generation"], data["manifest"]
        if not (isinstance(name, str) and isinstance(digest, str) and name.isalnum()):
            raise ValueError("names no generation")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise errors.CorpusError(f"{folder / 'current'} is damaged ({e}): {_REBUILD}") from e
    return name, digest


def open_corpus(folder: str | Path, *, verify: bool = True) -> Corpus:
    """The generation that holds. `verify` reads every file once and compares its digest; without it only sizes are.
    Raises CorpusError for a folder without a corpus, or one that is damaged."""
    folder = Path(folder)
    for attempt in range(_TRIES):
        current = read_current(folder)
        if current is None:
            raise errors.CorpusError(f"{folder} has no corpus: make one with mactl contexteval ingest")
        try:
            return Corpus(folder / "generations" / current[0], current[1], verify=verify)
        except FileNotFoundError as e:
            # It may have been replaced twice since its name was read.
            if attempt == _TRIES - 1 or read_current(folder) == current:
                raise errors.CorpusError(f"{e.filename} is missing, so the corpus is damaged: {_REBUILD}") from e
    raise errors.CorpusError(f"{folder} is being replaced faster than it can be opened: try again")


class Corpus:
    """An open generation: read-only, mapped into memory. Use `open_corpus`."""

    def __init__(self, folder: Path, manifest_digest: str, *, verify: bool) -> None:
        self.folder = folder
        self.manifest = _manifest(folder / "manifest.json", manifest_digest)
        self.digest: str = self.manifest["digest"]
        self.embedder_id: str = self.manifest["embedder"]
        self.num_chunks: int = self.manifest["num_chunks"]
        self.sources = [Path(source) for source in self.manifest["sources"]]
        self.settings = corpus_settings.parse(self.manifest["settings"], where=str(folder / "manifest.json"))
        _check_files(folder, self.manifest["files"], verify=verify)
        with (folder / "documents.jsonl").open(encoding="utf-8") as file:
            self.documents = [DocumentRecord(**json.loads(line)) for line in file]
        sections = json.loads((folder / "sections.json").read_text(encoding="utf-8"))
        self.sections: list[tuple[str, ...]] = [tuple(section) for section in sections]
        self.chunks = cast("npt.NDArray[np.void]", np.load(folder / "chunks.npy", mmap_mode="r"))
        self._texts: mmap.mmap | bytes = b""
        with (folder / "texts.utf8").open("rb") as file, contextlib.suppress(ValueError):
            # An empty file cannot be mapped.
            self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.dense = dense.DenseIndex(folder / "index.faiss") if self.num_chunks else None
        has_words = "bm25/params.index.json" in self.manifest["files"]
        self.lexical = lexical.LexicalIndex(folder / "bm25" if has_words else None, self.num_chunks)
        self._sentences = self._scales = None
        if self.manifest["files"].get("sentences.i8", {}).get("bytes"):
            dimensions = self.dense.dimensions if self.dense is not None else 0
            self._sentences = np.memmap(folder / "sentences.i8", np.int8, "r").reshape(-1, dimensions)
            self._scales = np.memmap(folder / "sentences.f4", np.float32, "r")
        self._by_name = {one.name: one for one in self.documents}

    def chunk(self, number: int) -> ChunkView:
        """The chunk in this row."""
        row = self.chunks[number]
        text = self._texts[int(row["byte_start"]) : int(row["byte_end"])].decode()
        return ChunkView(
            number,
            self.documents[int(row["document"])].name,
            self.sections[int(row["section"])],
            KINDS[int(row["kind"])],
            int(row["start"]),
            int(row["end"]),
            text,
        )

    def sentence_vectors(self, number: int) -> Vectors | None:
        """[sentences, dimensions] of the chunk in this row, as `words.sentences` cuts it. None: there are none here."""
        row = self.chunks[number]
        if self._sentences is None or self._scales is None or not row["num_sentences"]:
            return None
        start = int(row["first_sentence"])
        rows = slice(start, start + int(row["num_sentences"]))
        return np.asarray(self._sentences[rows] * self._scales[rows, None], dtype=np.float32)

    def document(self, name: str) -> DocumentRecord | None:
        """None: there is no such document."""
        return self._by_name.get(name)

    def text(self, name: str) -> str:
        """The extracted text of a document, which spans count. Raises CorpusError if there is none of this name."""
        record = self._by_name.get(name)
        if record is None:
            raise errors.CorpusError(f"{name!r} is no document of the corpus: list them with mactl contexteval show")
        return self._texts[record.byte_start : record.byte_end].decode()

    def raw(self, start: int, end: int) -> bytes:
        """Bytes of texts.utf8."""
        return self._texts[start:end]

    def to_dict(self) -> dict[str, Any]:
        """What it is, for reports."""
        known = ("digest", "embedder", "num_documents", "num_chunks", "num_chars", "index", "settings", "sources")
        return {name: self.manifest[name] for name in known}


def as_line(record: DocumentRecord) -> str:
    """A line of documents.jsonl."""
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def _manifest(path: Path, digest: str) -> dict[str, Any]:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise errors.CorpusError(f"{path} is damaged, its digest is another: {_REBUILD}")
    manifest: dict[str, Any] = json.loads(data)
    if manifest["format"] != corpus_settings.FORMAT_VERSION:
        raise errors.CorpusError(
            f"{path.parent} was made by another version of this program (format {manifest['format']}): {_REBUILD}"
        )
    return manifest


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> None:
    damaged = []
    for name, expected in files.items():
        path = folder / name
        if path.stat().st_size != expected["bytes"]:
            damaged.append(f"{path} has {path.stat().st_size:,} bytes instead of {expected['bytes']:,}")
        elif verify:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    damaged.append(f"{path} has another digest than when it was written")
    if damaged:
        raise errors.CorpusError(f"the corpus is damaged: {'; '.join(damaged)}. Make it anew: {_REBUILD}")
