"""Whether answers say only what their citations say, and cite what is there: claim by claim, span by span.

Nothing here trusts the answer: each span is read again from the corpus. Refusals are no failures, and count for nothing
here; what they cost is coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from michelangelo.llm.contexteval import questions
from michelangelo.llm.contexteval.answer import Answer, Citation
from michelangelo.llm.contexteval.questions import Question

__all__ = ["Faithfulness", "has_quote", "is_exact", "judge"]


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Counts over the answers given. supported: claims that their citation supports. cited: claims with a citation.
    exact: citations whose quote stands in the document at just that place. removed: claims that were generated and
    taken out. with_quote: of `answerable` answered questions, those with a citation that holds the labelled quote, or
    a part of it. problems: one sentence per claim or citation that is wrong."""

    answers: int
    claims: int
    supported: int
    cited: int
    citations: int
    exact: int
    removed: int
    answerable: int
    with_quote: int
    problems: tuple[str, ...]


def judge(answers: Sequence[tuple[Question, Answer]], text_of: Callable[[str], str]) -> Faithfulness:
    """text_of: a document's extracted text by its name; it may raise CorpusError."""
    given = [(question, answer) for question, answer in answers if answer.is_answered]
    claims = [(question, claim) for question, answer in given for claim in answer.claims]
    citations = [(question, citation) for question, answer in given for citation in answer.citations]
    exact = [is_exact(citation, text_of) for _, citation in citations]
    answerable = [(question, answer) for question, answer in given if question.is_answerable]
    problems = [
        f"{question.id}: {claim.text[:80]!r}: {'; '.join(claim.check.problems) or 'no citation'}"
        for question, claim in claims
        if not claim.check.is_supported or not claim.citations
    ]
    problems += [
        f"{question.id}: {citation.document}, characters {citation.start}–{citation.end}, is not what is quoted"
        for (question, citation), fine in zip(citations, exact, strict=True)
        if not fine
    ]
    return Faithfulness(
        answers=len(given),
        claims=len(claims),
        supported=sum(claim.check.is_supported for _, claim in claims),
        cited=sum(bool(claim.citations) for _, claim in claims),
        citations=len(citations),
        exact=sum(exact),
        removed=sum(len(answer.removed) for _, answer in answers),
        answerable=len(answerable),
        with_quote=sum(
            any(has_quote(citation.quote, question) for citation in answer.citations) for question, answer in answerable
        ),
        problems=tuple(problems),
    )


def is_exact(citation: Citation, text_of: Callable[[str], str]) -> bool:
    """Whether the span is there, and reads as it is quoted."""
    return (
        0 <= citation.start < citation.end
        and text_of(citation.document)[citation.start : citation.end] == citation.quote
    )


def has_quote(text: str, question: Question) -> bool:
    """Whether a text holds a labelled quote, or is a part of one that is at least half of it."""
    words = questions.normalized(text)
    return any(
        questions.contains(text, quote)
        or (len(words) * 2 >= len(questions.normalized(quote)) and questions.contains(quote, text))
        for quote in question.quotes
    )
