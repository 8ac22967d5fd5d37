"""What a check is, and what it says: passed or not, a score from 0 to 1, and why.

A check that needs a model does not call it: it names the requests, so that those of all answers run as one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer

__all__ = ["Check", "FieldProblem", "Outcome", "failed", "known", "passed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """score: 1 or 0 for checks that only pass or fail (`is_graded` False). error: `engine` (there was no answer) or
    `check` (it could not be judged); both count as failed, and are counted by themselves."""

    type: str
    passed: bool
    score: float
    detail: str = ""
    error: str = ""
    is_graded: bool = False


class FieldProblem(ValueError):
    """A wrong field of a check; `field` is empty when the whole is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class Check(Protocol):
    """One way of judging. engine: which engine answers `requests` (`embedder`, or a judge's name); empty: none."""

    @property
    def type(self) -> str: ...

    @property
    def engine(self) -> str: ...

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        """What to ask a model, ids left empty."""

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        """The outcome, given what came of the requests, in their order."""


def passed(kind: str, condition: bool, detail: str = "") -> Outcome:
    """Of a check without grades; `detail` says why it failed."""
    return Outcome(kind, condition, 1.0 if condition else 0.0, "" if condition else detail[:500])


def failed(kind: str, detail: str, *, error: str = "check") -> Outcome:
    """Of an answer that could not be judged."""
    return Outcome(kind, False, 0.0, detail[:500], error)


def known(document: Mapping[str, Any], *names: str) -> None:
    """Raises FieldProblem for a field that is not among `names`."""
    for name in document:
        if name != "type" and name not in names:
            raise FieldProblem(str(name), f"there is no such field; known: {', '.join(names)}")
