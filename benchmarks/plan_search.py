"""The planner's speed on one core: one plan, and searches of about ten and fifty thousand setups.

.venv/bin/python benchmarks/plan_search.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from michelangelo.llm import model_shape
from michelangelo.llm.planner import hardware, plan, search
from michelangelo.llm.training_setup import TrainingSetup

KINDS = ("h100", "h200", "a100-80gb", "l40s")
REPEATS = 5


def searched(model: str, kinds: tuple[str, ...]) -> tuple[int, float]:
    """Setups tried, and the median of seconds with the front."""
    shape, machines = model_shape.load(model), [hardware.load(kind) for kind in kinds]
    space, seconds, tried = search.Space(base=TrainingSetup(sequence_length=4096)), [], 0
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = search.run(shape, space, machines, plan.Assumptions())
        found.front()
        seconds.append(time.perf_counter() - began)
        tried = found.num_tried
    return tried, statistics.median(seconds)


def command(*words: str) -> float:
    """Median of seconds of the whole process."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "michelangelo.cli", "llm", "plan", *words], check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"mactl llm plan llama-3.1-8b            {command('llama-3.1-8b'):.2f} s")
    print(f"mactl llm plan llama-3.1-8b --search   {command('llama-3.1-8b', '--search'):.2f} s")
    for kinds in (KINDS[:1], KINDS):
        tried, seconds = searched("llama-3.1-8b", kinds)
        print(f"search of {tried:,} setups on {len(kinds)} kinds: {seconds:.2f} s, {seconds / tried * 1e6:.0f} us each")


if __name__ == "__main__":
    main()
