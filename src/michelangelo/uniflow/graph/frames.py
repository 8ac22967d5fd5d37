"""Functions as they are called: one frame for each chain of calls that leads to a function, with the sites in it.

The sites are kept under the positions that the frames of a run have there, so a step's chain of frames can be followed
through them (atlas.py).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from michelangelo.uniflow.graph.drawing import Drawing, Frontier
from michelangelo.uniflow.graph.sources import Code, Module, Sources
from michelangelo.uniflow.graph.values import NOTHING, Cell, FunctionTarget, Value, join

__all__ = ["MAX_DEPTH", "MAX_NODES", "Environment", "Frame", "Loop", "Place", "Position", "Site", "World", "positions"]

MAX_DEPTH: Final = 10
"""Calls of helpers inside each other that each get nodes of their own."""
MAX_NODES: Final = 300
"""From there on a helper has one set of nodes, however many places call it."""

Environment: TypeAlias = dict[str, Value]
Place: TypeAlias = ast.expr | ast.stmt
Position: TypeAlias = tuple[str, int, int]
"""The comprehension that a frame runs (`<genexpr>`, or empty), line relative to its first, column."""
_INLINED: Final = {ast.ListComp: "<listcomp>", ast.SetComp: "<setcomp>", ast.DictComp: "<dictcomp>"}


@dataclass(eq=False, slots=True, repr=False)
class Site:
    """A call in a frame: the nodes of steps that begin there, and the frames that it leads into."""

    line: int
    nodes: list[str] = field(default_factory=list)
    into: list[Frame] = field(default_factory=list)


@dataclass(slots=True, repr=False)
class Loop:
    """What leaves a loop early, while its body is read."""

    breaks: list[tuple[Frontier, Environment]] = field(default_factory=list)
    continues: list[tuple[Frontier, Environment]] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Frame:
    """One function, called in one way; the frame of a module has no code."""

    module: Module
    code: Code | None = None
    prefix: str = ""
    group: str = ""
    caller: Frame | None = None
    definer: Frame | None = None
    env: Environment = field(default_factory=dict)
    ever: Environment = field(default_factory=dict)
    """What each name may hold at some time: what closures see."""
    outer: set[str] = field(default_factory=set)
    """Names that are declared nonlocal or global."""
    sites: dict[Position, list[Site]] = field(default_factory=dict)
    site_of: dict[int, Site] = field(default_factory=dict)
    into: dict[str, list[tuple[int, Frame]]] = field(default_factory=dict)
    """Frames that are called from here, with the line, by qualified name."""
    loose: set[str] = field(default_factory=set)
    """Nodes of steps that may begin at other places than their own."""
    comprehensions: list[ast.expr] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    closures: dict[str, FunctionTarget] = field(default_factory=dict)
    returns: list[Frontier] = field(default_factory=list)
    returned: Value = NOTHING
    yielded: Value = NOTHING
    is_recursive: bool = False

    @property
    def qualname(self) -> str:
        return self.code.qualname if self.code else ""

    @property
    def depth(self) -> int:
        return 0 if self.caller is None else self.caller.depth + 1

    def site(self, node: Place) -> Site:
        """The site of a call."""
        known = self.site_of.get(id(node))
        if known is None:
            known = self.site_of[id(node)] = Site(node.lineno)
            first = self.code.first_line if self.code else 1
            for position in positions(node, self.comprehensions, first):
                self.sites.setdefault(position, []).append(known)
        return known

    def lead(self, node: Place, frame: Frame) -> None:
        """The call `node` leads into `frame`."""
        site = self.site(node)
        if frame not in site.into:
            site.into.append(frame)
        known = self.into.setdefault(frame.qualname, [])
        if (node.lineno, frame) not in known:
            known.append((node.lineno, frame))

    def caller_of(self, code: Code) -> Frame | None:
        """The innermost frame of `code` among this one and its callers."""
        frame: Frame | None = self
        while frame is not None and frame.code is not code:
            frame = frame.caller
        return frame

    def assign(self, name: str, value: Value) -> None:
        if name in self.outer and self.definer is not None:
            holder = self.definer
            while holder.definer is not None and name not in holder.ever:
                holder = holder.definer
            holder.assign(name, join(value, holder.env.get(name, NOTHING)))
            return
        self.env[name] = value
        self.ever[name] = join(self.ever.get(name, NOTHING), value)


@dataclass(eq=False, repr=False)
class World:
    """All that is shared while one graph is made."""

    sources: Sources
    drawing: Drawing
    evaluate: Callable[[World, Frame, str], None]
    """Read a frame's code; the text is the arm of its group that its nodes lie in."""
    modules: dict[str, Frame] = field(default_factory=dict)
    frames: dict[tuple[str, Code], Frame] = field(default_factory=dict)
    shared: dict[Code, Frame] = field(default_factory=dict)
    cells: dict[tuple[int, int, str], Cell] = field(default_factory=dict)
    lazy: dict[Cell, set[str]] = field(default_factory=dict)
    """Groups of generators: what is in the cell is computed there, when somebody asks for it."""
    invoked: set[Code] = field(default_factory=set)
    keep: set[str] = field(default_factory=set)
    """Groups that stay although they hold nothing: their way out matters."""
    methods: dict[str, bool] = field(default_factory=dict)
    codes: dict[int, Code] = field(default_factory=dict)
    callbacks: int = 0
    """Calls of functions that were handed on, around the place where control is."""
    is_muted: int = 0
    """Over 0: values are computed, nothing is drawn."""
    tries: int = 0
    """Try statements with handlers around the place where control is."""

    @contextmanager
    def muted(self) -> Iterator[None]:
        """In the block values are computed, and what is drawn is thrown away."""
        drawing, self.drawing = self.drawing, Drawing()
        self.is_muted += 1
        try:
            yield
        finally:
            self.drawing = drawing
            self.is_muted -= 1

    @property
    def changes(self) -> int:
        frames = (*self.frames.values(), *self.modules.values())
        names = sum(len(v.origins) + len(v.targets) + len(v.cells) for f in frames for v in f.ever.values())
        return self.drawing.changes + names + sum(cell.changes for cell in self.cells.values())

    def lazy_groups(self, value: Value) -> list[str]:
        """The generators that give the items of `value`."""
        return sorted(set[str]().union(*(self.lazy.get(cell, ()) for cell in value.cells)))

    def cell(self, place: ast.AST, frame: Frame, purpose: str = "") -> Cell:
        """The one cell of a place in a frame."""
        return self.cells.setdefault((id(place), id(frame), purpose), Cell())


def positions(node: Place, comprehensions: list[ast.expr], first_line: int) -> list[Position]:
    """Where the frame that is in the call `node` may be: the versions of Python differ in whether a comprehension is
    a function, and a method's call is at the method's name when that is on another line."""
    places = [(node.lineno, node.col_offset)]
    func = node.func if isinstance(node, ast.Call) else None
    if isinstance(func, ast.Attribute) and func.end_lineno is not None and func.end_lineno != node.lineno:
        places.append((func.end_lineno, (func.end_col_offset or 0) - len(func.attr)))
    found: list[Position] = []
    for around in reversed(comprehensions):
        tag = _INLINED.get(type(around), "<genexpr>")
        found += [(tag, line - around.lineno, column) for line, column in places]
        if tag == "<genexpr>":
            return found
    return found + [("", line - first_line, column) for line, column in places]
