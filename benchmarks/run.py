"""Run the benchmarks and write RESULTS.md: `python run.py [flows|server|store|steps|ray ...] [--peers DIR] [-k N]`.

A part that is not asked for keeps its last table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from typing import Any

import flows
import ray_tasks
import server
import steps
import store

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
PARTS = ("flows", "steps", "ray", "server", "store")
ADDED = {
    "gpu": "benchmarks/gpu/run.py",
    "llm": "benchmarks/{scorer_engine,scorer_job,scorer_vllm,tokens,contexteval,contexteval_gate,tracebench}.py",
}
"""Measured by scripts of their own, on other machines too; `--add gpu=FILE` takes a table of theirs."""
TITLES = {
    "flows": "`python flow.py`, whole process",
    "steps": "One durable step",
    "ray": "One Ray task, over raw Ray",
    "server": "`mactl serve`",
    "store": "The SQLite store alone, and 10,000 runs",
    "llm": "Scoring, counting, answering from a corpus, comparing versions",
    "gpu": "Training on one GPU, and TRL's SFTTrainer in the same run",
}
AIMS = {
    "ours:chain10": "≤ 0.4 s whole process",
    "ours:fan100": "≤ 0.9 s whole process",
    "import:michelangelo.uniflow (ours)": "≤ bare Python + 0.08 s",
    "chain of 200, inprocess, survives process loss, ms per step": "≤ 1",
    "chain of 50, forked, survives process loss, ms per step": "≤ 10",
    "ray: chain of 100, ms per task": "difference ≤ 10",
    "ray: fan of 100, ms per task": "difference ≤ 10",
    "start to ready, s": "≤ 1",
    "memory when ready (PSS), MB": "≤ 90",
    "create, 4 clients, requests/s": "≥ 1,000, no 5xx",
    "list 500 of 100,000 keys, ms": "≤ 30",
}


def machine() -> str:
    processors = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in processors if line.startswith("model name")), "unknown CPU")
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("michelangelo-oss", "pydantic", "uvicorn", "starlette"))
    return (
        f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}; "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
    return str(value).replace("|", "/").replace("\n", " ")


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table; `flows` rows also get the ratio to our own row of the same shape."""
    ours = {row["case"].split(":")[1]: row["wall"] for row in rows if row["case"].startswith("ours:") and "wall" in row}
    for row in rows:
        shape = row["case"].split(":")[-1]
        if shape in ours and "wall" in row:
            row["× ours"] = row["wall"] / ours[shape]
        row["aim"] = AIMS.get(row["case"], row.get("aim", ""))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns.append(columns.pop(columns.index("aim")))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def measure(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    if part == "flows":
        with tempfile.TemporaryDirectory() as home:
            return flows.run(peers=options.peers.resolve(), home=home, repeats=options.k)
    runs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "server": server.run,
        "store": store.run,
        "steps": steps.run,
        "ray": ray_tasks.run,
    }
    return runs[part]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--peers", type=pathlib.Path, default=HERE.parents[1] / "shared" / "peers")
    parser.add_argument("-k", type=int, default=5, help="repeats of each case")
    parser.add_argument("--render", action="store_true", help="measure nothing, write RESULTS.md from results.json")
    parser.add_argument("--add", action="append", default=[], metavar="gpu=FILE", help="a table of a script of its own")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    kept = HERE / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for part, _, path in (added.partition("=") for added in options.add):
        if part not in ADDED:
            parser.error(f"--add {part}: one of {', '.join(ADDED)}")
        results[part] = json.loads(pathlib.Path(path).read_text())
        kept.write_text(json.dumps(results, indent=1))
    for part in () if options.render or options.add else options.parts or PARTS:
        if part == "flows" and not (options.peers / "run_all.py").exists():
            print(f"flows: left out, there are no peers' scripts in {options.peers}", file=sys.stderr)
            continue
        print(part, flush=True)
        results[part] = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "rows": measure(part, options),
        }
        kept.write_text(json.dumps(results, indent=1))
    write(results)


def write(results: dict[str, Any]) -> None:
    """RESULTS.md: the notes, then a table a part."""
    text = "# Results\n\nWritten by `make bench`; wall and CPU in seconds, rss in MB of the largest process.\n\n"
    text += (HERE / "NOTES.md").read_text() + "\n"
    for part in (*PARTS, *ADDED):
        if part in results:
            entry = results[part]
            command = ADDED.get(part, f"benchmarks/run.py {part}")
            text += f"## {TITLES[part]}\n\n{entry['date']}, {entry['machine']}.\n"
            text += f"Repeat: `.venv/bin/python {command}`\n\n{table(entry['rows'])}\n\n"
    RESULTS.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
