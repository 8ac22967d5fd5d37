"""Runs that a run without a server starts: each gets a driver process of its own, which opens the home itself.

What a server's controllers do for runs is done here for the runs of one parent, by the same reconciler: pinning the
pipeline, starting drivers, starting them again when they die, giving up. Nothing is loaded and no thread runs before
the first such run is started. Where a server has the home too, it may start a driver as well; the run's lease decides.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from michelangelo import errors
from michelangelo.app import platform
from michelangelo.app.drivers import LocalDrivers
from michelangelo.app.settings import Settings
from michelangelo.client.client import Client, Object

if TYPE_CHECKING:
    from michelangelo.app.child_controller import ChildController
    from michelangelo.engine.childruns import ChildHost

__all__ = ["LocalChildren", "Refusing", "opened"]

_GRACE_SECONDS: Final = 10.0


class LocalChildren:
    """`engine.childruns.ChildHost` of the run `parent`."""

    def __init__(self, settings: Settings, client: Client, namespace: str, parent: str) -> None:
        self._client = client
        self._namespace = namespace
        self._parent = parent
        self._drivers = LocalDrivers(settings, lambda run: {})
        self._controller: ChildController | None = None
        self._lock = threading.Lock()
        self._runs: list[str] = []

    def drive(self, run: Object) -> None:
        with self._lock:
            self._runs.append(run["metadata"]["name"])
            if self._controller is None:
                # Only who starts runs pays for what drives them.
                module = importlib.import_module("michelangelo.app.child_controller")
                self._controller = module.ChildController(self._client, self._namespace, self._parent, self._drivers)

    def close(self) -> None:
        with self._lock:
            started, self._controller = self._controller, None
        if started is None:
            return
        # Those that are killed with their parent say so themselves; the others go on where the parent goes on.
        for name in self._runs:
            if self._is_killed(name):
                self._drivers.wait(self._namespace, name, _GRACE_SECONDS)
        started.stop()
        self._drivers.close()

    def _is_killed(self, name: str) -> bool:
        try:
            run = self._client.get("PipelineRun", name, namespace=self._namespace)
        except errors.NotFoundError:
            return False
        return bool(run["spec"].get("kill"))


class Refusing:
    """A `ChildHost` where there is nothing that a second process could open."""

    def drive(self, run: Object) -> None:
        raise errors.WorkflowError(
            "an ephemeral run keeps its objects in its own memory, so no other run can be started from it; run it "
            "without --ephemeral"
        )

    def close(self) -> None:
        pass


@contextmanager
def opened(settings: Settings, namespace: str, run: str) -> Iterator[tuple[Client, ChildHost]]:
    """The platform of the home, for the driver process of a run, and the host of the runs that this one starts."""
    with platform.Platform.open(settings) as embedded:
        host = LocalChildren(settings, embedded.client, namespace, run)
        try:
            yield embedded.client, host
        finally:
            host.close()
