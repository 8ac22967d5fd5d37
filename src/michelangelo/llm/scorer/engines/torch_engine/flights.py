"""Requests in flight: the sequences each needs, what it takes from a step's outputs, and its completion in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from michelangelo.llm.scorer.engine import Completion, FinishReason, Request, Timing
from michelangelo.llm.scorer.engines.torch_engine import generation, preparing, scheduler
from michelangelo.llm.scorer.engines.torch_engine.config import Pooling

__all__ = ["Choices", "Embedding", "Flight", "Generate", "Reward", "Times", "Work"]


@dataclass(slots=True)
class Times:
    submitted: float
    first_token: float | None = None


class Work(Protocol):
    """What a task does. sequences: those the scheduler is given."""

    @property
    def sequences(self) -> Sequence[scheduler.Sequence]: ...

    def filled(self, completion: Completion) -> Completion:
        """With the task's result in it."""


@dataclass(frozen=True, slots=True)
class Flight:
    request: Request
    prompt: list[int]
    work: Work
    times: Times

    def completion(self, now: float, finish_reason: FinishReason = "stop") -> Completion:
        cached = self.work.sequences[0].num_cached or 0
        return self.work.filled(
            Completion(
                id=self.request.id,
                finish_reason=finish_reason,
                prompt_tokens=len(self.prompt),
                cached_tokens=min(cached, len(self.prompt)),
                timing=Timing(self.times.submitted, self.times.first_token, now),
            )
        )


@dataclass(slots=True)
class Generate:
    sequence: scheduler.Sequence
    output: generation.Generation

    @property
    def sequences(self) -> Sequence[scheduler.Sequence]:
        return (self.sequence,)

    def filled(self, completion: Completion) -> Completion:
        output = self.output
        return dataclasses.replace(
            completion,
            text=output.text(),
            token_ids=tuple(output.tokens),
            output_tokens=len(output.tokens),
            logprobs=None if output.logprobs is None else tuple(output.logprobs),
        )


class Choices:
    """The log-likelihood of each continuation: one sequence each, all behind the same prompt."""

    def __init__(self, request_id: str, prepared: preparing.Prepared) -> None:
        self._start: Final = len(prepared.prompt) - 1
        self._choices: Final = prepared.choices
        self.sequences: Final = tuple(
            # The last token of a continuation is only scored: nothing comes of computing it.
            scheduler.Sequence(request_id, [*prepared.prompt, *choice[:-1]], first_wanted=self._start)
            for choice in prepared.choices
        )
        self._logprobs: Final = [[0.0] * len(choice) for choice in prepared.choices]
        self._left: Final = set(range(len(prepared.choices)))

    def targets(self, sequence: scheduler.Sequence, start: int, stop: int) -> tuple[int, list[int]]:
        """Of the tokens start … stop - 1: the first whose logits are wanted, and the tokens that follow from there."""
        first = max(start, self._start)
        choice = self._choices[self.sequences.index(sequence)]
        return first, choice[first - self._start : max(0, stop - self._start)]

    def take(self, sequence: scheduler.Sequence, first: int, logprobs: Sequence[float]) -> bool:
        """Log-probabilities of the tokens after `first`, `first` + 1 …; whether the request is done."""
        number = self.sequences.index(sequence)
        place = first - self._start
        self._logprobs[number][place : place + len(logprobs)] = logprobs
        if first + len(logprobs) == len(sequence.tokens):
            self._left.discard(number)
        return not self._left

    def filled(self, completion: Completion) -> Completion:
        return dataclasses.replace(
            completion,
            choice_logprobs=tuple(float(sum(logprobs)) for logprobs in self._logprobs),
            choice_tokens=tuple(len(choice) for choice in self._choices),
        )


@dataclass(slots=True)
class Embedding:
    """The mean of the last hidden states, or the last one, at unit length."""

    sequence: scheduler.Sequence
    pooling: Pooling
    total: torch.Tensor | None = None

    @property
    def sequences(self) -> Sequence[scheduler.Sequence]:
        return (self.sequence,)

    def take(self, start: int, hidden: torch.Tensor) -> None:
        """hidden: [token, size] of tokens `start` …"""
        if self.pooling == "last":
            self.total = hidden[-1].double()
        else:
            added = hidden.double().sum(0)
            self.total = added if start == 0 or self.total is None else self.total + added

    def filled(self, completion: Completion) -> Completion:
        if self.total is None or completion.finish_reason != "stop":
            return completion
        vector = self.total / self.total.norm().clamp_min(1e-30)
        return dataclasses.replace(completion, embedding=tuple(vector.tolist()), details={"pooling": self.pooling})


@dataclass(slots=True)
class Reward:
    sequence: scheduler.Sequence
    score: float | None = None

    @property
    def sequences(self) -> Sequence[scheduler.Sequence]:
        return (self.sequence,)

    def filled(self, completion: Completion) -> Completion:
        return dataclasses.replace(completion, score=self.score)
