"""The graph as text: a tree in the order of the code, for a terminal; beside each node is where its data comes from."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final

from michelangelo.uniflow.graph.model import GROUPS, Graph, Node

__all__ = ["SIGNS", "States", "describe", "draw"]

States = Mapping[str, Mapping[str, int]]
"""Of each node: how many of its steps are in which state (`ok`, `cached`, `failed` …)."""

SIGNS: Final = {
    "start": ("○", "o"),
    "end": ("◎", "x"),
    "task": ("●", "*"),
    "map": ("⁂", "#"),
    "branch": ("◇", "?"),
    "loop": ("↻", "@"),
    "try": ("△", "!"),
    "workflow": ("▣", "W"),
    "call": ("ƒ", "f"),
    "timer": ("◷", "~"),
    "signal": ("⚑", "^"),
    "value": ("·", "."),
    "pipeline": ("▶", ">"),
    "dynamic": ("⁇", "??"),
}
_RAILS: Final = {False: ("├─ ", "└─ ", "│  ", "   "), True: ("|- ", "`- ", "|  ", "   ")}


def draw(graph: Graph, *, width: int = 100, ascii_only: bool = False, states: States | None = None) -> str:
    """Lines of at most `width` columns. `states`: what a run has done."""
    rows = list(_rows(graph, ascii_only=ascii_only))
    left = min(max((_columns(text) for text, _ in rows), default=0), max(24, width * 5 // 10))
    places = {node.id: _place(node) for _, node in rows if node is not None}
    middle = max((len(place) for place in places.values()), default=0)
    sources = _sources(graph)
    arrow = "<-" if ascii_only else "←"
    lines = []
    for text, node in rows:
        line = _fitted(text, left, ascii_only=ascii_only)
        if node is not None:
            done = describe((states or {}).get(node.id, {}))
            taken = f"{arrow} {', '.join(sources[node.id])}" if sources.get(node.id) else ""
            line = f"{line}  {places[node.id]:<{middle}}  {'  '.join(filter(None, (done, taken)))}"
        lines.append(_fitted(line.rstrip(), width, ascii_only=ascii_only, pad=False))
    if graph.num_cut:
        lines.append(f"({graph.num_cut} more nodes were left out: the graph is too large)")
    found = "\n".join(lines) + "\n"
    return found.encode("ascii", "replace").decode() if ascii_only else found


def describe(counts: Mapping[str, int]) -> str:
    """`3 ok, 1 failed`."""
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number)


def _rows(graph: Graph, *, ascii_only: bool) -> Iterator[tuple[str, Node | None]]:
    children: dict[str, list[Node]] = {}
    for node in graph.nodes:
        parent = node.parent if graph.node(node.parent) else ""
        children.setdefault(parent, []).append(node)
    tee, last, rail, gap = _RAILS[ascii_only]

    def walk(parent: str, indent: str) -> Iterator[tuple[str, Node | None]]:
        arms: dict[str, list[Node]] = {}
        for node in children.get(parent, ()):
            arms.setdefault(node.arm, []).append(node)
        flat = set(arms) <= {"", "try"}
        for number, (arm, nodes) in enumerate(arms.items()):
            is_last = number == len(arms) - 1
            inner = indent
            if not flat:
                yield indent + (last if is_last else tee) + (arm or "do"), None
                inner = indent + (gap if is_last else rail)
            for place, node in enumerate(nodes):
                ends = place == len(nodes) - 1 and ((flat and is_last) or not flat)
                lead = "" if not parent else (last if ends else tee)
                yield inner + lead + label(node), node
                yield from walk(node.id, inner + ("" if not parent else gap if ends else rail))

    def label(node: Node) -> str:
        return f"{SIGNS[node.kind][ascii_only] if node.kind in SIGNS else '-'} {node.name}"

    yield from walk("", "")


def _place(node: Node) -> str:
    return f"{node.file}:{node.line}" if node.file and node.line else ""


def _sources(graph: Graph) -> dict[str, list[str]]:
    """Of each node: the names of those that its data is of, with lines where a name is not enough."""
    named: dict[str, set[str]] = {}
    for node in graph.nodes:
        named.setdefault(node.name, set()).add(node.id)
    found: dict[str, list[str]] = {}
    for edge in graph.edges:
        origin = graph.node(edge.source)
        if edge.kind == "data" and origin is not None and origin.kind not in GROUPS:
            name = origin.name if len(named[origin.name]) == 1 else f"{origin.name}:{origin.line}"
            names = found.setdefault(edge.target, [])
            if name not in names:
                names.append(name)
    return found


def _fitted(text: str, width: int, *, ascii_only: bool, pad: bool = True) -> str:
    columns = _columns(text)
    if columns > width:
        dots = "..." if ascii_only else "…"
        while _columns(text) > width - len(dots):
            text = text[:-1]
        return text + dots
    return text + " " * (width - columns) if pad else text


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
