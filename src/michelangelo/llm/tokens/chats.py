"""Tokens of a conversation with tools: the messages, and what the vendor's format puts around them.

OpenAI's format is not published as text; its cookbook gives the numbers ("How to count tokens with tiktoken"). Llama's
and Mistral's formats are (llama-models: prompt formats; mistral-common: tokenizers/instruct). Where a part is not
published, the count says that it is an estimate. Images in messages are counted by `images`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.tokens import images, tokenizers
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.tokenizers import Tokenizer

__all__ = ["count", "faults"]

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_IMAGES: Final = ("image", "image_url", "input_image")
_PER_MESSAGE: Final = 3
_PER_NAME: Final = 1
_REPLY: Final = 3
"""OpenAI cookbook, all models since gpt-3.5-turbo-0613."""
_FUNCTION: Final = {"o200k_base": 7, "cl100k_base": 10}
_PROPERTIES, _PROPERTY, _ENUM, _ENUM_ITEM, _FUNCTIONS_END = 3, 3, -3, 3, 12
"""OpenAI cookbook, num_tokens_for_tools."""
_ANTHROPIC_TOOLS: Final = 346
"""docs.anthropic.com, "Tool use" pricing: the system prompt that tools add with tool_choice auto, Claude 4 models."""
_ANTHROPIC_MESSAGE: Final = 4
"""Assumed: turn marks of Claude's format, which is not published."""


def count(
    messages: Sequence[Mapping[str, Any]],
    model: str,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    tokenizer: str = "",
) -> Count:
    """Tokens of the prompt, up to where the answer begins. Raises PricingError with all that is wrong in it."""
    if wrong := faults(messages, tools):
        raise errors.PricingError("messages that cannot be: " + "; ".join(wrong[:10]))
    chosen = tokenizers.for_model(model, tokenizer=tokenizer)
    # Every format is counted in the tokens of the vocabulary; an estimate widens the whole.
    exact = replace(chosen, is_exact=True)
    formats = {"openai": _openai, "llama": _llama, "mistral": _mistral}
    total, is_exact = formats.get(chosen.vendor, _other)(messages, tools, exact)
    pictures = sum(_pictures(message, model) for message in messages)
    texts = "".join(_text(message) for message in messages)
    low, middle, high = (1.0, 1.0, 1.0) if chosen.is_exact else tokenizers.ratios(texts)
    return Count(
        round(total * middle) + pictures,
        int(total * low) + pictures,
        -int(-total * high // 1) + pictures,
        chosen.is_exact and is_exact,
        chosen.name,
        len(texts),
    )


def _openai(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], by: Tokenizer
) -> tuple[int, bool]:
    total = _REPLY
    has_calls = False
    for message in messages:
        total += _PER_MESSAGE + by.count_exact(str(message["role"])) + by.count_exact(_text(message))
        if message.get("name"):
            total += _PER_NAME + by.count_exact(str(message["name"]))
        if message.get("tool_calls"):
            has_calls = True
            total += sum(_PER_MESSAGE + by.count_exact(_compact(call)) for call in message["tool_calls"])
    if tools:
        total += _FUNCTIONS_END + sum(_openai_function(_function(tool), by) for tool in tools)
    # The cookbook's rule for functions agrees with the API on plain ones; nested schemas are not covered by it.
    return total, not has_calls and all(_is_flat(_function(tool)) for tool in tools)


def _openai_function(function: Mapping[str, Any], by: Tokenizer) -> int:
    description = str(function.get("description") or "").removesuffix(".")
    total = _FUNCTION.get(by.name, 7) + by.count_exact(f"{function['name']}:{description}")
    properties = (function.get("parameters") or {}).get("properties") or {}
    if properties:
        total += _PROPERTIES
    for key, schema in properties.items():
        total += _PROPERTY
        if schema.get("enum"):
            total += _ENUM + sum(_ENUM_ITEM + by.count_exact(str(item)) for item in schema["enum"])
        said = str(schema.get("description") or "").removesuffix(".")
        total += by.count_exact(f"{key}:{schema.get('type', '')}:{said}")
        if not _is_flat_schema(schema):
            total += by.count_exact(_compact(schema))
    return total


