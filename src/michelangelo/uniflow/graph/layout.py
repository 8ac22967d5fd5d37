"""Where boxes and edges go on a page: layers within each group, groups within groups.

Sugiyama's method in small: nodes are in layers by their longest way from the start (edges go forward in the code, so
there is no cycle), the order within a layer follows the neighbours' middle, and a long edge passes the layers between
through places that are kept free for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from michelangelo.uniflow.graph.model import GROUPS, Edge, Graph, Node

__all__ = ["HEADER", "Box", "Page", "Point", "arrange"]

HEADER: Final = 30.0
"""Height of a group's title."""
_GAP_X: Final = 26.0
_GAP_Y: Final = 38.0
_PADDING: Final = 18.0
_NODE_HEIGHT: Final = 44.0
_LETTER: Final = 7.4
_LANE: Final = 8.0

Point: TypeAlias = tuple[float, float]


@dataclass(slots=True)
class Box:
    node: Node
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    children: list[Box] = field(default_factory=list)

    def move(self, x: float, y: float) -> None:
        self.x += x
        self.y += y
        for child in self.children:
            child.move(x, y)


@dataclass(slots=True)
class Page:
    width: float
    height: float
    boxes: dict[str, Box]
    routes: list[tuple[Edge, list[Point]]]
    """Each edge with the points that it passes, from box to box."""


@dataclass(slots=True)
class _Slot:
    """A place in a layer: a box, or where a long edge passes."""

    width: float
    height: float
    layer: int = 0
    box: Box | None = None
    x: float = 0.0
    y: float = 0.0
    above: list[_Slot] = field(default_factory=list)
    below: list[_Slot] = field(default_factory=list)

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


_Passages: TypeAlias = dict[tuple[str, str], list[tuple[_Slot, Box | None]]]


def arrange(graph: Graph) -> Page:
    """The whole page, with a margin."""
    children: dict[str, list[Node]] = {}
    for node in graph.nodes:
        children.setdefault(node.parent if graph.node(node.parent) else "", []).append(node)
    lines = _lineage(graph)
    lifted: dict[str, dict[tuple[str, str], None]] = {}
    for edge in graph.edges:
        if edge.kind != "back" and (pair := _siblings(lines, edge)):
            lifted.setdefault(pair[0], {})[pair[1], pair[2]] = None
    passages: _Passages = {}
    boxes: dict[str, Box] = {}

    def build(parent: str) -> tuple[list[Box], float, float]:
        made = []
        for node in children.get(parent, ()):
            width = max(92.0, _LETTER * max(len(node.name), len(node.file) + 6) + 26.0)
            box = Box(node, min(width, 420.0), _NODE_HEIGHT)
            if node.kind in GROUPS:
                box.children, inner_width, inner_height = build(node.id)
                title = _LETTER * (len(node.name) + len(node.file) + 10) + 30.0
                box.width = max(inner_width + 2 * _PADDING, min(title, 520.0))
                box.height = inner_height + HEADER + 2 * _PADDING
                shift = (box.width - inner_width) / 2
                for child in box.children:
                    child.move(shift, HEADER + _PADDING)
                for slots in (p for key, p in passages.items() if key[0] in {c.node.id for c in box.children}):
                    for number, (slot, _) in enumerate(slots):
                        slots[number] = (slot, box)
                        slot.x += shift
                        slot.y += HEADER + _PADDING
            boxes[node.id] = box
            made.append(box)
        width, height = _layered(made, list(lifted.get(parent, ())), passages)
        return made, width, height

    _, width, height = build("")
    for box in boxes.values():
        if box.node.parent not in boxes:
            box.move(_PADDING, _PADDING)
    routes = [(edge, route) for edge in graph.edges if (route := _route(edge, boxes, lines, passages))]
    right = max((x for _, route in routes for x, _ in route), default=0.0)
    return Page(max(width + 2 * _PADDING, right + _PADDING), height + 2 * _PADDING, boxes, routes)


def _lineage(graph: Graph) -> dict[str, list[str]]:
    """Of each node: the groups around it from the outside in, and itself."""
    lines: dict[str, list[str]] = {"": []}
    for node in graph.nodes:
        lines[node.id] = [*lines.get(node.parent, []), node.id]
    return lines


def _siblings(lines: dict[str, list[str]], edge: Edge) -> tuple[str, str, str] | None:
    """The group in which an edge is drawn, and which of its children it connects; None within one line."""
    source, target = lines[edge.source], lines[edge.target]
    common = 0
    while common < min(len(source), len(target)) and source[common] == target[common]:
        common += 1
    if common in (len(source), len(target)):
        return None
    return (source[common - 1] if common else "", source[common], target[common])


