"""`@uniflow.task`: a plain function that becomes a step when a workflow calls it.

    @uniflow.task(config=Process(memory="2Gi"), retry_attempts=2, cache_enabled=True)
    def train(data: pd.DataFrame, depth: int = 3) -> Model: ...

Inside a run a call is a durable step; inside a task, or outside of any run, it is a plain call. A task holds no state
and knows no engine: a call goes to the current `RunContext`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from michelangelo.errors import ArgumentsError
from michelangelo.uniflow import config as configs
from michelangelo.uniflow import retry, runner, task_context
from michelangelo.uniflow.config import Resources, TaskConfig
from michelangelo.uniflow.future import Future, FutureList
from michelangelo.uniflow.image_spec import ImageSpec
from michelangelo.uniflow.retry import Retry
from michelangelo.uniflow.secret import Secret

__all__ = ["Task", "TaskArguments", "TaskOptions", "task"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What `@task` and `with_overrides` take, as keyword arguments of the same names."""

    config: TaskConfig | None = None
    """Where it runs and what it may use: `Process(…)`, `InProcess()`, … None: the runner's default executor."""
    alias: str | None = None
    """The name that is shown; None: the function's."""
    retries: Retry = retry.NEVER
    timeout_seconds: float | None = None
    """Of one attempt; then its whole process group is ended. None: no limit."""
    idempotent: bool = True
    """False: when it is not known whether an attempt ran, the run stops for a decision."""
    cache_enabled: bool = False
    """Reuse the output of an earlier success with the same code, arguments and `cache_version`."""
    cache_version: str | None = None
    cache_ttl_seconds: float | None = None
    """How long a cached output may be reused. None: as long as it exists."""
    image_spec: ImageSpec | None = None
    """Container image, for executors that run containers."""
    requirements: tuple[str, ...] = ()
    """Lines of a requirements file (`xgboost==3.1`). The task runs in an environment that has these, and is made, and
    kept, with uv; the versions are chosen once, when the run or the revision is made."""
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables (given as a dict); they are over those of the run."""
    working_directory: str | None = None
    """Where the function runs. None: where the run was started."""
    secrets: tuple[Secret, ...] = ()
    """Secrets that the task gets as environment variables or files."""
    pending_timeout_seconds: float | None = None
    """How long an attempt may wait for room in a cluster, before it fails with the reason. None: an hour."""
    io: Literal["pickle"] | None = None
    """"pickle": results that no codec can carry are pickled, and pickled arguments are taken."""

    @property
    def executor(self) -> str:
        """The executor's name; empty: the runner's default."""
        return "" if self.config is None else self.config.executor

    @property
    def resources(self) -> Resources:
        return Resources() if self.config is None else self.config.resources()

    def replace(self, changes: Mapping[str, Any]) -> TaskOptions:
        """These options with `changes` (keyword arguments of `@task`) merged in; None leaves an option as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        unknown = sorted(given.keys() - _OPTION_NAMES)
        if unknown:
            raise TypeError(f"unknown task option {', '.join(unknown)}; known: {', '.join(sorted(_OPTION_NAMES))}")
        if "retry_attempts" in given:
            if "retries" in given:
                raise TypeError("give either retry_attempts or retries, not both")
            given["retries"] = dataclasses.replace(self.retries, attempts=given.pop("retry_attempts"))
        if "config" in given:
            if not isinstance(given["config"], TaskConfig):
                raise TypeError(f"config={given['config']!r}: must be an executor config such as Process(cpu=2)")
            given["config"] = configs.merge(self.config, given["config"])
        if not isinstance(given.get("retries", self.retries), Retry):
            raise TypeError(f"retries={given['retries']!r}: must be uniflow.Retry(attempts=…)")
        for name in ("requirements", "environment", "secrets"):
            if name in given:
                given[name] = _READERS[name](given[name])
        for name in ("timeout_seconds", "cache_ttl_seconds", "pending_timeout_seconds"):
            if name in given and not given[name] > 0:
                raise ValueError(f"{name}={given[name]!r}: must be more than 0 seconds")
        if not isinstance(given.get("image_spec"), ImageSpec | None):
            raise TypeError(f"image_spec={given['image_spec']!r}: must be uniflow.ImageSpec(container_image=…)")
        if given.get("io") not in (None, "pickle"):
            raise ValueError(f"io={given['io']!r}: must be 'pickle' or None")
        return dataclasses.replace(self, **given)


class TaskArguments(TypedDict, total=False):
    """The keyword arguments of `@task` and `with_overrides`, for type checkers; what they mean is in TaskOptions."""

    alias: str | None
    retries: Retry | None
    retry_attempts: int | None
    timeout_seconds: float | None
    idempotent: bool | None
    cache_enabled: bool | None
    cache_version: str | None
    cache_ttl_seconds: float | None
    image_spec: ImageSpec | None
    requirements: Sequence[str] | None
    environment: Mapping[str, str] | None
    working_directory: str | None
    secrets: Sequence[Secret] | None
    pending_timeout_seconds: float | None
    io: Literal["pickle"] | None


def _requirements(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(line, str) and line.strip() for line in given):
        raise TypeError(f"requirements={given!r}: must be a list of lines such as ['xgboost==3.1']")
    options = [line for line in given if line.strip().startswith(("-", "#")) or "\n" in line.strip()]
    if options:
        raise ValueError(f"requirements={options!r}: each must name a package; indexes are configured for uv")
    return tuple(line.strip() for line in given)


