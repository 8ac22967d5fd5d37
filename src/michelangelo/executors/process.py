"""The default executor: a fresh process per attempt, forked from a small single-threaded zygote.

Nothing leaks from one attempt to the next, a start costs milliseconds, and an attempt can be ended whatever it does:
its process leads a group of its own, and what it started ends with it. This module is the thread-safe face; the work is
done by one thread (executors/supervisor.py), the zygote (worker/zygote.py) and the processes it forks.

It does not isolate users from each other: every attempt runs with the rights of whoever started the run.

Memory: while an attempt has a limit, the sizes of its process tree are read ten times a second (the sum of the resident
sizes; for several processes over the limit, of the proportional ones). An attempt over its limit gets SIGKILL.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Mapping, Sequence

from michelangelo import errors
from michelangelo.executors import launch, logs, processes, scratch, supervisor
from michelangelo.executors.base import Attempt, Outcome

__all__ = ["ProcessExecutor"]


class ProcessExecutor:
    """Executor `process`; also has the capability Orphans."""

    def __init__(
        self,
        *,
        run_id: str,
        blobs_url: str,
        capacity: int = 0,
        log_limit_bytes: int = logs.DEFAULT_LIMIT_BYTES,
        memory_limit_bytes: int = 0,
        interpreter: launch.Interpreter | None = None,
    ) -> None:
        """Starts the zygote and does not wait for it.

        `run_id` marks every process of the run, for `end_orphans` of a later driver; `blobs_url` is where tasks find
        and leave their data; `capacity` 0 means the number of processors, at least 2; `memory_limit_bytes` is for
        attempts that set no limit (0: none).
        """
        interpreter = interpreter or launch.Interpreter()
        self._run_id = run_id
        self._capacity = capacity or max(2, _processor_count())
        self._lock = threading.Lock()
        self._unfinished: set[str] = set()
        self._ended: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._closed = False
        self._scratch = scratch.ScratchFolders(run_id)
        self._supervisor = supervisor.Supervisor(
            functools.partial(
                launch.ZygoteProcess, interpreter, run_id=run_id, blobs_url=blobs_url, scratch=self._scratch.root
            ),
            supervisor.Limits(log_bytes=log_limit_bytes, memory_bytes=memory_limit_bytes),
            self._on_end,
            scratch_folders=self._scratch,
            end_strays=self._end_strays,
            with_templates=interpreter.start_method == "fork",
        )
        self._thread = threading.Thread(target=self._supervisor.run, name="process-executor", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return "process"

    @property
    def capacity(self) -> int:
        return self._capacity

    def prepare(self, path: str, module: str, environment: Mapping[str, str] | None = None) -> None:
        """Begin to import the user's module `module` from the file `path`, so that the first attempt finds it ready."""
        key = (path, module, tuple(sorted((environment or {}).items())))
        with self._lock:
            if not self._closed:
                self._supervisor.post(functools.partial(self._supervisor.prepare, key))

    def submit(self, attempt: Attempt) -> None:
        with self._lock:
            if self._closed or not self._thread.is_alive():
                raise errors.ExecutorError(f"attempt {attempt.id} cannot be taken: the process executor is closed")
            if attempt.id in self._unfinished:
                raise errors.ExecutorError(f"attempt {attempt.id} is running already")
            if len(self._unfinished) >= self._capacity:
                raise errors.ExecutorError(
                    f"attempt {attempt.id} cannot be taken: {self._capacity} are running, which is the capacity; "
                    "submit it when one has ended"
                )
            self._unfinished.add(attempt.id)
            self._supervisor.post(functools.partial(self._supervisor.start, attempt))

    def poll(self, timeout_seconds: float) -> Sequence[Outcome]:
        found: list[Outcome | None] = []
        try:
            found.append(self._ended.get(timeout=max(0.0, timeout_seconds)))
            while True:
                found.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        return [outcome for outcome in found if outcome is not None]

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        with self._lock:
            if not self._closed:
                self._supervisor.post(functools.partial(self._supervisor.cancel, attempt_id, grace_seconds))

    def wake(self) -> None:
        self._ended.put(None)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._supervisor.post(self._supervisor.stop)
        self._thread.join()
        self._scratch.close()

    def end_orphans(self) -> int:
        count = self._end_strays()
        scratch.remove_left(self._run_id, but=self._scratch.root)
        return count

    def _end_strays(self) -> int:
        return processes.end_marked(self._run_id, processes.tree(os.getpid()))

    def _on_end(self, outcome: Outcome) -> None:
        with self._lock:
            self._unfinished.discard(outcome.id)
        self._ended.put(outcome)


def _processor_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
