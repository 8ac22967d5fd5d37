"""What a run is driven with, as the engine's parts see it. Who made these things closes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.engine.cache import Cache
from michelangelo.engine.childruns import ChildRuns
from michelangelo.engine.claims import Claims, ClaimSource
from michelangelo.engine.earlier import EarlierRun
from michelangelo.engine.environments import TaskEnvironments
from michelangelo.engine.journal import Entry, Journal
from michelangelo.engine.secrets import SecretSource
from michelangelo.engine.signals import SignalSource
from michelangelo.executors.base import Executor
from michelangelo.meta import timestamps

__all__ = ["Guard", "Lease", "Observer", "Surroundings", "WaitObserver", "instant"]

Guard = Callable[..., None]
"""Calls a function with arguments on the engine's thread; what the function raises ends the run."""


class Lease(Protocol):
    """The right to drive the run (`runtime.leases.Lease`)."""

    @property
    def is_held(self) -> bool: ...


class Observer(Protocol):
    """Told of every recorded start and end, on the engine's thread; must be quick and must not raise."""

    def restored(self, entries: Sequence[Entry]) -> None:
        """What earlier drivers recorded; the first call."""
        ...

    def changed(self, entry: Entry) -> None: ...


@runtime_checkable
class WaitObserver(Protocol):
    """Capability of an observer: told of steps that cannot start yet, with the reason, for people."""

    def waiting(self, step: str, task: str, reason: str) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    run: str
    journal: Journal
    executors: Mapping[str, Executor]
    blobs: BlobStore
    driver: str
    """Identity of this driver, written into every entry."""
    lease: Lease | None = None
    cache: Cache | None = None
    claims: Claims | None = None
    watch_claims: ClaimSource | None = None
    """None, like `claims`: what others compute at the same time is computed here too."""
    signals: SignalSource | None = None
    children: ChildRuns | None = None
    secrets: SecretSource | None = None
    environments: TaskEnvironments = dataclasses.field(default_factory=TaskEnvironments)
    earlier: EarlierRun | None = None
    log_folder: str = ""
    """Where the logs of the run's attempts go; entries name them by `<project>/<run>/<attempt>.log`. Empty: nowhere."""
    observers: Sequence[Observer] = ()
    project: str = ""
    default_executor: str = "process"
    unknown_is_retried: bool = False
    """Whether steps whose outcome is unknown, and for which nothing else was decided, are run again."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables that every task of the run gets."""

    def check_lease(self) -> None:
        """Before every write. Raises LeaseLostError."""
        if self.lease is not None and not self.lease.is_held:
            raise errors.LeaseLostError(
                f"the lease of run {self.run} could not be renewed in time; another driver may own the run now"
            )


def instant(delay_seconds: float = 0.0) -> str:
    """Now, or `delay_seconds` later, as the journal has it."""
    return timestamps.format_micros(datetime.now(UTC) + timedelta(seconds=delay_seconds))
