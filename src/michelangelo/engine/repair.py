"""Data that was lost or damaged is made again: the step that once made it runs once more, then its consumer goes on.

A blob is named by its content, so what was lost is back when a step gives the same bytes again; when it gives others
(it draws random numbers, say) the consumer fails as it would have failed at once. The extra run has a TaskRun of its
own (`<step>~again…`), which tells nothing to the workflow and is passed over by replay. Only steps that may run twice
are run, and consumers that may; each consumer gets one such chance per blob. Which attempt is judged how stays the
scheduler's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.engine import arguments
from michelangelo.engine.journal import Entry, EntryState, StepType
from michelangelo.engine.steps import Step
from michelangelo.engine.surroundings import Surroundings, instant
from michelangelo.meta import labels
from michelangelo.uniflow import codecs, retry

__all__ = ["Repairs", "is_repair", "lost_blob"]

_BLOB: Final = re.compile(r"\bblob (sha256:[0-9a-f]{64})")
_OF_DATA: Final = {f"{errors.__name__}.{cls.__name__}" for cls in (errors.IntegrityError, errors.StorageError)}


def is_repair(entry: Entry) -> bool:
    """Whether an entry is such an extra run, which no workflow has called."""
    return labels.REPAIR_MARK in entry.step


def lost_blob(error: Mapping[str, Any] | None) -> str:
    """The digest of the blob for whose loss or damage an attempt failed; empty when it failed for anything else."""
    if error is None or error.get("type") not in _OF_DATA:
        return ""
    found = _BLOB.search(str(error.get("message", "")))
    return found[1] if found else ""


class Repairs:
    """Used on the engine's thread."""

    def __init__(self, around: Surroundings, steps: Callable[[], Collection[Step]]) -> None:
        """`steps` gives all steps that the workflow has come to."""
        self._around = around
        self._steps = steps
        self._again: dict[str, Step] = {}
        """By digest: the extra run for it, going on or ended."""
        self._tried: set[tuple[str, str]] = set()
        self._suffix = hashlib.sha256(around.driver.encode()).hexdigest()[:8]

    def restore(self, entries: Iterable[Entry]) -> None:
        """End what earlier drivers left running; before anything is started."""
        for entry in entries:
            if is_repair(entry) and entry.state is EntryState.RUNNING:
                self._around.journal.end(
                    dataclasses.replace(entry, state=EntryState.LOST, final=True, ended_at=instant())
                )

    def of(self, consumer: Step, error: Mapping[str, Any] | None) -> Step | None:
        """The extra run after which `consumer`, whose attempt failed with `error`, may go on; it may have ended, or be
        one that is to be started (`attempts` is empty). None when nothing can be made again."""
        digest = lost_blob(error)
        if not digest or not consumer.policy.idempotent or (consumer.id, digest) in self._tried:
            return None
        self._tried.add((consumer.id, digest))
        known = self._again.get(digest)
        if known is not None:
            return known
        producer = self._producer(digest)
        if producer is None or producer is consumer:
            return None
        # A repair whose own input is gone too has that made again first: it is a consumer like any other.
        again = self._again[digest] = dataclasses.replace(
            producer,
            # Not the name that an earlier driver of this run gave to its own.
            id=f"{producer.id}{labels.REPAIR_MARK}-{len(self._again) + 1}-{self._suffix}",
            arguments=self._arguments(producer),
            dependencies={},
            dependents=[],
            attempts=[],
            blockers=0,
            cache=None,
            cache_request=None,
            cache_miss={},
            taken_over=None,
            final=None,
            policy=dataclasses.replace(producer.policy, retries=retry.NEVER),
        )
        return again

    def _producer(self, digest: str) -> Step | None:
        """The step whose recorded result names the blob: of several the first that was called."""
        for step in [*self._steps(), *self._again.values()]:
            if step.type is not StepType.TASK or step.final is None or step.target is None:
                continue
            recorded = step.final.state in (EntryState.SUCCEEDED, EntryState.CACHED)
            if recorded and step.policy.idempotent and digest in codecs.blobs_in(step.final.output):
                return step
        return None

    def _arguments(self, step: Step) -> Any:
        """Encoded, with the results of other steps in their places; these have ended, as this one has."""

        def output(name: str) -> Any:
            final = step.dependencies[name].final
            return final.output if final else None

        return arguments.resolve(step.arguments, output, self._around.blobs) if step.dependencies else step.arguments
