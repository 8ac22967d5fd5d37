"""Leases: never two holders, a successor after the term or at once after a death here, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from michelangelo import errors
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.client import Client, Object
from michelangelo.runtime import leases, processes
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore


class Clock:
    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def contender(client: Client, clock: Clock | None = None, identity: str = "") -> leases.Lease:
    return leases.Lease(client, "run", namespace="demo", identity=identity, clock=clock or Clock())


def stored(client: Client) -> Object:
    return client.get("Lease", "run", namespace="demo")


def test_first_contender_holds_and_is_written_down(client: Client) -> None:
    lease = contender(client)
    assert lease.acquire()
    assert lease.is_held
    document = stored(client)
    assert leases.holder_of(document) == lease.identity
    assert document["spec"]["leaseDurationSeconds"] == 15
    assert document["spec"]["leaseTransitions"] == 0


def test_second_contender_waits_until_nothing_changed_for_a_term(client: Client) -> None:
    holder_clock, other_clock = Clock(0.0), Clock(5e6)
    holder, other = contender(client, holder_clock), contender(client, other_clock)
    assert holder.acquire()
    assert not other.acquire()
    other_clock.now += 14
    assert not other.acquire()
    holder.renew()
    other_clock.now += 2
    assert not other.acquire()  # It has seen the renewal: a new term begins.
    other_clock.now += 14.9
    assert not other.acquire()
    other_clock.now += 0.2
    assert other.acquire()
    assert other.transitions == 1


def test_loser_is_told_at_its_next_renewal(client: Client) -> None:
    holder, clock = contender(client), Clock()
    other = contender(client, clock)
    holder.acquire()
    other.acquire()
    clock.now += 15
    assert other.acquire()
    with pytest.raises(errors.LeaseLostError, match="has taken it over"):
        holder.renew()
    assert not holder.is_held
    with pytest.raises(errors.LeaseLostError):
        holder.renew()


def test_term_ends_by_the_holders_own_clock(client: Client) -> None:
    clock = Clock()
    lease = contender(client, clock)
    lease.acquire()
    clock.now += 14.9
    assert lease.is_held
    clock.now += 0.2
    assert not lease.is_held


def test_suspended_holder_goes_on_when_nobody_took_over(client: Client) -> None:
    clock = Clock()
    lease = contender(client, clock)
    lease.acquire()
    clock.now += 3600
    lease.renew()
    assert lease.is_held


def test_release_deletes_the_object_and_frees_it_at_once(client: Client) -> None:
    lease = contender(client)
    lease.acquire()
    lease.release()
    assert client.list("Lease", namespace="demo").items == []
    assert contender(client).acquire()


def test_release_leaves_a_successors_lease_alone(client: Client) -> None:
    holder, clock = contender(client), Clock()
    other = contender(client, clock)
    holder.acquire()
    other.acquire()
    clock.now += 15
    other.acquire()
    holder.release()
    assert leases.holder_of(stored(client)) == other.identity


def test_release_deletes_also_after_somebody_labelled_the_object(client: Client) -> None:
    lease = contender(client)
    lease.acquire()
    client.patch("Lease", "run", {"metadata": {"labels": {"seen": "yes"}}}, namespace="demo")
    lease.release()
    assert client.list("Lease", namespace="demo").items == []


def test_renewal_survives_a_change_by_somebody_else(client: Client) -> None:
    lease = contender(client)
    lease.acquire()
    client.patch("Lease", "run", {"metadata": {"labels": {"seen": "yes"}}}, namespace="demo")
    lease.renew()
    assert stored(client)["metadata"]["labels"] == {"seen": "yes"}


def test_deleted_lease_is_lost(client: Client) -> None:
    lease = contender(client)
    lease.acquire()
    client.delete("Lease", "run", namespace="demo")
    with pytest.raises(errors.LeaseLostError, match="deleted"):
        lease.renew()


def test_acquire_needs_the_namespace(client: Client) -> None:
    with pytest.raises(errors.NotFoundError):
        leases.Lease(client, "run", namespace="absent").acquire()


def test_dead_process_of_this_machine_is_succeeded_at_once(client: Client) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    started = processes._started(process.pid)
    assert started
    identity = replace(processes.of_this_process(), pid=process.pid, started=started)
    assert contender(client, identity=str(identity)).acquire()
    successor = contender(client)
    assert not successor.acquire()
    process.kill()
    process.communicate()
    assert leases.is_dead(stored(client))
    assert successor.acquire()
    assert successor.transitions == 1


def test_holder_killed_in_the_act_is_succeeded_at_once(tmp_path: Any) -> None:
    """The whole of it: another process acquires in a shared SQLite file, and gets kill -9."""
    program = """
