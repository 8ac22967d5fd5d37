"""The token budget example: a data set estimated and gated, within the budget and over it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_data_set_is_gated(checkout: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(checkout / "examples" / "token_budget" / "main.py"), "--out", str(tmp_path)]
    within = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert within.returncode == 0, within.stderr
    assert "1,000 calls" in within.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["total"]["exact"] is True
    budget = report["cost"]["middle"]
    over = subprocess.run(
        [*command, "--budget", f"{budget:.6f}usd"], capture_output=True, text=True, check=False, timeout=120
    )
    assert over.returncode == 3, over.stderr
    assert "over" in over.stdout
