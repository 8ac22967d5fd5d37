"""The engine behind HTTP: requests in, completions out, and a small pool of threads that wait for the server.

It only hands out work: what a request becomes, when it is sent and what is tried again is `calls`'.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, Request, Task, Timing
from michelangelo.llm.scorer.engines import requests
from michelangelo.llm.scorer.engines.http_engine import calls, transport
from michelangelo.llm.scorer.engines.http_engine.budget import Prices
from michelangelo.llm.scorer.engines.http_engine.calls import Clock, Statistics
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig

__all__ = ["HttpEngine"]

_JOIN_SECONDS: Final = 2.0
"""For threads at the end. One that waits for a server is left alone: it holds nothing, and ends with its call."""


@dataclass(slots=True, eq=False)
class _Job:
    request: Request
    submitted: float
    is_cancelled: bool = False

    def was_cancelled(self) -> bool:
        return self.is_cancelled


class HttpEngine:
    """`scorer.engine.Engine`. Raises EngineError if the key cannot be had, SettingsError for a budget without prices.

    environment: where `api_key_env` is looked up. prices: for where the configuration has none. clock and chance: for
    who wants neither to wait nor to be surprised.
    """

    def __init__(
        self,
        config: HttpEngineConfig,
        *,
        environment: Mapping[str, str] | None = None,
        prices: Prices | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._config = config
        self._closing = threading.Event()
        self._clock = clock or Clock(time.monotonic, time.time, self._sleep)
        if config.usd_per_million_input is not None and config.usd_per_million_output is not None:
            prices = Prices(
                config.usd_per_million_input, config.usd_per_million_output, config.usd_per_million_cached_input
            )
        if config.budget_usd is not None and prices is None:
            raise errors.SettingsError(
                f"budget_usd: no price is known for {config.model}; "
                "give usd_per_million_input and usd_per_million_output"
            )
        self._carrier = transport.Transport(config, _key(config, environment or {}), self._clock.now)
        self._calls = calls.Calls(config, self._carrier, prices, self._clock, chance or random.Random())
        self._changed = threading.Condition()
        self._pending: deque[_Job] = deque()
        self._jobs: dict[str, _Job] = {}
        self._ended: list[Completion] = []
        self._num_active = 0
        self._lost = ""
        self._threads: list[threading.Thread] = []

    @property
    def name(self) -> str:
        return f"openai {self._config.model}"

    @property
    def tasks(self) -> frozenset[Task]:
        return frozenset(self._config.tasks)

    @property
    def capacity(self) -> int:
        return self._config.max_concurrency

    @property
    def statistics(self) -> Statistics:
        return self._calls.statistics

    @property
    def spent_usd(self) -> float:
        """By all calls so far, lost answers at their upper bound."""
        return self._calls.budget.spent_usd

    def submit(self, request: Request) -> None:
        """Raises EngineError once the engine is closed or lost, ValueError for an id that is in flight."""
        now = self._clock.now()
        with self._changed:
            self._check_alive()
            if request.id in self._jobs:
                raise ValueError(f"a request of the id {request.id!r} is in flight already")
            if error := requests.problem(request, self.tasks):
                self._ended.append(requests.failed(request, error, submitted=now, finished=now))
                return
            job = _Job(request, now)
            self._jobs[request.id] = job
            self._pending.append(job)
            if len(self._threads) < min(self._config.max_concurrency, self._num_active + len(self._pending)):
                name = f"http-engine-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        """Raises EngineError once every completion that was there before the loss has been handed out."""
        # The machine's clock: it is the caller's real time that is waited for.
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._ended and not self._lost and self._jobs:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0.0:
                    break
                self._changed.wait(left)
            if not self._ended:
                self._check_alive()
            ended, self._ended = self._ended, []
            return ended

    def cancel(self, request_id: str) -> None:
        """It comes back at once. A call that is under way is left to itself, and counted when it ends."""
        with self._changed:
            job = self._jobs.pop(request_id, None)
            if job is None:
                return
            job.is_cancelled = True
            timing = Timing(job.submitted, None, self._clock.now())
            self._ended.append(Completion(request_id, finish_reason="cancelled", timing=timing))
            self._changed.notify_all()
        self._calls.wake()

    def close(self) -> None:
        with self._changed:
            self._lose(f"the engine {self.name} is closed: open another one")
            self._ended.clear()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS if thread is not threading.current_thread() else 0.0)
        self._carrier.close()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            completion = None
            try:
                completion = self._calls.serve(job.request, job.submitted, job.was_cancelled)
            except errors.EngineError as e:
                with self._changed:
                    self._lose(e.message)
            finally:
                with self._changed:
                    self._num_active -= 1
                    # A cancelled job has been answered, and its id may be in use again.
                    if self._jobs.get(job.request.id) is job:
                        del self._jobs[job.request.id]
                        if completion is not None:
                            self._ended.append(completion)
                        else:
                            self._lose(f"a thread of the engine {self.name} ended at request {job.request.id}")
                    self._changed.notify_all()

    def _take(self) -> _Job | None:
        with self._changed:
            while not self._lost:
                while self._pending and self._pending[0].is_cancelled:
                    self._pending.popleft()
                if self._pending and self._num_active < self._calls.concurrency.limit:
                    self._num_active += 1
                    return self._pending.popleft()
                self._changed.wait()
            return None

    def _lose(self, why: str) -> None:
        """The first reason stays."""
        self._lost = self._lost or why
        self._closing.set()
        for job in self._jobs.values():
            job.is_cancelled = True
        self._pending.clear()
        self._jobs.clear()
        self._changed.notify_all()
        self._calls.wake()

    def _check_alive(self) -> None:
        if self._lost:
            raise errors.EngineError(self._lost)

    def _sleep(self, seconds: float) -> None:
        self._closing.wait(seconds)


def _key(config: HttpEngineConfig, environment: Mapping[str, str]) -> str:
    if config.api_key_env:
        key = environment.get(config.api_key_env, "").strip()
        if not key:
            raise errors.EngineError(f"the environment variable {config.api_key_env} is not set: put the key into it")
    elif config.api_key_file:
        try:
            key = Path(config.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise errors.EngineError(f"the key in {config.api_key_file} cannot be read: {type(e).__name__}") from e
        if not key:
            raise errors.EngineError(f"{config.api_key_file} is empty: put the key into it")
    else:
        return ""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise errors.EngineError("the key holds characters that no header can hold: it must be one line of ASCII")
    return key
