"""Driver processes of a server: one per run that it drives, started here, each in a session of its own.

So a driver outlives its server: the run's lease says who drives it, not this table. What a driver has to know comes
through its standard input, a token for its one run among it; what it prints goes to `driver.log` beside the run's logs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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
        *,
        server: Callable[[], str],
        authority: str,
        issue_token: Callable[[Object, bool], str],
    ) -> None:
        """`server` gives the URL once it is known; `authority` is the PEM to trust; `issue_token` makes the token of a
        run, which may only read where its second argument says so."""
        self._settings = settings
        self._server = server
        self._authority = authority
        self._issue_token = issue_token
        self._lock = threading.Lock()
        self._started: dict[tuple[str, str], _Started] = {}

    def start(self, run: Object) -> None:
        metadata = run["metadata"]
        key = (metadata["namespace"], metadata["name"])
        job = {
            "server": self._server(),
            "authority": self._authority,
            "token": self._issue_token(run, False),
            "namespace": metadata["namespace"],
            "run": metadata["name"],
            "settings": self._settings.to_json(),
        }
        earlier = ((run["spec"].get("resume") or {}).get("pipelineRun") or {}).get("name")
        if earlier:
            job["earlier_token"] = self._issue_token({"metadata": {**metadata, "name": earlier}}, True)
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
