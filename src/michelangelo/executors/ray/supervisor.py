"""The one thread of the ray executor: it opens Rays when attempts ask for them, and sends attempts to their agents.

One session per address, and one local Ray, which is as large as what has asked for it so far: when a task asks for
more, it is started again, larger, as soon as nothing runs in it. All state belongs to the thread of `run`; others use
`post`.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import selectors
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from michelangelo import errors
from michelangelo.executors import loop, processes, running, scratch, wire
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.executors.ray.request import Offer, Request
from michelangelo.executors.ray.session import Session, Terms

__all__ = ["Supervisor", "failed"]

_END_SECONDS: Final = 10.0
_LEAST_CPUS: Final = 4
"""Ray's libraries stand still where their actors take every CPU."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    attempt: Attempt
    request: Request


class Supervisor:
    """`report` is called once for each attempt, and `waiting` with those that have not started whenever that changes;
    both from the thread of `run`."""

    def __init__(
        self,
        terms: Terms,
        address: str,
        scratch_folders: scratch.ScratchFolders,
        *,
        report: Callable[[Outcome], None],
        waiting: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._terms = terms
        self._address = address
        self._scratch = scratch_folders
        self._report = report
        self._waiting = waiting
        self._loop = loop.Loop()
        self._sessions: dict[str, Session] = {}
        self._queues: dict[str, collections.deque[_Waiting]] = collections.defaultdict(collections.deque)
        """Attempts for which the local Ray is too small, by address, in the order of their coming."""
        self._reasons: dict[str, str] = {}

    @property
    def folders(self) -> list[str]:
        return [session.folder for session in list(self._sessions.values()) if session.folder]

    def post(self, command: Callable[[], None]) -> None:
        """From any thread: have `command` called by the thread of `run`."""
        self._loop.post(command)

    def run(self) -> None:
        """Until `stop` was posted; then everything is ended and closed."""
        try:
            self._loop.run()
        finally:
            self._close()

    def stop(self) -> None:
        self._loop.stop()

    def start(self, attempt: Attempt) -> None:
        try:
            item = _Waiting(attempt, Request.of(attempt, address=self._address))
        except (TypeError, ValueError) as e:
            self._report(failed(attempt.id, f"attempt {attempt.id} asks for what Ray cannot give: {e}"))
            return
        queue = self._queues[item.request.address]
        queue.append(item)
        if len(queue) == 1:
            self._place(item.request.address)

    def cancel(self, attempt_id: str, grace_seconds: float) -> None:
        for session in self._sessions.values():
            if attempt_id in session.attempts:
                self._send(session, {"op": "cancel", "id": attempt_id, "grace_seconds": grace_seconds})
        for queue in self._queues.values():
            for item in [item for item in queue if item.attempt.id == attempt_id]:
                queue.remove(item)
                self._end(attempt_id, AttemptState.KILLED, f"attempt {attempt_id} was cancelled before it started")

    # --- sessions -----------------------------------------------------------------------------------------

    def _place(self, address: str) -> None:
        """Send what waits to the Ray of that address, as far as that is large enough."""
        queue = self._queues[address]
        while queue:
            session = self._sessions.get(address)
            try:
                if session is not None and not address and not session.offer.covers(queue[0].request):
                    if session.attempts:
                        self._explain_size(session, queue)
                        return
                    self._retire(session)
                    session = None
                if session is None:
                    session = self._open(address, queue)
                item = queue.popleft()
                self._hand_over(session, item)
            except OSError as e:
                item = queue.popleft()
                self._report(failed(item.attempt.id, f"cannot start a process for attempt {item.attempt.id}: {e}"))

    def _open(self, address: str, queue: collections.deque[_Waiting]) -> Session:
        known = self._sessions.get(address)
        offer = known.offer if known is not None else _least_offer()
        for item in queue:
            offer = offer.with_room_for(item.request)
        session = Session(self._terms, address, offer)
        self._sessions[address] = session
        self._listen(session)
        self._loop.after(self._terms.start_seconds, functools.partial(self._give_up, session))
        return session

    def _hand_over(self, session: Session, item: _Waiting) -> None:
        attempt, request = item.attempt, item.request
        context = {"scratch": self._scratch.path(attempt.id), **attempt.context}
        session.attempts.add(attempt.id)
        self._send(
            session,
            {
                "op": "start",
                "attempt": {**wire.attempt_to_json(attempt), "context": context},
                "request": request.to_json(),
                "timeout_seconds": attempt.timeout_seconds,
                "memory_bytes": attempt.resources.memory_bytes or self._terms.memory_limit_bytes,
                "log_path": attempt.log_path,
            },
        )
        if not session.is_ready:
            self._explain({attempt.id: f"{session.title} is being {'reached' if session.address else 'started'}"})

    def _explain_size(self, session: Session, queue: collections.deque[_Waiting]) -> None:
        has, count = session.offer.resources.get("CPU", 0.0), len(session.attempts)
        again = f"the local Ray has {has:g}, and is started again with more when the {count} attempts in it have ended"
        self._explain(
            {item.attempt.id: f"needs {item.request.totals().get('CPU', 0.0):g} CPU; {again}" for item in queue}
        )

    def _explain(self, reasons: Mapping[str, str]) -> None:
        changed = {name: reason for name, reason in reasons.items() if self._reasons.get(name, "") != reason}
        if not changed:
            return
        for name, reason in changed.items():
            if reason:
                self._reasons[name] = reason
            else:
                self._reasons.pop(name, None)
        self._waiting(dict(self._reasons))

    def _retire(self, session: Session) -> None:
        if self._sessions.get(session.address) is session:
            del self._sessions[session.address]
        if not session.is_shut:
            self._loop.forget(session.channel.fileno())
            session.end(_END_SECONDS)

    def _give_up(self, session: Session) -> None:
        """Ray did not come up in time."""
        if session.is_ready or session.is_shut:
            return
        said = session.errors()
        message = (
            f"{session.title} did not {'answer' if session.address else 'start'} in {self._terms.start_seconds:g} s"
        )
        self._break(session, f"{message}{': ' if said else ''}{said}")

    def _break(self, session: Session, message: str) -> None:
        """There is no such Ray: nothing of its attempts has run."""
        logs = session.logs()
        if logs:
            message = f"{message}\nRay's own logs are in {logs}"
        if self._sessions.get(session.address) is session:
            del self._sessions[session.address]
        self._loop.forget(session.channel.fileno())
        session.end(_END_SECONDS, keep_logs=bool(logs))
        for attempt_id in sorted(session.attempts):
            self._finish(failed(attempt_id, f"attempt {attempt_id} cannot run: {message}"))
        self._place(session.address)

    def _on_lost(self, session: Session) -> None:
        """The agent has ended, and a local Ray with it. What had been sent to it may have run."""
        reason = f"{session.title} was lost" + ("" if session.is_ready else " while it was being started")
        said = session.errors()
        self._retire(session)
        processes.end_marked(self._terms.run_id, processes.tree(os.getpid()))
        for attempt_id in sorted(session.attempts):
            message = f"attempt {attempt_id} was lost: {reason}{': ' if said else ''}{said}"
            self._end(attempt_id, AttemptState.LOST, message)
        self._place(session.address)

    # --- messages -----------------------------------------------------------------------------------------

    def _send(self, session: Session, message: wire.Message) -> None:
        session.channel.send(message)
        self._listen(session)

    def _listen(self, session: Session) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.channel.has_outgoing else 0)
        self._loop.listen(session.channel.fileno(), functools.partial(self._on_events, session), events)

    def _on_events(self, session: Session, events: int) -> None:
        if _is_shut(session):
            return
        if events & selectors.EVENT_WRITE:
            session.channel.flush()
            if not session.channel.closed:
                self._listen(session)
        for message, _ in session.channel.receive():
            self._on_message(session, message)
            if _is_shut(session):
                return
        if session.channel.closed:
            self._on_lost(session)

    def _on_message(self, session: Session, message: wire.Message) -> None:
        match message["op"]:
            case "ready":
                session.is_ready = True
                self._explain(dict.fromkeys(session.attempts, ""))
            case "broken":
                self._break(session, message["error"])
            case "pending":
                self._explain({name: why for name, why in message["reasons"].items() if name in session.attempts})
            case "ended" if message["id"] in session.attempts:
                session.attempts.discard(message["id"])
                outcome = wire.outcome_from_json(message)
                self._finish(
                    Outcome(
                        id=outcome.id,
                        state=outcome.state,
                        output=outcome.output,
                        error=outcome.error,
                        max_rss_bytes=message["max_rss_bytes"],
                    )
                )
                if self._queues[session.address]:
                    self._place(session.address)

    def _end(self, attempt_id: str, state: AttemptState, message: str) -> None:
        self._finish(Outcome(id=attempt_id, state=state, error=running.failure(state, message)))

    def _finish(self, outcome: Outcome) -> None:
        self._explain({outcome.id: ""})
        with contextlib.suppress(OSError):
            self._scratch.remove(outcome.id)
        self._report(outcome)

    def _close(self) -> None:
        for session in list(self._sessions.values()):
            self._retire(session)
            for attempt_id in sorted(session.attempts):
                self._end(attempt_id, AttemptState.KILLED, f"attempt {attempt_id} was ended: its executor was closed")
        for queue in self._queues.values():
            for item in queue:
                name = item.attempt.id
                self._end(name, AttemptState.KILLED, f"attempt {name} was ended: its executor was closed")
        self._loop.close()


def failed(attempt_id: str, message: str) -> Outcome:
    """The end of an attempt that could not be run, in Ray's or our own words."""
    bases = [cls for cls in errors.ExecutorError.__mro__ if cls is not object]
    names = [cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}" for cls in bases]
    error: dict[str, Any] = {"type": names[0], "types": names, "message": message}
    error.update(traceback="", file="", line=0, function="", source="")
    return Outcome(id=attempt_id, state=AttemptState.FAILED, error=error)


def _is_shut(session: Session) -> bool:
    """Asked again after each message, which may have ended it."""
    return session.is_shut


def _least_offer() -> Offer:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Offer({"CPU": float(max(_LEAST_CPUS, os.cpu_count() or 1)), "memory": float(memory)})
