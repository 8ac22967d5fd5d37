"""Attempts in threads of the driver: for light steps that ask for it, where a process of their own would cost more.

A thread cannot be ended from outside. So a timeout or a cancel is reported at once, what the thread returns later is
ignored, and until then it goes on; there is no memory limit, and a crash takes the driver with it. The environment
belongs to the whole process: variables are set while an attempt runs, and two attempts that want different values for
one cannot run at the same time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import io
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from michelangelo import errors
from michelangelo.executors import logs, outcomes, running, scratch
from michelangelo.executors.base import Attempt, AttemptState, Outcome

__all__ = ["InProcessExecutor"]


class InProcessExecutor:
    """Executor `inprocess`. `call` runs an attempt where it is called (worker.call.Caller)."""

    def __init__(
        self,
        call: Callable[[Attempt], Outcome],
        *,
        run_id: str = "",
        capacity: int = 8,
        log_limit_bytes: int = logs.DEFAULT_LIMIT_BYTES,
    ) -> None:
        self._call = call
        self._capacity = capacity
        self._log_limit = log_limit_bytes
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._ended = outcomes.Outcomes()
        self._unfinished: dict[str, Attempt] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._threads: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._expected = 0
        """Attempts that no thread has taken yet."""
        self._environment = _Environment()
        self._scratch = scratch.ScratchFolders(run_id or "inprocess")
        self._closed = False

    @property
    def name(self) -> str:
        return "inprocess"

    @property
    def capacity(self) -> int:
        return self._capacity

    def submit(self, attempt: Attempt) -> None:
        with self._lock:
            outcomes.check_can_take(
                "in-process", attempt.id, self._unfinished, capacity=self._capacity, is_closed=self._closed
            )
            if attempt.secrets:
                raise errors.ExecutorError(
                    f"attempt {attempt.id} asks for secrets, which every task of this process could read: "
                    "use the process executor for it"
                )
            _check_is_light(attempt)
            context = {"scratch": self._scratch.path(attempt.id), **attempt.context}
            attempt = dataclasses.replace(attempt, context=context)
            self._environment.enter(attempt)
            self._unfinished[attempt.id] = attempt
            if attempt.timeout_seconds > 0:
                heapq.heappush(self._deadlines, (time.monotonic() + attempt.timeout_seconds, attempt.id))
                self._ended.wake()  # a poll that waits already does not know of this deadline
            self._expected += 1
            if len(self._busy) + self._expected > len(self._threads):
                thread = threading.Thread(target=self._serve, name="inprocess-executor", daemon=True)
                self._threads.add(thread)
                thread.start()
            self._work.put(attempt)

    def poll(self, timeout_seconds: float) -> Sequence[Outcome]:
        now = time.monotonic()
        with self._lock:
            deadline = min(now + max(0.0, timeout_seconds), self._deadlines[0][0] if self._deadlines else now + 1e9)
        found = self._ended.take(deadline - now)
        if not found:
            self._expire()
            found = self._ended.take(0.0)
        return found

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        message = f"attempt {attempt_id} was cancelled; its thread goes on until it returns"
        self._end(attempt_id, AttemptState.KILLED, message)

    def wake(self) -> None:
        self._ended.wake()

    def close(self) -> None:
        """Waits for threads that are idle; one that still runs the user's code ends when that returns."""
        with self._lock:
            self._closed = True
            unfinished = list(self._unfinished)
        for attempt_id in unfinished:
            self._end(attempt_id, AttemptState.KILLED, f"attempt {attempt_id} was ended: its executor was closed")
        with self._lock:
            idle = self._threads - self._busy
            for _ in self._threads:
                self._work.put(None)
            self._threads = set()
        for thread in idle:
            thread.join()
        _streams.release(self)
        self._scratch.close()

    def _end(self, attempt_id: str, state: AttemptState, message: str) -> None:
        self._finish(Outcome(id=attempt_id, state=state, error=running.failure(state, message)))

    def _finish(self, outcome: Outcome) -> None:
        """Report an end, unless this attempt has ended already."""
        with self._lock:
            if self._unfinished.pop(outcome.id, None) is None:
                return
        self._ended.put(outcome)

    def _expire(self) -> None:
        while True:
            with self._lock:
                if not self._deadlines or self._deadlines[0][0] > time.monotonic():
                    return
                attempt_id = heapq.heappop(self._deadlines)[1]
                attempt = self._unfinished.get(attempt_id)
            if attempt is not None:
                message = (
                    f"attempt {attempt_id} ran longer than its timeout of {attempt.timeout_seconds:g} s; "
                    "its thread goes on until it returns"
                )
                self._end(attempt_id, AttemptState.TIMED_OUT, message)

    def _serve(self) -> None:
        this = threading.current_thread()
        while (attempt := self._work.get()) is not None:
            with self._lock:
                self._expected -= 1
                wanted = attempt.id in self._unfinished
                if wanted:
                    self._busy.add(this)
            outcome = self._run(attempt) if wanted else None
            with self._lock:
                self._busy.discard(this)
                self._environment.leave(attempt)
            if outcome is not None:
                self._finish(outcome)

    def _run(self, attempt: Attempt) -> Outcome:
        if not attempt.log_path:
            return self._call(attempt)
        try:
            log = logs.BoundedLog(attempt.log_path, self._log_limit)
        except OSError as e:
            message = f"cannot open the log of attempt {attempt.id}: {e}"
            return Outcome(id=attempt.id, state=AttemptState.LOST, error=running.failure(AttemptState.LOST, message))
        _streams.hold(self)
        try:
            with _streams.sent_to(log):
                return self._call(attempt)
        finally:
            log.close()


