"""The digest of a task's code: it decides, with the arguments, whether a recorded or cached result is still the result.

It covers the function's own code and, transitively, the functions, classes and plain constants of the user's own
modules that it refers to; not installed packages, whose changes are the business of `cache_version`. It reads
compiled code, so comments, blank lines, docstrings and the place of the file do not matter, and it is the same in
every process of one Python version. The same pass notes the parts, so that two digests that differ can be explained.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from michelangelo import errors
from michelangelo.uniflow import references
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow

__all__ = ["MAX_PARTS", "PYTHON", "Code", "CodePart", "code_digest", "is_confidential", "read_code", "shown"]

PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
MAX_PARTS: Final = 200

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDLIB: Final = os.path.dirname(os.path.abspath(os.__file__))
_IGNORED: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
)
_MAX_CONSTANT_ITEMS: Final = 10_000
"""A larger constant counts by its type and length only."""
_MAX_SHOWN: Final = 200
_CONFIDENTIAL: Final = re.compile(r"passw|secret|token|credential|api_?key|private_?key", re.IGNORECASE)
_PLAIN: Final = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None))


@dataclass(frozen=True, slots=True)
class CodePart:
    """A function, class or constant that a digest covers, without what has a part of its own."""

    digest: str
    """Some hex digits."""
    file: str = ""
    """As in the packed source: relative to the root of the imports."""
    line: int = 0
    """Where a function begins; 0: not known."""
    value: str = ""
    """A constant's, cut to what people can read."""


@dataclass(frozen=True, slots=True)
class Code:
    """A digest, and the parts that it covers by `module:qualname`; the task's own function is the first of them.
    `omitted` more are covered that are not named."""

    digest: str
    parts: Mapping[str, CodePart]
    omitted: int = 0


def code_digest(target: Any) -> str:
    """`sha256:<hex>` of the code of a task, workflow, function or class."""
    return read_code(target).digest


def read_code(target: Any) -> Code:
    """The digest of the code of a task, workflow, function or class, and its parts."""
    walk = _Walk(_module_of(_unwrapped(target)))
    walk.value(target)
    parts = walk.parts
    return Code(
        "sha256:" + walk.hash.hexdigest(), dict(list(parts.items())[:MAX_PARTS]), max(0, len(parts) - MAX_PARTS)
    )


def shown(name: str, value: Any) -> str:
    """A value as people see it, bounded; what may be a secret by its name is not shown, nor is what is not plain."""
    if is_confidential(name):
        return "(not shown)"
    if isinstance(value, enum.Enum):
        return str(value)
    if type(value) in _PLAIN:
        return _shortened.repr(value)[:_MAX_SHOWN]
    return f"<{type(value).__qualname__}>"


def is_confidential(name: str) -> bool:
    """Whether the name of a value says that people should not see it."""
    return _CONFIDENTIAL.search(name) is not None


