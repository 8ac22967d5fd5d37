"""`@uniflow.workflow`: a plain function whose task calls are durable steps.

Called from plain Python it becomes a run of its own, through the one `Runner`; called inside a run it is a nested
scope of that run; called inside a task it is a plain call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from michelangelo.uniflow import runner, task_context
from michelangelo.uniflow.runner import RunOptions

__all__ = ["Workflow", "workflow"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Workflow(Generic[_P, _R]):
    """A function that is a run, or a part of one."""

    def __init__(self, fn: Callable[_P, _R], *, alias: str | None = None) -> None:
        if not callable(fn) or isinstance(fn, type):
            raise TypeError(f"@uniflow.workflow decorates a function, not {fn!r}")
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
            raise TypeError(f"@uniflow.workflow decorates a plain function; {fn.__name__} is async, or has a yield")
        self.fn = fn
        self.alias = alias
        self.__qualname__ = fn.__qualname__
        functools.update_wrapper(cast(Any, self), fn)

    @property
    def name(self) -> str:
        """What is shown: the alias, or the function's name."""
        return self.alias or self.fn.__name__

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.fn)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Run it to its end and return its result; raises what it raised."""
        if task_context.current() is not None:
            return self.fn(*args, **kwargs)
        run = runner.current_run()
        if run is not None:
            return cast(_R, run.call_workflow(self, args, kwargs))
        return cast(_R, runner.resolve_runner().run(self, args, kwargs, RunOptions()))

    def __repr__(self) -> str:
        return f"<Workflow {self.__module__}.{self.__qualname__}>"

    def __reduce__(self) -> str:
        return self.__qualname__


@overload
def workflow(fn: Callable[_P, _R], /) -> Workflow[_P, _R]: ...


@overload
def workflow(*, alias: str | None = None) -> Callable[[Callable[_P, _R]], Workflow[_P, _R]]: ...


def workflow(fn: Any = None, /, *, alias: str | None = None) -> Any:
    """Make a function a workflow: `@workflow`, `@workflow()` or `@workflow(alias="…")`."""
    if fn is not None:
        return Workflow(fn, alias=alias)
    return lambda function: Workflow(function, alias=alias)
