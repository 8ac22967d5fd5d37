"""Requests → what OpenAI's API wants, and its answers → completions. It sends nothing.

Fields are those of https://platform.openai.com/docs/api-reference (completions, chat, embeddings). What vLLM,
SGLang and others add (`top_k`, `ignore_eos`) is sent only where a request asks for it: OpenAI refuses what it does not
know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo.llm.scorer.engine import Completion, FinishReason, Request, TokenLogprob
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig

__all__ = ["Call", "MalformedError", "Usage", "call_of", "completion_of", "error_text", "usage_of"]

_MOST_TOP: Final = 20
"""Alternatives per token that OpenAI's API gives at most, the chosen one included."""
_MESSAGE_TOKENS: Final = 16
"""More than any public chat template puts around a message."""


class MalformedError(ValueError):
    """An answer that says 200 and is not what the API promises."""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST. most_prompt_tokens: an upper bound (a token is a byte or more); likely_prompt_tokens: an estimate."""

    path: str
    body: bytes = field(repr=False)
    streams: bool
    most_prompt_tokens: int
    likely_prompt_tokens: int
    most_output_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """As the server counts. Cached tokens are part of the prompt's."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


def call_of(request: Request, config: HttpEngineConfig) -> Call:
    """Raises ValueError with a sentence, for what this API has no words for."""
    match request.task:
        case "embed":
            return _embedding_call(request, config)
        case "choices":
            return _choices_call(request, config)
        case _:
            is_chat = request.messages is not None or (request.prompt is not None and config.prompts_as_chat)
            return _chat_call(request, config) if is_chat else _text_call(request, config)


def completion_of(request: Request, document: Any) -> Completion:
    """Without times and costs. Raises MalformedError."""
    try:
        match request.task:
            case "embed":
                return _embedding(request, document)
            case "choices":
                return _choices(request, document)
            case _:
                return _generated(request, document)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as e:
        raise MalformedError(f"the answer of the server is not what its API promises ({type(e).__name__}: {e})") from e


def usage_of(document: Any) -> Usage | None:
    """None: the server does not say."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached))


def error_text(document: Any) -> str:
    """What an error answer says, in one line of 400 characters at most."""
    error = document.get("error", document) if isinstance(document, dict) else document
    text = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
    line = " ".join((text if isinstance(text, str) else json.dumps(text, default=str)).split())
    return line if len(line) <= 400 else line[:399] + "…"


def _text_call(request: Request, config: HttpEngineConfig) -> Call:
    if request.tools:
        raise ValueError("tools need a chat: give messages, not a prompt")
    prompt = request.prompt if request.prompt is not None else list(request.token_ids or ())
    body = {"model": config.model, "prompt": prompt, "max_tokens": request.sampling.max_tokens, **_sampling(request)}
    if request.sampling.logprobs is not None:
        body["logprobs"] = min(request.sampling.logprobs + 1, _MOST_TOP)
    return _call("/completions", body, config, request, _weight(request))


def _chat_call(request: Request, config: HttpEngineConfig) -> Call:
    messages = list(request.messages or ({"role": "user", "content": request.prompt},))
    body = {"model": config.model, "messages": messages, **_sampling(request)}
    body[config.max_tokens_field] = request.sampling.max_tokens
    if request.sampling.logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = min(request.sampling.logprobs + 1, _MOST_TOP)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    return _call("/chat/completions", body, config, request, _weight(request))


def _embedding_call(request: Request, config: HttpEngineConfig) -> Call:
    body: dict[str, Any] = {"model": config.model, "encoding_format": "float"}
    if request.messages is not None:
        # Not OpenAI's, but of vLLM: the chat template is the server's to apply.
        body["messages"] = list(request.messages)
    else:
        body["input"] = request.prompt if request.prompt is not None else list(request.token_ids or ())
    return _call("/embeddings", body, config, request, _weight(request))


def _choices_call(request: Request, config: HttpEngineConfig) -> Call:
    if request.prompt is None:
        raise ValueError("choices over HTTP need a prompt: render the chat to text first")
    prompts = [request.prompt + choice for choice in request.choices]
    body = {
        "model": config.model,
        "prompt": prompts,
        "max_tokens": 1,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 1,
    }
    weight = sum(len(prompt.encode("utf-8", "replace")) for prompt in prompts) + len(prompts)
    return _call("/completions", body, config, request, weight)


def _call(path: str, body: dict[str, Any], config: HttpEngineConfig, request: Request, weight: int) -> Call:
    streams = config.streams and request.task == "generate"
    if streams:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    try:
        # A lone surrogate is no text that could be sent; json would write it as an escape that servers refuse oddly.
        encoded = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError("the request holds half of a surrogate pair, which is no text") from e
    except TypeError as e:
        raise ValueError(f"the request holds something that JSON cannot: {e}") from e
    match request.task:
        case "generate":
            output = request.sampling.max_tokens
        case "choices":
            output = len(request.choices)
        case _:
            output = 0
    return Call(path, encoded, streams, weight, weight // 4 + 1, output)


def _sampling(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {"temperature": sampling.temperature}
    if sampling.top_p != 1.0:
        body["top_p"] = sampling.top_p
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.ignores_eos:
        body["ignore_eos"] = True
    if sampling.json_schema is not None:
        schema = {"name": "output", "schema": sampling.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI's form; a bare function is put into it."""
    return tool if "function" in tool else {"type": "function", "function": tool}


