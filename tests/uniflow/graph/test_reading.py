"""What the graph says of small workflows, form by form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from michelangelo import errors
from michelangelo.uniflow import graph
from michelangelo.uniflow.graph import Graph

HEAD = """
import functools
from michelangelo import uniflow

@uniflow.task
def a(value=None): ...

@uniflow.task(alias="bee")
def b(value=None, other=None): ...

"""
Draw = Callable[..., Graph]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """The graph of `flow` in a file; other files by name."""

    def read(source: str, **files: str) -> Graph:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (tmp_path / "flow.py").write_text(HEAD + source)
        return graph.read(str(tmp_path / "flow.py"), "flow").graph()

    return read


def shown(found: Graph) -> list[str]:
    """Kinds and names, with `>` for each group around."""
    return [f"{'>' * found.depth(node)}{node.kind} {node.name}" for node in found.nodes[1:-1]]


def edges(found: Graph, kind: str) -> set[tuple[str, str, str]]:
    names = {node.id: node.name for node in found.nodes}
    return {(names[edge.source], names[edge.target], edge.label) for edge in found.edges if edge.kind == kind}


def test_helpers_of_other_files_are_followed(draw: Draw) -> None:
    found = draw(
        "from pack.steps import work\nimport pack.more as more\n\n"
        "@uniflow.workflow\ndef flow():\n    more.go(work(1))\n",
        pack__steps="from michelangelo.uniflow import task\nfrom . import more\n\n@task\ndef inner(x): ...\n\n"
        "def work(x):\n    return inner(x)\n",
        pack__more="from pack import steps\n\ndef go(x):\n    steps.inner(x)\n",
    )
    assert shown(found) == ["call work", ">task inner", "call go", ">task inner"]
    assert {node.file for node in found.nodes if node.kind == "task"} == {"pack/steps.py", "pack/more.py"}
    assert edges(found, "data") == {("inner", "inner", "x")}


@pytest.mark.parametrize(
    ("line", "candidates"),
    [("getattr(uniflow, name)(1)", ()), ("{'x': a, 'y': b}[name](1)", ("a", "bee")), ("function(1)", ())],
)
def test_call_of_what_is_not_known_is_a_dynamic_node(draw: Draw, line: str, candidates: tuple[str, ...]) -> None:
    found = draw(f"@uniflow.workflow\ndef flow(name, function):\n    {line}\n")
    assert [(node.kind, node.candidates) for node in found.nodes[1:-1]] == [("dynamic", candidates)]


def test_branches_loops_and_ways_out_are_groups_and_edges(draw: Draw) -> None:
    found = draw(
        "@uniflow.workflow\ndef flow(n):\n    if a(n):\n        return b(1)\n    for i in range(n):\n"
        "        if i:\n            break\n        b(i)\n    raise ValueError\n"
    )
    assert shown(found) == [
        "task a",
        "branch if a(n)",
        ">task bee",
        "loop for i in range(n)",
        ">branch if i",
        ">task bee",
    ]
    assert ("a", "if a(n)", "condition") in edges(found, "data")
    assert ("if a(n)", "for i in range(n)", "else") in edges(found, "order")
    assert ("bee", "for i in range(n)", "") in edges(found, "back")
    assert ("for i in range(n)", "end", "raise") in edges(found, "exception")


def test_data_is_followed_round_a_loop(draw: Draw) -> None:
    found = draw(
        "@uniflow.workflow\ndef flow(n):\n    x = n\n    for _ in range(n):\n        x = a(f'{b(x)}')\n    return x\n"
    )
    assert {("bee", "a", "value"), ("a", "bee", "value"), ("a", "end", "result")} <= edges(found, "data")


def test_recursion_is_a_way_back(draw: Draw) -> None:
    found = draw(
        "def again(n):\n    return a(again(n - 1)) if n else b(n)\n\n"
        "@uniflow.workflow\ndef flow(n):\n    return again(n)\n"
    )
    assert [one for one in shown(found) if "task" in one] == [">>task a", ">>task bee"]
    assert {target for _, target, _ in edges(found, "back")} == {"again"}
    assert ("a", "a", "value") in edges(found, "data")


def test_waits_and_signals_are_nodes(draw: Draw) -> None:
    found = draw(
        "@uniflow.workflow\ndef flow():\n    uniflow.sleep(1)\n    if uniflow.wait_for_signal('go'):\n"
        "        uniflow.now()\n    uniflow.run_pipeline('other')\n"
    )
    assert shown(found) == [
        "timer sleep",
        "signal go",
        "branch if uniflow.wait_for_signal('go')",
        ">value now",
        "pipeline other",
    ]


def test_ids_do_not_depend_on_what_stands_above(draw: Draw) -> None:
    flow = "@uniflow.workflow\ndef flow(n):\n    return [b(a(i)) for i in n]\n"
    first, second = draw(flow), draw("# above\n\n\n" + flow)
    assert [node.id for node in first.nodes] == [node.id for node in second.nodes]


def test_many_helpers_in_each_other_stay_within_bounds(draw: Draw) -> None:
    helpers = "def h0(x):\n    return b(a(x))\n\n"
    for number in range(1, 12):
        calls = "; ".join([f"h{number - 1}(x)"] * 3)
        helpers += f"def h{number}(x):\n    {calls}\n\n"
    found = draw(f"{helpers}@uniflow.workflow\ndef flow(n):\n    h11(n)\n")
    assert len(found.nodes) < 1000
    assert len(json.dumps(found.to_json())) < graph.MAX_BYTES


def test_large_graph_is_cut_and_says_so(draw: Draw) -> None:
    lines = "".join(f"    if a({n}):\n        b(a({n}))\n" for n in range(400))
    found = draw(f"@uniflow.workflow\ndef flow(n):\n{lines}")
    document = found.to_json()
    assert len(json.dumps(document)) <= graph.MAX_BYTES
    assert document["cut"] > 0
    read = Graph.from_json(document)
    assert read.num_cut + len(read.nodes) == len(found.nodes)
    assert {edge.source for edge in read.edges} <= {node.id for node in read.nodes}


def test_json_form_is_read_again_as_it_was(draw: Draw) -> None:
    found = draw("@uniflow.workflow\ndef flow(n):\n    try:\n        b(a(n))\n    except OSError:\n        n()\n")
    assert Graph.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_damaged_graph_is_refused() -> None:
    with pytest.raises(errors.SourceError, match="version"):
        Graph.from_json({"version": 99})
    with pytest.raises(errors.SourceError, match="damaged"):
        Graph.from_json({"version": 1, "nodes": [{}]})


def test_cyclic_imports_are_no_trouble(draw: Draw) -> None:
    found = draw(
        "from one import work\n\n@uniflow.workflow\ndef flow(n):\n    return work(a, n)\n",
        one="from two import turn\nimport flow\n\ndef work(f, n):\n    return turn(f, n)\n",
        two="from one import work\nfrom flow import b\n\ndef turn(f, n):\n    return b(f(n))\n",
    )
    assert [one for one in shown(found) if "task" in one] == [">>task a", ">>task bee"]


def test_syntax_error_in_an_imported_file_names_its_line(draw: Draw) -> None:
    with pytest.raises(errors.SourceError, match=r"bad\.py, line 1"):
        draw("from bad import x\n\n@uniflow.workflow\ndef flow(n):\n    x()\n", bad="def (:\n")


def test_package_is_light() -> None:
    code = "import sys, michelangelo.uniflow; print([m for m in sys.modules if 'uniflow.graph' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys, michelangelo.uniflow.graph; print([m for m in ('pydantic', 'click', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "message"), [(b"\xff\xfe\x00", r"flow\.py: SyntaxError"), (b"def f(:", "line 1: Syn")]
)
def test_file_that_is_no_python_is_named(tmp_path: Path, source: bytes, message: str) -> None:
    (tmp_path / "flow.py").write_bytes(source)
    with pytest.raises(errors.SourceError, match=message):
        graph.read(str(tmp_path / "flow.py"), "flow").graph()


CLASSES = """
class Base:
    def __init__(self, depth):
        self.step = a
        self.depth = depth

    def fit(self, rows):
        return self.deepen(self.step(rows))

    def deepen(self, rows):
        return b(rows)

    @classmethod
    def made(cls, rows):
        return cls(2).fit(rows)

    @staticmethod
    def plain(rows):
        return a(rows)

    @property
    def best(self):
        return b(self.depth)


