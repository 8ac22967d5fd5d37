"""Probes: documents in which one fact is another, and the same questions. The answer must follow what the corpus says.

Of an answerable question's quote one number, name, or negation is changed, wherever the quote stands in the corpus. A
system that answers from memory, from a stale index, or with a span that is off, shows it here. The changed documents
are made; asking them is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from michelangelo.llm.contexteval import questions
from michelangelo.llm.contexteval.answer import Answer
from michelangelo.llm.contexteval.evaluation import faithfulness
from michelangelo.llm.contexteval.questions import Question

__all__ = ["Outcome", "Probe", "Result", "changed", "judge", "plan"]

_Kind: TypeAlias = Literal["number", "name", "negation"]
Outcome: TypeAlias = Literal["followed", "refused", "elsewhere", "stale", "misplaced"]
"""followed: cites the changed fact. refused: gives no answer. elsewhere: cites only other text. stale: says what the
corpus no longer says. misplaced: a citation's span is not what it quotes. The first three are right, the others not."""
_OTHER_NAMES: Final = {
    "TypeError": "BufferError",
    "ValueError": "BufferError",
    "KeyError": "BufferError",
    "True": "False",
    "False": "True",
    "first": "third",
    "last": "second",
    "left": "right",
    "right": "left",
}
_NEGATIONS: Final = (
    (r"\bcannot\b", "can"),
    (r"\bis not\b", "is"),
    (r"\bare not\b", "are"),
    (r"\bdoes not\b", "always does"),
    (r"\bnever\b", "always"),
    (r"\balways\b", "never"),
    (r"\bmust be\b", "must not be"),
    (r"\bis\b", "is not"),
    (r"\bare\b", "are not"),
    (r"\bcan\b", "cannot"),
)


@dataclass(frozen=True, slots=True)
class Probe:
    """A question whose quote was changed from `old` to `new` in the documents named."""

    question: Question
    kind: _Kind
    old: str
    new: str
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a probe."""

    probe: Probe
    outcome: Outcome
    text: str

    @property
    def is_right(self) -> bool:
        return self.outcome in ("followed", "refused", "elsewhere")


def plan(
    asked: Sequence[Question], documents: Mapping[str, str], *, limit: int = 60
) -> tuple[list[Probe], dict[str, str]]:
    """Probes of the answerable questions, in turn of their kinds, and all documents with every change in them.

    documents: texts by name. A quote that overlaps one already changed, or that offers nothing to change, is left out.
    """
    texts = dict(documents)
    taken: list[str] = []
    found: list[Probe] = []
    counts: dict[str, int] = {"number": 0, "name": 0, "negation": 0}
    for question in asked:
        if len(found) == limit:
            break
        quote = question.quotes[0] if question.quotes else ""
        change = changed(quote, prefer=sorted(counts, key=lambda kind: counts[kind])) if quote else None
        key = questions.normalized(quote)
        if change is None or any(key in other or other in key for other in taken):
            continue
        kind, new = change
        where = _replaced(texts, quote, new)
        if where:
            taken += [key, questions.normalized(new)]
            counts[kind] += 1
            found.append(Probe(question, kind, quote, new, where))
    return found, texts


def changed(quote: str, *, prefer: Sequence[str] = ("number", "name", "negation")) -> tuple[_Kind, str] | None:
    """The quote with one fact changed, by the first kind of change that it offers; None: by none."""
    ways: dict[str, Callable[[str], str | None]] = {"number": _number, "name": _name, "negation": _negation}
    for kind in prefer:
        new = ways[kind](quote)
        if new is not None and new != quote:
            return kind, new  # type: ignore[return-value]  # The keys of `ways` are the kinds.
    return None


def judge(probe: Probe, answer: Answer, text_of: Callable[[str], str]) -> Result:
    """text_of: a document's text in the changed corpus."""
    if not answer.is_answered:
        return Result(probe, "refused", answer.text)
    outcome: Outcome = "elsewhere"
    if not all(faithfulness.is_exact(citation, text_of) for citation in answer.citations):
        outcome = "misplaced"
    elif questions.contains(answer.text, probe.old) and not questions.contains(probe.new, probe.old):
        outcome = "stale"
    elif any(questions.contains(citation.quote, probe.new) for citation in answer.citations):
        outcome = "followed"
    return Result(probe, outcome, answer.text)


def _number(quote: str) -> str | None:
    match = re.search(r"\d+(?!.*\d)", quote, flags=re.DOTALL)
    return quote[: match.start()] + str(int(match[0]) + 4) + quote[match.end() :] if match else None


def _name(quote: str) -> str | None:
    pattern = "|".join(rf"\b{re.escape(name)}\b" for name in _OTHER_NAMES)
    match = re.search(pattern, quote)
    return quote[: match.start()] + _OTHER_NAMES[match[0]] + quote[match.end() :] if match else None


def _negation(quote: str) -> str | None:
    for pattern, other in _NEGATIONS:
        if match := re.search(pattern, quote):
            return quote[: match.start()] + other + quote[match.end() :]
    return None


def _replaced(texts: dict[str, str], quote: str, new: str) -> tuple[str, ...]:
    """The names of the documents in which it was replaced: as it stands there, but for the space between the words."""
    pattern = re.compile(r"\s+".join(re.escape(word) for word in quote.split()))
    where = [name for name, text in texts.items() if pattern.search(text)]
    for name in where:
        texts[name] = pattern.sub(lambda _: new, texts[name])
    return tuple(where)
