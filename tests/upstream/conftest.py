"""Fixtures of the tests of upstream's files: a home, a copy of the files, and the programs that run in them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object

FILES = Path(__file__).parent / "files"
DEADLINE_SECONDS = 60.0


def until(reached: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true value of `reached`; fails when none comes."""
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


@dataclass
class Workshop:
    """A folder with upstream's files, and a home."""

    folder: Path
    home: Path
    patience_seconds: float = 120.0
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MA_", "UF_", "CACHE_"))}
        process = subprocess.Popen(
            [sys.executable, *words],
            env={**inherited, "MA_HOME": str(self.home), "PYTHONPATH": str(self.folder), "MA_PORT": "0", **variables},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, **variables: str) -> str:
        """The program's output; it has to succeed."""
        process = self.start(*words, **variables)
        out, err = process.communicate(timeout=self.patience_seconds)
        assert process.returncode == 0, out + err
        return out

    def fail(self, *words: str, **variables: str) -> str:
        """The program's errors; it has to fail."""
        process = self.start(*words, **variables)
        out, err = process.communicate(timeout=120)
        assert process.returncode not in (0, None), out
        return err

    def mactl(self, *words: str, **variables: str) -> str:
        return self.run("-m", "michelangelo.cli", *words, **variables)

    def objects(self, kind: str) -> list[Object]:
        with Platform.open(Settings(home=self.home)) as platform:
            return list(platform.client.list(kind).items)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.communicate()


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    folder = tmp_path / "files"
    shutil.copytree(FILES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    made = Workshop(folder, tmp_path / "home")
    yield made
    made.close()
