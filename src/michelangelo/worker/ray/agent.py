"""The agent: the process of a driver that is Ray's driver, so that the driver itself is not.

It has a local Ray started or a cluster reached (worker/ray/cluster.py), gives attempts to it, and hears of them from
the workers, who connect to it (worker/ray/attempt.py). It ends when its driver is gone, with every process below it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import select
import selectors
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from michelangelo import errors
from michelangelo.blobs import opening
from michelangelo.executors import loop, processes, wire
from michelangelo.executors.base import Attempt, AttemptState
from michelangelo.uniflow import source_tree
from michelangelo.worker import child
from michelangelo.worker.ray.item import Item
from michelangelo.worker.ray.reception import Reception

__all__ = ["Agent", "main"]

_FIRST_LOOK_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 2.0
_LOG_SECONDS: Final = 2.0
"""How long the end of a log may take after the end of its attempt."""
_LOSS_SECONDS: Final = 30.0
"""How long Ray may take to say why a worker is gone."""
_FORCE_SECONDS: Final = 5.0
_TERMINATION_SECONDS: Final = 5.0
_CLUSTER: Final = "michelangelo.worker.ray.cluster"
_DAEMONS: Final = ("gcs_server", "raylet")


def main(channel_fd: int) -> None:
    """Entry of the process; its channel to the driver is the descriptor `channel_fd`."""
    os.set_inheritable(channel_fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=channel_fd)
    child.adopt_orphans()
    watched = connection.dup()
    channel = wire.Channel(connection)
    received = _first(channel)
    if not received:
        return
    hello = received.pop(0)[0]
    sys.path[:] = hello["sys_path"]
    threading.Thread(target=_end_with_driver, args=(watched, hello), daemon=True).start()
    try:
        cluster = _connect(hello)
    except errors.ExecutorError as e:
        channel.send({"op": "broken", "error": e.message})
        while channel.has_outgoing and not channel.closed:
            select.select([], [channel], [])
            channel.flush()
        watched.settimeout(None)
        while watched.recv(1 << 16):  # until the driver has taken notice
            pass
        _end_everything(hello)
    Agent(channel, cluster, hello).serve(received)
    _end_everything(hello)


def _connect(hello: wire.Message) -> Any:
    # Only now: ray reads its environment when it is imported, and may be missing.
    try:
        cluster: Any = importlib.import_module(_CLUSTER)
    except ImportError as e:
        raise errors.ExecutorError(f"ray cannot be imported: {e}; pip install 'michelangelo-oss[ray]'") from e
    return cluster.connect(hello["address"], hello["resources"], hello["object_store_bytes"], hello["folder"])


class Agent:
    """Serves one driver until that closes the channel."""

    def __init__(self, channel: wire.Channel, cluster: Any, hello: wire.Message) -> None:
        self._channel = channel
        self._cluster = cluster
        self._blobs_url: str = hello["blobs_url"]
        self._is_local = not hello["address"]
        self._log_limit: int = hello["log_limit_bytes"]
        self._loop = loop.Loop()
        self._reception = Reception(self._loop, cluster.host, self._on_arrival)
        self._items: dict[str, Item] = {}
        self._submitted: dict[str, Any] = {}
        self._sources = _Sources(self._blobs_url)
        self._reasons: dict[str, str] = {}
        self._is_looking = False
        self._own_children: set[int] = set()

    def serve(self, received: list[tuple[wire.Message, tuple[int, ...]]]) -> None:
        self._own_children = set(processes.children(os.getpid()))
        for daemon in self._daemons():
            self._loop.listen(daemon, lambda _: self._loop.stop())
        self._send({"op": "ready"})
        for message, _ in received:
            self._obey(message)
        self._loop.run()

    def _daemons(self) -> Iterator[int]:
        """Descriptors that are readable when Ray's own processes have ended: without them there is no Ray."""
        if not self._is_local or not hasattr(os, "pidfd_open"):
            return
        for pid in self._own_children:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                if file.read().strip() in _DAEMONS:
                    yield os.pidfd_open(pid)

    # --- the driver ---------------------------------------------------------------------------------------

    def _send(self, message: wire.Message) -> None:
        self._channel.send(message)
        self._listen_to_driver()

    def _listen_to_driver(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._channel.has_outgoing else 0)
        self._loop.listen(self._channel.fileno(), self._on_driver, events)

    def _on_driver(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._channel.flush()
            self._listen_to_driver()
        for message, _ in self._channel.receive():
            self._obey(message)
        if self._channel.closed:
            self._loop.stop()

    def _obey(self, message: wire.Message) -> None:
        match message["op"]:
            case "start":
                self._start(message)
            case "cancel" if message["id"] in self._items:
                item = self._items[message["id"]]
                self._end(item, AttemptState.KILLED, f"attempt {item.id} was cancelled", message["grace_seconds"])

    def _start(self, message: wire.Message) -> None:
        try:
            item = Item(message, self._log_limit)
        except OSError as e:
            item = Item({**message, "log_path": ""}, self._log_limit)
            item.condemn(AttemptState.LOST, f"cannot open the log of attempt {item.id}: {e}")
        self._items[item.id] = item
        if item.is_condemned:
            self._finish(item)
            return
        done = functools.partial(self._on_done_soon, item)
        try:
            self._submitted[item.id] = self._cluster.submit(item.request, self._reception.place, item.id, done)
        except errors.ExecutorError as e:
            item.condemn(AttemptState.FAILED, e.message)
            self._finish(item)
            return
        if not self._is_looking:
            self._is_looking = True
            self._loop.after(_FIRST_LOOK_SECONDS, self._look)

    # --- workers ------------------------------------------------------------------------------------------

    def _on_arrival(self, connection: socket.socket, name: dict[str, Any]) -> None:
        """A worker that has said who it is."""
        item = self._items.get(name["id"])
        if name["role"] == "log" and item is not None and item.log_socket is None:
            item.take_log(connection)
            self._loop.listen(connection.fileno(), functools.partial(self._on_log, item))
        elif name["role"] == "messages" and item is not None and not item.is_condemned and not item.was_started:
            self._hand_over(item, connection)
            self._watch_worker(item, name["pid"])
        else:
            with contextlib.suppress(OSError):
                connection.sendall(wire.frame({"op": "gone"}))
            connection.close()

    def _hand_over(self, item: Item, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        item.was_started = True
        item.channel = wire.Channel(connection)
        if item.timeout_seconds > 0:
            self._loop.after(item.timeout_seconds, functools.partial(self._time_out, item))
        if self._reasons.pop(item.id, ""):
            self._send({"op": "pending", "reasons": {item.id: ""}})
        self._tell(
            item,
            {
                "op": "start",
                "attempt": wire.attempt_to_json(item.attempt),
                "blobs_url": self._blobs_url,
                "memory_bytes": item.memory_bytes,
                "has_log": item.has_log,
                "has_workers": bool(item.request.instances),
                "breakpoint": item.request.breakpoint,
                "source": None if self._is_local else self._sources.packed(item.attempt),
            },
        )

    def _watch_worker(self, item: Item, pid: int) -> None:
        """What a worker has forked holds its connections, also Ray's, after its death: nobody else would notice it."""
        if self._is_local and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                item.process_fd = os.pidfd_open(pid)
                self._loop.listen(item.process_fd, functools.partial(self._on_worker_exit, item))

    def _on_worker_exit(self, item: Item, _: int) -> None:
        self._loop.forget(item.process_fd)
        self._end_strays()
        self._loop.after(_LOSS_SECONDS, functools.partial(self._finish, item))

    def _tell(self, item: Item, message: wire.Message) -> None:
        if item.channel is not None:
            item.channel.send(message)
            self._listen_to_worker(item)

    def _listen_to_worker(self, item: Item) -> None:
        if item.channel is not None and not item.channel.closed:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if item.channel.has_outgoing else 0)
            self._loop.listen(item.channel.fileno(), functools.partial(self._on_worker, item), events)

    def _on_worker(self, item: Item, events: int) -> None:
        channel = item.channel
        if channel is None:
            return
        if events & selectors.EVENT_WRITE:
            channel.flush()
            self._listen_to_worker(item)
        for message, _ in channel.receive():
            self._hear(item, message)
        if channel.closed:
            self._loop.forget(channel.fileno())
            channel.close()
            item.channel = None
            self._on_gone(item)

    def _hear(self, item: Item, message: wire.Message) -> None:
        if message["op"] == "memory":
            used, limit = message["used"] / (1 << 20), item.memory_bytes / (1 << 20)
            item.peak_bytes = message["used"]
            item.condemn(
                AttemptState.OUT_OF_MEMORY,
                f"attempt {item.id} used {used:.0f} MiB, over its limit of {limit:.0f} MiB, and was ended: raise "
                "`head_memory` in the task's config, or have it use less",
            )
        elif message["op"] == "outcome":
            item.peak_bytes = max(item.peak_bytes, message["peak"])
            if not item.is_condemned:
                item.report = wire.outcome_from_json(message)

    def _on_log(self, item: Item, _: int) -> None:
        if item.log_socket is None:
            return
        if item.read_log() == 0:
            self._loop.forget(item.log_socket.fileno())
            item.log_socket.close()
            item.log_socket = None
            if item.channel is None and item.was_started:
                self._on_gone(item)

    def _on_gone(self, item: Item) -> None:
        """The worker has closed its connection: with an outcome, or because it has ended."""
        if item.id not in self._items:
            return
        if item.report is None and not item.is_condemned and not item.is_over:
            self._loop.after(_LOSS_SECONDS, functools.partial(self._finish, item))  # until then Ray says why
        elif item.has_whole_log:
            self._finish(item)
        else:
            self._loop.after(_LOG_SECONDS, functools.partial(self._finish, item))

    # --- ends ---------------------------------------------------------------------------------------------

    def _on_done_soon(self, item: Item, error: BaseException | None) -> None:
        """Called by a thread of Ray's."""
        with contextlib.suppress(OSError):  # the loop is closed
            self._loop.post(functools.partial(self._on_done, item, error))

    def _on_done(self, item: Item, error: BaseException | None) -> None:
        """Ray's task has ended."""
        if item.id not in self._items:
            return
        item.is_over = True
        if error is not None:
            item.condemn(*_verdict_of(error, item))
        if item.channel is None or error is not None:
            has_more = item.was_started and not item.has_whole_log
            self._loop.after(_LOG_SECONDS if has_more else 0, functools.partial(self._finish, item))
        else:
            self._loop.after(_LOG_SECONDS, functools.partial(self._finish, item))

    def _time_out(self, item: Item) -> None:
        limit = item.timeout_seconds
        message = (
            f"attempt {item.id} ran longer than its timeout of {limit:g} s and was ended: raise the task's "
            "timeout_seconds, or have it do less"
        )
        self._end(item, AttemptState.TIMED_OUT, message, _TERMINATION_SECONDS)

    def _end(self, item: Item, state: AttemptState, message: str, grace_seconds: float) -> None:
        if item.id not in self._items:
            return
        item.condemn(state, message)
        if not item.was_started:
            self._finish(item)  # a worker that asks for it later is told that it is gone
        elif grace_seconds > 0:
            self._tell(item, {"op": "interrupt"})
            self._loop.after(grace_seconds, functools.partial(self._kill, item))
        else:
            self._kill(item)

    def _kill(self, item: Item) -> None:
        if item.id in self._items:
            self._tell(item, {"op": "kill"})
            self._loop.after(_FORCE_SECONDS, functools.partial(self._force, item))

    def _force(self, item: Item) -> None:
        """It holds the interpreter so that even its guard does not run."""
        if item.id in self._items:
            self._cluster.cancel(self._submitted[item.id], force=True)
            self._loop.after(_FORCE_SECONDS, functools.partial(self._finish, item))

    def _finish(self, item: Item) -> None:
        if self._items.pop(item.id, None) is None:
            return
        if item.channel is not None:
            self._loop.forget(item.channel.fileno())
        if item.log_socket is not None:
            self._loop.forget(item.log_socket.fileno())
        self._loop.forget(item.process_fd)
        item.close()
        submitted = self._submitted.pop(item.id, None)
        if submitted is not None:
            if not item.was_started:
                self._cluster.cancel(submitted, force=False)
            self._cluster.release(submitted)
        if item.report is None:
            self._end_strays()
        self._reasons.pop(item.id, None)
        outcome = item.outcome()
        message = {"op": "ended", **wire.outcome_to_json(outcome), "max_rss_bytes": outcome.max_rss_bytes}
        self._send(message)

    def _end_strays(self) -> None:
        """End what ended workers of a local Ray have left: it has become our child."""
        while strays := set(processes.children(os.getpid())) - self._own_children:
            # Once more: what one of them has started is ours only after its end.
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    # --- waiting for room ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Say why attempts have not started yet."""
        waiting = [item for item in self._items.values() if not item.was_started and item.id in self._submitted]
        wanted = {item.id: (item.request, self._submitted[item.id]) for item in waiting}
        self._is_looking = bool(wanted)
        if not wanted:
            return
        reasons: Mapping[str, str] = self._cluster.shortage(wanted)
        changed = {name: reason for name, reason in reasons.items() if self._reasons.get(name) != reason}
        self._reasons.update(changed)
        if changed:
            self._send({"op": "pending", "reasons": changed})
        self._loop.after(_LOOK_SECONDS, self._look)


class _Sources:
    """The source of tasks, in the blob store, for workers of a cluster that do not find the file."""

    def __init__(self, blobs_url: str) -> None:
        self._blobs_url = blobs_url
        self._packed: dict[tuple[str, str], wire.Message | None] = {}

    def packed(self, attempt: Attempt) -> wire.Message | None:
        """None when it cannot be packed: a worker of this machine does without."""
        key = (attempt.target.path, attempt.target.module)
        if key not in self._packed:
            self._packed[key] = None
            with contextlib.suppress(errors.MichelangeloError, OSError):
                tree = source_tree.find_source(*key)
                digest = source_tree.pack_source(tree, opening.open_blob_store(self._blobs_url)).digest
                self._packed[key] = {"digest": digest, "main": tree.main}
        return self._packed[key]


def _verdict_of(error: BaseException, item: Item) -> tuple[AttemptState, str]:
    state, message = sys.modules[_CLUSTER].verdict_of(error, item.id)
    target = f"{item.attempt.target.module}.{item.attempt.target.qualname}"
    return state, message.replace(item.id, f"{item.id} ({target})", 1)


def _first(channel: wire.Channel) -> list[tuple[wire.Message, tuple[int, ...]]]:
    while not channel.closed:
        select.select([channel], [], [])
        if received := channel.receive():
            return received
    return []


def _end_with_driver(watched: socket.socket, hello: wire.Message) -> None:
    """In a thread: also while the main one is busy in Ray, the end of the driver ends everything."""
    poll = select.poll()
    poll.register(watched, 0)
    with contextlib.suppress(OSError, AttributeError):
        poll.register(os.pidfd_open(hello["driver"]), select.POLLIN)
    poll.poll()
    _end_everything(hello)


def _end_everything(hello: wire.Message) -> NoReturn:
    """End every process below this one, then this one."""
    while found := processes.tree(os.getpid())[1:]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0]:
                pass
    if hello["folder"] and os.getppid() != hello["driver"]:
        shutil.rmtree(hello["folder"], ignore_errors=True)  # else the driver does, or keeps Ray's logs
    os._exit(0)
