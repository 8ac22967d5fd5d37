"""Trace-bench's speed on one core: 10,000 cases recorded, read and compared, with drift, bootstrap and reports.

.venv/bin/python benchmarks/tracebench.py
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from michelangelo.llm.scorer.engine import Completion, Request, Task, Timing
from michelangelo.llm.tracebench import comparison, recorder, store, suite
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.reporting import writing

CASES = 10_000
AIM_SECONDS = 10.0
NOW = "2026-11-01T12:00:00Z"


class Model:
    """Answers at once: what is measured lies around it."""

    name = "by rate"
    tasks: frozenset[Task] = frozenset({"generate"})
    capacity = 256

    def __init__(self, rate: float, seed: int) -> None:
        self._rate, self._draw, self._waiting = rate, random.Random(seed), list[Request]()

    def submit(self, request: Request) -> None:
        self._waiting.append(request)

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        taken, self._waiting = self._waiting, []
        return [self._answer(request) for request in taken]

    def cancel(self, request_id: str) -> None:
        self._waiting = [request for request in self._waiting if request.id != request_id]

    def close(self) -> None:
        self._waiting.clear()

    def _answer(self, request: Request) -> Completion:
        words = "yes" if self._draw.random() < self._rate else "no"
        text = " ".join([words] * self._draw.randint(1, 60))
        return Completion(id=request.id, text=text, timing=Timing(0.0, 0.01, self._draw.expovariate(2.0)))


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Runs it; prints seconds of wall and processor."""
    began, began_cpu = time.perf_counter(), time.process_time()
    made = work()
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(f"{what:<46} {wall:6.2f} s, {cpu:6.2f} s of processor", flush=True)
    return made


def measure(repeats: int, folder: Path) -> None:
    """Two recordings of as many cases, in a store of their own."""
    document = {
        "name": "benchmark",
        "defaults": {"repeats": repeats, "checks": [{"regex": "^yes"}, {"refusal": False}]},
        "cases": [{"id": f"c{i}", "prompt": f"question {i}", "slices": [f"s{i % 20}"]} for i in range(CASES)],
    }
    asked = suite.from_document(document)
    print(f"{CASES:,} cases, {repeats} answers each, 20 slices")
    for name, rate, seed in (("a", 0.92, 1), ("b", 0.91, 2)):
        made = timed("  record", partial(recorder.record, asked, Model(rate, seed), Options(name=name), NOW))
        timed("  store", partial(store.save, folder, made))
    began = time.perf_counter()
    a, b = (timed("  read", partial(store.read, folder, name)) for name in ("a", "b"))
    found = timed("  compare", partial(comparison.compare, a, b))
    total = time.perf_counter() - began
    timed("  write report.html", partial(writing.write, found, folder / "report.html"))
    print(f"  read and compared in {total:.1f} s (aim: {AIM_SECONDS:g} s); verdict: {found.state}")


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for repeats in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            measure(repeats, Path(folder))


if __name__ == "__main__":
    main()
