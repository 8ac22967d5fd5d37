"""Executor configurations: what a task says about where it runs and what it may use.

A configuration is data. It names its executor and its resources; the executors themselves are another room, which this
one does not know. Executors for clusters (Ray, Spark) bring configurations of their own with the same base.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from michelangelo.meta.quantity import Quantity

__all__ = ["InProcess", "Process", "Resources", "TaskConfig", "memory_bytes", "merge"]

_C = TypeVar("_C", bound="TaskConfig")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one attempt of a task may use: cores, bytes of resident memory (0: no limit), GPUs."""

    cpu: float = 1.0
    memory_bytes: int = 0
    gpu: float = 0.0


@dataclass(frozen=True)
class TaskConfig:
    """Root of the executor configurations. A field that is None is left to the executor's default."""

    executor: ClassVar[str] = ""
    """The name of the executor; empty: the runner's default."""

    def resources(self) -> Resources:
        return Resources()

    def settings(self) -> dict[str, Any]:
        """What the executor is told beyond the resources, as plain JSON; part of no cache key."""
        return {}

    def with_variables(self, variables: Mapping[str, str], task_path: str) -> Self:
        """This with what environment variables say of it; `task_path` is `<module>.<function>`. Raises ValueError."""
        return self


@dataclass(frozen=True)
class InProcess(TaskConfig):
    """In a thread of the driver: no isolation, no memory limit, the least overhead. For light steps."""

    executor: ClassVar[str] = "inprocess"


@dataclass(frozen=True)
class Process(TaskConfig):
    """In a fresh process per attempt, the default. `memory` is a quantity (`512Mi`, `2G`) and a hard limit on the
    resident size of the task's process tree."""

    executor: ClassVar[str] = "process"
    cpu: float | None = None
    memory: str | int | None = None
    gpu: float | None = None

    def __post_init__(self) -> None:
        for name in ("cpu", "gpu"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"Process({name}={value!r}): must be 0 or more")
        self.resources()

    def settings(self) -> dict[str, Any]:
        return {} if self.cpu is None else {"cpu": self.cpu}

    def resources(self) -> Resources:
        defaults = Resources()
        return Resources(
            cpu=defaults.cpu if self.cpu is None else float(self.cpu),
            memory_bytes=0 if self.memory is None else memory_bytes(self.memory),
            gpu=defaults.gpu if self.gpu is None else float(self.gpu),
        )


def memory_bytes(quantity: str | int) -> int:
    """Bytes of a memory quantity as Kubernetes writes it: `1073741824`, `1Gi`, `1.5G`."""
    try:
        size = math.ceil(Quantity(quantity).nanos / 10**9)
    except ValueError as error:
        raise ValueError(f"memory={quantity!r}: must be a quantity of bytes such as 512Mi, 2Gi or 1.5G") from error
    if size < 0:
        raise ValueError(f"memory={quantity!r}: must not be negative")
    return size


def merge(config: _C | None, overrides: TaskConfig) -> TaskConfig:
    """`overrides` over `config`: field by field where both are of one class, else `overrides` alone."""
    if config is None or type(config) is not type(overrides):
        return overrides
    given: dict[str, Any] = {
        field.name: getattr(overrides, field.name)
        for field in dataclasses.fields(overrides)
        if getattr(overrides, field.name) is not None
    }
    return dataclasses.replace(config, **given)