def _environment(given: Any) -> tuple[tuple[str, str], ...]:
    items = dict(given).items()
    if not all(isinstance(name, str) and name and "=" not in name and isinstance(value, str) for name, value in items):
        raise TypeError(f"environment={given!r}: must be a dict of strings, such as {{'OMP_NUM_THREADS': '1'}}")
    return tuple(sorted(items))


def _secrets(given: Any) -> tuple[Secret, ...]:
    if not all(isinstance(one, Secret) for one in given):
        raise TypeError(f"secrets={given!r}: must be a list of uniflow.Secret(name, key)")
    return tuple(given)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "requirements": _requirements,
    "environment": _environment,
    "secrets": _secrets,
}
_OPTION_NAMES: Final = frozenset({field.name for field in dataclasses.fields(TaskOptions)} | {"retry_attempts"})


class Task(Generic[_P, _R]):
    """A function that is a step when a workflow calls it."""

    def __init__(self, fn: Callable[_P, _R], options: TaskOptions) -> None:
        if not callable(fn) or isinstance(fn, type):
            raise TypeError(f"@uniflow.task decorates a function, not {fn!r}")
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"@uniflow.task decorates a plain function, which may call asyncio.run(…); {fn.__name__} is async"
            )
        self.fn = fn
        self.options = options
        self.__qualname__ = fn.__qualname__
        functools.update_wrapper(cast(Any, self), fn)

    @property
    def name(self) -> str:
        """What is shown: the alias, or the function's name."""
        return self.options.alias or self.fn.__name__

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.fn)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Run it as a step and wait for its result; outside of a run, or inside a task, call the plain function."""
        run = _enclosing_run()
        if run is None:
            return self.fn(*args, **kwargs)
        return cast(_R, run.submit(self, *self.bind(args, kwargs)).result())

    def submit(self, *args: Any, **kwargs: Any) -> Future[_R]:
        """Begin it as a step and go on. An argument may be a Future, of which the step then waits for.

        Outside of a run the function is called at once, and the future has ended.
        """
        run = _enclosing_run()
        if run is not None:
            return run.submit(self, *self.bind(args, kwargs))
        args, kwargs = _plain(args), _plain(kwargs)
        try:
            return Future.completed(self.fn(*args, **kwargs), task=self.name)
        except Exception as error:  # noqa: BLE001 - it is raised again where the result is asked for
            return Future.failed(error, task=self.name)

    def map(self, *iterables: Iterable[Any], **constants: Any) -> FutureList[_R]:
        """`submit` for each item, or for each tuple of items that several iterables of one length give.

        `constants` are the same in every call.
        """
        if not iterables:
            raise TypeError(f"{self.name}.map() needs at least one iterable")
        return FutureList(self.submit(*args, **constants) for args in zip(*iterables, strict=True))

    def with_overrides(self, *, config: TaskConfig | None = None, **options: Unpack[TaskArguments]) -> Task[_P, _R]:
        """The same task with other options: those given replace, the rest stay; a config of the same class is merged
        field by field."""
        return Task(self.fn, self.options.replace({"config": config, **options}))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call in its one canonical form (positional where the parameter can be). ArgumentsError when it does
        not fit the signature."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(f"task {self.name}{self.signature}: {error}") from error
        args, kwargs = bound.args, bound.kwargs
        return tuple(map(_as_list, args)), {name: _as_list(value) for name, value in kwargs.items()}

    def __repr__(self) -> str:
        return f"<Task {self.__module__}.{self.__qualname__}>"

    def __reduce__(self) -> str:
        return self.__qualname__

    def __get__(self, instance: object, owner: type | None = None) -> Task[_P, _R]:
        if instance is not None:
            raise TypeError(f"task {self.name} is a method; a task has to be a function of a module or a static method")
        return self


@overload
def task(fn: Callable[_P, _R], /) -> Task[_P, _R]: ...


@overload
def task(
    config: TaskConfig | None = None, **options: Unpack[TaskArguments]
) -> Callable[[Callable[_P, _R]], Task[_P, _R]]: ...


def task(config: Any = None, /, **options: Any) -> Any:
    """Make a function a task: `@task`, `@task()`, `@task(config)` or `@task(config=…, option=…)`; see `TaskOptions`.

    `retry_attempts=n` is short for `retries=Retry(attempts=n)`.
    """
    if config is not None and not isinstance(config, TaskConfig) and callable(config):
        return Task(config, TaskOptions().replace(options))
    if config is not None:
        options["config"] = config
    merged = TaskOptions().replace(options)
    return lambda fn: Task(fn, merged)


def _enclosing_run() -> runner.RunContext | None:
    """The run whose workflow code this is; None inside of a task and in plain Python."""
    return None if task_context.current() is not None else runner.current_run()


def _as_list(value: Any) -> Any:
    """What `task.map` gave is, as an argument, the list of its results."""
    return list(value) if type(value) is FutureList else value


def _plain(value: Any) -> Any:
    """Futures in arguments give way to their results, where no run does it."""
    if isinstance(value, Future):
        return value.result()
    if type(value) in (list, FutureList):
        return [_plain(item) for item in value]
    if type(value) is tuple:
        return tuple(_plain(item) for item in value)
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value
