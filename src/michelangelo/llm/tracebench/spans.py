"""What a GenAI span says: the question, the answer, tokens, time. By the semantic conventions of OpenTelemetry.

Contents are read from `gen_ai.input.messages` and `gen_ai.output.messages`, on the span or on its event
`gen_ai.client.inference.operation.details`; and from what came before those: the events `gen_ai.user.message` and
`gen_ai.choice`, `gen_ai.content.prompt` and `gen_ai.content.completion`, and numbered attributes
(`gen_ai.completion.0.content`). A span without a content says so; nothing is made up.
Source: opentelemetry.io, semantic conventions for generative AI, 1.28 to 1.40.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from michelangelo.llm.tracebench import answers, otlp
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.otlp import Span

__all__ = ["CASE_ATTRIBUTES", "Exchange", "exchange", "is_inference"]

CASE_ATTRIBUTES: Final = ("tracebench.case.id", "test.case.id", "gen_ai.evaluation.case.id")
"""Where a span may name its case."""
_OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content"})
_DETAILS: Final = "gen_ai.client.inference.operation.details"


@dataclass(frozen=True, slots=True)
class Exchange:
    """case: the id that it names; empty: none. question: the last message of the user; None: not recorded. answer:
    without a case yet. problem: why there is no answer in it; empty: there is one."""

    span: str
    case: str
    question: str | None
    answer: Answer
    problem: str


def is_inference(span: Span) -> bool:
    """Whether a model was asked for text: other spans (tools, agents, embeddings) are around such ones."""
    operation = span.attributes.get("gen_ai.operation.name")
    if operation is not None:
        return operation in _OPERATIONS
    return any(name.startswith(("gen_ai.request.", "gen_ai.completion", "gen_ai.output")) for name in span.attributes)


def exchange(span: Span) -> Exchange:
    """What was asked and answered."""
    attributes = dict(span.attributes)
    for event in span.events:
        if event.name == _DETAILS:
            attributes.update(event.attributes)
            if isinstance(event.body, Mapping):
                attributes.update(event.body)
    asked, output = _asked(attributes, span), _output(attributes, span)
    text, calls, reason = output or ("", (), "")
    reasons = attributes.get("gen_ai.response.finish_reasons")
    if not reason and isinstance(reasons, list) and reasons:
        reason = str(reasons[0])
    error = ""
    if span.has_failed or "error.type" in attributes:
        error = span.message or str(attributes.get("error.type", "the span has failed"))
    problem = "" if output is not None or error else "it has no output messages: was the capture of contents on?"
    return Exchange(
        span=span.id,
        case=next((str(attributes[name]) for name in CASE_ATTRIBUTES if attributes.get(name)), ""),
        question=asked,
        answer=Answer(
            case="",
            text=text[: answers.MAX_CHARACTERS],
            finish_reason=reason or "stop",
            error=error,
            prompt_tokens=_count(attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
            output_tokens=_count(attributes, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
            latency_seconds=_seconds(span),
            first_token_seconds=_number(attributes.get("gen_ai.response.time_to_first_chunk")),
            cost_usd=_number(attributes.get("gen_ai.usage.cost")),
            tool_calls=answers.normal_tool_calls(calls),
            is_cut=len(text) > answers.MAX_CHARACTERS,
        ),
        problem=problem,
    )


_Output = tuple[str, Sequence[Mapping[str, Any]], str]


def _output(attributes: Mapping[str, Any], span: Span) -> _Output | None:
    """Text, tool calls and reason to stop of the first choice; None: not recorded."""
    for messages in (
        _messages(attributes.get("gen_ai.output.messages")),
        _messages(attributes.get("gen_ai.completion")),
    ):
        if messages:
            return _message(messages[0])
    for event in span.events:
        given = {**event.attributes, **(event.body if isinstance(event.body, Mapping) else {})}
        if event.name == "gen_ai.choice" and given.get("index", 0) in (0, "0"):
            inner = otlp.parsed(given.get("message", given))
            text, calls, reason = _message(inner if isinstance(inner, Mapping) else {"content": inner})
            return text, calls, str(given.get("finish_reason") or reason)
        if event.name == "gen_ai.content.completion" and (messages := _messages(given.get("gen_ai.completion"))):
            return _message(messages[0])
    return _numbered(attributes)


def _numbered(attributes: Mapping[str, Any]) -> _Output | None:
    prefix = "gen_ai.completion.0."
    if not any(name.startswith(prefix) for name in attributes):
        return None
    calls, number = [], 0
    while f"{prefix}tool_calls.{number}.name" in attributes:
        call = f"{prefix}tool_calls.{number}."
        calls.append({"name": attributes[f"{call}name"], "arguments": attributes.get(f"{call}arguments", {})})
        number += 1
    text = attributes.get(f"{prefix}content") or ""
    return str(text), calls, str(attributes.get(f"{prefix}finish_reason", ""))


def _asked(attributes: Mapping[str, Any], span: Span) -> str | None:
    """The last message of the user."""
    found: list[str] = []
    for name in ("gen_ai.input.messages", "gen_ai.prompt"):
        found += [_message(m)[0] for m in _messages(attributes.get(name)) if m.get("role", "user") == "user"]
    for event in span.events:
        given = {**event.attributes, **(event.body if isinstance(event.body, Mapping) else {})}
        if event.name == "gen_ai.user.message":
            found.append(_message(given)[0])
        elif event.name == "gen_ai.content.prompt":
            found += [_message(m)[0] for m in _messages(given.get("gen_ai.prompt")) if m.get("role", "user") == "user"]
    number = 0
    while f"gen_ai.prompt.{number}.content" in attributes or f"gen_ai.prompt.{number}.role" in attributes:
        if attributes.get(f"gen_ai.prompt.{number}.role", "user") == "user":
            found.append(str(attributes.get(f"gen_ai.prompt.{number}.content") or ""))
        number += 1
    return found[-1] if found else None


def _messages(value: Any) -> list[Mapping[str, Any]]:
    value = otlp.parsed(value)
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) and value:
        return [{"content": value}]
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _message(message: Mapping[str, Any]) -> _Output:
    """A message with `parts`, as now, or with `content` and `tool_calls`, as before."""
    parts = otlp.parsed(message.get("parts", message.get("content")))
    if isinstance(parts, str) or parts is None:
        parts = [{"type": "text", "content": parts or ""}]
    text, calls = [], []
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, Mapping):
            kind = part.get("type", "text")
            if kind in ("text", "output_text", "refusal"):
                text.append(str(part.get("content", part.get("text", "")) or ""))
            elif kind in ("tool_call", "tool_use", "function"):
                calls.append(part)
    given = otlp.parsed(message.get("tool_calls"))
    calls += [call for call in given if isinstance(call, Mapping)] if isinstance(given, list) else []
    return "".join(text), calls, str(message.get("finish_reason") or "")


def _count(attributes: Mapping[str, Any], *names: str) -> int:
    found = next((number for name in names if (number := _number(attributes.get(name))) is not None), 0)
    return max(0, int(found))


def _seconds(span: Span) -> float | None:
    if span.start is None or span.end is None or span.end < span.start:
        return None
    return (span.end - span.start) / 1e9


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
