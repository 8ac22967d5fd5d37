"""A sandbox: a whole platform of its own in one folder, served in the background; made, stopped and removed as one.

A folder that it did not make itself it never removes, and it sends signals only to a process that is certainly the one
that the sandbox started. What the command line shows of it is `cli.sandbox`'s business.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from michelangelo import errors
from michelangelo.app import sandbox_server
from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings
from michelangelo.runtime import leases
from michelangelo.runtime.processes import Identity

__all__ = ["Running", "Sandbox"]

_MARKER: Final = ".michelangelo-sandbox"
_STOP_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """The server of a sandbox."""

    identity: Identity
    url: str
    kubeconfig: str


class Sandbox:
    """The one sandbox of a home folder, in its folder `sandbox`. Several programs may use it at the same time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = dataclasses.replace(settings, home=settings.home / "sandbox", api_server="")

    @property
    def home(self) -> Path:
        return self._settings.home

    @property
    def exists(self) -> bool:
        return (self.home / _MARKER).exists()

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def create(self) -> bool:
        """Make the folder where there is none; whether it was made. Raises SettingsError for one of somebody else."""
        if self.exists:
            return False
        if self.home.exists() and any(self.home.iterdir()):
            raise errors.SettingsError(f"{self.home} is no sandbox, and not empty: move it, or set another MA_HOME")
        self._settings.prepare_home()
        (self.home / _MARKER).touch()
        return True

    def running(self) -> Running | None:
        """Its server; None when there is none. Raises UnavailableError for one that is only starting."""
        if not sandbox_server.is_locked(self.home):
            return None
        found = self._record()
        identity = Identity.parse(found.get("identity", ""))
        if identity is None or "url" not in found:
            raise errors.UnavailableError(f"the server of the sandbox is starting; see {self.log}")
        return Running(identity, found["url"], found["kubeconfig"])

    def start(self, *, timeout_seconds: float) -> Running:
        """The server, started where none runs. Raises SettingsError without a sandbox, UnavailableError when it does
        not start in time."""
        if not self.exists:
            raise errors.SettingsError("there is no sandbox; make one: `ma sandbox create`")
        deadline = time.monotonic() + timeout_seconds
        if not sandbox_server.is_locked(self.home):
            # Another port is better than none; should somebody else take it meanwhile, there is a second try.
            port = self._settings.port if _is_free(self._settings.host, self._settings.port) else 0
            told = self._launch(port, deadline)
            if told != sandbox_server.READY and port:
                told = self._launch(0, deadline)
            if told != sandbox_server.READY and not sandbox_server.is_locked(self.home):
                raise errors.UnavailableError(f"the server of the sandbox did not start: {told}; see {self.log}")
        while time.monotonic() < deadline:
            try:
                found = self.running()
            except errors.UnavailableError:
                time.sleep(_PAUSE_SECONDS)
                continue
            if found is None:
                break
            return found
        raise errors.UnavailableError(f"the server of the sandbox did not start in time; see {self.log}")

    def stop(self) -> bool:
        """End the server, and the drivers that it left; whether there was one. Raises UnavailableError when nobody can
        tell for certain which process it is."""
        found = sandbox_server.is_locked(self.home)
        if found:
            identity = Identity.parse(self._record().get("identity", ""))
            if identity is None or not identity.is_provably_alive:
                raise errors.UnavailableError(
                    f"a server holds {self.home / sandbox_server.LOCK}, but which process it is cannot be told; end it "
                    "yourself"
                )
            _end(identity)
        if self._settings.database.exists():
            for identity in self._driving():
                _end(identity)
        return found

    def delete(self) -> bool:
        """End everything and remove the folder; whether there was one. Raises SettingsError for a folder of somebody
        else, UnavailableError."""
        if not self.exists:
            if self.home.exists() and any(self.home.iterdir()):
                raise errors.SettingsError(f"{self.home} is no sandbox: it was not made here, so it is not removed")
            return False
        self.stop()
        try:
            for entry in self.home.iterdir():
                if entry.name != _MARKER:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            # Last: what is interrupted in between can be deleted again.
            (self.home / _MARKER).unlink()
            self.home.rmdir()
        except OSError as error:
            raise errors.SettingsError(f"{self.home} cannot be removed: {error}") from error
        return True

    def _record(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads((self.home / sandbox_server.RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def _launch(self, port: int, deadline: float) -> str:
        """Start the server; the line that it tells, or why it tells none."""
        chosen = dataclasses.replace(self._settings, port=port)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "michelangelo.app.sandbox_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin as stdin, process.stdout as stdout:
            stdin.write(json.dumps(chosen.to_json()).encode())
            stdin.close()
            readable, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            line = stdout.readline().decode().strip() if readable else ""
        if line == sandbox_server.READY:
            process.returncode = 0  # It goes on without us: nothing is to be waited for.
            return line
        if not readable:
            process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return line or ("it ended without a word" if readable else "it took too long")

    def _driving(self) -> list[Identity]:
        """The processes that drive runs of the sandbox: a server that was killed leaves them."""
        with Platform.open(self._settings) as platform:
            held = platform.client.list("Lease").items
        found = [Identity.parse(leases.holder_of(lease)) for lease in held]
        own = os.getpid()
        return [one for one in found if one is not None and one.is_provably_alive and one.pid != own]


def _end(identity: Identity) -> None:
    """SIGTERM, and SIGKILL for one that does not listen; only as long as it certainly is that process."""
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        deadline = time.monotonic() + seconds
        if identity.is_provably_alive:
            try:
                os.kill(identity.pid, number)
            except ProcessLookupError:
                return
        while identity.is_provably_alive and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        if not identity.is_provably_alive:
            return
    raise errors.UnavailableError(f"process {identity.pid} does not end")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
