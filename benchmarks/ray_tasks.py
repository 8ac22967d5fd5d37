"""What a Ray task costs through the platform, over the same task in raw Ray, on one local Ray after the other.

A chain waits for each task before it begins the next, so its difference is the overhead of one task; a fan-out begins
all and waits for all. Each in a process of its own; start-up of Ray and the first worker are left out on both sides.
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
CHAIN, FAN, REPEATS = 100, 100, 5


def seconds(side: str, environment: dict[str, str]) -> dict[str, list[float]]:
    """Wall seconds of each repeat, by shape."""
    argv = [sys.executable, str(HERE / "ray_flow.py"), side, str(CHAIN), str(FAN), str(REPEATS)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = {}
    for shape, value in re.findall(r"BENCH (\w+) ([\d.]+)", done.stdout):
        found.setdefault(shape, []).append(float(value))
    if not found:
        raise SystemExit(f"ray: no BENCH line: {done.stdout[-300:]} {done.stderr[-300:]}")
    return found


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"MA_HOME": home, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        raw, ours = seconds("raw", environment), seconds("ours", environment)
    rows = []
    for shape, count in (("chain", CHAIN), ("fan", FAN)):
        one, other = statistics.median(raw[shape]) / count * 1e3, statistics.median(ours[shape]) / count * 1e3
        rows.append(
            {
                "case": f"ray: {shape} of {count}, ms per task",
                "raw Ray": one,
                "ours": other,
                "difference": other - one,
                "ratio": other / one,
            }
        )
        print("  ", rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    run()
