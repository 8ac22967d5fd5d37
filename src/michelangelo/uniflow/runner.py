"""The Runner protocol: how `uniflow` reaches whatever executes it, without importing any of it.

Two sides meet here. `RunContext` is what a call to a task inside a running workflow is handed to; the engine's driver
implements it. `Runner` starts a new run when a workflow is called from plain Python; its one provider is
`michelangelo.app`, resolved by name in `resolve_runner`: the only upward call of the package, declared in the import
contracts and tested.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from michelangelo.errors import WorkflowError

if TYPE_CHECKING:
    from michelangelo.uniflow.future import Future
    from michelangelo.uniflow.task import Task
    from michelangelo.uniflow.workflow import Workflow

__all__ = [
    "RunContext",
    "RunOptions",
    "RunRequest",
    "Runner",
    "current_run",
    "enter_run",
    "importing",
    "leave_run",
    "resolve_runner",
]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a workflow that is called from plain Python is run."""

    project: str = ""
    """Empty: the default project."""
    resume: str | None = None
    """None: a new run; "": the newest unfinished run of this workflow; else a run's name."""
    force: bool = False
    """With `resume`: go on although the code changed."""
    ephemeral: bool = False
    """Keep nothing: memory store, temporary blobs."""
    environ: Mapping[str, str | None] = field(default_factory=dict)
    """Variables for the tasks of a new run; None: what it is in this process."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run of another, registered pipeline of the same project."""

    pipeline: str
    revision: str = ""
    """Name of the Revision; empty: the pipeline's newest."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables for its tasks."""
    actor: str = ""
    """In whose name; empty: nobody's."""
    timeout_seconds: float = 0.0
    """How long it may take; then it is ended. 0: as long as it wants."""


class RunContext(Protocol):
    """A run in progress, as the code of a workflow sees it. All calls come from the thread of the workflow;
    from any other thread they raise ForeignThreadError."""

    @property
    def run_name(self) -> str: ...

    @property
    def project(self) -> str: ...

    def submit(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Any]:
        """Begin a step. `task.options` holds the options after `with_overrides`; `args` and `kwargs` are bound to the
        signature already (`Task.bind`). A Future among them (`codecs.futures_in`) is a dependency: the step starts when
        it has ended, with its `output` in its place; when it failed, this step's future fails with the same error."""
        ...

    def submit_run(self, request: RunRequest, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Future[Any]:
        """Begin a run of another pipeline, as a step. The future's value is `{"metadata": {"name", "namespace"},
        "status": {"state"}, "result"}`; it fails with RuntimeError when that run fails or is killed, and with
        TimeoutError. Futures among the arguments are dependencies."""
        ...

    def call_workflow(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a nested workflow in a scope of its own, and return its result."""
        ...

    def wait(
        self, futures: Sequence[Future[Any]], *, count: int, timeout_seconds: float | None = None
    ) -> list[Future[Any]]:
        """Block until `count` of `futures` have ended, or the time is over; the ended ones in completion order.

        Without a timeout exactly the first `count`, although more may have ended: so the answer depends on the
        journaled order of completions alone. With a timeout at most `count`, and what is returned is journaled, so
        replay repeats it (`timeout_seconds=0` is how `Future.done` asks). Each returned future is settled
        (`Future.settle`, `Future.fail`).
        """
        ...

    def sleep(self, seconds: float) -> None: ...

    def wait_for_signal(self, name: str, *, timeout_seconds: float | None = None) -> Any:
        """The payload of the next unconsumed signal `name`; TimeoutError when the time is over."""
        ...

    def now(self) -> datetime:
        """Journaled: the instant of the first execution, timezone-aware UTC."""
        ...

    def derive(self, purpose: str) -> bytes:
        """32 bytes that depend only on the run, the call site and the n-th call there: the seed of `random`, `uuid`."""
        ...


class Runner(Protocol):
    """Runs a workflow from plain Python to its end."""

    def run(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: RunOptions,
    ) -> Any:
        """The workflow's result. Raises what the workflow raised."""
        ...


_entered: list[RunContext] = []
_imported: list[str] = []


def current_run() -> RunContext | None:
    """The run that this process is driving, also for a foreign thread (which the run then refuses)."""
    return _entered[-1] if _entered else None


def enter_run(context: RunContext) -> None:
    """Make `context` the current run, for the driver."""
    _entered.append(context)


def leave_run(context: RunContext) -> None:
    _entered.remove(context)


@contextmanager
def importing(path: str) -> Iterator[None]:
    """The platform imports the user's file `path` inside the block. Code of its top level may start no run then: each
    process of that run would import the file again, and start another, without end."""
    _imported.append(path)
    try:
        yield
    finally:
        _imported.pop()


def resolve_runner() -> Runner:
    """The one provider. By name, so that `import michelangelo.uniflow` stays light and the rooms stay layered.

    Raises WorkflowError while the platform imports the user's file.
    """
    if _imported:
        raise WorkflowError(
            f"{_imported[-1]} starts a run while it is imported, which every process of that run would do again; "
            'put the call under `if __name__ == "__main__":`'
        )
    return cast(Runner, importlib.import_module("michelangelo.app.runner").EmbeddedRunner())
