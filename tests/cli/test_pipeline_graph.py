"""`mactl pipeline graph`: of files, pipelines and runs, in all forms, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from michelangelo.app.platform import Platform
from michelangelo.client.client import Object

FLOW = """
from michelangelo import uniflow
from michelangelo.uniflow import InProcess


@uniflow.task(config=InProcess())
def prepare(count: int) -> list[int]:
    return list(range(count))


@uniflow.task(config=InProcess())
def train(item: int) -> int:
    if item == 2:
        raise ValueError("two")
    return item


@uniflow.task(config=InProcess())
def report(items: list[int]) -> str:
    return str(items)


@uniflow.workflow
def flow(count: int = 4) -> str:
    done = []
    for item in prepare(count):
        try:
            done.append(train(item))
        except ValueError:
            pass
    return report(done)


@uniflow.workflow
def other() -> str:
    return report([])


if __name__ == "__main__":
    uniflow.main(flow)
"""


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    path = tmp_path / "my_flow.py"
    path.write_text(FLOW)
    return path


@pytest.fixture
def run(flow: Path, home: Path) -> str:
    """A run of the file, and its name."""
    done = subprocess.run(
        [sys.executable, str(flow)],
        env={"MA_HOME": str(home), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return next(word for word in done.stderr.split() if word.startswith("run-")).rstrip(":")


def test_graph_of_a_file_is_drawn_without_a_platform(mactl: Callable[..., Any], flow: Path) -> None:
    result = mactl("pipeline", "graph", f"{flow}:flow")
    assert result.code == 0, result
    assert [line.split()[1:2] for line in result.out.splitlines()[:2]] == [["flow"], ["prepare"]]
    assert "← prepare" in result.out
    assert "my_flow.py:31" in result.out


def test_graph_is_written_in_every_form(mactl: Callable[..., Any], flow: Path, tmp_path: Path) -> None:
    read: dict[str, Callable[[str], object]] = {
        "svg": ElementTree.fromstring,
        "json": json.loads,
        "yaml": yaml.safe_load,
    }
    for form in ("text", "json", "yaml", "svg", "mermaid", "dot"):
        out = tmp_path / f"graph.{form}"
        result = mactl("pipeline", "graph", f"{flow}:flow", "-o", form, "--out", str(out))
        assert result.code == 0, result
        written = out.read_text(encoding="utf-8")
        read.get(form, str)(written)
        assert "prepare" in written


def test_graph_of_a_run_counts_its_steps(mactl: Callable[..., Any], flow: Path, run: str) -> None:
    result = mactl("pipeline", "graph", "--run", run, "-n", "local")
    assert result.code == 0, result
    line = next(line for line in result.out.splitlines() if " train " in line)
    assert "3 ok, 1 failed" in line
    picture = mactl("pipeline", "graph", str(flow), "--run", run, "-n", "local", "-o", "svg")
    assert "3 ok, 1 failed" in picture.out


def test_graph_of_a_run_is_that_of_its_own_source(mactl: Callable[..., Any], flow: Path, run: str) -> None:
    flow.write_text("this is no Python any more")
    assert "3 ok, 1 failed" in mactl("pipeline", "graph", "--run", run, "-n", "local").out


def test_graph_of_a_registered_pipeline_is_on_its_revision(
    mactl: Callable[..., Any], flow: Path, platform: Platform
) -> None:
    manifest = flow.with_name("pipeline.yaml")
    document = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Pipeline",
        "metadata": {"name": "mine", "namespace": "demo"},
        "spec": {"manifest": {"filePath": "my_flow.py", "uniflowFunction": "flow"}},
    }
    manifest.write_text(yaml.safe_dump(document))
    assert mactl("pipeline", "apply", "-f", str(manifest)).code == 0
    stored = platform.client.get("Pipeline", "mine", namespace="demo")["spec"]["manifest"]["graph"]
    assert [node["name"] for node in stored["nodes"] if node["kind"] == "task"] == ["prepare", "train", "report"]
    result = mactl("pipeline", "graph", "mine", "-n", "demo", "-o", "json")
    assert json.loads(result.out) == stored


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.py"], "there is no file missing.py"),
        (["{flow}"], "2 workflows, and none was named"),
        (["{flow}:nothing"], "has no function nothing"),
        (["{broken}"], "line 2"),
        (["unknown", "-n", "demo"], "there is no pipeline unknown in project demo"),
        (["--run", "run-0", "-n", "demo"], "there is no run run-0 in project demo"),
        (["{flow}:flow", "--out", "graph.png"], "graph.png: no form has this suffix"),
        ([], "name a workflow file"),
    ],
)
def test_graph_says_what_is_wrong(
    mactl: Callable[..., Any], platform: Platform, flow: Path, words: list[str], said: str
) -> None:
    broken = flow.with_name("broken.py")
    broken.write_text("x = 1\ndef f(:\n")
    result = mactl("pipeline", "graph", *(word.format(flow=flow, broken=broken) for word in words))
    assert result.code != 0
    assert said in result.err
    assert "Traceback" not in result.err


def test_graph_of_a_run_of_another_pipeline_is_refused(
    mactl: Callable[..., Any], make: Callable[..., Object], pipeline_spec: Object, flow: Path
) -> None:
    make("Pipeline", "train", spec=pipeline_spec)
    make(
        "PipelineRun", "run-1", spec={"pipeline": {"name": "train", "namespace": "demo"}, "pipelineSpec": pipeline_spec}
    )
    for target, of in (("eval", "of pipeline train"), (str(flow), "of flow.py:flow")):
        result = mactl("pipeline", "graph", target, "--run", "run-1", "-n", "demo")
        assert result.code == 2, result
        assert of in result.err
