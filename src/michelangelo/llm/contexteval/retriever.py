"""Question → what the corpus has for it: embeddings and BM25, fused, then reranked. Exact scores for all of them.

It generates no text and decides nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from michelangelo import errors
from michelangelo.llm.contexteval import embedders, reranking, words
from michelangelo.llm.contexteval.corpus import Corpus
from michelangelo.llm.contexteval.embedders import Embedder
from michelangelo.llm.contexteval.retrieval import Passage, Retrieval, Sentence, Term

__all__ = ["Fusion", "MAX_QUESTION_CHARS", "Reranker", "RetrieverSettings", "Retriever"]

Fusion: TypeAlias = Literal["rrf", "weighted"]
MAX_QUESTION_CHARS: Final = 20_000
_RRF_K: Final = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""
_TOP_SCORES: Final = 10
_HOW: Final = re.compile(r"\bhow (many|much|long|often|far|old|large|big|high|tall|fast)\b", flags=re.IGNORECASE)
"""Words that ask, as "which" does: no answer has to repeat them."""


@dataclass(frozen=True, slots=True)
class RetrieverSettings:
    """candidates: taken from each ranking. reranked: of those fused, read and reranked. passages: in the result.
    embedded_sentences: the most promising sentences, whose similarity is computed where the corpus has no vectors of
    sentences (the embedder is no SentenceEmbedder). max_terms: of a long question the words that are rarest in the
    corpus. cosine_weight: of the weighted fusion, the rest is BM25's."""

    candidates: int = 100
    reranked: int = 30
    passages: int = 8
    embedded_sentences: int = 8
    max_terms: int = 48
    fusion: Fusion = "rrf"
    cosine_weight: float = 0.6

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence per field."""
        found = [
            f"{name}: {getattr(self, name)} is less than {least}"
            for name, least in (("candidates", 2), ("reranked", 1), ("passages", 1), ("embedded_sentences", 0),
                                ("max_terms", 1))
            if getattr(self, name) < least
        ]  # fmt: skip
        if self.fusion not in ("rrf", "weighted"):
            found.append(f"fusion: {self.fusion!r} is neither rrf nor weighted")
        if not 0 <= self.cosine_weight <= 1:
            found.append(f"cosine_weight: {self.cosine_weight} is not between 0 and 1")
        return found


@dataclass(frozen=True, slots=True)
class _Found:
    """Both rankings, without copies; scores by row; and the rows that are copies of each."""

    dense: list[int]
    lexical: list[int]
    cosines: dict[int, float]
    bm25: npt.NDArray[np.float32]
    copies: dict[int, list[int]]


class Reranker(Protocol):
    """Another judge of how well each passage answers: one number from 0 to 1 per passage, which becomes its score."""

    def scores(self, question: str, passages: Sequence[Passage]) -> Sequence[float]: ...


class Retriever:
    """For one thread, over one open corpus. embedder: None loads the one that the corpus was made with."""

    def __init__(
        self,
        corpus: Corpus,
        embedder: Embedder | None = None,
        settings: RetrieverSettings | None = None,
        *,
        reranker: Reranker | None = None,
    ) -> None:
        self.corpus = corpus
        self.settings = settings or RetrieverSettings()
        if problems := self.settings.problems():
            raise errors.CorpusError(f"retriever settings: {'; '.join(problems)}")
        self.embedder = embedder or embedders.load(corpus.settings.embedder)
        if self.embedder.id != corpus.embedder_id:
            raise errors.CorpusError(
                f"the corpus was embedded by {corpus.embedder_id}, and this is {self.embedder.id}: their cosines "
                "cannot be compared; use the same embedder, or ingest again"
            )
        self._reranker = reranker
        self._analyzer = words.Analyzer(corpus.settings.language)

    def retrieve(self, question: str) -> Retrieval:
        """Raises CorpusError for an empty question, or one longer than MAX_QUESTION_CHARS. A question without a word,
        or of an empty corpus, has no passages."""
        began = time.perf_counter()
        question = " ".join(question.split())
        if not question:
            raise errors.CorpusError("the question is empty: ask something")
        if len(question) > MAX_QUESTION_CHARS:
            raise errors.CorpusError(
                f"the question has {len(question):,} characters, and {MAX_QUESTION_CHARS:,} are allowed: shorten it"
            )
        corpus, timings = self.corpus, dict[str, float]()
        terms = self._terms(question)
        anchors = words.anchors(question)
        if not any(c.isalnum() for c in question) or corpus.dense is None:
            return self._nothing(question, terms, anchors)
        vector = self.embedder.embed([question])[0]
        timings["embed"] = -began + (now := time.perf_counter())
        rows, _ = corpus.dense.search(vector, max(self.settings.candidates, _TOP_SCORES))
        timings["dense"] = -now + (now := time.perf_counter())
        bm25 = corpus.lexical.scores([term.stem for term in terms])
        lexical = [int(row) for row in _largest(bm25, max(self.settings.candidates, _TOP_SCORES))]
        timings["lexical"] = -now + (now := time.perf_counter())
        union = np.array(sorted({*rows.tolist(), *lexical}), np.int64)
        exact = corpus.dense.vectors(union) @ vector
        cosines = {int(row): float(cosine) for row, cosine in zip(union, exact, strict=True)}
        # An index that is not exact may have them in another order.
        dense = sorted((int(row) for row in rows), key=lambda row: (-cosines[row], row))
        first, copies = self._copies([int(row) for row in union])
        dense, lexical = (list(dict.fromkeys(first[row] for row in ranking)) for ranking in (dense, lexical))
        # Copies below other headings have other scores: the best of each counts.
        cosines = {row: max(cosines[one] for one in copies[row]) for row in copies}
        for row, others in copies.items():
            bm25[row] = max(bm25[one] for one in others)
        found = _Found(dense, lexical, cosines, bm25, copies)
        passages = self._ranked(found, terms, anchors)
        timings["rerank"] = -now + (now := time.perf_counter())
        passages = self._with_similarities(passages, vector)
        if self._reranker is not None and passages:
            given = self._reranker.scores(question, passages)
            passages = [replace(one, score=float(value)) for one, value in zip(passages, given, strict=True)]
            passages.sort(key=lambda one: (-one.score, one.chunk))
        timings["sentences"] = -now + (now := time.perf_counter())
        timings["total"] = now - began
        return Retrieval(
            question=question,
            terms=terms,
            anchors=anchors,
            passages=tuple(passages),
            top_cosines=tuple(cosines[row] for row in dense[:_TOP_SCORES]),
            top_bm25=tuple(float(bm25[row]) for row in lexical[:_TOP_SCORES]),
            dense=tuple(dense),
            lexical=tuple(lexical),
            num_chunks=corpus.num_chunks,
            corpus_digest=corpus.digest,
            embedder=corpus.embedder_id,
            timings=timings,
        )

    def _nothing(self, question: str, terms: tuple[Term, ...], anchors: tuple[str, ...]) -> Retrieval:
        corpus = self.corpus
        return Retrieval(
            question, terms, anchors, (), (), (), (), (), corpus.num_chunks, corpus.digest, corpus.embedder_id
        )

    def _terms(self, question: str) -> tuple[Term, ...]:
        lexical = self.corpus.lexical
        found: dict[str, Term] = {}
        asked = {match.start(1) for match in _HOW.finditer(question)}
        for word in self._analyzer.words(question):
            stem = word.stems[0]
            if stem not in found and word.start not in asked:
                text = question[word.start : word.end]
                found[stem] = Term(text, stem, lexical.idf(stem), lexical.num_with(stem))
        rarest = sorted(found.values(), key=lambda term: -term.idf)[: self.settings.max_terms]
        kept = {term.stem for term in rarest}
        return tuple(term for term in found.values() if term.stem in kept)

    def _copies(self, rows: Sequence[int]) -> tuple[dict[int, int], dict[int, list[int]]]:
        """For each row the first one of those with the same text; and for each first one all of them."""
        keys = self.corpus.chunks["text_key"][rows]
        by_key: dict[bytes, int] = {}
        first = {row: by_key.setdefault(key.tobytes(), row) for row, key in zip(rows, keys, strict=True)}
        copies: dict[int, list[int]] = {}
        for row, one in first.items():
            copies.setdefault(one, []).append(row)
        return first, copies

    def _ranked(self, found: _Found, terms: tuple[Term, ...], anchors: tuple[str, ...]) -> list[Passage]:
        cosines, bm25, lexical = found.cosines, found.bm25, found.lexical
        cosine_rank = {row: rank for rank, row in enumerate(found.dense, start=1)}
        bm25_rank = {row: rank for rank, row in enumerate(lexical, start=1)}
        best = float(bm25[lexical[0]]) if lexical else 0.0
        weight = self.settings.cosine_weight

        def fused(row: int) -> float:
            if self.settings.fusion == "weighted":
                share = float(bm25[row]) / best if best else 0.0
                return weight * max(cosines[row], 0.0) + (1 - weight) * share
            return sum(1.0 / (_RRF_K + ranks[row]) for ranks in (cosine_rank, bm25_rank) if row in ranks)

        chosen = sorted(((fused(row), row) for row in cosines), key=lambda pair: (-pair[0], pair[1]))
        passages = []
        for value, row in chosen[: self.settings.reranked]:
            chunk = self.corpus.chunk(row)
            evidence = reranking.read(chunk, terms, anchors, self._analyzer)
            share = float(bm25[row]) / best if best else 0.0
            passages.append(
                Passage(
                    chunk=row,
                    document=chunk.document,
                    section=chunk.section,
                    kind=chunk.kind,
                    text=chunk.text,
                    start=chunk.start,
                    end=chunk.end,
                    cosine=cosines[row],
                    bm25=float(bm25[row]),
                    cosine_rank=cosine_rank.get(row),
                    bm25_rank=bm25_rank.get(row),
                    fused=value,
                    coverage=evidence.coverage,
                    proximity=evidence.proximity,
                    anchors=evidence.anchors,
                    score=reranking.score(
                        cosine=cosines[row], bm25_share=share, evidence=evidence, num_anchors=len(anchors)
                    ),
                )
            )
        passages.sort(key=lambda one: (-one.score, one.chunk))
        return [self._complete(one, found.copies[one.chunk], terms) for one in passages[: self.settings.passages]]

    def _complete(self, passage: Passage, copies: Sequence[int], terms: tuple[Term, ...]) -> Passage:
        corpus = self.corpus
        names = {corpus.documents[int(corpus.chunks[row]["document"])].name for row in copies if row != passage.chunk}
        sentences = reranking.sentences(corpus.chunk(passage.chunk), terms, self._analyzer)
        return replace(passage, sentences=sentences, copies=tuple(sorted(names - {passage.document})))

    def _with_similarities(self, passages: list[Passage], vector: npt.NDArray[np.float32]) -> list[Passage]:
        """Similarities of all sentences where the corpus has their vectors; else of those with most of the question's
        words, the best passages' first."""
        if any(self.corpus.sentence_vectors(passage.chunk) is not None for passage in passages):
            return [self._with_kept(passage, vector) for passage in passages]
        places = [(p, s) for p, passage in enumerate(passages) for s in range(len(passage.sentences))]
        promising = sorted(
            places, key=lambda at: (-passages[at[0]].sentences[at[1]].coverage - passages[at[0]].score, at)
        )[: self.settings.embedded_sentences]
        if not promising:
            return passages
        similarities = self.embedder.embed([passages[p].sentences[s].text for p, s in promising]) @ vector
        changed: dict[int, list[Sentence]] = {}
        for (p, s), value in zip(promising, similarities, strict=True):
            sentences = changed.setdefault(p, list(passages[p].sentences))
            sentences[s] = replace(sentences[s], similarity=float(value))
        return [
            replace(passage, sentences=tuple(changed[p])) if p in changed else passage
            for p, passage in enumerate(passages)
        ]

    def _with_kept(self, passage: Passage, vector: npt.NDArray[np.float32]) -> Passage:
        vectors = self.corpus.sentence_vectors(passage.chunk)
        if vectors is None or len(vectors) != len(passage.sentences):
            return passage
        # A sentence behind what the embedder reads has no vector.
        has_one = [bool(row.any()) for row in vectors]
        pairs = zip(passage.sentences, (vectors @ vector).tolist(), has_one, strict=True)
        return replace(
            passage,
            sentences=tuple(replace(one, similarity=float(value)) if known else one for one, value, known in pairs),
        )


def _largest(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Rows with the largest scores above 0, ties by row."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > count:
        rows = rows[np.argpartition(-scores[rows], count - 1)[:count]]
    return np.asarray(rows[np.lexsort((rows, -scores[rows]))], dtype=np.int64)
