"""Requirements of tasks from the decorator to the attempt: locked when a run or a revision is made, and ever after."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.app.conftest import until

from michelangelo import uniflow
from michelangelo.app import environments
from michelangelo.app.serve import Server
from michelangelo.client import kubeconfig
from michelangelo.client.client import Client
from michelangelo.client.http import HttpClient
from michelangelo.uniflow import source, source_tree

if TYPE_CHECKING:
    from tests.app.conftest import Desk

_FLOW = """
    import os, pathlib, time
    from michelangelo import uniflow

    @uniflow.task(requirements=["tabulate==0.8.10"], image_spec=uniflow.ImageSpec(container_image="team/old:1"))
    def old(rows: list[int]) -> str:
        import tabulate
        return tabulate.__version__ + str(rows)

    @uniflow.task(
        uniflow.Process(cpu=2),
        requirements=["tabulate==0.9.0"],
        working_directory="inside",
        environment={"WORD": "hello"},
    )
    def new(before: str) -> list[str]:
        import tabulate
        there = pathlib.Path("data.txt").read_text()
        return [before, tabulate.__version__, there, os.environ["WORD"], os.environ["OMP_NUM_THREADS"]]

    @uniflow.task
    def gate(folder: str) -> None:
        pathlib.Path(folder, "reached").touch()
        while not pathlib.Path(folder, "open").exists():
            time.sleep(0.01)

    @uniflow.workflow
    def flow(folder: str = "") -> list[str]:
        if folder:
            gate(folder)
        return new(old([1]))

    if __name__ == "__main__":
        print(uniflow.main(flow))
"""
_RESULT = ["0.8.10[1]", "0.9.0", "beside", "hello", "2"]


@pytest.fixture
def flow(desk: Desk) -> Path:
    (desk.folder / "inside").mkdir()
    (desk.folder / "inside" / "data.txt").write_text("beside")
    return desk.write("flow.py", _FLOW)


@contextlib.contextmanager
def serving(desk: Desk) -> Iterator[Client]:
    """A server on the desk's home, and a client that reached it by its kubeconfig."""
    server = Server(desk.settings)
    server.start()
    client = HttpClient(kubeconfig.load(desk.settings.kubeconfig))
    try:
        yield client
    finally:
        client.close()
        server.stop()


def locks(manifest: dict[str, Any]) -> set[str]:
    """The packages that are locked, our own needs left out."""
    found = [package for one in manifest["environments"].values() for package in one["packages"]]
    return {line for line in found if not line.startswith("orjson")}


def test_two_versions_of_a_library_in_two_tasks(desk: Desk, flow: Path) -> None:
    code, out, err = desk.run(flow)
    assert code == 0, err
    assert str(_RESULT) in out
    run = desk.runs()[0]
    assert locks(run["spec"]["pipelineSpec"]["manifest"]) == {"tabulate==0.8.10", "tabulate==0.9.0"}
    details = {one["spec"]["task"]: one["status"]["details"] for one in desk.task_runs()}
    assert details["old"]["requirements"] == ["tabulate==0.8.10"]
    assert details["old"]["environment"] in run["spec"]["pipelineSpec"]["manifest"]["environments"]
    assert details["old"]["image"] == {"containerImage": "team/old:1"}
    assert details["new"]["workingDirectory"] == "inside"
    assert details["new"]["resources"] == {"cpu": 2}
    # Now everything is kept: neither an index nor uv is asked.
    code, out, err = desk.run(flow, UV_OFFLINE="1", UV_CACHE_DIR=str(desk.folder / "empty"))
    assert (code, str(_RESULT) in out) == (0, True), err


