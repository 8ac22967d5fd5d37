"""A workflow's graph from its source: which function it is, the reading of its code, and the drawing that is left."""

from __future__ import annotations

import ast
import os
import sys
from dataclasses import dataclass

from michelangelo.errors import SourceError
from michelangelo.uniflow.graph import body, sources
from michelangelo.uniflow.graph.atlas import Atlas
from michelangelo.uniflow.graph.drawing import END, START, Drawing, Sketch
from michelangelo.uniflow.graph.frames import Frame, World
from michelangelo.uniflow.graph.model import Graph
from michelangelo.uniflow.graph.names import decorator_kind
from michelangelo.uniflow.graph.sources import Code, Module, Sources
from michelangelo.uniflow.graph.values import UNKNOWN

__all__ = ["Reading", "read", "workflows"]


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """What was read: the graph, made when it is asked for, and the way from steps to its nodes."""

    code: Code
    world: World
    atlas: Atlas

    def graph(self) -> Graph:
        nodes, edges = self.world.drawing.finish(self.world.keep)
        return Graph(self.code.qualname, self.code.module.file, nodes, edges)


def read(path: str, function: str = "", *, module: str = "", root: str = "", line: int = 0) -> Reading:
    """Read the workflow `function` (default: the only one) of the file `path`, imported as `module`, below `root`
    (default: where its imports start). `line`, its first, tells functions of one name apart.

    SourceError when a file does not parse, or has no such workflow.
    """
    if not os.path.isfile(path):
        raise SourceError(f"there is no file {path}")
    found = Sources(root or sources.import_root(path, module))
    main = found.file(path, module)
    world = World(found, Drawing(), body.evaluate)
    code = _function(main, function, line) if function else _only(world, main)
    limit = sys.getrecursionlimit()
    # Deep syntax is read with deep recursion.
    sys.setrecursionlimit(max(limit, 10_000))
    try:
        return _read(world, main, code)
    finally:
        sys.setrecursionlimit(limit)


def workflows(path: str, *, module: str = "") -> list[str]:
    """Names of the workflows that a file defines. SourceError when it does not parse."""
    found = Sources(sources.import_root(path, module))
    return sorted(
        code.qualname for code in _workflows(World(found, Drawing(), body.evaluate), found.file(path, module))
    )


def _read(world: World, main: Module, code: Code) -> Reading:
    drawing = world.drawing
    drawing.sketches[START] = Sketch(START, "start", code.name, main, code.node, None, code.qualname)
    root = Frame(main, code)
    world.codes[id(code.node)] = code
    reader = body.Body(world, root)
    reader.module(main.name)
    for _ in range(4):
        before = world.changes
        drawing.frontier = {START: ("order", "")}
        arguments = code.node.args
        root.env = {}
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            root.assign(one.arg, UNKNOWN)
        for more in (arguments.vararg, arguments.kwarg):
            if more is not None:
                root.assign(more.arg, UNKNOWN)
        body.evaluate(world, root, "")
        if world.changes == before or not (root.closures or root.is_recursive):
            break
    drawing.sketches.setdefault(END, Sketch(END, "end", "end", main))
    drawing.connect(END)
    reader.feed(root.returned, END, "result")
    return Reading(code, world, Atlas(root, [root, *world.frames.values()], drawing.sketches))


def _function(main: Module, name: str, line: int) -> Code:
    named = [code for code in main.functions() if code.qualname == name]
    at_line = [code for code in named if code.first_line == line]
    if at_line or named:
        return (at_line or named)[-1]
    known = ", ".join(code.qualname for code in main.functions()) or "none"
    raise SourceError(f"{main.path} has no function {name}; it has {known}")


def _only(world: World, main: Module) -> Code:
    found = _workflows(world, main)
    if len(found) == 1:
        return found[0]
    choice = f"name one: {', '.join(code.qualname for code in found)}" if found else "decorate a function"
    raise SourceError(f"{main.path} has {len(found) or 'no'} workflows, and none was named; {choice}")


def _workflows(world: World, main: Module) -> list[Code]:
    frame = Frame(main)
    reader = body.Body(world, frame)
    frame.env = frame.ever
    for statement in main.tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            reader.block([statement])
    return [
        code
        for code in main.functions()
        if "." not in code.qualname and isinstance(code.node, ast.FunctionDef)
        for decorator in code.node.decorator_list
        for target in reader.muted(decorator.func if isinstance(decorator, ast.Call) else decorator).targets
        if decorator_kind(target) == "workflow"
    ]
