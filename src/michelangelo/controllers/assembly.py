"""All controllers of a server, put into one manager."""

from __future__ import annotations

from collections.abc import Callable

from michelangelo.api.v2 import registry
from michelangelo.controllers import event, garbage_collector, namespace, pipeline, pipeline_run, project
from michelangelo.controllers.pipeline_run import Drivers
from michelangelo.runtime.controller import Controller, Observation, Source
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Reconciler
from michelangelo.runtime.recorder import Recorder

__all__ = ["add_all"]


def add_all(
    manager: Manager,
    drivers: Drivers,
    *,
    is_kubernetes: bool = False,
    observe: Callable[[Observation], None] | None = None,
) -> dict[str, Controller]:
    """Add every controller to `manager`, before it is started; returns them by name, to `enqueue` by hand.

    `is_kubernetes`: the API server is that of a cluster, which empties namespaces, collects owners' garbage and forgets
    events itself. `observe` is called after each pass of each reconciler, from the controllers' threads.
    """
    client, informer = manager.client, manager.informer
    added: dict[str, Controller] = {}

    def add(name: str, reconciler: Reconciler, sources: list[Source], num_workers: int = 1) -> None:
        recorder = Recorder(client, name)
        one = Controller(name, reconciler, sources, recorder=recorder, num_workers=num_workers, observe=observe)
        manager.add(one)
        added[name] = one

    projects = project.ProjectReconciler(client, informer("Project"), informer("Namespace"))
    add("project", projects, project.sources(manager))
    pipelines = pipeline.PipelineReconciler(client, informer("Pipeline"), informer("Revision"))
    add("pipeline", pipelines, pipeline.sources(manager))
    runs = pipeline_run.PipelineRunReconciler(client, informer("PipelineRun"), informer("Lease"), drivers)
    add("pipeline-run", runs, pipeline_run.sources(manager), num_workers=2)
    if not is_kubernetes:
        namespaces = namespace.NamespaceReconciler(client, informer("Namespace"))
        add("namespace", namespaces, namespace.sources(manager))
        add("event", event.EventReconciler(client, informer("Event")), event.sources(manager))
        informers = {kind: informer(kind) for kind in registry.KINDS}
        collector = garbage_collector.GarbageCollector(client, informers)
        add("garbage-collector", collector, garbage_collector.sources(manager), num_workers=2)
    return added
