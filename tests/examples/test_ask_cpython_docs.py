"""The example over CPython's topics runs as it is written down, keeps its promise, and leaves a report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from michelangelo.llm.contexteval import gate

EXAMPLE = Path(__file__).parents[2] / "examples" / "ask_cpython_docs" / "main.py"

pytestmark = pytest.mark.slow


def test_ask_cpython_docs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--embedder", "hashing", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "at most 5% is answered, with 95% confidence" in done.stdout
    assert "kept." in done.stdout
    assert done.stdout.rstrip().endswith("Not in corpus")
    assert "<svg" in (tmp_path / "gate.html").read_text(encoding="utf-8")
    assert gate.load(tmp_path / "corpus" / "gate.json").promise.risk == 0.05
