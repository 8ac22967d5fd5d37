"""Weights, gradients and optimizer states divided among the processes, by torch's fully_shard (FSDP2).

`fsdp2` and `zero3`: each layer is gathered where it is computed. `zero2`: layers stay whole from the forward to the
backward pass, gradients are divided. `zero1`: gradients, too, stay whole until the last pass of a step. Where DeepSpeed
is asked for, `deepspeed_engine` does the last three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from transformers import PreTrainedModel

from michelangelo.llm.finetune import model as models
from michelangelo.llm.finetune import optimizers, strategy
from michelangelo.llm.finetune.parallel import shard_optimizer, tensor_parallel
from michelangelo.llm.finetune.strategy import Accept, MakeOptimizer
from michelangelo.llm.training_setup import Offload, Sharding

__all__ = ["Sharded", "Sharing"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """What is divided, and where what is divided rests."""

    sharding: Sharding
    offload: Offload
    terms: shard_optimizer.OptimizerTerms
    ends_group: bool = False
    """The group of processes was made for this strategy alone."""


class Sharded:
    """`mesh`: dimensions `data` and `tensor`, all processes of the run."""

    def __init__(self, device: torch.device, mesh: DeviceMesh, sharing: Sharing) -> None:
        self.device = device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.data_rank, self.data_parallel = mesh.get_local_rank("data"), mesh["data"].size()
        self._mesh = mesh
        self._sharing = sharing
        self._model: nn.Module | None = None
        self._optimizer: optimizers.NamedOptimizer | None = None
        self._groups: list[FSDPModule] = []

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> optimizers.NamedOptimizer:
        """The optimizer is over the parts of this process; on the host it is the one that `make_optimizer` makes."""
        assert isinstance(model, PreTrainedModel)
        self._model = model
        tie = None
        if self._mesh["tensor"].size() > 1:
            names = tensor_parallel.divide(model, self._mesh["tensor"])
            tie = shard_optimizer.Tie(names, self._mesh["tensor"].get_group())
        if self._shards:
            self._shard(model)
        else:
            model.to(self.device)  # type: ignore[arg-type]
        named = strategy.trained_parameters(model)
        if self._sharing.offload == "none":
            self._optimizer = shard_optimizer.build(named, self._sharing.terms, tie=tie)
        else:
            self._optimizer = make_optimizer(named)
        return self._optimizer

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        if self._sharing.sharding == "zero1" and self._groups:
            self._groups[-1].set_requires_gradient_sync(is_last)
            self._groups[-1].set_reshard_after_backward(is_last)
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, max_grad_norm: float, accept: Accept = optimizers.finite) -> float:
        optimizer = self._prepared()[1]
        self._reshard()
        return optimizer.clip_and_step(max_grad_norm, accept)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total, group=self._mesh["data"].get_group())
        return total

    def model_state(self) -> dict[str, Any]:
        self._reshard()
        return strategy.trained_state(self._prepared()[0])

    def optimizer_state(self) -> dict[str, Any]:
        return self._prepared()[1].named_state()

    def load_state(self, model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
        module, stepper = self._prepared()
        self._reshard()
        strategy.load_trained_state(module, model)
        stepper.load_named_state(optimizer)

    def barrier(self) -> None:
        dist.barrier()

    def close(self) -> None:
        if self._sharing.ends_group and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def _shards(self) -> bool:
        """With one process there is nothing to divide; its weights may rest in the host's memory."""
        return self.data_parallel > 1 or self._sharing.offload == "parameters"

    def _shard(self, model: PreTrainedModel) -> None:
        offload = OffloadPolicy()
        if self._sharing.offload == "parameters":
            offload = CPUOffloadPolicy(pin_memory=self.device.type == "cuda")
        terms: dict[str, Any] = {
            "mesh": self._mesh["data"],
            # Weights are in the dtype that computes already; gradients are summed in fp32, and kept in their dtype.
            "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
            "offload_policy": offload,
        }
        gathers_again = self._sharing.sharding in ("fsdp2", "zero3")
        modules = [*models.decoder_layers(model), model]
        for module in modules:
            last = module is model
            made = fully_shard(module, reshard_after_forward=False if last else gathers_again, **terms)
            # A loss is a share of the mean over all processes, so gradients are summed, not averaged.
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)
            self._groups.append(made)

    def _reshard(self) -> None:
        """After a forward pass alone (an evaluation), some parameters are still whole."""
        for module in self._groups:
            module.reshard()

    def _prepared(self) -> tuple[nn.Module, optimizers.NamedOptimizer]:
        if self._model is None or self._optimizer is None:
            raise RuntimeError("prepare() comes first")
        return self._model, self._optimizer
