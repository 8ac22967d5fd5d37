"""Wrong workflow files, wrong arguments, workflows that are not deterministic: the user's file and line, and no run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bad_input.conftest import until

if TYPE_CHECKING:
    from tests.bad_input.conftest import Desk, Served

FLOW = """
from michelangelo import uniflow

@uniflow.task
def double(n: int) -> int:
    return 2 * n

@uniflow.workflow
def flow(n: int, name: str = "x") -> int:
    return double(n)

if __name__ == "__main__":
    uniflow.main(flow)
"""

PIPELINE = """
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {name: NAME, namespace: local}
spec:
  manifest: {filePath: NAME.py}
"""

CONTRADICTION = """
from michelangelo import uniflow

@uniflow.task(requirements=["tabulate==0.9.0", "tabulate==0.8.10"])
def one() -> int:
    return 1

@uniflow.workflow
def flow() -> int:
    return one()

if __name__ == "__main__":
    uniflow.main(flow)
"""
CONTRADICTION_SAID = [
    "the requirements tabulate==0.9.0, tabulate==0.8.10 cannot be had: ",
    "Because you require tabulate==0.9.0 and tabulate==0.8.10",
]

BROKEN = [
    pytest.param("syntax", "x = 1\ndef f(:\n", ["syntax.py, line 2: SyntaxError", "def f(:"], id="syntax error"),
    pytest.param(
        "absent",
        "import os\nimport there_is_no_such_module\n",
        [
            "absent.py does not import: ModuleNotFoundError: No module named 'there_is_no_such_module'",
            "absent.py, line 2, in <module>\n    import there_is_no_such_module",
        ],
        id="missing module",
    ),
    pytest.param(
        "raising",
        "def f():\n    raise RuntimeError('not today')\nf()\n",
        ["raising.py does not import: RuntimeError: not today", "raising.py, line 2, in f"],
        id="raises",
    ),
    pytest.param("exiting", "import sys\nsys.exit(3)\n", ["exiting.py does not import: SystemExit: 3"], id="exits"),
    pytest.param(
        "unresolvable",
        CONTRADICTION,
        CONTRADICTION_SAID,
        id="requirements that contradict each other",
    ),
    pytest.param(
        "nothing",
        "x = 1\n",
        ["nothing.py has no workflows", "decorate a function with @uniflow.workflow"],
        id="no flow",
    ),
]


@pytest.mark.parametrize(("name", "text", "words"), BROKEN)
def test_file_that_does_not_load_is_not_registered(served: Served, name: str, text: str, words: list[str]) -> None:
    desk = served.desk
    desk.write(f"{name}.py", text)
    desk.write("pipeline.yaml", PIPELINE.replace("NAME", name))
    with desk.unchanged():
        desk.mactl("pipeline", "apply", "-f", "pipeline.yaml").refused(2, *words)


@pytest.mark.parametrize(("name", "text", "words"), BROKEN[:2])
def test_file_that_does_not_load_starts_no_run(served: Served, name: str, text: str, words: list[str]) -> None:
    served.desk.write(f"{name}.py", text)
    with served.desk.unchanged():
        served.desk.mactl("pipeline", "dev-run", f"{name}.py").refused(2, *words)


def test_requirements_that_cannot_be_had_start_nothing(served: Served, desk: Desk) -> None:
    desk.write("flow.py", CONTRADICTION)
    with desk.unchanged():
        desk.python("flow.py").refused(2, *CONTRADICTION_SAID)
    assert desk.objects("pipelineruns") == []
    served.desk.write("contradiction.py", CONTRADICTION)
    with served.desk.unchanged():
        served.desk.mactl("pipeline", "dev-run", "contradiction.py").refused(2, *CONTRADICTION_SAID)


def test_index_of_packages_that_is_down_starts_nothing(desk: Desk) -> None:
    desk.write("flow.py", CONTRADICTION.replace('"tabulate==0.9.0", "tabulate==0.8.10"', '"tabulate"'))
    variables = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    with desk.unchanged():
        said = desk.python("flow.py", UV_CACHE_DIR=str(desk.folder / "cache"), **variables)
        said.refused(2, "the requirements tabulate cannot be had", "Failed to fetch", "http://127.0.0.1:9/simple")
    assert desk.objects("pipelineruns") == []


def test_modules_that_import_each_other_are_not_registered(served: Served) -> None:
    desk = served.desk
    desk.write("ring_one.py", "from ring_two import y\nx = 1\n")
    desk.write("ring_two.py", "import os\nfrom ring_one import x\ny = 1\n")
    desk.write("ring.py", "import ring_one\n")
    with desk.unchanged():
        said = desk.mactl("pipeline", "dev-run", "ring.py")
        said.refused(2, "these modules import each other: ring_one → ring_two → ring_one", "ring_two.py, line 2: from")


def test_source_that_is_too_large_is_not_registered(served: Served) -> None:
    desk = served.desk
    desk.write("flow.py", FLOW)
    desk.write(".mainclude", "*.bin\n")
    with (desk.folder / "weights.bin").open("wb") as file:
        file.truncate(65 << 20)
    try:
        with desk.unchanged():
            said = desk.mactl("pipeline", "dev-run", "flow.py", "-a", "n=1")
            said.refused(2, "the largest are weights.bin (65.0 MiB)", ".maignore")
        desk.write(".maignore", "weights.bin\n")
        desk.write("pipeline.yaml", PIPELINE.replace("NAME", "flow"))
        assert desk.mactl("pipeline", "apply", "--dry-run", "-f", "pipeline.yaml").code == 0
    finally:
        for name in (".mainclude", ".maignore", "weights.bin"):
            (desk.folder / name).unlink(missing_ok=True)


def test_file_and_function_that_are_missing_are_named(served: Served) -> None:
    desk = served.desk
    desk.write("flow.py", FLOW)
    desk.write("pipeline.yaml", PIPELINE.replace("NAME", "gone"))
    with desk.unchanged():
        desk.mactl("pipeline", "dev-run", "gone.py").refused(2, "there is no file gone.py")
        desk.mactl("pipeline", "dev-run", "flow.py:gone").refused(2, "flow.py has no workflow gone; it has flow")
        said = desk.mactl("pipeline", "apply", "-f", "pipeline.yaml").refused(2, "there is no file 'gone.py'")
    assert "pipeline.yaml:5: " in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["wrong arguments for flow(n: int, name: str = 'x') -> int", "n: is missing"]),
        (["--n", "x"], ["n: must be int; got 'x' (str)"]),
        (["--n", "1", "--m", "2"], ["unrecognized arguments: --m 2"]),
        (["--arg", "m=1", "--n", "z"], ["m: there is no such parameter; the parameters are n, name", "n: must be int"]),
        (["--arg", "n"], ["--arg n: must be NAME=VALUE"]),
        (
            ["--n", "1", "--project", "Not a label"],
            ["--project='Not a label': must be a project's name: a-z, 0-9 and -"],
        ),
    ],
    ids=" ".join,
)
def test_wrong_arguments_of_a_script_start_nothing(desk: Desk, words: list[str], said: list[str]) -> None:
    desk.write("flow.py", FLOW)
    with desk.unchanged():
        desk.python("flow.py", *words).refused(2, *said)
    assert desk.objects("pipelineruns") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "n: is missing"),
        (["--arg", "n=x"], "n: must be int; got 'x' (str)"),
        (["--arg", "n=1", "--arg", "m=2"], "m: there is no such parameter; the parameters are n, name"),
        (["--arg", "n"], "'n': write it as key=value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_of_a_dev_run_start_nothing(served: Served, words: list[str], said: str) -> None:
    served.desk.write("flow.py", FLOW)
    with served.desk.unchanged():
        served.desk.mactl("pipeline", "dev-run", "flow.py", *words).refused(2, said)


def test_wrong_arguments_of_a_registered_pipeline_start_nothing(served: Served) -> None:
    desk = served.desk
    desk.write("flow.py", FLOW)
    desk.write("pipeline.yaml", PIPELINE.replace("NAME", "flow"))
    assert desk.mactl("pipeline", "apply", "-f", "pipeline.yaml").code == 0
    until(lambda: [one for one in desk.objects("pipelines") if (one.get("status") or {}).get("state") == "Ready"])
    with desk.unchanged():
        desk.mactl("pipeline", "run", "flow").refused(2, "the arguments do not fit pipeline flow:", "n: is missing")
        desk.mactl("pipeline", "run", "flow", "-a", "n=x").refused(2, "n: 'x' is no integer")
        said = desk.mactl("pipeline", "run", "flow", "-a", "n=1", "-a", "m=2")
        said.refused(2, "m: there is no such parameter; there are: n, name")


BAD_RESULT = """
import threading
from michelangelo import uniflow

