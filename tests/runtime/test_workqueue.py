"""The work queue: no key is lost, none is with two workers at once, delays and backoff are those asked for."""

from __future__ import annotations

import threading

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from michelangelo.runtime.workqueue import Backoff, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def still_backoff() -> Backoff:
    return Backoff(first_seconds=1.0, limit_seconds=60.0, jitter=0.0)


def test_add_twice_hands_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert queue.get(0) == "a"
    assert queue.get(0) is None


def test_add_while_running_hands_out_again_after_done_only() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get(0) == "a"
    queue.add("a")
    assert queue.get(0) is None
    queue.done("a")
    assert queue.get(0) == "a"


def test_busy_key_does_not_starve_the_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("busy")
    queue.add("quiet")
    assert queue.get(0) == "busy"
    queue.add("busy")
    queue.done("busy")
    assert [queue.get(0), queue.get(0)] == ["quiet", "busy"]


def test_add_after_waits_for_the_clock_and_the_earliest_counts() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.now += 4.9
    assert queue.get(0) is None
    clock.now += 0.2
    assert queue.get(0) == "a"
    queue.done("a")
    clock.now += 100
    assert queue.get(0) is None


def test_rate_limit_doubles_up_to_its_limit_and_forget_starts_over() -> None:
    queue: WorkQueue[str] = WorkQueue(backoff=still_backoff(), clock=Clock())
    delays = [queue.add_rate_limited("a") for _ in range(8)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert queue.failures("a") == 8
    queue.forget("a")
    assert queue.add_rate_limited("a") == 1


@given(st.integers(min_value=1, max_value=10_000), st.floats(min_value=0, max_value=1))
def test_backoff_stays_within_its_jitter(failures: int, drawn: float) -> None:
    backoff = Backoff(first_seconds=0.05, limit_seconds=60.0, jitter=0.2, draw=lambda: drawn)
    delay = backoff.delay_seconds(failures)
    assert 0.04 - 1e-9 <= delay <= 60.0
    assert failures < 20 or delay >= 48.0 - 1e-9


def test_shutdown_releases_waiting_workers_and_takes_nothing_more() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.shutdown()
    worker.join(10)
    assert got == [None]
    queue.add("a")
    assert len(queue) == 0


def test_waiting_worker_is_woken_by_a_delayed_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.add_after("a", 0.01)
    worker.join(10)
    assert got == ["a"]


def test_many_threads_lose_nothing_and_never_share_a_key() -> None:
    queue: WorkQueue[int] = WorkQueue()
    wanted = dict.fromkeys(range(20), 0)
    seen = dict.fromkeys(wanted, -1)
    running: set[int] = set()
    shared: list[int] = []
    guard = threading.Lock()

    def work() -> None:
        while (key := queue.get()) is not None:
            with guard:
                if key in running:
                    shared.append(key)
                running.add(key)
            with guard:
                seen[key] = wanted[key]
                running.discard(key)
            queue.done(key)

    def produce(start: int) -> None:
        for step in range(500):
            key = (start + step * 7) % 20
            with guard:
                wanted[key] += 1
            queue.add(key)

    workers = [threading.Thread(target=work) for _ in range(4)]
    producers = [threading.Thread(target=produce, args=(n,)) for n in range(4)]
    for thread in [*workers, *producers]:
        thread.start()
    for thread in producers:
        thread.join(30)
    for _ in range(20):  # What is queued or running now has been handled when each key was handed out once more.
        queue.add(_)
    while len(queue):
        queue.wait_idle(1)
    assert queue.wait_idle(10)
    queue.shutdown()
    for thread in workers:
        thread.join(10)
    assert not shared
    assert seen == wanted


class QueueMachine(RuleBasedStateMachine):
    """Against a model: a key that was added and not handed out since must be handed out."""

    keys = st.integers(min_value=0, max_value=4)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue: WorkQueue[int] = WorkQueue(clock=self.clock, backoff=still_backoff())
        self.owed: set[int] = set()
        self.later: dict[int, float] = {}
        self.running: set[int] = set()

    @rule(key=keys)
    def add(self, key: int) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @rule(key=keys, seconds=st.integers(min_value=1, max_value=5))
    def add_after(self, key: int, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self.later[key] = min(self.later.get(key, 1e9), self.clock.now + seconds)

    @rule(key=keys)
    def fail(self, key: int) -> None:
        delay = self.queue.add_rate_limited(key)
        self.later[key] = min(self.later.get(key, 1e9), self.clock.now + delay)

    @rule(key=keys)
    def forget(self, key: int) -> None:
        self.queue.forget(key)
        assert self.queue.failures(key) == 0

    @rule(seconds=st.integers(min_value=1, max_value=10))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def get(self) -> None:
        self._fall_due()
        key = self.queue.get(0)
        if key is None:
            assert not self.owed - self.running
        else:
            assert key in self.owed
            assert key not in self.running
            self.owed.discard(key)
            self.running.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(key)
        self.running.discard(key)

    @invariant()
    def owes_as_many_as_the_model(self) -> None:
        self._fall_due()
        assert len(self.queue) == len(self.owed)

    def _fall_due(self) -> None:
        for key, due in list(self.later.items()):
            if due <= self.clock.now:
                del self.later[key]
                self.owed.add(key)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
