"""What names and attributes stand for: in a function, its closure, its module, and the user's other files."""

from __future__ import annotations

import ast
import builtins
from abc import abstractmethod
from typing import Final

from michelangelo.uniflow.graph import sources, values
from michelangelo.uniflow.graph.drawing import Drawing
from michelangelo.uniflow.graph.frames import Frame, Place, World
from michelangelo.uniflow.graph.values import (
    NOTHING,
    UNKNOWN,
    Arguments,
    ClassTarget,
    Foreign,
    FunctionTarget,
    ImportTarget,
    ModuleTarget,
    Part,
    Super,
    TaskTarget,
    Value,
    WorkflowTarget,
)

__all__ = ["Names", "alias", "constant", "decorator_kind"]

_BUILTINS: Final = frozenset(dir(builtins))
_MAX_BASES: Final = 8


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

    @abstractmethod
    def follow(self, node: Place, target: FunctionTarget, args: Arguments) -> Value: ...

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
        found = self.attribute(self.value(node.value), node.attr)
        properties = [one for one in found.ordered() if _is_property(one)]
        for one in properties:
            assert isinstance(one, FunctionTarget)
            rest = Value(found.origins, found.targets - {one}, found.cells, found.unknown)
            found = values.join(rest, self.follow(node, one, []))
        return found

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
            return self.class_member(target, name)
        if isinstance(target, Part):
            known = target.cell.items.get(f".{name}")
            member = self.class_member(target, name)
            if known is None and member is not NOTHING:
                # What setattr has put somewhere may be under this name too.
                return values.join(member, target.cell.rest) if target.cell.rest.targets else member
            inside = values.join(known, target.cell.rest) if known is not None else _data(target.cell.all())
            return values.join(inside, member)
        if isinstance(target, Super):
            return self.class_member(target.receiver, name, after=target.cls)
        return NOTHING

    def class_member(self, receiver: Part | ClassTarget, name: str, after: ClassTarget | None = None) -> Value:
        """What an object, or a class, has under `name` by its class or one of its bases in the user's files; `after`:
        by those that come after this one."""
        order = self.ancestors(receiver.cls if isinstance(receiver, Part) else receiver)
        if after in order:
            order = order[order.index(after) + 1 :]
        for cls in order:
            reader = self._reader(self.module(cls.module.name))
            for statement in cls.node.body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                    made = reader.function(statement, f"{cls.node.name}.")
                    return _bound(made, receiver, statement)
                if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                    if any(isinstance(one, ast.Name) and one.id == name for one in targets):
                        return reader.muted(statement.value)
        return NOTHING

    def ancestors(self, cls: ClassTarget, depth: int = 0) -> list[ClassTarget]:
        """A class and its bases in the user's files, in the order in which an attribute is looked for."""
        found = [cls]
        for base in cls.node.bases if depth < _MAX_BASES else ():
            for one in self._reader(self.module(cls.module.name)).muted(base).ordered():
                if isinstance(one, ClassTarget):
                    found += self.ancestors(one, depth + 1)
        # A base that several share comes after them.
        return [one for number, one in enumerate(found) if one not in found[number + 1 :]]

    def super(self) -> Value:
        """`super()`, without arguments, in the code of this frame."""
        parameters = self.frame.code.parameters() if self.frame.code else []
        name = self.frame.qualname.rpartition(".")[0].rpartition(".")[2]
        found: set[values.Target] = set()
        for one in self.lookup(parameters[0]).targets if parameters else ():
            if isinstance(one, Part | ClassTarget):
                order = self.ancestors(one.cls if isinstance(one, Part) else one)
                found |= {Super(one, cls) for cls in order if cls.node.name == name}
        return Value(targets=frozenset(found), unknown=not found)

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


def _bound(made: Value, receiver: Part | ClassTarget, definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Value:
    """A method as an attribute of an object or of a class."""
    decorators = _decorators(definition)
    if "classmethod" in decorators:
        receiver = receiver.cls if isinstance(receiver, Part) else receiver
    elif "staticmethod" in decorators or isinstance(receiver, ClassTarget):
        return made
    targets = (
        FunctionTarget(one.code, None, receiver) if isinstance(one, FunctionTarget) else one for one in made.targets
    )
    return Value(made.origins, frozenset(targets), made.cells, made.unknown)


def _is_property(target: values.Target) -> bool:
    if not isinstance(target, FunctionTarget) or target.receiver is None or isinstance(target.code.node, ast.Lambda):
        return False
    return not {"property", "cached_property"}.isdisjoint(_decorators(target.code.node))


def _decorators(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The last parts of their names."""
    return {ast.unparse(one).rpartition(".")[2] for one in definition.decorator_list}


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
