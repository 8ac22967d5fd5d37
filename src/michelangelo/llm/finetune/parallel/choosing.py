"""The strategy that a configuration asks for, in one process of a run. It starts no processes; `launching` does."""

from __future__ import annotations

import importlib.util
from typing import Final

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.parallel import deepspeed_engine, replicated, shard_optimizer, sharded
from michelangelo.llm.finetune.strategy import SingleProcess, Strategy

__all__ = ["check", "make"]

_EIGHT_BITS: Final = ("adamw_8bit", "paged_adamw_8bit")


def check(config: FinetuneConfig, *, num_workers: int) -> None:
    """Raises SettingsError with everything that so many processes cannot do."""
    parallel, optimizer = config.parallel, config.optimizer.name
    wrong = []
    if num_workers % parallel.tensor_parallel:
        wrong.append(f"parallel.tensor_parallel: {parallel.tensor_parallel} does not divide {num_workers} workers")
    if parallel.tensor_parallel > 1 and config.adapter.method != "full":
        wrong.append("parallel.tensor_parallel: adapters are trained with sharding fsdp2 instead")
    if parallel.sharding == "none" and 1 < parallel.tensor_parallel < num_workers:
        wrong.append("parallel.sharding: none has no room for both data and tensor parallel; use fsdp2")
    if parallel.sharding == "none" and parallel.offload != "none" and num_workers > 1:
        wrong.append("parallel.offload: several workers need sharding fsdp2 or zero1, zero2, zero3")
    if parallel.tensor_parallel > 1 and parallel.offload != "none":
        wrong.append("parallel.offload: is done without tensor_parallel only")
    if optimizer in _EIGHT_BITS and parallel.sharding != "none" and num_workers > 1:
        wrong.append(f"optimizer.name: the states of {optimizer} cannot be divided; use adamw, or sharding none")
    if parallel.engine == "deepspeed":
        wrong += _wrong_for_deepspeed(config)
    if wrong:
        raise errors.SettingsError("wrong fields:\n" + "\n".join(f"  {line}" for line in wrong))


def make(config: FinetuneConfig, *, device: torch.device) -> Strategy:
    """The same kind in every process, whose group is there already; one process alone needs none.

    Raises SettingsError where the configuration asks for what so many processes cannot do.
    """
    parallel = config.parallel
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    check(config, num_workers=world_size)
    terms = shard_optimizer.OptimizerTerms(
        config.optimizer, config.training.precision, config.training.gradient_accumulation > 1
    )
    if parallel.engine == "deepspeed":
        return deepspeed_engine.DeepSpeedEngine(device, config)
    if world_size == 1 and parallel.offload != "parameters":
        return SingleProcess(device)
    if parallel.sharding == "none" and parallel.tensor_parallel == 1:
        return replicated.Replicated(device)
    is_alone = not dist.is_initialized()
    if is_alone:
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    shape = (world_size // parallel.tensor_parallel, parallel.tensor_parallel)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("data", "tensor"))
    return sharded.Sharded(
        device, mesh, sharded.Sharing(parallel.sharding, parallel.offload, terms, ends_group=is_alone)
    )


def _wrong_for_deepspeed(config: FinetuneConfig) -> list[str]:
    wrong = []
    if config.parallel.sharding not in ("zero1", "zero2", "zero3"):
        wrong.append(f"parallel.engine: DeepSpeed does zero1, zero2 and zero3, not {config.parallel.sharding}")
    if config.parallel.tensor_parallel > 1:
        wrong.append("parallel.tensor_parallel: is done with engine torch only")
    if config.optimizer.name != "adamw":
        wrong.append(f"optimizer.name: DeepSpeed steps with adamw here, not {config.optimizer.name}")
    if importlib.util.find_spec("deepspeed") is None:
        wrong.append("parallel.engine: deepspeed is not installed: pip install 'michelangelo-oss[deepspeed]'")
    return wrong
