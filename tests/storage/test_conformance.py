"""Every store does what a few lines over the whole, never compacted history say; also two stores on one file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import ABSENT, ANY, Event, Page, Record, Store, Write

KEYS = ["/a/x", "/a/y", "/a/y/z", "/b/x", "/b/ü", "/b/\U0001f600", "/ab", "a"]
KEY = st.sampled_from(KEYS)
PREFIX = st.sampled_from(["", "/", "/a", "/a/", "/a/y", "/b/", "/b/ü", "/b/\U0001f600", "none"])
AFTER = st.sampled_from(["", "/a", "/a/x", "/a/y", "/b", "/b/x", "zzz", "\U0010ffff"])
TERMS = st.frozensets(st.sampled_from(["color=red", 'odd="\n,', "size=1"]), max_size=2)
LIMIT = st.integers(0, 4)
EXPECTED = st.sampled_from(["any", "absent", "current", "stale", "future"])
VALUE = st.binary(max_size=40)
BACK = st.integers(-1, 12)
"""How many revisions ago; -1 is one that is still to come."""


@dataclass(frozen=True)
class Past:
    record: Record
    deleted: bool
    previous: Record | None
    terms: frozenset[str]


class Model:
    """The whole history as a list; every answer is computed from it anew."""

    def __init__(self) -> None:
        self.history: list[Past] = []
        self.floor = 0

    def state(self, at: int) -> dict[str, Past]:
        rows: dict[str, Past] = {}
        for row in self.history[:at]:
            rows.pop(row.record.key, None)
            if not row.deleted:
                rows[row.record.key] = row
        return rows

    def write(self, write: Write) -> Record | type[errors.ApiError]:
        present = self.state(len(self.history)).get(write.key)
        revision = len(self.history) + 1
        if present is None:
            if write.value is None or write.expected not in (ABSENT, ANY):
                return errors.NotFoundError
            row = Past(Record(write.key, write.value, revision, revision), False, None, write.terms)
        else:
            old = present.record
            if write.expected == ABSENT:
                return errors.AlreadyExistsError
            if write.expected not in (ANY, old.revision):
                return errors.ConflictError
            value = old.value if write.value is None else write.value
            row = Past(Record(write.key, value, revision, old.created), write.value is None, old, write.terms)
        self.history.append(row)
        return row.record

    def page(self, prefix: str, after: str, limit: int, at: int, terms: frozenset[str]) -> Page:
        state = self.state(at)
        found = [
            row.record
            for key, row in sorted(state.items())
            if key.startswith(prefix) and key > after and terms <= row.terms
        ]
        shown = found[:limit] if limit else found
        return Page(shown, at, len(found) - len(shown))

    def events(self, prefix: str, after: int, limit: int) -> Sequence[Event]:
        found = [
            Event(row.record, row.deleted, row.previous)
            for row in self.history[after:]
            if row.record.key.startswith(prefix)
        ]
        return found[:limit] if limit else found


class Conformance(stateful.RuleBasedStateMachine):
    """`stores` see the same data; each step uses any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.stores: list[Store] = self.open()

    def open(self) -> list[Store]:
        return [MemoryStore()]

    def any_store(self, data: st.DataObject) -> Store:
        return self.stores[data.draw(st.integers(0, len(self.stores) - 1), label="store")]

    def a_write(self, data: st.DataObject) -> Write:
        key = data.draw(KEY)
        present = self.model.state(len(self.model.history)).get(key)
        current = present.record.revision if present else 1
        expected = {"any": ANY, "absent": ABSENT, "current": current, "stale": current - 1, "future": current + 7}
        value = data.draw(st.none() | VALUE)
        return Write(key, value, expected[data.draw(EXPECTED)], data.draw(TERMS))

    @stateful.rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        write = Write(data.draw(KEY), data.draw(VALUE), ANY, data.draw(TERMS))
        assert self.any_store(data).write(write).result() == self.model.write(write)

    @stateful.rule(data=st.data(), terms=TERMS)
    def delete_a_living_key(self, data: st.DataObject, terms: frozenset[str]) -> None:
        living = sorted(self.model.state(len(self.model.history)))
        if living:
            write = Write(data.draw(st.sampled_from(living)), None, ANY, terms)
            assert self.any_store(data).write(write).result() == self.model.write(write)

    @stateful.rule(data=st.data(), count=st.integers(1, 8))
    def write_several_at_once(self, data: st.DataObject, count: int) -> None:
        """Queued together, each is judged on its own, in order."""
        writes = [self.a_write(data) for _ in range(count)]
        store = self.any_store(data)
        futures = [store.write(write) for write in writes]
        for write, future in zip(writes, futures, strict=True):
            failure = future.exception()
            got = type(failure) if failure else future.result()
            assert got == self.model.write(write)

    @stateful.rule(data=st.data(), key=KEY)
    def get(self, data: st.DataObject, key: str) -> None:
        present = self.model.state(len(self.model.history)).get(key)
        assert self.any_store(data).get(key) == (present.record if present else None)

    @stateful.rule(data=st.data(), prefix=PREFIX, after=AFTER, limit=LIMIT, terms=TERMS)
    def list_now(self, data: st.DataObject, prefix: str, after: str, limit: int, terms: frozenset[str]) -> None:
        page = self.any_store(data).list(prefix, after=after, limit=limit, terms=terms)
        assert page == self.model.page(prefix, after, limit, len(self.model.history), terms)

    @stateful.rule(data=st.data(), prefix=PREFIX, after=AFTER, limit=LIMIT, terms=TERMS, back=BACK)
    def list_past(
        self, data: st.DataObject, prefix: str, after: str, limit: int, terms: frozenset[str], back: int
    ) -> None:
        at = max(0, len(self.model.history) - back)
        try:
            page = self.any_store(data).list(prefix, after=after, limit=limit, at=at, terms=terms)
        except errors.ExpiredError:
            assert not self.is_kept(at)
        else:
            assert self.is_kept(at)
            assert page == self.model.page(prefix, after, limit, at, terms)

    @stateful.rule(data=st.data(), prefix=st.sampled_from(["", "/", "/b/"]), limit=st.integers(1, 3), terms=TERMS)
    def page_through_every_past(self, data: st.DataObject, prefix: str, limit: int, terms: frozenset[str]) -> None:
        store = self.any_store(data)
        for at in range(self.model.floor, len(self.model.history) + 1)[-20:]:
            after, remaining = "", 1
            while remaining:
                page = store.list(prefix, after=after, limit=limit, at=at, terms=terms)
                assert page == self.model.page(prefix, after, limit, at, terms)
                remaining = page.remaining
                after = page.records[-1].key if page.records else ""

    @stateful.rule(data=st.data(), prefix=PREFIX, limit=LIMIT, back=BACK)
    def events(self, data: st.DataObject, prefix: str, limit: int, back: int) -> None:
        after = max(0, len(self.model.history) - back)
        try:
            events = self.any_store(data).events(prefix, after=after, limit=limit)
        except errors.ExpiredError:
            assert not self.is_kept(after)
        else:
            assert self.is_kept(after)
            assert list(events) == self.model.events(prefix, after, limit)

    @stateful.rule(data=st.data(), back=st.integers(-1, 40))
    def compact(self, data: st.DataObject, back: int) -> None:
        before = max(0, len(self.model.history) - back)
        self.any_store(data).compact(before)
        self.model.floor = max(self.model.floor, min(before, len(self.model.history)))

    @stateful.invariant()
    def revision_is_the_newest(self) -> None:
        for store in self.stores:
            assert store.revision() == len(self.model.history)

    def is_kept(self, revision: int) -> bool:
        return self.model.floor <= revision <= len(self.model.history)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()


class SqliteConformance(Conformance):
    """Two stores on one file, and reopening it."""

    def open(self) -> list[Store]:
        self.folder = tempfile.TemporaryDirectory()
        return [self.open_one(), self.open_one()]

    def open_one(self) -> SqliteStore:
        return SqliteStore(Path(self.folder.name) / "store.db")

    @stateful.rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        chosen = data.draw(st.integers(0, 1))
        self.stores[chosen].close()
        self.stores[chosen] = self.open_one()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


SETTINGS = hypothesis.settings(max_examples=100, stateful_step_count=30, deadline=None)
LONG = hypothesis.settings(max_examples=400, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("machine", [Conformance, SqliteConformance])
def test_store_does_what_the_model_does(machine: type[Conformance]) -> None:
    stateful.run_state_machine_as_test(machine, settings=SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Conformance, SqliteConformance])
def test_store_does_what_the_model_does_for_long(machine: type[Conformance]) -> None:
    stateful.run_state_machine_as_test(machine, settings=LONG)
