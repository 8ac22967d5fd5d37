"""Running another pipeline from a workflow, as a durable step: `uniflow.run_pipeline("train", kwargs={"depth": 3})`.

The other run belongs to this one: killed and deleted with it. It is found again, never started twice, when this run is
resumed. The pipeline has to be registered (`mactl pipeline apply`) in the project of this run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from michelangelo.errors import ArgumentsError, WorkflowError
from michelangelo.uniflow import runner, task_context
from michelangelo.uniflow.future import Future
from michelangelo.uniflow.runner import RunRequest

__all__ = ["run_pipeline", "submit_pipeline"]


def run_pipeline(pipeline: str, **options: Any) -> dict[str, Any]:
    """Run a registered pipeline of this project and wait for its end; `options` are those of `submit_pipeline`.

    `{"metadata": {"name", "namespace"}, "status": {"state"}, "result"}`. Raises RuntimeError when that run fails or is
    killed, TimeoutError when it takes too long.
    """
    found: dict[str, Any] = submit_pipeline(pipeline, **options).result()
    return found


def submit_pipeline(
    pipeline: str,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    revision: str = "",
    environ: Mapping[str, str] | None = None,
    timeout_seconds: float = 0.0,
    actor: str = "",
) -> Future[dict[str, Any]]:
    """Start it and go on. `revision` is a Revision's name, or the commit that it was made from; `environ` holds
    variables for its tasks; after `timeout_seconds` it is ended (0: never).

    Raises WorkflowError outside of a workflow, ArgumentsError.
    """
    run = runner.current_run()
    if run is None or task_context.current() is not None:
        raise WorkflowError(
            f"run_pipeline({pipeline!r}) works in a workflow only: the run that it starts belongs to one"
        )
    if not isinstance(pipeline, str) or not pipeline:
        raise ArgumentsError(f"run_pipeline({pipeline!r}): name the pipeline")
    if not timeout_seconds >= 0:
        raise ArgumentsError(f"run_pipeline({pipeline!r}, timeout_seconds={timeout_seconds!r}): must be 0 or more")
    variables = dict(environ or {})
    wrong = sorted(str(name) for name, value in variables.items() if not isinstance(value, str))
    if wrong:
        raise ArgumentsError(f"run_pipeline({pipeline!r}): the variables {', '.join(wrong)} must be strings")
    request = RunRequest(pipeline, _revision(pipeline, revision), variables, actor, timeout_seconds)
    return run.submit_run(request, list(args), dict(kwargs or {}))


def _revision(pipeline: str, revision: str) -> str:
    """A commit is known by its first twelve digits."""
    if not revision or revision.startswith("pipeline-"):
        return revision
    return f"pipeline-{pipeline}-{revision[:12]}"
