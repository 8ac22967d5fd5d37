"""Conversations → text by a chat template, and exactly which characters of it the assistant said.

Templates with `{% generation %}` say so themselves. For others the conversation is rendered up to each answer, as it
would be when the model is asked; where a template renders history differently, once more with marks in the place of the
contents. What neither explains is a RowError: a part is never guessed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from michelangelo import errors
from michelangelo.llm.finetune.data.parsing import Chat, RowError

__all__ = ["ChatRenderer", "Rendered"]

_GENERATION: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK: Final = "\ue000{}\ue001"
"""Characters for private use: no template strips or changes them."""
_Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters start … stop - 1 of what the assistant said, with what ends its turn; in order."""


class ChatRenderer:
    """One template. Raises DatasetError if it is no template, or if there is none when the first chat comes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self.template = _template(tokenizer, template)
        self._tokens: dict[str, Any] = {
            name: str(token) for name, token in tokenizer.special_tokens_map.items() if token
        }
        self._says_generation = bool(_GENERATION.search(self.template))
        if self.template:
            try:
                chat_template_utils._compile_jinja_template(self.template)
            except jinja2.TemplateError as e:
                raise errors.DatasetError(f"the chat template is malformed: {e}; correct data.chat_template") from e

    def render(self, chat: Chat) -> Rendered:
        """Raises RowError if the template refuses the conversation, or does not show who said what."""
        if not self.template:
            raise errors.DatasetError(
                "the rows hold messages and the tokenizer has no chat template: name one in data.chat_template "
                "(a Jinja template or a file with one), or give rows with prompt and completion"
            )
        if self._says_generation:
            return self._by_generation(chat)
        text = self._text(chat, chat.messages)
        spans = self._by_prefix(chat, text) or self._by_marks(chat, text)
        return Rendered(text, spans)

    def _by_generation(self, chat: Chat) -> Rendered:
        texts, indices = self._render(chat, chat.messages, return_assistant_tokens_mask=True)
        spans = [(int(start), int(stop)) for start, stop in indices[0]]
        said = [number for number, message in enumerate(chat.messages) if message["role"] == "assistant"]
        if len(spans) == len(said):
            spans = [span for span, number in zip(spans, said, strict=True) if number >= chat.num_given]
        elif chat.num_given:
            raise RowError("the {% generation %} parts of the chat template are not one per message of the assistant")
        return Rendered(texts[0], tuple(span for span in spans if span[0] < span[1]))

    def _by_prefix(self, chat: Chat, text: str) -> tuple[tuple[int, int], ...]:
        """Empty: the template does not render the beginning of a conversation as it renders it within the whole."""
        spans = []
        for number in _answers(chat):
            try:
                asked = self._text(chat, chat.messages[:number], add_generation_prompt=True)
                answered = self._text(chat, chat.messages[: number + 1])
            except RowError:
                return ()
            if not (answered.startswith(asked) and text.startswith(answered)):
                return ()
            spans.append((len(asked), len(answered)))
        return tuple(spans)

    def _by_marks(self, chat: Chat, text: str) -> tuple[tuple[int, int], ...]:
        between = self._between(chat, len(chat.messages))
        spans = []
        place = len(between[0])
        if not text.startswith(between[0]):
            raise _unclear()
        for number, message in enumerate(chat.messages):
            content = str(message["content"])
            following = between[number + 1]
            found = next((c for c in (content, content.strip()) if text.startswith(c + following, place)), None)
            if found is None:
                raise _unclear()
            if number >= chat.num_given and message["role"] == "assistant":
                closing = _shared(self._between(chat, number + 1)[-1], following)
                spans.append((place, place + len(found) + len(closing)))
            place += len(found) + len(following)
        if place != len(text):
            raise _unclear()
        return tuple(spans)

    def _between(self, chat: Chat, count: int) -> list[str]:
        """What the template puts before, between and after the contents of the first `count` messages."""
        marks = [_MARK.format(number) for number in range(count)]
        marked = [{**message, "content": mark} for message, mark in zip(chat.messages[:count], marks, strict=True)]
        left = self._text(chat, marked)
        between = []
        for mark in marks:
            before, found, left = left.partition(mark)
            if not found or mark in left:
                raise _unclear()
            between.append(before)
        return [*between, left]

    def _text(self, chat: Chat, messages: _Messages, *, add_generation_prompt: bool = False) -> str:
        texts, _ = self._render(chat, messages, add_generation_prompt=add_generation_prompt)
        return texts[0]

    def _render(self, chat: Chat, messages: _Messages, **options: Any) -> tuple[list[str], list[list[tuple[int, int]]]]:
        try:
            rendered: Any = chat_template_utils.render_jinja_template(
                conversations=[[dict(message) for message in messages]],
                tools=[dict(tool) for tool in chat.tools] or None,
                chat_template=self.template,
                **{**self._tokens, **options},
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as e:
            raise RowError(f"the chat template refuses the messages: {e}") from e
        texts, indices = rendered
        return texts, indices


def _answers(chat: Chat) -> list[int]:
    return [
        number
        for number, message in enumerate(chat.messages)
        if number >= chat.num_given and message["role"] == "assistant"
    ]


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(pair[0] for pair in same)


def _unclear() -> RowError:
    return RowError(
        "the chat template does not show which part of its text the assistant said: "
        "put {% generation %} … {% endgeneration %} around it"
    )


def _template(tokenizer: PreTrainedTokenizerBase, given: str) -> str:
    """Empty: there is none."""
    if given:
        if "{" in given:
            return given
        try:
            return Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise errors.DatasetError(f"data.chat_template: {given} is neither a template nor a file: {e}") from e
    if not tokenizer.chat_template:
        return ""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as e:
        raise errors.DatasetError(
            f"the tokenizer's chat template cannot be used: {e}; name one in data.chat_template"
        ) from e
