"""An answer in pieces (server-sent events) → the same JSON document as an answer in one piece.

It knows the frames of the HTML standard (section 9.2, "Server-sent events") as far as OpenAI's API uses them: `data`
fields, comments, an empty line after each. It reads no connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ["Assembler", "CutOffError", "data_of"]

_DONE: Final = "[DONE]"


class CutOffError(ValueError):
    """The pieces ended before the answer did, or are none."""


def data_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of each event, as soon as it is whole; chunks may be cut anywhere."""
    left = b""
    lines: list[str] = []
    for chunk in chunks:
        left += chunk
        # A \r at the very end may be half of a \r\n.
        *whole, left = left.replace(b"\r\n", b"\n").split(b"\n") if not left.endswith(b"\r") else [left]
        for raw in whole:
            line = raw.decode("utf-8", "replace")
            if not line:
                if lines:
                    yield "\n".join(lines)
                lines = []
            elif line.startswith("data:"):
                lines.append(line[5:].removeprefix(" "))
    # A last event without its empty line was cut off, unless it says that all is done.
    if (lines or left.strip()) and "\n".join([*lines, left.decode("utf-8", "replace").strip()]).strip().endswith(_DONE):
        yield _DONE


class Assembler:
    """Takes each event's data, and gives the document at the end. Raises CutOffError for what is no piece of one."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        self._is_done = False

    @property
    def is_done(self) -> bool:
        return self._is_done

    def add(self, data: str) -> bool:
        """True if it brought a token. An error that the server sends is in the document, under `error`."""
        if data == _DONE:
            self._is_done = True
            return False
        try:
            piece = json.loads(data)
        except ValueError as e:
            raise CutOffError("a piece of the answer is no JSON") from e
        if not isinstance(piece, dict):
            raise CutOffError("a piece of the answer is no JSON object")
        for name in ("id", "model", "system_fingerprint", "usage", "error"):
            if piece.get(name) is not None:
                self._document[name] = piece[name]
        brought = False
        for choice in piece.get("choices") or ():
            if not isinstance(choice, dict):
                raise CutOffError("a choice in a piece of the answer is no JSON object")
            brought = self._add_choice(choice) or brought
        return brought

    def document(self) -> dict[str, Any]:
        if "error" not in self._document and self._choice["finish_reason"] is None:
            raise CutOffError("the answer was cut off: its pieces ended without a reason")
        return {**self._document, "choices": [self._choice]}

    def _add_choice(self, piece: dict[str, Any]) -> bool:
        choice = self._choice
        brought = False
        if piece.get("finish_reason") is not None:
            choice["finish_reason"] = piece["finish_reason"]
        if isinstance(text := piece.get("text"), str):
            choice["text"] = choice.get("text", "") + text
            brought = bool(text)
        delta = piece.get("delta")
        if isinstance(delta, dict):
            brought = self._add_delta(choice.setdefault("message", {"role": "assistant"}), delta) or brought
        logprobs = piece.get("logprobs")
        if isinstance(logprobs, dict):
            kept = choice.setdefault("logprobs", {})
            for name, values in logprobs.items():
                if isinstance(values, list):
                    kept.setdefault(name, []).extend(values)
        return brought

    def _add_delta(self, message: dict[str, Any], delta: dict[str, Any]) -> bool:
        brought = False
        for name in ("content", "reasoning_content", "refusal"):
            if isinstance(text := delta.get(name), str):
                message[name] = (message.get(name) or "") + text
                brought = brought or bool(text)
        for part in delta.get("tool_calls") or ():
            _add_call(message.setdefault("tool_calls", []), part)
            brought = True
        return brought


def _add_call(calls: list[dict[str, Any]], part: Any) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("index", 0), int):
        raise CutOffError("a call of a tool in a piece of the answer is malformed")
    number = part.get("index", len(calls))
    if not 0 <= number <= len(calls):
        raise CutOffError("a call of a tool in a piece of the answer has a number out of order")
    if number == len(calls):
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[number]
    call["id"] = part.get("id") or call["id"]
    function = part.get("function")
    for name in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(name), str):
            call["function"][name] += function[name]