class Model(Base):
    def deepen(self, rows):
        return super().deepen(a(rows))
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Base(1).fit(n)", ["call fit", ">task a", ">call deepen", ">>task bee"]),
        ("Model(1).fit(n)", ["call fit", ">task a", ">call deepen", ">>task a", ">>call deepen", ">>>task bee"]),
        ("Base.made(n)", ["call made", ">call fit", ">>task a", ">>call deepen", ">>>task bee"]),
        ("Base(1).plain(n)", ["call plain", ">task a"]),
        ("Base(1).best + Base.plain(n)", ["call best", ">task bee", "call plain", ">task a"]),
        ("Base.fit(Base(1), n)", ["call fit", ">task a", ">call deepen", ">>task bee"]),
        ("model = Base(1)\n    for row in n:\n        model.fit(row)", [
            "loop for row in n", ">call fit", ">>task a", ">>call deepen", ">>>task bee",
        ]),
    ],
)  # fmt: skip
def test_methods_of_the_users_classes_are_followed(draw: Draw, line: str, expected: list[str]) -> None:
    assert shown(draw(f"{CLASSES}\n@uniflow.workflow\ndef flow(n):\n    {line}\n")) == expected


def test_data_passes_through_objects(draw: Draw) -> None:
    found = draw(
        f"{CLASSES}\n@uniflow.workflow\ndef flow(n):\n    model = Base(a(n))\n    uniflow.sleep(1)\n    model.best\n"
    )
    assert edges(found, "data") == {("a", "bee", "value")}
