"""Upstream's `run_pipeline`: `uniflow.run_pipeline` with upstream's parameters and names of states."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from michelangelo.errors import ArgumentsError
from michelangelo.uniflow import pipelines, runner
from michelangelo.uniflow.future import Future

__all__ = ["run_pipeline", "submit_pipeline", "told"]

_PREFIX: Final = "PIPELINE_RUN_STATE_"


def run_pipeline(
    namespace: str,
    pipeline_name: str,
    pipeline_revision: str | None = None,
    environ: Mapping[str, Any] | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    timeout_seconds: float = 0,
    **options: Any,
) -> dict[str, Any]:
    """Run another pipeline and wait for its end: `{"metadata": {"name", "namespace"}, "status": {"state"}, "result"}`,
    the state as upstream has it (`PIPELINE_RUN_STATE_SUCCEEDED`).

    `options`: `poll_seconds`, which is not needed, for nothing is polled; `input_data`, arguments by name in the place
    of the others; `actor`. Raises RuntimeError when that run fails or is killed, TimeoutError.
    """
    given = {"environ": environ, "args": args, "kwargs": kwargs, "timeout_seconds": timeout_seconds}
    return told(submit_pipeline(namespace, pipeline_name, pipeline_revision, **given, **options).result())


def submit_pipeline(
    namespace: str, pipeline_name: str, pipeline_revision: str | None = None, **options: Any
) -> Future[dict[str, Any]]:
    """Start it and go on; `told` makes of the future's result what `run_pipeline` returns. Same parameters."""
    given = dict(options)
    given.pop("poll_seconds", None)
    environ, args, kwargs = (given.pop(name, None) for name in ("environ", "args", "kwargs"))
    input_data = given.pop("input_data", None)
    if input_data is not None and (environ is not None or args is not None or kwargs is not None):
        raise ValueError("give either input_data or environ, args and kwargs, not both")
    run = runner.current_run()
    if run is not None and namespace != run.project:
        raise ArgumentsError(
            f"run_pipeline({namespace!r}, {pipeline_name!r}): this run is of project {run.project}, and starts "
            f"pipelines of its own project only; run it there (--project {namespace}), or register the pipeline here"
        )
    return pipelines.submit_pipeline(
        pipeline_name,
        revision=pipeline_revision or "",
        environ={name: str(value) for name, value in (environ or {}).items()},
        args=args or (),
        kwargs=kwargs if input_data is None else input_data,
        timeout_seconds=given.pop("timeout_seconds", None) or 0.0,
        actor=given.pop("actor", None) or "",
        **given,
    )


def told(found: dict[str, Any]) -> dict[str, Any]:
    """How a run ended, with upstream's name of the state."""
    state = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", found["status"]["state"]).upper()
    return {**found, "status": {**found["status"], "state": _PREFIX + state}}
