"""The SQLite store alone: commits, lists, and how it bears 10,000 runs. No HTTP, no engine."""

from __future__ import annotations

import json
import pathlib
import tempfile
import threading
import time
from typing import Any, Literal

from michelangelo.storage import sqlite, store

VALUE = json.dumps({"spec": {"pipelineRun": "run", "inputs": "x" * 700}, "status": {"state": "Running"}}).encode()


def writes(kept: sqlite.SqliteStore, prefix: str, count: int, *, threads: int) -> float:
    """Acknowledged writes per second of `threads` callers that each wait for every commit."""

    def caller(number: int) -> None:
        for i in range(count // threads):
            kept.write(
                store.Write(f"/{prefix}/{number}-{i:07}", VALUE, store.ABSENT, frozenset({"label:a=b"}))
            ).result()

    started = time.perf_counter()
    callers = [threading.Thread(target=caller, args=(n,)) for n in range(threads)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    return count / (time.perf_counter() - started)


def median_ms(call: Any, *, repeats: int = 20) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2] * 1e3


def measure(synchronous: Literal["NORMAL", "FULL"], folder: pathlib.Path) -> list[dict[str, Any]]:
    kept = sqlite.SqliteStore(folder / f"{synchronous}.db", synchronous=synchronous)
    rows: list[dict[str, Any]] = [
        {"case": f"commits/s, 1 caller, {synchronous}", "value": writes(kept, "one", 2_000, threads=1)},
        {"case": f"commits/s, 8 callers, {synchronous}", "value": writes(kept, "eight", 8_000, threads=8)},
    ]
    if synchronous == "NORMAL":
        queued = [kept.write(store.Write(f"/many/{i:07}", VALUE)) for i in range(100_000)]
        for future in queued:
            future.result()
        rows.append(
            {"case": "list 500 of 100,000 keys, ms", "value": median_ms(lambda: kept.list("/many/", limit=500))}
        )
        rows.append({"case": "get 1 of 100,000 keys, ms", "value": median_ms(lambda: kept.get("/many/0050000"))})
        size = (folder / f"{synchronous}.db").stat().st_size / 1e6
        rows.append({"case": "file after 110,000 objects of 0.8 kB, MB", "value": size})
        started = time.perf_counter()
        kept.close()
        kept = sqlite.SqliteStore(folder / f"{synchronous}.db", synchronous=synchronous)
        rows.append({"case": "close and open again, ms", "value": (time.perf_counter() - started) * 1e3})
    kept.close()
    return rows


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for synchronous in ("NORMAL", "FULL"):
            rows += measure(synchronous, pathlib.Path(folder))
    for row in rows:
        print("  ", row, flush=True)
    return rows


if __name__ == "__main__":
    run()
