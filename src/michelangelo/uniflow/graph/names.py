"""What names and attributes stand for: in a function, its closure, its module, and the user's other files."""

from __future__ import annotations

import ast
import builtins
from abc import abstractmethod
from typing import Final

from michelangelo.uniflow.graph import sources, values
from michelangelo.uniflow.graph.drawing import Drawing
from michelangelo.uniflow.graph.frames import Frame, World
from michelangelo.uniflow.graph.values import (
    NOTHING,
    UNKNOWN,
    ClassTarget,
    Foreign,
    FunctionTarget,
    ImportTarget,
    ModuleTarget,
    Part,
    TaskTarget,
    Value,
    WorkflowTarget,
)

__all__ = ["Names", "alias", "constant", "decorator_kind"]

_BUILTINS: Final = frozenset(dir(builtins))


class Names:
    """The names that the code of one frame uses."""

    def __init__(self, world: World, frame: Frame) -> None:
        self.world = world
        self.frame = frame

    @property
    def drawing(self) -> Drawing:
        return self.world.drawing

    @abstractmethod
    def value(self, node: ast.expr | None) -> Value: ...

    def _name(self, node: ast.Name) -> Value:
        return self.lookup(node.id)

    def lookup(self, name: str) -> Value:
        found = self.frame.env.get(name)
        holder = self.frame.definer
        while found is None and holder is not None:
            found, holder = holder.ever.get(name), holder.definer
        if found is None:
            found = self.module(self.frame.module.name).ever.get(name)
        if found is None:
            return Value(targets=frozenset([Foreign(f"builtins.{name}")])) if name in _BUILTINS else UNKNOWN
        return self.resolved(found)

    def resolved(self, found: Value) -> Value:
        """Imports give way to what they import."""
        imports = [one for one in found.targets if isinstance(one, ImportTarget)]
        if not imports:
            return found
        rest = Value(found.origins, found.targets - set(imports), found.cells, found.unknown)
        return values.join(rest, *(self.member(one.module, one.name) for one in imports))

    def member(self, module: str, name: str, depth: int = 0) -> Value:
        """`name` in a module of the user's."""
        if self.world.sources.module(module) is not None and depth < 20:
            found = self.module(module).ever.get(name)
            if found is not None:
                imports = sorted((t for t in found.targets if isinstance(t, ImportTarget)), key=lambda t: t.order)
                rest = Value(found.origins, found.targets - set(imports), found.cells, found.unknown)
                return values.join(rest, *(self.member(one.module, one.name, depth + 1) for one in imports))
        if self.world.sources.is_own(f"{module}.{name}"):
            return Value(targets=frozenset([ModuleTarget(f"{module}.{name}")]))
        return UNKNOWN

    def module(self, name: str) -> Frame:
        """The frame of a module of the user's, read when it is first asked for."""
        known = self.world.modules.get(name)
        if known is None:
            found = self.world.sources.module(name)
            assert found is not None
            known = self.world.modules[name] = Frame(found)
            known.env = known.ever
            with self.world.muted():
                self.world.evaluate(self.world, known, "")
        return known

    def _attribute(self, node: ast.Attribute) -> Value:
        return self.attribute(self.value(node.value), node.attr)

    def attribute(self, owner: Value, name: str) -> Value:
        found = [self._attribute_of(target, name) for target in owner.ordered()]
        for cell in owner.cells:
            known = cell.items.get(f".{name}")
            found.append(values.join(known, cell.rest) if known is not None else _data(cell.all()))
        if owner.origins or owner.unknown:
            found.append(Value(owner.origins, unknown=owner.unknown))
        return values.join(*found)

    def _attribute_of(self, target: values.Target, name: str) -> Value:
        if isinstance(target, ModuleTarget):
            return self.member(target.name, name)
        if isinstance(target, Foreign):
            return Value(targets=frozenset([Foreign(f"{target.name}.{name}")]))
        if isinstance(target, TaskTarget):
            if name == "fn":
                return Value(targets=frozenset([FunctionTarget(target.code)]))
            return Value(targets=frozenset([TaskTarget(target.code, target.name, name)]))
        if isinstance(target, WorkflowTarget) and name == "fn":
            return Value(targets=frozenset([FunctionTarget(target.code)]))
        if isinstance(target, ClassTarget):
            return self.class_member(target, name, None)
        if isinstance(target, Part):
            known = target.cell.items.get(f".{name}")
            inside = values.join(known, target.cell.rest) if known is not None else _data(target.cell.all())
            return values.join(inside, self.class_member(target.cls, name, target.cell))
        return NOTHING

    def class_member(self, cls: ClassTarget, name: str, instance: values.Cell | None, depth: int = 0) -> Value:
        """What a class, or one of its bases in the user's files, defines under `name`."""
        for statement in cls.node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                definer = self.module(cls.module.name)
                made = self._reader(definer).function(statement, f"{cls.node.name}.")
                is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in statement.decorator_list)
                if instance is None or is_static:
                    return made
                bound = (
                    FunctionTarget(one.code, None, instance) if isinstance(one, FunctionTarget) else one
                    for one in made.targets
                )
                return Value(made.origins, frozenset(bound), made.cells, made.unknown)
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                if any(isinstance(one, ast.Name) and one.id == name for one in targets):
                    return self._reader(self.module(cls.module.name)).muted(statement.value)
        for base in cls.node.bases if depth < 8 else ():
            for one in self._reader(self.module(cls.module.name)).muted(base).ordered():
                if isinstance(one, ClassTarget):
                    found = self.class_member(one, name, instance, depth + 1)
                    if found is not NOTHING:
                        return found
        return NOTHING

    def _reader(self, frame: Frame) -> Names:
        return type(self)(self.world, frame)

    def muted(self, node: ast.expr) -> Value:
        """The value alone, with nothing drawn."""
        with self.world.muted():
            return self.value(node)

    def function(self, node: sources.FunctionNode, prefix: str | None = None) -> Value:
        """The value of a definition: a task, a workflow, or a plain function."""
        if prefix is None:
            prefix = f"{self.frame.qualname}.<locals>." if self.frame.code else ""
        name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
        code = self._code(node, prefix + name)
        target: values.Target = FunctionTarget(code, self.frame if self.frame.code else None)
        if isinstance(node, ast.Lambda):
            return Value(targets=frozenset([target]))
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            for one in self.muted(call.func if call else decorator).ordered():
                if kind := decorator_kind(one):
                    shown = alias(call, node.name)
                    target = TaskTarget(code, shown) if kind == "task" else WorkflowTarget(code)
        return Value(targets=frozenset([target]))

    def _code(self, node: sources.FunctionNode, qualname: str) -> sources.Code:
        known = self.world.codes.get(id(node))
        if known is None:
            known = self.world.codes[id(node)] = sources.Code(self.frame.module, node, qualname)
        return known

    def _subscript(self, node: ast.Subscript) -> Value:
        owner = self.value(node.value)
        key = constant(node.slice)
        inside = self.value(node.slice) if key is None else NOTHING
        return self.item(owner, key, inside)

    def item(self, owner: Value, key: str | int | None, index: Value) -> Value:
        """What is under a key; a key that is not known leaves open what a call of it would call."""
        found = [Value(owner.origins | index.origins, unknown=owner.unknown or not owner.cells)]
        for cell in owner.cells:
            if key is not None and key in cell.items:
                found.append(values.join(cell.items[key], cell.rest))
            else:
                inside = cell.all()
                found.append(Value(inside.origins, inside.targets, inside.cells, unknown=True))
        return values.join(*found)


def decorator_kind(target: values.Target) -> str:
    """`task` or `workflow`, where `target` is that decorator of the SDK."""
    if isinstance(target, Foreign) and target.name.startswith("michelangelo."):
        last = target.name.rpartition(".")[2]
        return last if last in ("task", "workflow") else ""
    return ""


def alias(call: ast.Call | None, default: str) -> str:
    """The name that a task is shown under."""
    for keyword in call.keywords if call else ():
        if keyword.arg == "alias" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
            return keyword.value.value or default
    return default


def constant(node: ast.expr) -> str | int | None:
    """The key that an expression is, where it is written out."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str | int | bool) else None


def _data(value: Value) -> Value:
    """The data of a value, for what is not one of its parts: a method is no item of its list."""
    return Value(value.origins, cells=value.cells, unknown=True)
