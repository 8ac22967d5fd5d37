"""One attempt in a worker process of Ray: it fetches the attempt from the agent, runs it, and reports how it ended.

Two connections lead to the agent: one for messages, and one that standard output and error are sent into. The agent is
the driver's: when it goes away, the attempt is ended. Ray may use the process for another attempt afterwards, so what
the attempt has changed in it (variables, folder, streams, signal handlers) is put back, and the processes that it left
are ended; what it has imported, and set in modules, stays.

To agent    a line that says who this is; memory (over the limit); outcome
From agent  start (the attempt); gone (it is not wanted any more); interrupt; kill
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from michelangelo import errors
from michelangelo.blobs import opening
from michelangelo.executors import processes, wire
from michelangelo.executors.base import Attempt, AttemptState, CallTarget, Outcome
from michelangelo.uniflow import source, source_tree
from michelangelo.worker import call, child, failure

__all__ = ["run"]

_CONNECT_SECONDS: Final = 30.0
_MEMORY_WATCH_SECONDS: Final = 0.1
_BREAKPOINT_SECONDS: Final = 24 * 3600.0
_REAP_SECONDS: Final = 2.0
_callers: dict[str, call.Caller] = {}


def run(host: str, port: int, token: str, attempt_id: str) -> None:
    """Entry of the Ray task. Returns when the outcome has been reported."""
    link = _Link(_connect(host, port, token, attempt_id, "messages"))
    message = link.receive()
    if message is None or message["op"] != "start":
        return
    attempt = wire.attempt_from_json(message["attempt"])
    log = _connect(host, port, token, attempt_id, "log") if message["has_log"] else None
    child.adopt_orphans()
    guard = _Guard(link, message["memory_bytes"])
    with guard, _streams(log), _restored(attempt):
        outcome = _call(attempt, message, guard)
        _flush()
    guard.end_left()
    if log is not None:
        with contextlib.suppress(OSError):
            log.shutdown(socket.SHUT_RDWR)
        log.close()
    link.send({"op": "outcome", "peak": guard.peak_bytes, **wire.outcome_to_json(outcome)})
    link.close()
    if guard.is_interrupted:
        os._exit(0)  # what it began may still be going on in threads: nothing else may run here


def _call(attempt: Attempt, message: wire.Message, guard: _Guard) -> Outcome:
    caller = _callers.setdefault(
        message["blobs_url"], call.Caller(lambda: opening.open_blob_store(message["blobs_url"]))
    )
    try:
        with guard.interruptible():
            attempt = _located(attempt, message["source"], caller)
            with contextlib.suppress(Exception):  # the call reports what is wrong with the file
                sys.modules["__main__"] = source.load_file(attempt.target.path, attempt.target.module)
            if message["has_workers"]:
                _keep_data_inside()
            if attempt.working_directory:
                os.chdir(attempt.working_directory)
            outcome = caller(attempt)
            if outcome.state is not AttemptState.SUCCEEDED and message["breakpoint"]:
                _pause(attempt, outcome)
            return outcome
    except KeyboardInterrupt as e:
        return Outcome(id=attempt.id, state=AttemptState.FAILED, error=failure.from_exception(e))
    except (OSError, errors.MichelangeloError) as e:
        error = errors.ExecutorError(f"attempt {attempt.id} cannot run here: {e}")
        return Outcome(id=attempt.id, state=AttemptState.FAILED, error=failure.from_exception(error))


def _located(attempt: Attempt, packed: wire.Message | None, caller: call.Caller) -> Attempt:
    """The attempt with the user's file where it is on this machine: at its path, or unpacked from the blob store."""
    target = attempt.target
    if packed is None or os.path.exists(target.path):
        return attempt
    folder = os.path.join(tempfile.gettempdir(), f"michelangelo-source-{os.getuid()}-{packed['digest'][7:39]}")
    if not os.path.isdir(folder):
        scratch = tempfile.mkdtemp(prefix="michelangelo-unpacking-")
        try:
            source_tree.unpack_source(packed["digest"], caller.open_store(), scratch)
            os.rename(scratch, folder)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            if not os.path.isdir(folder):
                raise
    path = os.path.join(folder, packed["main"])
    module = source.load_file(path, target.module)
    # Ray tasks that the function starts may run on machines that do not have the file either.
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(module)
    return dataclasses.replace(attempt, target=CallTarget(path, target.module, target.qualname))


def _keep_data_inside() -> None:
    """Have Ray Data use what the task has reserved, as everything else in it does; by itself it would spread its tasks
    over the cluster."""
    try:
        context: Any = importlib.import_module("ray.data").DataContext.get_current()
    except ImportError:
        return
    # Past the setter, which warns that nobody should need this.
    vars(context)["scheduling_strategy"] = "DEFAULT"
    vars(context)["scheduling_strategy_large_args"] = "DEFAULT"


