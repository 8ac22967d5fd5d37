"""Runs one attempt where it is called: loads the function, decodes the arguments, calls, encodes the result.

Whatever the user's code does comes back as an Outcome, never as an exception. It knows nothing of processes, pipes and
logs: worker/child.py runs it in a process, the in-process executor in a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.uniflow import codecs, source, task_context
from michelangelo.uniflow.task import Task
from michelangelo.worker import failure

__all__ = ["Caller"]


class Caller:
    """Runs attempts against one blob store, which it opens when the first asks for it. Any thread."""

    def __init__(self, open_store: Callable[[], BlobStore]) -> None:
        self._open_store = open_store
        self._store: BlobStore | None = None

    def __call__(self, attempt: Attempt) -> Outcome:
        """How the attempt ended: SUCCEEDED with the encoded result, or FAILED with the JSON form of the failure."""
        try:
            output = self._run(attempt)
        except BaseException as e:  # noqa: BLE001 - the outermost loop of a task: all that user code raises is reported
            return Outcome(id=attempt.id, state=AttemptState.FAILED, error=failure.from_exception(e))
        return Outcome(id=attempt.id, state=AttemptState.SUCCEEDED, output=output)

    def open_store(self) -> BlobStore:
        """The blob store; opened ahead of the first attempt, it need not be opened in each forked process."""
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _run(self, attempt: Attempt) -> Any:
        target = attempt.target
        found = source.load_function(source.Target(target.path, target.module, target.qualname))
        task = found if isinstance(found, Task) else None
        function: Callable[..., Any] = found if task is None else task.fn
        pickling = task is not None and task.options.io == "pickle"
        store = self.open_store()
        args, kwargs = codecs.decode_arguments(attempt.arguments, store, fn=function, allow_pickle=pickling)
        name = target.qualname if task is None else task.name
        with task_context.entered(
            task_context.TaskContext(**{"task": name, **attempt.context, "attempt_id": attempt.id})
        ):
            result = function(*args, **kwargs)
            try:
                return codecs.encode(result, store, io="pickle" if pickling else None)
            except errors.CodecError as e:
                e.add_note(f"the result of {name}")
                raise errors.CodecError(f"the result of {name} {_place(function)}: {e.message}") from e


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""
