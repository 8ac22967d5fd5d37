"""What came back for one case, once: the part of a completion or of a span that checks and comparisons look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from michelangelo.llm.scorer.engine import Completion

__all__ = ["MAX_CHARACTERS", "Answer", "from_completion", "from_document", "normal_tool_calls"]

MAX_CHARACTERS: Final = 1_000_000
"""Of one answer's text; what is longer is cut, and said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. repeat: 0, 1, … of its case. error: why there is none; empty: there is one.

    tool_calls: `name` and `arguments` (an object) each. mean_logprob: natural, per token. None: not known.
    """

    case: str
    repeat: int = 0
    text: str = ""
    finish_reason: str = "stop"
    error: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    latency_seconds: float | None = None
    first_token_seconds: float | None = None
    cost_usd: float | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    mean_logprob: float | None = None
    embedding: tuple[float, ...] | None = None
    is_cut: bool = False


def from_completion(completion: Completion, case: str, repeat: int) -> Answer:
    """An engine's completion. Numbers that are not finite count as unknown."""
    timing, logprobs = completion.timing, completion.logprobs
    error = completion.error or ("cancelled by the engine" if completion.finish_reason == "cancelled" else "")
    first = None if timing is None or timing.first_token is None else timing.first_token - timing.submitted
    return Answer(
        case=case,
        repeat=repeat,
        text=_clean(completion.text[:MAX_CHARACTERS]),
        finish_reason=completion.finish_reason,
        error=_clean(error)[:2000],
        prompt_tokens=completion.prompt_tokens,
        output_tokens=completion.output_tokens,
        latency_seconds=None if timing is None else _finite(timing.finished - timing.submitted),
        first_token_seconds=_finite(first),
        cost_usd=_finite(completion.cost_usd),
        tool_calls=normal_tool_calls(completion.tool_calls),
        mean_logprob=_finite(sum(t.logprob for t in logprobs) / len(logprobs)) if logprobs else None,
        is_cut=len(completion.text) > MAX_CHARACTERS,
    )


def from_document(document: Mapping[str, Any]) -> Answer:
    """As a recording holds it. Raises TypeError or ValueError for what is none."""
    fields = dict(document)
    for name in ("latency_seconds", "first_token_seconds", "cost_usd", "mean_logprob"):
        value = fields.get(name)
        fields[name] = None if value is None else float(value)
    fields["tool_calls"] = normal_tool_calls(fields.get("tool_calls") or ())
    embedding = fields.get("embedding")
    fields["embedding"] = None if embedding is None else tuple(float(x) for x in embedding)
    for name in ("case", "text", "error", "finish_reason"):
        if not isinstance(fields.get(name, ""), str):
            raise TypeError(f"{name} must be text")
    return Answer(**fields)


def normal_tool_calls(calls: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """`name` and `arguments` of calls as OpenAI, OpenTelemetry or plain JSON write them."""
    made = []
    for call in calls:
        function = call.get("function")
        inner = function if isinstance(function, Mapping) else call
        arguments = inner.get("arguments", inner.get("input", {}))
        if isinstance(arguments, str):
            try:
                arguments = orjson.loads(arguments or "{}")
            except orjson.JSONDecodeError:
                # Kept as it is, so that a check can say what is wrong with it.
                pass
        made.append({"name": str(inner.get("name", "")), "arguments": arguments})
    return tuple(made)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _clean(text: str) -> str:
    """Half of a surrogate pair is no text that a file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
