"""A raw row → the text, prompt, conversation or preference that it holds, or why it holds none.

It knows field names, not tokens. A row that cannot be used raises RowError, which the stream counts; it never ends a
run by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from michelangelo import errors
from michelangelo.llm.finetune.config import DataConfig
from michelangelo.llm.finetune.data.rows import Row
from michelangelo.llm.training_setup import Objective

__all__ = ["Chat", "Content", "Preference", "Prompted", "RowError", "Text", "parse"]


class RowError(errors.DatasetError):
    """One row cannot be used; the message is the reason, without the place."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Prompted:
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages for a chat template. Those before `num_given` are context, whoever said them."""

    messages: tuple[Mapping[str, Any], ...]
    num_given: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    chosen: Prompted | Chat
    rejected: Prompted | Chat


Content: TypeAlias = Text | Prompted | Chat | Preference


def parse(row: Row, config: DataConfig, objective: Objective) -> Content:
    """What is in a row. Raises RowError."""
    fields = _fields(row, config)
    if objective == "pretrain":
        return Text(_text(fields, config.text_field, may_be_empty=False))
    if objective == "dpo":
        return _preference(fields, config)
    if fields.get(config.messages_field) is not None:
        return _chat(_messages(fields, config.messages_field), 0, fields, config)
    if fields.get(config.prompt_field) is not None or fields.get(config.completion_field) is not None:
        return _answer(fields, config.prompt_field, config.completion_field, config)
    if fields.get(config.text_field) is not None:
        return Text(_text(fields, config.text_field, may_be_empty=False))
    wanted = f"{config.messages_field}, {config.prompt_field} with {config.completion_field}, or {config.text_field}"
    raise RowError(f"the row has no {wanted}; it has {_names(fields)}")


def _fields(row: Row, config: DataConfig) -> Mapping[str, Any]:
    if isinstance(row.data, Mapping):
        if row.form == "damaged":
            raise RowError(str(row.data["reason"]))
        return row.data
    if row.form == "text":
        return {config.text_field: _decoded(row.data)}
    if not row.data.strip():
        raise RowError("the line is empty")
    try:
        value = orjson.loads(row.data)
    except orjson.JSONDecodeError as e:
        _decoded(row.data)
        if row.line == 1 and row.data.lstrip().startswith(b"["):
            raise RowError("a JSON array instead of one object per line") from e
        raise RowError(f"malformed JSON: {e}") from e
    if not isinstance(value, dict):
        raise RowError(f"the line is {_kind(value)} instead of a JSON object")
    return value


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise RowError(f"invalid UTF-8 at byte {e.start} of the line") from e


def _text(fields: Mapping[str, Any], name: str, *, may_be_empty: bool) -> str:
    value = fields.get(name)
    if value is None:
        raise RowError(f"there is no field {name}; the row has {_names(fields)}")
    return _checked(value, name, may_be_empty=may_be_empty)


def _checked(value: Any, name: str, *, may_be_empty: bool) -> str:
    if not isinstance(value, str):
        raise RowError(f"{name} is {_kind(value)} instead of text")
    if not may_be_empty and not value.strip():
        raise RowError(f"{name} is empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise RowError(f"{name} has half a surrogate pair at character {e.start}") from e
    return value


def _answer(fields: Mapping[str, Any], prompt: str, answer: str, config: DataConfig) -> Prompted | Chat:
    """A prompt and its answer, both as text or both as messages; messages may also be the whole conversation."""
    if isinstance(fields.get(answer), list | tuple):
        said = _messages(fields, answer)
        asked = fields.get(prompt)
        if isinstance(asked, str):
            given: tuple[Mapping[str, Any], ...] = (
                {"role": "user", "content": _checked(asked, prompt, may_be_empty=False)},
            )
        else:
            given = _messages(fields, prompt) if asked else ()
        return _chat((*given, *said), len(given), fields, config)
    if isinstance(fields.get(prompt), list | tuple):
        given = _messages(fields, prompt)
        said = ({"role": "assistant", "content": _text(fields, answer, may_be_empty=False)},)
        return _chat((*given, *said), len(given), fields, config)
    return Prompted(_text(fields, prompt, may_be_empty=True), _text(fields, answer, may_be_empty=False))


def _preference(fields: Mapping[str, Any], config: DataConfig) -> Preference:
    chosen = _answer(fields, config.prompt_field, config.chosen_field, config)
    rejected = _answer(fields, config.prompt_field, config.rejected_field, config)
    if type(chosen) is not type(rejected):
        raise RowError(f"{config.chosen_field} is text and {config.rejected_field} messages, or the other way round")
    if isinstance(chosen, Chat) and isinstance(rejected, Chat) and not chosen.num_given:
        chosen, rejected = _with_shared_context(chosen, rejected)
    if chosen == rejected:
        raise RowError(f"{config.chosen_field} and {config.rejected_field} are the same")
    return Preference(chosen, rejected)


def _with_shared_context(chosen: Chat, rejected: Chat) -> tuple[Chat, Chat]:
    """Whole conversations: what both begin with is the prompt."""
    shared = 0
    for one, other in zip(chosen.messages, rejected.messages, strict=False):
        if one != other:
            break
        shared += 1
    return Chat(chosen.messages, shared, chosen.tools), Chat(rejected.messages, shared, rejected.tools)


def _messages(fields: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], ...]:
    value = fields.get(name)
    if value is None:
        raise RowError(f"there is no field {name}; the row has {_names(fields)}")
    if not isinstance(value, list | tuple):
        raise RowError(f"{name} is {_kind(value)} instead of a list of messages")
    if not value:
        raise RowError(f"{name} is empty")
    return tuple(_message(message, f"{name}[{number}]") for number, message in enumerate(value))


def _message(message: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(message, Mapping):
        raise RowError(f"{where} is {_kind(message)} instead of a message with role and content")
    # Columns of a table have all keys in every message; what is None was not there.
    given = {key: value for key, value in message.items() if value is not None}
    if not isinstance(given.get("role"), str) or not given["role"]:
        raise RowError(f"{where} has no role; it has {_names(given)}")
    if "content" not in given:
        if not given.get("tool_calls"):
            raise RowError(f"{where} has no content; it has {_names(given)}")
        return {**given, "content": ""}
    content = given["content"]
    if isinstance(content, list | tuple):
        parts: list[Any] = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise RowError(f"{where}.content has parts that are no text")
        content = "".join(parts)
    return {**given, "content": _checked(content, f"{where}.content", may_be_empty=True)}


def _chat(messages: Sequence[Mapping[str, Any]], num_given: int, fields: Mapping[str, Any], config: DataConfig) -> Chat:
    said = [message for message in messages[num_given:] if message["role"] == "assistant"]
    if config.completion_only and not said:
        raise RowError("there is no message of the assistant, so there is nothing to learn")
    if config.completion_only and not any(message["content"].strip() or message.get("tool_calls") for message in said):
        raise RowError("the messages of the assistant are empty")
    tools = fields.get("tools")
    if tools is not None and not (isinstance(tools, list | tuple) and all(isinstance(tool, Mapping) for tool in tools)):
        raise RowError("tools is no list of JSON schemas")
    return Chat(tuple(messages), num_given, tuple(tools or ()))


def _names(fields: Mapping[str, Any]) -> str:
    names = ", ".join(str(name) for name, value in list(fields.items())[:8] if value is not None)
    return names or "no fields"


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