import sys
from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.runtime import leases
from michelangelo.storage.sqlite import SqliteStore
client = InProcessClient(ApiServer(SqliteStore(sys.argv[1])))
client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
lease = leases.Lease(client, "run", namespace="demo")
assert lease.acquire()
leases.Keeper(lease, lambda error: None).start()
print("held", flush=True)
sys.stdin.read()
"""
    path = str(tmp_path / "michelangelo.db")
    process = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    store = SqliteStore(path)
    client = InProcessClient(ApiServer(store))
    successor = leases.Lease(client, "run", namespace="demo")
    assert not successor.acquire()
    process.kill()
    process.communicate()
    assert successor.acquire()
    successor.release()
    assert client.list("Lease").items == []
    store.close()


def test_lost_answer_of_a_write_is_recognized(client: Client) -> None:
    """The write was done, the connection broke: the next attempt finds itself as the holder."""
    broken = BrokenAfter(client)
    lease = contender(broken)
    broken.breaks = 1
    with pytest.raises(errors.UnavailableError):
        lease.acquire()
    assert lease.acquire()
    broken.breaks = 1
    with pytest.raises(errors.UnavailableError):
        lease.renew()
    assert lease.is_held
    lease.renew()


def test_holder_that_cannot_reach_the_server_is_lost_after_its_term(client: Client) -> None:
    clock, broken = Clock(), BrokenAfter(client)
    lease = contender(broken, clock)
    lease.acquire()
    broken.breaks = 10
    with pytest.raises(errors.UnavailableError):
        lease.renew()
    clock.now += 15
    with pytest.raises(errors.LeaseLostError, match="in time"):
        lease.renew()


def test_run_lease_belongs_to_its_run(client: Client, pipeline: Callable[..., Object]) -> None:
    run = pipeline("a")  # Any object will do as an owner.
    lease = leases.of_run(client, run)
    lease.acquire()
    metadata = client.get("Lease", leases.run_lease_name("a"), namespace="demo")["metadata"]
    assert metadata["labels"] == {"michelangelo/pipeline-run": "a"}
    assert metadata["ownerReferences"][0]["uid"] == run["metadata"]["uid"]


def test_keeper_renews_and_gives_back(client: Client) -> None:
    lease = leases.Lease(client, "run", namespace="demo", duration_seconds=1)
    lease.acquire()
    first = stored(client)["metadata"]["resourceVersion"]
    watch = client.watch("Lease", namespace="demo", resource_version=first)
    keeper = leases.Keeper(lease, lambda error: None)
    keeper.start()
    assert watch.next(20) is not None
    assert watch.next(20) is not None
    keeper.stop()
    assert client.list("Lease", namespace="demo").items == []


def test_keeper_tells_the_loss_once(client: Client) -> None:
    lease = leases.Lease(client, "run", namespace="demo", duration_seconds=1)
    lease.acquire()
    told: list[errors.LeaseLostError] = []
    lost = threading.Event()

    def on_lost(error: errors.LeaseLostError) -> None:
        told.append(error)
        lost.set()

    keeper = leases.Keeper(lease, on_lost)
    client.delete("Lease", "run", namespace="demo")
    keeper.start()
    assert lost.wait(20)
    keeper.stop()
    assert len(told) == 1


def test_leases_load_nothing_heavy() -> None:
    program = "import sys, michelangelo.runtime.leases; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "psutil", "urllib3", "ssl", "asyncio", "yaml"} & set(loaded)


class BrokenAfter:
    """A client whose next `breaks` writes are done, but answered by a broken connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.breaks = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in ("create", "update", "delete"):
            return found

        def write(*args: Any, **kwargs: Any) -> Any:
            answer = found(*args, **kwargs)
            if self.breaks:
                self.breaks -= 1
                raise errors.UnavailableError("the connection broke")
            return answer

        return write