def _llama(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], by: Tokenizer
) -> tuple[int, bool]:
    """<begin> (<header> role <end of header> \\n\\n text <end of turn>)… <header> assistant <end of header> \\n\\n"""
    head = 2 + by.count_exact("\n\n")
    total = 1 + head + by.count_exact("assistant")
    for message in messages:
        text = "\n\n" + _text(message).strip() + "".join(_compact(call) for call in message.get("tool_calls") or ())
        total += 2 + by.count_exact(str(message["role"])) + by.count_exact(text) + 1
    total += sum(by.count_exact(json.dumps(tool, indent=4) + "\n\n") for tool in tools)
    return total, not tools and not any(message.get("tool_calls") for message in messages)


def _mistral(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], by: Tokenizer
) -> tuple[int, bool]:
    """<s> then [INST] user [/INST] answer </s>; a system prompt stands before the last user's text (v3)."""
    system = "\n\n".join(_text(message) for message in messages if message["role"] in ("system", "developer"))
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    total = 1
    for index, message in enumerate(messages):
        text = _text(message)
        if message["role"] == "user":
            prefix = f"{system}\n\n" if system and index == users[-1] else ""
            total += 2 + by.count_exact(prefix + text)
        elif message["role"] in ("assistant", "tool", "function"):
            calls = "".join(_compact(call) for call in message.get("tool_calls") or ())
            total += 1 + by.count_exact(text + calls) + (message["role"] != "assistant")
    if tools:
        total += 2 + by.count_exact(json.dumps(list(tools), ensure_ascii=False))
    plain = all(message["role"] in ("system", "user", "assistant") for message in messages)
    return total, plain and not tools and bool(users) and by.name == "tekken_240718"


def _other(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], by: Tokenizer
) -> tuple[int, bool]:
    total = 0
    for message in messages:
        calls = "".join(_compact(call) for call in message.get("tool_calls") or ())
        total += _ANTHROPIC_MESSAGE + by.count_exact(_text(message) + calls)
    if tools:
        total += sum(by.count_exact(_compact(tool)) for tool in tools)
        total += _ANTHROPIC_TOOLS if by.vendor == "anthropic" else 0
    return total, False


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content or () if isinstance(part, Mapping))


def _pictures(message: Mapping[str, Any], model: str) -> int:
    """Parts {"type": "image", "size": "WxH"} or {"type": "image", "path": FILE}, each with a detail if wanted."""
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return 0
    total = 0
    for part in content:
        if part.get("type") in _IMAGES:
            place = str(part.get("size") or part.get("path"))
            total += images.count(model, *images.size_of(place), detail=part.get("detail", "high"))
    return total


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tool.get("function", tool)
    return found


def _is_flat(function: Mapping[str, Any]) -> bool:
    properties = (function.get("parameters") or {}).get("properties") or {}
    return all(_is_flat_schema(schema) for schema in properties.values())


def _is_flat_schema(schema: Mapping[str, Any]) -> bool:
    return not {"properties", "items", "anyOf", "oneOf", "allOf", "$ref"} & set(schema)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def faults(messages: Any, tools: Any = ()) -> list[str]:
    """All that is wrong in them; nothing: they can be counted."""
    if not isinstance(messages, list | tuple) or not isinstance(tools, list | tuple):
        return ["messages and tools are lists"]
    made = [] if messages else ["none are given"]
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            made.append(f"[{index}] is no object")
            continue
        if message.get("role") not in _ROLES:
            made.append(f"[{index}].role: {message.get('role')!r} is none of {', '.join(_ROLES)}")
        content = message.get("content")
        if isinstance(content, list):
            made += [f"[{index}].content[{i}]: {fault}" for i, part in enumerate(content) if (fault := _fault(part))]
        elif content is not None and not isinstance(content, str):
            made.append(f"[{index}].content: neither text nor a list of parts")
        if not isinstance(message.get("tool_calls") or [], list):
            made.append(f"[{index}].tool_calls: no list")
    for index, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            made.append(f"tools[{index}].name: missing")
            continue
        schema = function.get("parameters") or {}
        properties = (schema.get("properties") or {}) if isinstance(schema, Mapping) else None
        if not isinstance(properties, Mapping) or not all(isinstance(p, Mapping) for p in properties.values()):
            made.append(f"tools[{index}].parameters: no JSON schema of an object")
    return made


def _fault(part: Any) -> str:
    if not isinstance(part, Mapping):
        return "no object"
    if part.get("type") in _IMAGES:
        place = part.get("size") or part.get("path")
        if not isinstance(place, str):
            return 'an image without its size: add "size": "1024x768" or a "path"'
        try:
            images.size_of(place)
        except errors.PricingError as e:
            return e.message
    return ""