@uniflow.task
def lock():
    return threading.Lock()

@uniflow.workflow
def flow():
    return lock()
"""


def test_failure_on_a_server_is_told_like_one_without(served: Served) -> None:
    served.desk.write("bad.py", BAD_RESULT)
    result = served.desk.mactl("pipeline", "dev-run", "bad.py", "--wait")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "ended Failed: task lock: " in result.err
    assert "the result of lock: value: _thread.lock lives in one process only" in result.err
    assert "bad.py, line 4, in lock" in result.err
    run = served.desk.objects("pipelineruns")[-1]
    assert run["status"]["state"] == "Failed"


def test_resume_of_what_is_not_there_is_refused(desk: Desk) -> None:
    desk.write("flow.py", FLOW)
    desk.python("flow.py", "--resume").refused(1, "no run of the workflow flow in project local is unfinished")
    desk.python("flow.py", "--resume", "run-9").refused(1, "there is no run run-9 in project local")
    assert desk.objects("pipelineruns") == []


UNSTEADY = """
import os
from pathlib import Path
from michelangelo import uniflow

@uniflow.task
def one() -> int:
    return 1

@uniflow.task
def two() -> int:
    return 2

@uniflow.workflow
def flow() -> int:
    if not Path("seen").exists():
        one()
        Path("seen").touch()
        os._exit(9)
    return two()

