"""init, and pipelines as source: apply, run and dev-run up to the objects that they make."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo.apiserver.http.server import HttpServer
from michelangelo.app.platform import Platform
from michelangelo.client.client import Object

Mactl = Callable[..., Any]


@pytest.fixture
def project(mactl: Mactl, tmp_path: Path) -> Path:
    """A folder as `mactl init` makes it; its project is `demo`."""
    folder = tmp_path / "demo"
    assert mactl("init", str(folder)).code == 0
    return folder


def _runs(platform: Platform) -> list[Object]:
    return list(platform.client.list("PipelineRun", namespace="demo").items)


def test_init_makes_a_project_that_runs(project: Path, home: Path) -> None:
    command = [sys.executable, "pipeline.py", "--n", "3"]
    first = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout) == (0, "14\n"), first.stderr
    second = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "cached" in second.stderr


def test_init_refuses_to_overwrite(project: Path, mactl: Mactl) -> None:
    (project / "README.md").unlink()
    (project / "pipeline.py").write_text("mine")
    result = mactl("init", str(project))
    assert result.code == 2
    assert "pipeline.py" in result.err
    assert (project / "pipeline.py").read_text() == "mine"
    assert not (project / "README.md").exists()


@pytest.mark.parametrize("name", ["Demo", "a_b", "-a", "default", "kube-system", "x" * 64])
def test_init_refuses_what_cannot_name_a_project(mactl: Mactl, tmp_path: Path, name: str) -> None:
    assert mactl("init", str(tmp_path / "folder"), "--name", name).code == 2
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", ["add", "2nd-try", "import"])
def test_init_makes_valid_python_of_any_name(mactl: Mactl, tmp_path: Path, name: str) -> None:
    assert mactl("init", str(tmp_path / name)).code == 0
    source = (tmp_path / name / "pipeline.py").read_text()
    compile(source, "pipeline.py", "exec")
    function = yaml.safe_load((tmp_path / name / "pipeline.yaml").read_text())["spec"]["manifest"]["uniflowFunction"]
    assert f"def {function}(" in source


def test_apply_registers_source_schema_and_digest(
    server: HttpServer, platform: Platform, project: Path, mactl: Mactl
) -> None:
    assert mactl("apply", "-f", str(project / "project.yaml")).code == 0
    result = mactl("pipeline", "apply", "-f", str(project / "pipeline.yaml"))
    assert (result.code, result.out) == (0, "pipeline/demo created\n"), result
    manifest = platform.client.get("Pipeline", "demo", namespace="demo")["spec"]["manifest"]
    assert manifest["parameters"]["properties"]["n"] == {"type": "integer", "default": 4}
    assert manifest["filePath"] == "pipeline.py"
    assert platform.blobs.has(manifest["uniflowTar"])
    assert mactl("pipeline", "apply", "-f", str(project / "pipeline.yaml")).out == "pipeline/demo unchanged\n"
    source = project / "pipeline.py"
    source.write_text(source.read_text().replace("n: int = 4", "n: int = 5"))
    command = [sys.executable, "-m", "michelangelo.cli", "pipeline", "apply", "-f", str(project / "pipeline.yaml")]
    changed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert changed.stdout == "pipeline/demo configured\n", changed.stderr


def test_apply_of_a_broken_workflow_registers_nothing(
    server: HttpServer, platform: Platform, project: Path, mactl: Mactl
) -> None:
    (project / "pipeline.py").write_text("def broken(:\n")
    result = mactl("pipeline", "apply", "-f", str(project / "pipeline.yaml"))
    assert result.code == 2
    assert "pipeline.py, line 1" in result.err
    assert list(platform.client.list("Pipeline", namespace="demo").items) == []
    assert list(platform.blobs.iterate()) == []


def test_apply_of_a_missing_file_names_the_line(server: HttpServer, project: Path, mactl: Mactl) -> None:
    (project / "pipeline.py").unlink()
    result = mactl("pipeline", "apply", "-f", str(project / "pipeline.yaml"))
    assert result.code == 2
    assert "pipeline.yaml:11" in result.err


def test_run_checks_arguments_before_it_makes_anything(
    server: HttpServer, platform: Platform, project: Path, mactl: Mactl
) -> None:
    mactl("pipeline", "apply", "-f", str(project / "pipeline.yaml"))
    result = mactl("pipeline", "run", "demo", "--arg", "n=many", "--arg", "colour=red")
    assert result.code == 2
    assert "n: 'many' is no integer" in result.err
    assert "colour" in result.err
    assert _runs(platform) == []


def test_run_makes_a_run_of_the_pipeline(server: HttpServer, platform: Platform, project: Path, mactl: Mactl) -> None:
    mactl("pipeline", "apply", "-f", str(project / "pipeline.yaml"))
    result = mactl("pipeline", "run", "demo", "--arg", "n=6", "--env", "MODE=fast", "-o", "name")
    assert result.code == 0, result
    [run] = _runs(platform)
    assert result.out == f"pipeline_run/{run['metadata']['name']}\n"
    assert run["spec"]["pipeline"] == {"name": "demo", "namespace": "demo"}
    assert run["spec"]["input"] == {"kwArgs": {"n": 6}, "environ": {"MODE": "fast"}}
    assert run["metadata"]["labels"]["pipeline.michelangelo/name"] == "demo"


def test_run_of_a_missing_pipeline_is_refused(server: HttpServer, platform: Platform, mactl: Mactl) -> None:
    assert mactl("pipeline", "run", "missing").code == 1
    assert _runs(platform) == []


def test_dev_run_takes_the_source_along(server: HttpServer, platform: Platform, project: Path, mactl: Mactl) -> None:
    result = mactl("pipeline", "dev-run", f"{project / 'pipeline.py'}:demo", "--arg", "n=2")
    assert result.code == 0, result
    [run] = _runs(platform)
    manifest = run["spec"]["pipelineSpec"]["manifest"]
    assert (manifest["uniflowFunction"], run["spec"]["input"]["kwArgs"]) == ("demo", {"n": 2})
    assert platform.blobs.has(manifest["uniflowTar"])


def test_dev_run_takes_the_workflow_that_a_document_names(
    server: HttpServer, platform: Platform, project: Path, mactl: Mactl
) -> None:
    result = mactl("pipeline", "dev-run", "-f", str(project / "pipeline.yaml"), "--env", "MODE=fast")
    assert result.code == 0, result
    [run] = _runs(platform)
    assert run["spec"]["pipelineSpec"]["manifest"]["uniflowFunction"] == "demo"
    assert (run["metadata"]["namespace"], run["spec"]["input"]["environ"]) == ("demo", {"MODE": "fast"})
    for words in ((), ("pipeline.py", "-f", "pipeline.yaml")):
        assert "name what to run" in mactl("pipeline", "dev-run", *words).err


@pytest.mark.parametrize(
    ("target", "words", "expected"),
    [
        ("missing.py", (), "there is no file"),
        ("pipeline.py:nothing", (), "no workflow nothing"),
        ("pipeline.py", ("--arg", "n=x"), "n"),
        ("pipeline.py", ("--arg", "m=1"), "m"),
    ],
)
def test_dev_run_of_what_cannot_run_makes_nothing(
    server: HttpServer,
    platform: Platform,
    project: Path,
    mactl: Mactl,
    target: str,
    words: tuple[str, ...],
    expected: str,
) -> None:
    result = mactl("pipeline", "dev-run", str(project / target), *words)
    assert result.code == 2
    assert expected in result.err
    assert _runs(platform) == []


def test_dev_run_in_a_missing_project_says_how_to_make_it(
    server: HttpServer, platform: Platform, project: Path, mactl: Mactl
) -> None:
    result = mactl("pipeline", "dev-run", str(project / "pipeline.py"), "-n", "nowhere")
    assert result.code == 1
    assert "mactl template project --name nowhere" in result.err
