"""`SparkTask`: a task that uses Spark, in local mode, in a fresh process; see docs/ray.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from michelangelo.uniflow.config import Resources, TaskConfig
from michelangelo.uniflow.plugins import fields

__all__ = ["SparkTask"]


@dataclass(frozen=True)
class SparkTask(TaskConfig):
    """`SparkSession.builder.getOrCreate()` in the task gives a session of this size. Sizes are quantities or bytes.

    In local mode driver and executors are one JVM: it gets as many threads as the executors have cores together (or
    the driver, where those say nothing), and the driver's memory. None: 1 core, Spark's own default of memory.
    """

    executor: ClassVar[str] = "process"
    driver_cpu: float | None = None
    driver_memory: str | int | None = None
    driver_disk: str | int | None = None
    """For executors that make machines, as the rest that local mode does not know."""
    driver_gpu: float | None = None
    executor_cpu: float | None = None
    executor_memory: str | int | None = None
    executor_disk: str | int | None = None
    executor_gpu: float | None = None
    executor_instances: int | None = None

    def __post_init__(self) -> None:
        fields.check(self)

    def resources(self) -> Resources:
        """No limit on the memory of the process tree: a JVM takes more than its heap."""
        return Resources(cpu=1.0 if self.driver_cpu is None else float(self.driver_cpu))

    def settings(self) -> dict[str, Any]:
        return {"spark": fields.settings(self)}

    def with_variables(self, variables: Mapping[str, str], task_path: str) -> Self:
        return fields.overridden(self, "SPARK", variables, task_path)
