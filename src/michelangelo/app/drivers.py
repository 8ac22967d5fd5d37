"""Driver processes: one per run, started here, each in a session of its own.

So a driver outlives whoever started it: the run's lease says who drives it, not this table. What a driver has to know
comes through its standard input, how to reach the platform among it; what it prints goes to `driver.log` beside the
run's logs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from michelangelo import errors
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object

__all__ = ["LocalDrivers"]

_GRACE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Started:
    process: subprocess.Popen[bytes]
    uid: str


class LocalDrivers:
    """`controllers.pipeline_run.Drivers` with processes of this machine."""

    def __init__(
        self,
        settings: Settings,
        access: Callable[[Object], Mapping[str, str]],
    ) -> None:
        """`access` says how the driver of a run reaches the platform: a server's URL, its authority and tokens; or
        nothing, for a driver that opens the home itself."""
        self._settings = settings
        self._access = access
        self._lock = threading.Lock()
        self._started: dict[tuple[str, str], _Started] = {}

    def start(self, run: Object) -> None:
        metadata = run["metadata"]
        key = (metadata["namespace"], metadata["name"])
        job = {
            **self._access(run),
            "namespace": metadata["namespace"],
            "run": metadata["name"],
            "settings": self._settings.to_json(),
        }
        folder = self._settings.logs / key[0] / key[1]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / "driver.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "michelangelo.app.driver"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(job).encode())
        except OSError as error:
            raise errors.ExecutorError(f"no driver for run {key[1]} can be started: {error}") from error
        with self._lock:
            self._started[key] = _Started(process, metadata["uid"])

    def is_alive(self, namespace: str, name: str) -> bool:
        with self._lock:
            started = self._started.get((namespace, name))
            if started is None:
                return False
            if started.process.poll() is None:
                return True
            del self._started[(namespace, name)]
            return False

    def stop(self, namespace: str, name: str) -> None:
        with self._lock:
            started = self._started.get((namespace, name))
        if started is not None and started.process.poll() is None:
            started.process.terminate()
            # Nobody waits here; a driver that does not listen is ended by the timer.
            timer = threading.Timer(_GRACE_SECONDS, started.process.kill)
            timer.daemon = True
            timer.start()

    def wait(self, namespace: str, name: str, timeout_seconds: float) -> None:
        """Until the driver that was started here for the run has ended, or the time is over."""
        with self._lock:
            started = self._started.get((namespace, name))
        if started is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(timeout_seconds)

    def close(self) -> None:
        """End them all, so that their runs can go on elsewhere, and wait for it."""
        with self._lock:
            started, self._started = list(self._started.values()), {}
        for one in started:
            if one.process.poll() is None:
                one.process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for one in started:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