def _check_is_light(attempt: Attempt) -> None:
    """Raises ExecutorError when it asks for what threads of one process cannot have each for itself."""
    for name, asked in (("requirements", attempt.requirements), ("a working directory", attempt.working_directory)):
        if asked:
            raise errors.ExecutorError(
                f"attempt {attempt.id} asks for {name} of its own, which it cannot have in this process: use the "
                "process executor for it (config=uniflow.Process())"
            )


class _Environment:
    """Variables of the process that running attempts have set, with what they were before."""

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}
        self._before: dict[str, str | None] = {}

    def enter(self, attempt: Attempt) -> None:
        """Raises ExecutorError when another running attempt has another value for one of them."""
        wanted = attempt.environment
        clash = sorted(name for name in wanted if name in self._holders and os.environ.get(name) != wanted[name])
        if clash:
            raise errors.ExecutorError(
                f"attempt {attempt.id} cannot run beside the others in this process: they want other values of "
                f"{', '.join(clash)}; use the process executor"
            )
        for name, value in wanted.items():
            if name not in self._holders:
                self._before[name] = os.environ.get(name)
                os.environ[name] = value
            self._holders[name] = self._holders.get(name, 0) + 1

    def leave(self, attempt: Attempt) -> None:
        for name in attempt.environment:
            self._holders[name] -= 1
            if self._holders[name] == 0:
                del self._holders[name]
                before = self._before.pop(name)
                if before is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = before


class _Streams:
    """Sends what some threads print to their logs. In place only while an executor holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: set[int] = set()
        self._replaced: list[tuple[str, TextIO, _ThreadStream]] = []
        self._local = threading.local()

    def hold(self, holder: object) -> None:
        with self._lock:
            if not self._holders:
                for name in ("stdout", "stderr"):
                    original = getattr(sys, name)
                    stream = _ThreadStream(original, self._local)
                    self._replaced.append((name, original, stream))
                    setattr(sys, name, stream)
            self._holders.add(id(holder))

    def release(self, holder: object) -> None:
        with self._lock:
            self._holders.discard(id(holder))
            while self._replaced and not self._holders:
                name, original, stream = self._replaced.pop()
                if getattr(sys, name) is stream:  # else somebody has put another in its place
                    setattr(sys, name, original)

    @contextlib.contextmanager
    def sent_to(self, log: logs.BoundedLog) -> Iterator[None]:
        self._local.log = log
        try:
            yield
        finally:
            self._local.log = None


class _ThreadStream(io.TextIOBase):
    """A text stream that goes to the log of the writing thread, or to `original` where it has none."""

    def __init__(self, original: TextIO, local: threading.local) -> None:
        self._original = original
        self._local = local

    def write(self, text: str) -> int:
        log = getattr(self._local, "log", None)
        if log is None:
            return self._original.write(text)
        log.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        if getattr(self._local, "log", None) is None:
            self._original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


_streams = _Streams()
