"""An answer from the sentences of the passages themselves: no model writes, so nothing can be made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.contexteval.answer import Citation, Claim
from michelangelo.llm.contexteval.claims import Check
from michelangelo.llm.contexteval.retrieval import Passage, Retrieval, Sentence

__all__ = ["extract"]

_PASSAGES: Final = 4
_NEAR_BEST: Final = 0.75
_MIN_COVERAGE: Final = 0.2
_REFERRING: Final = (
    *("this", "these", "that", "those", "it", "they", "such", "he", "she", "here", "otherwise", "however"),
    *("also", "then", "thus", "therefore", "in this case", "if so", "instead", "note"),
)


@dataclass(frozen=True, slots=True)
class _Candidate:
    passage: Passage
    first: int
    """The sentence itself, or the one before it which it refers to."""
    last: int
    value: float


def extract(
    retrieval: Retrieval, passages: Sequence[Passage], *, max_sentences: int = 3
) -> tuple[list[Claim], list[Citation]]:
    """The best sentences in the order of the documents, each a claim with its citation; none where no sentence has
    anything to do with the question. A sentence that refers to the one before ("This …") is quoted with it."""
    candidates = sorted(
        (one for passage in passages[:_PASSAGES] for one in _candidates(passage)),
        key=lambda one: (-one.value, one.passage.chunk, one.last),
    )
    chosen: list[_Candidate] = []
    seen: set[str] = set()
    for one in candidates:
        text = " ".join(_span(one)[2].split())
        near = not chosen or one.value >= _NEAR_BEST * chosen[0].value
        overlaps = any(o.passage is one.passage and o.first <= one.last and one.first <= o.last for o in chosen)
        if near and not overlaps and text not in seen:
            chosen.append(one)
            seen.add(text)
        if len(chosen) == max_sentences:
            break
    best_first = list(dict.fromkeys(one.passage.chunk for one in chosen))
    chosen.sort(key=lambda one: (best_first.index(one.passage.chunk), one.first))
    claims, citations = [], []
    for number, one in enumerate(chosen, start=1):
        start, end, quote = _span(one)
        citations.append(Citation(number, one.passage.document, one.passage.section, start, end, quote))
        claims.append(Claim(_readable(quote, one), (number,), Check(1.0, None, ())))
    return claims, citations


def _candidates(passage: Passage) -> list[_Candidate]:
    found = []
    for number, sentence in enumerate(passage.sentences):
        relevance = sentence.coverage + max(sentence.similarity or 0.0, 0.0)
        if sentence.coverage < _MIN_COVERAGE and (sentence.similarity or 0.0) < 0.5:
            continue
        first = number
        begin = " ".join(sentence.text.split()).lower().lstrip("*-• ")
        if number and begin.startswith(_REFERRING) and not begin.startswith("note that"):
            first = number - 1
        complete = 1.0 if _is_sentence(sentence) else 0.6
        found.append(_Candidate(passage, first, number, complete * relevance * (0.5 + passage.score)))
    return found


def _is_sentence(sentence: Sentence) -> bool:
    return len(sentence.text.split()) >= 5 and sentence.text.rstrip("\"'”’)] ").endswith((".", "!", "?", "。"))


def _span(one: _Candidate) -> tuple[int, int, str]:
    start, end = one.passage.sentences[one.first].start, one.passage.sentences[one.last].end
    return start, end, one.passage.text[start - one.passage.start : end - one.passage.start]


def _readable(quote: str, one: _Candidate) -> str:
    """Prose on one line; code as it stands."""
    return quote if one.passage.kind == "code" else " ".join(quote.split())
