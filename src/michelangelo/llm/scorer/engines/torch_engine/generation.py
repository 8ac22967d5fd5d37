"""One output as it grows: when it ends and why, its text up to a stop, its log-probabilities. It runs no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.scorer.engine import FinishReason, Sampling, TokenLogprob
from michelangelo.llm.scorer.engines.torch_engine import constraints, sampler

__all__ = ["Decode", "Generation", "Growing", "Stopping"]

Decode = Callable[[Sequence[int]], str]
"""Tokens → text without special tokens."""
_BROKEN: Final = "\ufffd"
"""What bytes decode to that are no whole character yet."""


class Growing:
    """The text of tokens that come one by one, decoded a few at a time: as decoding all of them would give it."""

    def __init__(self, decode: Decode) -> None:
        self._decode: Final = decode
        self._tokens: list[int] = []
        self._done = 0
        """Tokens whose text is in `text`."""
        self._before = 0
        """Tokens from here on are decoded again, as a tokenizer may treat the first one differently."""
        self.text = ""

    def add(self, token: int) -> None:
        self._tokens.append(token)
        known = self._decode(self._tokens[self._before : self._done])
        longer = self._decode(self._tokens[self._before :])
        if longer.endswith(_BROKEN) or not longer.startswith(known):
            return
        self.text += longer[len(known) :]
        self._before, self._done = self._done, len(self._tokens)


@dataclass(frozen=True, slots=True)
class Stopping:
    """end_tokens: the model's. most: output tokens, where the context ends too."""

    end_tokens: frozenset[int]
    most: int


class Generation:
    """An output under one request's sampling. `decode` None: there is no tokenizer."""

    def __init__(
        self,
        sampling: Sampling,
        stopping: Stopping,
        *,
        decode: Decode | None,
        seed: int,
        constraint: constraints.Constraint | None = None,
    ) -> None:
        self.sampling: Final = sampling
        self.constraint: Final = constraint
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] | None = None if sampling.logprobs is None else []
        self.finish_reason: FinishReason | None = None
        self._random: Final = random.Random(seed) if sampling.temperature else None
        self._ends: Final = frozenset() if sampling.ignores_eos else stopping.end_tokens
        self._most: Final = min(sampling.max_tokens, stopping.most)
        self._decode: Final = decode
        self._growing: Final = Growing(decode) if sampling.stop and decode is not None else None
        self._longest_stop: Final = max(map(len, sampling.stop), default=0)
        self._cut: int | None = None
        """Where the text ends, if a stop was found."""

    def draw(self, row: int) -> sampler.Draw | None:
        """How the next token is drawn; None: greedily. To be called once per token."""
        if self._random is None:
            return None
        sampling = self.sampling
        return sampler.Draw(row, sampling.temperature, sampling.top_p, sampling.top_k, self._random.random())

    def take(self, token: int) -> bool:
        """Whether the output ends with this token."""
        self.tokens.append(token)
        is_complete = self.constraint is not None and self._constrained(token)
        has_stop = self._growing is not None and self._finds_stop(token)
        if token in self._ends or is_complete or has_stop:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._most:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def text(self) -> str:
        if self._growing is not None and self._cut is not None:
            return self._growing.text[: self._cut]
        return self._decode(self.tokens) if self._decode is not None else ""

    def _constrained(self, token: int) -> bool:
        assert self.constraint is not None
        return not self.constraint.take(token) or self.constraint.is_complete

    def _finds_stop(self, token: int) -> bool:
        assert self._growing is not None
        known = len(self._growing.text)
        self._growing.add(token)
        text = self._growing.text
        places = [text.find(stop, max(0, known - self._longest_stop + 1)) for stop in self.sampling.stop]
        found = [place for place in places if place >= 0]
        if found:
            self._cut = min(found)
        return bool(found)
