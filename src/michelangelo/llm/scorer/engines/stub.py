"""An engine without a model, for dry runs and for tests of what lies around engines: the same answers everywhere.

A completion is a pure function of its request: words by a hash, values by a schema, vectors by feature hashing. Time is
counted in steps, so nothing sleeps. With `faults` on, marks in a prompt make it fail on purpose:

    [[stub error]]   this row ends with an error        [[stub hang]]    this row never ends
    [[stub die]]     the engine raises EngineError      [[stub kill]]    the process ends by SIGKILL
    [[stub slow 7]]  7 more steps                       [[stub die once=/tmp/x]]  only if that file is not there; made

It says nothing about quality, and its counts of tokens are those of words.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import Field

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, FinishReason, Request, Task, Timing, TokenLogprob
from michelangelo.llm.scorer.engines import requests, schema_instance

__all__ = ["StubConfig", "StubEngine"]

_TASKS: Final[frozenset[Task]] = frozenset({"generate", "choices", "embed", "reward"})
_SPOKEN: Final = (
    "the of and to in is that for it as was with be by on not he this are or his from at which but have an had they "
    "you were their one all we can her has there been if more when will would who so no said what up its about than "
    "into them only other time new some could these two may then do first any my now such like our over"
)
_WORDS: Final = tuple(_SPOKEN.split())
_PIECE: Final = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
_MARK: Final = re.compile(r"\[\[stub (error|hang|die|kill|slow)(?: (\d+))?(?: once=([^\]\s]+))?\]\]")


class StubConfig(pydantic.BaseModel):
    """How the stub behaves. The name is part of the hash: two stubs of different names are two models."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["stub"] = "stub"
    name: Annotated[str, Field(min_length=1)] = "stub"
    capacity: Annotated[int, Field(ge=1)] = 16
    """Requests that advance at once; others wait."""
    tokens_per_step: Annotated[int, Field(ge=1)] = 8
    """Tokens (words) that each of them gains in a step."""
    latency_steps: Annotated[int, Field(ge=0)] = 0
    """Steps before the first token."""
    step_seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """What a step takes on the stub's own clock, which starts at 0 and never waits; 0: the machine's clock."""
    max_words: Annotated[int, Field(ge=1)] = 24
    """The longest answer, unless a request ignores the end."""
    embedding_size: Annotated[int, Field(ge=1)] = 64
    faults: bool = False
    """Obey the marks in prompts. Off: they are text as any other."""


@dataclass(slots=True)
class _Row:
    """A request in flight. `steps_left` infinite: it hangs; `fault`: what happens when its turn comes."""

    request: Request
    result: Completion
    submitted: float
    steps_left: float
    steps_to_token: int
    fault: str = ""
    first_token: float | None = None