def _pause(attempt: Attempt, outcome: Outcome) -> None:
    """`breakpoint=True`: stay as it is, for a person to look at."""
    print(  # noqa: T201 - the attempt's log
        f"{(outcome.error or {}).get('traceback', '')}\nbreakpoint: attempt {attempt.id} failed; its process "
        f"{os.getpid()} on {socket.gethostname()} is kept for a day. End it by killing the run.",
        flush=True,
    )
    threading.Event().wait(_BREAKPOINT_SECONDS)


class _Guard:
    """Watches over the attempt from a thread: does what the agent says, keeps the memory limit, ends what is left."""

    def __init__(self, link: _Link, memory_limit_bytes: int) -> None:
        self.is_interrupted = False
        self.peak_bytes = 0
        self._link = link
        self._limit = memory_limit_bytes
        self._before = set(processes.tree(os.getpid()))
        self._wake_in, self._wake_out = os.pipe()
        self._lock = threading.Lock()
        self._can_interrupt = False
        self._thread = threading.Thread(target=self._watch, name="attempt-guard", daemon=True)

    def __enter__(self) -> _Guard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._wake_out, b"\0")
        self._thread.join()
        os.close(self._wake_in)
        os.close(self._wake_out)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Where an interrupt is raised as KeyboardInterrupt; the main thread."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it
        try:
            with self._lock:
                self._can_interrupt = True
            if self.is_interrupted:
                raise KeyboardInterrupt
            yield
        finally:
            with self._lock:
                self._can_interrupt = False
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            signal.signal(signal.SIGINT, before)

    def end_left(self) -> None:
        """End the processes that the attempt has started and left."""
        deadline = time.monotonic() + _REAP_SECONDS
        while (left := self._descendants()) and time.monotonic() < deadline:
            _signal_all(left, signal.SIGKILL)
            for pid in left:
                processes.wait_until_gone(pid, deadline)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        poll.register(self._wake_in, select.POLLIN)
        while True:
            ready = dict(poll.poll(_MEMORY_WATCH_SECONDS * 1000 if self._limit else None))
            if self._wake_in in ready:
                return
            if self._link.fileno() in ready:
                self._obey(self._link.receive())
            if self._limit:
                self._check_memory()

    def _obey(self, message: wire.Message | None) -> None:
        if message is None or message["op"] == "kill":
            self._end_all()
        elif message["op"] == "interrupt":
            with self._lock:
                self.is_interrupted = True
                if self._can_interrupt:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            _signal_all(self._descendants(), signal.SIGTERM)

    def _check_memory(self) -> None:
        used = processes.resident_bytes(processes.tree(os.getpid()), self._limit)
        self.peak_bytes = max(self.peak_bytes, used)
        if used > self._limit:
            self._link.send({"op": "memory", "used": used})
            self._end_all()

    def _end_all(self) -> NoReturn:
        self.end_left()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError  # SIGKILL has ended this process

    def _descendants(self) -> list[int]:
        return [pid for pid in processes.tree(os.getpid())[1:] if pid not in self._before]


class _Link:
    """Messages to and from the agent. Sends from any thread; receives from one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames = wire.Frames()
        self._received: list[wire.Message] = []
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: wire.Message) -> None:
        with self._sending, contextlib.suppress(OSError):  # who is gone needs no report
            self._socket.sendall(wire.frame(message))

    def receive(self) -> wire.Message | None:
        """The next message; None when the agent is gone."""
        while not self._received:
            try:
                data = self._socket.recv(1 << 18)
            except OSError:
                return None
            if not data:
                return None
            self._received += [message for message, _ in self._frames.feed(data)]
        return self._received.pop(0)

    def close(self) -> None:
        self._socket.close()


def _connect(host: str, port: int, token: str, attempt_id: str, role: str) -> socket.socket:
    try:
        connection = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
    except OSError as e:
        raise errors.ExecutorError(
            f"the worker on {socket.gethostname()} cannot reach the driver at {host}:{port}: {e}; workers report to "
            "the driver, whose machine has to be reachable from the cluster's nodes"
        ) from e
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(
        json.dumps({"token": token, "id": attempt_id, "role": role, "pid": os.getpid()}).encode() + b"\n"
    )
    return connection


@contextlib.contextmanager
def _streams(log: socket.socket | None) -> Iterator[None]:
    """Standard output and error go into `log` inside the block, also those of processes that are started there."""
    _flush()
    saved = [os.dup(1), os.dup(2)]
    target = os.open(os.devnull, os.O_WRONLY) if log is None else os.dup(log.fileno())
    try:
        for fd in (1, 2):
            os.dup2(target, fd)
        yield
    finally:
        _flush()
        for fd, kept in zip((1, 2), saved, strict=True):
            os.dup2(kept, fd)
            os.close(kept)
        os.close(target)


@contextlib.contextmanager
def _restored(attempt: Attempt) -> Iterator[None]:
    """The attempt's variables are set inside the block; afterwards variables, folder and `__main__` are as before."""
    variables, folder, main = dict(os.environ), os.getcwd(), sys.modules["__main__"]
    child.set_environment(attempt.environment)
    try:
        yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        for name, value in variables.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        sys.modules["__main__"] = main
        with contextlib.suppress(OSError):
            os.chdir(folder)


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
