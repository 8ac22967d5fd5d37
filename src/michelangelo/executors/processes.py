"""What the operating system knows about processes: trees, memory, and which run they belong to.

On Linux from /proc, elsewhere through psutil. Processes come and go meanwhile: one that is gone counts for nothing.
It decides nothing: executors/supervisor.py and executors/process.py do.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterator
from typing import Any

__all__ = ["RUN_MARKER", "children", "end_group", "end_marked", "resident_bytes", "tree", "wait_until_gone"]

RUN_MARKER = "MICHELANGELO_RUN"
"""The environment variable by which the processes of a run are known; everything they start inherits it."""

_LINUX = sys.platform == "linux"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def end_group(group: int) -> None:
    """SIGKILL to every process of a process group; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def tree(root: int) -> list[int]:
    """`root` and all its descendants that exist now."""
    found = [root]
    for pid in found:
        found.extend(children(pid))
    return found


def resident_bytes(pids: Collection[int], limit_bytes: int) -> int:
    """Memory that a process tree holds, in bytes; exact only when it is near `limit_bytes`.

    The sum of the resident sizes counts what forked processes share once for each of them. It is cheap and never too
    small, so only when it is over the limit, and there are several processes, the proportional sizes are summed.
    """
    total = sum(_resident(pid) for pid in pids)
    if total > limit_bytes and len(pids) > 1:
        return sum(_proportional(pid) for pid in pids)
    return total


def end_marked(run_id: str, spare: Collection[int], *, timeout_seconds: float = 10.0) -> int:
    """End every process of the run `run_id`, with its process group, except those in `spare`; returns how many.

    Scans again until a scan finds none, because what is found may be forking. Waits until they are gone.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + timeout_seconds
    spared = {*spare, os.getpid()}
    while found := [pid for pid in _marked(f"{RUN_MARKER}={run_id}") if pid not in spared]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                group = os.getpgid(pid)
                if group == pid:
                    end_group(group)
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        if time.monotonic() >= deadline:
            break
        for pid in found:
            wait_until_gone(pid, deadline)
    return len(ended)


def wait_until_gone(pid: int, deadline: float) -> None:
    """Wait until a process has ended (a zombie has), or `time.monotonic()` is `deadline`."""
    if not _LINUX:
        psutil = _psutil()
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).wait(max(0.0, deadline - time.monotonic()))
        return
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(fd)


def children(pid: int) -> list[int]:
    """Its children that exist now."""
    if not _LINUX:
        psutil = _psutil()
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found.extend(int(child) for child in _read(f"/proc/{pid}/task/{task}/children").split())
    except OSError:
        pass
    return found


def _resident(pid: int) -> int:
    if not _LINUX:
        psutil = _psutil()
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    try:
        return int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    if not _LINUX:
        return _resident(pid)
    try:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        return 0
    return 0


def _marked(marker: str) -> Iterator[int]:
    """Processes (no zombies) whose environment at their start held `marker`."""
    if not _LINUX:
        psutil = _psutil()
        name, _, value = marker.partition("=")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                    yield process.pid
        return
    wanted = marker.encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # A zombie's environment is empty: it is ended already and waits for its parent only.
                if wanted in _read(f"/proc/{entry}/environ").split(b"\0"):
                    yield int(entry)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _psutil() -> Any:
    import psutil

    return psutil
