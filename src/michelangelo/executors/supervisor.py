"""The one thread of the process executor: it talks with the zygotes, reads the attempts' pipes and keeps the time.

Attempts wait on a link (executors/links.py) until its zygote is ready, are launched through it, and are lost with it.
All state here belongs to the thread of `run`; others use `post` only.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from michelangelo.executors import launch, loop, processes, running, scratch, wire
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.executors.links import Link

__all__ = ["Limits", "Supervisor", "TemplateKey"]

_MAX_TEMPLATES = 8
_MEMORY_WATCH_SECONDS = 0.1
_LINGER_SECONDS = 10.0
"""How long the process of an attempt that has given its result may go on: exit hooks, threads that are no daemons."""
_TERMINATION_SECONDS = 5.0
_CLOSE_SECONDS = 5.0

TemplateKey = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Limits:
    log_bytes: int
    memory_bytes: int = 0
    """For attempts that set none themselves; 0: none."""


class Supervisor:
    """Runs attempts in processes; `report` is called once for each, from the thread of `run`."""

    def __init__(
        self,
        start_zygote: Callable[[], launch.ZygoteProcess],
        limits: Limits,
        report: Callable[[Outcome], None],
        *,
        scratch_folders: scratch.ScratchFolders,
        end_strays: Callable[[], object],
        with_templates: bool,
    ) -> None:
        self._scratch = scratch_folders
        self._end_strays = end_strays
        self._start_zygote = start_zygote
        self._limits = limits
        self._report = report
        self._with_templates = with_templates
        self._loop = loop.Loop()
        self._counter = itertools.count(1)
        self._zygote: launch.ZygoteProcess | None = None
        self._base: Link | None = None
        self._templates: collections.OrderedDict[TemplateKey, Link] = collections.OrderedDict()
        self._attempts: dict[str, running.RunningAttempt] = {}
        self._watching_memory = False

    def post(self, command: Callable[[], None]) -> None:
        """From any thread: have `command` called by the thread of `run`."""
        self._loop.post(command)

    def run(self) -> None:
        """Until `stop` was posted; then everything is ended and closed."""
        try:
            # A zygote that cannot be started is said to the first attempt, which tries again.
            with contextlib.suppress(OSError):
                self._ensure_base()
            self._loop.run()
        finally:
            self._close()

    def stop(self) -> None:
        self._loop.stop()

    def prepare(self, key: TemplateKey) -> None:
        """Have a template import a module before the first attempt asks for it."""
        with contextlib.suppress(OSError):
            self._template(key, self._ensure_base())

    def start(self, attempt: Attempt) -> None:
        item = running.RunningAttempt(
            attempt, log_limit_bytes=self._limits.log_bytes, memory_limit_bytes=self._limits.memory_bytes
        )
        self._attempts[item.id] = item
        if attempt.timeout_seconds > 0:
            self._loop.after(attempt.timeout_seconds, functools.partial(self._time_out, item.id))
        self._assign(item)

    def cancel(self, attempt_id: str, grace_seconds: float) -> None:
        self._end(attempt_id, AttemptState.KILLED, f"attempt {attempt_id} was cancelled", grace_seconds)

    # --- attempts -----------------------------------------------------------------------------------------

    def _assign(self, item: running.RunningAttempt) -> None:
        try:
            base = self._ensure_base()
            target = item.attempt.target
            key = (target.path, target.module, tuple(sorted(item.attempt.environment.items())))
            link = self._template(key, base) if self._with_templates else base
        except OSError as e:
            self._lose(item, f"cannot start a process for attempt {item.id}: {e}")
            return
        if link.refused:
            link = base
        if link.ready:
            self._launch(item, link)
        else:
            link.waiting.append(item)

    def _launch(self, item: running.RunningAttempt, link: Link) -> None:
        try:
            scratch_folder = self._scratch.path(item.id)
            fds = item.open()
        except OSError as e:
            self._lose(item, f"cannot make the pipes, the log or the temporary folder of attempt {item.id}: {e}")
            return
        self._loop.listen(item.result_fd, functools.partial(self._on_result, item))
        if item.log_fd >= 0:
            self._loop.listen(item.log_fd, functools.partial(self._on_log, item))
        link.launched[item.id] = item
        item.launched_by = link.channel
        message = {"op": "start", **wire.attempt_to_json(item.attempt)}
        message["context"] = {"scratch": scratch_folder, **message["context"]}
        link.send(message, fds)
        if item.memory_limit_bytes and not self._watching_memory:
            self._watching_memory = True
            self._loop.after(_MEMORY_WATCH_SECONDS, self._watch_memory)

    def _on_result(self, item: running.RunningAttempt, _: int) -> None:
        if item.result_fd < 0:
            return  # it ended by an earlier event of the same batch
        had_report = item.report is not None
        if item.read_result() == 0:
            self._loop.forget(item.result_fd)
        if item.report is not None and not had_report:
            self._loop.after(_LINGER_SECONDS, functools.partial(self._kill, item.id))

    def _on_log(self, item: running.RunningAttempt, _: int) -> None:
        if item.log_fd >= 0 and item.read_log() == 0:
            self._loop.forget(item.log_fd)

    def _finish(self, item: running.RunningAttempt, status: int | None, max_rss_bytes: int = 0) -> None:
        item.drain()
        for fd in (item.result_fd, item.log_fd):
            self._loop.forget(fd)
        item.close()
        self._scratch.remove(item.id)
        del self._attempts[item.id]
        self._report(item.outcome(status, max_rss_bytes))

    def _lose(self, item: running.RunningAttempt, message: str) -> None:
        """Its zygote is gone, or it never had one."""
        if item.pid:
            processes.end_group(item.pid)
        item.drain()
        item.condemn(AttemptState.LOST, message)
        self._finish(item, None)

    def _time_out(self, attempt_id: str) -> None:
        item = self._attempts.get(attempt_id)
        if item is not None:
            limit = item.attempt.timeout_seconds
            message = (
                f"attempt {attempt_id} ran longer than its timeout of {limit:g} s and was ended: raise the task's "
                "timeout_seconds, or have it do less"
            )
            self._end(attempt_id, AttemptState.TIMED_OUT, message, _TERMINATION_SECONDS)

    def _end(self, attempt_id: str, state: AttemptState, message: str, grace_seconds: float) -> None:
        item = self._attempts.get(attempt_id)
        if item is None:
            return
        item.condemn(state, message)
        if item.launched_by is None:
            self._forget_waiting(item)
            self._finish(item, None)
        elif grace_seconds > 0:
            self._signal(attempt_id, signal.SIGTERM)
            self._loop.after(grace_seconds, functools.partial(self._kill, attempt_id))
        else:
            self._kill(attempt_id)

    def _kill(self, attempt_id: str) -> None:
        self._signal(attempt_id, signal.SIGKILL)

    def _signal(self, attempt_id: str, number: signal.Signals) -> None:
        # Through the zygote: only the parent knows that the process id is still this attempt's.
        for link in self._links():
            if attempt_id in link.launched:
                link.send({"op": "signal", "id": attempt_id, "signal": int(number)})

    def _watch_memory(self) -> None:
        limited = [item for item in self._attempts.values() if item.memory_limit_bytes]
        for item in limited:
            if item.pid and not item.is_condemned:
                limit = item.memory_limit_bytes
                used = processes.resident_bytes(processes.tree(item.pid), limit)
                if used > limit:
                    message = (
                        f"attempt {item.id} used {_mib(used)} MiB, over its limit of {_mib(limit)} MiB, and was ended: "
                        "raise `memory` in the task's config, or have it use less"
                    )
                    self._end(item.id, AttemptState.OUT_OF_MEMORY, message, 0)
        self._watching_memory = bool(limited)
        if limited:
            self._loop.after(_MEMORY_WATCH_SECONDS, self._watch_memory)

    # --- links --------------------------------------------------------------------------------------------

    def _links(self) -> Iterator[Link]:
        if self._base is not None:
            yield self._base
        yield from self._templates.values()

    def _ensure_base(self) -> Link:
        if self._base is None:
            self._zygote = self._start_zygote()
            self._base = self._link(self._zygote.channel, "")
        return self._base

    def _template(self, key: TemplateKey, base: Link) -> Link:
        """The link to a zygote with the module of `key`; `base` when there are too many of them in use."""
        link = self._templates.get(key)
        if link is not None:
            self._templates.move_to_end(key)
            return link
        if not self._with_templates or (len(self._templates) >= _MAX_TEMPLATES and not self._evict_template()):
            return base
        ours, theirs = socket.socketpair()
        path, module, environment = key
        link = self._link(wire.Channel(ours), f"template-{next(self._counter)}")
        self._templates[key] = link
        message = {"op": "template", "id": link.name, "path": path, "module": module, "environment": dict(environment)}
        base.send(message, (theirs.detach(),))
        return link

    def _evict_template(self) -> bool:
        idle = next((link for link in self._templates.values() if not link.launched and not link.waiting), None)
        if idle is not None:
            self._drop_template(idle)
        return idle is not None

    def _drop_template(self, link: Link) -> None:
        """Forget a template; it ends when it sees its channel closed, or at once when it still imports."""
        if not link.ready and self._base is not None:
            self._base.send({"op": "signal", "id": link.name, "signal": int(signal.SIGKILL)})
        link.shut()
        for key in [key for key, value in self._templates.items() if value is link]:
            del self._templates[key]

    def _forget_waiting(self, item: running.RunningAttempt) -> None:
        for link in list(self._links()):
            if item in link.waiting:
                link.waiting.remove(item)
                if link.name and not link.waiting:
                    self._drop_template(link)  # its import may hang: the next attempt begins anew

    def _link(self, channel: wire.Channel, name: str) -> Link:
        return Link(self._loop, channel, name, self._on_message, self._on_link_lost)

    def _on_message(self, link: Link, message: wire.Message) -> None:
        match message["op"]:
            case "ready":
                link.ready = True
                self._release(link, lambda item: self._launch(item, link))
            case "refused":
                link.refused = True
            case "started" if message["id"] in link.launched:
                link.launched[message["id"]].pid = message["pid"]
            case "failed" if message["id"] in link.launched:
                item = link.launched.pop(message["id"])
                self._lose(item, f"attempt {item.id} could not be started: {message['error']}")
            case "exited" if message["id"] in link.launched:
                self._finish(link.launched.pop(message["id"]), message["status"], message["max_rss"])

    def _release(self, link: Link, to: Callable[[running.RunningAttempt], None]) -> None:
        waiting, link.waiting = link.waiting, []
        for item in waiting:
            to(item)

    def _on_link_lost(self, link: Link) -> None:
        if link is self._base:
            self._on_base_lost(link)
        elif link.ready:
            self._drop_template(link)
            self._lose_launched(link, "the process that its process was forked from ended")
        else:
            # It refused, or the import ended it: then each attempt meets that itself, in a process of its own.
            link.refused = True
            self._release(link, self._assign)

    def _on_base_lost(self, base: Link) -> None:
        zygote, self._base, self._zygote = self._zygote, None, None
        templates = list(self._templates.values())
        self._templates.clear()
        for link in templates:
            link.shut()
        reason = "the zygote process ended"
        if zygote is not None:
            said = zygote.errors()
            zygote.end(_CLOSE_SECONDS)
            reason += f": {said}" if said else ""
        for link in (base, *templates):
            self._lose_launched(link, reason)
        self._end_strays()  # templates, and what got away from its group: their adoptive parent is gone
        for link in (base, *templates):
            # What waited has not run: it goes to the next zygote, unless they do not even start.
            self._release(link, self._assign if base.ready else functools.partial(self._lose_unstarted, reason))

    def _lose_unstarted(self, reason: str, item: running.RunningAttempt) -> None:
        self._lose(item, f"attempt {item.id} could not be started: {reason}")

    def _lose_launched(self, link: Link, reason: str) -> None:
        launched, link.launched = link.launched, {}
        for item in launched.values():
            self._lose(item, f"attempt {item.id} was lost: {reason}")

    def _close(self) -> None:
        links = list(self._links())
        for link in links:
            link.shut()
        if self._zygote is not None:
            self._zygote.end(_CLOSE_SECONDS)
        for item in list(self._attempts.values()):
            if item.pid:
                processes.end_group(item.pid)
            item.condemn(AttemptState.KILLED, f"attempt {item.id} was ended: its executor was closed")
            self._finish(item, None)
        self._loop.close()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f}"
