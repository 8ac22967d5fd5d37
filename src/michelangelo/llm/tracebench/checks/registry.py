"""The ways of judging by name, and their short forms: `{exact: Paris}` is `{type: exact, expected: Paris}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from michelangelo.llm.tracebench.checks import judge, limits, numeric, refusal, similarity, structure, text
from michelangelo.llm.tracebench.checks.outcome import Check, FieldProblem

__all__ = ["FORMAT_TYPES", "TYPES", "document_of", "parse"]

TYPES: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], Check], str]]] = {
    "exact": (text.exact, "expected"),
    "regex": (text.pattern, "pattern"),
    "json_schema": (structure.json_schema, "schema"),
    "numeric": (numeric.numeric, "expected"),
    "similarity": (similarity.similarity, "expected"),
    "judge": (judge.judge, "rubric"),
    "latency": (limits.latency, "max_seconds"),
    "cost": (limits.cost, "max_usd"),
    "refusal": (refusal.refusal, "expected"),
    "tool_calls": (structure.tool_calls, "expected"),
}
"""Per type: what reads it, and the field that its short form gives."""
FORMAT_TYPES: Final = frozenset({"regex", "json_schema", "tool_calls"})
"""Those that look at form: their rate is `format validity`."""


def document_of(given: Any) -> dict[str, Any]:
    """The long form of a check, with `type`. Raises FieldProblem."""
    if not isinstance(given, Mapping) or not given:
        raise FieldProblem("", f"must be a mapping with a type: {', '.join(TYPES)}")
    if "type" in given:
        document = {str(name): value for name, value in given.items()}
    else:
        kind, value = next(iter(given.items()))
        if len(given) > 1 or kind not in TYPES:
            raise FieldProblem("", f"must have a type, one of {', '.join(TYPES)}")
        is_long = isinstance(value, Mapping) and kind != "json_schema"
        document = {"type": kind, **value} if is_long else {"type": kind, TYPES[kind][1]: value}
    if document["type"] not in TYPES:
        raise FieldProblem("type", f"there is no check {document['type']!r}; known: {', '.join(TYPES)}")
    return document


def parse(document: Mapping[str, Any]) -> Check:
    """A check from its long form. Raises FieldProblem."""
    return TYPES[document["type"]][0](document)
