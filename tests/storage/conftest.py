"""Stores to test with: each implementation behind the one protocol, closed at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Store

__all__ = ["database", "memory_store", "open_store", "sqlite_store", "store"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a database file may be made."""
    return tmp_path / "store.db"


@pytest.fixture
def open_store(database: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Open the file `database` once more; what was opened is closed at the end."""
    with contextlib.ExitStack() as opened:

        def open_one() -> SqliteStore:
            return opened.enter_context(contextlib.closing(SqliteStore(database)))

        yield open_one


@pytest.fixture
def sqlite_store(open_store: Callable[[], SqliteStore]) -> SqliteStore:
    return open_store()


@pytest.fixture
def memory_store() -> Iterator[MemoryStore]:
    with contextlib.closing(MemoryStore()) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each implementation in turn."""
    chosen: Store = request.getfixturevalue(f"{request.param}_store")
    return chosen
