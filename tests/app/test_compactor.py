"""The compactor forgets what is old and superseded, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from michelangelo import errors
from michelangelo.app.compactor import Compactor
from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.store import Write


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_compactor_keeps_the_last_five_minutes() -> None:
    store, clock = MemoryStore(), Clock()
    compactor = Compactor(store, clock=clock)
    for _ in range(10):
        store.write(Write("/a", b"x")).result()
        compactor.step()
        clock.now += 60
    # Revision n was seen at minute n - 1; the last step was at minute 9 and looked back to minute 4.
    assert store.events("/", after=5)
    with pytest.raises(errors.ExpiredError):
        store.events("/", after=4)
    record = store.get("/a")
    assert record is not None
    assert record.revision == 10


def test_compactor_leaves_a_quiet_store_alone() -> None:
    store, clock = MemoryStore(), Clock()
    compactor = Compactor(store, clock=clock)
    compactor.step()
    clock.now += 3600
    compactor.step()
    store.write(Write("/a", b"x")).result()
    assert len(store.events("/", after=0)) == 1


def test_compactor_ends_when_it_is_stopped() -> None:
    compactor = Compactor(MemoryStore())
    compactor.start()
    compactor.stop()


def test_runs_without_a_server_keep_the_log_short(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with Platform.open(settings) as platform:
        platform.kept_revisions = 10
        for _ in range(50):
            platform.store.write(Write("/a", b"x")).result()
    with Platform.open(settings) as platform:
        newest = platform.store.revision()
        with pytest.raises(errors.ExpiredError):
            platform.store.events("/", after=newest - 20)
        assert platform.store.events("/", after=newest - 5)
