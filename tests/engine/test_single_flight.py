"""Single flight under every order of events: drivers that compute, fail, die and wake, on one store and one clock.

Everything is real but the threads, the clock and the executor: what happens next is drawn. A driver here is the part of
the engine that ties cache and claims to a run, with a slot for one attempt.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from michelangelo import errors
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.client.client import Watch
from michelangelo.engine.cache import Cache
from michelangelo.engine.cache_key import CacheKey
from michelangelo.engine.caching import Caching
from michelangelo.engine.claims import Claims
from michelangelo.engine.journal import EntryState, StepType
from michelangelo.engine.memory import MemoryJournal, MemoryLog
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.single_flight import LOOK_SECONDS
from michelangelo.engine.steps import Step, Verdict
from michelangelo.engine.surroundings import Surroundings
from michelangelo.meta import labels
from michelangelo.runtime import leases
from michelangelo.storage.memory import MemoryStore

DRIVERS = 3
KEYS = ("a" * 64, "b" * 64)
TERM_SECONDS = 15
DRIVER = st.integers(0, DRIVERS - 1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class DrawnLoop:
    """The engine's loop without a thread: `turn` makes the next call, `due` those whose time has come."""

    clock: Clock
    calls: deque[Callable[[], None]] = field(default_factory=deque)
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def call(self, function: Callable[..., None], *args: object) -> None:
        self.calls.append(lambda: function(*args))

    def later(self, delay_seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((self.clock.now + delay_seconds, function))

    def turn(self) -> None:
        if self.calls:
            self.calls.popleft()()

    def due(self) -> None:
        ready = [one for one in self.timers if one[0] <= self.clock.now]
        self.timers = [one for one in self.timers if one[0] > self.clock.now]
        for _, function in ready:
            self.calls.append(function)


class SimulatedDriver:
    """A run, with one slot."""

    def __init__(self, client: InProcessClient, clock: Clock, name: str, number: int) -> None:
        self.name = name
        self.client = client
        self.computing: Step | None = None
        self.queue: deque[Step] = deque()
        self.steps: list[Step] = []
        self.loop = DrawnLoop(clock)
        self._watch: Watch | None = None
        self._deliver: Callable[[str, bool], None] = lambda name, is_there: None
        run = client.get("PipelineRun", name, namespace="team")
        self.lease = leases.Lease(
            client,
            leases.run_lease_name(name),
            namespace="team",
            duration_seconds=TERM_SECONDS,
            identity=f"{name}-driver-{number}",
            clock=clock,
        )
        cache = Cache(client, "team", lambda tree: True)
        around = Surroundings(
            run=name,
            journal=MemoryJournal(MemoryLog(), driver=self.lease.identity),
            executors={},
            blobs=MemoryBlobStore(),
            driver=self.lease.identity,
            cache=cache,
            claims=Claims(client, run, holder=self.lease.identity, clock=clock),
            watch_claims=self._source,
        )
        self.recorder = Recorder(around, lambda step: None)
        self.caching = Caching(
            around, self.loop, self.recorder, lambda function, *args: function(*args), enqueue=self.queue.append
        )

    def submit(self, key: str) -> None:
        step = Step(id=f"step-{len(self.steps)}", type=StepType.TASK, task="work", fingerprint=key)
        step.cache_request = lambda tree: CacheKey("sha256:code", key, task="work")
        self.steps.append(step)
        if not self.caching.find(step):
            self.queue.append(step)

    def launch(self) -> None:
        """What the dispatcher does when there is room."""
        while self.queue and self.computing is None:
            step = self.queue.popleft()
            if self.caching.may_start(step):
                self.recorder.begin(step, {})
                self.computing = step

    def finish(self, *, succeeds: bool) -> str:
        step, self.computing = self.computing, None
        assert step is not None
        state = EntryState.SUCCEEDED if succeeds else EntryState.FAILED
        self.recorder.end(step, Verdict(state, final=True, error=None if succeeds else {}), output=1)
        self.caching.ended(step, state, 1)
        return step.fingerprint

    def tell(self) -> bool:
        """One event of the watch."""
        event = self._watch.next(0.0) if self._watch is not None else None
        if event is None:
            return False
        if event.type != "BOOKMARK":
            self._deliver(event.object["metadata"]["name"], event.type != "DELETED")
        return True

    def _source(self, deliver: Callable[[str, bool], None]) -> Callable[[], None]:
        self._deliver = deliver
        self._watch = self.client.watch("Lease", namespace="team", label_selector=labels.CACHE_CLAIM)
        while self.tell():
            pass
        return self.close

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()


class SingleFlights(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore()
        self.client = InProcessClient(ApiServer(self.store))
        self.client.create(
            {"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": {"name": "team"}, "spec": {}}
        )
        self.numbers = itertools.count()
        self.successes: Counter[str] = Counter()
        self.dead: list[SimulatedDriver] = []
        self.drivers = [self.begin(f"run-{number}") for number in range(DRIVERS)]

    def begin(self, name: str) -> SimulatedDriver:
        manifest = {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}
        try:
            self.client.create(
                {
                    "apiVersion": "michelangelo.api/v2",
                    "kind": "PipelineRun",
                    "metadata": {"name": name, "namespace": "team"},
                    "spec": {"pipelineSpec": {"manifest": manifest}},
                }
            )
        except errors.AlreadyExistsError:
            pass
        driver = SimulatedDriver(self.client, self.clock, name, next(self.numbers))
        while not driver.lease.acquire():
            self.pass_time(LOOK_SECONDS)
        return driver

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        for driver in getattr(self, "drivers", ()):
            if driver not in self.dead:
                driver.lease.renew()
                driver.loop.due()

    @rule(number=DRIVER, key=st.sampled_from(KEYS))
    def submit(self, number: int, key: str) -> None:
        self.drivers[number].submit(key)

    @rule(number=DRIVER)
    def launch(self, number: int) -> None:
        self.drivers[number].launch()

    @rule(number=DRIVER)
    def turn(self, number: int) -> None:
        self.drivers[number].loop.turn()

    @rule(number=DRIVER)
    def tell(self, number: int) -> None:
        self.drivers[number].tell()

    @precondition(lambda self: any(driver.computing for driver in self.drivers))
    @rule(data=st.data(), succeeds=st.booleans())
    def finish(self, data: st.DataObject, succeeds: bool) -> None:
        busy = [number for number, driver in enumerate(self.drivers) if driver.computing]
        self.end(self.drivers[data.draw(st.sampled_from(busy))], succeeds)

    def end(self, driver: SimulatedDriver, succeeds: bool) -> None:
        key = driver.finish(succeeds=succeeds)
        self.successes[key] += succeeds

    @rule(seconds=st.floats(0.5, 5.0))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(number=DRIVER, is_resumed=st.booleans())
    def die(self, number: int, is_resumed: bool) -> None:
        """`kill -9`: what it held stays. The run is resumed by a new driver, once its lease is over, or another one
        begins; what it had to do is not lost."""
        old = self.drivers[number]
        self.dead.append(old)
        old.close()
        new = self.begin(old.name if is_resumed else f"run-{next(self.numbers)}-new")
        self.drivers[number] = new
        for step in old.steps:
            if step.final is None:
                new.submit(step.fingerprint)

    @invariant()
    def one_computes(self) -> None:
        computing = Counter(driver.computing.fingerprint for driver in self.drivers if driver.computing)
        assert not computing or max(computing.values()) == 1
        assert all(count == 1 for count in (+self.successes).values())

    def teardown(self) -> None:
        """Whatever has happened: everything ends, and nothing is left."""
        try:
            for _ in range(100):
                for driver in self.drivers:
                    driver.launch()
                    for _ in range(1000):
                        if not driver.loop.calls and not driver.tell():
                            break
                        driver.loop.turn()
                    else:
                        raise AssertionError("it goes round in circles")
                    driver.launch()
                    self.one_computes()
                for driver in self.drivers:
                    if driver.computing:
                        self.end(driver, succeeds=True)
                self.pass_time(LOOK_SECONDS)
            unfinished = [step for driver in self.drivers for step in driver.steps if step.final is None]
            assert unfinished == []
            held = {leases.holder_of(one) for one in self.client.list("Lease", label_selector=labels.CACHE_CLAIM).items}
            assert held.isdisjoint({driver.lease.identity for driver in self.drivers})
        finally:
            for driver in self.drivers:
                driver.close()
            self.client.close()
            self.store.close()


TestSingleFlights: Any = SingleFlights.TestCase
TestSingleFlights.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
