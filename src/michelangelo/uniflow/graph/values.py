"""What an expression may stand for when nothing is run: where its data comes from, and what a call of it would call.

Values only ever grow, so reading the same code again comes to an end. Containers are cells, one per place in the code,
so that what is put in under one name is found under another.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from michelangelo.uniflow.graph.sources import Code, Module

if TYPE_CHECKING:
    from michelangelo.uniflow.graph.frames import Frame

__all__ = [
    "NOTHING",
    "UNKNOWN",
    "Arguments",
    "Bound",
    "Cell",
    "ClassTarget",
    "Foreign",
    "FunctionTarget",
    "ImportTarget",
    "ModuleTarget",
    "Part",
    "Super",
    "Target",
    "TaskTarget",
    "Value",
    "WorkflowTarget",
    "elements",
    "insides",
    "join",
    "origins",
]


@dataclass(frozen=True, slots=True, repr=False)
class TaskTarget:
    """A task. `name` is what is shown of its steps."""

    code: Code
    name: str
    method: str = ""
    """`submit`, `map`, `with_overrides`: what is called of it; empty: the task itself."""

    @property
    def order(self) -> str:
        return f"1 {self.code.key} {self.name} {self.method}"


@dataclass(frozen=True, slots=True, repr=False)
class WorkflowTarget:
    code: Code

    @property
    def order(self) -> str:
        return f"2 {self.code.key}"


@dataclass(frozen=True, slots=True, repr=False)
class FunctionTarget:
    """A function, lambda or method of the user's; `definer` is the function's frame that its free names are of, and
    `receiver` what a method is called on."""

    code: Code
    definer: Frame | None = None
    receiver: Part | ClassTarget | None = None

    @property
    def order(self) -> str:
        return f"3 {self.code.key}"


@dataclass(frozen=True, slots=True, repr=False)
class ClassTarget:
    module: Module
    node: ast.ClassDef

    @property
    def order(self) -> str:
        return f"4 {self.module.file}:{self.node.lineno}"


@dataclass(frozen=True, slots=True, repr=False)
class ModuleTarget:
    """A module of the user's."""

    name: str

    @property
    def order(self) -> str:
        return f"5 {self.name}"


@dataclass(frozen=True, slots=True, repr=False)
class ImportTarget:
    """`name` of the user's module `module`, which is read when it is needed."""

    module: str
    name: str

    @property
    def order(self) -> str:
        return f"6 {self.module}.{self.name}"


@dataclass(frozen=True, slots=True, repr=False)
class Foreign:
    """Something that is not the user's: a dotted name."""

    name: str

    @property
    def order(self) -> str:
        return f"7 {self.name}"


@dataclass(frozen=True, slots=True, repr=False)
class Bound:
    """functools.partial: the first arguments are in the cell, under 0, 1, … and by name."""

    target: Target
    cell: Cell

    @property
    def order(self) -> str:
        return f"8 {self.target.order}"


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """An object of a class of the user's."""

    cls: ClassTarget
    cell: Cell

    @property
    def order(self) -> str:
        return f"9 {self.cls.order}"


@dataclass(frozen=True, slots=True, repr=False)
class Super:
    """`super()` in a method of `cls`."""

    receiver: Part | ClassTarget
    cls: ClassTarget

    @property
    def order(self) -> str:
        return f"10 {self.cls.order}"


Target: TypeAlias = (
    "TaskTarget | WorkflowTarget | FunctionTarget | ClassTarget | ModuleTarget | ImportTarget | Foreign | Bound | Part"
    " | Super"
)
_MAX_TARGETS: Final = 24


@dataclass(frozen=True, slots=True, repr=False)
class Value:
    origins: frozenset[str] = frozenset()
    """Nodes whose output it is made of, apart from what is in its cells."""
    targets: frozenset[Target] = frozenset()
    cells: frozenset[Cell] = frozenset()
    unknown: bool = False
    """Whether a call of it may call something else than `targets`."""

    def ordered(self) -> list[Target]:
        return sorted(self.targets, key=lambda one: one.order)


Arguments: TypeAlias = list[tuple[int | str | None, Value]]
"""By position, by name, or None where it is not known which (`*x`, `**y`)."""
NOTHING: Final = Value()
UNKNOWN: Final = Value(unknown=True)


class Cell:
    """The inside of a container or object. Keys are constants; attributes are `.name`."""

    __slots__ = ("changes", "items", "rest")

    def __init__(self) -> None:
        self.items: dict[Hashable, Value] = {}
        self.rest = NOTHING
        """What is in it somewhere."""
        self.changes = 0

    def put(self, key: Hashable | None, value: Value) -> None:
        """Add to what is under `key`; None: somewhere."""
        before = self.rest if key is None else self.items.get(key, NOTHING)
        after = join(before, value)
        if after != before or (key is not None and key not in self.items):
            self.changes += 1
            if key is None:
                self.rest = after
            else:
                self.items[key] = after

    def all(self) -> Value:
        return join(self.rest, *self.items.values())


def join(*values: Value) -> Value:
    """What may be any of them."""
    found = [value for value in values if value is not NOTHING]
    if len(found) < 2:
        return found[0] if found else NOTHING
    targets = frozenset[Target]().union(*(value.targets for value in found))
    unknown = any(value.unknown for value in found)
    if len(targets) > _MAX_TARGETS:
        targets = frozenset(sorted(targets, key=lambda one: one.order)[:_MAX_TARGETS])
        unknown = True
    return Value(
        frozenset[str]().union(*(value.origins for value in found)),
        targets,
        frozenset[Cell]().union(*(value.cells for value in found)),
        unknown,
    )


def elements(value: Value) -> Value:
    """What iterating over it may give."""
    inside = join(*(cell.all() for cell in insides(value)))
    known = bool(value.cells) and not value.unknown
    return join(inside, Value(value.origins, unknown=not known))


def origins(value: Value) -> frozenset[str]:
    """Nodes whose output is somewhere in it."""
    if not value.cells and not value.targets:
        return value.origins
    found: set[str] = set()
    seen: set[int] = set()
    pending: list[Value] = [value]
    while pending:
        one = pending.pop()
        found |= one.origins
        for cell in insides(one):
            if id(cell) not in seen:
                seen.add(id(cell))
                pending += [cell.rest, *cell.items.values()]
    return frozenset(found)


def insides(value: Value) -> list[Cell]:
    """The cells of containers and objects that it may be."""
    found = list(value.cells)
    for target in value.targets:
        inner = target.receiver if isinstance(target, FunctionTarget | Super) else target
        if isinstance(inner, Bound | Part):
            found.append(inner.cell)
    return found
