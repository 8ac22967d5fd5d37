"""Replicas from the driver's side: start one as a thread or a process, send to it, end it.

What replicas say goes to one inbox. Whatever becomes of one, `lost` is the last that the inbox gets of it. Actors of
Ray are in `on_ray`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import orjson

from michelangelo import errors
from michelangelo.llm.scorer.config import ReplicaConfig
from michelangelo.llm.scorer.replicas import channel as channels
from michelangelo.llm.scorer.replicas import on_ray, worker
from michelangelo.llm.scorer.replicas.channel import Message
from michelangelo.llm.scorer.replicas.worker import Setup

__all__ = ["Inbox", "ProcessReplica", "Replica", "ThreadReplica", "start"]

Inbox: TypeAlias = "queue.SimpleQueue[tuple[str, Message]]"
"""Names of replicas, and what they say."""
_TAIL_BYTES: Final = 2000
_END_SECONDS: Final = 10.0


class Replica(Protocol):
    """Started. Sending never raises: that it is gone is said by the inbox."""

    def send(self, message: Message) -> None: ...

    def kill(self) -> None:
        """End it at once."""

    def join(self) -> None:
        """Wait until it is gone, after `stop` or `kill`; not for ever."""


def start(config: ReplicaConfig, setup: Setup, inbox: Inbox, *, lock: int) -> Replica:
    """`lock`: a handle that a process keeps open, so that the job is locked as long as it lives. Raises EngineError."""
    if config.runner == "thread":
        return ThreadReplica(setup, inbox)
    if config.runner == "ray":
        return on_ray.RayReplica(config, setup, inbox)
    return ProcessReplica(setup, inbox, lock=lock)


class ThreadReplica:
    """For engines that wait for others (HTTP), and for tests. It cannot be killed: it is left alone."""

    def __init__(self, setup: Setup, inbox: Inbox) -> None:
        self._inbox = inbox
        self._name = setup.name
        self._channel = channels.QueueChannel(lambda message: inbox.put((setup.name, message)))
        self._thread = threading.Thread(target=self._work, args=(setup.to_json(),), name=setup.name, daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        self._channel.inbox.put(message)

    def kill(self) -> None:
        self._channel.inbox.put({"type": "stop"})
        self._inbox.put((self._name, {"type": "lost", "error": "it did not answer, and was left alone"}))

    def join(self) -> None:
        self._thread.join(_END_SECONDS)

    def _work(self, setup: Mapping[str, object]) -> None:
        try:
            worker.work(setup, self._channel)
        finally:
            self._inbox.put((self._name, {"type": "lost", "error": "its thread ended"}))


class ProcessReplica:
    """A process of its own, with what it prints in the job's folder."""

    def __init__(self, setup: Setup, inbox: Inbox, *, lock: int) -> None:
        self._inbox = inbox
        self._name = setup.name
        self._output = setup.folder / "logs" / f"{setup.session:04d}-{setup.name}.txt"
        self._output.parent.mkdir(parents=True, exist_ok=True)
        self._connection, other = socket.socketpair()
        command = [sys.executable, "-m", "michelangelo.llm.scorer.replicas.process_main", str(other.fileno())]
        try:
            with open(self._output, "wb") as output:
                self.process = subprocess.Popen(
                    command,
                    pass_fds=(other.fileno(), lock),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as e:
            self._connection.close()
            raise errors.EngineError(f"a replica's process cannot be started: {e}") from e
        finally:
            other.close()
        self.send(setup.to_json())
        self._reader = threading.Thread(target=self._read, name=setup.name, daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(orjson.dumps(message) + b"\n")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def join(self) -> None:
        self._reader.join(_END_SECONDS)
        if self._reader.is_alive():
            self.kill()
            self._reader.join(_END_SECONDS)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for message in channels.lines(self._connection):
                self._inbox.put((self._name, message))
        try:
            code = self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.process.wait()
        self._connection.close()
        self._inbox.put((self._name, {"type": "lost", "error": _ended(code, self._output)}))


def _ended(code: int, output: Path) -> str:
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    with contextlib.suppress(OSError):
        lines = output.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").strip().splitlines()
        if code > 0 and lines:
            return f"its process ended {how}: {lines[-1].strip()} ({output})"
    return f"its process ended {how}"