class StubEngine:
    """`scorer.engine.Engine` of every task. `clock`: seconds; for deadlines, and for times without `step_seconds`."""

    def __init__(self, config: StubConfig | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config or StubConfig()
        self._clock = clock
        self._num_steps = 0
        self._rows: dict[str, _Row] = {}
        self._ended: list[Completion] = []
        self._lost = ""
        self._never = threading.Event()

    @property
    def name(self) -> str:
        return f"stub {self._config.name}"

    @property
    def tasks(self) -> frozenset[Task]:
        return _TASKS

    @property
    def capacity(self) -> int:
        return self._config.capacity

    def submit(self, request: Request) -> None:
        """Raises EngineError after `close` or a death, ValueError for an id that is in flight."""
        self._check_alive()
        if request.id in self._rows:
            raise ValueError(f"a request of the id {request.id!r} is in flight already")
        now = self._now()
        if error := requests.problem(request, _TASKS):
            self._ended.append(requests.failed(request, error, submitted=now, finished=now))
            return
        result = _answer(request, self._config)
        steps = self._config.latency_steps + max(1, math.ceil(result.output_tokens / self._config.tokens_per_step))
        row = _Row(request, result, now, steps, self._config.latency_steps + 1)
        if self._config.faults:
            _plant(row)
        self._rows[request.id] = row

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        """Steps until something ends. Raises EngineError when it dies, as marks ask for."""
        self._check_alive()
        deadline = math.inf if timeout is None else self._clock() + timeout
        while not self._ended and self._rows:
            active = list(itertools.islice(self._rows.values(), self._config.capacity))
            if all(row.steps_left == math.inf for row in active):
                # All hang: nothing will ever come, which is what a caller's timeout is for.
                self._never.wait(None if timeout is None else max(0.0, deadline - self._clock()))
                break
            self._step(active)
            if self._clock() >= deadline:
                break
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, request_id: str) -> None:
        row = self._rows.pop(request_id, None)
        if row is not None:
            timing = Timing(row.submitted, row.first_token, self._now())
            self._ended.append(Completion(request_id, finish_reason="cancelled", timing=timing))

    def close(self) -> None:
        self._lost = self._lost or f"the engine {self.name} is closed: open another one"
        self._rows.clear()
        self._ended.clear()

    def _step(self, active: Sequence[_Row]) -> None:
        self._num_steps += 1
        now = self._now()
        for row in active:
            if row.fault in ("die", "kill"):
                self._die(row)
            row.steps_left -= 1
            row.steps_to_token -= 1
            if row.steps_to_token == 0 and row.result.output_tokens:
                row.first_token = now
            if row.steps_left <= 0:
                del self._rows[row.request.id]
                self._ended.append(_ended(row, now))

    def _die(self, row: _Row) -> None:
        if row.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self._lost = f"the engine {self.name} died at request {row.request.id}, as its prompt asks: open another one"
        self._check_alive()

    def _check_alive(self) -> None:
        if self._lost:
            raise errors.EngineError(self._lost)

    def _now(self) -> float:
        return self._num_steps * self._config.step_seconds if self._config.step_seconds else self._clock()


def _ended(row: _Row, now: float) -> Completion:
    if row.fault == "error":
        error = "the stub engine fails this row, as its prompt asks"
        return requests.failed(row.request, error, submitted=row.submitted, finished=now)
    return dataclasses.replace(row.result, timing=Timing(row.submitted, row.first_token, now))


def _plant(row: _Row) -> None:
    found = _MARK.search(_text_of(row.request))
    if found is None:
        return
    what, number, once = found.groups()
    if once is not None:
        if Path(once).exists():
            return
        Path(once).touch()
    if what == "slow":
        row.steps_left += int(number or 1)
        row.steps_to_token += int(number or 1)
    elif what == "hang":
        row.steps_left = math.inf
    else:
        row.fault = what


def _answer(request: Request, config: StubConfig) -> Completion:
    """Everything but the times."""
    text = _text_of(request)
    num_prompt = len(request.token_ids) if request.token_ids is not None else len(_PIECE.findall(text))
    salt = f"{config.name}\0{text}"
    match request.task:
        case "choices":
            counts = tuple(len(_PIECE.findall(choice)) for choice in request.choices)
            sums = tuple(
                -count * (0.05 + 4.0 * _share(f"{salt}\0choice\0{choice}"))
                for choice, count in zip(request.choices, counts, strict=True)
            )
            return Completion(request.id, prompt_tokens=num_prompt, choice_logprobs=sums, choice_tokens=counts)
        case "embed":
            return Completion(request.id, prompt_tokens=num_prompt, embedding=_embed(text, config.embedding_size))
        case "reward":
            return Completion(request.id, prompt_tokens=num_prompt, score=2.0 * _share(f"{salt}\0reward") - 1.0)
        case _:
            return _generate(request, config, salt, num_prompt)


