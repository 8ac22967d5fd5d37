"""One request's attempts: when to send, what to try again and after how long, what to give up.

Tried again are 408, 409, 429, 5xx, connections that fail or break, and answers that are cut off or malformed; waits
are "full jitter" (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): anything between 0 and
a bound that doubles, and never less than what the server asks for. Everything else is the row's error, but a refused
key, a model or path that is not there, and a server that nobody can reach: then the engine is lost.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, Request, Timing
from michelangelo.llm.scorer.engines.http_engine import pacing, transport, wire
from michelangelo.llm.scorer.engines.http_engine.budget import Budget, Prices
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig
from michelangelo.llm.scorer.engines.http_engine.wire import Call, Usage

__all__ = ["Calls", "Clock", "Statistics"]

_AGAIN: Final = frozenset({408, 409, 429})
_TOO_MUCH: Final = frozenset({429, 503, 529})


@dataclass(frozen=True, slots=True)
class Clock:
    """now: seconds, as `time.monotonic`. wall: seconds since the epoch. sleep: wait so long; tests need not."""

    now: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(slots=True)
class Statistics:
    """What an engine did, over all its requests."""

    attempts: int = 0
    retries: int = 0
    refused: int = 0
    """Answers that said: too much (429, 503)."""
    lost_answers: int = 0
    waited_seconds: float = 0.0
    """For rates, for pauses and between attempts, summed over all calls."""


class _RowError(Exception):
    """This row failed, for good."""


class _CancelledError(Exception):
    """Nobody waits for this row any more."""


class _AgainError(Exception):
    """This attempt failed; the next may not. pause: seconds that the server asks for."""

    def __init__(self, message: str, pause: float | None = None, *, no_server: bool = False) -> None:
        super().__init__(message)
        self.pause = pause
        self.no_server = no_server


class Calls:
    """Shared by the threads of one engine. `changed` guards pacer, budget, concurrency and statistics."""

    def __init__(
        self,
        config: HttpEngineConfig,
        carrier: transport.Transport,
        prices: Prices | None,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._config = config
        self._carrier = carrier
        self._prices = prices
        self._clock = clock
        self._chance = chance
        self._pacer = pacing.Pacer(config.requests_per_minute, config.tokens_per_minute)
        self.changed = threading.Condition()
        """Told whenever a call ends, and by the engine when something is cancelled."""
        self.budget = Budget(config.budget_usd)
        self.concurrency = pacing.Concurrency(config.max_concurrency)
        self.statistics = Statistics()

    def serve(self, request: Request, submitted: float, is_cancelled: Callable[[], bool]) -> Completion:
        """Raises EngineError if every other row would fail in the same way."""
        try:
            completion = self._serve(request, is_cancelled)
        except (_RowError, wire.MalformedError) as e:
            completion = Completion(request.id, finish_reason="error", error=self._carrier.hide(str(e)))
        except _CancelledError:
            completion = Completion(request.id, finish_reason="cancelled")
        first_token = None if completion.timing is None else completion.timing.first_token
        return dataclasses.replace(completion, timing=Timing(submitted, first_token, self._clock.now()))

    def wake(self) -> None:
        """Whoever waits for the budget looks again, whether it is still wanted."""
        with self.changed:
            self.changed.notify_all()

    def _serve(self, request: Request, is_cancelled: Callable[[], bool]) -> Completion:
        try:
            call = wire.call_of(request, self._config)
        except ValueError as e:
            raise _RowError(str(e)) from e
        attempt = 0
        while True:
            try:
                return self._attempt(request, call, is_cancelled)
            except _AgainError as e:
                self._check_worth(e, attempt)
                self._wait(self._delay(attempt, e.pause))
            attempt += 1
            with self.changed:
                self.statistics.retries += 1

    def _attempt(self, request: Request, call: Call, is_cancelled: Callable[[], bool]) -> Completion:
        promised = self._promise(call, is_cancelled)
        used = 0.0
        try:
            num_taken = self._take_turn(call, is_cancelled)
            # From here on the server may do the work, whether its answer arrives or not.
            used = promised
            answer = self._send(call, is_cancelled)
            used = promised if answer is not None and answer.status == 200 else 0.0
            if answer is None:
                raise _AgainError(f"no connection to {self._config.base_url}", no_server=True)
            completion = self._read(request, answer)
            usage = wire.usage_of(answer.document)
            if usage is not None:
                used = self._cost(usage)
                with self.changed:
                    self._pacer.settle(num_taken, usage.prompt_tokens + usage.output_tokens)
        finally:
            with self.changed:
                self.budget.settle(promised, used)
                self.changed.notify_all()
        return dataclasses.replace(
            completion,
            cost_usd=None if self._prices is None else used,
            timing=None if answer.first_token is None else Timing(0.0, answer.first_token, 0.0),
        )

    def _promise(self, call: Call, is_cancelled: Callable[[], bool]) -> float:
        most = self._cost(Usage(call.most_prompt_tokens, call.most_output_tokens))
        with self.changed:
            while not self.budget.take(most):
                if not self.budget.can_ever_fit(most):
                    raise _RowError(
                        f"not sent: it may cost ${most:.6f}, and ${self.budget.spent_usd:.6f} of the budget of "
                        f"${self._config.budget_usd:.6f} are spent; raise budget_usd to go on"
                    )
                if is_cancelled():
                    raise _CancelledError
                self.changed.wait()
        return most

    def _take_turn(self, call: Call, is_cancelled: Callable[[], bool]) -> int:
        num_tokens = call.likely_prompt_tokens + call.most_output_tokens
        while True:
            if is_cancelled():
                raise _CancelledError
            with self.changed:
                delay = self._pacer.take(num_tokens, self._clock.now())
                if delay <= 0.0:
                    self.statistics.attempts += 1
                    return num_tokens
            self._wait(delay)

    def _send(self, call: Call, is_cancelled: Callable[[], bool]) -> transport.Answer | None:
        """None: no connection came about."""
        sent_at = self._clock.now()
        try:
            answer = self._carrier.post(call.path, call.body, streams=call.streams, is_cancelled=is_cancelled)
        except transport.NoServerError as e:
            if e.is_final:
                raise errors.EngineError(f"{e}; correct base_url or the certificate") from e
            return None
        except transport.LostAnswerError as e:
            if is_cancelled():
                raise _CancelledError from e
            with self.changed:
                self.statistics.lost_answers += 1
            raise _AgainError(str(e)) from e
        now = self._clock.now()
        with self.changed:
            self._pacer.observe(answer.headers, now)
            if answer.status == 200:
                self.concurrency.succeeded()
            elif answer.status in _TOO_MUCH:
                self.statistics.refused += 1
                self.concurrency.refused(sent_at, now)
        return answer

    def _read(self, request: Request, answer: transport.Answer) -> Completion:
        status, said = answer.status, self._carrier.hide(wire.error_text(answer.document))
        if status == 200 and not (isinstance(answer.document, dict) and answer.document.get("error")):
            try:
                return wire.completion_of(request, answer.document)
            except wire.MalformedError as e:
                raise _AgainError(str(e)) from e
        if status == 200:
            raise _AgainError(f"the server broke the answer off: {said}")
        if fatal := _fatal(status, said, self._config):
            raise errors.EngineError(fatal)
        if status in _AGAIN or status >= 500:
            pause = pacing.pause_asked(answer.headers, self._clock.wall())
            if pause is not None and status in _TOO_MUCH:
                with self.changed:
                    self._pacer.pause(self._clock.now() + min(pause, self._config.longest_pause_seconds))
            raise _AgainError(f"the server answers {status}: {said}", pause)
        raise _RowError(f"the server refuses the request ({status}): {said}")

    def _check_worth(self, error: _AgainError, attempt: int) -> None:
        if (error.pause or 0.0) > self._config.longest_pause_seconds:
            raise _RowError(f"{error}; it asks for a pause of {error.pause:.0f} s, longer than longest_pause_seconds")
        if attempt < self._config.max_retries:
            return
        if error.no_server:
            raise errors.EngineError(f"{error} after {attempt + 1} attempts: start the server, or correct base_url")
        raise _RowError(f"{error} (after {attempt + 1} attempts)")

    def _delay(self, attempt: int, pause: float | None) -> float:
        bound = min(self._config.retry_cap_seconds, self._config.retry_base_seconds * 2.0 ** min(attempt, 60))
        with self.changed:
            jitter = self._chance.uniform(0.0, bound)
        # After a pause the jitter comes on top: all who wait for its end would come back together.
        return jitter if pause is None else pause + min(jitter, self._config.retry_base_seconds)

    def _wait(self, seconds: float) -> None:
        with self.changed:
            self.statistics.waited_seconds += seconds
        self._clock.sleep(seconds)

    def _cost(self, usage: Usage) -> float:
        if self._prices is None:
            return 0.0
        return self._prices.cost(
            prompt_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens, cached_tokens=usage.cached_tokens
        )


def _fatal(status: int, said: str, config: HttpEngineConfig) -> str:
    """Why every row would fail in the same way, or nothing."""
    match status:
        case 401:
            return f"{config.base_url} refuses the key (401): {said}; correct api_key_env or api_key_file"
        case 402:
            return f"{config.base_url} wants to be paid (402): {said}"
        case 404:
            return f"{config.base_url} has no such path or no model {config.model} (404): {said}; correct the two"
        case 429 if "insufficient_quota" in said or "exceeded your current quota" in said:
            return f"the account's quota is used up (429): {said}"
        case _ if 300 <= status < 400:
            return f"{config.base_url} redirects ({status}), which is not followed: correct base_url"
        case _:
            return ""
