"""Fixtures of the API server's tests: real stores, the real verbs, and one clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from michelangelo.api.v2 import registry
from michelangelo.apiserver import verb
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.client.client import Object
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Store


class MovableClock:
    def __init__(self) -> None:
        self.instant = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.instant

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "michelangelo.db")
    yield opened
    opened.close()


@pytest.fixture
def api(store: Store, clock: MovableClock) -> ApiServer:
    return ApiServer(store, clock=clock)


@pytest.fixture
def create(api: ApiServer) -> Callable[..., Object]:
    """`create("Pipeline", "p1", namespace="team", spec={…}, labels={…})`; the project comes by itself."""

    def make(kind: str, name: str, *, namespace: str = "team", **fields: Any) -> Object:
        found = registry.get(kind)
        if found.namespaced and kind != "Project":
            try:
                api.get(registry.get("Namespace"), "", namespace)
            except Exception:  # noqa: BLE001 - whatever is wrong, creating the project shows it
                verb.run(api.create(registry.get("Project"), namespace, {"metadata": {"name": namespace}}))
        metadata: dict[str, Any] = {"name": name} if name else {}
        for field in ("labels", "annotations", "finalizers", "ownerReferences", "generateName"):
            if field in fields:
                metadata[field] = fields.pop(field)
        return verb.run(api.create(found, namespace if found.namespaced else "", {"metadata": metadata, **fields}))

    return make
