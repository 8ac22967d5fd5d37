"""The SQLite store alone: commits and lists; and 10,000 runs through the API in process. No HTTP, no engine."""

from __future__ import annotations

import json
import pathlib
import tempfile
import threading
import time
from typing import Any, Literal

from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.meta import labels
from michelangelo.storage import sqlite, store

KIND = {"apiVersion": "michelangelo.api/v2"}

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


def runs(folder: pathlib.Path) -> list[dict[str, Any]]:
    """10,000 PipelineRuns of 100 pipelines through the API in process, as a server holds them."""
    kept = sqlite.SqliteStore(folder / "runs.db")
    client = InProcessClient(ApiServer(kept))
    client.create({**KIND, "kind": "Project", "metadata": {"name": "bench", "namespace": "bench"}, "spec": {}})
    started = time.perf_counter()
    for number in range(10_000):
        pipeline = f"p{number % 100}"
        metadata = {"name": f"run-{number:05}", "namespace": "bench", "labels": {labels.PIPELINE: pipeline}}
        spec = {"pipeline": {"name": pipeline}, "input": {"kwArgs": {"n": number}}}
        client.create({**KIND, "kind": "PipelineRun", "metadata": metadata, "spec": spec})
    elapsed = time.perf_counter() - started
    selector = f"{labels.PIPELINE}=p7"
    rows: list[dict[str, Any]] = [
        {"case": "10,000 runs stored through the API in process, runs/s", "value": 10_000 / elapsed},
        {
            "case": "list 100 of 10,000 runs by label, ms",
            "value": median_ms(lambda: client.list("PipelineRun", namespace="bench", label_selector=selector)),
        },
        {
            "case": "list 500 of 10,000 runs, ms",
            "value": median_ms(lambda: client.list("PipelineRun", namespace="bench", limit=500)),
        },
        {
            "case": "get 1 of 10,000 runs, ms",
            "value": median_ms(lambda: client.get("PipelineRun", "run-05000", namespace="bench")),
        },
        {"case": "file of 10,000 runs, MB", "value": (folder / "runs.db").stat().st_size / 1e6},
    ]
    client.close()
    kept.close()
    return rows


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for synchronous in ("NORMAL", "FULL"):
            rows += measure(synchronous, pathlib.Path(folder))
        rows += runs(pathlib.Path(folder))
    for row in rows:
        print("  ", row, flush=True)
    return rows


if __name__ == "__main__":
    run()
