"""The contract between a controller and the one function that it exists for.

A reconciler is told *which* object to look at, and never what happened to it: it reads the present state, and does
what brings the world nearer to it. So a missed, repeated or reordered event cannot do harm, and a restart is nothing
special.

What its outcome means:

* `Result()`: fine; come back when something changes.
* `Result(requeue_after_seconds=n)`: fine; come back in n seconds even if nothing changes.
* `TerminalError`: wrong in a way that trying again cannot mend; come back when the object changes.
* any other exception: try again, after a delay that doubles with each failure in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from michelangelo import errors

__all__ = ["Reconciler", "Request", "Result", "TerminalError"]


@dataclass(frozen=True, slots=True, order=True)
class Request:
    """The object to look at. `kind` is for the few controllers that look at several kinds."""

    namespace: str
    """Empty for a cluster-scoped object."""
    name: str
    kind: str = ""

    def __str__(self) -> str:
        path = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {path}" if self.kind else path


@dataclass(frozen=True, slots=True)
class Result:
    requeue_after_seconds: float = 0.0
    """0: not before something changes."""


class TerminalError(errors.MichelangeloError):
    """Reconciling failed in a way that trying again cannot mend. The message is for whoever reads the object's
    events."""


class Reconciler(Protocol):
    """Called by several threads, but never by two for the same request at the same time."""

    def reconcile(self, request: Request) -> Result: ...
