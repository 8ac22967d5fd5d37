"""The user's files as syntax: functions with the names that their code has at run time, and modules by import name.

Files are read when something in them is asked for. Nothing is imported; what lies outside of the root is foreign.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from michelangelo.uniflow import references, syntax

__all__ = ["Code", "FunctionNode", "Module", "Sources", "canonical", "import_base", "import_root"]

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSION: Final = re.compile(r"\.<(?:listcomp|setcomp|dictcomp|genexpr)>")
_LOCALS: Final = re.compile(r"(?:\.<locals>)+(?=(\.|$))")


@dataclass(eq=False, slots=True, repr=False)
class Code:
    """A function or lambda. `qualname` is that of its code object, but for comprehensions around it, which are
    functions of their own in some versions of Python."""

    module: Module
    node: FunctionNode
    qualname: str

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]

    @property
    def first_line(self) -> int:
        """As `co_firstlineno`: that of the first decorator, where there is one."""
        if isinstance(self.node, ast.Lambda) or not self.node.decorator_list:
            return self.node.lineno
        return min(one.lineno for one in self.node.decorator_list)

    @property
    def key(self) -> str:
        return f"{self.module.file}:{self.node.lineno}:{self.node.col_offset}"

    def parameters(self) -> list[str]:
        """Those that take positional arguments."""
        return [one.arg for one in (*self.node.args.posonlyargs, *self.node.args.args)]


@dataclass(eq=False, slots=True, repr=False)
class Module:
    """A file of the user's. `name` is how it is imported below the root."""

    name: str
    path: str
    file: str
    """Relative to the root, with `/`."""
    tree: ast.Module
    lines: list[str]

    def text(self, node: ast.expr) -> str:
        """The source of an expression, on one line."""
        if node.end_lineno == node.lineno and 0 < node.lineno <= len(self.lines):
            line = self.lines[node.lineno - 1].encode()
            return line[node.col_offset : node.end_col_offset].decode(errors="replace")
        return ast.unparse(node)

    def functions(self) -> Iterator[Code]:
        """All functions of the file, nested ones too, but no lambdas."""
        yield from _functions(self, self.tree.body, "")


class Sources:
    """The files under a root, parsed once each."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._by_path: dict[str, Module] = {}
        self._by_name: dict[str, Module | None] = {}

    def file(self, path: str, name: str = "") -> Module:
        """SourceError with file and line when it does not parse, or cannot be read."""
        path = os.path.abspath(path)
        known = self._by_path.get(path)
        if known is None:
            file = os.path.relpath(path, self.root).replace(os.sep, "/")
            known = self._by_path[path] = _parse(path, name or _module_name(file), file)
        return known

    def module(self, name: str) -> Module | None:
        """The module that `import name` finds under the root; None for a foreign one."""
        if name not in self._by_name:
            path = self._path_of(name)
            self._by_name[name] = self.file(path, name) if path else None
        return self._by_name[name]

    def is_own(self, name: str) -> bool:
        return name in self._by_name or bool(self._path_of(name))

    @property
    def loaded(self) -> list[Module]:
        return list(self._by_path.values())

    def _path_of(self, name: str) -> str:
        if not name or name.partition(".")[0] == "michelangelo":
            return ""
        stem = os.path.join(self.root, *name.split("."))
        for path in (os.path.join(stem, "__init__.py"), f"{stem}.py"):
            if os.path.isfile(path):
                return path
        return ""


def canonical(qualname: str) -> str:
    """A code object's qualified name without the comprehensions around or in it."""
    if not _COMPREHENSION.search(qualname):
        return qualname
    return _LOCALS.sub(".<locals>", _COMPREHENSION.sub("", qualname)).removesuffix(".<locals>")


def import_root(path: str, module: str = "") -> str:
    """The folder that the imports of the file `path`, imported as `module`, start at."""
    module = module or references.module_of_file(path)
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(module.count(".") + (os.path.basename(path) == "__init__.py")):
        folder = os.path.dirname(folder)
    return folder


def import_base(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name of the module that `from … import` starts at."""
    if not node.level:
        return node.module or ""
    is_package = module.file.endswith("__init__.py")
    parts = module.name.split(".") if is_package else module.name.split(".")[:-1]
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)


def _parse(path: str, name: str, file: str) -> Module:
    text, tree = syntax.parse(path)
    return Module(name, path, file, tree, text.split("\n"))


def _module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _functions(module: Module, body: list[ast.stmt], prefix: str) -> Iterator[Code]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            code = Code(module, statement, prefix + statement.name)
            yield code
            yield from _functions(module, statement.body, f"{code.qualname}.<locals>.")
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(module, statement.body, f"{prefix}{statement.name}.")
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from _functions(module, getattr(statement, part, None) or [], prefix)
            for inner in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _functions(module, inner.body, prefix)
