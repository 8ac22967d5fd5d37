"""Pictures of random workflows: valid, nothing over anything else, edges from box to box, text within its columns."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from michelangelo.uniflow import graph
from michelangelo.uniflow.graph import Graph, layout, markup, svg, text
from michelangelo.uniflow.graph.layout import Box


def programs() -> Any:
    spec = importlib.util.spec_from_file_location("graph_programs", Path(__file__).parent / "programs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=range(12))
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> Graph:
    path = tmp_path / "flow.py"
    path.write_text(programs().generate(random.Random(request.param), 1 + request.param))
    return graph.read(str(path), "flow").graph()


def test_boxes_do_not_overlap_and_are_on_the_page(drawn: Graph) -> None:
    page = layout.arrange(drawn)
    assert set(page.boxes) == {node.id for node in drawn.nodes}
    for box in page.boxes.values():
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= page.width + 0.01
        assert box.y + box.height <= page.height + 0.01
        around = page.boxes.get(box.node.parent)
        if around is not None:
            assert around.x <= box.x
            assert box.x + box.width <= around.x + around.width + 0.01
            assert around.y + layout.HEADER <= box.y
            assert box.y + box.height <= around.y + around.height + 0.01
    by_parent: dict[str, list[Box]] = {}
    for box in page.boxes.values():
        by_parent.setdefault(box.node.parent, []).append(box)
    for siblings in by_parent.values():
        for number, one in enumerate(siblings):
            assert not any(overlap(one, other) for other in siblings[number + 1 :])


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width - 0.01
        and other.x < one.x + one.width - 0.01
        and one.y < other.y + other.height - 0.01
        and other.y < one.y + one.height - 0.01
    )


def test_edges_end_at_boxes(drawn: Graph) -> None:
    page = layout.arrange(drawn)
    assert page.routes
    for edge, route in page.routes:
        for end, node in ((route[0], edge.source), (route[-1], edge.target)):
            box = page.boxes[node]
            assert box.x - 0.01 <= end[0] <= box.x + box.width + 0.01
            assert box.y - 0.01 <= end[1] <= box.y + box.height + 0.01


def test_picture_is_valid_and_has_every_node(drawn: Graph) -> None:
    root = ElementTree.fromstring(svg.draw(drawn, {drawn.nodes[1].id: {"ok": 3, "failed": 1}}))
    names = ["".join(title.itertext()) for title in root.iter("{http://www.w3.org/2000/svg}title")]
    for node in drawn.nodes:
        assert any(f"{node.kind}: {node.name}" in name for name in names)
    assert any("3 ok, 1 failed" in name for name in names)


def test_text_keeps_within_its_columns(drawn: Graph) -> None:
    for width in (60, 80, 120):
        lines = text.draw(drawn, width=width).splitlines()
        assert max(map(len, lines)) <= width
    plain = text.draw(drawn, width=80, ascii_only=True)
    assert plain.isascii()
    assert len(plain.splitlines()) >= len(drawn.nodes)


def test_mermaid_and_dot_name_every_node(drawn: Graph) -> None:
    for written in (markup.mermaid(drawn), markup.dot(drawn)):
        for number in range(len(drawn.nodes)):
            assert f"n{number}" in written
    opened = [line for line in markup.mermaid(drawn).splitlines() if line.strip().startswith("subgraph")]
    closed = [line for line in markup.mermaid(drawn).splitlines() if line.strip() == "end"]
    assert len(opened) == len(closed)


def test_names_that_are_markup_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "flow.py"
    path.write_text(
        "from michelangelo import uniflow\n\n@uniflow.task(alias='<b>\"x\" & `y`')\ndef t(): ...\n\n"
        "@uniflow.workflow\ndef flow():\n    t()\n"
    )
    drawn = graph.read(str(path), "flow").graph()
    root = ElementTree.fromstring(svg.draw(drawn))
    assert any('<b>"x" & `y`' in (one.text or "") for one in root.iter("{http://www.w3.org/2000/svg}text"))
    assert '["#60;b#62;#34;x#34; #38; #96;y#96;<br/>flow.py:8"]' in markup.mermaid(drawn)
    assert 'label="<b>\\"x\\" & `y`\\nflow.py:8"' in markup.dot(drawn)
