"""Tasks with a SparkTask: a real Spark in local mode, in the attempt's process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.executors.conftest import Bench, blobs_url, until
from tests.executors.test_process import marked

from michelangelo.executors import process
from michelangelo.executors.base import AttemptState
from michelangelo.uniflow.plugins.spark import SparkTask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

MODULE = """
def count(path):
    from pyspark.sql import SparkSession
    session = SparkSession.builder.getOrCreate()
    session.range(1000).selectExpr("id % 7 AS day").createOrReplaceTempView("days")
    rows = session.sql("SELECT day, count(*) AS n FROM days GROUP BY day ORDER BY day").collect()
    context = session.sparkContext
    return [[[row.day, row.n] for row in rows], context.master, context.getConf().get("spark.driver.memory")]

def light():
    return "no JVM"
"""


@pytest.fixture
def bench(tmp_path: Path, run_id: str) -> Iterator[Bench]:
    module = tmp_path / f"spark_{run_id.replace('-', '_')}.py"
    module.write_text(MODULE)
    executor = process.ProcessExecutor(run_id=run_id, blobs_url=blobs_url(tmp_path), capacity=2)
    yield Bench(executor, module, tmp_path)
    executor.close()


@pytest.mark.slow
def test_task_gets_a_session_of_its_size_and_the_jvm_ends_with_it(bench: Bench, run_id: str) -> None:
    config = SparkTask(driver_memory="600Mi", executor_cpu=1, executor_instances=2).settings()
    outcome = bench.outcome(bench.submit("count", "", config=config), seconds=600)
    assert outcome.state is AttemptState.SUCCEEDED, outcome
    rows, master, memory = outcome.output
    assert sum(n for _, n in rows) == 1000
    assert len(rows) == 7
    assert (master, memory) == ("local[2]", "600m")
    until(lambda: not any(b"java" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked(run_id)))


def test_task_without_java_is_told_so(bench: Bench) -> None:
    outcome = bench.run("light", config=SparkTask().settings(), environment={"PATH": "/nowhere", "JAVA_HOME": ""})
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert "needs Java 17 or newer" in outcome.error["message"]


def test_jvm_starts_only_when_it_is_asked_for(bench: Bench, run_id: str, tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    java.chmod(0o755)
    outcome = bench.run("light", config=SparkTask().settings(), environment={"JAVA_HOME": str(tmp_path / "java")})
    assert outcome.output == "no JVM"
    assert not (tmp_path / "started").exists()