class Slow:
    """A client on whose every call time passes, before and after the server has done it."""

    def __init__(self, client: Client, clocks: list[Clock]) -> None:
        self._client = client
        self._clocks = clocks
        self.before = self.after = 0.0
        self.meanwhile: Callable[[], object] | None = None
        """What happens after the server has done the call and before its caller hears of it."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._pass(self.before)
            try:
                return found(*args, **kwargs)
            finally:
                self._meanwhile()
                self._pass(self.after)

        return call

    def _meanwhile(self) -> None:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()

    def _pass(self, seconds: float) -> None:
        for clock in self._clocks:
            clock.now += seconds


class ContendersMachine(RuleBasedStateMachine):
    """Several contenders, whose clocks show different times and run equally fast; calls take long; some die."""

    indexes = st.integers(min_value=0, max_value=2)
    # Exact in binary, so that sums are.
    seconds = st.sampled_from([0.0, 0.0, 0.0, 0.5, 7.5, 14.875, 15.0])

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        server = InProcessClient(ApiServer(self.store))
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
        self.clocks = [Clock(0.0), Clock(1e4), Clock(5e8)]
        self.clients = [Slow(server, self.clocks) for _ in self.clocks]
        self.server = server
        self.leases: list[leases.Lease] = []

    @initialize()
    def appear(self) -> None:
        self.leases = [self._new(index) for index in range(3)]

    @rule(seconds=seconds)
    def wait(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.now += seconds

    @rule(index=indexes, other=indexes, before=seconds, after=seconds)
    def acquire(self, index: int, other: int, before: float, after: float) -> None:
        self._slow(index, before, after, other)
        self.leases[index].acquire()

    @rule(index=indexes, other=indexes, before=seconds, after=seconds)
    def renew(self, index: int, other: int, before: float, after: float) -> None:
        self._slow(index, before, after, other)
        try:
            self.leases[index].renew()
        except errors.LeaseLostError:
            assert not self.leases[index].is_held

    @rule(index=indexes)
    def release(self, index: int) -> None:
        self._slow(index, 0, 0)
        self.leases[index].release()
        assert not self.leases[index].is_held

    @rule(index=indexes)
    def forget_everything(self, index: int) -> None:
        """A crash and a restart on another machine."""
        self.leases[index] = self._new(index)

    @invariant()
    def at_most_one_holds(self) -> None:
        holders = [lease for lease in self.leases if lease.is_held]
        assert len(holders) <= 1
        for lease in holders:
            assert leases.holder_of(self.server.get("Lease", "run", namespace="demo")) == lease.identity

    @invariant()
    def one_object_at_most(self) -> None:
        assert len(self.server.list("Lease", namespace="demo").items) <= 1

    def teardown(self) -> None:
        # However it went: who keeps asking gets it in the end.
        for index in range(3):
            self._slow(index, 0, 0)
        last = self._new(0)
        last.acquire()
        for clock in self.clocks:
            clock.now += 15
        assert last.acquire()
        self.store.close()

    def _new(self, index: int) -> leases.Lease:
        return contender(self.clients[index], self.clocks[index], identity=f"contender-{index}-{os.urandom(4).hex()}")

    def _slow(self, index: int, before: float, after: float, other: int | None = None) -> None:
        """The next call of `index` takes so long, and `other` asks for the lease after its first request."""
        slow = self.clients[index]
        slow.before, slow.after, slow.meanwhile = before, after, None
        if other is not None and other != index:
            self._slow(other, 0, 0)
            slow.meanwhile = self.leases[other].acquire


def test_slow_answer_does_not_lengthen_the_term(client: Client) -> None:
    """The term counts from before the write: a contender that saw the renewal at once waits no longer than that."""
    clock = Clock()
    slow = Slow(client, [clock])
    holder, other = contender(slow, clock), contender(client, clock)
    holder.acquire()
    slow.after, slow.meanwhile = 15.0, other.acquire
    holder.renew()
    assert other.acquire()
    assert not holder.is_held


TestContendersMachine = ContendersMachine.TestCase
TestContendersMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
