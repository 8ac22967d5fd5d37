"""Ingest: only what changed, all or nothing, one at a time; and corpora that were damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from michelangelo import errors
from michelangelo.llm.contexteval import corpus, embedders, ingest, locking
from michelangelo.llm.contexteval.embedders import Vectors

QUICK = {"embedder": "hashing:64"}


class Counting:
    """The quick embedder; it counts texts, and may be told to fail."""

    def __init__(self, fails: bool = False) -> None:
        self._inner = embedders.HashingEmbedder(64)
        self.id, self.dimensions = self._inner.id, 64
        self.texts: list[str] = []
        self.fails = fails

    def embed(self, texts: Sequence[str]) -> Vectors:
        if self.fails:
            raise errors.EngineError("the embedder is lost")
        self.texts.extend(texts)
        return self._inner.embed(texts)


def test_spans_of_chunks_are_in_the_extracted_text(documents: Path, tmp_path: Path) -> None:
    done = ingest.ingest([documents], tmp_path / "c", QUICK)
    assert (len(done.added), done.skipped) == (4, ())
    opened = corpus.open_corpus(tmp_path / "c")
    for number in range(opened.num_chunks):
        chunk = opened.chunk(number)
        assert opened.text(chunk.document)[chunk.start : chunk.end] == chunk.text
    assert opened.chunk(0).document == "notes/safety.html"
    assert "corvo --status\n\ncorvo --reset" in opened.text("pumps.md")


def test_only_what_changed_is_embedded_and_what_is_gone_is_removed(documents: Path, tmp_path: Path) -> None:
    embedder = Counting()
    first = ingest.ingest([documents], tmp_path / "c", QUICK, embedder=embedder)
    assert first.written.num_embedded == len(embedder.texts) == first.written.num_chunks
    embedder.texts.clear()
    again = ingest.ingest([], tmp_path / "c", embedder=embedder)
    assert (again.digest, embedder.texts, len(again.kept)) == (first.digest, [], 4)
    (documents / "pumps.md").write_text("# Pumps\n\nThe Corvo pump moves 50 litres per minute.")
    (documents / "valves.txt").unlink()
    (documents / "new.md").write_text("# Tanks\n\nThe tank holds 900 litres.")
    changed = ingest.ingest([], tmp_path / "c", embedder=embedder)
    assert (changed.added, changed.changed, changed.removed) == (("new.md",), ("pumps.md",), ("valves.txt",))
    assert len(embedder.texts) == 2
    assert changed.digest != first.digest
    opened = corpus.open_corpus(tmp_path / "c")
    assert {opened.chunk(number).document for number in range(opened.num_chunks)} == {
        "new.md", "notes/safety.html", "pumps.md", "tool.py",
    }  # fmt: skip


def test_incremental_corpus_equals_one_made_at_once(documents: Path, tmp_path: Path) -> None:
    ingest.ingest([documents], tmp_path / "c", QUICK)
    (documents / "a.txt").write_text("The first of all documents says little.")
    ingest.ingest([], tmp_path / "c")
    ingest.ingest([documents], tmp_path / "once", QUICK)
    grown, once = corpus.open_corpus(tmp_path / "c"), corpus.open_corpus(tmp_path / "once")
    assert grown.digest == once.digest
    rows = np.arange(once.num_chunks)
    assert [grown.chunk(int(row)) for row in rows] == [once.chunk(int(row)) for row in rows]
    assert grown.dense is not None
    assert once.dense is not None
    np.testing.assert_array_equal(grown.dense.vectors(rows), once.dense.vectors(rows))
    np.testing.assert_array_equal(grown.lexical.scores(["pump"]), once.lexical.scores(["pump"]))


def test_digest_depends_on_settings_and_content_only(documents: Path, tmp_path: Path) -> None:
    digests = [ingest.ingest([documents], tmp_path / f"c{i}", QUICK).digest for i in range(2)]
    other = ingest.ingest([documents], tmp_path / "other", {**QUICK, "chunk_chars": 500}).digest
    assert digests[0] == digests[1] != other


def test_failure_leaves_the_corpus_as_it_was(documents: Path, tmp_path: Path) -> None:
    before = ingest.ingest([documents], tmp_path / "c", QUICK, embedder=Counting())
    (documents / "pumps.md").write_text("Nothing.")
    with pytest.raises(errors.EngineError):
        ingest.ingest([], tmp_path / "c", embedder=Counting(fails=True))
    assert corpus.open_corpus(tmp_path / "c").digest == before.digest
    assert len(list((tmp_path / "c" / "generations").iterdir())) == 1


def test_open_corpus_stays_readable_while_newer_ones_are_written(documents: Path, tmp_path: Path) -> None:
    ingest.ingest([documents], tmp_path / "c", QUICK)
    opened = corpus.open_corpus(tmp_path / "c")
    text = opened.chunk(0).text
    for number in range(3):
        (documents / "notes" / "safety.html").write_text(f"<p>Version {number}.</p>")
        ingest.ingest([], tmp_path / "c")
    assert opened.chunk(0).text == text
    assert len(list((tmp_path / "c" / "generations").iterdir())) == 2


def test_second_ingest_is_refused_with_the_owner_or_waits(documents: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    with locking.hold(folder):
        with pytest.raises(errors.CorpusError, match=f"process {os.getpid()}"):
            ingest.ingest([documents], folder, QUICK)
        done: list[Any] = []
        waiting = threading.Thread(target=lambda: done.append(ingest.ingest([documents], folder, QUICK, waits=True)))
        waiting.start()
    waiting.join(60)
    assert done[0].written.num_documents == 4


@pytest.mark.parametrize("name", ["texts.utf8", "chunks.npy", "index.faiss", "documents.jsonl", "manifest.json"])
def test_damage_is_found_by_digests_and_rebuilding_heals(documents: Path, tmp_path: Path, name: str) -> None:
    first = ingest.ingest([documents], tmp_path / "c", QUICK)
    path = tmp_path / "c" / "generations" / first.written.generation / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.CorpusError, match="--rebuild"):
        corpus.open_corpus(tmp_path / "c")
    with pytest.raises(errors.CorpusError, match="--rebuild"):
        ingest.ingest([], tmp_path / "c")
    assert ingest.ingest([documents], tmp_path / "c", QUICK, rebuild=True).digest == first.digest
    assert corpus.open_corpus(tmp_path / "c").digest == first.digest


@pytest.mark.parametrize(
    "content", ["", "{}", '{"generation": "../..", "manifest": "x"}', '{"generation": "x", "manifest": "y"}']
)
def test_pointer_that_leads_nowhere_is_said(documents: Path, tmp_path: Path, content: str) -> None:
    ingest.ingest([documents], tmp_path / "c", QUICK)
    (tmp_path / "c" / "current").write_text(content)
    with pytest.raises(errors.CorpusError, match="--rebuild"):
        corpus.open_corpus(tmp_path / "c")
    assert ingest.ingest([documents], tmp_path / "c", QUICK, rebuild=True).written.num_documents == 4


def test_missing_file_is_said(documents: Path, tmp_path: Path) -> None:
    done = ingest.ingest([documents], tmp_path / "c", QUICK)
    (tmp_path / "c" / "generations" / done.written.generation / "index.faiss").unlink()
    with pytest.raises(errors.CorpusError, match=r"index\.faiss is missing"):
        corpus.open_corpus(tmp_path / "c")


def test_what_cannot_be_read_is_skipped_with_its_reason(documents: Path, tmp_path: Path) -> None:
    (documents / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    (documents / "empty.txt").write_bytes(b"")
    (documents / "bad.pdf").write_bytes(b"%PDF-1.7 nothing")
    (documents / "large.md").write_text("word " * 30_000)
    (documents / "large.txt").write_text("word " * 300_000)
    (documents / "link.txt").symlink_to("/etc/hostname")
    (documents / ".hidden.txt").write_text("secret")
    (documents / "latin.txt").write_bytes("Größe und Fläche über alles, schöne Grüße. ".encode("latin-1") * 9)
    done = ingest.ingest([documents], tmp_path / "c", {**QUICK, "max_parsed_mb": 0.1, "max_document_mb": 1})
    reasons = {one.name: one.reason for one in done.skipped}
    assert set(reasons) == {"photo.png", "empty.txt", "bad.pdf", "large.md", "large.txt", "link.txt"}
    assert "binary" in reasons["photo.png"]
    assert "max_parsed_mb" in reasons["large.md"]
    assert "max_document_mb" in reasons["large.txt"]
    assert "Größe" in corpus.open_corpus(tmp_path / "c").text("latin.txt")


def test_folder_without_documents_is_an_empty_corpus(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = ingest.ingest([tmp_path / "nothing"], tmp_path / "c", QUICK)
    assert (done.written.num_documents, done.written.num_chunks) == (0, 0)
    assert corpus.open_corpus(tmp_path / "c").num_chunks == 0


def test_documents_without_a_word_can_be_ingested(tmp_path: Path) -> None:
    (tmp_path / "marks.txt").write_text("!!! ??? ---\n\n...")
    assert ingest.ingest([tmp_path / "marks.txt"], tmp_path / "c", QUICK).written.num_chunks == 1
    assert corpus.open_corpus(tmp_path / "c").lexical.num_with("x") == 0


def test_mistakes_are_said_before_anything_is_written(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.CorpusError, match="no file or folder"):
        ingest.ingest([tmp_path / "nowhere"], tmp_path / "c")
    with pytest.raises(errors.CorpusError, match=r"chunk_chars.*index"):
        ingest.ingest([documents], tmp_path / "c", {"chunk_chars": 5, "index": "best"})
    with pytest.raises(errors.CorpusError, match="ingest itself"):
        ingest.ingest([documents], documents / "c")
    with pytest.raises(errors.CorpusError, match="embedder"):
        ingest.ingest([documents], tmp_path / "d", {"embedder": "word2vec"})
    assert not (tmp_path / "c").exists()
    with pytest.raises(errors.CorpusError, match="no corpus"):
        corpus.open_corpus(tmp_path / "c")


def test_two_sources_keep_their_names_apart(documents: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "pumps.md").write_text("# Other pumps\n\nThey are green.")
    ingest.ingest([documents, other], tmp_path / "c", QUICK)
    names = {one.name for one in corpus.open_corpus(tmp_path / "c").documents}
    assert {"documents/pumps.md", "other/pumps.md"} <= names


def test_large_text_is_streamed(tmp_path: Path) -> None:
    """Neither the file nor its text is ever held as a whole."""
    import tracemalloc

    path = tmp_path / "large.txt"
    with path.open("w") as file:
        for number in range(12_000):
            file.write(f"Line {number} speaks of nothing in particular, and does so at some length.\n\n")
    size = path.stat().st_size
    from michelangelo.llm.contexteval import chunks, decoding
    from michelangelo.llm.contexteval.formats import plain

    tracemalloc.start()
    count = sum(
        1
        for _ in chunks.cut(
            plain.blocks(decoding.lines(path, "utf-8")), lambda text: None, chunk_chars=900, code_chars=2000
        )
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > size / 1000
    # A piece of a file is a megabyte, as text and as lines.
    assert peak < 6 * decoding.PIECE_BYTES


KILLED = """
import os, signal, sys
from michelangelo.llm.contexteval import embedders, ingest

class Deadly(embedders.HashingEmbedder):
    def embed(self, texts):
        os.kill(os.getpid(), signal.SIGKILL)

ingest.ingest([sys.argv[1]], sys.argv[2], {"embedder": "hashing:64"}, embedder=Deadly(64))
"""


@pytest.mark.slow
def test_killed_ingest_leaves_the_corpus_and_frees_the_lock(documents: Path, tmp_path: Path) -> None:
    before = ingest.ingest([documents], tmp_path / "c", QUICK)
    (documents / "pumps.md").write_text("Nothing that was there.")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(documents), str(tmp_path / "c")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert corpus.open_corpus(tmp_path / "c").digest == before.digest
    after = ingest.ingest([], tmp_path / "c")
    assert after.changed == ("pumps.md",)
    assert len(list((tmp_path / "c" / "generations").iterdir())) == 2
    assert json.loads((tmp_path / "c" / "current").read_text())["generation"] == after.written.generation
