"""Upstream's decorators: `task(config, alias, io, …)`, `workflow()`, `star_plugin("module.function")`.

`task` and `workflow` make the very objects of `michelangelo.uniflow`; only the order of the parameters, and `io` with a
registry, are upstream's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast, final

from michelangelo.uniflow import task_context as contexts
from michelangelo.uniflow.codecs.io_registry import IORegistry, default_io
from michelangelo.uniflow.task import Task, TaskArguments
from michelangelo.uniflow.task import task as make_task
from michelangelo.uniflow.task_context import TaskContext
from michelangelo.uniflow.workflow import workflow as workflow

__all__ = ["star_plugin", "task", "task_context"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def task(
    config: Any = None,
    alias: str | None = None,
    io: IORegistry | str | None = default_io,
    cache_enabled: bool = False,
    cache_version: str | None = None,
    retry_attempts: int = 0,
    **options: Any,
) -> Callable[[Callable[_P, _R]], Task[_P, _R]]:
    """`@task(config=RayTask(…), cache_enabled=True)`. `config` may be left out, and `options` are those of
    `uniflow.task`. A registry as `io` is for the types of this task's results and arguments."""
    if isinstance(io, IORegistry):
        io = None
    options |= {"alias": alias, "io": io, "cache_enabled": cache_enabled, "cache_version": cache_version}
    if retry_attempts:
        options["retry_attempts"] = retry_attempts
    return make_task(config, **cast(TaskArguments, options))


def star_plugin(binding: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Upstream binds a function of its workflow language; here the Python function itself is what runs, as a part of
    the workflow: it has to do the same again when the run is resumed."""
    if not isinstance(binding, str) or "." not in binding:
        raise ValueError(f'star_plugin({binding!r}): must name "module.function"')
    return lambda function: function


@final
class _CurrentTask:
    """Which task this thread is inside of; both attributes are None outside of one."""

    @property
    def config(self) -> TaskContext | None:
        return contexts.current()

    @property
    def alias(self) -> str | None:
        current = contexts.current()
        return current.task if current else None


task_context: Final = _CurrentTask()
