"""The graph of a workflow as data: nodes with their places in the source, edges with their kinds, and the JSON form.

The schema is in docs/graph.md. The JSON form is bounded: what is over `MAX_BYTES` is cut, innermost first, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo.errors import SourceError

__all__ = ["GROUPS", "MAX_BYTES", "STEPS", "VERSION", "Edge", "Graph", "Node"]

VERSION: Final = 1
MAX_BYTES: Final = 160_000
GROUPS: Final = frozenset({"branch", "loop", "try", "workflow", "call"})
"""Kinds of nodes that others lie in."""
STEPS: Final = frozenset({"task", "map", "timer", "signal", "value", "pipeline", "dynamic"})
"""Kinds of nodes that a run's steps are instances of."""


@dataclass(frozen=True, slots=True)
class Node:
    """A place in the source. Lines count from 1, columns from 0."""

    id: str
    kind: str
    name: str
    file: str = ""
    """Relative to the root of the source."""
    line: int = 0
    column: int = 0
    end_line: int = 0
    scope: str = ""
    """Qualified name of the function whose code it is."""
    parent: str = ""
    """The group that it lies in; empty at the top."""
    arm: str = ""
    """Which part of the parent: then, else, case …, except …, finally."""
    candidates: tuple[str, ...] = ()
    """Of a dynamic node: names of tasks that may be called there, as far as they are known."""


@dataclass(frozen=True, slots=True)
class Edge:
    """`kind`: data, order, back (to the head of a loop or of a recursion) or exception."""

    source: str
    target: str
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the order of the code, each after its parent; the first is the start, the last the end."""

    workflow: str
    file: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    num_cut: int = 0
    """How many nodes were left out because there were too many."""
    _by_id: dict[str, Node] = field(default_factory=dict, compare=False, repr=False)

    def node(self, node_id: str) -> Node | None:
        if not self._by_id:
            self._by_id.update((node.id, node) for node in self.nodes)
        return self._by_id.get(node_id)

    def to_json(self, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
        """The JSON form; nodes that lie deepest are left out until it fits."""
        document = self._document()
        deepest = max(map(self.depth, self.nodes), default=0)
        graph = self
        while len(json.dumps(document)) > max_bytes and graph.nodes:
            if deepest > 0:
                graph = graph._without({node.id for node in graph.nodes if graph.depth(node) >= deepest})
                deepest -= 1
            else:
                half = len(graph.nodes) // 2
                graph = graph._without({node.id for node in graph.nodes[half:]})
            document = graph._document()
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Graph:
        """What `to_json` gave. SourceError when it is no graph of this version."""
        if document.get("version") != VERSION:
            raise SourceError(
                f"the stored graph has version {document.get('version')!r}, and this program reads {VERSION}: "
                "apply the pipeline again, or update"
            )
        try:
            nodes = tuple(_node(one) for one in document["nodes"])
            edges = tuple(Edge(one["from"], one["to"], one["kind"], one.get("label", "")) for one in document["edges"])
            return Graph(document["workflow"], document["file"], nodes, edges, int(document.get("cut", 0)))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SourceError(f"the stored graph is damaged ({error!r}): apply the pipeline again") from error

    def depth(self, node: Node) -> int:
        """How many groups it lies in."""
        depth = 0
        parent = self.node(node.parent)
        while parent is not None:
            depth, parent = depth + 1, self.node(parent.parent)
        return depth

    def _without(self, gone: set[str]) -> Graph:
        nodes = tuple(node for node in self.nodes if node.id not in gone)
        edges = tuple(edge for edge in self.edges if edge.source not in gone and edge.target not in gone)
        return Graph(self.workflow, self.file, nodes, edges, self.num_cut + len(gone))

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "version": VERSION,
            "workflow": self.workflow,
            "file": self.file,
            "nodes": [_node_document(node) for node in self.nodes],
            "edges": [
                {
                    "from": edge.source,
                    "to": edge.target,
                    "kind": edge.kind,
                    **({"label": edge.label} if edge.label else {}),
                }
                for edge in self.edges
            ],
        }
        return {**document, "cut": self.num_cut} if self.num_cut else document


_OPTIONAL: Final = {"file": "file", "line": "line", "column": "column", "end_line": "endLine", "scope": "scope"} | {
    "parent": "parent",
    "arm": "arm",
}


def _node_document(node: Node) -> dict[str, Any]:
    document: dict[str, Any] = {"id": node.id, "kind": node.kind, "name": node.name}
    for name, key in _OPTIONAL.items():
        if value := getattr(node, name):
            document[key] = value
    if node.candidates:
        document["candidates"] = list(node.candidates)
    return document


def _node(document: Mapping[str, Any]) -> Node:
    given = {name: document[key] for name, key in _OPTIONAL.items() if key in document}
    candidates = tuple(document.get("candidates", ()))
    return Node(document["id"], document["kind"], document["name"], **given, candidates=candidates)
