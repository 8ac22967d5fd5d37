"""Seconds that collectives take: rings within a node and between nodes, and how much of them computation hides.

Per GPU, in closed form. The volumes are those of bandwidth-optimal rings (Patarasuk and Yuan 2009, "Bandwidth optimal
all-reduce algorithms"; NCCL-tests' PERFORMANCE.md): n GPUs gather or scatter D bytes in (n - 1) / n x D / rate, and
reduce to all in twice that.
"""

from __future__ import annotations

from dataclasses import dataclass

from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.kernels import Rates
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Volumes", "all_reduce", "gather", "per_pass"]

_STEP_LATENCY = 10e-6
"""Of one hop of a ring, seconds (NCCL-tests: 10-20 microseconds for small messages within a node)."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """Seconds per GPU."""

    per_pass: float
    """In each forward and backward pass (fully sharded weights: gathered twice, gradients scattered once)."""
    per_step: float
    """Once per optimizer step."""
    tensor: float
    """Of tensor parallelism, in each pass."""


def gather(size: float, num_gpus: int, hardware: Hardware, rates: Rates, *, local: int | None = None) -> float:
    """All-gather, or reduce-scatter, of `size` bytes in all over `num_gpus`, of which `local` are in a node."""
    if num_gpus <= 1 or size <= 0:
        return 0.0
    local = min(local or hardware.gpus_per_node, num_gpus)
    nodes = -(-num_gpus // local)
    within = size * (num_gpus - 1) / num_gpus / (hardware.link_bandwidth * rates.link) if local > 1 else 0.0
    if nodes == 1:
        return within + _STEP_LATENCY * (local - 1)
    # Each node takes in what the others have, through all of its network cards at once.
    between = size * (nodes - 1) / nodes / (hardware.network_bandwidth * rates.network)
    return max(within, between) + _STEP_LATENCY * (nodes - 1 + local - 1)


def all_reduce(size: float, num_gpus: int, hardware: Hardware, rates: Rates, *, local: int | None = None) -> float:
    """A reduce-scatter and an all-gather."""
    return 2 * gather(size, num_gpus, hardware, rates, local=local)


def per_pass(
    setup: TrainingSetup, hardware: Hardware, rates: Rates, *, weights: float, trained: float, activation: float
) -> Volumes:
    """`weights`: bytes of all weights on a tensor-parallel rank, as they are gathered; `trained`: parameters with
    gradients there; `activation`: bytes of one pass's residual stream times the reductions that tensor parallelism
    makes of it, forward and backward."""
    replicas, element = setup.data_parallel, 4 if setup.precision == "fp32" else 2
    local = max(1, min(setup.gpus_per_node, setup.num_gpus) // setup.tensor_parallel)
    each_pass = each_step = 0.0
    if setup.sharding in ("fsdp2", "zero3"):
        each_pass = 2 * gather(weights, replicas, hardware, rates, local=local)
        each_pass += gather(trained * element, replicas, hardware, rates, local=local)
    elif setup.sharding in ("zero1", "zero2"):
        scatter = gather(trained * element, replicas, hardware, rates, local=local)
        each_pass = scatter if setup.sharding == "zero2" else 0.0
        each_step = gather(trained * element, replicas, hardware, rates, local=local)
        each_step += 0.0 if setup.sharding == "zero2" else scatter
    else:
        each_step = all_reduce(trained * element, replicas, hardware, rates, local=local)
    tensor = all_reduce(activation, setup.tensor_parallel, hardware, rates, local=setup.gpus_per_node)
    return Volumes(each_pass, each_step, tensor)
