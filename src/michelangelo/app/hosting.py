"""What executes the tasks of one run, put together from the settings: the same for every host of a driver.

It is started first, before anything heavy is imported: the zygote gets ready meanwhile.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

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

        self._executors = _Executors(
            {"process": self._process, "inprocess": self._inprocess},
            {"ray": functools.partial(_ray_executor, settings, run, blobs_url)},
        )

    @property
    def executors(self) -> Mapping[str, Executor]:
        return self._executors

    def close(self) -> None:
        for executor in self._executors.made():
            executor.close()


class _Executors(Mapping[str, Executor]):
    """Executors by name; some are made, and their modules loaded, only when they are asked for."""

    def __init__(self, made: dict[str, Executor], makers: Mapping[str, Callable[[], Executor]]) -> None:
        self._made = made
        self._makers = makers
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Executor:
        with self._lock:
            if name not in self._made:
                self._made[name] = self._makers[name]()
            return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._made, **self._makers})

    def __len__(self) -> int:
        return len({**self._made, **self._makers})

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._makers

    def made(self) -> list[Executor]:
        with self._lock:
            return list(self._made.values())


def _ray_executor(settings: Settings, run: str, blobs_url: str) -> Executor:
    executor = importlib.import_module("michelangelo.executors.ray.executor")
    session = importlib.import_module("michelangelo.executors.ray.session")
    terms = session.Terms(
        run_id=run,
        blobs_url=blobs_url,
        log_limit_bytes=config.memory_bytes(settings.log_limit),
        memory_limit_bytes=config.memory_bytes(settings.task_memory) if settings.task_memory else 0,
        start_seconds=float(settings.ray_start_seconds),
    )
    return cast(Executor, executor.RayExecutor(terms, address=settings.ray_address))


def log_folder(logs: Path, project: str, run: str) -> str:
    """Where the logs of a run's attempts lie."""
    return str(logs / project / run)
