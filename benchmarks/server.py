"""`mactl serve` as a user meets it: time to ready, memory, HTTP rates with 1 and 4 clients, a run to Succeeded."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import psutil

HERE = pathlib.Path(__file__).resolve().parent
MACTL = pathlib.Path(sys.executable).parent / "mactl"


class Server:
    """One `mactl serve` on a free port, with a home of its own."""

    def __init__(self, home: str) -> None:
        self.home = pathlib.Path(home)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.environment = environment | {"MA_HOME": home, "NO_COLOR": "1"}
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [str(MACTL), "serve", "--port", "0"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line.decode())
            if found := re.search(r"https://127\.0\.0\.1:(\d+)", lines[-1]):
                self.port = int(found.group(1))
                break
        else:
            raise SystemExit("server: it ended before it was ready:\n" + "".join(lines))
        self.ready_seconds = time.perf_counter() - started

    def memory_mb(self) -> float:
        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(p.memory_full_info().pss for p in tree) / 1e6

    def mactl(self, *arguments: str) -> str:
        return subprocess.run(
            [str(MACTL), *arguments], env=self.environment, cwd=self.home, capture_output=True, text=True, check=True
        ).stdout

    def load(self, verb: str, clients: int, seconds: float = 3.0) -> dict[str, Any]:
        token = (self.home / "token").read_text().strip()
        argv = [sys.executable, str(HERE / "http_load.py"), str(self.port), token, str(self.home / "tls" / "ca.crt")]
        done = subprocess.run([*argv, str(seconds), str(clients), verb], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"server: load {verb}: {done.stderr[-800:]}")
        row: dict[str, Any] = json.loads(done.stdout)
        return row

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise SystemExit("server: it did not stop within 10 s of SIGTERM") from None


@contextlib.contextmanager
def serving(home: str) -> Iterator[Server]:
    server = Server(home)
    try:
        yield server
    finally:
        server.stop()


def start_rows(home: str) -> list[dict[str, Any]]:
    ready = []
    for _ in range(5):
        with serving(home) as server:
            ready.append(server.ready_seconds)
    return [
        {"case": "first start (makes database, certificate, token), s", "value": ready[0]},
        {"case": "start to ready, s", "value": statistics.median(ready[1:])},
    ]


def pipeline_run_seconds(server: Server) -> float:
    """From `mactl pipeline run --wait` to Succeeded, the command's own start included (chain of 3 no-op tasks)."""
    project = server.home / "bench-project"
    if not project.exists():
        server.mactl("init", str(project))
        for manifest in ("project.yaml", "pipeline.yaml"):
            server.mactl(*(["pipeline"] if manifest == "pipeline.yaml" else []), "apply", "-f", str(project / manifest))
    started = time.perf_counter()
    server.mactl("pipeline", "run", "bench-project", "-n", "bench-project", "--wait")
    return time.perf_counter() - started


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as home:
        rows = start_rows(home)
        with serving(home) as server:
            rows.append({"case": "memory when ready (PSS), MB", "value": server.memory_mb()})
            times = [pipeline_run_seconds(server) for _ in range(4)]
            rows.append({"case": "mactl pipeline run --wait to Succeeded, s", "value": statistics.median(times[1:])})
            server.mactl("apply", "-f", str(write_project(server.home)))
            for verb, clients in [(v, c) for v in ("create", "get", "list20", "list500", "watch") for c in (1, 4)]:
                row = server.load(verb, clients)
                unit = "events/s, one creates" if verb == "watch" else "requests/s"
                rows.append({"case": f"{verb}, {clients} client{'s' * (clients > 1)}, {unit}", **row})
            rows.append({"case": "memory after the load (PSS), MB", "value": server.memory_mb()})
    for row in rows:
        print("  ", row, flush=True)
    return rows


def write_project(home: pathlib.Path) -> pathlib.Path:
    path = home / "bench.json"
    project = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Project",
        "metadata": {"name": "bench", "namespace": "bench"},
        "spec": {"description": "benchmarks", "owner": {"owningTeam": "bench"}, "tier": 5},
    }
    path.write_text(json.dumps(project))
    return path


if __name__ == "__main__":
    run()
