"""Reading statements: where control goes, and which name holds what."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from michelangelo.uniflow.graph import sources, values
from michelangelo.uniflow.graph.calls import Calls
from michelangelo.uniflow.graph.drawing import END, Frontier
from michelangelo.uniflow.graph.expressions import merge_environments
from michelangelo.uniflow.graph.frames import Environment, Frame, Loop, World
from michelangelo.uniflow.graph.values import (
    NOTHING,
    UNKNOWN,
    ClassTarget,
    Foreign,
    ImportTarget,
    ModuleTarget,
    Value,
)

__all__ = ["Body", "evaluate"]


def evaluate(world: World, frame: Frame, arm: str) -> None:
    """Read the code of a frame; its parameters are bound. Control is at its end afterwards."""
    body = Body(world, frame)
    if frame.code is None:
        body.block(frame.module.tree.body)
        return
    node = frame.code.node
    frame.closures.clear()
    frame.returns.clear()
    with world.drawing.inside(frame.group, arm):
        if isinstance(node, ast.Lambda):
            frame.returned = values.join(frame.returned, body.value(node.body))
        else:
            body.block(node.body)
        frame.returns.append(world.drawing.frontier)
        body.uncalled()
    if frame.yielded is not NOTHING:
        cell = world.cell(node, frame, "generator")
        cell.put(None, frame.yielded)
        world.lazy[cell] = {frame.group}
        frame.returned = values.join(frame.returned, Value(cells=frozenset([cell])))
    world.drawing.frontier = world.drawing.merge(frame.returns)


class Body(Calls):
    """The statements of one frame."""

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            method = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
            if method is not None:
                method(statement)
            else:
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        self.value(child)

    def uncalled(self) -> None:
        """Closures that nothing was seen to call have their nodes where they are defined."""
        for target in list(self.frame.closures.values()):
            if target.code not in self.world.invoked and not self.world.is_muted:
                before = self.drawing.frontier
                self.drawing.frontier = {}
                self.follow(target.code.node, target, [])
                self.drawing.frontier = before
                self.world.invoked.discard(target.code)

    # --- names ---

    def assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.frame.assign(target.id, value)
        elif isinstance(target, ast.Starred):
            cell = self.world.cell(target, self.frame)
            cell.put(None, values.elements(value))
            self.assign(target.value, Value(cells=frozenset([cell])))
        elif isinstance(target, ast.Tuple | ast.List):
            starred = [number for number, one in enumerate(target.elts) if isinstance(one, ast.Starred)]
            for number, element in enumerate(target.elts):
                if isinstance(element, ast.Starred):
                    self.assign(element, value)
                elif starred and number > starred[0]:
                    self.assign(element, values.elements(value))
                else:
                    self.assign(element, self._unpacked(value, number))
        elif isinstance(target, ast.Attribute):
            self._store(target.value, f".{target.attr}", value)
        elif isinstance(target, ast.Subscript):
            key = target.slice.value if isinstance(target.slice, ast.Constant) else None
            index = NOTHING if key is not None else self.value(target.slice)
            plain = key if isinstance(key, str | int) else None
            self._store(target.value, plain, values.join(value, Value(values.origins(index))))

    def _unpacked(self, value: Value, number: int) -> Value:
        if not value.cells:
            return values.elements(value)
        found = [Value(value.origins, unknown=value.unknown)]
        for cell in value.cells:
            known = cell.items.get(number)
            found.append(values.join(known, cell.rest) if known is not None else values.elements(value))
        return values.join(*found)

    def _store(self, holder: ast.expr, key: str | int | None, value: Value) -> None:
        owner = self.value(holder)
        cells = set(owner.cells)
        cells |= {one.cell for one in owner.targets if isinstance(one, values.Part)}
        for cell in cells:
            cell.put(key, value)
        if not cells and isinstance(holder, ast.Name):
            self.frame.assign(holder.id, values.join(owner, Value(values.origins(value))))

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))

    def _do_augassign(self, node: ast.AugAssign) -> None:
        before = self.value(node.target)
        added = self.value(node.value)
        for cell in before.cells:
            cell.put(None, values.elements(added))
        self.assign(node.target, values.join(before, added))

    def _do_delete(self, node: ast.Delete) -> None:
        pass

    def _do_global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.frame.outer |= set(node.names)

    _do_nonlocal = _do_global

    def _do_import(self, node: ast.Import) -> None:
        for name in node.names:
            full = name.name if name.asname else name.name.partition(".")[0]
            is_own = self.world.sources.is_own(full)
            target: values.Target = ModuleTarget(full) if is_own else Foreign(full)
            self.frame.assign(name.asname or full, Value(targets=frozenset([target])))

    def _do_importfrom(self, node: ast.ImportFrom) -> None:
        base = sources.import_base(self.frame.module, node)
        is_own = self.world.sources.is_own(base) or (not base and node.level > 0)
        for name in node.names:
            if name.name == "*":
                if is_own:
                    for key, value in list(self.module(base).ever.items()):
                        self.frame.assign(key, value)
                continue
            is_module = self.world.sources.is_own(f"{base}.{name.name}" if base else name.name)
            target: values.Target = Foreign(f"{base}.{name.name}")
            if is_own or is_module:
                target = ImportTarget(base, name.name) if base else ModuleTarget(name.name)
            self.frame.assign(name.asname or name.name, Value(targets=frozenset([target])))

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.frame.assign(node.name, self.closure(node))

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef) -> None:
        self.frame.assign(node.name, Value(targets=frozenset([ClassTarget(self.frame.module, node)])))

    # --- ways out ---

    def _do_return(self, node: ast.Return) -> None:
        self.frame.returned = values.join(self.frame.returned, self.value(node.value))
        self._keep_way_out()
        self.frame.returns.append(self.drawing.frontier)
        self.drawing.frontier = {}

    def _do_raise(self, node: ast.Raise) -> None:
        self.value(node.exc)
        if not self.world.tries and not self.world.is_muted:
            self._keep_way_out()
            for source in self.drawing.frontier:
                self.drawing.edge(source, END, "exception", "raise")
        self.drawing.frontier = {}

    def _do_break(self, node: ast.Break) -> None:
        if self.frame.loops:
            self.frame.loops[-1].breaks.append((self.drawing.frontier, dict(self.frame.env)))
        self.drawing.frontier = {}

    def _do_continue(self, node: ast.Continue) -> None:
        if self.frame.loops:
            self.frame.loops[-1].continues.append((self.drawing.frontier, dict(self.frame.env)))
        self.drawing.frontier = {}

    def _keep_way_out(self) -> None:
        """A branch that leads out early is a branch, although no step lies in it."""
        if self.frame.caller is None:
            for node in self.drawing.frontier:
                if node in self.drawing.sketches and self.drawing.sketches[node].kind == "branch":
                    self.world.keep.add(node)

    # --- branches ---

    def _do_if(self, node: ast.If) -> None:
        test = self.value(node.test)
        group = self.group("branch", "if {}", node, node.test)
        self.feed(test, group, "condition")
        self._arms(group, [("then", lambda: self.block(node.body)), ("else", lambda: self.block(node.orelse))])

    def _do_match(self, node: ast.Match) -> None:
        subject = self.value(node.subject)
        group = self.group("branch", "match {}", node, node.subject)
        self.feed(subject, group, "subject")
        arms: list[tuple[str, Callable[[], None]]] = []
        for case in node.cases:
            arms.append((f"case {ast.unparse(case.pattern)}"[:40], self._case(case, subject)))
        if not any(isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None for case in node.cases):
            arms.append(("else", lambda: None))
        self._arms(group, arms)

    def _case(self, case: ast.match_case, subject: Value) -> Callable[[], None]:
        def read() -> None:
            for part in ast.walk(case.pattern):
                name = getattr(part, "name", None) or getattr(part, "rest", None)
                if isinstance(name, str):
                    self.frame.assign(name, values.join(subject, values.elements(subject)))
            self.value(case.guard)
            self.block(case.body)

        return read

    def _arms(self, group: str, arms: Sequence[tuple[str, Callable[[], None]]]) -> None:
        env = self.frame.env
        ends: list[Frontier] = []
        environments: list[Environment] = []
        for arm, read in arms:
            self.frame.env = dict(env) if self.frame.code else env
            self.drawing.frontier = self.drawing.leave(group, arm)
            with self.drawing.inside(group, arm):
                read()
            if self.drawing.frontier:
                ends.append(self.drawing.frontier)
                environments.append(self.frame.env)
        self.frame.env = merge_environments(environments or [env]) if self.frame.code else env
        self.drawing.frontier = self.drawing.merge(ends)

    # --- loops ---

    def _do_for(self, node: ast.For | ast.AsyncFor) -> None:
        items = self.value(node.iter)
        text = self.frame.module.text(node.target)
        group = self.group("loop", f"for {text} in {{}}", node, node.iter)
        self.feed(items, group, "items")
        self.take_turns(items, group)
        self._loop(group, node, lambda: self.assign(node.target, values.elements(items)))

    _do_asyncfor = _do_for

    def _do_while(self, node: ast.While) -> None:
        group = self.group("loop", "while {}", node, node.test)
        is_endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self._loop(group, node, lambda: self.feed(self.value(node.test), group, "condition"), is_endless=is_endless)

    def _loop(
        self,
        group: str,
        node: ast.For | ast.AsyncFor | ast.While,
        begin: Callable[[], None],
        *,
        is_endless: bool = False,
    ) -> None:
        outside = dict(self.frame.env)
        loop = Loop()
        tested: Frontier = {}
        for _ in range(5):
            before = self.world.changes
            loop = Loop()
            self.frame.loops.append(loop)
            self.frame.env = merge_environments([outside, self.frame.env]) if self.frame.code else self.frame.env
            self.drawing.frontier = self.drawing.leave(group, "")
            with self.drawing.inside(group):
                begin()
                tested = self.drawing.frontier
                self.block(node.body)
            ends = [self.drawing.frontier, *(frontier for frontier, _ in loop.continues)]
            self.drawing.frontier = self.drawing.merge(ends)
            self.back(group)
            if self.frame.code:
                environments = [self.frame.env, *(env for _, env in loop.continues)]
                self.frame.env = merge_environments(environments)
            self.frame.loops.pop()
            if self.world.changes == before:
                break
        if self.frame.code:
            self.frame.env = merge_environments([outside, self.frame.env, *(env for _, env in loop.breaks)])
        self.drawing.frontier = {} if is_endless else tested
        self.block(node.orelse)
        self.drawing.frontier = self.drawing.merge([self.drawing.frontier, *(frontier for frontier, _ in loop.breaks)])

    # --- try and with ---

    def _do_try(self, node: ast.Try) -> None:
        group = self.group("try", "try", node)
        num_returns = len(self.frame.returns)
        with self.drawing.inside(group, "try"):
            before = dict(self.frame.env)
            self.world.tries += bool(node.handlers)
            self.block(node.body)
            self.world.tries -= bool(node.handlers)
        with self.drawing.inside(group, "else"):
            self.block(node.orelse)
        ends, environments = [self.drawing.frontier], [self.frame.env]
        # Anything that the body assigns may be there when an exception is caught.
        caught = {
            **self.frame.env,
            **before,
            **{name: self.frame.ever[name] for name in _assigned(node.body) if name in self.frame.ever},
        }
        for handler in node.handlers:
            arm = f"except {ast.unparse(handler.type)}" if handler.type else "except"
            self.frame.env = dict(caught) if self.frame.code else self.frame.env
            if handler.name:
                self.frame.assign(handler.name, UNKNOWN)
            self.drawing.frontier = {group: ("exception", arm)}
            with self.drawing.inside(group, arm):
                self.block(handler.body)
            ends.append(self.drawing.frontier)
            environments.append(self.frame.env)
        self.frame.env = merge_environments(environments) if self.frame.code else self.frame.env
        self.drawing.frontier = self.drawing.merge(ends)
        if node.finalbody:
            self.drawing.frontier = {**self.drawing.frontier, group: ("exception", "finally")}
            with self.drawing.inside(group, "finally"):
                self.block(node.finalbody)
            if len(self.frame.returns) > num_returns:
                self.frame.returns.append(self.drawing.frontier)

    _do_trystar = _do_try

    def _do_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            inside = self.value(item.context_expr)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, values.join(inside, values.elements(inside)))
        self.block(node.body)

    _do_asyncwith = _do_with


def _assigned(statements: Sequence[ast.stmt]) -> set[str]:
    return {
        node.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
