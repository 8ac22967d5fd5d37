"""What the calls of a workflow's code ask for, as steps: which code, which arguments, how it is to be run.

A step is made here and nothing more: whether it is recorded already, and what becomes of it, is the driver's matter.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from michelangelo import errors
from michelangelo.engine import arguments, cache_variables, steps
from michelangelo.engine.cache_key import Recipe
from michelangelo.engine.callsites import CallSite
from michelangelo.engine.journal import StepType
from michelangelo.engine.steps import Policy, Step
from michelangelo.engine.surroundings import Surroundings
from michelangelo.executors.base import CallTarget, Resources
from michelangelo.uniflow import code_digest, codecs, source
from michelangelo.uniflow.code_digest import Code
from michelangelo.uniflow.runner import RunRequest
from michelangelo.uniflow.task import Task

__all__ = ["Calls"]


class Calls:
    """Used in the thread of the workflow."""

    def __init__(self, around: Surroundings, begun: Mapping[str, Step]) -> None:
        """`begun`: the steps that the workflow has come to, by identity; futures in arguments are of these."""
        self._around = around
        self._begun = begun
        self._codes: dict[int, tuple[Any, Code, CallTarget]] = {}

    def of_task(
        self, identity: str, site: CallSite, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Step:
        """Raises CodecError for an argument that cannot be carried, SourceError for a task that no other process could
        find."""
        task = cache_variables.applied(task, self._around.environment)
        code, target = self._code_of(task)
        encoded, futures = arguments.encode(task.name, args, kwargs, self._around.blobs)
        step = Step(
            id=identity,
            type=StepType.TASK,
            task=task.name,
            fingerprint=f"{code.digest[7:23]}:{codecs.digest(encoded)[7:39]}",
            location=errors.CodeLocation(site.file, site.line, site.function),
            target=target,
            policy=_policy(task, self._around),
            arguments=encoded,
            dependencies={future.step: self._begun[future.step] for future in futures},
        )
        self._take(step)
        if task.options.cache_enabled:
            lines = self._around.environments.cache_lines(task.options.requirements)
            step.cache_request = _recipe(task, code, lines).key
        return step

    def of_run(
        self, identity: str, site: CallSite, request: RunRequest, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Step:
        """The step of a run of another pipeline. Raises CodecError."""
        encoded, futures = arguments.encode(request.pipeline, args, kwargs, self._around.blobs)
        wanted = hashlib.sha256(f"{request.pipeline} {request.revision} {sorted(request.environ.items())}".encode())
        step = Step(
            id=identity,
            type=StepType.RUN,
            task=request.pipeline,
            fingerprint=f"{wanted.hexdigest()[:16]}:{codecs.digest(encoded)[7:39]}",
            location=errors.CodeLocation(site.file, site.line, site.function),
            arguments=encoded,
            request=request,
            dependencies={future.step: self._begun[future.step] for future in futures},
        )
        self._take(step)
        return step

    def _take(self, step: Step) -> None:
        """What an earlier run that this one continues has done of it."""
        earlier = self._around.earlier
        step.taken_over = earlier.take(step.id, step.task, step.fingerprint) if earlier else None

    def _code_of(self, task: Task[..., Any]) -> tuple[Code, CallTarget]:
        """Digest and place of a task's code, computed once per function: the same at every replay."""
        known = self._codes.get(id(task.fn))
        if known is None:
            target = source.target_of(task)
            place = CallTarget(target.path, target.module, target.qualname)
            known = self._codes[id(task.fn)] = (task.fn, code_digest.read_code(task), place)
        return known[1], known[2]


def _policy(task: Task[..., Any], around: Surroundings) -> Policy:
    options = task.options
    if options.config is not None and around.environment:
        path = f"{source.target_of(task).module}.{task.fn.__qualname__}"
        try:
            config = options.config.with_variables(around.environment, path)
        except ValueError as error:
            raise errors.SettingsError(str(error)) from error
        options = dataclasses.replace(options, config=config)
    resources = options.resources
    return Policy(
        executor=options.executor or around.default_executor,
        resources=Resources(resources.cpu, resources.memory_bytes, resources.gpu),
        retries=options.retries,
        timeout_seconds=options.timeout_seconds or 0.0,
        idempotent=options.idempotent,
        environment=dict(options.environment),
        config={
            **({} if options.config is None else options.config.settings()),
            **({} if options.image_spec is None else {"image": options.image_spec.to_json()}),
        },
        requirements=options.requirements,
        working_directory=options.working_directory or "",
        secrets=options.secrets,
        pending_timeout_seconds=options.pending_timeout_seconds or steps.PENDING_SECONDS,
    )


def _recipe(task: Task[..., Any], code: Code, requirements: Sequence[str]) -> Recipe:
    options = task.options
    return Recipe(
        task=task.name,
        code=code,
        parameters=tuple(task.signature.parameters.values()),
        version=options.cache_version or "",
        ttl_seconds=options.cache_ttl_seconds or 0.0,
        requirements=tuple(requirements),
    )
