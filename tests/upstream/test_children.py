"""Runs that start other runs, without a server: each is one, whatever happens to the one that waits for it."""

from __future__ import annotations

import ast
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.upstream.conftest import until

from michelangelo.app.platform import Platform
from michelangelo.app.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upstream.conftest import Workshop

CHILD = """
import os, time
from michelangelo import uniflow

@uniflow.task
def work(number: int, folder: str) -> int:
    with open(os.path.join(folder, f"{number}-{os.getpid()}"), "w"):
        pass
    while os.environ.get("HOLD") and not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    if number < 0:
        raise ValueError("negative")
    return number * int(os.environ.get("FACTOR", "1"))

@uniflow.workflow
def child(number: int, folder: str) -> int:
    return work(number, folder)
"""
CHILD_YAML = """
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {name: child, namespace: local}
spec:
  manifest: {filePath: child.py, uniflowFunction: child}
"""
PARENT = """
import os, sys
from michelangelo import uniflow

FOLDER = os.environ["FOLDER"]
HOLD = {"HOLD": "1"}

@uniflow.workflow
def one(number: int = 3):
    return uniflow.run_pipeline("child", kwargs={"number": number, "folder": FOLDER}, environ={"FACTOR": "2"})

@uniflow.workflow
def several():
    runs = [uniflow.submit_pipeline("child", args=[number, FOLDER]) for number in range(3)]
    return [run.result()["result"] for run in runs]

@uniflow.workflow
def held():
    return uniflow.run_pipeline("child", args=[7, FOLDER], environ=HOLD)["result"]

@uniflow.workflow
def brief():
    try:
        uniflow.run_pipeline("child", args=[7, FOLDER], environ=HOLD, timeout_seconds=0.5)
    except TimeoutError as error:
        return str(error)

@uniflow.workflow
def caught(pipeline: str = "child", number: int = -1):
    try:
        uniflow.run_pipeline(pipeline, args=[number, FOLDER])
    except RuntimeError as error:
        return str(error)

if __name__ == "__main__":
    uniflow.main(globals()[os.environ["WORKFLOW"]])
"""


