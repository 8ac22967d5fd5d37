"""OpenAI's batch format: a line of the input → a request, and a completion → a line of the output.

`{"custom_id", "method", "url", "body"}` in, `{"id", "custom_id", "response", "error"}` out, for chat completions,
completions and embeddings. Parameters of the body that would change the answer and cannot be obeyed make the row fail.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from michelangelo.llm.scorer.engine import Completion, Request, Sampling
from michelangelo.llm.scorer.row_error import RowError

__all__ = ["BatchRequest", "failed_line", "line_of", "request_of"]

_CHAT: Final = "/v1/chat/completions"
_TEXT: Final = "/v1/completions"
_EMBED: Final = "/v1/embeddings"
_HARMLESS: Final = frozenset(
    {"model", "user", "metadata", "store", "service_tier", "stream_options", "parallel_tool_calls", "tool_choice"}
    | {"safety_identifier", "prompt_cache_key", "encoding_format"}
)
"""They change who pays or what is logged, or (tool_choice auto) nothing."""
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "stream": (False,),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "logit_bias": ({},),
    "suffix": ("",),
}
"""Obeyed in so far as they have these values."""
_SAMPLING: Final = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop", "logprobs"}
    | {"top_logprobs", "response_format"}
)
_OWN: Final[Mapping[str, frozenset[str]]] = {
    _CHAT: frozenset({"messages", "tools"}) | _SAMPLING,
    _TEXT: frozenset({"prompt"}) | _SAMPLING,
    _EMBED: frozenset({"input"}),
}


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request without its id."""

    custom_id: str
    request: Request
    facts: Mapping[str, Any]
    """`url`, and of the body `model` and `encoding_format`."""


def request_of(row: Mapping[str, Any], base: Sampling) -> BatchRequest:
    """Raises RowError with all that is wrong with the row."""
    wrong = []
    custom_id, url, body = row.get("custom_id"), row.get("url"), row.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        wrong.append("custom_id is missing or no text")
    if row.get("method", "POST") != "POST":
        wrong.append("method must be POST")
    if url not in _OWN:
        wrong.append(f"url must be one of {', '.join(_OWN)}")
    if not isinstance(body, Mapping):
        wrong.append("body is missing or no object")
    elif isinstance(url, str) and url in _OWN:
        wrong += _refused(body, _OWN[url])
    if wrong or not isinstance(body, Mapping):
        raise RowError("; ".join(wrong))
    facts = {"url": url, "model": body.get("model", ""), "encoding_format": body.get("encoding_format", "float")}
    if url == _EMBED:
        text = body.get("input")
        if not isinstance(text, str):
            raise RowError("body.input: must be one text")
        return BatchRequest(str(custom_id), Request("", prompt=text, task="embed"), facts)
    sampling = _sampling(body, base, is_chat=url == _CHAT)
    if url == _TEXT:
        if not isinstance(body.get("prompt"), str):
            raise RowError("body.prompt: must be one text")
        return BatchRequest(str(custom_id), Request("", prompt=body["prompt"], sampling=sampling), facts)
    messages, tools = body.get("messages"), body.get("tools") or ()
    if not isinstance(messages, list) or not messages or not all(isinstance(one, Mapping) for one in messages):
        raise RowError("body.messages: must be a list of messages")
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise RowError("body.tools: must be a list of tools")
    request = Request("", messages=tuple(messages), sampling=sampling, tools=tuple(tools))
    return BatchRequest(str(custom_id), request, facts)


def line_of(row: int, custom_id: Any, facts: Mapping[str, Any], completion: Completion) -> dict[str, Any]:
    """The same for the same completion, whenever and wherever: `created` is 0."""
    bodies = {_CHAT: _chat_body, _TEXT: _text_body, _EMBED: _embed_body}
    body = {"id": _name(row), "created": 0, "model": facts["model"], **bodies[facts["url"]](facts, completion)}
    response = {"status_code": 200, "request_id": _name(row), "body": body}
    return {"id": _name(row), "custom_id": custom_id, "response": response, "error": None}


def failed_line(row: int, custom_id: Any, error: str) -> dict[str, Any]:
    return {
        "id": _name(row),
        "custom_id": custom_id,
        "response": None,
        "error": {"code": "row_failed", "message": error},
    }


def _name(row: int) -> str:
    return f"batch_req_{row:012d}"


def _refused(body: Mapping[str, Any], own: frozenset[str]) -> list[str]:
    wrong = []
    for name, value in body.items():
        if name in own or name in _HARMLESS or value is None:
            continue
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                wrong.append(f"body.{name}: {value!r} is not supported")
        else:
            wrong.append(f"body.{name}: is not supported")
    if body.get("tool_choice", "auto") not in ("auto", None):
        wrong.append("body.tool_choice: only auto is supported")
    return wrong


