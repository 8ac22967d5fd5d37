"""The graph as an SVG picture: light or dark as the reader's system is, with the place in the source at every box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax import saxutils

from michelangelo.uniflow.graph import layout, text
from michelangelo.uniflow.graph.layout import HEADER, Box
from michelangelo.uniflow.graph.model import GROUPS, Edge, Graph
from michelangelo.uniflow.graph.text import States

__all__ = ["draw"]

_STYLE: Final = """
  svg { --page: #ffffff; --ink: #1f2328; --soft: #59636e; --box: #f6f8fa; --line: #8c959f; --data: #0969da;
    --group: rgba(9, 105, 218, .05); --bad: #cf222e; --good: #1a7f37; --busy: #9a6700; }
  @media (prefers-color-scheme: dark) { svg { --page: #0d1117; --ink: #e6edf3; --soft: #9198a1; --box: #161b22;
    --line: #6e7681; --data: #58a6ff; --group: rgba(88, 166, 255, .07); --bad: #ff7b72; --good: #3fb950;
    --busy: #d29922; } }
  .page { fill: var(--page); }
  text { font: 12.5px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: var(--ink); }
  .place { font-size: 10.5px; fill: var(--soft); }
  .node rect { fill: var(--box); stroke: var(--line); }
  .group > rect { fill: var(--group); stroke: var(--line); stroke-dasharray: 4 3; }
  .dynamic > rect { stroke-dasharray: 2 2; stroke-width: 1.5; }
  .edge { fill: none; stroke: var(--line); stroke-width: 1.2; }
  .edge.data { stroke: var(--data); }
  .edge.order { stroke-dasharray: 2 3; }
  .edge.back, .edge.exception { stroke-dasharray: 6 3; }
  .edge.exception { stroke: var(--bad); }
  .label { font-size: 10px; fill: var(--soft); paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
  .failed > rect { stroke: var(--bad); stroke-width: 2; } .failed .state { fill: var(--bad); }
  .ok > rect { stroke: var(--good); stroke-width: 2; } .ok .state { fill: var(--good); }
  .running > rect { stroke: var(--busy); stroke-width: 2; } .running .state { fill: var(--busy); }
  .state { font-size: 10.5px; }
"""
_HEAD: Final = (
    '<marker id="{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="var(--{colour})"/></marker>'
)
_LETTER: Final = 7.4
_SMALL_LETTER: Final = 5.8
_LABEL: Final = 28


def draw(graph: Graph, states: States | None = None) -> str:
    """A whole SVG document."""
    page = layout.arrange(graph)
    width, height = round(page.width), round(page.height)
    title = f"{graph.workflow} ({graph.file})"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label={saxutils.quoteattr(title)}>',
        f"<title>{_escaped(title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{_HEAD.format(name='data', colour='data')}{_HEAD.format(name='order', colour='line')}"
        f"{_HEAD.format(name='exception', colour='bad')}</defs>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    counts = states or {}
    lines += [_group(box, counts) for box in page.boxes.values() if box.node.kind in GROUPS]
    lines += [_edge(edge, route) for edge, route in page.routes]
    lines += [_node(box, counts) for box in page.boxes.values() if box.node.kind not in GROUPS]
    lines += [_label(edge, route, page.width) for edge, route in page.routes if edge.label and edge.kind != "data"]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _node(box: Box, states: States) -> str:
    node = box.node
    counts = states.get(node.id, {})
    name, small = _cut(node.name, box.width), text.describe(counts) or _place(box)
    sign = text.SIGNS[node.kind][0] if node.kind not in ("task", "start", "end") else ""
    middle = box.x + box.width / 2
    radius = 20 if node.kind in ("start", "end") else 7
    second = (
        f'<text class="{"state" if counts else "place"}" x="{_n(middle)}" y="{_n(box.y + 34)}" text-anchor="middle">'
    )
    return (
        f'<g class="node {node.kind}{_class(counts)}">{_title(box, counts)}'
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="{radius}"/>'
        f'<text x="{_n(middle)}" y="{_n(box.y + (18 if small else 27))}" text-anchor="middle">'
        f"{_escaped(f'{sign} {name}'.strip())}</text>"
        + (f"{second}{_escaped(_cut(small, box.width))}</text>" if small else "")
        + "</g>"
    )


def _group(box: Box, states: States) -> str:
    node = box.node
    counts = states.get(node.id, {})
    place = _place(box)
    room = box.width - 24 - 6.2 * len(place)
    return (
        f'<g class="group {node.kind}">{_title(box, counts)}'
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="9"/>'
        f'<text x="{_n(box.x + 12)}" y="{_n(box.y + HEADER - 10)}">'
        f"{_escaped(_cut(f'{text.SIGNS[node.kind][0]} {node.name}', room))}</text>"
        f'<text class="place" x="{_n(box.x + box.width - 12)}" y="{_n(box.y + HEADER - 10)}" text-anchor="end">'
        f"{_escaped(place)}</text></g>"
    )


def _edge(edge: Edge, route: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = route
    path = [f"M{_n(x)} {_n(y)}"]
    if edge.kind == "back" and len(route) == 3:
        (right, _), (end_x, end_y) = rest
        path.append(f"C{_n(right + 14)} {_n(y)} {_n(right + 14)} {_n(end_y)} {_n(end_x)} {_n(end_y)}")
    else:
        for to_x, to_y in rest:
            bend = (to_y - y) / 2
            path.append(f"C{_n(x)} {_n(y + bend)} {_n(to_x)} {_n(to_y - bend)} {_n(to_x)} {_n(to_y)}")
            x, y = to_x, to_y
    head = "order" if edge.kind == "back" else edge.kind
    title = f"{edge.kind}: {edge.label}" if edge.label else edge.kind
    return (
        f'<path class="edge {edge.kind}" d="{"".join(path)}" marker-end="url(#{head})">'
        f"<title>{_escaped(title)}</title></path>"
    )


def _label(edge: Edge, route: Sequence[tuple[float, float]], page_width: float) -> str:
    (x, y), (to_x, to_y) = route[-2:]
    shown = edge.label if len(edge.label) <= _LABEL else edge.label[: _LABEL - 1] + "…"
    x, anchor = (x + to_x) / 2 + 5, "start"
    if x + _SMALL_LETTER * len(shown) > page_width:
        x, anchor = x - 10, "end"
    place = f'x="{_n(x)}" y="{_n((y + to_y) / 2 + 3)}" text-anchor="{anchor}"'
    return f'<text class="label" {place}>{_escaped(shown)}</text>'


def _title(box: Box, counts: Mapping[str, int]) -> str:
    node = box.node
    parts = [f"{node.kind}: {node.name}", _place(box), text.describe(counts), ", ".join(node.candidates)]
    return f"<title>{_escaped(chr(10).join(filter(None, parts)))}</title>"


def _place(box: Box) -> str:
    return f"{box.node.file}:{box.node.line}" if box.node.file and box.node.line else ""


def _class(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    if any(counts.get(state) for state in ("failed", "killed", "lost", "unknown")):
        return " failed"
    return " running" if counts.get("running") else " ok"


def _cut(value: str, width: float) -> str:
    letters = max(4, int((width - 16) / _LETTER))
    return value if len(value) <= letters else value[: letters - 1] + "…"


def _escaped(value: str) -> str:
    """Text of XML: what it may not hold at all becomes a sign for it."""
    return saxutils.escape("".join(one if one >= " " or one in "\t\n" else "\ufffd" for one in value))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
