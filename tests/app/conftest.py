"""Fixtures of the tests of whole programs: a home, flow files, and the processes that run them.

Nothing is fake here. Each test has a home of its own; what it starts it ends, by process id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object

_DEADLINE_SECONDS = 60.0


def until(reached: Callable[[], Any]) -> Any:
    """The first true value of `reached`; fails when none comes."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (found := reached()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


@dataclass
class Desk:
    """A folder with flow files, and a home."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, port=0)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text).lstrip())
        return path

    def start(self, file: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(file), *arguments],
            env={**os.environ, "MA_HOME": str(self.home), "TMPDIR": str(self.temporary), **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    @property
    def temporary(self) -> Path:
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def run(self, file: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        process = self.start(file, *arguments, **environment)
        out, err = process.communicate(timeout=_DEADLINE_SECONDS)
        return process.returncode, out, err

    def runs(self) -> list[Object]:
        if not (self.home / "michelangelo.db").exists():
            return []
        with Platform.open(self.settings) as platform:
            return list(platform.client.list("PipelineRun").items)

    def task_runs(self) -> list[Object]:
        with Platform.open(self.settings) as platform:
            return list(platform.client.list("TaskRun").items)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()
