"""Who a process is, so that another process on the same machine can tell for certain that it is gone.

A process id alone says little: ids are used again. Machine, boot, process id and start time together name one process
for ever. On Linux /proc tells; elsewhere psutil does, loaded when it is needed. Doubt counts as life.
"""

from __future__ import annotations

import functools
import importlib
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Identity", "of_this_process"]

_HAS_PROC: Final = sys.platform.startswith("linux")


@dataclass(frozen=True, slots=True)
class Identity:
    """One holder of leases in one process. Its text form is `<host>/<boot>/<pid>/<started>/<random>`."""

    host: str
    boot: str
    """The boot of the machine, with the name space of process ids where there is one: containers share the boot."""
    pid: int
    started: str
    """When the process started, in a unit of the system's own."""
    nonce: str

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}/{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Identity | None:
        """None for a holder that is not one of ours."""
        parts = text.split("/")
        if len(parts) != 5 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3], parts[4])

    @property
    def is_provably_dead(self) -> bool:
        """Whether this was a process of this machine and boot, and is no more."""
        if not self.boot or (self.host, self.boot) != (_host(), _boot()):
            return False
        started = _started(self.pid)
        return started is None or (started != "" and self.started != "" and started != self.started)

    @property
    def is_provably_alive(self) -> bool:
        """Whether the process with this id is this one, for certain: it may be sent signals."""
        if not self.boot or (self.host, self.boot) != (_host(), _boot()) or not self.started:
            return False
        return _started(self.pid) == self.started


def of_this_process() -> Identity:
    """A new identity: two calls in one process give two holders."""
    pid = os.getpid()
    return Identity(_host(), _boot(), pid, _started(pid) or "", secrets.token_hex(4))


@functools.cache
def _host() -> str:
    return socket.gethostname().replace("/", "-")


@functools.cache
def _boot() -> str:
    """Empty where it cannot be known, and then nobody is provably dead."""
    if _HAS_PROC:
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                boot = file.read().strip()
            return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
        except OSError:
            return ""
    return str(int(_psutil().boot_time()))


def _started(pid: int) -> str | None:
    """When the process started; None when there is none with that id (a zombie has ended); empty: unknown."""
    if _HAS_PROC:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The second field is the program's name in brackets, which may hold anything.
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return "" if _is_hidden(pid) else None
        except OSError:
            return ""
        ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
        return None if ended else fields[19].decode()
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.3f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return ""


def _is_hidden(pid: int) -> bool:
    """/proc may be mounted so that it does not show the processes of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return False


def _psutil() -> Any:
    # By name and late: it costs 15 ms, and Linux, where a run's whole life may be 300 ms, does without it.
    return importlib.import_module("psutil")
