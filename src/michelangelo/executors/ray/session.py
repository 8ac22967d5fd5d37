"""One Ray as the driver sees it: the agent process that speaks with it, and the folder of a local one.

The agent (worker/ray/agent.py) starts the local Ray, or connects to a cluster, and ends with the channel to it, and
everything it has started with it. The messages, all JSON (executors/wire.py):

Driver to agent                                Agent to driver
  hello   how to set itself up                   ready     it can take attempts
  start   an attempt                             broken    no Ray, and why; it ends
  cancel  an attempt                             pending   attempts that have not started, with the reasons
                                                 ended     the outcome of an attempt
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from michelangelo.executors import processes, wire
from michelangelo.executors.ray.request import Offer

__all__ = ["Session", "Terms", "remove_left"]

_ENTRY = (
    "import sys; sys.path.append(sys.argv[1]); from michelangelo.worker.ray import agent; agent.main(int(sys.argv[2]))"
)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_STDERR_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Terms:
    """What all sessions of an executor have in common."""

    run_id: str
    blobs_url: str
    python: str = sys.executable
    sys_path: Sequence[str] = ()
    """Empty: the driver's own at the time of the start."""
    log_limit_bytes: int = 0
    memory_limit_bytes: int = 0
    start_seconds: float = 120.0
    """How long Ray may take to start, or a cluster to answer."""


class Session:
    """A Ray that was started, or a cluster's address. One thread."""

    def __init__(self, terms: Terms, address: str, offer: Offer) -> None:
        """Starts the agent and returns at once. Raises OSError."""
        self.address = address
        self.offer = offer
        self.is_ready = False
        self.is_shut = False
        self.attempts: set[str] = set()
        """Those that were sent to it and have not ended."""
        self.folder = "" if address else _make_folder(terms.run_id)
        self._errors = wire.nameless_file()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [terms.python, "-P", "-c", _ENTRY, _ROOT, str(theirs.fileno())],
                env=_environment(terms.run_id, address),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            os.close(self._errors)
            self._remove_folder()
            raise
        finally:
            theirs.close()
        self.channel = wire.Channel(ours)
        self.channel.send(
            {
                "op": "hello",
                "driver": os.getpid(),
                "blobs_url": terms.blobs_url,
                "sys_path": list(terms.sys_path or sys.path),
                "address": address,
                "resources": dict(offer.resources),
                "object_store_bytes": offer.object_store_bytes,
                "folder": self.folder,
                "log_limit_bytes": terms.log_limit_bytes,
            }
        )

    @property
    def title(self) -> str:
        return f"the Ray cluster at {self.address}" if self.address else "the local Ray"

    def errors(self) -> str:
        """The end of what the agent, and Ray in it, wrote: why it did not start, or ended."""
        size = os.fstat(self._errors).st_size
        return os.pread(self._errors, _STDERR_TAIL, max(0, size - _STDERR_TAIL)).decode(errors="replace").strip()

    def logs(self) -> str:
        """Where Ray's own logs of a local Ray are; empty when there are none."""
        found = glob.glob(os.path.join(glob.escape(self.folder), "session_2*", "logs")) if self.folder else []
        return found[0] if found else ""

    def end(self, timeout_seconds: float, *, keep_logs: bool = False) -> None:
        """Close the channel and wait until the agent has ended all it started; force it after `timeout_seconds`."""
        self.is_shut = True
        self.channel.close()
        processes.wait_until_gone(self._process.pid, time.monotonic() + timeout_seconds)
        if self._process.poll() is None:
            for pid in processes.tree(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._errors)
        if not keep_logs:
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def remove_left(run_id: str, *, but: Sequence[str]) -> None:
    """Remove the folders that other drivers of the run left behind."""
    for folder in glob.glob(glob.escape(os.path.join(tempfile.gettempdir(), _prefix(run_id))) + "*"):
        with contextlib.suppress(OSError):
            if folder not in but and os.lstat(folder).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


def _make_folder(run_id: str) -> str:
    # Short: Ray puts sockets below it, whose paths have at most 107 characters.
    return tempfile.mkdtemp(prefix=_prefix(run_id))


def _prefix(run_id: str) -> str:
    return f"ma-ray-{hashlib.sha256(run_id.encode()).hexdigest()[:10]}-"


def _environment(run_id: str, address: str) -> dict[str, str]:
    """The driver's, with what makes Ray quiet; a local Ray answers to who has its token only."""
    found = {**os.environ, processes.RUN_MARKER: run_id, "RAY_USAGE_STATS_ENABLED": "0"}
    found.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    found.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # control codes in the attempts' logs
    if address:
        return found
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        found.pop(name, None)
    return {
        **found,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # One worker process is started when it is needed, not one per logical CPU ahead.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_process_group_cleanup_enabled": "1",
    }
