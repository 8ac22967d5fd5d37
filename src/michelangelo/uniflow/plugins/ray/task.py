"""`RayTask`: a task in a Ray cluster, on a local Ray or one that runs already; see docs/ray.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from michelangelo.uniflow import config
from michelangelo.uniflow.config import Resources, TaskConfig
from michelangelo.uniflow.plugins import fields

__all__ = ["RayTask"]


@dataclass(frozen=True)
class RayTask(TaskConfig):
    """What the task's function uses itself (`head_…`), and what each of `worker_instances` bundles holds for the Ray
    tasks, actors, Ray Data and Ray Train inside (`worker_…`). Sizes are quantities (`16Gi`) or bytes.

    None: 1 CPU, no GPU, no memory limit, no workers.
    """

    executor: ClassVar[str] = "ray"
    head_cpu: float | None = None
    head_memory: str | int | None = None
    """Reserved in Ray, and a hard limit on the resident size of the task's process tree."""
    head_disk: str | int | None = None
    """For executors that make machines; Ray itself knows no disks."""
    head_gpu: float | None = None
    head_object_store_memory: str | int | None = None
    """The size of a local Ray's object store; a cluster has its own."""
    worker_cpu: float | None = None
    worker_memory: str | int | None = None
    worker_disk: str | int | None = None
    worker_gpu: float | None = None
    worker_object_store_memory: str | int | None = None
    worker_instances: int | None = None
    breakpoint: bool | None = None
    """Keep the worker of a failed attempt for a day, so that it can be looked at; the log says where it is."""
    runtime_env: Mapping[str, Any] | None = None
    """Ray's own: `{"env_vars": …, "pip": […], "working_dir": …}`."""
    address: str | None = None
    """`host:port` of a Ray cluster that runs. None: that of the setting `ray_address`, or a local Ray for the run."""
    custom_resources: Mapping[str, float] | None = None
    """Resources that the cluster's nodes were started with, `{"fpga": 1}`; the task's own share."""
    gpu_sku: str | None = None
    """In a cluster: the accelerator type that Ray knows the node by, such as A100."""
    zone: str | None = None
    """In a cluster: the node's label `ray.io/availability-zone`."""

    def __post_init__(self) -> None:
        fields.check(self)
        for name in ("runtime_env", "custom_resources"):
            value = getattr(self, name)
            try:
                json.dumps(None if value is None else dict(value))
            except (TypeError, ValueError) as error:
                raise ValueError(f"RayTask({name}={value!r}): must be a dict of plain JSON: {error}") from error

    def resources(self) -> Resources:
        return Resources(
            cpu=1.0 if self.head_cpu is None else float(self.head_cpu),
            memory_bytes=0 if self.head_memory is None else config.memory_bytes(self.head_memory),
            gpu=float(self.head_gpu or 0),
        )

    def settings(self) -> dict[str, Any]:
        return fields.settings(self)

    def with_variables(self, variables: Mapping[str, str], task_path: str) -> Self:
        return fields.overridden(self, "RAY", variables, task_path)
