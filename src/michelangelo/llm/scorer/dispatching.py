"""Who works on which shard: shards to whoever asks, replicas as many as there is work for, lost ones replaced.

It sees numbers of shards and rows, never a row. What it decides it knows from messages; what must survive it is in the
job's folder.
"""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.scorer import engine_kinds, parts
from michelangelo.llm.scorer.config import ReplicaConfig, ScoreConfig
from michelangelo.llm.scorer.manifest import Head, JobFolder
from michelangelo.llm.scorer.replicas import starting
from michelangelo.llm.scorer.replicas.channel import Message
from michelangelo.llm.scorer.replicas.open_shard import Order
from michelangelo.llm.scorer.replicas.worker import Setup
from michelangelo.llm.scorer.sharding import Shard

__all__ = ["Dispatcher", "Member", "Standing", "Terms", "facts_of", "scoring_seconds", "wanted_replicas"]

_LOOK_SECONDS: Final = 0.25
_BACKLOG_SHARDS: Final = 2
"""Waiting shards per replica above which another one is worth starting."""


@dataclass(slots=True)
class Member:
    """One replica, also after its end."""

    name: str
    group: int
    replica: starting.Replica
    started: float
    """Of time.monotonic, as all of these."""
    ready: float | None = None
    ended: float | None = None
    heard: float = 0.0
    engine: str = ""
    capacity: int = 0
    shards: set[int] = field(default_factory=set)
    waits: bool = False
    knows: bool = False
    """That there is no shard for it yet."""
    is_stopping: bool = False
    counts: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    blamed: list[list[int]] | None = None
    num_shards: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one session."""

    session: int
    """Its number, from 1."""
    lock: int
    """A handle of the job's lock."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """In which engines' keys are looked up."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the job is."""

    rows: int
    done: int
    failed: int
    scored_here: int
    """By replicas of this session."""
    output_tokens: int
    prompt_tokens: int
    seconds: float
    replicas: int
    lost: int


def wanted_replicas(config: ReplicaConfig, *, live: int, waiting: int) -> int:
    """How many of a kind there should be, with `live` of all kinds and `waiting` shards that nobody has."""
    if waiting == 0:
        return 0
    return config.max if waiting > _BACKLOG_SHARDS * live else config.min