class _Walk:
    """One pass over everything reachable; each object is written once and later named by its number."""

    def __init__(self, home: str) -> None:
        self.hash = hashlib.sha256(f"python {PYTHON}\n".encode())
        self.parts: dict[str, CodePart] = {}
        self._home = home
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []
        self._part = hashlib.sha256()
        """Of the part that is being read."""

    def value(self, value: Any) -> None:
        value = _unwrapped(value)
        if isinstance(value, FunctionType | type | functools.partial):
            if self._known(value):
                return
            if isinstance(value, FunctionType):
                self._read(self._place_of(value), self._function, value)
            elif isinstance(value, type):
                self._read(_place_of_class(value) if self._is_own(value) else None, self._class, value)
            else:
                self._partial(value)
        elif isinstance(value, ModuleType):
            self._put("module", references.canonical_module(value.__name__))
        elif isinstance(value, property | staticmethod | classmethod | functools.cached_property):
            self._descriptor(value)
        elif isinstance(value, CodeType):
            self._code(value)
        else:
            self._constant(value)

    def _known(self, value: Any) -> bool:
        number = self._seen.get(id(value))
        if number is not None:
            self._put("seen", str(number))
            return True
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        return False

    def _read(self, place: _Place | None, write: Callable[[Any], None], value: Any) -> None:
        """`write` what the value covers, as a part of its own where it has a place."""
        if place is None:
            write(value)
            return
        outer, self._part = self._part, hashlib.sha256()
        # Before what it leads to: so the task itself comes first.
        name, number = place.name, 1
        while name in self.parts and not place.is_constant:
            number += 1
            name = f"{place.name}#{number}"
        self.parts.setdefault(name, CodePart(""))
        write(value)
        self.parts[name] = CodePart(self._part.hexdigest()[:12], place.file, place.line, place.value)
        self._part = outer

    def _global(self, module: str, name: str, value: Any) -> None:
        """A value that a function finds by its name in a module: a constant is a part."""
        plain = _unwrapped(value)
        if isinstance(plain, FunctionType | type | ModuleType):
            self.value(value)
        else:
            self._read(
                _Place(f"{_named(module)}:{name}", _file_of(module), 0, shown(name, value), True), self.value, value
            )

    def _place_of(self, fn: FunctionType) -> _Place | None:
        """By its code, for a decorator's wrapper bears the name of what it wraps. None for what belongs to the class
        or function around it: the methods that dataclasses write."""
        module = str(fn.__globals__.get("__name__") or fn.__module__)
        code = fn.__code__
        if code.co_filename.startswith("<") or not (module == self._home or _is_users(module)):
            return None
        return _Place(f"{_named(module)}:{code.co_qualname}", _file_of(module), code.co_firstlineno)

    def _function(self, fn: FunctionType) -> None:
        if not self._is_own(fn):
            self._put("function", f"{fn.__module__}:{fn.__qualname__}")
            return
        self._put("def", fn.__name__)
        self._code(fn.__code__)
        self.value(fn.__defaults__)
        self.value(fn.__kwdefaults__)
        for cell in fn.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:
                self._put("empty cell", "")
        names = sorted(set(_names(fn.__code__)))
        for name in names:
            if name in fn.__globals__:
                self._put("global", name)
                found = fn.__globals__[name]
                self._global(str(fn.__globals__.get("__name__") or fn.__module__), name, found)
                if isinstance(found, ModuleType) and self._is_own(found):
                    self._attributes(found, names)

    def _attributes(self, module: ModuleType, names: list[str]) -> None:
        """What a function may use of a module of the user's: all that its code names and the module has."""
        for name in names:
            if name in vars(module):
                self._put("attribute", f"{references.canonical_module(module.__name__)}.{name}")
                self._global(module.__name__, name, vars(module)[name])

    def _class(self, kind: type) -> None:
        if not self._is_own(kind):
            self._put("class", f"{kind.__module__}:{kind.__qualname__}")
            return
        self._put("class", kind.__name__)
        for base in kind.__bases__:
            self.value(base)
        if issubclass(kind, enum.Enum):
            for name, member in kind.__members__.items():
                self._put("member", name)
                self._constant(member.value)
        for name, field in sorted(getattr(kind, "__pydantic_fields__", {}).items()):
            self._put("field", f"{name} {field!r}")
        for name, attribute in sorted(vars(kind).items()):
            dunder = name.startswith("__") and not isinstance(attribute, FunctionType)
            if name not in _IGNORED and not (dunder and name != "__annotations__") and not name.startswith("_abc_"):
                self._put("attribute", name)
                self.value(attribute)

    def _partial(self, partial: functools.partial[Any]) -> None:
        self._put("partial", "")
        self.value(partial.func)
        self.value(partial.args)
        self.value(partial.keywords)

    def _descriptor(self, value: Any) -> None:
        self._put("descriptor", type(value).__name__)
        for name in ("fget", "fset", "fdel", "func", "__func__"):
            if getattr(value, name, None) is not None:
                self.value(getattr(value, name))

    def _code(self, code: CodeType) -> None:
        """Everything of a code object but its place and its docstring."""
        self._put("code", code.co_code.hex())
        self._put("exceptions", getattr(code, "co_exceptiontable", b"").hex())
        self._put("counts", f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags}")
        for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
            self._put("names", " ".join(names))
        for number, constant in enumerate(code.co_consts):
            if number == 0 and isinstance(constant, str) and _has_docstring(code):
                self._put("docstring", "")
            else:
                self.value(constant)

    def _constant(self, value: Any) -> None:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self._put(type(value).__qualname__, str(value) if isinstance(value, enum.Enum) else repr(value))
        elif isinstance(value, enum.Enum):
            self._put("enum", repr(value.name))
            self.value(type(value))
        elif isinstance(value, set | frozenset) and len(value) <= _MAX_CONSTANT_ITEMS:
            self._put("set", " ".join(sorted(_standalone(self._home, item) for item in value)))
        elif isinstance(value, tuple | list | dict) and len(value) <= _MAX_CONSTANT_ITEMS:
            self._container(value)
        elif self._is_own(type(value)):
            self._instance(value)
        else:
            size = len(value) if isinstance(value, tuple | list | dict | set | frozenset) else 0
            self._put("object", f"{type(value).__module__}.{type(value).__qualname__} {size}")

    def _container(self, value: tuple[Any, ...] | list[Any] | dict[Any, Any]) -> None:
        if self._known(value):
            return
        self._put(type(value).__qualname__, str(len(value)))
        for item in value.items() if isinstance(value, dict) else value:
            self.value(item)

    def _instance(self, value: Any) -> None:
        """An object of a class of the user's: the class, and the fields of a record. Other state may change as the
        program goes on, so it does not count."""
        if self._known(value):
            return
        self._put("instance", "")
        self.value(type(value))
        names = getattr(type(value), "__dataclass_fields__", None) or getattr(type(value), "__pydantic_fields__", {})
        for name in sorted(names):
            self._put("field", name)
            self.value(getattr(value, name, None))

    def _is_own(self, value: Any) -> bool:
        return _module_of(value) == self._home or _is_users(_module_of(value))

    def _put(self, what: str, text: str) -> None:
        data = text.encode(errors="surrogatepass")
        line = f"{what} {len(data)} ".encode() + data + b"\n"
        self.hash.update(line)
        if what != "seen":
            # A number depends on everything before it; what it stands for is a part, or in one.
            self._part.update(line)


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    file: str
    line: int = 0
    value: str = ""
    is_constant: bool = False


