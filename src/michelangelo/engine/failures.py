"""Failures of tasks, from the JSON form in the journal to the exception that the workflow sees.

The form is {class, type, types, message, traceback, file, line, function, source}: `class` names one of our errors, the
rest comes from the worker. The exception is always an `errors.TaskError`; where the class that the user's code raised
is a builtin or is loaded in the driver too, it is an instance of that as well, so `except ValueError` works around a
task as it does around a function. The same record gives the same exception, live and on replay.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from typing import Any

from michelangelo import errors
from michelangelo.executors.base import AttemptState
from michelangelo.uniflow import references

__all__ = ["exception", "is_of_the_store", "named", "record", "type_names"]

_CLASSES: dict[str, type[errors.TaskError]] = {
    error.__name__: error
    for error in (
        errors.PendingTimeoutError,
        errors.TaskTimeoutError,
        errors.TaskKilledError,
        errors.OutOfMemoryError,
        errors.WorkerLostError,
    )
}
_FALLBACKS = {
    AttemptState.KILLED: ("TaskKilledError", "it was ended because its run was ended"),
    AttemptState.OUT_OF_MEMORY: ("OutOfMemoryError", "its resident size went over its memory limit"),
    AttemptState.LOST: ("WorkerLostError", "the process that ran it ended without a result"),
}
_combined: dict[type[BaseException], type[errors.UserCodeError]] = {}


def record(error_class: str, message: str) -> dict[str, Any]:
    """The JSON form of a failure that is not the user's code's; `error_class` is one of ours, or a builtin."""
    kind = getattr(errors, error_class, None) or getattr(builtins, error_class)
    types = [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__ if base is not object]
    return {"class": error_class, "type": types[0], "types": types, "message": message}


def named(outcome: AttemptState, error: Mapping[str, Any] | None, timeout_seconds: float) -> dict[str, Any]:
    """The worker's or executor's record of a failure, completed with the class that it is raised as."""
    if outcome is AttemptState.TIMED_OUT:
        fallback = record("TaskTimeoutError", f"it ran longer than its timeout of {timeout_seconds:g} s")
    elif outcome is AttemptState.FAILED:
        fallback = record("UserCodeError", "it failed")
    else:
        fallback = record(*_FALLBACKS[outcome])
    given = str((error or {}).get("class", ""))  # what our own engine has recorded has a class already
    return {**fallback, **(error or {}), "class": given if given in _CLASSES else fallback["class"]}


def is_of_the_store(error: Mapping[str, Any] | None) -> bool:
    """Whether an attempt failed because the blob store could not be reached."""
    return error is not None and error.get("type") == f"{errors.__name__}.StoreUnavailableError"


def type_names(error: Mapping[str, Any]) -> list[str]:
    """The names by which a retry policy may ask for this failure."""
    names = [str(error.get("class", "")), str(error.get("type", "")), *map(str, error.get("types", ()))]
    script = _script()
    if script:
        # The driver runs the user's file as a script; in the worker its classes belong to a module of its own name.
        names += ["__main__." + name.removeprefix(script + ".") for name in names if name.startswith(script + ".")]
    return names


def exception(error: Mapping[str, Any] | None, *, task: str, step: str) -> Exception:
    """The exception that a failed step raises in the workflow."""
    error = error or {}
    message = str(error.get("message") or "the task failed")
    name = str(error.get("class") or "UserCodeError")
    if name == "TimeoutError":
        return TimeoutError(message)
    if name in _CLASSES:
        return _CLASSES[name](f"task {task}: {message}", task=task, step=step)
    types = tuple(str(qualified) for qualified in error.get("types", ()))
    location = None
    if error.get("file"):
        location = errors.CodeLocation(
            str(error["file"]),
            int(error.get("line") or 0),
            str(error.get("function") or ""),
            str(error.get("source") or ""),
        )
    plain = errors.UserCodeError(
        message,
        task=task,
        step=step,
        cause_type=str(error.get("type") or ""),
        location=location,
        traceback=str(error.get("traceback") or ""),
        cause_types=types,
    )
    return _instance(_user_class(types), plain)


def _user_class(types: tuple[str, ...]) -> type[errors.UserCodeError]:
    """UserCodeError, combined with the nearest class of `types` that this process has and that can be combined."""
    for qualified in types:
        cause = _loaded(qualified)
        if cause is None:
            continue
        if cause not in _combined:
            _combined[cause] = _combine(cause)
        return _combined[cause]
    return errors.UserCodeError


def _loaded(qualified: str) -> type[Exception] | None:
    """The exception class of that name, if its module is loaded already; nothing is imported."""
    module_name, _, name = qualified.rpartition(".")
    module = sys.modules.get("__main__" if module_name and module_name == _script() else module_name or "builtins")
    found = getattr(module, name, None) if module else None
    if isinstance(found, type) and issubclass(found, Exception) and found is not Exception:
        return found
    return None


def _script() -> str:
    """The name that the worker imports this process's `__main__` by; empty where it is no file."""
    try:
        return references.canonical_module("__main__")
    except errors.SourceError:
        return ""


def _combine(cause: type[Exception]) -> type[errors.UserCodeError]:
    if issubclass(cause, errors.UserCodeError):
        return cause
    namespace = {
        "__module__": cause.__module__,
        "__qualname__": cause.__qualname__,
        "__init__": BaseException.__init__,
        "__str__": _message,
        "__doc__": cause.__doc__,
    }
    try:
        combined = type(cause.__name__, (errors.UserCodeError, cause), namespace)
        _instance(combined, errors.UserCodeError("probe"))
    except TypeError:
        # A class with a layout of its own, or that is made of more than a message: it is a UserCodeError only.
        return errors.UserCodeError
    return combined


def _instance(kind: type[errors.UserCodeError], plain: errors.UserCodeError) -> errors.UserCodeError:
    """`plain` as a `kind`, past the constructor of the user's class: what that was given is not known here."""
    if kind is errors.UserCodeError:
        return plain
    made = kind(*plain.args)
    made.__dict__.update(plain.__dict__)
    return made


def _message(error: BaseException) -> str:
    """KeyError and others would show the repr of their argument."""
    return str(error.args[0]) if error.args else ""
