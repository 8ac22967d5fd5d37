"""Fixtures of the bad-input table: what a user types, in real processes, and what is left of it afterwards.

Every test gives something wrong to `mactl`, to `python flow.py` or to a server, and looks at two things: what was said,
and that nothing was left half-written. Which message belongs to what is docs/failures.md.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

DEADLINE_SECONDS = 60.0
MINE = ("MA_", "KUBE", "VISUAL", "EDITOR")


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    code: int
    out: str
    err: str

    def refused(self, code: int, *words: str) -> str:
        """Standard error, which must hold the words and no traceback of ours; nothing is on standard output."""
        assert self.code == code, str(self)
        assert self.out == "", str(self)
        assert "Traceback" not in self.err, str(self)
        for word in words:
            assert word in self.err, f"{word!r} is not in:\n{self}"
        return self.err

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass
class Desk:
    """A folder with a user's files, and a home. What it starts it ends."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def database(self) -> Path:
        return self.home / "michelangelo.db"

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text).lstrip())
        return path

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(MINE)}
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**kept, "MA_HOME": str(self.home), "MA_PORT": "0", "TMPDIR": str(temporary), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *command: str, **variables: str) -> Result:
        process = self.start(*command, **variables)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return Result(process.returncode, out, err)

    def mactl(self, *words: str, **variables: str) -> Result:
        return self.run(sys.executable, "-m", "michelangelo.cli", *words, **variables)

    def python(self, file: str, *words: str, **variables: str) -> Result:
        return self.run(sys.executable, file, *words, **variables)

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """Those that the home keeps, read beside the platform."""
        if not self.database.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT key, value FROM current JOIN log USING (key, revision) ORDER BY revision")
            return [json.loads(value) for key, value in rows if key.startswith(f"/{kind}")]

    def kept(self) -> dict[str, Any]:
        """Everything that the home keeps: objects with their revisions, blobs, logs. What goes by itself is left out:
        leases, events, and what the collector does."""
        found: dict[str, Any] = {
            str(path.relative_to(self.home)): path.stat().st_size
            for folder in ("blobs", "logs", "sources")
            for path in (self.home / folder).rglob("*")
            if path.is_file()
        }
        if self.database.exists():
            with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                rows = connection.execute("SELECT key, revision FROM current").fetchall()
            found |= {key: revision for key, revision in rows if not key.startswith(("/leases", "/events"))}
        return found

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nothing is kept after the block that was not before, and nothing temporary is left."""
        before, temporary = self.kept(), set((self.folder / "tmp").glob("*"))
        yield
        assert self.kept() == before
        assert set((self.folder / "tmp").glob("*")) == temporary

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=DEADLINE_SECONDS)


@dataclass(frozen=True)
class Reply:
    code: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A server process, and the desk of its user."""

    desk: Desk
    url: str

    def send(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Reply:
        """One request over TLS, with the owner's token."""
        parts = urlsplit(self.url)
        context = ssl.create_default_context(cafile=str(self.desk.home / "tls" / "ca.crt"))
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=30)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        token = (self.desk.home / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Reply(response.status, response.read())
        finally:
            connection.close()


def start_server(desk: Desk, **variables: str) -> Served:
    process = desk.start(sys.executable, "-u", "-m", "michelangelo.cli", "serve", **variables)
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.match(r"serving (https://127\.0\.0\.1:\d+) ", line)
    assert match, line + (process.communicate()[1] if not line else "")
    return Served(desk, match.group(1))


def until(reached: Any) -> Any:
    """The first true value of `reached`; fails when none comes."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := reached()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def document(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": dict(spec),
    }


def as_yaml(*objects: Mapping[str, Any]) -> str:
    return "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in objects)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty home."""
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests of a module, with the project `local` ready."""
    made = Desk(tmp_path_factory.mktemp("served"))
    try:
        server = start_server(made)
        until(lambda: any((p.get("status") or {}).get("state") == "Ready" for p in made.objects("projects")))
        yield server
    finally:
        made.close()