def _generate(request: Request, config: StubConfig, salt: str, num_prompt: int) -> Completion:
    sampling = request.sampling
    if sampling.temperature > 0.0:
        salt = f"{salt}\0{sampling.temperature}\0{sampling.seed}"
    calls: tuple[dict[str, Any], ...] = ()
    try:
        if request.tools:
            calls = (_call(request.tools[schema_instance.number(salt) % len(request.tools)], salt),)
            whole = ""
        elif sampling.json_schema is not None:
            whole = json.dumps(schema_instance.make(sampling.json_schema, salt), ensure_ascii=False)
        else:
            whole = _sentence(sampling.max_tokens if sampling.ignores_eos else 0, config.max_words, salt)
    except ValueError as e:
        return Completion(request.id, finish_reason="error", prompt_tokens=num_prompt, error=str(e))
    pieces = _PIECE.findall(whole)[: sampling.max_tokens]
    text = "".join(pieces)
    reason: FinishReason = "stop" if text == whole and not sampling.ignores_eos else "length"
    stops = [place for stop in sampling.stop if (place := text.find(stop)) >= 0]
    if stops:
        # Tokens count up to the one that completes the stop text, as a model would have made them.
        text, reason = text[: min(stops)], "stop"
        pieces = pieces[: sum(1 for end in itertools.accumulate(map(len, pieces)) if end <= len(text)) + 1]
    logprobs = None
    if sampling.logprobs is not None:
        logprobs = tuple(_logprob(piece, sampling.logprobs, f"{salt}\0{number}") for number, piece in enumerate(pieces))
    return Completion(
        request.id,
        text=text,
        token_ids=tuple(schema_instance.number(piece) % 50_000 for piece in pieces),
        finish_reason=reason,
        prompt_tokens=num_prompt,
        output_tokens=len(pieces),
        logprobs=logprobs,
        tool_calls=calls,
    )


def _sentence(exactly: int, at_most: int, salt: str) -> str:
    count = exactly or 1 + schema_instance.number(f"{salt}\0length") % at_most
    return " ".join(_WORDS[schema_instance.number(f"{salt}\0{number}") % len(_WORDS)] for number in range(count))


def _call(tool: Any, salt: str) -> dict[str, Any]:
    function = tool.get("function", tool)
    if not isinstance(function.get("name"), str):
        raise ValueError("a tool has no name: give function.name")
    arguments = schema_instance.make(function.get("parameters", {"type": "object"}), salt)
    called = {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call_{schema_instance.number(salt):012x}", "type": "function", "function": called}


def _logprob(piece: str, count: int, salt: str) -> TokenLogprob:
    """The chosen one has more than half of the probability; each of the others half of what is left."""
    chosen = 0.55 + 0.4 * _share(salt)
    first = schema_instance.number(salt) % len(_WORDS)
    others = [" " + _WORDS[(first + number) % len(_WORDS)] for number in range(count + 1)]
    likeliest = [other for other in others if other != piece][: min(count, len(_WORDS) - 1)]
    top = tuple((other, math.log((1.0 - chosen) / 2 ** (number + 1))) for number, other in enumerate(likeliest))
    return TokenLogprob(piece, math.log(chosen), top)


def _embed(text: str, size: int) -> tuple[float, ...]:
    """Feature hashing of lower-case words, with a sign by the hash: texts that share words lie close."""
    values = [0.0] * size
    for word in re.findall(r"\w+", text.lower()):
        number = schema_instance.number(f"embed\0{word}")
        values[number % size] += 1.0 if (number // size) % 2 else -1.0
    length = math.sqrt(sum(value * value for value in values))
    if length == 0.0:
        return (1.0, *[0.0] * (size - 1))
    return tuple(value / length for value in values)


def _text_of(request: Request) -> str:
    if request.prompt is not None:
        return request.prompt
    if request.messages is not None:
        return "\n".join(f"{message.get('role')}: {_content(message)}" for message in request.messages)
    return " ".join(map(str, request.token_ids or ()))


def _content(message: Any) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)


def _share(salt: str) -> float:
    """From 0 up to 1."""
    return schema_instance.number(salt) / 2**48
