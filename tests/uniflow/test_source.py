"""Finding and loading the user's code: names that hold in every process, and errors with file, line and source."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from michelangelo.errors import SourceError
from michelangelo.uniflow import references, source

FLOW = """
import dataclasses, sys
from michelangelo import uniflow
from michelangelo.uniflow import codecs, references, source
from michelangelo.blobs.memory import MemoryBlobStore

@dataclasses.dataclass
class Result:
    x: int

@uniflow.task
def step(x: int) -> Result:
    return Result(x)

@uniflow.workflow
def flow(n: int = 1) -> Result:
    return step(n)

if __name__ == "__main__":
    blobs = MemoryBlobStore()
    tree = codecs.encode(Result(1), blobs)
    same = type(codecs.decode(tree, blobs)) is Result and source.load_function(source.target_of(step)) is step
    print(source.target_of(step).module, tree["class"], same)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for modules; what is loaded from it is forgotten afterwards."""
    modules, path = dict(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "command", "module"),
    [
        ("flow.py", ["flow.py"], "flow"),
        ("my-flow.v2.py", ["my-flow.v2.py"], "my-flow_v2"),
        ("random.py", ["random.py"], "random_script"),
        ("pkg/flow.py", ["-m", "pkg.flow"], "pkg.flow"),
        ("pkg/flow.py", ["pkg/flow.py"], "flow"),
    ],
    ids=["script", "odd-name", "name-of-the-standard-library", "module-of-a-package", "file-in-a-package"],
)
def test_main_script_has_a_canonical_module(tmp_path: Path, name: str, command: list[str], module: str) -> None:
    write(tmp_path, name, FLOW)
    if "-m" in command:
        write(tmp_path, "pkg/__init__.py", "")
    done = subprocess.run(
        [sys.executable, "-P", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path) if "-m" in command else ""},
    )
    assert done.stdout == f"{module} {module}:Result True\n", done.stderr


def test_file_is_loaded_once_with_its_siblings(folder: Path) -> None:
    write(folder, "sibling_of_loaded.py", "VALUE = 4\n")
    path = write(folder, "loaded.py", "from sibling_of_loaded import VALUE\nSTATE = []\n")
    module = source.load_file(path)
    assert (module.__name__, module.VALUE) == ("loaded", 4)
    assert source.load_file(path) is module
    assert references.import_canonical("loaded") is module


def test_module_of_a_package_is_loaded_from_its_root(folder: Path) -> None:
    write(folder, "apackage/__init__.py", "")
    write(folder, "apackage/near.py", "X = 1\n")
    path = write(folder, "apackage/flow.py", "from .near import X\nfrom apackage import near\n")
    assert source.load_file(path, "apackage.flow").X == 1


def test_target_is_found_again(folder: Path) -> None:
    module = source.load_file(write(folder, "targets.py", FLOW))
    target = source.target_of(module.step)
    assert target == source.Target(str(folder / "targets.py"), "targets", "step")
    assert source.load_function(target) is module.step
    with pytest.raises(SourceError, match=r"targets\.py has no gone; was it renamed"):
        source.load_function(source.Target(target.path, target.module, "gone"))


def test_function_that_no_process_could_find_is_refused() -> None:
    with pytest.raises(SourceError, match="defined inside a function"):
        source.target_of(lambda: 1)


ERRORS = {
    "syntax": ("x = 1\ndef f(:\n    pass\n", [r"broken\.py, line 2: SyntaxError", r"    def f\(:\n +\^"]),
    "indentation": ("def f():\npass\n", [r"line 2: IndentationError", "    pass"]),
    "import": (
        "\nimport no_such_module\n",
        ["does not import: ModuleNotFoundError", r"broken\.py, line 2", "import no_such"],
    ),
    "exception": (
        "import json\ndef f():\n    return json.loads('{')\nf()\n",
        ["JSONDecodeError", r"broken\.py, line 3, in f\n    return json\.loads"],
    ),
    "exit": ("import sys\nsys.exit(3)\n", ["SystemExit: 3", "without `if __name__"]),
    "null": ("x = '\0'\n", ["null bytes"]),
}


@pytest.mark.parametrize(("text", "messages"), ERRORS.values(), ids=ERRORS)
def test_error_while_loading_shows_the_users_line(folder: Path, text: str, messages: list[str]) -> None:
    path = write(folder, "broken.py", text)
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            source.load_file(path)
        for message in messages:
            assert caught.match(message)
    assert "broken" not in sys.modules


def test_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no file .*absent\.py"):
        source.load_file(str(folder / "absent.py"))


def test_workflow_is_found_by_name_or_as_the_only_one(folder: Path) -> None:
    one = source.load_file(write(folder, "one_flow.py", FLOW))
    assert source.find_workflow(one) is source.find_workflow(one, "flow") is one.flow
    with pytest.raises(SourceError, match="no workflow step; it has flow"):
        source.find_workflow(one, "step")
    two = source.load_file(write(folder, "two_flows.py", FLOW + "\n@uniflow.workflow\ndef other(): ...\n"))
    with pytest.raises(SourceError, match="2 workflows, and none was named; it has flow, other"):
        source.find_workflow(two)
    none = source.load_file(write(folder, "no_flow.py", "from one_flow import flow\n"))
    with pytest.raises(SourceError, match=r"decorate a function with @uniflow\.workflow"):
        source.find_workflow(none)


def test_references_that_lead_nowhere_are_explained() -> None:
    for name, message in {
        "x": "must be module:qualname",
        "no.such:x": "cannot import",
        "json:gone": "has no gone",
    }.items():
        with pytest.raises(SourceError, match=message):
            references.resolve(name)


def test_modules_that_import_each_other_are_shown(tmp_path: Path) -> None:
    (tmp_path / "circle_flow.py").write_text("import circle_first\n")
    (tmp_path / "circle_first.py").write_text("import json\nfrom circle_second import y\nx = 1\n")
    (tmp_path / "circle_second.py").write_text("from circle_first import x\ny = 1\n")
    with pytest.raises(SourceError) as refused:
        source.load_file(str(tmp_path / "circle_flow.py"))
    said = str(refused.value)
    assert "these modules import each other: circle_first → circle_second → circle_first\n" in said
    assert f"{tmp_path / 'circle_first.py'}, line 2: from circle_second import y" in said
    assert f"{tmp_path / 'circle_second.py'}, line 1: from circle_first import x" in said
    assert "circle_flow.py, line 1" not in said


def test_cycle_through_a_package_and_an_attribute_is_shown(tmp_path: Path) -> None:
    (tmp_path / "round_flow.py").write_text("import round_package.one\n")
    (tmp_path / "round_package").mkdir()
    (tmp_path / "round_package" / "__init__.py").write_text("")
    (tmp_path / "round_package" / "one.py").write_text("from round_package import two\nz = 1\n")
    (tmp_path / "round_package" / "two.py").write_text(
        "import round_package.one\n\ndef f():\n    return round_package.one.z\n\nf()\n"
    )
    with pytest.raises(SourceError, match=r"round_package\.one → round_package\.two → round_package\.one"):
        source.load_file(str(tmp_path / "round_flow.py"))
