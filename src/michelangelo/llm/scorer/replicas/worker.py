"""What a replica does, wherever it runs: read rows, keep its engine busy, write what comes back, commit whole shards.

The next shard is asked for before the last one is read to its end, so that the engine never waits at a border. A row's
error is an answer, a lost engine is `failed`, a changed input ends the job.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.scorer import config as configuration
from michelangelo.llm.scorer import engine_kinds, results
from michelangelo.llm.scorer.config import EngineConfig, ScoreConfig
from michelangelo.llm.scorer.engine import Completion, Engine
from michelangelo.llm.scorer.manifest import JobFolder
from michelangelo.llm.scorer.replicas.channel import Channel, Message
from michelangelo.llm.scorer.replicas.open_shard import OpenShard, Order, RowReader
from michelangelo.llm.scorer.row_error import RowError
from michelangelo.llm.scorer.sources import InputRow
from michelangelo.llm.scorer.templates import Asked, Prompter

__all__ = ["Setup", "Worker", "work"]

_POLL_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 0.2
"""For the driver to answer a wish."""
_PROGRESS_SECONDS: Final = 0.5
_CANCEL_SECONDS: Final = 5.0
"""For an engine to give back what was cancelled."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a replica is told first."""

    config: ScoreConfig
    engine: EngineConfig
    folder: Path
    name: str
    session: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables that the engine wants. They are sent, and never written to the disk."""

    def to_json(self) -> Message:
        return {
            "config": self.config.model_dump(mode="json"),
            "engine": self.engine.model_dump(mode="json"),
            "folder": str(self.folder),
            "name": self.name,
            "session": self.session,
            "environment": dict(self.environment),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Setup:
        return cls(
            configuration.parse(value["config"]),
            EngineConfig.model_validate(value["engine"]),
            Path(value["folder"]),
            value["name"],
            value["session"],
            value["environment"],
        )


def work(setup: Mapping[str, Any], channel: Channel) -> None:
    """Until told to stop, or the engine is lost; says which, and raises nothing but what nobody foresaw."""
    told = Setup.from_json(setup)
    phase = "open"
    worker: Worker | None = None
    try:
        prompter = Prompter(told.config)
        engine = engine_kinds.open_engine(told.engine, told.environment)
        try:
            worker = Worker(told, channel, engine, prompter)
            phase = "run"
            worker.run()
        finally:
            engine.close()
    except (errors.ScoringError, errors.DatasetError, errors.SettingsError) as e:
        channel.send({"type": "failed", "phase": phase, "fatal": True, "error": e.message})
    except (errors.MichelangeloError, OSError, MemoryError, RuntimeError) as e:
        blamed = None if worker is None else worker.blamed()
        message = str(e) or type(e).__name__
        channel.send({"type": "failed", "phase": phase, "fatal": False, "error": message, "blamed": blamed})


@dataclass(slots=True)
class _Flight:
    """A row that the engine has."""

    shard: OpenShard
    number: int
    row: InputRow
    asked: Asked
    since: float
    cancelled: float | None = None


@dataclass(slots=True)
class _Counts:
    """Of this replica, since it opened its engine."""

    rows: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_seconds: float = 0.0
    """With at least one request in flight."""
    flight_seconds: float = 0.0
    """Summed over requests in flight."""
    began: float = field(default_factory=time.monotonic)

    def to_json(self) -> dict[str, float]:
        values = {name: getattr(self, name) for name in self.__slots__ if name != "began"}
        return {**values, "seconds": time.monotonic() - self.began}


class Worker:
    """One engine at work."""

    def __init__(self, setup: Setup, channel: Channel, engine: Engine, prompter: Prompter) -> None:
        self._setup = setup
        self._config = setup.config
        self._channel = channel
        self._engine = engine
        self._prompter = prompter
        self._folder = JobFolder(setup.folder)
        self._who = f"{setup.session:04d}-{setup.name}"
        self._reader = RowReader()
        self._capacity = max(1, engine.capacity)
        self._open: dict[int, OpenShard] = {}
        self._unread: deque[OpenShard] = deque()
        self._held: tuple[OpenShard, int, InputRow] | None = None
        self._is_alone = False
        self._flights: dict[str, _Flight] = {}
        self._has_asked = False
        self._awaits = False
        self._is_stopping = False
        self._counts = _Counts()
        self._said = 0.0
        self._hung: list[list[int]] | None = None
        self._sealing: dict[concurrent.futures.Future[None], OpenShard] = {}
        """Waiting for the disk is no reason for the engine to wait."""
        self._sealer = concurrent.futures.ThreadPoolExecutor(1, "sealer")

    def run(self) -> None:
        """Raises EngineError when the engine is lost, ScoringError or DatasetError when the job cannot go on."""
        self._channel.send({"type": "ready", "engine": self._engine.name, "capacity": self._capacity})
        try:
            while True:
                self._hear()
                if self._is_stopping and not self._open:
                    break
                self._feed()
                self._poll()
                self._expire()
                self._seal()
                self._tell()
        finally:
            # What is complete is kept, whatever became of the engine.
            self._sealer.shutdown(wait=True)
            self._collect()
            for shard in self._open.values():
                shard.close()
        self._channel.send({"type": "bye", "counts": self._counts.to_json()})

    def blamed(self) -> list[list[int]] | None:
        """Rows that may have ended the engine, as shard and number; None: any of those in flight."""
        return self._hung

    def _hear(self) -> None:
        """What the driver says; waits for it when there is nothing else to do."""
        while True:
            unread = sum(shard.num_rows - shard.num_read for shard in self._unread)
            if not self._has_asked and not self._is_stopping and unread <= self._capacity:
                self._has_asked = self._awaits = True
                self._channel.send({"type": "want"})
            is_idle = not self._open and not self._flights and not self._is_stopping
            if is_idle:
                self._tell(at_once=True)
            # An engine that has room is not asked to work before what it could have is here.
            has_room = self._awaits and not self._is_alone and unread + len(self._flights) < self._capacity
            message = self._channel.receive(None if is_idle else _ANSWER_SECONDS if has_room else 0)
            if message is None:
                self._awaits = False
                return
            self._awaits = False
            if message["type"] == "stop":
                self._is_stopping = True
            elif message["type"] == "shard":
                self._has_asked = False
                shard = OpenShard(Order.from_json(message["order"]), self._folder, self._who, self._reader)
                self._open[shard.number] = shard
                self._unread.append(shard)

    def _feed(self) -> None:
        """Rows to the engine, up to what it is worth. First they are written down as given."""
        given: list[_Flight] = []
        while len(self._flights) + len(given) < self._capacity and not self._is_alone:
            found = self._held or self._next_row()
            self._held = None
            if found is None:
                break
            shard, number, row = found
            if number in shard.order.careful:
                if self._flights or given:
                    self._held = found
                    break
                self._is_alone = True
            asked = self._asked(shard, number, row)
            if asked is None:
                self._is_alone = False
                continue
            given.append(_Flight(shard, number, row, asked, time.monotonic()))
        by_shard: dict[int, list[int]] = {}
        for flight in given:
            by_shard.setdefault(flight.shard.number, []).append(flight.number)
        for shard_number, numbers in by_shard.items():
            self._open[shard_number].submitted(numbers)
        for flight in given:
            request = flight.asked.request
            self._flights[request.id] = flight
            self._engine.submit(request)

    def _next_row(self) -> tuple[OpenShard, int, InputRow] | None:
        while self._unread:
            shard = self._unread[0]
            found = shard.next_row()
            if found is not None:
                return (shard, *found)
            self._unread.popleft()
        return None

    def _asked(self, shard: OpenShard, number: int, row: InputRow) -> Asked | None:
        """None: the row is answered already, by its error."""
        total = shard.order.shard.first + number
        asked: Asked | None = None
        error = row.error
        if row.fields is not None:
            try:
                asked = self._prompter.ask(row.fields)
            except RowError as e:
                asked, error = self._prompter.known(row.fields), e.message
        poison = (shard.order.poison or {}).get(number)
        if asked is not None and poison is None and not error:
            return replace(asked, request=replace(asked.request, id=f"{shard.number}-{number}"))
        output, facts = results.failed(self._config, total, asked, poison or f"{row.place}: {error}")
        self._record(shard, number, row, output, facts)
        return None

    def _poll(self) -> None:
        if not self._flights:
            return
        before, count = time.monotonic(), len(self._flights)
        completions = self._engine.poll(_POLL_SECONDS)
        spent = time.monotonic() - before
        self._counts.busy_seconds += spent
        self._counts.flight_seconds += spent * count
        for completion in completions:
            self._finish(completion)

    def _finish(self, completion: Completion) -> None:
        flight = self._flights.pop(completion.id, None)
        if flight is None:
            return
        self._is_alone = False
        total = flight.shard.order.shard.first + flight.number
        if flight.cancelled is not None and completion.finish_reason == "cancelled":
            limit = self._config.limits.request_seconds
            output, facts = results.failed(self._config, total, flight.asked, f"it took longer than {limit:g} seconds")
        else:
            output, facts = results.scored(self._config, total, flight.asked, completion)
        self._record(flight.shard, flight.number, flight.row, output, facts)

    def _record(self, shard: OpenShard, number: int, row: InputRow, output: bytes, facts: Mapping[str, Any]) -> None:
        shard.done(number, row, output, facts)
        self._counts.rows += 1
        self._counts.failed += "e" in facts
        self._counts.prompt_tokens += facts.get("p", 0)
        self._counts.output_tokens += facts.get("o", 0)

    def _expire(self) -> None:
        """Cancels what takes too long. What is not given back then is answered all the same, and the engine is lost."""
        now = time.monotonic()
        limit = self._config.limits.request_seconds
        stuck = []
        for name, flight in self._flights.items():
            if flight.cancelled is None:
                if now - flight.since < limit:
                    break  # those behind it are younger
                flight.cancelled = now
                self._engine.cancel(name)
            elif now - flight.cancelled > _CANCEL_SECONDS:
                stuck.append(name)
        for name in stuck:
            self._finish(Completion(name, finish_reason="cancelled"))
        if stuck:
            self._hung = []
            raise errors.EngineError(f"{self._engine.name} does not give back a request that was cancelled")

    def _seal(self) -> None:
        """In the background, but for a moment when there is nothing else to do."""
        sealing = set(self._sealing.values())
        for shard in self._open.values():
            if shard not in sealing and shard.is_complete:
                if shard in self._unread:
                    self._unread.remove(shard)
                self._sealing[self._sealer.submit(shard.seal, self._setup.session)] = shard
        if self._sealing and not self._flights and not self._unread and self._held is None:
            concurrent.futures.wait(self._sealing, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
        self._collect()

    def _collect(self) -> None:
        """Shards that are on the disk."""
        for future in [future for future in self._sealing if future.done()]:
            shard = self._sealing.pop(future)
            future.result()
            del self._open[shard.number]
            self._channel.send({"type": "done", "shard": shard.number})

    def _tell(self, *, at_once: bool = False) -> None:
        """How far it is: also the sign of life."""
        now = time.monotonic()
        if not at_once and now - self._said < _PROGRESS_SECONDS:
            return
        self._said = now
        shards = {str(shard.number): [shard.num_done, shard.num_failed] for shard in self._open.values()}
        self._channel.send({"type": "progress", "shards": shards, "counts": self._counts.to_json()})
