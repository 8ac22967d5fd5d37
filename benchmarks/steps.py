"""The cost of one durable step, without start-up: (chain of 1+N) minus (chain of 1), over N.

Both executors, both durabilities. Each figure is the median over several whole processes of `ours_flow.py`.
"""

from __future__ import annotations

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent


def run_seconds(shape: str, n: int, mode: str, environment: dict[str, str]) -> float:
    argv = [sys.executable, str(HERE / "ours_flow.py"), shape, str(n), *([mode] if mode else [])]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"BENCH .*run=([\d.]+)", done.stdout)
    if not found:
        raise SystemExit(f"steps: no BENCH line: {done.stdout[-300:]}")
    return float(found.group(1))


def per_step_ms(shape: str, n: int, mode: str, environment: dict[str, str], *, repeats: int = 5) -> float:
    small = [run_seconds(shape, 1, mode, environment) for _ in range(repeats)]
    large = [run_seconds(shape, n + 1, mode, environment) for _ in range(repeats)]
    return (statistics.median(large) - statistics.median(small)) / n * 1e3


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for durability in ("process", "power"):
        with tempfile.TemporaryDirectory() as home:
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
            environment |= {"MA_HOME": home, "MA_DURABILITY": durability}
            for mode, n in (("inprocess", 200), ("", 50)):
                for shape in ("chain", "fan"):
                    case = f"{shape} of {n}, {mode or 'forked'}, survives {durability} loss, ms per step"
                    rows.append({"case": case, "value": per_step_ms(shape, n, mode, environment)})
                    print("  ", rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    run()