def _sampling(body: Mapping[str, Any], base: Sampling, *, is_chat: bool) -> Sampling:
    changes: dict[str, Any] = {}
    wrong: list[str] = []
    _number(body, ("max_completion_tokens", "max_tokens"), "max_tokens", (int, 1, 1 << 31), changes, wrong)
    _number(body, ("temperature",), "temperature", (float, 0, 100), changes, wrong)
    _number(body, ("top_p",), "top_p", (float, 0, 1), changes, wrong)
    _number(body, ("top_k",), "top_k", (int, 0, 1 << 31), changes, wrong)
    _number(body, ("seed",), "seed", (int, -(1 << 63), 1 << 63), changes, wrong)
    stop = body.get("stop")
    if stop is not None:
        stops = [stop] if isinstance(stop, str) else stop
        if isinstance(stops, list) and all(isinstance(one, str) and one for one in stops):
            changes["stop"] = tuple(stops)
        else:
            wrong.append("body.stop: must be a text or a list of texts")
    if is_chat:
        if body.get("logprobs"):
            _number(body, ("top_logprobs",), "logprobs", (int, 0, 100), changes, wrong)
            changes.setdefault("logprobs", 0)
    else:
        _number(body, ("logprobs",), "logprobs", (int, 0, 100), changes, wrong)
    try:
        if (schema := _schema(body.get("response_format"))) is not None:
            changes["json_schema"] = schema
    except ValueError as e:
        wrong.append(f"body.response_format: {e}")
    if wrong:
        raise RowError("; ".join(wrong))
    return replace(base, **changes)


def _number(
    body: Mapping[str, Any],
    names: Sequence[str],
    target: str,
    bounds: tuple[type, float, float],
    changes: dict[str, Any],
    wrong: list[str],
) -> None:
    kind, low, high = bounds
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        fits = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
        if fits and low <= value <= high:
            changes[target] = kind(value)
        else:
            wrong.append(f"body.{name}: {value!r} is no number from {low:g} to {high:g}")
        return


def _schema(value: Any) -> Mapping[str, Any] | None:
    """Raises ValueError."""
    if value is None or (isinstance(value, Mapping) and value.get("type") == "text"):
        return None
    if not isinstance(value, Mapping):
        raise ValueError("must be an object")
    if value.get("type") == "json_object":
        return {"type": "object"}
    schema = value.get("json_schema")
    found = schema.get("schema") if isinstance(schema, Mapping) else None
    if value.get("type") != "json_schema" or not isinstance(found, Mapping):
        raise ValueError("must be text, json_object, or json_schema with json_schema.schema")
    return found


def _usage(completion: Completion) -> dict[str, Any]:
    total = completion.prompt_tokens + completion.output_tokens
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": total,
    }


def _chat_body(facts: Mapping[str, Any], completion: Completion) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    reason: str = completion.finish_reason
    if completion.tool_calls:
        message |= {"content": completion.text or None, "tool_calls": [dict(call) for call in completion.tool_calls]}
        reason = "tool_calls"
    logprobs = None
    if completion.logprobs is not None:
        content = [
            {
                "token": one.token,
                "logprob": one.logprob,
                "top_logprobs": [{"token": token, "logprob": value} for token, value in one.top],
            }
            for one in completion.logprobs
        ]
        logprobs = {"content": content}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
    return {"object": "chat.completion", "choices": [choice], "usage": _usage(completion)}


def _text_body(facts: Mapping[str, Any], completion: Completion) -> dict[str, Any]:
    logprobs = None
    if completion.logprobs is not None:
        logprobs = {
            "tokens": [one.token for one in completion.logprobs],
            "token_logprobs": [one.logprob for one in completion.logprobs],
            "top_logprobs": [dict(one.top) for one in completion.logprobs],
        }
    choice = {"index": 0, "text": completion.text, "logprobs": logprobs, "finish_reason": completion.finish_reason}
    return {"object": "text_completion", "choices": [choice], "usage": _usage(completion)}


def _embed_body(facts: Mapping[str, Any], completion: Completion) -> dict[str, Any]:
    vector = completion.embedding or ()
    value: Any = list(vector)
    if facts["encoding_format"] == "base64":
        value = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    usage = {"prompt_tokens": completion.prompt_tokens, "total_tokens": completion.prompt_tokens}
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": value}],
        "usage": usage,
    }
