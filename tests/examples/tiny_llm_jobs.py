"""How tests run the main job: its command, its parameters when nothing need be learnt, and what a run left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DEADLINE_SECONDS", "SMALL", "STEPS", "Job", "attempt", "command", "environment", "run"]

DEADLINE_SECONDS = 900
SMALL = ("--quick", "--steps", "12", "--hidden", "64", "--layers", "1", "--lora-epochs", "1", "--prompts", "1")
"""Parameters with which everything happens, and nothing is learnt."""


@dataclass(frozen=True)
class Job:
    """Where one run put its things, and what it said."""

    out: Path
    stdout: str
    stderr: str
    metrics: Any
    """As this run left them: another one in the same folder writes its own."""

    def loss(self, name: str) -> float:
        """On the held-out text, in nats per token."""
        found = [one for one in self.metrics["evaluations"] if (one["name"], one["subject"]) == (name, "text")]
        return float(found[0]["loss"])

    def steps(self, word: str) -> list[str]:
        """The tasks whose line of progress says `word` (succeeded, cached)."""
        return sorted(line.strip().partition(":")[0] for line in self.stderr.splitlines() if f": {word}" in line)


STEPS = sorted(
    [
        *("prepare", "train_tokenizer", "initialise", "measure_baseline", "pretrain", "tune", "complete"),
        *["measure"] * 3,
        "write_report",
    ]
)


def command(checkout: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, str(checkout / "examples" / "tiny_llm" / "main.py"), "--out", str(out), *words]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("MA_")}


def attempt(checkout: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(checkout, out, *words),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def run(checkout: Path, out: Path, *words: str) -> Job:
    result = attempt(checkout, out, *words)
    assert result.returncode == 0, result.stderr
    return Job(out, result.stdout, result.stderr, json.loads((out / "tiny_llm" / "metrics.json").read_text()))