def _place_of_class(kind: type) -> _Place:
    return _Place(f"{_named(kind.__module__)}:{kind.__qualname__}", _file_of(kind.__module__))


@functools.cache
def _named(module: str) -> str:
    """The name that a module has in every process; its own for code that has no file."""
    try:
        return references.canonical_module(module)
    except errors.SourceError:
        return module


@functools.cache
def _file_of(module: str) -> str:
    """The file of a module, from the root of its imports on."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    parts = file.replace(os.sep, "/").split("/")
    length = _named(module).count(".") + 1
    if parts[-1] == "__init__.py":
        length += 1
    return "/".join(parts[-length:])


def _bounded() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _MAX_SHOWN
    return short


_shortened: Final = _bounded()


def _unwrapped(value: Any) -> Any:
    return value.fn if isinstance(value, Task | Workflow) else value


def _module_of(value: Any) -> str:
    return value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""


@functools.cache
def _is_users(module_name: str) -> bool:
    """Whether a module is of the user's project: a file that is neither installed, nor Python's, nor ours."""
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if not file:
        return False
    path = os.path.abspath(file)
    if "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith((_PACKAGE + os.sep, _STDLIB + os.sep))


def _names(code: CodeType) -> Iterator[str]:
    """Every name that a function's code looks up, with those of the functions nested in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _has_docstring(code: CodeType) -> bool:
    """A function's docstring is its first constant. Since Python 3.13 a flag says whether it has one; before, the place
    is kept for it; lambdas and comprehensions have none."""
    flag: int = getattr(inspect, "CO_HAS_DOCSTRING", 0)
    return bool(code.co_flags & flag) if flag else not code.co_name.startswith("<")


def _standalone(home: str, value: Any) -> str:
    walk = _Walk(home)
    walk.value(value)
    return walk.hash.hexdigest()
