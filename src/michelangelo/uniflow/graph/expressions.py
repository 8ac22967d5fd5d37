"""Reading expressions: their values, in the order in which Python computes them. Calls are in calls.py."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Sequence

from michelangelo.uniflow.graph import sources, values
from michelangelo.uniflow.graph.drawing import Frontier, Sketch
from michelangelo.uniflow.graph.frames import Environment
from michelangelo.uniflow.graph.names import Names, constant
from michelangelo.uniflow.graph.values import NOTHING, UNKNOWN, FunctionTarget, Value

__all__ = ["Expressions", "merge_environments"]


class Expressions(Names):
    """The expressions of one frame."""

    @abstractmethod
    def call(self, node: ast.Call) -> Value: ...

    @abstractmethod
    def assign(self, target: ast.expr, value: Value) -> None: ...

    def value(self, node: ast.expr | None) -> Value:
        if node is None or isinstance(node, ast.Constant):
            return NOTHING
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is not None:
            found: Value = method(node)
            return found
        return self._parts(node)

    def _parts(self, node: ast.AST) -> Value:
        """Made of its parts: arithmetic, f-strings, slices, comparisons."""
        found = NOTHING
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                found = values.join(found, self.value(child))
            elif isinstance(child, ast.keyword):
                found = values.join(found, self.value(child.value))
        return found

    # --- displays ---

    def _tuple(self, node: ast.Tuple | ast.List) -> Value:
        cell = self.world.cell(node, self.frame)
        key: int | None = 0
        for element in node.elts:
            if isinstance(element, ast.Starred):
                cell.put(None, values.elements(self.value(element.value)))
                key = None
            else:
                cell.put(key, self.value(element))
                key = None if key is None else key + 1
        return Value(cells=frozenset([cell]))

    _list = _tuple

    def _set(self, node: ast.Set) -> Value:
        cell = self.world.cell(node, self.frame)
        for element in node.elts:
            cell.put(None, self.value(element))
        return Value(cells=frozenset([cell]))

    def _dict(self, node: ast.Dict) -> Value:
        cell = self.world.cell(node, self.frame)
        for key, item in zip(node.keys, node.values, strict=True):
            if key is None:
                cell.put(None, values.elements(self.value(item)))
                continue
            keyed = self.value(key)
            cell.put(constant(key), self.value(item))
            if keyed is not NOTHING:
                cell.put(None, keyed)
        return Value(cells=frozenset([cell]))

    def _starred(self, node: ast.Starred) -> Value:
        return values.elements(self.value(node.value))

    def _lambda(self, node: ast.Lambda) -> Value:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            self.value(default)
        return self.closure(node)

    def closure(self, node: sources.FunctionNode) -> Value:
        """A function that is defined here; should nothing call it, its nodes are here."""
        found = self.function(node)
        for one in found.targets:
            if isinstance(one, FunctionTarget) and self.frame.code is not None:
                self.frame.closures[one.code.key] = one
        return found

    def _namedexpr(self, node: ast.NamedExpr) -> Value:
        found = self.value(node.value)
        self.assign(node.target, found)
        return found

    def _yield(self, node: ast.Yield) -> Value:
        self.frame.yielded = values.join(self.frame.yielded, self.value(node.value))
        return UNKNOWN

    def _yieldfrom(self, node: ast.YieldFrom) -> Value:
        found = self.value(node.value)
        self.frame.yielded = values.join(self.frame.yielded, values.elements(found))
        return found

    # --- choices and loops ---

    def _ifexp(self, node: ast.IfExp) -> Value:
        test = self.value(node.test)
        group = self.group("branch", "if {}", node, node.test)
        self.feed(test, group, "condition")
        found, ends, env = [], [], self.frame.env
        environments: list[Environment] = []
        for arm, part in (("then", node.body), ("else", node.orelse)):
            self.frame.env = dict(env)
            self.drawing.frontier = self.drawing.leave(group, arm)
            with self.drawing.inside(group, arm):
                found.append(self.value(part))
            ends.append(self.drawing.frontier)
            environments.append(self.frame.env)
        self.frame.env = merge_environments(environments)
        self.drawing.frontier = self.drawing.merge(ends)
        return values.join(*found)

    def _boolop(self, node: ast.BoolOp) -> Value:
        word = "and" if isinstance(node.op, ast.And) else "or"
        found = self.value(node.values[0])
        group = self.group("branch", f"{word} {{}}", node, node.values[1])
        self.feed(found, group, "condition")
        ends = [self.drawing.leave(group, "else")]
        self.drawing.frontier = self.drawing.leave(group, "then")
        env = dict(self.frame.env)
        with self.drawing.inside(group, "then"):
            for part in node.values[1:]:
                found = values.join(found, self.value(part))
                ends.append(self.drawing.frontier)
        self.frame.env = merge_environments([env, self.frame.env])
        self.drawing.frontier = self.drawing.merge(ends)
        return found

    def _listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        cell = self.world.cell(node, self.frame)
        first = node.generators[0]
        items = self.value(first.iter)
        group = self.group("loop", "for {}", node, first.iter)
        if isinstance(node, ast.GeneratorExp):
            self.world.lazy[cell] = {group}
        self.feed(items, group, "items")
        self.take_turns(items, group)
        outside = self.frame.env
        self.frame.comprehensions.append(node)
        with self.drawing.inside(group):
            for _ in range(4):
                before = self.world.changes
                self.frame.env = dict(outside)
                self._generators(node, group, items, cell)
                if self.world.changes == before:
                    break
        self.frame.comprehensions.pop()
        self.frame.env = outside
        self.drawing.frontier = self.drawing.leave(group, "")
        return Value(cells=frozenset([cell]))

    _setcomp = _generatorexp = _dictcomp = _listcomp

    def _generators(
        self,
        node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
        group: str,
        items: Value,
        cell: values.Cell,
    ) -> None:
        self.drawing.frontier = self.drawing.leave(group, "")
        skipped: list[Frontier] = []
        for number, generator in enumerate(node.generators):
            if number:
                items = self.value(generator.iter)
            self.assign(generator.target, values.elements(items))
            for test in generator.ifs:
                self.value(test)
                skipped.append(self.drawing.frontier)
        if isinstance(node, ast.DictComp):
            cell.put(None, self.value(node.key))
            cell.put(None, self.value(node.value))
        else:
            cell.put(None, self.value(node.elt))
        if len(node.generators) > 1:
            # The inner loops go round without the outer one.
            for end in self.drawing.frontier:
                for start in [t for (s, t, k) in list(self.drawing.edges) if s == group and k != "back"]:
                    self.drawing.edge(end, start, "back")
        self.drawing.frontier = self.drawing.merge([*skipped, self.drawing.frontier])
        self.back(group)

    def group(self, kind: str, name: str, place: ast.AST, expression: ast.expr | None = None) -> str:
        """Control comes to a group: its node."""
        wanted = f"{self.frame.prefix}{self.place(place)}"
        node_id = self.drawing.identify(wanted, place, kind, name)
        module, scope = self.frame.module, self.frame.qualname
        return self.drawing.node(Sketch(node_id, kind, name, module, place, expression, scope))

    def place(self, node: ast.AST) -> str:
        """`qualname@line:column`, as call sites have it."""
        first = self.frame.code.first_line if self.frame.code else 1
        line, column = getattr(node, "lineno", first), getattr(node, "col_offset", 0)
        return f"{self.frame.qualname}@{line - first}:{column}"

    def feed(self, value: Value, node: str, label: str = "") -> None:
        """The data of `value` goes into `node`."""
        for origin in sorted(values.origins(value)):
            self.drawing.edge(origin, node, "data", label)

    def take_turns(self, items: Value, node: str) -> None:
        """What asks for the items of a generator runs in turns with it."""
        for lazy in self.world.lazy_groups(items):
            if lazy != node:
                self.drawing.edge(node, lazy, "back")
                self.drawing.edge(lazy, node, "order")

    def back(self, group: str) -> None:
        """Control goes round to the head of a loop."""
        self.drawing.connect(group, "back")


def merge_environments(environments: Sequence[Environment]) -> Environment:
    merged = dict(environments[0])
    for environment in environments[1:]:
        for name, value in environment.items():
            known = merged.get(name)
            merged[name] = value if known is None or known is value else values.join(known, value)
    return merged
