"""Retrieval: exact scores of both rankings, the right passages, and questions that are hardly any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from michelangelo import errors
from michelangelo.llm.contexteval import corpus, embedders, ingest, retriever
from michelangelo.llm.contexteval.corpus import Corpus
from michelangelo.llm.contexteval.retriever import Retriever, RetrieverSettings


@pytest.fixture(scope="module")
def finder(station: Corpus) -> Retriever:
    return Retriever(station)


@pytest.mark.parametrize(
    ("question", "document", "said"),
    [
        ("How many litres per minute does the Corvo pump move?", "pumps.md", "40 litres"),
        ("When does the Delta valve open?", "valves.txt", "opens at 3 bar"),
        ("What should I wear when a tank is drained?", "notes/safety.html", "gloves"),
        ("Which function drains a tank?", "tool.py", "def drain"),
    ],
)
def test_the_passage_that_answers_comes_first(finder: Retriever, question: str, document: str, said: str) -> None:
    best = finder.retrieve(question).passages[0]
    assert best.document == document
    assert said.lower() in best.text.lower()


def test_scores_are_those_of_an_exhaustive_search(finder: Retriever, station: Corpus) -> None:
    question = "Which filter does the pump need every 6 months?"
    found = finder.retrieve(question)
    assert station.dense is not None
    vectors = station.dense.vectors(np.arange(station.num_chunks))
    cosines = vectors @ finder.embedder.embed([question])[0]
    np.testing.assert_allclose(found.top_cosines, np.sort(cosines)[::-1][: len(found.top_cosines)], rtol=1e-5)
    assert list(found.dense[:3]) == list(np.argsort(-cosines)[:3])
    bm25 = station.lexical.scores([term.stem for term in found.terms])
    assert found.top_bm25[0] == pytest.approx(float(bm25.max()))
    for passage in found.passages:
        assert passage.cosine == pytest.approx(float(cosines[passage.chunk]), abs=1e-5)
        assert passage.bm25 == pytest.approx(float(bm25[passage.chunk]))
        assert station.text(passage.document)[passage.start : passage.end] == passage.text
        for sentence in passage.sentences:
            assert station.text(passage.document)[sentence.start : sentence.end] == sentence.text


def test_terms_and_anchors_say_what_the_corpus_does_not_know(finder: Retriever) -> None:
    found = finder.retrieve("Does the Corvo pump need zebras at 7 bar?")
    by_text = {term.text: term.num_chunks for term in found.terms}
    assert by_text["zebras"] == 0 < by_text["pump"]
    assert found.anchors == ("Corvo", "7")
    assert all("7" not in passage.anchors for passage in found.passages)


@pytest.mark.parametrize("question", ["", "   \n"])
def test_empty_question_is_refused(finder: Retriever, question: str) -> None:
    with pytest.raises(errors.CorpusError, match="empty"):
        finder.retrieve(question)


def test_question_of_punctuation_finds_nothing(finder: Retriever) -> None:
    assert finder.retrieve("?! … --").passages == ()


def test_long_question_is_bounded(finder: Retriever) -> None:
    padding = " ".join(f"word{number}" for number in range(1500))
    found = finder.retrieve(f"{padding} Corvo")
    assert len(found.terms) == RetrieverSettings().max_terms
    with pytest.raises(errors.CorpusError, match="shorten"):
        finder.retrieve("x" * (retriever.MAX_QUESTION_CHARS + 1))


def test_question_in_another_language_finds_what_shares_a_name(finder: Retriever) -> None:
    found = finder.retrieve("Wie viel kostet der Filter der Corvo?")
    assert found.passages[0].document == "pumps.md"
    assert finder.retrieve("东京在哪里？").passages[0].coverage == 0


def test_empty_corpus_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    ingest.ingest([tmp_path / "none"], tmp_path / "c", {"embedder": "hashing:64"})
    found = Retriever(corpus.open_corpus(tmp_path / "c")).retrieve("Where is it?")
    assert (found.passages, found.num_chunks) == ((), 0)


def test_copies_of_a_text_count_once(documents: Path, tmp_path: Path) -> None:
    (documents / "copy.txt").write_text("Wear gloves when the tank is drained.\n\nThe alarm sounds for 30 seconds.")
    ingest.ingest([documents], tmp_path / "c", {"embedder": "hashing"})
    found = Retriever(corpus.open_corpus(tmp_path / "c")).retrieve("How long does the alarm sound?")
    assert found.passages[0].copies == ("notes/safety.html",)
    assert found.top_cosines[0] - found.top_cosines[1] > 0.05
    texts = [" ".join(passage.text.split()) for passage in found.passages]
    assert len(texts) == len(set(texts))


def test_another_embedder_is_refused(station: Corpus) -> None:
    with pytest.raises(errors.CorpusError, match="hashing-64"):
        Retriever(station, embedders.HashingEmbedder(64))


def test_wrong_settings_are_all_named(station: Corpus) -> None:
    wrong: Any = RetrieverSettings(candidates=0, passages=0, cosine_weight=2.0)
    with pytest.raises(errors.CorpusError, match=r"candidates.*passages.*cosine_weight"):
        Retriever(station, settings=wrong)


def test_weighted_fusion_goes_by_the_cosine_when_told_so(station: Corpus) -> None:
    settings = RetrieverSettings(fusion="weighted", cosine_weight=1.0)
    for passage in Retriever(station, settings=settings).retrieve("When does the valve close?").passages:
        assert passage.fused == pytest.approx(max(passage.cosine, 0.0))


def test_reranker_has_the_last_word(station: Corpus) -> None:
    class Shortest:
        def scores(self, question: str, passages: Any) -> list[float]:
            return [1.0 / len(passage.text) for passage in passages]

    found = Retriever(station, reranker=Shortest()).retrieve("When does the valve close?")
    assert [len(one.text) for one in found.passages] == sorted(len(one.text) for one in found.passages)


def test_inverted_index_finds_what_the_flat_one_finds(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for number in range(1100):
        text = f"Machine {number} has the code {number * 7919 % 10007} and stands in hall {number % 13}."
        (tmp_path / "docs" / f"{number}.txt").write_text(text)
    found = []
    for kind in ("flat", "ivf"):
        ingest.ingest([tmp_path / "docs"], tmp_path / kind, {"embedder": "hashing:64", "index": kind})
        opened = corpus.open_corpus(tmp_path / kind)
        assert opened.manifest["index"] == kind
        found.append(Retriever(opened).retrieve("Which code does machine 77 have?"))
    assert found[0].passages[0].document == found[1].passages[0].document == "77.txt"
    assert found[0].passages[0].cosine == pytest.approx(found[1].passages[0].cosine, abs=1e-5)
