"""What an attempt asks of Ray, made of its configuration; and, for people, what a cluster lacks for it.

Pure: it knows no process and no cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from michelangelo.executors.base import Attempt

__all__ = ["STARTING", "Offer", "Request", "shortage"]

STARTING: Final = "waits for a worker process"

_SPARE_CPUS: Final = 2.0
"""Logical CPUs of a local Ray beside those that a task with workers reserves: for what Ray's libraries place freely.
Ray Train reserves its workers by itself, so there is room for them once more."""


@dataclass(frozen=True, slots=True)
class Request:
    """`head` and `worker` are Ray's names (CPU, GPU, memory in bytes, custom ones) with amounts."""

    head: Mapping[str, float]
    worker: Mapping[str, float] = field(default_factory=dict)
    instances: int = 0
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    address: str = ""
    """Empty: the local Ray."""
    object_store_bytes: int = 0
    accelerator: str = ""
    zone: str = ""
    breakpoint: bool = False

    @classmethod
    def of(cls, attempt: Attempt, *, address: str = "") -> Self:
        """`address` is for attempts that name none. The requirements of the attempt become part of its runtime_env."""
        config = attempt.config
        address = str(config.get("address") or address)
        custom = {str(name): float(amount) for name, amount in (config.get("custom_resources") or {}).items()}
        environment = dict(config.get("runtime_env") or {})
        if attempt.requirements and not {"pip", "uv", "conda"} & environment.keys():
            environment["uv"] = list(attempt.requirements)
        return cls(
            head=_bundle(attempt.resources.cpu, attempt.resources.gpu, config.get("head_memory", 0), custom),
            worker=_bundle(config.get("worker_cpu", 1.0), config.get("worker_gpu", 0), config.get("worker_memory", 0)),
            instances=int(config.get("worker_instances") or 0),
            runtime_env=environment,
            address=address,
            object_store_bytes=int(config.get("head_object_store_memory") or 0),
            accelerator=str(config.get("gpu_sku") or "") if address else "",
            zone=str(config.get("zone") or "") if address else "",
            breakpoint=bool(config.get("breakpoint")),
        )

    def bundles(self) -> list[dict[str, float]]:
        return [dict(self.head), *(dict(self.worker) for _ in range(self.instances))]

    def totals(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for bundle in self.bundles():
            for name, amount in bundle.items():
                totals[name] = totals.get(name, 0.0) + amount
        return totals

    def to_json(self) -> dict[str, Any]:
        return {
            "head": dict(self.head),
            "worker": dict(self.worker),
            "instances": self.instances,
            "runtime_env": dict(self.runtime_env),
            "address": self.address,
            "accelerator": self.accelerator,
            "zone": self.zone,
            "breakpoint": self.breakpoint,
        }

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        return cls(**message)


@dataclass(frozen=True, slots=True)
class Offer:
    """The size of a local Ray. CPUs are logical: more than the machine has, if tasks ask for them. GPUs are those that
    Ray finds."""

    resources: Mapping[str, float]
    """CPU, memory in bytes (none: what Ray takes by itself) and custom ones."""
    object_store_bytes: int = 0

    def covers(self, request: Request) -> bool:
        return all(self.resources.get(name, 0.0) >= amount for name, amount in _needs(request).items()) and (
            request.object_store_bytes <= self.object_store_bytes
        )

    def with_room_for(self, request: Request) -> Offer:
        resources = dict(self.resources)
        for name, amount in _needs(request).items():
            resources[name] = max(resources.get(name, 0.0), amount)
        return Offer(resources, max(self.object_store_bytes, request.object_store_bytes))


def shortage(
    request: Request, total: Mapping[str, float], free: Mapping[str, float], nodes: Sequence[Mapping[str, float]]
) -> str:
    """Why an attempt has not started, for people. `total` and `free` are the cluster's, `nodes` what each node has."""
    never, busy = [], []
    for name, amount in request.totals().items():
        if amount > total.get(name, 0.0):
            has = f"the cluster has {_shown(name, total.get(name, 0.0))}, {_shown(name, free.get(name, 0.0))} free"
            never.append(f"needs {_shown(name, amount)} {_NAMES.get(name, name)}; {has}")
        elif amount > free.get(name, 0.0):
            has = f"{_shown(name, free.get(name, 0.0))} of {_shown(name, total[name])} are free"
            busy.append(f"waits for {_shown(name, amount)} {_NAMES.get(name, name)}; {has}")
    if never or busy:
        return "; ".join(never or busy)
    for bundle in request.bundles():
        if nodes and not any(all(node.get(name, 0.0) >= amount for name, amount in bundle.items()) for node in nodes):
            wanted = ", ".join(f"{_shown(name, amount)} {_NAMES.get(name, name)}" for name, amount in bundle.items())
            return f"needs a node with {wanted}; none of the {len(nodes)} nodes has that"
    if request.accelerator or request.zone:
        wanted = " and ".join(
            f"{what} {name}" for what, name in (("accelerator", request.accelerator), ("zone", request.zone)) if name
        )
        return f"waits for a node with {wanted}"
    return "waits for its environment" if request.runtime_env else STARTING


_NAMES: Final[Mapping[str, str]] = {"memory": "of memory"}


def _bundle(
    cpu: float | None, gpu: float | None, memory: float | None, custom: Mapping[str, float] | None = None
) -> dict[str, float]:
    amounts = {"CPU": float(cpu or 0), "GPU": float(gpu or 0), "memory": float(memory or 0), **(custom or {})}
    return {name: amount for name, amount in amounts.items() if amount}


def _needs(request: Request) -> dict[str, float]:
    needs = {name: amount for name, amount in request.totals().items() if name != "GPU"}
    if request.instances:
        workers = request.instances * request.worker.get("CPU", 0.0)
        needs["CPU"] = needs.get("CPU", 0.0) + max(_SPARE_CPUS, workers)
    return needs


def _shown(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / (1 << 30):.1f} GiB"
    return f"{amount:g}"
