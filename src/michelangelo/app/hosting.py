"""What executes the tasks of one run, put together from the settings: the same for every host of a driver.

It is started first, before anything heavy is imported: the zygote gets ready meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from michelangelo.app.settings import Settings
from michelangelo.blobs import opening
from michelangelo.executors.base import Executor
from michelangelo.executors.inprocess import InProcessExecutor
from michelangelo.executors.process import ProcessExecutor
from michelangelo.uniflow import config
from michelangelo.uniflow.source import Target
from michelangelo.worker.call import Caller

__all__ = ["TaskHost", "log_folder"]


class TaskHost:
    """The executors of one run; `close` leaves no process and no thread behind."""

    def __init__(self, settings: Settings, run: str, blobs_url: str, target: Target | None = None) -> None:
        """`target`: the workflow, whose module the zygote imports ahead."""
        log_limit = config.memory_bytes(settings.log_limit)
        self._process = ProcessExecutor(
            run_id=run,
            blobs_url=blobs_url,
            capacity=settings.task_slots,
            log_limit_bytes=log_limit,
            memory_limit_bytes=config.memory_bytes(settings.task_memory) if settings.task_memory else 0,
            environments_folder=str(settings.environments),
        )
        if target is not None:
            self._process.prepare(target.path, target.module)
        self._inprocess = InProcessExecutor(
            Caller(lambda: opening.open_blob_store(blobs_url)), run_id=run, log_limit_bytes=log_limit
        )

    @property
    def executors(self) -> dict[str, Executor]:
        return {"process": self._process, "inprocess": self._inprocess}

    def close(self) -> None:
        self._process.close()
        self._inprocess.close()


def log_folder(logs: Path, project: str, run: str) -> str:
    """Where the logs of a run's attempts lie."""
    return str(logs / project / run)
