"""Where attempts run in processes of one interpreter: a supervisor with its thread, its zygotes and temporary folders.

The process executor (executors/process.py) has one for our own Python and one for each environment in use.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass

from michelangelo.executors import launch, scratch, supervisor
from michelangelo.executors.base import Attempt, Outcome

__all__ = ["Terms", "Workplace"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What all workplaces of an executor have in common."""

    run_id: str
    blobs_url: str
    limits: supervisor.Limits
    report: Callable[[Outcome], None]
    end_strays: Callable[[], object]


class Workplace:
    """Starts its zygote and does not wait for it. Any thread; nothing but `close` takes long."""

    def __init__(self, terms: Terms, interpreter: launch.Interpreter) -> None:
        self._scratch = scratch.ScratchFolders(terms.run_id)
        self._supervisor = supervisor.Supervisor(
            functools.partial(
                launch.ZygoteProcess,
                interpreter,
                run_id=terms.run_id,
                blobs_url=terms.blobs_url,
                scratch=self._scratch.root,
            ),
            terms.limits,
            terms.report,
            scratch_folders=self._scratch,
            end_strays=terms.end_strays,
            with_templates=interpreter.start_method == "fork",
        )
        self._thread = threading.Thread(target=self._supervisor.run, name="process-executor", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def scratch_folder(self) -> str:
        return self._scratch.root

    def prepare(self, key: supervisor.TemplateKey) -> None:
        self._supervisor.post(functools.partial(self._supervisor.prepare, key))

    def start(self, attempt: Attempt) -> None:
        self._supervisor.post(functools.partial(self._supervisor.start, attempt))

    def cancel(self, attempt_id: str, grace_seconds: float) -> None:
        """One that is not here is no error."""
        self._supervisor.post(functools.partial(self._supervisor.cancel, attempt_id, grace_seconds))

    def stop(self) -> None:
        """Begin to end everything; `close` waits for it."""
        self._supervisor.post(self._supervisor.stop)

    def close(self) -> None:
        """After `stop`: wait until everything has ended, and remove the temporary folders."""
        self._thread.join()
        self._scratch.close()
