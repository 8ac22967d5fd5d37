"""A request → tokens, or a sentence that says why it cannot be served. It runs no model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jinja2
from transformers import PreTrainedTokenizerBase

from michelangelo.llm.scorer.engine import Request, Task
from michelangelo.llm.scorer.engines.torch_engine import constraints

__all__ = ["BadRequest", "Prepared", "Preparer"]


class BadRequest(ValueError):
    """The row's error, as the user sees it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """prompt: its tokens. choices: those of each continuation."""

    prompt: list[int]
    choices: tuple[list[int], ...] = ()
    constraint: constraints.Constraint | None = None


@dataclass(frozen=True, slots=True)
class Preparer:
    """For one model. context: tokens of a prompt and its output. grammars None: schemas are not enforced."""

    tokenizer: PreTrainedTokenizerBase | None
    tasks: frozenset[Task]
    context: int
    vocab_size: int
    grammars: constraints.Grammars | None

    def prepare(self, request: Request) -> Prepared:
        """Raises BadRequest that names all that is wrong."""
        found = self._problems(request)
        if found:
            raise BadRequest("; ".join(found))
        prompt = self._prompt(request)
        self._check_tokens(prompt)
        most = self.context - (1 if request.task == "generate" else 0)
        if len(prompt) > most:
            raise BadRequest(
                f"the prompt has {len(prompt):,} tokens and the engine takes {most:,}: shorten it, or raise max_context"
            )
        if request.task == "choices":
            return Prepared(prompt, self._choices(request, prompt))
        schema = request.sampling.json_schema if request.task == "generate" else None
        return Prepared(prompt, constraint=None if schema is None else self._constraint(schema))

    def _problems(self, request: Request) -> list[str]:
        found = []
        if request.task not in self.tasks:
            found.append(f"task {request.task!r} is none of this model's: {', '.join(sorted(self.tasks))}")
        given = [name for name in ("prompt", "messages", "token_ids") if getattr(request, name) is not None]
        if len(given) != 1:
            found.append(
                f"exactly one of prompt, messages and token_ids is needed, not {' and '.join(given) or 'none'}"
            )
        if request.token_ids is None and self.tokenizer is None:
            found.append("the model has no tokenizer: give token_ids, or name a tokenizer in the engine's settings")
        if request.messages is not None and self.tokenizer is not None and not self.tokenizer.chat_template:
            found.append("messages need a chat template and the tokenizer has none: give a prompt")
        if request.tools:
            found.append("tools are not read by this engine")
        if request.task == "choices" and not request.choices:
            found.append("choices: none are given")
        if request.choices and self.tokenizer is None:
            found.append("choices are texts and the model has no tokenizer")
        if request.task == "generate":
            found.extend(self._sampling_problems(request))
        return found

    def _sampling_problems(self, request: Request) -> list[str]:
        sampling, found = request.sampling, []
        if sampling.max_tokens < 1:
            found.append(f"max_tokens: {sampling.max_tokens} is less than 1")
        if not (sampling.temperature >= 0 and math.isfinite(sampling.temperature)):
            found.append(f"temperature: {sampling.temperature} is no number >= 0")
        if not 0 < sampling.top_p <= 1:
            found.append(f"top_p: {sampling.top_p} is not in (0, 1]")
        if sampling.top_k < 0:
            found.append(f"top_k: {sampling.top_k} is less than 0")
        if sampling.logprobs is not None and not 0 <= sampling.logprobs <= self.vocab_size:
            found.append(f"logprobs: {sampling.logprobs} is not between 0 and {self.vocab_size}")
        if any(not stop for stop in sampling.stop):
            found.append("stop: an empty text")
        if sampling.stop and self.tokenizer is None:
            found.append("stop: the model has no tokenizer")
        if sampling.json_schema is not None and self.grammars is None:
            found.append("json_schema: this engine was opened without enforces_schema")
        return found

    def _prompt(self, request: Request) -> list[int]:
        if request.token_ids is not None:
            return list(request.token_ids)
        tokenizer = self.tokenizer
        assert tokenizer is not None
        if request.prompt is not None:
            return _ids(tokenizer, request.prompt)
        try:
            text = tokenizer.apply_chat_template(
                [dict(message) for message in request.messages or ()], tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise BadRequest(f"the chat template does not take these messages: {e}") from e
        return _ids(tokenizer, str(text), add_special_tokens=False)

    def _check_tokens(self, tokens: list[int]) -> None:
        if not tokens:
            raise BadRequest("the prompt is empty")
        wrong = [token for token in tokens if not 0 <= token < self.vocab_size]
        if wrong:
            raise BadRequest(f"token {wrong[0]} of the prompt is not between 0 and {self.vocab_size - 1}")

    def _choices(self, request: Request, prompt: list[int]) -> tuple[list[int], ...]:
        """The tokens of prompt + choice that follow the prompt's; of the choice alone, where they meet in one token."""
        tokenizer = self.tokenizer
        assert tokenizer is not None
        found = []
        for number, choice in enumerate(request.choices):
            tokens: list[int] = []
            if request.prompt is not None:
                whole = _ids(tokenizer, request.prompt + choice)
                if whole[: len(prompt)] == prompt:
                    tokens = whole[len(prompt) :]
            tokens = tokens or _ids(tokenizer, choice, add_special_tokens=False)
            if not tokens:
                raise BadRequest(f"choice {number} is empty")
            self._check_tokens(tokens)
            if len(prompt) + len(tokens) > self.context:
                raise BadRequest(
                    f"the prompt and choice {number} have {len(prompt) + len(tokens):,} tokens and the engine takes "
                    f"{self.context:,}"
                )
            found.append(tokens)
        return tuple(found)

    def _constraint(self, schema: Mapping[str, Any]) -> constraints.Constraint:
        assert self.grammars is not None
        try:
            return self.grammars.constraint(schema)
        except constraints.BadSchema as e:
            raise BadRequest(str(e)) from e


_QUIET: Final = {"verbose": False}
"""A prompt beyond the tokenizer's own limit is our error to tell, not a warning."""


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool = True) -> list[int]:
    return list(tokenizer(text, add_special_tokens=add_special_tokens, **_QUIET)["input_ids"])