def _weight(request: Request) -> int:
    """Bytes of UTF-8 of what becomes the prompt: no tokenizer that works on bytes makes more tokens of it."""
    if request.token_ids is not None:
        return len(request.token_ids)
    if request.prompt is not None:
        return len(request.prompt.encode("utf-8", "replace")) + _MESSAGE_TOKENS
    parts: list[Mapping[str, Any]] = [*(request.messages or ()), *request.tools]
    return sum(len(json.dumps(part, default=str, ensure_ascii=False).encode("utf-8", "replace")) for part in parts) + (
        _MESSAGE_TOKENS * (len(parts) + 1)
    )


def _generated(request: Request, document: Any) -> Completion:
    choice = document["choices"][0]
    message = choice.get("message")
    text = (message.get("content") if message is not None else choice["text"]) or ""
    if not isinstance(text, str):
        raise TypeError("the text is no text")
    usage = usage_of(document) or Usage()
    reason = str(choice.get("finish_reason"))
    finish: FinishReason = "length" if reason == "length" else "stop"
    places = [place for stop in request.sampling.stop if (place := text.find(stop)) >= 0]
    details = {name: document[name] for name in ("model", "system_fingerprint") if document.get(name)}
    if message is not None:
        details |= {name: message[name] for name in ("refusal", "reasoning_content") if message.get(name)}
    error = "the server's content filter ended the answer" if reason == "content_filter" else None
    return Completion(
        request.id,
        text=text[: min(places)] if places else text,
        finish_reason="error" if error else "stop" if places else finish,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        logprobs=None if request.sampling.logprobs is None else _logprobs(choice, request.sampling.logprobs),
        tool_calls=tuple(message.get("tool_calls") or ()) if message is not None else (),
        error=error,
        details=details,
    )


def _logprobs(choice: Mapping[str, Any], count: int) -> tuple[TokenLogprob, ...]:
    given = choice.get("logprobs")
    if not given:
        raise ValueError("it has no logprobs, which were asked for")
    found = []
    if isinstance(given.get("content"), list):
        for item in given["content"]:
            others = [(top["token"], float(top["logprob"])) for top in item.get("top_logprobs") or ()]
            found.append(_logprob(item["token"], float(item["logprob"]), others, count))
    else:
        tops: Sequence[Any] = given.get("top_logprobs") or [None] * len(given["tokens"])
        for token, value, top in zip(given["tokens"], given["token_logprobs"], tops, strict=True):
            found.append(_logprob(token, float(value), list((top or {}).items()), count))
    return tuple(found)


def _logprob(token: str, value: float, others: Sequence[tuple[str, float]], count: int) -> TokenLogprob:
    top = sorted(((other, logprob) for other, logprob in others if other != token), key=lambda pair: -pair[1])
    return TokenLogprob(token, value, tuple(top[:count]))


def _embedding(request: Request, document: Any) -> Completion:
    values = [float(value) for value in document["data"][0]["embedding"]]
    length = math.sqrt(math.fsum(value * value for value in values))
    if not values or not 0.0 < length < math.inf:
        raise ValueError("the embedding is no direction")
    usage = usage_of(document) or Usage()
    return Completion(
        request.id, prompt_tokens=usage.prompt_tokens, embedding=tuple(value / length for value in values)
    )


def _choices(request: Request, document: Any) -> Completion:
    """Each choice's tokens are those that end after the prompt does, but for the one that was made beyond the echo."""
    given = document["choices"]
    by_index = {item.get("index", number): item for number, item in enumerate(given)}
    sums, counts = [], []
    begin = len(request.prompt or "")
    for number, choice in enumerate(request.choices):
        logprobs = by_index[number]["logprobs"]
        end = begin + len(choice)
        values = []
        offsets = [*logprobs["text_offset"], None]
        for place, value in enumerate(logprobs["token_logprobs"]):
            start = offsets[place]
            following = offsets[place + 1]
            stop = following if following is not None else start + len(logprobs["tokens"][place])
            if stop > begin and start < end:
                if value is None:
                    raise ValueError("the first token of a choice has no probability: the prompt must not be empty")
                values.append(float(value))
        if not values:
            raise ValueError("the server does not repeat the prompt (echo), so it cannot score choices")
        sums.append(math.fsum(values))
        counts.append(len(values))
    usage = usage_of(document) or Usage()
    return Completion(
        request.id,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        choice_logprobs=tuple(sums),
        choice_tokens=tuple(counts),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
