"""The zygote: a small single-threaded process that forks a fresh process per attempt, and is their parent.

It does what the driver says (executors/wire.py), tells it of every end, and ends everything it has started when the
driver is gone. A template is a zygote that was forked from the first and has imported a module of the user's, so that
attempts find it imported; it speaks with the driver over a channel of its own. Neither runs an attempt itself.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import gc
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

from michelangelo import errors
from michelangelo.blobs import opening
from michelangelo.executors import wire
from michelangelo.uniflow import source
from michelangelo.worker import call, child, failure, forksafety

__all__ = ["Spawner", "Zygote", "main", "main_spawned"]

_END_SECONDS = 2.0
_PRELUDE_LIMIT = 1 << 16
_JOB_FD, _RESULT_FD, _LOG_FD = 3, 4, 5
_SPAWNED = "import sys; sys.path[:] = sys.argv[1:]; from michelangelo.worker import zygote; zygote.main_spawned()"


def main() -> None:
    """Entry of the process that the driver starts, with its channel under `wire.CHANNEL_FD`."""
    os.set_inheritable(wire.CHANNEL_FD, False)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper in a new interpreter
    channel = wire.Channel(socket.socket(fileno=wire.CHANNEL_FD))
    received = _wait_for_first(channel)
    if not received:
        return
    hello = received.pop(0)[0]
    own = [folder for folder in sys.path if folder != sys.argv[1]] if hello["keeps_path"] else []
    sys.path[:] = [*hello["sys_path"], *own]
    caller = call.Caller(lambda: opening.open_blob_store(hello["blobs_url"]))
    if hello["blobs_url"].startswith(("file:", "/")):
        # Cheap and safe across a fork; others may start threads, so each process opens them for itself.
        with contextlib.suppress(errors.MichelangeloError):  # said by each attempt
            caller.open_store()
    spawner = Spawner(hello["blobs_url"]) if hello["start_method"] == "spawn" else None
    driver_fd = _watch_process(hello["driver"])
    if os.getppid() == hello["driver"]:
        Zygote(channel, caller, driver_fd=driver_fd, spawner=spawner).serve(received)
    # The driver removes it too; here it is in case that the driver was killed.
    shutil.rmtree(hello["scratch"], ignore_errors=True)


def main_spawned() -> NoReturn:
    """Entry of an attempt's process where it is not forked: a fresh interpreter, told by a file what to do."""
    with open(_JOB_FD, "rb") as file:
        job = wire.Frames().feed(file.read())[0][0]
    for fd in (_RESULT_FD, _LOG_FD):
        os.set_inheritable(fd, False)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as above
    caller = call.Caller(lambda: opening.open_blob_store(job["blobs_url"]))
    child.run(
        wire.attempt_from_json(job["attempt"]), caller, result_fd=_RESULT_FD, log_fd=_LOG_FD, parent=job["parent"]
    )


