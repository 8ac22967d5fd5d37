"""Does an answer refuse? By the phrases with which models decline, near its beginning; a suite can add its own.

It is a reading of words, and not of intent: a refusal without any of these phrases is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import regex

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks import text as texts
from michelangelo.llm.tracebench.checks.outcome import FieldProblem, Outcome, failed, known, passed

__all__ = ["Refusal", "is_refusal", "refusal"]

_BEGINNING: Final = 300
_PHRASES: Final = regex.compile(
    r"\b(?:"
    r"i(?:['’]m| am) (?:sorry|unable|not able|not comfortable|afraid i)"
    r"|i (?:can(?:['’]t|not| not)|could ?n['’]t|won['’]t|will not|must decline|have to decline|do not feel comfortable)"
    r"|(?:sorry|apologies)[,.]? (?:but )?i\b"
    r"|as an ai\b"
    r"|(?:is|are|goes) (?:beyond|outside) (?:my|the scope)"
    r"|not (?:able|allowed|permitted) to (?:help|assist|answer|provide|share)"
    r"|against my (?:guidelines|programming|policy)"
    r"|not in (?:the )?(?:corpus|context)\b"
    r")",
    flags=regex.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """`expected` True: it must refuse; False: it must not."""

    expected: bool
    patterns: tuple[Any, ...]
    type: str = "refusal"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        try:
            found = is_refusal(answer) or any(texts.matches(p, answer.text) for p in self.patterns)
        except TimeoutError:
            return failed(self.type, f"a pattern took more than {texts.MATCH_SECONDS:g} s: simplify it")
        return passed(self.type, found == self.expected, "does not refuse" if self.expected else "refuses")


def refusal(document: Mapping[str, Any]) -> Refusal:
    """From `expected` and `patterns` (further phrases, as regular expressions)."""
    known(document, "expected", "patterns")
    expected, patterns = document.get("expected", True), document.get("patterns", [])
    if not isinstance(expected, bool):
        raise FieldProblem("expected", "must be true or false")
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise FieldProblem("patterns", "must be a list of regular expressions")
    return Refusal(expected, tuple(texts.compiled(p, f"patterns[{i}]") for i, p in enumerate(patterns)))


def is_refusal(answer: Answer) -> bool:
    """By its first words, or by what the engine gave as the reason to stop."""
    if answer.finish_reason in ("content_filter", "refusal"):
        return True
    return _PHRASES.search(answer.text[:_BEGINNING]) is not None