@pytest.fixture
def family(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A registered pipeline `child`, and `parent.py`, whose workflow and folder the variables choose."""
    (tmp_path / "folder").mkdir()
    for name, text in {"child.py": CHILD, "child.yaml": CHILD_YAML, "parent.py": PARENT}.items():
        workshop.write(name, text)
    with Platform.open(Settings(home=workshop.home)) as platform:
        document = {"apiVersion": "michelangelo.api/v2", "kind": "Project"}
        platform.client.create({**document, "metadata": {"name": "local", "namespace": "local"}, "spec": {}})
    workshop.mactl("pipeline", "apply", "-f", "child.yaml")
    return workshop


def parent(family: Workshop, workflow: str, *words: str) -> Any:
    out = family.run("parent.py", *words, **variables(family, workflow))
    return ast.literal_eval(out) if out.startswith(("{", "[")) else out.strip()


def variables(family: Workshop, workflow: str) -> dict[str, str]:
    return {"WORKFLOW": workflow, "FOLDER": str(family.folder.parent / "folder")}


def begun(family: Workshop) -> list[str]:
    """One name per attempt of the child's task."""
    return [path.name for path in (family.folder.parent / "folder").iterdir() if path.name != "go"]


def children(family: Workshop) -> list[dict[str, Any]]:
    return [run for run in family.objects("PipelineRun") if run["metadata"].get("ownerReferences")]


def state(run: dict[str, Any]) -> str:
    return str((run.get("status") or {}).get("state") or "")


def test_run_of_another_pipeline_is_a_step_with_a_result(family: Workshop) -> None:
    found = parent(family, "one", "--number", "4")
    [child] = children(family)
    assert found == {
        "metadata": {"name": child["metadata"]["name"], "namespace": "local"},
        "status": {"state": "Succeeded"},
        "result": 8,
    }
    [step] = [one for one in family.objects("TaskRun") if one["spec"]["type"] == "Run"]
    assert step["status"]["details"]["pipelineRun"] == child["metadata"]["name"]
    assert step["metadata"]["ownerReferences"][0]["name"] == child["metadata"]["labels"]["michelangelo/parent-run"]
    assert child["metadata"]["ownerReferences"][0]["uid"] == step["metadata"]["ownerReferences"][0]["uid"]


def test_runs_of_other_pipelines_go_on_side_by_side(family: Workshop) -> None:
    assert parent(family, "several") == [0, 1, 2]
    assert len(children(family)) == 3


def test_failure_of_the_other_run_is_an_error_that_names_it(family: Workshop) -> None:
    said = parent(family, "caught")
    [child] = children(family)
    assert child["metadata"]["name"] in said
    assert "ended Failed" in said
    assert "negative" in said


def test_pipeline_that_is_not_there_is_an_error_that_says_what_to_do(family: Workshop) -> None:
    said = parent(family, "caught", "--pipeline", "absent")
    assert "there is no pipeline absent in project local; register it with `mactl pipeline apply`" in said


def test_run_that_takes_too_long_is_ended(family: Workshop) -> None:
    assert "took longer than 0.5 s" in parent(family, "brief")
    [child] = children(family)
    assert (state(child), child["spec"]["kill"]) == ("Killed", True)


def test_killed_process_is_resumed_and_finds_the_run_that_it_started(family: Workshop) -> None:
    first = family.start("parent.py", **variables(family, "held"))
    until(lambda: begun(family))
    first.kill()
    first.communicate()
    [child] = children(family)
    again = family.start("parent.py", "--resume", **variables(family, "held"))
    until(
        lambda: len([one for one in family.objects("Lease") if one["metadata"]["name"].startswith("pipelinerun")]) > 1
    )
    (family.folder.parent / "folder" / "go").touch()
    out, err = again.communicate(timeout=60)
    assert (again.returncode, out) == (0, "7\n"), err
    assert [one["metadata"]["uid"] for one in children(family)] == [child["metadata"]["uid"]]
    assert len(begun(family)) == 1


@pytest.mark.slow
def test_killed_child_driver_is_replaced(family: Workshop) -> None:
    first = family.start("parent.py", **variables(family, "held"))
    until(lambda: begun(family))
    [driver] = [one for one in psutil.Process(first.pid).children() if "michelangelo.app.driver" in one.cmdline()]
    driver.kill()
    until(lambda: len(begun(family)) == 2)
    (family.folder.parent / "folder" / "go").touch()
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (0, "7\n"), err
    assert len(children(family)) == 1


def test_kill_of_the_parent_kills_what_it_started(family: Workshop) -> None:
    first = family.start("parent.py", **variables(family, "held"))
    until(lambda: begun(family))
    [name] = [
        run["metadata"]["name"] for run in family.objects("PipelineRun") if not run["metadata"].get("ownerReferences")
    ]
    family.mactl("pipeline_run", "kill", name, "-n", "local", "--yes")
    first.communicate(timeout=60)
    assert first.returncode not in (0, None)
    assert [state(run) for run in family.objects("PipelineRun")] == ["Killed", "Killed"]


def test_interrupted_parent_leaves_nothing_running_and_goes_on(family: Workshop) -> None:
    first = family.start("parent.py", **variables(family, "held"))
    until(lambda: begun(family))
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert state(children(family)[0]) == "Running"
    (family.folder.parent / "folder" / "go").touch()
    assert parent(family, "held", "--resume") == "7"
    assert len(children(family)) == 1


def test_ephemeral_run_says_that_it_cannot_start_others(family: Workshop) -> None:
    err = family.fail("parent.py", "--ephemeral", **variables(family, "one"))
    assert "an ephemeral run keeps its objects in its own memory" in err
