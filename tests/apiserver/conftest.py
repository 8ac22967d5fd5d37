"""Fixtures of the API server's tests: real stores, the real verbs, the real HTTP server on a free port, the real
kubectl.

`RawHttp` is a plain HTTP client that knows nothing of us, so that it can put the same questions to another server.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import auth, verb
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.client.client import Object
from michelangelo.storage.memory import MemoryStore
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Store

DEADLINE_SECONDS = 20.0
OWNER_TOKEN = "owner-token-of-the-tests"
GROUP = "/apis/michelangelo.api/v2"
_numbers = itertools.count(1)


class MovableClock:
    def __init__(self) -> None:
        self.instant = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.instant

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


class Platform:
    """The verbs with the kind and the namespace that a test is about: `platform.create("Pipeline", "a")`."""

    def __init__(self, api: ApiServer, namespace: str = "team") -> None:
        self.api = api
        self.namespace = namespace

    def open(self) -> Object:
        """Make the project, and with it the namespace."""
        return self.create("Project", self.namespace)

    def create(self, kind: str, name: str, *, options: Any = None, **fields: Any) -> Object:
        obj = document(kind, name, **fields)
        return verb.run(self.api.create(registry.get(kind), self._namespace(kind), obj, options))

    def update(self, obj: Object, *, subresource: Any = "", options: Any = None) -> Object:
        kind = obj["kind"]
        name = obj["metadata"]["name"]
        change = self.api.update(registry.get(kind), self._namespace(kind), name, obj, options, subresource)
        return verb.run(change)

    def patch(self, kind: str, name: str, patch: Any, *, subresource: Any = "", options: Any = None) -> Object:
        change = self.api.patch(registry.get(kind), self._namespace(kind), name, patch, options, subresource)
        return verb.run(change)

    def delete(self, kind: str, name: str, *, how: Any = None, options: Any = None) -> Object:
        return verb.run(self.api.delete(registry.get(kind), self._namespace(kind), name, options, how))

    def get(self, kind: str, name: str) -> Object:
        return self.api.get(registry.get(kind), self._namespace(kind), name)

    def exists(self, kind: str, name: str) -> bool:
        try:
            self.get(kind, name)
        except errors.NotFoundError:
            return False
        return True

    def names(self, kind: str, options: Any = None) -> list[str]:
        found = self.api.list(registry.get(kind), self._namespace(kind), options)
        return [obj["metadata"]["name"] for obj in found.items]

    def _namespace(self, kind: str) -> str:
        return self.namespace if registry.get(kind).namespaced else ""


@dataclass(frozen=True)
class Reply:
    code: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RawHttp:
    """HTTP requests as they are, one connection each."""

    url: str
    token: str = ""
    authority: Path | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **headers: str
    ) -> Reply:
        """`body`: bytes as they are, anything else as JSON. Header names are written with underscores."""
        connection = self._connection()
        try:
            self._request(connection, method, path, body, content_type, headers)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.send("POST", path, body, **headers)

    def events(self, path: str, **headers: str) -> Generator[Any, None, None]:
        """The lines of a watch; the test fails when none comes for DEADLINE_SECONDS."""
        connection = self._connection()
        try:
            self._request(connection, "GET", path, None, "", headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.authority)
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=DEADLINE_SECONDS, context=context)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE_SECONDS)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        content_type: str,
        headers: dict[str, str],
    ) -> None:
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.token:
            sent.setdefault("authorization", f"Bearer {self.token}")
        if body is not None:
            sent.setdefault("content-type", content_type)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, body=body, headers=sent)


@dataclass
class Served:
    """A running server and what a test may want of it."""

    http: RawHttp
    api: ApiServer
    blobs: LocalBlobStore
    logs: Path
    run_tokens: auth.RunTokens


def document(kind: str, name: str, **fields: Any) -> Object:
    """A small valid object of a kind. `labels`, `finalizers` … go into its metadata."""
    metadata: Object = {"name": name} if name else {}
    for one in ("labels", "annotations", "finalizers", "ownerReferences", "generateName", "resourceVersion", "uid"):
        if one in fields:
            metadata[one] = fields.pop(one)
    specs: dict[str, Object] = {
        "Pipeline": {"spec": {"manifest": {"filePath": "flow.py"}}},
        "PipelineRun": {"spec": {"pipeline": {"name": "flow"}}},
        "Event": {"involvedObject": {"kind": "Pipeline", "name": "flow"}},
    }
    found = registry.get(kind)
    return {"apiVersion": found.api_version, "kind": kind, "metadata": metadata, **specs.get(kind, {}), **fields}


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
def platform(api: ApiServer) -> Platform:
    """Verbs on a server that has the project `team`."""
    made = Platform(api)
    made.open()
    return made


@pytest.fixture
def open_platform() -> Callable[[ApiServer], Platform]:
    """Makes the project `team` on a server of the test's own."""

    def make(api: ApiServer) -> Platform:
        made = Platform(api)
        made.open()
        return made

    return make


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over HTTP, shared by the tests of a module: each takes a namespace of its own."""
    folder = tmp_path_factory.mktemp("server")
    store = MemoryStore()
    api = ApiServer(store)
    blobs = LocalBlobStore(folder / "blobs")
    run_tokens = auth.RunTokens(b"a key of the tests")
    parts = AppParts(api, auth.Authenticator(OWNER_TOKEN, run_tokens), blobs=blobs, logs=folder / "logs")
    server = HttpServer(parts)
    server.start()
    try:
        yield Served(RawHttp(server.url, OWNER_TOKEN), api, blobs, folder / "logs", run_tokens)
    finally:
        server.stop()
        blobs.close()
        store.close()


@pytest.fixture
def http_client(served: Served) -> RawHttp:
    return served.http


@pytest.fixture
def space(served: Served) -> str:
    """The name of a new project."""
    name = f"space-{next(_numbers)}"
    Platform(served.api, name).open()
    return name


@pytest.fixture
def pipelines(space: str) -> str:
    """The URL of the pipelines of a new project."""
    return f"{GROUP}/namespaces/{space}/pipelines"


@pytest.fixture
def make_document() -> Callable[..., Object]:
    return document