def _layered(boxes: list[Box], edges: Sequence[tuple[str, str]], passages: _Passages) -> tuple[float, float]:
    """Place the boxes of one group from (0, 0); the size that they take."""
    slots = [_Slot(box.width, box.height, box=box) for box in boxes]
    index = {box.node.id: number for number, box in enumerate(boxes)}
    pairs = sorted({(index[a], index[b]) for a, b in edges if index[a] < index[b]})
    for a, b in pairs:
        slots[b].layer = max(slots[b].layer, slots[a].layer + 1)
    layers: list[list[_Slot]] = [[] for _ in range(max((slot.layer for slot in slots), default=-1) + 1)]
    for slot in slots:
        layers[slot.layer].append(slot)
    made: dict[tuple[str, str], list[_Slot]] = {}
    for a, b in pairs:
        before = slots[a]
        between = []
        for layer in range(slots[a].layer + 1, slots[b].layer):
            lane = _Slot(_LANE, 0.0, layer)
            layers[layer].append(lane)
            _link(before, lane)
            between.append(lane)
            before = lane
        _link(before, slots[b])
        made[boxes[a].node.id, boxes[b].node.id] = between
    _order(layers)
    width, height = _place(layers)
    for slot in slots:
        assert slot.box is not None
        slot.box.move(slot.x, slot.y)
    for key, lanes in made.items():
        passages[key] = [(lane, None) for lane in lanes]
    return width, height


def _link(above: _Slot, below: _Slot) -> None:
    above.below.append(below)
    below.above.append(above)


def _order(layers: list[list[_Slot]]) -> None:
    """Fewer crossings: each slot goes to the middle of its neighbours, down and up in turns."""
    for sweep in range(6):
        downwards = sweep % 2 == 0
        place = {id(slot): float(number) for layer in layers for number, slot in enumerate(layer)}
        for layer in layers if downwards else reversed(layers):
            weights = {}
            for slot in layer:
                near = slot.above if downwards else slot.below
                weights[id(slot)] = sum(place[id(one)] for one in near) / len(near) if near else place[id(slot)]
            layer.sort(key=lambda slot: weights[id(slot)])
            place.update((id(slot), float(number)) for number, slot in enumerate(layer))


def _place(layers: list[list[_Slot]]) -> tuple[float, float]:
    y = 0.0
    for layer in layers:
        height = max((slot.height for slot in layer), default=0.0)
        for slot in layer:
            slot.y = y
            if slot.box is None:
                slot.height = height
        y += height + _GAP_Y
        x = 0.0
        for slot in layer:
            slot.x = x
            x += slot.width + _GAP_X
    for sweep in range(10):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _align(layer)
    left = min((slot.x for layer in layers for slot in layer), default=0.0)
    for layer in layers:
        for slot in layer:
            slot.x -= left
    width = max((slot.x + slot.width for layer in layers for slot in layer), default=0.0)
    return width, max(0.0, y - _GAP_Y)


def _align(layer: list[_Slot]) -> None:
    """Under and over their neighbours, as far as the others of the layer leave room."""
    wanted = []
    for slot in layer:
        near = [*slot.above, *slot.below]
        wanted.append(sum(one.middle for one in near) / len(near) - slot.width / 2 if near else slot.x)
    for slot, x in zip(layer, wanted, strict=True):
        slot.x = x
    # From both sides, and the mean of the two: neither pushes all to the one end.
    rightwards, leftwards = [], []
    edge = float("-inf")
    for slot in layer:
        edge = max(slot.x, edge)
        rightwards.append(edge)
        edge += slot.width + _GAP_X
    edge = float("inf")
    for slot in reversed(layer):
        edge = min(slot.x, edge - slot.width)
        leftwards.append(edge)
        edge -= _GAP_X
    for slot, right, left in zip(layer, rightwards, reversed(leftwards), strict=True):
        slot.x = (right + left) / 2


def _route(edge: Edge, boxes: dict[str, Box], lines: dict[str, list[str]], passages: _Passages) -> list[Point]:
    """From box to box; nothing for an edge that its group's sign stands for."""
    source, target = boxes[edge.source], boxes[edge.target]
    if edge.target in lines[edge.source]:
        return []
    if edge.source in lines[edge.target]:
        x = target.x + target.width / 2
        return [(x, source.y + HEADER), (x, target.y)] if target.node.parent == edge.source else []
    if edge.kind == "back" or source.y + source.height > target.y:
        right = max(source.x + source.width, target.x + target.width) + 16.0
        start = (source.x + source.width, source.y + source.height / 2)
        end = (target.x + target.width, target.y + target.height / 2)
        return [start, (right, (start[1] + end[1]) / 2), end]
    points: list[Point] = [(source.x + source.width / 2, source.y + source.height)]
    pair = _siblings(lines, edge)
    for slot, _ in passages.get((pair[1], pair[2]), ()) if pair else ():
        holder = boxes.get(pair[0]) if pair else None
        x = slot.middle + (_origin(holder)[0] if holder else _PADDING)
        y = slot.y + (_origin(holder)[1] if holder else _PADDING)
        points += [(x, y), (x, y + slot.height)]
    points.append((target.x + target.width / 2, target.y))
    return points


def _origin(group: Box) -> Point:
    """Slots are placed within their group."""
    return group.x, group.y
