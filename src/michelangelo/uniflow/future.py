"""Futures of steps, and waiting for several of them.

A future belongs to the run that submitted its step, and everything it says goes through that run
(`RunContext.wait`), so that replay repeats what the workflow saw and in which order. It has no lock and no thread:
the workflow's own thread drives the run while it waits.

The run settles a future with `settle` or `fail`; that the workflow may see it is decided by `RunContext.wait` alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast, final

if TYPE_CHECKING:
    from michelangelo.uniflow.runner import RunContext

__all__ = ["Future", "FutureList", "ReturnWhen", "Waited", "as_completed", "wait"]

_R = TypeVar("_R")
ReturnWhen = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


@final
class Future(Generic[_R]):
    """The result of a step that may still be running.

    Given to another task as an argument (also inside a list, tuple or dict) it is a dependency: that step starts when
    this one has ended, with its result in the future's place, and the data does not pass through the workflow.
    """

    __slots__ = ("_context", "_decode", "_decoded", "_error", "_seen", "_settled", "_value", "output", "step", "task")

    def __init__(self, context: RunContext | None, *, task: str = "", step: str = "") -> None:
        self._context = context
        self._settled = False
        self._seen = False
        self._error: BaseException | None = None
        self._decode: Callable[[Any], _R] | None = None
        self._decoded = False
        self._value: _R | None = None
        self.task = task
        """The task's name."""
        self.step = step
        """The step's identity in its run."""
        self.output: Any = None
        """The encoded result (`uniflow.codecs`), once the step has succeeded: what a dependent step gets."""

    # --- for workflows ---

    def result(self, timeout: float | None = None) -> _R:
        """The step's result; waits for it. Raises what the step failed with (a TaskError), or TimeoutError after
        `timeout` seconds."""
        self._await(timeout)
        if self._error is not None:
            raise self._error
        if not self._decoded:
            assert self._decode is not None
            self._value, self._decoded = self._decode(self.output), True
        return cast(_R, self._value)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the step failed with, or None when it succeeded; waits for its end, TimeoutError after `timeout` s."""
        self._await(timeout)
        return self._error

    def done(self) -> bool:
        """Whether the step has ended. Does not wait. Journaled, so replay gives the same answer."""
        return self._seen or bool(_wait_in_run([self], 1, 0.0))

    # --- for the run that owns it ---

    @property
    def settled(self) -> bool:
        """Whether the run knows the end; the workflow may not have been told yet."""
        return self._settled

    @property
    def failure(self) -> BaseException | None:
        """What a settled future failed with. Does not wait."""
        return self._error

    def settle(self, output: Any, decode: Callable[[Any], _R]) -> None:
        """The step succeeded with the encoded `output`; `decode` is called once, when the value is first asked for."""
        self.output, self._decode, self._settled = output, decode, True

    def fail(self, error: BaseException) -> None:
        """The step failed for good."""
        self._error, self._settled = error, True

    @classmethod
    def completed(cls, value: _R, *, task: str = "") -> Future[_R]:
        """A future outside any run, that has its value."""
        future = cls(None, task=task)
        future._value, future._decoded, future._settled, future._seen = value, True, True, True
        return future

    @classmethod
    def failed(cls, error: BaseException, *, task: str = "") -> Future[_R]:
        """A future outside any run, that has failed."""
        future = cls(None, task=task)
        future._error, future._settled, future._seen = error, True, True
        return future

    def __repr__(self) -> str:
        state = "running" if not self._settled else "failed" if self._error is not None else "succeeded"
        return f"<Future {self.step or self.task or '?'} {state}>"

    def _await(self, timeout: float | None) -> None:
        if not self._seen and not _wait_in_run([self], 1, timeout):
            raise TimeoutError(f"{self.task or 'the step'} has not ended within {timeout:g} seconds")


class FutureList(list[Future[_R]], Generic[_R]):
    """What `task.map` returns: one future per call, in the order of the calls."""

    def result(self, timeout: float | None = None) -> list[_R]:
        """All results, in order. Waits for all; then raises the first failure in order, if any. TimeoutError after
        `timeout` seconds."""
        if wait(self, timeout=timeout).not_done:
            raise TimeoutError(f"{len(self)} steps have not all ended within {timeout:g} seconds")
        return [future.result() for future in self]


class Waited(NamedTuple):
    """`done` in the order of completion, `not_done` in the order given."""

    done: list[Future[Any]]
    not_done: list[Future[Any]]


def wait(
    futures: Iterable[Future[Any]], timeout: float | None = None, return_when: ReturnWhen = "ALL_COMPLETED"
) -> Waited:
    """Wait for all of `futures`, for the first to end, or for the first failure; at most `timeout` seconds.

    Unlike `concurrent.futures.wait` it returns lists: their order is part of what replay repeats.
    """
    pending = _distinct(futures)
    if return_when == "ALL_COMPLETED":
        done = _wait_in_run(pending, len(pending), timeout)
    elif return_when == "FIRST_COMPLETED":
        done = _wait_in_run(pending, min(1, len(pending)), timeout)
    elif return_when == "FIRST_EXCEPTION":
        done = _until_failure(pending, timeout)
    else:
        raise ValueError(
            f"return_when={return_when!r}: must be 'ALL_COMPLETED', 'FIRST_COMPLETED' or 'FIRST_EXCEPTION'"
        )
    ended = set(map(id, done))
    return Waited(done, [future for future in pending if id(future) not in ended])


def as_completed(futures: Iterable[Future[_R]], timeout: float | None = None) -> Iterator[Future[_R]]:
    """The futures one by one as their steps end. TimeoutError when `timeout` seconds pass before the last one."""
    pending = _distinct(futures)
    deadline = None if timeout is None else time.monotonic() + timeout
    while pending:
        ended = _wait_in_run(pending, 1, _remaining(deadline))
        if not ended:
            raise TimeoutError(f"{len(pending)} steps have not ended within {timeout:g} seconds")
        for future in ended:
            pending.remove(future)
            yield future


def _until_failure(futures: Sequence[Future[Any]], timeout: float | None) -> list[Future[Any]]:
    """Waits again and again for one more. What is asked next depends on earlier answers only, never on the clock,
    so that a replay asks the same."""
    done: list[Future[Any]] = []
    pending = list(futures)
    deadline = None if timeout is None else time.monotonic() + timeout
    while pending:
        ended = _wait_in_run(pending, 1, _remaining(deadline))
        for future in ended:
            pending.remove(future)
        done += ended
        if not ended or any(future.failure is not None for future in ended):
            break
    return done


def _wait_in_run(futures: Sequence[Future[Any]], count: int, timeout: float | None) -> list[Future[Any]]:
    """`RunContext.wait` for the futures of a run, after those that need none. Marks what the workflow has now seen."""
    if timeout is not None and timeout < 0:
        timeout = 0.0
    ended = [future for future in futures if future._context is None]
    running = [future for future in futures if future._context is not None]
    count = min(count - len(ended), len(running))
    if count <= 0:
        return ended
    contexts = {id(future._context): future._context for future in running}
    if len(contexts) > 1:
        raise RuntimeError("these futures belong to different runs; wait for each run's futures on their own")
    context = contexts.popitem()[1]
    assert context is not None
    ended += context.wait(running, count=count, timeout_seconds=timeout)
    for future in ended:
        future._seen = True
    return ended


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _distinct(futures: Iterable[Future[_R]]) -> list[Future[_R]]:
    return list({id(future): future for future in futures}.values())
