"""What was found for a question, with every raw score that a gate may decide by. Data only: nothing is searched here.

All positions are characters (code points) of a document's extracted text, end excluded: `text[start:end]` is the span.
Cosines are of unit vectors, −1 … 1, and exact: a passage that only BM25 found has its cosine too, and the other way
round. Ranks begin with 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["ChunkKind", "Passage", "Retrieval", "Sentence", "Term"]

ChunkKind: TypeAlias = Literal["prose", "code", "table"]


@dataclass(frozen=True, slots=True)
class Term:
    """A content word of the question (stop words are left out; each stem once, in the question's order).

    idf: ln(1 + (N − n + ½) / (n + ½)) with N chunks of which n have the stem; num_chunks is n. With n = 0 the corpus
    does not know the word, and its idf is the largest there is: a question about something else has such words.
    """

    text: str
    stem: str
    idf: float
    num_chunks: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence (or line of code) of a passage.

    coverage: idf-weighted share of the question's terms in it, 0 … 1. similarity: cosine of question and sentence by
    the corpus' embedder; None where it was not computed, as only the most promising ones are.
    """

    text: str
    start: int
    end: int
    coverage: float
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """One chunk that was found.

    chunk: its row in the index. document: path below the folder that was ingested. section: the headings above it,
    outermost first. cosine: of question and chunk. bm25: Lucene's variant, ≥ 0, unbounded; 0 with no word in common.
    cosine_rank, bm25_rank: place in that ranking of the whole corpus; None where it is not among its candidates.
    fused: reciprocal rank fusion, Σ 1 / (60 + rank), or the weighted sum, as the settings say. coverage: idf-weighted
    share of the question's terms in the chunk and its headings, 0 … 1. proximity: 0 … 1, how close together the
    covered terms stand (1: as close as can be). anchors: which of the question's anchors (see Retrieval) it has.
    score: what the passages are ranked by after reranking, 0 … 1. sentences: all of it, in order. copies: the other
    documents with the same text, which are no passages of their own.
    """

    chunk: int
    document: str
    section: tuple[str, ...]
    kind: ChunkKind
    text: str
    start: int
    end: int
    cosine: float
    bm25: float
    cosine_rank: int | None
    bm25_rank: int | None
    fused: float
    coverage: float
    proximity: float
    anchors: tuple[str, ...]
    score: float
    sentences: tuple[Sentence, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def best_sentence(self) -> Sentence | None:
        """The one most like the question: by similarity where it was computed, else by coverage."""
        return (
            max(self.sentences, key=lambda one: (one.similarity is not None, one.similarity or 0.0, one.coverage))
            if self.sentences
            else None
        )


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Everything found for one question. With no passage (empty corpus, no word in the question) nothing can be said.

    passages: best first, after fusion and reranking. top_cosines: the largest cosines of the whole corpus in
    descending order (ten at most), so top 1 and the margin to top 2 are `top_cosines[0] − top_cosines[1]`;
    top_bm25: the same of BM25. Copies of a text count once everywhere, or else the margin of a text that is there
    twice would be nothing. dense and lexical: the chunk numbers of these rankings, best first (as many as were
    candidates), to see whether both agree. anchors: what a right answer can hardly do without: numbers, names (words
    in capitals inside the sentence), identifiers and quoted texts of the question, as they stand there.
    corpus_digest: which corpus, with which settings. timings: seconds per step.
    """

    question: str
    terms: tuple[Term, ...]
    anchors: tuple[str, ...]
    passages: tuple[Passage, ...]
    top_cosines: tuple[float, ...]
    top_bm25: tuple[float, ...]
    dense: tuple[int, ...]
    lexical: tuple[int, ...]
    num_chunks: int
    corpus_digest: str
    embedder: str
    timings: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
