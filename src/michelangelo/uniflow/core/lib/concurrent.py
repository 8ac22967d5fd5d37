"""Upstream's `lib.concurrent`: tasks, and runs of pipelines, that go on side by side.

What is called decides: a task becomes a step that runs while the workflow goes on; so does `run_pipeline`. Any other
callable, such as a workflow, is the workflow's own code and runs at once, to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable as AnyCallable
from collections.abc import Iterable
from typing import Any, final

from michelangelo.uniflow import future as futures
from michelangelo.uniflow import pipelines
from michelangelo.uniflow.plugins.pipeline import runs
from michelangelo.uniflow.task import Task

__all__ = ["BatchFuture", "Callable", "Future", "batch_run", "new_callable", "run"]


@final
class Callable:
    """A function with its arguments, to be called later."""

    def __init__(self, fn: AnyCallable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def __call__(self) -> Any:
        return self.fn(*self.args, **self.kwargs)


@final
class Future:
    """The result of a call that may still be running, or wait for its turn."""

    def __init__(self, batch: BatchFuture, call: Callable) -> None:
        self._batch = batch
        self._call = call
        self.begun: futures.Future[Any] | None = None
        """The step; None as long as the call waits for its turn."""

    def result(self) -> Any:
        """Waits for it; raises what the call raised."""
        found = self._batch.begun(self).result()
        return runs.told(found) if self._call.fn is runs.run_pipeline else found

    def done(self) -> bool:
        self._batch.launch()
        return self.begun is not None and self.begun.done()

    def begin(self) -> futures.Future[Any]:
        self.begun = _begin(self._call)
        return self.begun


@final
class BatchFuture:
    """The results of several calls. Of more calls than `max_concurrency` the rest begin as the first ones end, while
    somebody waits for a result."""

    def __init__(self, calls: Iterable[Callable], max_concurrency: int | None) -> None:
        self._futures = [Future(self, call) for call in calls]
        self._waiting = deque(self._futures)
        self._running: list[futures.Future[Any]] = []
        self._room = max_concurrency or len(self._futures)
        self.launch()

    def get(self) -> list[Any]:
        """All results, in the order of the calls; waits for them. Raises the first failure in that order."""
        while self._waiting:
            self._advance()
        futures.wait(self._running)
        return [one.result() for one in self._futures]

    def is_ready(self) -> bool:
        """Whether all calls have ended."""
        return all(one.done() for one in self._futures)

    def get_futures(self) -> list[Future]:
        return list(self._futures)

    def begun(self, one: Future) -> futures.Future[Any]:
        """The step of a call, when it has had its turn."""
        while one.begun is None:
            self._advance()
        return one.begun

    def launch(self) -> None:
        """Begin what there is room for."""
        self._running = [one for one in self._running if not one.done()] if self._waiting else self._running
        while self._waiting and len(self._running) < self._room:
            self._running.append(self._waiting.popleft().begin())

    def _advance(self) -> None:
        """Wait until one call has ended, and begin another."""
        if self._running:
            waited = futures.wait(self._running, return_when="FIRST_COMPLETED")
            self._running = waited.not_done
        while self._waiting and len(self._running) < self._room:
            self._running.append(self._waiting.popleft().begin())


def run(fn: AnyCallable[..., Any], *args: Any, **kwargs: Any) -> Future:
    """Begin a call and go on."""
    return BatchFuture([_callable(fn, args, kwargs)], None).get_futures()[0]


def new_callable(fn: AnyCallable[..., Any], *args: Any, **kwargs: Any) -> Callable:
    """A call for `batch_run`, or for later."""
    return _callable(fn, args, kwargs)


def batch_run(callables: Iterable[AnyCallable[..., Any]], max_concurrency: int | None = None) -> BatchFuture:
    """Begin calls, at most `max_concurrency` at a time (None: all at once)."""
    if max_concurrency is not None and (isinstance(max_concurrency, bool) or max_concurrency < 1):
        raise ValueError(f"batch_run(max_concurrency={max_concurrency!r}): must be 1 or more, or None")
    return BatchFuture([_callable(one, (), {}) for one in callables], max_concurrency)


def _callable(fn: AnyCallable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable:
    if not callable(fn):
        raise TypeError(f"{fn!r} cannot be called: give the function, and its arguments after it")
    if isinstance(fn, Callable):
        return Callable(fn.fn, (*fn.args, *args), {**fn.kwargs, **kwargs})
    return Callable(fn, args, kwargs)


def _begin(call: Callable) -> futures.Future[Any]:
    if isinstance(call.fn, Task):
        return call.fn.submit(*call.args, **call.kwargs)
    if call.fn is pipelines.run_pipeline:
        return pipelines.submit_pipeline(*call.args, **call.kwargs)
    if call.fn is runs.run_pipeline:
        return runs.submit_pipeline(*call.args, **call.kwargs)
    try:
        return futures.Future.completed(call())
    except Exception as error:  # noqa: BLE001 - it is raised again where the result is asked for
        return futures.Future.failed(error)
