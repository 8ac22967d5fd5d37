"""The graph in the languages of other programs: Mermaid and Graphviz's DOT."""

from __future__ import annotations

from collections.abc import Iterator

from michelangelo.uniflow.graph import text
from michelangelo.uniflow.graph.model import GROUPS, Graph, Node
from michelangelo.uniflow.graph.text import States

__all__ = ["dot", "mermaid"]

_SHAPES = {
    "start": ("([", "])"),
    "end": ("([", "])"),
    "map": ("[[", "]]"),
    "dynamic": ("{{", "}}"),
    "signal": (">", "]"),
}
_ARROWS = {"data": "-->", "order": "-.->", "back": "-.->", "exception": "-.->"}
_STYLES = {"data": "solid", "order": "dotted", "back": "dashed", "exception": "dashed"}
_BAD = ("failed", "killed", "lost", "unknown")


def mermaid(graph: Graph, states: States | None = None) -> str:
    """A Mermaid flowchart; groups are subgraphs."""
    names = _names(graph)
    lines = ["flowchart TD"]

    def write(parent: str, indent: str) -> None:
        for node in _children(graph, parent):
            label = _mermaid_text(_label(node, states))
            if node.kind in GROUPS:
                lines.append(f'{indent}subgraph {names[node.id]}["{label}"]')
                write(node.id, indent + "  ")
                lines.append(f"{indent}end")
            else:
                opened, closed = _SHAPES.get(node.kind, ("[", "]"))
                lines.append(f'{indent}{names[node.id]}{opened}"{label}"{closed}')

    write("", "  ")
    for source, target, kind, label in _edges(graph):
        shown = f'|"{_mermaid_text(label)}"|' if label else ""
        lines.append(f"  {names[source]} {_ARROWS[kind]}{shown} {names[target]}")
    for kind, colour in (("ok", "#2e7d32"), ("failed", "#c62828"), ("running", "#1565c0")):
        found = [names[node.id] for node in graph.nodes if node.kind not in GROUPS and _state(node, states) == kind]
        if found:
            lines.append(f"  classDef {kind} stroke:{colour},stroke-width:2px")
            lines.append(f"  class {','.join(found)} {kind}")
    return "\n".join(lines) + "\n"


def dot(graph: Graph, states: States | None = None) -> str:
    """A directed graph for Graphviz; groups are clusters, whose edges are of a point in them."""
    names = _names(graph)
    lines = [
        "digraph workflow {",
        "  compound=true; node [shape=box, style=rounded, fontname=sans]; edge [fontname=sans]",
    ]

    def write(parent: str, indent: str) -> None:
        for node in _children(graph, parent):
            label = _dot_text(_label(node, states))
            if node.kind in GROUPS:
                lines.append(f"{indent}subgraph cluster_{names[node.id]} {{ label={label};")
                lines.append(f"{indent}  {names[node.id]} [shape=point];")
                write(node.id, indent + "  ")
                lines.append(f"{indent}}}")
            else:
                lines.append(f"{indent}{names[node.id]} [label={label}];")

    write("", "  ")
    for source, target, kind, label in _edges(graph):
        lines.append(f"  {names[source]} -> {names[target]} [style={_STYLES[kind]}, label={_dot_text(label)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _names(graph: Graph) -> dict[str, str]:
    return {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}


def _children(graph: Graph, parent: str) -> list[Node]:
    return [node for node in graph.nodes if (node.parent if graph.node(node.parent) else "") == parent]


def _edges(graph: Graph) -> Iterator[tuple[str, str, str, str]]:
    """Without those from a node into itself or a group around it, which Mermaid cannot draw."""
    for edge in graph.edges:
        around = graph.node(edge.source)
        while around is not None and around.id != edge.target:
            around = graph.node(around.parent)
        inside = graph.node(edge.target)
        while inside is not None and inside.id != edge.source:
            inside = graph.node(inside.parent)
        if around is None and inside is None:
            yield edge.source, edge.target, edge.kind, edge.label


def _label(node: Node, states: States | None) -> str:
    place = f"{node.file}:{node.line}" if node.file and node.line else ""
    sign = text.SIGNS[node.kind][0] + " " if node.kind in GROUPS else ""
    return "\n".join(filter(None, (sign + node.name, place, text.describe((states or {}).get(node.id, {})))))


def _state(node: Node, states: States | None) -> str:
    counts = (states or {}).get(node.id, {})
    if any(counts.get(state) for state in _BAD):
        return "failed"
    return "running" if counts.get("running") else "ok" if counts else ""


def _mermaid_text(value: str) -> str:
    """In quotes, with entities for what Mermaid or HTML would take for its own."""
    for character, entity in (("#", "#35;"), ("&", "#38;"), ("<", "#60;"), (">", "#62;"), ('"', "#34;"), ("`", "#96;")):
        if character == "#":
            value = value.replace("#", "\0")
        else:
            value = value.replace(character, entity)
    return value.replace("\0", "#35;").replace("\\", "#92;").replace("\n", "<br/>")


def _dot_text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
