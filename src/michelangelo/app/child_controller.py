"""The controller of the runs that one run has started, where no server is there to have it.

It is the one of the server, and sees less: those runs, and the leases of their project.
"""

from __future__ import annotations

from typing import Final

from michelangelo.client.client import Client
from michelangelo.client.informer import Informer
from michelangelo.controllers import pipeline_run
from michelangelo.controllers.pipeline_run import Drivers
from michelangelo.meta import labels
from michelangelo.runtime import controller
from michelangelo.runtime.controller import Controller, Source

__all__ = ["ChildController"]

_SYNC_SECONDS: Final = 30.0


class ChildController:
    """Works from the moment it is made until `stop`."""

    def __init__(self, client: Client, namespace: str, parent: str, drivers: Drivers) -> None:
        selector = f"{labels.PARENT_RUN}={parent}"
        runs = Informer(client, "PipelineRun", namespace=namespace, label_selector=selector)
        leases = Informer(client, "Lease", namespace=namespace)
        self._informers = (runs, leases)
        reconciler = pipeline_run.PipelineRunReconciler(client, runs, leases, drivers)
        ends = Source(leases, controller.label(labels.PIPELINE_RUN), types=frozenset(("ADDED", "DELETED")))
        self._controller = Controller("child-runs", reconciler, [Source(runs, controller.itself), ends], num_workers=1)
        for informer in self._informers:
            informer.start()
        for informer in self._informers:
            informer.wait_synced(_SYNC_SECONDS)
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()
        for informer in self._informers:
            informer.stop()
