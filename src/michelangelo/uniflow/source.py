"""The user's code as files: which file holds a function, and loading a file by its path in any process of a run.

Errors of the user's code while it loads are SourceErrors with the user's file, line and source. Packing and unpacking
of source trees is in archive.py, the digest of a function's code in code_digest.py.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from michelangelo.errors import SourceError
from michelangelo.uniflow import references, runner
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow

__all__ = ["Target", "find_workflow", "import_root", "load_file", "load_function", "target_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """A function as every process of a run can find it: `qualname` in the file `path`, imported as `module`.

    The same fields as `executors.base.CallTarget`.
    """

    path: str
    module: str
    qualname: str


def target_of(fn: Task[..., Any] | Workflow[..., Any] | Callable[..., Any]) -> Target:
    """Where a function, task or workflow is. SourceError when no other process could find it there."""
    name = references.reference(fn)
    module, _, qualname = name.partition(":")
    file = getattr(sys.modules.get(fn.__module__), "__file__", None)
    if file is None:
        raise SourceError(f"{name} has no source file; put it into a file, so that workers can import it")
    return Target(os.path.abspath(file), module, qualname)


def import_root(path: str, module: str) -> str:
    """The folder that has to be on `sys.path` for `path` to be importable as `module`."""
    folder = os.path.dirname(os.path.abspath(path))
    levels = module.count(".") + (os.path.basename(path) == "__init__.py")
    for _ in range(levels):
        folder = os.path.dirname(folder)
    return folder


def load_file(path: str, module: str = "") -> ModuleType:
    """Import the file `path` as `module` (default: its canonical name), once, with its folder on `sys.path`.

    SourceError with the user's file, line and source when it does not compile or raises.
    """
    path = os.path.abspath(path)
    module = module or references.module_of_file(path)
    loaded = sys.modules.get(module)
    if loaded is not None and _same_file(getattr(loaded, "__file__", None), path):
        return loaded
    main = sys.modules.get("__main__")
    if main is not None and _same_file(getattr(main, "__file__", None), path):
        return main
    if not os.path.isfile(path):
        raise SourceError(f"there is no file {path}")
    root = import_root(path, module)
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        with runner.importing(path):
            if "." in module:
                return importlib.import_module(module)
            return _execute(path, module)
    except SyntaxError as error:
        raise SourceError(_describe_syntax_error(path, error)) from error
    except (Exception, SystemExit) as error:
        raise SourceError(_describe_failure(path, error)) from error


def load_function(target: Target) -> Any:
    """The task, workflow or function that a target names, in this process."""
    found: Any = load_file(target.path, target.module)
    for part in target.qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise SourceError(f"{target.path} has no {target.qualname}; was it renamed or removed?") from error
    return found


def find_workflow(module: ModuleType, name: str = "") -> Workflow[..., Any]:
    """The workflow `name` of a module; without a name, its only one. SourceError says which there are."""
    own = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, Workflow) and value.fn.__module__ == module.__name__
    }
    if name:
        found = getattr(module, name, None)
        if isinstance(found, Workflow):
            return found
    elif len(own) == 1:
        return next(iter(own.values()))
    what = f"no workflow {name}" if name else f"{len(own) or 'no'} workflows, and none was named"
    choice = f"it has {', '.join(sorted(own))}" if own else "decorate a function with @uniflow.workflow"
    raise SourceError(f"{getattr(module, '__file__', module.__name__)} has {what}; {choice}")


def _execute(path: str, module: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise SourceError(f"{path} is no Python file")
    loaded = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(module)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        if previous is None:
            sys.modules.pop(module, None)
        else:
            sys.modules[module] = previous
        raise
    return loaded


@functools.lru_cache(maxsize=256)
def _same_file(one: str | None, other: str) -> bool:
    # Asked at every in-process step, and a dozen system calls each time: what a path leads to is taken not to change.
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


def _describe_syntax_error(path: str, error: SyntaxError) -> str:
    where = f"{error.filename or path}, line {error.lineno}" if error.lineno else error.filename or path
    text = (error.text or "").rstrip()
    line = f"\n    {text}\n    {' ' * (max(error.offset or 1, 1) - 1)}^" if text else ""
    return f"{where}: {type(error).__name__}: {error.msg}{line}"


def _describe_failure(path: str, error: BaseException) -> str:
    """The last line of the user's own that was being executed, rather than the inside of a library."""
    frames = traceback.extract_tb(error.__traceback__)
    root = os.path.dirname(path) + os.sep
    own = [frame for frame in frames if os.path.abspath(frame.filename).startswith(root)]
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        text += ' (does it call uniflow.main() without `if __name__ == "__main__"`?)'
    if not own:
        return f"{path} does not import: {text}"
    if cycle := _describe_cycle(os.path.dirname(path), own, error):
        return f"{path} does not import: {text}\n{cycle}"
    frame = own[-1]
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"{path} does not import: {text}\n  {frame.filename}, line {frame.lineno}, in {frame.name}\n    {line}"


def _describe_cycle(root: str, frames: Sequence[traceback.FrameSummary], error: BaseException) -> str:
    """The modules that import each other, each with its line; empty when that is not what went wrong."""
    if "circular import" not in str(error):
        return ""
    last = {frame.filename: frame for frame in frames}  # in the order in which they were first entered
    # An ImportError has the path of the module that is not ready, an AttributeError the module itself.
    first = getattr(error, "path", None) or getattr(getattr(error, "obj", None), "__file__", None) or ""
    submodule = f"{getattr(getattr(error, 'obj', None), '__name__', '')}.{getattr(error, 'name', '')}"
    files = list(last)
    begins = [file for file in files if _module_name(root, file) == submodule] or [first]
    cycle = files[files.index(begins[0]) :] if begins[0] in files else files
    names = [_module_name(root, file) for file in (*cycle, cycle[0])]
    lines = [f"  {file}, line {last[file].lineno}: {(last[file].line or '').strip()}" for file in cycle]
    advice = "  move what they share into a module of its own, or import it inside the function that needs it"
    return "\n".join([f"  these modules import each other: {' → '.join(names)}", *lines, advice])


def _module_name(root: str, file: str) -> str:
    name = os.path.relpath(file, root).removesuffix(".py").replace(os.sep, ".")
    return name.removesuffix(".__init__")