class Dispatcher:
    """One session of a job. Not thread-safe."""

    def __init__(
        self,
        config: ScoreConfig,
        folder: JobFolder,
        head: Head,
        shards: Sequence[Shard],
        terms: Terms,
    ) -> None:
        self._config = config
        self._folder = folder
        self._head = head
        self._shards = shards
        self._session = terms.session
        self._lock = terms.lock
        self._environment = terms.environment
        self._inbox: starting.Inbox = queue.SimpleQueue()
        done = folder.done_shards()
        self._pending = [shard.number for shard in shards if shard.number not in done]
        self._left = set(self._pending)
        self._logs = {number: [path.name for path in paths] for number, paths in folder.row_logs().items()}
        self._deaths: dict[tuple[int, int], int] = {}
        self._suspects: dict[tuple[int, int], str] = {}
        self._standing: dict[int, tuple[int, int]] = {}
        """Rows done and failed of shards that are open, or were."""
        self._num_done = 0
        self._num_failed = 0
        self._in_row = 0
        """Replicas lost since a row was last done."""
        self._rows_seen = 0
        self._began = time.monotonic()
        self.members: dict[str, Member] = {}
        self._recall(done)

    def _recall(self, done: set[int]) -> None:
        for number in done:
            record = self._folder.record(number)
            if record is None:
                self._pending.append(number)
                self._left.add(number)
            else:
                self._stand(number, record["rows"], record["failed"])
        heapq.heapify(self._pending)
        for event in self._folder.events():
            if event["kind"] == "lost":
                self._accuse(event["suspects"], event["error"], alone=event["alone"])

    def run(self, on_progress: Callable[[Standing], None], should_stop: Callable[[], bool]) -> bool:
        """Until all shards are done. False: it was asked to stop before. Raises ScoringError or EngineError."""
        try:
            while self._left:
                self._scale()
                try:
                    name, message = self._inbox.get(timeout=_LOOK_SECONDS)
                    self._hear(self.members[name], message)
                except queue.Empty:
                    pass
                self._watch()
                on_progress(self.standing())
                if should_stop():
                    return False
            for member in self._live():
                self._dismiss(member)
            self._drain()
            return True
        finally:
            for member in self._live():
                member.replica.kill()
            for member in self.members.values():
                member.replica.join()
                member.ended = member.ended or time.monotonic()

    def standing(self) -> Standing:
        counts = [member.counts for member in self.members.values()]

        def total(name: str) -> int:
            return int(sum(count.get(name, 0) for count in counts))

        return Standing(
            rows=self._head.num_rows,
            done=self._num_done,
            failed=self._num_failed,
            scored_here=total("rows"),
            output_tokens=total("output_tokens"),
            prompt_tokens=total("prompt_tokens"),
            seconds=time.monotonic() - self._began,
            replicas=len([member for member in self._live() if member.ready is not None]),
            lost=len([member for member in self.members.values() if member.error]),
        )

    # --- replicas

    def _live(self) -> list[Member]:
        return [member for member in self.members.values() if member.ended is None]

    def _scale(self) -> None:
        for group, config in enumerate(self._config.replicas):
            while True:
                live = self._live()
                starting_now = sum(1 for member in live if member.ready is None)
                mine = sum(1 for member in live if member.group == group and not member.is_stopping)
                # One that is being started will take a shard.
                waiting = len(self._pending) - starting_now
                least = max(1, config.min) if not live else config.min
                wanted = max(least if waiting > 0 else 0, wanted_replicas(config, live=len(live), waiting=waiting))
                if mine >= min(wanted, config.max):
                    break
                self._start(group, config)

    def _start(self, group: int, config: ReplicaConfig) -> None:
        name = f"r{len(self.members)}"
        engine = self._config.engine_of(config)
        variables = {
            name: value for name in engine_kinds.variables_of(engine) if (value := self._environment.get(name))
        }
        setup = Setup(self._config, engine, self._folder.path, name, self._session, variables)
        replica = starting.start(config, setup, self._inbox, lock=self._lock)
        now = time.monotonic()
        self.members[name] = Member(name, group, replica, now, heard=now)

    def _dismiss(self, member: Member) -> None:
        if not member.is_stopping:
            member.is_stopping = True
            member.replica.send({"type": "stop"})

    def _watch(self) -> None:
        """Replicas that say nothing are ended; so are those that have nothing to do and are too many."""
        now = time.monotonic()
        limits = self._config.limits
        live = self._live()
        someone_works = any(member.ready is not None for member in live)
        for member in live:
            is_ray = self._config.replicas[member.group].runner == "ray"
            if member.ready is None:
                # An actor may have to wait for its resources, which others of this job hold.
                if now - member.started > limits.start_seconds and not (is_ray and someone_works):
                    member.error = f"it was not ready after {limits.start_seconds:g} seconds"
                    member.replica.kill()
            elif member.shards and now - member.heard > limits.engine_seconds:
                member.error = f"its engine did not come back from a call for {limits.engine_seconds:g} seconds"
                member.heard = now
                member.replica.kill()
            elif member.waits and not self._pending:
                config = self._config.replicas[member.group]
                same = [one for one in live if one.group == member.group and not one.is_stopping]
                if len(same) > max(1, config.min):
                    self._dismiss(member)

    def _drain(self) -> None:
        """What the last ones have to say."""
        deadline = time.monotonic() + 10.0
        while self._live() and time.monotonic() < deadline:
            try:
                name, message = self._inbox.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            self._hear(self.members[name], message)

    # --- messages

    def _hear(self, member: Member, message: Message) -> None:
        if member.ended is not None:
            return
        member.heard = time.monotonic()
        match message["type"]:
            case "ready":
                member.ready = member.heard
                member.engine, member.capacity = message["engine"], message["capacity"]
            case "want":
                member.waits, member.knows = True, False
            case "progress":
                self._progress(member, message)
            case "done":
                self._done(member, message["shard"])
            case "bye":
                member.counts = message["counts"]
            case "failed":
                self._failed(member, message)
            case "lost":
                self._lost(member, message["error"])
        self._serve()

    def _serve(self) -> None:
        """Shards to those who wait."""
        for member in self._live():
            if member.waits and self._pending and not member.is_stopping:
                member.waits = False
                number = heapq.heappop(self._pending)
                member.shards.add(number)
                member.num_shards += 1
                member.heard = time.monotonic()
                member.replica.send({"type": "shard", "order": self._order(number).to_json()})
            elif member.waits and not member.knows:
                member.knows = True
                member.replica.send({"type": "none"})  # for now: it need not wait for one

    def _order(self, number: int) -> Order:
        shard = self._shards[number]
        before = sum(facts.num_rows for facts in self._head.files[: shard.file])
        limit = self._config.limits.max_deaths_per_row
        careful, poison = set(), {}
        for (one, row), reason in self._suspects.items():
            if one == number:
                careful.add(row)
                if self._deaths.get((one, row), 0) >= limit:
                    poison[row] = f"it ended {limit} engines while it was alone with them: {reason}"
        file = self._head.files[shard.file].file
        logs = tuple(self._logs.get(number, ()))
        return Order(shard, file, shard.first - before, logs, frozenset(careful), poison)

    def _progress(self, member: Member, message: Message) -> None:
        member.counts = message["counts"]
        for number, (done, failed) in message["shards"].items():
            if int(number) in member.shards:
                self._stand(int(number), done, failed)
        self._check_budget()

    def _done(self, member: Member, number: int) -> None:
        record = self._folder.record(number)
        member.shards.discard(number)
        if record is None:
            heapq.heappush(self._pending, number)
            return
        self._left.discard(number)
        self._stand(number, record["rows"], record["failed"])
        self._logs.pop(number, None)
        self._check_budget()

    def _stand(self, number: int, done: int, failed: int) -> None:
        before = self._standing.get(number, (0, 0))
        self._standing[number] = (done, failed)
        self._num_done += done - before[0]
        self._num_failed += failed - before[1]

    def _check_budget(self) -> None:
        standing = self.standing()
        if standing.scored_here > self._rows_seen:
            self._rows_seen, self._in_row = standing.scored_here, 0
        if self._config.error_budget.is_over(failed=standing.failed, done=standing.done, total=standing.rows):
            raise errors.ScoringError(
                f"{standing.failed:,} of {standing.done:,} rows failed, more than limits.max_errors "
                f"{self._config.limits.max_errors} allows; the job's folder has what was scored: raise the limit and "
                "start the same command again, or start over with --fresh"
            )

    # --- losses

    def _failed(self, member: Member, message: Message) -> None:
        if message["fatal"]:
            raise errors.ScoringError(message["error"])
        is_first = not any(one.group == member.group and one.ready is not None for one in self.members.values())
        if message["phase"] == "open" and is_first:
            raise errors.EngineError(f"the engine cannot be opened: {message['error']}")
        member.error, member.blamed = message["error"], message["blamed"]

    def _lost(self, member: Member, why: str) -> None:
        member.ended = time.monotonic()
        if member.is_stopping and not member.shards:
            return
        member.error = member.error or why
        who = f"{self._session:04d}-{member.name}"
        suspects: list[list[int]] = []
        for number in sorted(member.shards):
            name = f"{number:06d}-{who}.log"
            path = self._folder.rows / name
            if path.exists():
                self._logs.setdefault(number, []).append(name)
                suspects += [[number, row] for row in sorted(parts.read_log([path]).suspects)]
            if self._folder.record(number) is None:
                heapq.heappush(self._pending, number)
            else:
                self._left.discard(number)  # committed, and killed before it could say so
        member.shards.clear()
        suspects = suspects if member.blamed is None else member.blamed
        alone = len(suspects) == 1
        self._folder.add_event("lost", replica=member.name, error=member.error, suspects=suspects, alone=alone)
        self._accuse(suspects, member.error, alone=alone)
        self._in_row += 1
        if self._in_row > self._config.limits.max_restarts:
            raise errors.EngineError(
                f"{self._in_row} engines were lost and no row was done in between, the last one by: {member.error}; "
                "what was scored is kept: set it right and start the same command again"
            )

    def _accuse(self, suspects: Sequence[Sequence[int]], reason: str, *, alone: bool) -> None:
        for number, row in suspects:
            self._suspects[number, row] = reason
            if alone:
                self._deaths[number, row] = self._deaths.get((number, row), 0) + 1


def scoring_seconds(members: Iterable[Member]) -> float:
    """From when the first engine was open to the end of the last one; 0: none ever was."""
    known = list(members)
    ready = [member.ready for member in known if member.ready is not None]
    ended = [member.ended or time.monotonic() for member in known]
    return max(ended) - min(ready) if ready else 0.0


def facts_of(members: Iterable[Member], config: ScoreConfig) -> list[dict[str, Any]]:
    """Of each replica, for the report."""
    now = time.monotonic()
    return [
        {
            "name": member.name,
            "group": config.replicas[member.group].name or str(member.group),
            "group_number": member.group,
            "engine": member.engine,
            "capacity": member.capacity,
            "shards": member.num_shards,
            "open_seconds": (member.ready or member.ended or now) - member.started,
            "live_seconds": (member.ended or now) - member.started,
            "error": member.error,
            **dict(member.counts),
        }
        for member in members
    ]