if __name__ == "__main__":
    uniflow.main(flow)
"""


def test_other_path_on_replay_names_both_steps_and_their_lines(desk: Desk) -> None:
    desk.write("flow.py", UNSTEADY)
    assert desk.python("flow.py").code == 9
    steps = [one["metadata"]["name"] for one in desk.objects("taskruns")]
    result = desk.python("flow.py", "--resume")
    said = result.refused(1, "flow.py:16", "the journal has task one", "flow.py:19 `return two()`")
    assert "uniflow.now, uniflow.random and uniflow.uuid" in said
    assert [one["metadata"]["name"] for one in desk.objects("taskruns")] == steps
    (run,) = desk.objects("pipelineruns")
    assert run["status"]["state"] == "Failed"
    assert "flow.py:19" in run["status"]["errorMessage"]


def test_script_that_runs_when_it_is_imported_runs_once(desk: Desk) -> None:
    flow = """
        from michelangelo import uniflow

        @uniflow.task
        def count() -> int:
            return 3

        @uniflow.workflow
        def flow() -> int:
            return count()

        print(flow())
    """
    desk.write("flow.py", flow)
    result = desk.python("flow.py")
    assert result.code != 0
    assert "starts a run while it is imported" in result.err, result
    assert 'if __name__ == "__main__":' in result.err
    assert len(desk.objects("pipelineruns")) == 1
    registered = desk.mactl("pipeline", "dev-run", "flow.py:flow")
    assert registered.code != 0
    assert len(desk.objects("pipelineruns")) == 1
