"""Small scoring jobs over the stub engine: inputs, configurations, and what must be true of an output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from michelangelo.llm.scorer import config as configuration
from michelangelo.llm.scorer import job
from michelangelo.llm.scorer.config import ScoreConfig

__all__ = ["config_of", "lines", "rows_of", "score", "write_rows"]


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{number}", "prompt": f"What is {number}?"} for number in range(count)]


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """A text stands for a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def config_of(source: Path | Sequence[Path], target: Path, **sections: Any) -> ScoreConfig:
    """Threads of stub engines unless the sections say otherwise."""
    paths = [str(source)] if isinstance(source, Path) else [str(path) for path in source]
    document: dict[str, Any] = {
        "input": {"path": paths, **sections.pop("input", {})},
        "output": {"path": str(target), **sections.pop("output", {})},
        "engine": {"kind": "stub", **sections.pop("engine", {})},
        "replicas": {"runner": "thread", **sections.pop("replicas", {})},
        **sections,
    }
    return configuration.parse(document)


def score(source: Path | Sequence[Path], target: Path, **sections: Any) -> dict[str, Any]:
    """The report of a job that came to its end."""
    outcome = job.score(config_of(source, target, **sections))
    assert outcome.is_complete
    return outcome.report


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
