"""The example that scores prompts with a model trained on the spot, small here: each row once, nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_prompts_are_scored_once_and_the_second_run_finds_them(checkout: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(checkout / "examples" / "score_prompts" / "main.py"), "--out", str(tmp_path / "out")]
    words += ["--prompts", "30", "--steps", "3", "--max-tokens", "4"]
    for said in ("trained for 3 steps", "all 30 rows were scored before"):
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout + done.stderr
        assert "30 of 30 rows scored" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(30))
    assert all(row["error"] is None and row["output_tokens"] > 0 for row in rows)
    assert "<svg" in (tmp_path / "out" / "answers.jsonl.job" / "report.html").read_text()
