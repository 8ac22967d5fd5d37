"""The example of Trace-bench: the suite and the notes are what they say, and the planted regression is caught."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from michelangelo.llm.tracebench import suite

DEADLINE_SECONDS = 600


@pytest.fixture(scope="module")
def example(checkout: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(
        "catch_regression_example", checkout / "examples/catch_regression/main.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(checkout: Path, out: Path, *words: str) -> str:
    """The example as a user runs it; what it prints."""
    program = str(checkout / "examples/catch_regression/main.py")
    ended = subprocess.run(
        [sys.executable, program, "--out", str(out), *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_suite_asks_every_pair_of_digits(example: types.ModuleType) -> None:
    asked = suite.from_document(example.questions())
    assert len(asked.cases) == 400
    assert {case.slices for case in asked.cases} == {("plus",), ("minus",), ("times",), ("max",)}


def test_only_products_are_wrong_in_the_notes(example: types.ModuleType) -> None:
    right, wrong = example.lines(0.0), example.lines(1 / 3)
    differing = [one for one, other in zip(right, wrong, strict=True) if one != other]
    assert all("times" in one for one in differing)
    assert 20 <= len(differing) <= 45
    assert max(map(len, wrong)) < example.WIDTH
    assert set("".join(wrong)) <= set(example.ALPHABET)


@pytest.mark.slow
def test_the_planted_regression_is_caught(checkout: Path, tmp_path: Path) -> None:
    said = run(checkout, tmp_path)
    assert "regression:" in said
    states = {line.split()[0]: line.split()[-1] for line in said.splitlines() if "→" in line and "%" in line}
    assert states["times"] == "regression"
    assert "regression" not in {states["plus"], states["minus"], states["max"]}
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert "<failure" in (tmp_path / "junit.xml").read_text()
    header = json.loads((tmp_path / "traces/after/000001/recording.json").read_text())
    assert header["num_rows"] == 400
