"""What an engine is: it takes requests, works on as many at once as it likes, and hands back completions as they end.

Two calls suffice for engines that step in the caller's thread (PyTorch, vLLM) and for those that wait for others
(HTTP): `submit` never blocks, `poll` does the work or waits for it. So a caller needs neither threads nor an event
loop, and a request that joins late is batched with those in flight. It knows neither files nor templates of prompts,
and no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

__all__ = ["Completion", "Engine", "FinishReason", "Request", "Sampling", "Task", "Timing", "TokenLogprob", "run"]

Task: TypeAlias = Literal["generate", "choices", "embed", "reward"]
"""generate: text. choices: the log-likelihood of each continuation. embed: one vector. reward: one number."""
FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy: the same text from the same model, whoever is in the batch.

    json_schema: the output is a JSON document of this schema. logprobs: alternatives given per token (0: the chosen
    token only; None: none). stop: texts that end the output and are not part of it. seed: with it and a temperature,
    a request's text depends on that request alone.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    ignores_eos: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One row's work. Exactly one of `prompt` (text as it is), `messages` (chat: role and content) and `token_ids`.

    choices: continuations whose log-likelihood is wanted (task `choices`). tools: JSON schemas of functions the chat
    may call, for engines that can. `id` is the caller's, unique among those in flight.
    """

    id: str
    prompt: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    task: Task = "generate"
    sampling: Sampling = Sampling()
    choices: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithm of a token's probability under the model, before temperature; `top`: the likeliest others."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of `time.monotonic` on the engine's side: given to it, first token out (None: no token), done."""

    submitted: float
    first_token: float | None
    finished: float


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one request. With `error` set the row failed, and the engine is as well as before.

    cached_tokens: those of the prompt that were not computed (shared prefix). choice_logprobs: one sum per choice, in
    nats, with `choice_tokens` tokens each. embedding: unit length unless the engine says otherwise. cost_usd: what an
    engine that costs money charged, where it is known.
    """

    id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None
    choice_logprobs: tuple[float, ...] | None = None
    choice_tokens: tuple[int, ...] | None = None
    embedding: tuple[float, ...] | None = None
    score: float | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    timing: Timing | None = None
    cost_usd: float | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """Not thread-safe: one caller. Raises `errors.EngineError` when the engine itself is lost, never for a bad row.

    name: what reports call it (kind and model). tasks: what it can do; a request for another ends with an error.
    capacity: how many requests are worth having in flight; more are taken and wait.
    """

    @property
    def name(self) -> str: ...

    @property
    def tasks(self) -> frozenset[Task]: ...

    @property
    def capacity(self) -> int: ...

    def submit(self, request: Request) -> None:
        """Take a request. Does not wait. A request that cannot be served comes back from `poll` with its error."""

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        """Work until a completion is there, or nothing is in flight, for `timeout` seconds at most (None: no limit)."""

    def cancel(self, request_id: str) -> None:
        """Stop working on it: it comes back as "cancelled", unless it had ended. An unknown one changes nothing."""

    def close(self) -> None:
        """End it and free what it holds; may be called twice."""


def run(engine: Engine, requests: Iterable[Request]) -> Iterator[Completion]:
    """Every request's completion, as they end, with as many in flight as are worth it. Reads `requests` as it goes."""
    waiting = iter(requests)
    in_flight = 0
    is_open = True
    while is_open or in_flight:
        while is_open and in_flight < engine.capacity:
            request = next(waiting, None)
            if request is None:
                is_open = False
            else:
                engine.submit(request)
                in_flight += 1
        if in_flight:
            for completion in engine.poll():
                in_flight -= 1
                yield completion
