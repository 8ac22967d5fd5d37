"""Fixtures of the command line's tests: the real program in this process, a real home, a real server on a free port.

Nothing is mocked. What a verb does is looked up through another client of the same platform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from michelangelo.api.v2 import registry
from michelangelo.apiserver import auth, keyfiles, kubeconfig
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.app import settings
from michelangelo.app.platform import Platform, ensure_project
from michelangelo.cli import main as program
from michelangelo.client.client import Object


@dataclass(frozen=True)
class Result:
    """How one call of the program ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


Mactl = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; every call of the program uses it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MA_HOME", str(folder))
    monkeypatch.delenv("MA_CONTEXT", raising=False)
    monkeypatch.delenv("MA_NAMESPACE", raising=False)
    return folder


@pytest.fixture
def mactl(home: Path, capsys: pytest.CaptureFixture[str]) -> Mactl:
    """Call the program with these words; how it ended."""

    def call(*words: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            program.main(list(words))
        output = capsys.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 1, output.out, output.err)

    return call


@pytest.fixture
def platform(home: Path) -> Iterator[Platform]:
    """The embedded platform of the home, with the projects `demo` and `local`."""
    with Platform.open(settings.load()) as opened:
        ensure_project(opened.client, "demo")
        ensure_project(opened.client, "local")
        yield opened


@pytest.fixture
def server(platform: Platform) -> Iterator[HttpServer]:
    """A server over the same platform, which the home's kubeconfig leads to."""
    chosen = settings.load()
    token = keyfiles.ensure_token(chosen.token)
    authenticator = auth.Authenticator(token, auth.RunTokens(keyfiles.ensure_key(chosen.run_key)))
    parts = AppParts(
        platform.api,
        authenticator,
        blobs=platform.blobs,
        logs=platform.logs,
        collect=lambda age, dry: platform.collector.collect(age_seconds=age, dry_run=dry).to_json(),
    )
    made = HttpServer(parts)
    made.start()
    document = kubeconfig.document(server=made.url, token=token, namespace="demo")
    kubeconfig.write(chosen.kubeconfig, document)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(params=["embedded", "server"])
def anywhere(request: pytest.FixtureRequest, platform: Platform) -> Platform:
    """The platform, once reached directly and once through its server."""
    if request.param == "server":
        request.getfixturevalue("server")
    return platform


def document(
    kind: str, name: str, *, namespace: str = "demo", labels: dict[str, str] | None = None, **fields: Any
) -> Object:
    """A small valid object."""
    known = registry.get(kind)
    metadata: Object = {"name": name}
    if known.namespaced:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": known.api_version, "kind": kind, "metadata": metadata, **fields}


@pytest.fixture
def make(platform: Platform) -> Callable[..., Object]:
    """Create an object: `make("Pipeline", "train", spec={…})`; its status, too."""

    def create(kind: str, name: str, *, status: Object | None = None, **fields: Any) -> Object:
        made = platform.client.create(document(kind, name, **fields))
        if status is None:
            return made
        namespace = made["metadata"].get("namespace", "")
        return platform.client.patch(kind, name, {"status": status}, namespace=namespace, subresource="status")

    return create


@pytest.fixture
def pipeline_spec() -> Object:
    return {"type": "Train", "manifest": {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}}
