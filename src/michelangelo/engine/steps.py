"""A step as its driver holds it, and the rule that says what follows from the end of an attempt.

`judge` is pure: policy, earlier attempts and an outcome in, a verdict out; the scheduler acts on it and the tests try
all of it without a process. Two budgets are kept apart: the user's retries count what the user's code did (it raised,
took too long, took too much memory); losses count what happened to it (its worker or its driver went away).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from michelangelo import errors
from michelangelo.engine import failures
from michelangelo.engine.cache_key import CacheKey
from michelangelo.engine.journal import Entry, EntryState, StepType
from michelangelo.executors.base import AttemptState, CallTarget, Resources
from michelangelo.uniflow import retry
from michelangelo.uniflow.retry import Retry
from michelangelo.uniflow.runner import RunRequest
from michelangelo.uniflow.secret import Secret

__all__ = ["PENDING_SECONDS", "Policy", "Step", "Verdict", "judge"]

_LOSSES = 3
PENDING_SECONDS: Final = 3600.0
"""How long an attempt may wait for room, unless its task says otherwise."""
_ANY_RESOURCES = Resources()


@dataclass(frozen=True, slots=True)
class Policy:
    """How a task wants to be run."""

    executor: str = "process"
    resources: Resources = _ANY_RESOURCES
    retries: Retry = retry.NEVER
    timeout_seconds: float = 0.0
    idempotent: bool = True
    losses: int = _LOSSES
    """How many times the worker or the driver may be lost before the step fails."""
    environment: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the executor is told beyond the resources."""
    requirements: Sequence[str] = ()
    """As the task's author wrote them."""
    working_directory: str = ""
    secrets: Sequence[Secret] = ()
    pending_timeout_seconds: float = PENDING_SECONDS


@dataclass(eq=False, slots=True)
class Step:
    """One step of a run in progress. The workflow's thread makes it; from then on only the engine's thread changes it,
    and `final`, set once, is what the workflow's thread waits for."""

    id: str
    type: StepType
    task: str
    fingerprint: str
    location: errors.CodeLocation | None = None
    node: str = ""
    """The node of the workflow's graph."""
    target: CallTarget | None = None
    policy: Policy = Policy()
    request: RunRequest | None = None
    """Of a step that is a run of another pipeline."""
    arguments: Any = None
    """Encoded; a future in it stands as a reference to its step until `dependencies` have ended."""
    dependencies: Mapping[str, Step] = field(default_factory=dict)
    cache_request: Callable[[Any], CacheKey] | None = None
    """The key of the cache for the arguments, where the task asks for the cache."""
    cache: CacheKey | None = None
    taken_over: Entry | None = None
    """The success of an earlier run that this step takes over."""
    cache_miss: Mapping[str, Any] = field(default_factory=dict)
    """Why nothing was found, as details of the first attempt."""
    attempts: list[Entry] = field(default_factory=list)
    final: Entry | None = None
    blockers: int = 0
    dependents: list[Step] = field(default_factory=list)

    @property
    def current(self) -> Entry | None:
        """The attempt that runs now, or None."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].state is EntryState.RUNNING else None

    @property
    def completion(self) -> int:
        return self.final.completion if self.final else 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is recorded for the attempt, and whether another one follows, after `delay_seconds`."""

    state: EntryState
    final: bool
    error: Mapping[str, Any] | None = None
    delay_seconds: float = 0.0


def judge(
    policy: Policy,
    earlier: Sequence[Entry],
    outcome: AttemptState,
    error: Mapping[str, Any] | None = None,
    *,
    seed: str = "",
) -> Verdict:
    """What follows when an attempt ends with `outcome`, after the attempts `earlier`. `seed` fixes the jitter of
    delays."""
    if outcome is AttemptState.SUCCEEDED:
        return Verdict(EntryState.SUCCEEDED, final=True)
    error = failures.named(outcome, error, policy.timeout_seconds)
    if outcome is AttemptState.KILLED:
        return Verdict(EntryState.KILLED, final=True, error=error)
    if outcome is AttemptState.LOST:
        return _judge_loss(policy, earlier, error)
    failed = 1 + sum(entry.state is EntryState.FAILED for entry in earlier)
    if failed <= policy.retries.attempts and policy.retries.matches(failures.type_names(error)):
        delay = retry.delay_seconds(policy.retries, failed, seed=seed)
        return Verdict(EntryState.FAILED, final=False, error=error, delay_seconds=delay)
    return Verdict(EntryState.FAILED, final=True, error=error)


def _judge_loss(policy: Policy, earlier: Sequence[Entry], error: Mapping[str, Any]) -> Verdict:
    if not policy.idempotent:
        return Verdict(EntryState.UNKNOWN, final=False, error=error)
    losses = 1 + sum(entry.state is EntryState.LOST for entry in earlier)
    return Verdict(EntryState.LOST, final=losses >= policy.losses, error=error)
