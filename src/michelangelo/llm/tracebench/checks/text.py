"""Checks of the text itself: equal to, containing, or matching something.

A pattern that would run for ever on some answer ends after half a second, and the answer counts as not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import regex

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks.outcome import FieldProblem, Outcome, failed, known, passed

__all__ = ["MATCH_SECONDS", "Exact", "Pattern", "compiled", "exact", "matches", "pattern"]

MATCH_SECONDS: Final = 0.5
_MAX_PATTERN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Exact:
    """The text is one of `expected`; or, with `contains`, has one of them in it. Outer white space never counts."""

    expected: tuple[str, ...]
    ignores_case: bool
    contains: bool
    type: str = "exact"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        text = self._folded(answer.text)
        wanted = [self._folded(one) for one in self.expected]
        found = any(one in text for one in wanted) if self.contains else text in wanted
        what = "contains none of" if self.contains else "is not"
        return passed(self.type, found, f"{what} {', '.join(repr(one) for one in self.expected)}")

    def _folded(self, text: str) -> str:
        return text.strip().casefold() if self.ignores_case else text.strip()


@dataclass(frozen=True, slots=True)
class Pattern:
    """The pattern is found in the text; with `forbidden`, it is not."""

    pattern: Any
    source: str
    forbidden: bool
    type: str = "regex"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        try:
            found = matches(self.pattern, answer.text)
        except TimeoutError:
            return failed(self.type, f"{self.source!r} took more than {MATCH_SECONDS:g} s: simplify the pattern")
        what = "matches" if self.forbidden else "does not match"
        return passed(self.type, found != self.forbidden, f"{what} {self.source!r}")


def exact(document: Mapping[str, Any]) -> Exact:
    """From `expected` (a text or several), `ignore_case`, `contains`."""
    known(document, "expected", "ignore_case", "contains")
    given = document.get("expected")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise FieldProblem("expected", "must be a text or a list of texts")
    return Exact(tuple(texts), _flag(document, "ignore_case"), _flag(document, "contains"))


def pattern(document: Mapping[str, Any]) -> Pattern:
    """From `pattern` and `forbidden`."""
    known(document, "pattern", "forbidden")
    source = document.get("pattern")
    if not isinstance(source, str):
        raise FieldProblem("pattern", "must be a regular expression")
    return Pattern(compiled(source, "pattern"), source, _flag(document, "forbidden"))


def compiled(source: str, field: str) -> Any:
    """Raises FieldProblem for what is no regular expression."""
    if len(source) > _MAX_PATTERN:
        raise FieldProblem(field, f"is longer than {_MAX_PATTERN:,} characters")
    try:
        return regex.compile(source)
    except (regex.error, RecursionError, OverflowError) as e:
        raise FieldProblem(field, f"{source[:80]!r} is no regular expression: {e}") from e


def matches(found: Any, text: str) -> bool:
    """Raises TimeoutError after MATCH_SECONDS."""
    return found.search(text, timeout=MATCH_SECONDS) is not None


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise FieldProblem(name, "must be true or false")
    return value