class Zygote:
    """Serves one channel until the driver is gone."""

    def __init__(
        self,
        channel: wire.Channel,
        caller: call.Caller,
        *,
        driver_fd: int,
        spawner: Spawner | None = None,
        prelude: bytes = b"",
    ) -> None:
        self._channel = channel
        self._caller = caller
        self._driver_fd = driver_fd
        self._spawner = spawner
        self._prelude = prelude
        self._received: collections.deque[tuple[wire.Message, tuple[int, ...]]] = collections.deque()
        self._children: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        # A signal wakes the poll by a byte in this pipe; every zygote needs its own.
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        child.adopt_orphans()

    def serve(self, received: Sequence[tuple[wire.Message, tuple[int, ...]]] = ()) -> None:
        """Until the driver is gone; `received` has come already."""
        self._received.extend(received)
        gc.freeze()  # so that collections in the children touch, and copy, none of our pages
        self._channel.send({"op": "ready"})
        gone = False
        while not self._channel.closed and not gone:
            while self._received:
                self._obey(*self._received.popleft())
            self._reap()
            gone = self._wait(None)
            self._received.extend(self._channel.receive())
        self._end_all()

    def _wait(self, timeout_seconds: float | None) -> bool:
        """Until there is something to do; True when the driver is gone."""
        poll = select.poll()
        writable = select.POLLOUT if self._channel.has_outgoing else 0
        if not self._channel.closed:
            poll.register(self._channel, select.POLLIN | writable)
        poll.register(self._wake_in, select.POLLIN)
        if self._driver_fd >= 0:
            poll.register(self._driver_fd, select.POLLIN)
        ready = dict(poll.poll(None if timeout_seconds is None else max(0.0, timeout_seconds) * 1000))
        if self._wake_in in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_in, 4096)
        self._channel.flush()
        return self._driver_fd in ready

    def _obey(self, message: wire.Message, fds: Sequence[int]) -> None:
        match message["op"]:
            case "start":
                self._start(message, *fds)
            case "template":
                self._start_template(message, *fds)
            case "signal" if message["id"] in self._pids:
                _signal_group(self._pids[message["id"]], message["signal"])

    def _start(self, message: wire.Message, result_fd: int, log_fd: int) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork() if self._spawner is None else self._spawner.spawn(message, result_fd, log_fd)
        except OSError as e:
            pid = -1
            self._channel.send({"op": "failed", "id": message["id"], "error": str(e)})
        if pid == 0:
            self._leave()
            attempt = wire.attempt_from_json(message)
            child.run(attempt, self._caller, result_fd=result_fd, log_fd=log_fd, parent=zygote, prelude=self._prelude)
        for fd in (result_fd, log_fd):
            os.close(fd)
        if pid > 0:
            self._remember(pid, message["id"])
            self._channel.send({"op": "started", "id": message["id"], "pid": pid})

    def _start_template(self, message: wire.Message, channel_fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                self._leave()
                os.setpgid(0, 0)
                self._become_template(message, wire.Channel(socket.socket(fileno=channel_fd)))
            except BaseException as e:  # noqa: BLE001 - the outermost loop of this process
                os.write(2, f"{failure.from_exception(e)['traceback']}\n".encode())
            finally:
                os._exit(0)
        os.close(channel_fd)
        self._remember(pid, message["id"])

    def _become_template(self, message: wire.Message, channel: wire.Channel) -> None:
        child.set_environment(message["environment"])
        watch = forksafety.ImportWatch()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            with _Capture() as capture:
                source.load_file(message["path"], message["module"])
            reason = watch.reason_not_to_fork()
        except errors.SourceError as e:
            reason = e.message
        if reason:
            channel.send({"op": "refused", "reason": reason})
            return
        Zygote(channel, self._caller, driver_fd=self._driver_fd, prelude=capture.content).serve()

    def _remember(self, pid: int, name: str) -> None:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here too: a signal may come before the child got that far
        self._children[pid] = name
        self._pids[name] = pid

    def _leave(self) -> None:
        """In a child: let go of what is the zygote's."""
        signal.set_wakeup_fd(-1)
        os.close(self._wake_in)
        os.close(self._wake_out)
        self._channel.close()
        for _, fds in self._received:
            for fd in fds:
                os.close(fd)

    def _reap(self) -> None:
        """Take notice of the children that have ended, each with the rest of its group and its descendants."""
        for pid, status, max_rss in _ended_children():
            self._end_strays()
            name = self._children.pop(pid, "")
            if name:
                del self._pids[name]
                self._channel.send({"op": "exited", "id": name, "status": status, "max_rss": max_rss})

    def _end_strays(self) -> None:
        """End the processes that became our children when their parents ended: what an ended attempt left behind."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
                pids = [int(pid) for pid in file.read().split()]
        except OSError:
            return
        for pid in pids:
            if pid not in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """The driver is gone: end every attempt. Templates see it for themselves and get a moment for it."""
        self._channel.close()
        for pid, name in self._children.items():
            if not name.startswith("template-"):
                _signal_group(pid, signal.SIGKILL)
        deadline = time.monotonic() + _END_SECONDS
        self._reap()
        while self._children and time.monotonic() < deadline:
            self._driver_fd = -1
            self._wait(deadline - time.monotonic())
            self._reap()
        for pid in self._children:
            _signal_group(pid, signal.SIGKILL)


class Spawner:
    """Starts a fresh interpreter per attempt, where a fork is not safe."""

    def __init__(self, blobs_url: str) -> None:
        self._blobs_url = blobs_url

    def spawn(self, message: wire.Message, result_fd: int, log_fd: int) -> int:
        """The process id. Raises OSError."""
        with os.fdopen(wire.nameless_file(), "w+b") as job:
            job.write(wire.frame({"attempt": message, "blobs_url": self._blobs_url, "parent": os.getpid()}))
            job.flush()
            job.seek(0)
            # Away from the low numbers first: on one that is the target already, dup2 would keep close-on-exec.
            fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (job.fileno(), result_fd, log_fd)]
        try:
            return os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-c", _SPAWNED, *sys.path],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, fd, target)
                    for fd, target in zip(fds, (_JOB_FD, _RESULT_FD, _LOG_FD), strict=True)
                ],
                setpgroup=0,
            )
        finally:
            for fd in fds:
                os.close(fd)


class _Capture:
    """Keeps what the block writes to standard output and error, at the level of descriptors, in `content`."""

    def __init__(self) -> None:
        self.content = b""

    def __enter__(self) -> _Capture:
        self._file = os.fdopen(wire.nameless_file(), "w+b")
        self._saved = [os.dup(1), os.dup(2)]
        for fd in (1, 2):
            os.dup2(self._file.fileno(), fd)
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for fd, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, fd)
            os.close(saved)
        self._file.seek(0)
        self.content = self._file.read(_PRELUDE_LIMIT)
        self._file.close()


def _wait_for_first(channel: wire.Channel) -> list[tuple[wire.Message, tuple[int, ...]]]:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while not channel.closed:
        poll.poll()
        if received := channel.receive():
            return received
    return []


def _watch_process(pid: int) -> int:
    """A descriptor that is readable when the process has ended; -1 where there is none such."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1


def _ended_children() -> Iterator[tuple[int, int, int]]:
    """Children that have ended, with the rest of their groups: process id, wait status, peak memory in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    with contextlib.suppress(ChildProcessError):
        while True:
            if hasattr(os, "waitid"):
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None:
                    return
                # While it is a zombie nobody else can get its number, so this group is its own.
                _signal_group(found.si_pid, signal.SIGKILL)
                pid, status, usage = os.wait4(found.si_pid, 0)
            else:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                _signal_group(pid, signal.SIGKILL)
            yield pid, status, usage.ru_maxrss * unit


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
