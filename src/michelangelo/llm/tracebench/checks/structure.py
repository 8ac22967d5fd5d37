"""Checks of structure: JSON of a schema, and calls of tools with their arguments.

Schemas are not fetched from anywhere, and their patterns are bounded in time like those of the suite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jsonschema
import jsonschema.validators
import jsonschema_specifications
import orjson
import referencing.exceptions
import regex

from michelangelo.llm.scorer.engine import Completion, Request
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks import text as texts
from michelangelo.llm.tracebench.checks.outcome import FieldProblem, Outcome, failed, known, passed

__all__ = ["JsonSchema", "ToolCalls", "json_of", "json_schema", "tool_calls"]

_FENCE: Final = regex.compile(r"```(?:json)?\s*\n(.*?)\n?```", flags=regex.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The whole text is a JSON document of the schema; with `extracts`, one in a code fence will do."""

    validator: Any
    extracts: bool
    type: str = "json_schema"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        try:
            value = json_of(answer.text, extracts=self.extracts)
        except ValueError as e:
            return passed(self.type, False, f"is no JSON: {e}")
        try:
            problem = next(self.validator.iter_errors(value), None)
        except referencing.exceptions.Unresolvable as e:
            return failed(self.type, f"the schema refers to what is not in it: {e}")
        except (RecursionError, TimeoutError) as e:
            return failed(self.type, f"the schema could not be applied: {type(e).__name__}")
        if problem is None:
            return passed(self.type, True)
        return passed(self.type, False, f"{problem.json_path}: {problem.message}")


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """The tools that were called, with at least the arguments that are named (`exact`: those and no others).

    Score: the share of expected calls that were made; passed when all were, and, unless `allows_more`, no others.
    """

    expected: tuple[Mapping[str, Any], ...]
    exact: bool
    ordered: bool
    allows_more: bool
    type: str = "tool_calls"
    engine: str = ""

    def requests(self, answer: Answer, question: str) -> Sequence[Request]:
        return ()

    def decide(self, answer: Answer, completions: Sequence[Completion]) -> Outcome:
        left = list(answer.tool_calls)
        missing = []
        place = 0
        for wanted in self.expected:
            start = place if self.ordered else 0
            found = next((i for i in range(start, len(left)) if self._fits(left[i], wanted)), None)
            if found is None:
                missing.append(wanted)
            else:
                left.pop(found)
                place = found
        score = 1 - len(missing) / len(self.expected) if self.expected else float(not left)
        is_right = not missing and (self.allows_more or not left)
        detail = ""
        if not is_right:
            shown = ", ".join(
                f"{call['name']}({orjson.dumps(call['arguments']).decode()})" for call in answer.tool_calls
            )
            wanted_names = ", ".join(str(call["name"]) for call in missing) or "no further call"
            detail = f"wanted {wanted_names}; called {shown or 'nothing'}"[:500]
        return Outcome(self.type, is_right, score if is_right or score < 1 else 0.5, detail, is_graded=True)

    def _fits(self, call: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        if call["name"] != wanted["name"]:
            return False
        arguments, expected = call["arguments"], wanted.get("arguments", {})
        if self.exact and "arguments" in wanted:
            return bool(arguments == expected)
        return isinstance(arguments, Mapping) and all(
            name in arguments and arguments[name] == value for name, value in expected.items()
        )


def json_schema(document: Mapping[str, Any]) -> JsonSchema:
    """From `schema` and `extract`."""
    known(document, "schema", "extract")
    schema = document.get("schema")
    if not isinstance(schema, Mapping | bool):
        raise FieldProblem("schema", "must be a JSON schema")
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        cls.check_schema(schema)
    except jsonschema.SchemaError as e:
        raise FieldProblem("schema", f"is no JSON schema: {e.json_path}: {e.message}"[:500]) from e
    except RecursionError as e:
        raise FieldProblem("schema", "is nested too deeply") from e
    for source in _patterns(schema):
        texts.compiled(source, "schema")
    bounded = jsonschema.validators.extend(cls, {"pattern": _pattern, "patternProperties": _pattern_properties})
    extracts = document.get("extract", False)
    if not isinstance(extracts, bool):
        raise FieldProblem("extract", "must be true or false")
    return JsonSchema(bounded(schema, registry=jsonschema_specifications.REGISTRY), extracts)


def tool_calls(document: Mapping[str, Any]) -> ToolCalls:
    """From `expected` (a list of name and arguments; empty: none may be called), `exact`, `ordered`, `allow_more`."""
    known(document, "expected", "exact", "ordered", "allow_more")
    expected = document.get("expected")
    if not isinstance(expected, list):
        raise FieldProblem("expected", "must be a list of calls, each with a name and maybe arguments")
    for number, call in enumerate(expected):
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str) or set(call) - {"name", "arguments"}:
            raise FieldProblem(f"expected[{number}]", "must have a name, and maybe arguments, and nothing else")
        if not isinstance(call.get("arguments", {}), Mapping):
            raise FieldProblem(f"expected[{number}].arguments", "must be a mapping")
    flags = [document.get(name, False) for name in ("exact", "ordered", "allow_more")]
    for name, flag in zip(("exact", "ordered", "allow_more"), flags, strict=True):
        if not isinstance(flag, bool):
            raise FieldProblem(name, "must be true or false")
    return ToolCalls(tuple(expected), flags[0], flags[1], flags[2])


def json_of(text: str, *, extracts: bool) -> Any:
    """The JSON document of a text. Raises ValueError."""
    if extracts and (found := _FENCE.search(text)) is not None:
        text = found[1]
    return orjson.loads(text)


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), Mapping):
            yield from (str(key) for key in schema["patternProperties"])
        for value in schema.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _patterns(value)


def _pattern(validator: Any, source: str, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not texts.matches(regex.compile(source), instance):
        yield jsonschema.ValidationError(f"{instance[:200]!r} does not match {source!r}")


def _pattern_properties(validator: Any, sources: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, Mapping):
        return
    for source, inner in sources.items():
        compiled = regex.compile(source)
        for key, value in instance.items():
            if texts.matches(compiled, key):
                yield from validator.descend(value, inner, path=key, schema_path=source)
