"""Runs one attempt where it is called: loads the function, decodes the arguments, calls, encodes the result.

Whatever the user's code does comes back as an Outcome, never as an exception. It knows nothing of processes, pipes and
logs: worker/child.py runs it in a process, the in-process executor in a thread.
"""

from __future__ import annotations

import contextlib
import inspect
import linecache
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.uniflow import codecs, source, task_context
from michelangelo.uniflow.task import Task
from michelangelo.worker import failure, secrets

__all__ = ["Caller"]


class Caller:
    """Runs attempts against one blob store, which it opens when the first asks for it. Any thread."""

    def __init__(self, open_store: Callable[[], BlobStore]) -> None:
        self._open_store = open_store
        self._store: BlobStore | None = None
        self._loading = threading.RLock()

    def __call__(self, attempt: Attempt) -> Outcome:
        """How the attempt ended: SUCCEEDED with the encoded result, or FAILED with the JSON form of the failure."""
        try:
            return self._run(attempt)
        except BaseException as e:  # noqa: BLE001 - the outermost loop of a task: all that user code raises is reported
            return Outcome(id=attempt.id, state=AttemptState.FAILED, error=failure.from_exception(e))

    def open_store(self) -> BlobStore:
        """The blob store; opened ahead of the first attempt, it need not be opened in each forked process."""
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _run(self, attempt: Attempt) -> Outcome:
        folder = str(attempt.context.get("scratch", ""))
        with _scratch(folder), secrets.handed(attempt.secrets, folder):
            return self._call(attempt)

    def _call(self, attempt: Attempt) -> Outcome:
        target = attempt.target
        with self._loading:  # so that no thread finds a module that another is still importing
            found = source.load_function(source.Target(target.path, target.module, target.qualname))
        task = found if isinstance(found, Task) else None
        function: Callable[..., Any] = found if task is None else task.fn
        pickling = task is not None and task.options.io == "pickle"
        store = self.open_store()
        name = target.qualname if task is None else task.name
        context = task_context.TaskContext(**{"task": name, **attempt.context, "attempt_id": attempt.id})
        with task_context.entered(context):
            args, kwargs = codecs.decode_arguments(attempt.arguments, store, fn=function, allow_pickle=pickling)
            result = function(*args, **kwargs)
            try:
                output = codecs.encode(result, store, io="pickle" if pickling else None)
            except (errors.CodecError, errors.StorageError) as e:
                error = failure.from_exception(type(e)(f"the result of {name}: {e.message}"))
                return Outcome(id=attempt.id, state=AttemptState.FAILED, error={**error, **_definition(function)})
        return Outcome(id=attempt.id, state=AttemptState.SUCCEEDED, output=output)


@contextlib.contextmanager
def _scratch(folder: str) -> Iterator[None]:
    """The attempt's folder for temporary files exists for the length of the block."""
    if folder:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        if folder:
            try:
                os.rmdir(folder)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)


def _definition(function: Callable[..., Any]) -> dict[str, Any]:
    """Where a function is defined, in the form of a failure: a result that cannot be sent has no line of its own."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return {}
    line = code.co_firstlineno
    source_line = linecache.getline(code.co_filename, line).strip()
    return {"file": code.co_filename, "line": line, "function": code.co_name, "source": source_line}
