"""Replicas as actors of Ray, and inputs that Ray Data reads: the same bytes as without it, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.llm.scorer import scoring_jobs

from michelangelo import errors
from michelangelo.llm.scorer import config as configuration
from michelangelo.llm.scorer import job

# Ray warns of its own settings while it copies them, and leaves handles of its logs open.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated.*", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    del os.environ["RAY_AUTH_MODE"]


def test_actors_of_two_kinds_score_what_threads_score(cluster: None, tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", [*scoring_jobs.rows_of(40), "torn"])
    scoring_jobs.score(source, tmp_path / "threads.jsonl")
    config = scoring_jobs.config_of(source, tmp_path / "ray.jsonl", shard_rows=3).model_dump()
    kinds = [{"name": "a", "runner": "ray", "num_cpus": 1}, {"name": "b", "runner": "ray", "num_cpus": 2, "max": 2}]
    outcome = job.score(configuration.parse({**config, "replicas": kinds}))
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "threads.jsonl").read_bytes()
    assert {one["group"] for one in outcome.report["replicas"]} == {"a", "b"}


def test_killed_actor_is_replaced(cluster: None, tmp_path: Path) -> None:
    rows = scoring_jobs.rows_of(12)
    rows[4]["prompt"] = f"[[stub kill once={tmp_path}/once]]"
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    engine = {"kind": "stub", "faults": True, "capacity": 4}
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", engine=engine, replicas={"runner": "ray"})
    assert report["rows"]["failed"] == 0
    assert 1 <= report["rows"]["rescored"] <= 4
    assert len([one for one in report["replicas"] if one["error"]]) == 1


def test_data_set_of_ray_is_scored_in_its_order(cluster: None, tmp_path: Path) -> None:
    import ray.data

    rows = scoring_jobs.rows_of(30)
    (tmp_path / "in.csv").write_text("id,prompt\n" + "".join(f"{row['id']},{row['prompt']}\n" for row in rows))
    config = scoring_jobs.config_of(tmp_path / "in.csv", tmp_path / "csv.jsonl", input={"format": "ray"})
    job.score(config)
    assert [line["id"] for line in scoring_jobs.lines(tmp_path / "csv.jsonl")] == [row["id"] for row in rows]
    document = {**config.model_dump(), "input": {}, "output": {"path": str(tmp_path / "set.jsonl")}}
    job.score(configuration.parse(document), dataset=ray.data.from_items(rows, override_num_blocks=3))
    assert (tmp_path / "set.jsonl").read_bytes() == (tmp_path / "csv.jsonl").read_bytes()
    with pytest.raises(errors.DatasetError, match="Ray Data cannot read"):
        job.score(scoring_jobs.config_of(tmp_path / "none.csv", tmp_path / "x.jsonl", input={"format": "ray"}))


def test_job_goes_on_after_ray_itself_was_killed(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(60))
    engine = {"kind": "stub", "capacity": 2, "latency_steps": 3000}
    scoring_jobs.score(source, tmp_path / "whole.jsonl", engine=engine)
    config = scoring_jobs.config_of(
        source, tmp_path / "out.jsonl", engine=engine, replicas={"runner": "ray"}, shard_rows=4
    )
    file = tmp_path / "job.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    words = [sys.executable, "-m", "michelangelo.cli", "llm", "score", str(file), "--quiet"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    logs = config.job_folder / "rows"
    pause = threading.Event()
    while not (logs.exists() and any(logs.iterdir())):
        assert process.poll() is None, process.communicate()[1]
        pause.wait(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    for one in [process, *family]:
        _end(one)
    process.communicate()
    psutil.wait_procs(family, timeout=30)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def _end(process: Any) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        pass
