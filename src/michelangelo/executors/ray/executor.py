"""Executor `ray`: each attempt is a Ray task of its own, on a local Ray that is started for the run, or in a cluster.

Ray starts when the first attempt asks for it, so a run without Ray tasks pays nothing. This module is the thread-safe
face; the work is done by one thread (supervisor.py), an agent process per Ray (worker/ray/agent.py), and the workers of
Ray, which call the task's function (worker/ray/attempt.py). A cluster's workers have to reach the blob store, and the
address of the driver's machine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from michelangelo import errors
from michelangelo.executors import outcomes, processes, scratch
from michelangelo.executors.base import Attempt, Outcome
from michelangelo.executors.ray import session, supervisor
from michelangelo.executors.ray.session import Terms

__all__ = ["RayExecutor"]

_CAPACITY: Final = 256


class RayExecutor:
    """Also has the capabilities Pending and Orphans."""

    def __init__(self, terms: Terms, *, address: str = "", capacity: int = _CAPACITY) -> None:
        """Starts nothing. `address` is of the cluster for tasks that name none; empty: a local Ray for the run."""
        self._terms = terms
        self._capacity = capacity
        self._lock = threading.Lock()
        self._unfinished: set[str] = set()
        self._pending: Mapping[str, str] = {}
        self._ended = outcomes.Outcomes()
        self._closed = False
        self._scratch = scratch.ScratchFolders(terms.run_id)
        self._supervisor = supervisor.Supervisor(
            terms, address, self._scratch, report=self._on_end, waiting=self._on_waiting
        )
        self._thread = threading.Thread(target=self._supervisor.run, name="ray-executor", daemon=True)

    @property
    def name(self) -> str:
        return "ray"

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def is_closed(self) -> bool:
        return self._closed

    def submit(self, attempt: Attempt) -> None:
        with self._lock:
            outcomes.check_can_take(
                "ray", attempt.id, self._unfinished, capacity=self._capacity, is_closed=self._closed
            )
            if importlib.util.find_spec("ray") is None:
                raise errors.ExecutorError(
                    f"attempt {attempt.id} cannot be taken: ray is not installed; pip install 'michelangelo-oss[ray]'"
                )
            if not self._thread.is_alive():
                self._thread.start()
            self._unfinished.add(attempt.id)
            self._supervisor.post(functools.partial(self._supervisor.start, attempt))

    def poll(self, timeout_seconds: float) -> Sequence[Outcome]:
        return self._ended.take(timeout_seconds)

    def pending(self) -> Mapping[str, str]:
        return self._pending

    def cancel(self, attempt_id: str, *, grace_seconds: float = 5.0) -> None:
        with self._lock:
            if not self._closed and self._thread.is_alive():
                self._supervisor.post(functools.partial(self._supervisor.cancel, attempt_id, grace_seconds))

    def wake(self) -> None:
        self._ended.wake()

    def close(self) -> None:
        with self._lock:
            is_first, self._closed = not self._closed, True
            if is_first:
                if not self._thread.is_alive():
                    self._thread.start()  # it owns the loop, and closes it
                self._supervisor.post(self._supervisor.stop)
        self._thread.join()
        self._scratch.close()

    def end_orphans(self) -> int:
        count = processes.end_marked(self._terms.run_id, processes.tree(os.getpid()))
        session.remove_left(self._terms.run_id, but=self._supervisor.folders)
        return count

    def _on_waiting(self, reasons: Mapping[str, str]) -> None:
        self._pending = reasons
        self.wake()

    def _on_end(self, outcome: Outcome) -> None:
        with self._lock:
            self._unfinished.discard(outcome.id)
        self._ended.put(outcome)
