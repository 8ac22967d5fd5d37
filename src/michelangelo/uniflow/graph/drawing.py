"""The graph in the making: nodes and edges, the place where control is now, without groups that hold nothing.

It knows no Python: the reader of the code (body.py, calls.py) tells it what it meets, in the order of the code.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from michelangelo.uniflow.graph import model
from michelangelo.uniflow.graph.model import Edge, Node
from michelangelo.uniflow.graph.sources import Module

__all__ = ["END", "START", "Drawing", "Frontier", "Sketch"]

START: Final = "start"
END: Final = "end"
_MAX_ID: Final = 160
_MAX_NAME: Final = 60

Frontier: TypeAlias = dict[str, tuple[str, str]]
"""The nodes that control may come from, each with the kind and the label of the edge that leaves it."""


@dataclass(eq=False, slots=True, repr=False)
class Sketch:
    """A node in the making; its name is written out when the graph is done."""

    id: str
    kind: str
    name: str
    module: Module | None = None
    place: ast.AST | None = None
    expression: ast.expr | None = None
    """Its source goes into the name, in the place of `{}`."""
    scope: str = ""
    parent: str = ""
    arm: str = ""
    candidates: set[str] = field(default_factory=set)


class Drawing:
    def __init__(self) -> None:
        self.sketches: dict[str, Sketch] = {}
        self.edges: dict[tuple[str, str, str], str] = {}
        """(from, to, kind) → label."""
        self.frontier: Frontier = {START: ("order", "")}
        self.parent = ""
        self.arm = ""
        self._ids: dict[tuple[str, int, str, str], str] = {}

    @property
    def changes(self) -> int:
        return len(self.sketches) + len(self.edges)

    def identify(self, wanted: str, place: ast.AST, kind: str, name: str) -> str:
        """A unique id: the wanted one, or one made from it where another node has it."""
        key = (wanted, id(place), kind, name)
        known = self._ids.get(key)
        if known is None:
            if len(wanted) > _MAX_ID:
                wanted = f"…{hashlib.sha256(wanted.encode()).hexdigest()[:16]}{wanted[-(_MAX_ID // 2) :]}"
            known, number = wanted, 1
            while known in self.sketches:
                number += 1
                known = f"{wanted}~{number}"
            self._ids[key] = known
        return known

    def node(self, sketch: Sketch, *, enter: bool = True) -> str:
        """Control comes to a node; what it comes from is connected. `enter`: it goes on from there."""
        known = self.sketches.get(sketch.id)
        if known is None:
            sketch.parent, sketch.arm = self.parent, self.arm
            self.sketches[sketch.id] = sketch
        else:
            known.candidates |= sketch.candidates
        self.connect(sketch.id)
        if enter:
            self.frontier = {sketch.id: ("order", "")}
        return sketch.id

    def connect(self, target: str, kind: str = "") -> None:
        """Edges from where control is to `target`."""
        for source, (own, label) in self.frontier.items():
            self.edge(source, target, kind or own, label)

    def edge(self, source: str, target: str, kind: str, label: str = "") -> None:
        known = self.edges.get((source, target, kind))
        if known is None:
            self.edges[(source, target, kind)] = label
        elif label and label not in known.split(", ") and len(known) < _MAX_NAME:
            self.edges[(source, target, kind)] = f"{known}, {label}" if known else label

    @contextmanager
    def inside(self, group: str, arm: str = "") -> Iterator[None]:
        """Nodes that are met in the block lie in `group`."""
        before = self.parent, self.arm
        self.parent, self.arm = group, arm
        try:
            yield
        finally:
            self.parent, self.arm = before

    def leave(self, group: str, label: str) -> Frontier:
        return {group: ("order", label)}

    def merge(self, frontiers: Iterable[Frontier]) -> Frontier:
        merged: Frontier = {}
        for frontier in frontiers:
            for node, (kind, label) in frontier.items():
                known = merged.get(node)
                merged[node] = (kind, label) if known is None or known[1] == label else (kind, "")
        return merged

    def finish(self, kept: set[str]) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
        """The graph without the groups that hold nothing; those in `kept` stay."""
        self._dissolve(kept)
        children: dict[str, list[Sketch]] = {}
        for sketch in self.sketches.values():
            children.setdefault(sketch.parent, []).append(sketch)
        ordered: list[Sketch] = []
        pending = [one for one in reversed(children.get("", [])) if one.id != END]
        while pending:
            sketch = pending.pop()
            ordered.append(sketch)
            pending += reversed(children.get(sketch.id, []))
        ordered.append(self.sketches[END])
        place = {sketch.id: number for number, sketch in enumerate(ordered)}
        data = {(source, target) for source, target, kind in self.edges if kind == "data"}
        edges = [
            Edge(source, target, kind, label)
            for (source, target, kind), label in self.edges.items()
            if not (kind == "order" and (source, target) in data)
        ]
        edges.sort(key=lambda one: (place[one.source], place[one.target], one.kind))
        return tuple(_finished(sketch) for sketch in ordered), tuple(edges)

    def _dissolve(self, kept: set[str]) -> None:
        """Take out the groups that hold nothing, and then those that held only such."""
        held: dict[str, int] = {}
        for sketch in self.sketches.values():
            held[sketch.parent] = held.get(sketch.parent, 0) + 1
        incoming: dict[str, set[tuple[str, str, str]]] = {}
        outgoing: dict[str, set[tuple[str, str, str]]] = {}
        for edge in self.edges:
            incoming.setdefault(edge[1], set()).add(edge)
            outgoing.setdefault(edge[0], set()).add(edge)
        pending = [one for one in self.sketches.values() if one.kind in model.GROUPS and one.id not in held]
        while pending:
            group = pending.pop()
            if group.id in kept:
                continue
            self._bypass(group.id, incoming, outgoing)
            del self.sketches[group.id]
            held[group.parent] -= 1
            mother = self.sketches.get(group.parent)
            if mother is not None and not held[mother.id]:
                pending.append(mother)

    def _bypass(
        self,
        node: str,
        incoming: dict[str, set[tuple[str, str, str]]],
        outgoing: dict[str, set[tuple[str, str, str]]],
    ) -> None:
        before = sorted(incoming.pop(node, ()))
        after = sorted(outgoing.pop(node, ()))
        labels = {edge: self.edges.pop(edge) for edge in dict.fromkeys((*before, *after))}
        for edge in before:
            outgoing.get(edge[0], set()).discard(edge)
        for edge in after:
            incoming.get(edge[1], set()).discard(edge)
        for source, _, kind in before:
            for _, target, own in after:
                if source == node or target == node or "data" in (kind, own):
                    continue
                kinds = {kind, own}
                both = "exception" if "exception" in kinds else "back" if "back" in kinds else "order"
                self.edge(source, target, both, labels[source, node, kind])
                made = (source, target, both)
                outgoing.setdefault(source, set()).add(made)
                incoming.setdefault(target, set()).add(made)


def _finished(sketch: Sketch) -> Node:
    name = sketch.name
    if sketch.expression is not None and sketch.module is not None:
        name = name.replace("{}", " ".join(sketch.module.text(sketch.expression).split()))
    if len(name) > _MAX_NAME:
        name = name[: _MAX_NAME - 1] + "…"
    place = sketch.place
    return Node(
        sketch.id,
        sketch.kind,
        name,
        sketch.module.file if sketch.module else "",
        getattr(place, "lineno", 0),
        getattr(place, "col_offset", 0),
        getattr(place, "end_lineno", 0) or 0,
        sketch.scope,
        sketch.parent,
        sketch.arm,
        tuple(sorted(sketch.candidates)),
    )
