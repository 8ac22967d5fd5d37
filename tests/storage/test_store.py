"""What single calls promise, over both stores: refusals, futures, wake-ups, closing, threads."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import Counter
from concurrent.futures import Future, wait

import pytest

from michelangelo import errors
from michelangelo.storage.store import ABSENT, Event, Record, Store, Write

DEADLINE_SECONDS = 20


def test_create_of_an_existing_key_is_refused(store: Store) -> None:
    store.write(Write("/a", b"1")).result()

    with pytest.raises(errors.AlreadyExistsError, match="/a exists already, at revision 1"):
        store.write(Write("/a", b"2", ABSENT)).result()


def test_update_of_another_revision_is_refused(store: Store) -> None:
    store.write(Write("/a", b"1")).result()
    store.write(Write("/a", b"2", 1)).result()

    with pytest.raises(errors.ConflictError, match="/a is at revision 2, not 1: read it again"):
        store.write(Write("/a", b"3", 1)).result()
    assert store.get("/a") == Record("/a", b"2", 2, 1)


@pytest.mark.parametrize("write", [Write("/a", None), Write("/a", b"1", 7), Write("/a", None, 7)])
def test_write_that_needs_a_missing_key_is_refused(store: Store, write: Write) -> None:
    with pytest.raises(errors.NotFoundError, match="/a does not exist"):
        store.write(write).result()
    assert store.revision() == 0


@pytest.mark.parametrize("write", [Write("", b"1"), Write("/\ud800", b"1"), Write("/a", b"1", terms=frozenset([""]))])
def test_key_or_term_that_no_store_can_hold_is_a_programming_error(store: Store, write: Write) -> None:
    with pytest.raises(ValueError):
        store.write(write)
    assert store.write(Write("/a", b"1")).result().revision == 1


def test_deletion_resolves_to_the_last_value(store: Store) -> None:
    store.write(Write("/a", b"1")).result()

    assert store.write(Write("/a", None)).result() == Record("/a", b"1", 2, 1)
    assert store.write(Write("/a", b"2", ABSENT)).result() == Record("/a", b"2", 3, 3)


def test_revision_of_a_compacted_deletion_is_not_given_out_again(store: Store) -> None:
    store.write(Write("/a", b"1")).result()
    store.write(Write("/a", None)).result()
    store.compact(100)

    assert store.write(Write("/b", b"1")).result().revision == 3


def test_watch_at_the_floor_of_a_compaction_misses_nothing(store: Store) -> None:
    for value in (b"1", b"2", b"3"):
        store.write(Write("/a", value)).result()
    store.write(Write("/a", None)).result()
    store.compact(2)

    events = store.events("/", after=2)
    assert [(e.record.value, e.deleted, e.previous and e.previous.value) for e in events] == [
        (b"3", False, b"2"),
        (b"3", True, b"3"),
    ]
    with pytest.raises(errors.ExpiredError, match="revision 1 was compacted away"):
        store.events("/", after=1)


def test_write_that_nobody_waits_for_is_committed(store: Store) -> None:
    futures = [store.write(Write(f"/{n}", b"1")) for n in range(50)]

    assert len(wait(futures, DEADLINE_SECONDS).done) == 50
    assert store.revision() == 50


def test_write_may_be_awaited_on_an_event_loop(store: Store) -> None:
    async def write_all() -> list[Record]:
        return await asyncio.gather(*(asyncio.wrap_future(store.write(Write(f"/{n}", b"1"))) for n in range(20)))

    assert sorted(record.revision for record in asyncio.run(write_all())) == list(range(1, 21))


def test_callback_of_a_write_may_write(store: Store) -> None:
    second: Future[Record] = Future()

    def write_again(_: Future[Record]) -> None:
        second.set_result(store.write(Write("/b", b"1")).result())

    store.write(Write("/a", b"1")).add_done_callback(write_again)
    assert second.result(DEADLINE_SECONDS).revision == 2


def test_subscriber_is_told_of_every_newest_revision(store: Store) -> None:
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = store.subscribe(told.put)
    for revision in range(1, 6):
        store.write(Write("/a", b"1")).result()
        while told.get(timeout=DEADLINE_SECONDS) < revision:
            pass
    stop()
    stop()


def test_subscriber_of_a_prefix_is_left_alone_by_other_keys(store: Store) -> None:
    concerned: queue.SimpleQueue[int] = queue.SimpleQueue()
    everything: queue.SimpleQueue[int] = queue.SimpleQueue()
    store.subscribe(concerned.put, prefix="/a/")
    store.subscribe(everything.put)
    for revision, key in enumerate(("/b/1", "/a/1", "/b/2"), 1):
        store.write(Write(key, b"1")).result()
        while everything.get(timeout=DEADLINE_SECONDS) < revision:
            pass

    assert concerned.get(timeout=DEADLINE_SECONDS) == 2
    assert concerned.empty()


def test_subscriber_of_a_quiet_prefix_is_told_now_and_then(store: Store) -> None:
    """So that its reader does not fall behind the compaction of the log."""
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    store.subscribe(told.put, prefix="/quiet/")
    for number in range(1100):
        store.write(Write(f"/busy/{number}", b"1")).result()
    assert told.get(timeout=DEADLINE_SECONDS) >= 1000


def test_subscriber_that_stopped_is_told_nothing(store: Store) -> None:
    stopped: queue.SimpleQueue[int] = queue.SimpleQueue()
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    store.subscribe(stopped.put)()
    store.subscribe(told.put)
    store.write(Write("/a", b"1")).result()

    assert told.get(timeout=DEADLINE_SECONDS) == 1
    assert stopped.empty()


def test_conflicting_writers_lose_no_update(store: Store) -> None:
    """Each of 8 threads adds 25 to one counter by read, compare and write."""
    store.write(Write("/n", b"0")).result()
    refused: Counter[str] = Counter()

    def add() -> None:
        done = 0
        while done < 25:
            record = store.get("/n")
            assert record is not None
            try:
                store.write(Write("/n", b"%d" % (int(record.value) + 1), record.revision)).result()
                done += 1
            except errors.ConflictError:
                refused["/n"] += 1

    in_threads(8, add)
    record = store.get("/n")
    assert record is not None
    assert record.value == b"200"
    assert store.revision() == 201


def test_reader_sees_pages_as_of_one_revision(store: Store) -> None:
    """/a and /b always get the same value, in two writes: a page holds both of one pair, or the newer /a."""
    finished = threading.Event()

    def write() -> None:
        for n in range(150):
            store.write(Write("/a", b"%d" % n)).result()
            store.write(Write("/b", b"%d" % n)).result()
        finished.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not finished.is_set():
        page = store.list("/")
        newest = max((record.revision for record in page.records), default=0)
        assert newest == page.revision
        if len(page.records) == 2:
            a, b = (int(record.value) for record in page.records)
            assert a - b in (0, 1)
    writer.join()


def test_watcher_that_keeps_up_with_compactions_misses_nothing(store: Store) -> None:
    def write() -> None:
        for n in range(600):
            store.write(Write(f"/{n % 7}", None if n % 5 == 4 else b"%d" % n)).exception()
        store.write(Write("/last", b"")).result()

    news = threading.Event()
    stop = store.subscribe(lambda _: news.set())
    writer = threading.Thread(target=write)
    writer.start()
    found: list[Event] = []
    while not found or found[-1].record.key != "/last":
        assert news.wait(DEADLINE_SECONDS)
        news.clear()
        while events := store.events("/", after=len(found), limit=50):
            found += events
            store.compact(len(found))
    stop()
    writer.join()
    assert [event.record.revision for event in found] == list(range(1, store.revision() + 1))
    assert all((event.previous is None) == (event.record.created == event.record.revision) for event in found)
    state = {event.record.key: event for event in found}
    living = [event.record for key, event in sorted(state.items()) if not event.deleted]
    assert list(store.list("/").records) == living


def test_store_that_was_closed_says_so(store: Store) -> None:
    future = store.write(Write("/a", b"1"))
    store.close()
    store.close()

    assert future.result(DEADLINE_SECONDS).revision == 1
    for call in (store.revision, lambda: store.get("/a"), lambda: store.list("/"), lambda: store.events("/", after=0)):
        with pytest.raises(errors.StorageError, match="was closed"):
            call()
    with pytest.raises(errors.StorageError, match="was closed"):
        store.write(Write("/a", b"1"))
    with pytest.raises(errors.StorageError, match="was closed"):
        store.subscribe(print)
    with pytest.raises(errors.StorageError, match="was closed"):
        store.compact(1)


def test_close_while_others_write_loses_no_future(store: Store) -> None:
    outcomes: Counter[str] = Counter()
    started = threading.Barrier(5)

    def write() -> None:
        started.wait()
        try:
            while True:
                store.write(Write("/a", b"1")).result(DEADLINE_SECONDS)
                outcomes["written"] += 1
        except errors.StorageError:
            outcomes["refused"] += 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    store.close()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert outcomes["refused"] == 4


def test_forked_child_is_refused_and_the_parent_goes_on(store: Store) -> None:
    store.write(Write("/a", b"1")).result()
    child = os.fork()
    if child == 0:
        try:
            store.close()
            store.write(Write("/b", b"1"))
        except errors.StorageError as e:
            os._exit(0 if "forked" in e.message else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.write(Write("/b", b"1")).result().revision == 2


def in_threads(count: int, work: object) -> None:
    assert callable(work)
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as e:
            failures.append(e)
            raise

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
