"""Whole-process cost of a small durable flow: ours beside the peers, in one run.

It takes the peers' scripts and their runner from a folder (`--peers`, default ../shared/peers beside the repository)
and the virtual environments that its `install.sh` makes; peers that are not installed are left out. It measures
nothing itself but our own cases, with the same function, so that all rows are alike.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import statistics
import sys
from types import ModuleType
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = (("chain", 10), ("chain", 50), ("fan", 100))
PEERS = re.compile(
    r"^(dbos|flyte|prefect|dagster_inproc|michelangelo|floor_inproc|floor_fork):(chain10|chain50|fan100)$"
)
METAFLOW = re.compile(r"^metaflow:(chain10|chain50|fan100)$")
IMPORTS = re.compile(r"^import:(dbos|flyte|prefect|dagster|metaflow|michelangelo|bare-python)$")


def load_runner(folder: pathlib.Path) -> ModuleType:
    """The peers' `run_all.py` as a module."""
    spec = importlib.util.spec_from_file_location("peers_run_all", folder / "run_all.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"flows: no run_all.py in {folder}: give the peers' folder with --peers")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def our_cases(python: str) -> list[tuple[str, str, list[str]]]:
    script = str(HERE / "ours_flow.py")
    cases = []
    for shape, n in SHAPES:
        cases.append((f"ours:{shape}{n}", "py", [python, script, shape, str(n)]))
        cases.append((f"ours_inprocess:{shape}{n}", "py", [python, script, shape, str(n), "inprocess"]))
    cases.append(("import:michelangelo.uniflow (ours)", "py", [python, "-c", "import michelangelo.uniflow"]))
    return cases


def measure(runner: ModuleType, env: str, argv: list[str], repeats: int) -> dict[str, Any] | str:
    """Medians of `repeats` runs after a warm-up, or the last line that a run that failed has said."""
    first = runner.once(env, argv)
    results = [first] if first["rc"] else [runner.once(env, argv) for _ in range(repeats)]
    failed = next((r for r in results if r["rc"]), None)
    if failed:
        said = [line.strip() for line in str(failed["log"]).splitlines() if line.strip()]
        return f"exit {failed['rc']}: {said[-1][:100] if said else ''}"
    inner = [float(m.group(1)) for r in results if (m := re.search(r"run=([\d.]+)", r["bench"]))]
    return {
        **{key: statistics.median(r[key] for r in results) for key in ("wall", "cpu", "rss")},
        "run": statistics.median(inner) if inner else None,
        "first": first["wall"],
    }


def run(*, peers: pathlib.Path, home: str, repeats: int) -> list[dict[str, Any]]:
    """One row a case: {case, wall, cpu (s), rss (MB), run (s), first (s)} or {case, error}."""
    runner = load_runner(peers)
    # The peers' base environment carries no home of ours: keep this run's database apart from the user's.
    runner.base["MA_HOME"] = home
    os.chdir(peers)
    metaflow = runner.E["metaflow"]["METAFLOW_HOME"]
    os.makedirs(metaflow, exist_ok=True)
    os.makedirs(runner.E["dagster"]["DAGSTER_HOME"], exist_ok=True)
    if os.path.exists(runner.py("metaflow")):
        runner.subprocess.run([runner.py("metaflow"), str(peers / "metaflow_gen.py"), f"{runner.W}/mfsrc"], check=True)
    wanted = [
        (name, env, argv if os.path.exists(argv[0]) else [sys.executable, *argv[1:]])
        for name, env, argv in runner.C
        if PEERS.match(name) or METAFLOW.match(name) or IMPORTS.match(name)
        if os.path.exists(argv[0]) or name.startswith(("floor", "import:bare"))
    ]
    rows: list[dict[str, Any]] = []
    for name, env, argv in [*our_cases(sys.executable), *wanted]:
        slow = name.startswith(("metaflow", "prefect", "dagster"))
        outcome = measure(runner, env, argv, 1 if slow else repeats)
        row = {"case": name, "error": outcome} if isinstance(outcome, str) else {"case": name, **outcome}
        rows.append(row)
        print("  ", {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return rows
