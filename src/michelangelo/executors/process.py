"""The default executor: a fresh process per attempt, forked from a small single-threaded zygote.

Nothing leaks from one attempt to the next, a start costs milliseconds, and an attempt can be ended whatever it does:
its process leads a group of its own, and what it started ends with it. This module is the thread-safe face; the work is
done by a thread (executors/supervisor.py), the zygote (worker/zygote.py) and the processes it forks, once for our own
Python and once per environment in use (executors/installing.py).

It does not isolate users from each other: every attempt runs with the rights of whoever started the run.

Memory: while an attempt has a limit, the sizes of its process tree are read ten times a second (the sum of the resident
sizes; for several processes over the limit, of the proportional ones). An attempt over its limit gets SIGKILL.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence

from michelangelo import errors
from michelangelo.executors import installing, launch, logs, outcomes, processes, scratch, supervisor, workplace
from michelangelo.executors.base import Attempt, Outcome

__all__ = ["ProcessExecutor"]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class ProcessExecutor:
    """Executor `process`; also has the capabilities Orphans and Pending."""

    def __init__(
        self,
        *,
        run_id: str,
        blobs_url: str,
        capacity: int = 0,
        log_limit_bytes: int = logs.DEFAULT_LIMIT_BYTES,
        memory_limit_bytes: int = 0,
        interpreter: launch.Interpreter | None = None,
        environments_folder: str = "",
    ) -> None:
        """Starts the zygote and does not wait for it.

        `run_id` marks every process of the run, for `end_orphans` of a later driver; `blobs_url` is where tasks find
        and leave their data; `capacity` 0 means the number of processors, at least 2; `memory_limit_bytes` is for
        attempts that set no limit (0: none); `environments_folder` keeps the environments of attempts with requirements
        (empty: such attempts are refused).
        """
        interpreter = interpreter or launch.Interpreter()
        self._run_id = run_id
        self._capacity = capacity or max(2, _processor_count())
        self._lock = threading.Lock()
        self._unfinished: set[str] = set()
        self._ended = outcomes.Outcomes()
        self._closed = False
        limits = supervisor.Limits(log_bytes=log_limit_bytes, memory_bytes=memory_limit_bytes)
        terms = workplace.Terms(run_id, blobs_url, limits, self._on_end, self._end_strays)
        self._ours = workplace.Workplace(terms, interpreter)
        self._installing = (
            installing.Installing(environments_folder, terms, interpreter, self.wake) if environments_folder else None
        )

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
                self._ours.prepare(key)

    def submit(self, attempt: Attempt) -> None:
        with self._lock:
            is_closed = self._closed or not self._ours.is_alive
            outcomes.check_can_take(
                "process", attempt.id, self._unfinished, capacity=self._capacity, is_closed=is_closed
            )
            if attempt.requirements and self._installing is None:
                raise errors.ExecutorError(
                    f"attempt {attempt.id} cannot be taken: it has requirements, and this executor has no folder to "
                    "keep environments in"
                )
            attempt = _with_thread_counts(attempt)
            self._unfinished.add(attempt.id)
            if attempt.requirements and self._installing is not None:
                self._installing.start(attempt)
            else:
                self._ours.start(attempt)

    def poll(self, timeout_seconds: float) -> Sequence[Outcome]:
        return self._ended.take(timeout_seconds)

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        with self._lock:
            if not self._closed:
                self._ours.cancel(attempt_id, grace_seconds)
        if self._installing is not None:
            self._installing.cancel(attempt_id, grace_seconds)

    def pending(self) -> Mapping[str, str]:
        return {} if self._installing is None else self._installing.pending()

    def wake(self) -> None:
        self._ended.wake()

    def close(self) -> None:
        with self._lock:
            is_first, self._closed = not self._closed, True
        if is_first:
            self._ours.stop()
            if self._installing is not None:
                self._installing.close()
        self._ours.close()

    def end_orphans(self) -> int:
        count = self._end_strays()
        others = [] if self._installing is None else self._installing.scratch_folders()
        scratch.remove_left(self._run_id, but=[self._ours.scratch_folder, *others])
        return count

    def _end_strays(self) -> int:
        return processes.end_marked(self._run_id, processes.tree(os.getpid()))

    def _on_end(self, outcome: Outcome) -> None:
        with self._lock:
            self._unfinished.discard(outcome.id)
        self._ended.put(outcome)


def _with_thread_counts(attempt: Attempt) -> Attempt:
    """A task that says how many cores it uses gets numerical libraries that start as many threads."""
    cpu = attempt.config.get("cpu")
    if not cpu:
        return attempt
    counts = dict.fromkeys(_THREAD_VARIABLES, str(max(1, int(cpu))))
    return dataclasses.replace(attempt, environment={**counts, **attempt.environment})


def _processor_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
