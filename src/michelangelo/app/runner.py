"""`python flow.py`: a workflow called from plain Python becomes a run of the embedded platform, driven in this process.

The order of things is what makes it quick: first the process that tasks are forked from is started, then, while that
gets ready, the API with its models is imported. So this module imports none of that at its top. A run that was
interrupted stays as it is, and the same program with `--resume` continues it.
"""

from __future__ import annotations

import dataclasses
import importlib
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from michelangelo import errors
from michelangelo.app import hosting, settings
from michelangelo.uniflow import parameters, source
from michelangelo.uniflow.runner import RunOptions
from michelangelo.uniflow.workflow import Workflow

if TYPE_CHECKING:
    from michelangelo.app.embedded import EmbeddedRun

__all__ = ["EmbeddedRunner", "new_run_name"]


class EmbeddedRunner:
    """`uniflow.runner.Runner` on the embedded platform of the home folder."""

    def run(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: RunOptions,
    ) -> Any:
        """The workflow's result. Raises what the workflow raised; ArgumentsError before anything has started;
        WorkflowError when there is nothing to resume, or the code has changed since."""
        chosen = settings.load()
        options = dataclasses.replace(options, environ=settings.run_variables(options.environ))
        if options.project:
            settings.project_name("--project", options.project)
        if options.resume is None or args or kwargs:
            args, kwargs = parameters.check(workflow, args, kwargs)
        target = source.target_of(workflow)
        if not options.ephemeral:
            return self._run(chosen, target, workflow, (args, kwargs), options)
        if options.resume is not None:
            raise errors.WorkflowError("an ephemeral run keeps nothing, so there is nothing to resume")
        with tempfile.TemporaryDirectory(prefix="michelangelo-") as scratch:
            chosen = dataclasses.replace(chosen, home=Path(scratch), storage_url="")
            return self._run(chosen, target, workflow, (args, kwargs), options)

    def _run(
        self,
        chosen: settings.Settings,
        target: source.Target,
        workflow: Workflow[..., Any],
        call: tuple[tuple[Any, ...], Mapping[str, Any]],
        options: RunOptions,
    ) -> Any:
        host: hosting.TaskHost | None = None
        name = options.resume or ""
        if options.resume is None:
            name = new_run_name()
            if not chosen.storage_secret:
                # Else its processes need the credentials, which are known when the platform is open.
                host = hosting.TaskHost(chosen, name, chosen.blobs_url(durability="process"), target)
        try:
            # Only now, while the first process for tasks starts.
            embedded = importlib.import_module("michelangelo.app.embedded")
            run: EmbeddedRun
            with embedded.EmbeddedRun(chosen, workflow, options) as run:
                prepared = run.create(name, *call) if options.resume is None else run.find(name, *call)
                if host is None:
                    host = hosting.TaskHost(chosen, prepared.name, chosen.blobs_url(durability="process"), target)
                return run.drive(prepared, host)
        finally:
            if host is not None:
                host.close()


def new_run_name() -> str:
    """`run-YYYYMMDD-HHMMSS-<8 hex>`, in UTC."""
    return f"run-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