def test_resumed_run_keeps_its_versions(desk: Desk, flow: Path) -> None:
    flow.write_text(flow.read_text().replace('"tabulate==0.9.0"', '"tabulate"'))
    process = desk.start(flow, "--folder", str(desk.folder))
    until((desk.folder / "reached").exists)
    process.kill()
    process.communicate()
    run = desk.runs()[0]
    chosen = locks(run["spec"]["pipelineSpec"]["manifest"])
    for path in (desk.home / "environments" / "locks").iterdir():
        path.write_text("as if other versions were chosen by now\n")
    (desk.folder / "open").touch()
    code, out, err = desk.run(flow, "--resume", run["metadata"]["name"])
    assert code == 0, err
    newest = next(name for name in chosen if not name.endswith("0.8.10"))
    assert newest.removeprefix("tabulate==") in out


def test_revision_holds_the_locks_and_its_runs_use_them(desk: Desk, flow: Path) -> None:
    (desk.folder / ".mainclude").write_text("inside/*.txt\n")
    desk.write(
        "pipeline.yaml",
        """
        apiVersion: michelangelo.api/v2
        kind: Pipeline
        metadata: {name: flow, namespace: team}
        spec:
          manifest: {filePath: flow.py}
        """,
    )

    def mactl(*words: str) -> str:
        command = [sys.executable, "-m", "michelangelo.cli", *words]
        variables = {**os.environ, "MA_HOME": str(desk.home)}
        done = subprocess.run(command, cwd=desk.folder, env=variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with serving(desk) as client:
        head = {"apiVersion": "michelangelo.api/v2"}
        client.create({**head, "kind": "Project", "metadata": {"name": "team", "namespace": "team"}, "spec": {}})
        mactl("pipeline", "apply", "-f", "pipeline.yaml")
        until(lambda: client.list("Revision", namespace="team").items)
        revision = client.list("Revision", namespace="team").items[0]
        assert locks(revision["spec"]["content"]["manifest"]) == {"tabulate==0.8.10", "tabulate==0.9.0"}
        mactl("pipeline", "apply", "-f", "pipeline.yaml")
        shutil.rmtree(desk.home / "environments" / "locks")  # the run asks the revision, not these
        mactl("pipeline", "run", "flow", "-n", "team", "--wait")
        run = client.list("PipelineRun", namespace="team").items[0]
        assert run["status"]["result"] == _RESULT
        assert len(client.list("Revision", namespace="team").items) == 1, "the same locks, the same revision"


def test_requirements_are_found_where_tasks_are_kept(tmp_path: Path) -> None:
    (tmp_path / "kept_tasks.py").write_text(
        "from michelangelo import uniflow\n"
        "@uniflow.task(requirements=['a==1'])\ndef one() -> None: ...\n"
        "@uniflow.task\ndef plain() -> None: ...\n"
        "many = [plain.with_overrides(requirements=['b==1', 'c'])]\n"
        "named = {'x': plain.with_overrides(requirements=['d'])}\n"
    )
    (tmp_path / "other_tasks.py").write_text(
        "from michelangelo import uniflow\n@uniflow.task(requirements=['other'])\ndef other() -> None: ...\n"
    )
    path = tmp_path / "keeping_flow.py"
    path.write_text("import kept_tasks\nfrom michelangelo import uniflow\n@uniflow.workflow\ndef flow() -> None: ...\n")
    source.load_file(str(tmp_path / "other_tasks.py"))
    workflow: uniflow.Workflow[..., Any] = source.find_workflow(source.load_file(str(path)))
    tree = source_tree.find_source(str(path))
    assert environments.requirements_of(workflow, tree) == [("a==1",), ("b==1", "c"), ("d",)]


def test_requirements_that_were_not_locked_fail_the_task_with_what_to_do(desk: Desk) -> None:
    file = desk.write(
        "late.py",
        """
        from michelangelo import uniflow

        @uniflow.task
        def one() -> int:
            return 1

        @uniflow.workflow
        def flow() -> int:
            return one.with_overrides(requirements=["tabulate"])()

        if __name__ == "__main__":
            flow()
        """,
    )
    code, _, err = desk.run(file)
    assert code == 1
    assert "the requirements tabulate were not locked when the run was made: give them to @uniflow.task" in err
