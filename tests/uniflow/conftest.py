"""A run in memory, for the SDK's side: tasks are executed when the workflow waits, in an order that a test sets.

It is a fake of the engine, not a mock: it keeps the promises of `runner.RunContext` (exactly the first `count` without
a timeout, completion order, failures and dependencies) and journals nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.errors import UserCodeError
from michelangelo.uniflow import codecs, retry, runner, task_context
from michelangelo.uniflow.future import Future
from michelangelo.uniflow.runner import RunRequest
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow


class MemoryRun:
    """`order` picks, among the futures that may end next, the one that does."""

    def __init__(self) -> None:
        self.run_name, self.project = "run-1", "local"
        self.blobs = MemoryBlobStore()
        self.order: Callable[[Sequence[Future[Any]]], Future[Any]] = lambda waiting: waiting[0]
        self.ended: list[Future[Any]] = []
        self.calls: dict[int, tuple[Future[Any], Task[..., Any], Any, Any]] = {}
        self.scopes: list[str] = []
        self.slept: list[float] = []
        self.signals: list[Any] = []
        self.seconds_left = float("inf")

    def submit(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Any]:
        future = Future[Any](self, task=task.name, step=f"{task.name}#{len(self.calls)}")
        self.calls[id(future)] = (future, task, args, kwargs)
        return future

    def submit_run(self, request: RunRequest, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Future[Any]:
        future = Future[Any](self, task=request.pipeline, step=f"{request.pipeline}#{len(self.calls)}")
        future.settle({"status": {"state": "Succeeded"}, "result": {"args": list(args), **kwargs}}, lambda tree: tree)
        return future

    def call_workflow(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self.scopes.append(workflow.name)
        return workflow.fn(*args, **kwargs)

    def wait(
        self, futures: Sequence[Future[Any]], *, count: int, timeout_seconds: float | None = None
    ) -> list[Future[Any]]:
        while sum(future.settled for future in futures) < count and timeout_seconds != 0:
            if timeout_seconds is not None and self.seconds_left < timeout_seconds:
                break
            waiting = [future for future, *_ in self.calls.values() if not future.settled]
            self._execute(self.order(waiting))
        return [future for future in self.ended if future in futures][:count]

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def wait_for_signal(self, name: str, *, timeout_seconds: float | None = None) -> Any:
        if not self.signals:
            raise TimeoutError(name)
        return self.signals.pop(0)

    def now(self) -> datetime:
        return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.slept))

    def derive(self, purpose: str) -> bytes:
        return hashlib.sha256(f"{self.run_name} {purpose}".encode()).digest()

    def _execute(self, future: Future[Any]) -> None:
        _, task, args, kwargs = self.calls[id(future)]
        for dependency in codecs.futures_in([args, kwargs]):
            if not dependency.settled:
                self._execute(dependency)
            if dependency.failure is not None:
                future.fail(dependency.failure)
                self.ended.append(future)
                return
        encoded = codecs.encode_arguments(args, kwargs, self.blobs)
        real_args, real_kwargs = codecs.decode_arguments(encoded, self.blobs, fn=task.fn)
        try:
            with task_context.entered(task_context.TaskContext(task=task.name)):
                output = codecs.encode(task.fn(*real_args, **real_kwargs), self.blobs, io=task.options.io)
        except ValueError as error:
            future.fail(UserCodeError(str(error), task=task.name, cause_types=retry.type_names(error)))
        else:
            future.settle(output, lambda tree: codecs.decode(tree, self.blobs, data=False))
        self.ended.append(future)


@pytest.fixture
def run() -> Iterator[MemoryRun]:
    """A run that this thread is in."""
    context = MemoryRun()
    runner.enter_run(context)
    yield context
    runner.leave_run(context)
