"""`mactl contexteval`: ingest, ask and show, as a user has them; and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Mactl = Callable[..., Any]


@pytest.fixture
def corpus(mactl: Mactl, tmp_path: Path) -> str:
    """A corpus of two documents."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "pumps.md").write_text("# Pumps\n\nThe Corvo pump moves 40 litres per minute. It must not run dry.\n")
    (docs / "valves.txt").write_text("The Delta valve opens at 3 bar.\n")
    folder = str(tmp_path / "corpus")
    result = mactl("contexteval", "ingest", str(docs), "--corpus", folder, "--embedder", "hashing", "-o", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["added"] == ["pumps.md", "valves.txt"]
    return folder


def test_answer_is_cited_and_the_span_can_be_shown(mactl: Mactl, corpus: str) -> None:
    result = mactl("contexteval", "ask", "How much does the Corvo pump move?", "--corpus", corpus)
    assert result.code == 0, result.err
    assert result.out.startswith("The Corvo pump moves 40 litres per minute. [1]")
    assert "[1] pumps.md, Pumps, characters 7–49" in result.out
    assert "promises nothing" in result.err
    shown = mactl("contexteval", "show", "pumps.md", "--span", "7:49", "--corpus", corpus)
    assert shown.out == "The Corvo pump moves 40 litres per minute.\n"


def test_json_has_everything_an_answer_rests_on(mactl: Mactl, corpus: str) -> None:
    given = json.loads(
        mactl("contexteval", "ask", "When does the Delta valve open?", "--corpus", corpus, "-o", "json").out
    )
    assert given["answered"]
    assert given["citations"][0]["quote"] == "The Delta valve opens at 3 bar."
    assert given["decision"]["gate"] == "unfitted"
    assert len(given["corpus"]["digest"]) == 64
    assert given["timings"]["total"] > 0


def test_what_is_not_there_is_said_exactly_so(mactl: Mactl, corpus: str) -> None:
    result = mactl("contexteval", "ask", "Who invented the zeppelin?", "--corpus", corpus)
    assert (result.code, result.out) == (0, "Not in corpus\n")


def test_ingest_again_reads_only_what_changed(mactl: Mactl, corpus: str, tmp_path: Path) -> None:
    (tmp_path / "docs" / "valves.txt").unlink()
    (tmp_path / "docs" / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    result = mactl("contexteval", "ingest", "--corpus", corpus)
    assert result.code == 0, result.err
    assert "1 document, 1 chunk, 0 of them embedded now" in result.out
    assert "skipped: photo.png is binary" in result.err
    listed = json.loads(mactl("contexteval", "show", "--corpus", corpus, "-o", "json").out)
    assert [one["name"] for one in listed["documents"]] == ["pumps.md"]


def test_an_engine_writes_and_is_checked(mactl: Mactl, corpus: str) -> None:
    result = mactl(
        "contexteval", "ask", "How much does the Corvo pump move?", "--corpus", corpus, "--engine", "{kind: stub}"
    )
    assert result.code == 0, result.err
    assert result.out == "Not in corpus\n"
    assert "removed: " in result.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ask", ""], 2, "empty"),
        (["ask", "x", "--gate", "nowhere.json"], 2, "nowhere.json"),
        (["show", "nothing.md"], 2, "nothing.md"),
        (["show", "pumps.md", "--span", "9:3"], 2, "--span"),
        (["ingest", "nowhere"], 2, "nowhere"),
    ],
)
def test_mistakes_are_said(mactl: Mactl, corpus: str, words: list[str], code: int, said: str) -> None:
    result = mactl("contexteval", *words, "--corpus", corpus)
    assert result.code == code
    assert said in result.err
    assert "Traceback" not in result.err


def test_damaged_corpus_is_said_with_what_to_do(mactl: Mactl, corpus: str) -> None:
    texts = next(Path(corpus).glob("generations/*/texts.utf8"))
    texts.write_bytes(texts.read_bytes()[:-1])
    result = mactl("contexteval", "ask", "How much?", "--corpus", corpus)
    assert result.code == 2
    assert "--rebuild" in result.err


def test_no_corpus_is_said_with_what_to_do(mactl: Mactl, tmp_path: Path) -> None:
    result = mactl("contexteval", "ask", "How much?", "--corpus", str(tmp_path / "none"))
    assert result.code == 2
    assert "mactl contexteval ingest" in result.err
