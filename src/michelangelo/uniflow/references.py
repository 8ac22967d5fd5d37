"""Names of classes and functions that hold in every process of a run: `module:qualname`.

The user's script is `__main__` in the driver and an ordinary module in a worker; its canonical module name is the one
that it has when imported. This module loads no files: see source.py.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from michelangelo.errors import SourceError

__all__ = ["canonical_module", "import_canonical", "module_of_file", "reference", "resolve"]


def reference(obj: Any) -> str:
    """`module:qualname` of a class or function. SourceError when it cannot be found again by that name."""
    module, qualname = obj.__module__, obj.__qualname__
    if "<" in qualname:
        raise SourceError(
            f"{module}.{qualname} is defined inside a function, where no other process can find it; "
            "move it to the top of its module"
        )
    return f"{canonical_module(module)}:{qualname}"


def resolve(name: str) -> Any:
    """What `reference` named. SourceError when the module does not import or has no such name."""
    module_name, separator, qualname = name.partition(":")
    if not separator or not module_name or not qualname:
        raise SourceError(f"{name!r} is no reference; it must be module:qualname")
    try:
        found: Any = import_canonical(module_name)
    except ImportError as error:
        raise SourceError(f"cannot import {module_name} to find {qualname}: {error}") from error
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise SourceError(f"module {module_name} has no {qualname}; was it renamed or removed?") from error
    return found


def canonical_module(name: str) -> str:
    """The name under which a worker imports the module that this process calls `name`."""
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        raise SourceError("this code was typed in or given with -c; put it into a file, so that workers can import it")
    return module_of_file(file)


def import_canonical(name: str) -> ModuleType:
    """The module with this canonical name; this process's `__main__` when that is it."""
    main = sys.modules.get("__main__")
    if main is not None and _is_main(main, name):
        return main
    return importlib.import_module(name)


def module_of_file(path: str | os.PathLike[str]) -> str:
    """The module name of a script: the file's stem, kept apart from the standard library and from this package."""
    stem = os.path.splitext(os.path.basename(path))[0].replace(".", "_")
    if stem in sys.stdlib_module_names or stem == "michelangelo":
        return stem + "_script"
    return stem


def _is_main(main: ModuleType, name: str) -> bool:
    if getattr(main, "__spec__", None) is None and getattr(main, "__file__", None) is None:
        return False
    return canonical_module("__main__") == name
