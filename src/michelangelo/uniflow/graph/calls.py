"""Reading calls: steps become nodes, helpers and nested workflows are followed, and what is not known is dynamic."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Final

from michelangelo.uniflow.graph import values
from michelangelo.uniflow.graph.drawing import Sketch
from michelangelo.uniflow.graph.following import Following
from michelangelo.uniflow.graph.names import alias
from michelangelo.uniflow.graph.values import (
    NOTHING,
    UNKNOWN,
    Arguments,
    Bound,
    Cell,
    ClassTarget,
    Foreign,
    FunctionTarget,
    Part,
    Target,
    TaskTarget,
    Value,
    WorkflowTarget,
)

__all__ = ["Calls"]

_PRIMITIVES: Final = {"sleep": "timer", "wait_for_signal": "signal", "now": "value", "wait": "value"} | {
    "as_completed": "value",
    "run_pipeline": "pipeline",
    "submit_pipeline": "pipeline",
}
_READING: Final = frozenset(
    {"result", "exception", "done", "get", "keys", "values", "items", "copy", "load"}
) | frozenset(dir(str))
"""Methods that change nothing of what they are called on."""
_FUTURE_WAITS: Final = frozenset({"result", "exception", "done"})
_MUTATING: Final = frozenset({"map", "filter", "setattr"})


class Calls(Following):
    """The calls of one frame."""

    def call(self, node: ast.Call) -> Value:
        func = node.func
        owner = self.value(func.value) if isinstance(func, ast.Attribute) else NOTHING
        callee = self.attribute(owner, func.attr) if isinstance(func, ast.Attribute) else self.value(func)
        args = self._arguments(node)
        if isinstance(func, ast.Attribute):
            self._change(func, owner, callee, args)
        found, ends = [], []
        frontier = self.drawing.frontier
        is_open = callee.unknown and not self._is_harmless(func, callee)
        if is_open and callee.targets:
            # One of several, by a key or a condition that only a run knows.
            return self._dynamic(node, callee, args)
        for target in callee.ordered():
            self.drawing.frontier = dict(frontier)
            found.append(self._invoke(node, target, args))
            ends.append(self.drawing.frontier)
        if is_open:
            found.append(self._dynamic(node, callee, args))
            ends.append(self.drawing.frontier)
        if ends:
            self.drawing.frontier = self.drawing.merge(ends)
        if not callee.targets and not is_open:
            found.append(self._foreign(node, "", args))
        if isinstance(func, ast.Attribute):
            found.append(self._received(node, func, owner))
        return values.join(*found)

    _call = call

    def _arguments(self, node: ast.Call) -> Arguments:
        found: Arguments = []
        is_known = True
        for number, argument in enumerate(node.args):
            if isinstance(argument, ast.Starred):
                found.append((None, values.elements(self.value(argument.value))))
                is_known = False
            else:
                found.append((number if is_known else None, self.value(argument)))
        for keyword in node.keywords:
            inside = self.value(keyword.value)
            found.append((keyword.arg, inside if keyword.arg else values.elements(inside)))
        return found

    # --- what is called ---

    def _invoke(self, node: ast.Call, target: Target, args: Arguments) -> Value:
        if isinstance(target, TaskTarget):
            return self._task(node, target, args)
        if isinstance(target, WorkflowTarget):
            return self.follow(node, FunctionTarget(target.code), args, kind="workflow")
        if isinstance(target, FunctionTarget):
            return self.follow(node, target, args)
        if isinstance(target, Bound):
            return self._invoke(node, target.target, _with_bound(target.cell, args))
        if isinstance(target, ClassTarget):
            return self._construct(node, target, args)
        if isinstance(target, Part):
            found = [self._invoke(node, one, args) for one in self.class_member(target, "__call__").ordered()]
            return values.join(*found)
        if isinstance(target, Foreign):
            return self._foreign(node, target.name, args)
        return NOTHING

    def _task(self, node: ast.Call, target: TaskTarget, args: Arguments) -> Value:
        if target.method == "with_overrides":
            return Value(targets=frozenset([TaskTarget(target.code, alias(node, target.name))]))
        if target.method not in ("", "submit", "map"):
            return NOTHING
        kind = "map" if target.method == "map" else "task"
        made = self._leaf(node, kind, target.name)
        parameters = target.code.parameters()
        for key, value in args:
            label = parameters[key] if isinstance(key, int) and key < len(parameters) else str(key or "")
            self._feed_all(made, values.elements(value) if kind == "map" else value, label)
            if kind == "map":
                self._feed_all(made, value, label)
        if kind == "map":
            for _, value in args:
                for origin in made.origins:
                    self.take_turns(value, origin)
            cell = self.world.cell(node, self.frame, "map")
            cell.put(None, made)
            return Value(made.origins, cells=frozenset([cell]))
        return made

    def _feed_all(self, made: Value, value: Value, label: str) -> None:
        for node in made.origins:
            self.feed(value, node, label)

    def _leaf(self, node: ast.Call, kind: str, name: str, candidates: Iterable[str] = ()) -> Value:
        """A node that steps are instances of."""
        if self.world.is_muted:
            return NOTHING
        node_id = self.drawing.identify(f"{self.frame.prefix}{self.place(node)}", node, kind, name)
        sketch = Sketch(node_id, kind, name, self.frame.module, node, None, self.frame.qualname)
        sketch.candidates = set(candidates)
        if kind == "dynamic":
            sketch.expression = node.func
        self.drawing.node(sketch)
        site = self.frame.site(node)
        if node_id not in site.nodes:
            site.nodes.append(node_id)
        if self.world.callbacks or kind == "value":
            self.frame.loose.add(node_id)
        return Value(frozenset([node_id]), unknown=True)

    def _dynamic(self, node: ast.Call, callee: Value, args: Arguments) -> Value:
        targets = (one for value in (callee, *(value for _, value in args)) for one in value.ordered())
        made = self._leaf(node, "dynamic", "{}(…)", {one.name for one in targets if isinstance(one, TaskTarget)})
        for key, value in (("", callee), *args):
            self._feed_all(made, value, key if isinstance(key, str) else "")
        for one in callee.ordered():
            if isinstance(one, FunctionTarget | WorkflowTarget):
                self._perhaps(node, one, args)
        self._call_back(node, args)
        return values.join(made, *(Value(values.origins(value)) for _, value in args))

    def _is_harmless(self, func: ast.expr, callee: Value) -> bool:
        """A method of an object that is not known is taken for one that begins no steps, unless a class of the
        user's has one of this name."""
        if not isinstance(func, ast.Attribute):
            return False
        if func.attr in ("submit", "map") and not callee.origins:
            return False
        return callee.unknown and not callee.targets and not self._is_own_method(func.attr)

    def _is_own_method(self, name: str) -> bool:
        known = self.world.methods
        if not known:
            known[""] = False
            for module in self.world.sources.loaded:
                for statement in module.tree.body:
                    if isinstance(statement, ast.ClassDef):
                        for one in statement.body:
                            if isinstance(one, ast.FunctionDef) and _calls_something(one):
                                known[one.name] = True
        return known.get(name, False) and not name.startswith("__")

    def _change(self, func: ast.Attribute, owner: Value, callee: Value, args: Arguments) -> None:
        """`items.append(x)`: what a method that is not the user's gets may be inside the object afterwards."""
        if func.attr in _READING or callee.targets:
            return
        given = values.join(*(value for _, value in args))
        cells = values.insides(owner)
        for cell in cells:
            cell.put(None, given)
        if not cells and isinstance(func.value, ast.Name) and func.value.id in self.frame.env:
            known = self.frame.env[func.value.id]
            if not known.targets and values.origins(given):
                self.frame.assign(func.value.id, values.join(known, Value(values.origins(given))))

    def _received(self, node: ast.Call, func: ast.Attribute, owner: Value) -> Value:
        """What a method of a container or a future gives."""
        first = node.args[0] if node.args else None
        if func.attr in ("get", "pop") and owner.cells:
            key = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str | int) else None
            return self.item(owner, key, NOTHING)
        if func.attr in _FUTURE_WAITS and owner.origins and (func.attr == "done" or node.args or node.keywords):
            self._leaf(node, "value", "wait")
        data = Value(owner.origins, cells=owner.cells, unknown=owner.unknown)
        return values.join(data, values.elements(owner)) if owner.cells else data

    def _foreign(self, node: ast.Call, name: str, args: Arguments) -> Value:
        """A call of what is not the user's: nothing begins there but through functions that it is given."""
        last = name.rpartition(".")[2]
        if name.startswith("michelangelo."):
            if last in _PRIMITIVES:
                return self._primitive(node, last, args)
            if last in ("task", "workflow"):
                return self._decorated(node, last, args)
        if name == "functools.partial" and args:
            cell = self.world.cell(node, self.frame)
            for key, value in args[1:]:
                cell.put(key - 1 if isinstance(key, int) else key, value)
            return Value(targets=frozenset(Bound(one, cell) for one in args[0][1].targets), unknown=args[0][1].unknown)
        if name == "builtins.super" and not args:
            return self.super()
        if name == "builtins.getattr" and len(args) >= 2:
            return self._getattr(node, args)
        if name == "builtins.dict":
            cell = self.world.cell(node, self.frame)
            for key, value in args:
                cell.put(
                    key if isinstance(key, str) else None, value if isinstance(key, str) else values.elements(value)
                )
            return Value(cells=frozenset([cell]))
        called = self._call_back(node, args)
        for group in self.world.lazy_groups(values.join(*(value for _, value in args))):
            before = self.drawing.frontier
            self.drawing.connect(group, "back" if group not in before else "")
            self.drawing.frontier = self.drawing.merge([before, self.drawing.leave(group, "")])
        given = values.join(*(value for _, value in args), called)
        if not (name.startswith("builtins.") and last not in _MUTATING):
            for _, value in args:
                for cell in values.insides(value):
                    cell.put(None, Value(values.origins(given)))
        return self._made(node, given)

    def _made(self, node: ast.Call, given: Value) -> Value:
        """What a foreign function makes of its arguments: it may hold all that was in them."""
        if not given.cells and not given.targets:
            return Value(given.origins, unknown=True)
        cell = self.world.cell(node, self.frame)
        if lazy := self.world.lazy_groups(given):
            self.world.lazy[cell] = set(lazy)
        cell.put(None, values.join(Value(given.origins), *(inner.all() for inner in given.cells)))
        cells = frozenset(c for c in cell.rest.cells if c is not cell)
        return Value(given.origins, cells=frozenset([cell]) | cells, targets=cell.rest.targets)

    def _getattr(self, node: ast.Call, args: Arguments) -> Value:
        name = node.args[1]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            found = self.attribute(args[0][1], name.value)
            is_known = any(not isinstance(one, Foreign) for one in found.targets)
            return values.join(found if is_known else UNKNOWN, *(value for _, value in args[2:]))
        return values.join(Value(values.origins(args[0][1]), unknown=True), *(value for _, value in args[2:]))

    def _primitive(self, node: ast.Call, name: str, args: Arguments) -> Value:
        shown = "wait" if name == "as_completed" else name
        first = node.args[0] if node.args else None
        if name in ("wait_for_signal", "run_pipeline", "submit_pipeline"):
            named = first or next(
                (k.value for k in node.keywords if k.arg in ("name", "pipeline", "pipeline_name")), None
            )
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                shown = named.value
        made = self._leaf(node, _PRIMITIVES[name], shown)
        for key, value in args:
            self._feed_all(made, value, key if isinstance(key, str) else "")
        if name not in ("wait", "as_completed"):
            return made
        cell = self.world.cell(node, self.frame)
        cell.put(None, values.elements(args[0][1]) if args else NOTHING)
        if name == "as_completed":
            return Value(cells=frozenset([cell]))
        return Value(cells=frozenset([_pair(self.world.cell(node, self.frame, "pair"), cell)]))

    def _decorated(self, node: ast.Call, kind: str, args: Arguments) -> Value:
        """`uniflow.task(function, …)`, and `uniflow.task(…)`, which makes what it is called with a task."""
        made: set[Target] = set()
        for one in args[0][1].ordered() if args else ():
            if isinstance(one, FunctionTarget):
                name = alias(node, one.code.name)
                made.add(TaskTarget(one.code, name) if kind == "task" else WorkflowTarget(one.code))
        return Value(targets=frozenset(made or {Foreign(f"michelangelo.uniflow.{kind}")}))

    def _construct(self, node: ast.Call, target: ClassTarget, args: Arguments) -> Value:
        cell = self.world.cell(node, self.frame, "object")
        fields = [
            s.target.id for s in target.node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
        ]
        made = Part(target, cell)
        start = self.class_member(made, "__init__").ordered()
        for key, value in args if not start else ():
            name = fields[key] if isinstance(key, int) and key < len(fields) else key if isinstance(key, str) else None
            cell.put(f".{name}" if name else None, value)
        for one in start:
            self._invoke(node, one, args)
        return Value(targets=frozenset([made]))

    # --- functions of the user's ---

    def _call_back(self, node: ast.Call, args: Arguments) -> Value:
        """Functions among the arguments may be called, any number of times, with anything that is there."""
        found = NOTHING
        for _, value in args:
            for one in value.ordered():
                if isinstance(
                    one, Part | ClassTarget | Foreign | values.Super | values.ModuleTarget | values.ImportTarget
                ):
                    continue
                # Twice: what the function returns may be what it is given next.
                for _ in range(2):
                    given = (values.join(v, values.elements(v)) for _, v in args if v is not value)
                    others = values.join(*given, found)
                    data = Value(values.origins(others), cells=others.cells, unknown=True)
                    found = values.join(found, self._perhaps(node, one, [(None, data)]))
        return found

    def _perhaps(self, node: ast.Call, target: Target, args: Arguments) -> Value:
        group = self.group("loop", "{}(…)", node, node.func)
        self.drawing.frontier = self.drawing.leave(group, "")
        self.world.callbacks += 1
        with self.drawing.inside(group):
            found = self._invoke(node, target, args)
        self.world.callbacks -= 1
        self.back(group)
        self.drawing.frontier = self.drawing.leave(group, "")
        return found


def _with_bound(cell: Cell, args: Arguments) -> Arguments:
    positional = [value for key, value in cell.items.items() if isinstance(key, int)]
    named: Arguments = [(key, value) for key, value in cell.items.items() if isinstance(key, str)]
    first: Arguments = list(enumerate(positional))
    moved: Arguments = [(key + len(first) if isinstance(key, int) else key, value) for key, value in args]
    loose: Arguments = [(None, cell.rest)] if cell.rest is not NOTHING else []
    return [*first, *named, *moved, *loose]


def _pair(pair: Cell, inside: Cell) -> Cell:
    """What `wait` returns: two lists of the same futures."""
    value = Value(cells=frozenset([inside]))
    for key in (0, 1, ".done", ".not_done"):
        pair.put(key, value)
    return pair


def _calls_something(function: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(function))
