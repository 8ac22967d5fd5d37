"""ZeRO by DeepSpeed itself: its engine as a strategy, with a configuration made from the run's.

`zero1`, `zero2`, `zero3`, also with optimizer or parameters on the host. States go to checkpoints whole and in fp32, by
parameter, so that a checkpoint can go on under any other strategy. DeepSpeed is loaded when a run asks for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import nn

from michelangelo import errors
from michelangelo.llm import deepspeed_config
from michelangelo.llm.finetune import optimizers, strategy
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.strategy import Accept, MakeOptimizer
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["DeepSpeedEngine", "configuration"]

_COPY: Final = "copy"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


class DeepSpeedEngine:
    """Every process of the run makes one. AdamW only."""

    def __init__(self, device: torch.device, config: FinetuneConfig) -> None:
        self.device = device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.data_rank, self.data_parallel = self.rank, self.world_size
        self._config = config
        self._engine: Any = None
        self._names: dict[str, nn.Parameter] = {}
        self._steps = 0
        self._has_states = False

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> Any:
        """DeepSpeed makes the optimizer; what is given back sets its learning rate."""
        import deepspeed

        # Else it begins, on processors, by compiling this operator, which is for inference only.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # It will not start without, though the group of processes is there.
        os.environ.setdefault("LOCAL_RANK", str(self.device.index or 0))
        self._names = dict(strategy.trained_parameters(model))
        settings = configuration(self._config, self.world_size)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model, model_parameters=self._groups(), config=settings, dist_init_required=False
        )
        return _Rates(self._engine)

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_last)
        # The engine's own forward, which is not called here, does this: else stage 3 keeps the last pass only.
        self._optimizer.clear_backward_seen_flag()
        # DeepSpeed averages over processes, and over passes unless told; a loss is a share of the mean over all.
        self._engine.backward(loss * self.data_parallel, scale_wrt_gas=False)

    def step(self, max_grad_norm: float, accept: Accept = optimizers.finite) -> float:
        """Gradients are gathered one by one for their norm, since DeepSpeed says it only after a step."""
        from deepspeed.utils import safe_get_full_grad

        squares = 0.0
        for parameter in self._names.values():
            gradient = safe_get_full_grad(parameter)
            if gradient is not None:
                squares += float(gradient.float().pow(2).sum())
        norm = math.sqrt(squares) if math.isfinite(squares) else math.nan
        if accept(norm):
            self._optimizer.clip_grad = max_grad_norm
            self._engine.step()
            self._steps += 1
            self._find_states()
        else:
            self._engine.zero_grad()
            self._optimizer.zero_grad()
        return norm

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    def model_state(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_fp32_param

        return {
            name: safe_get_full_fp32_param(parameter).detach().to(parameter.dtype)
            for name, parameter in self._names.items()
        }

    def optimizer_state(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        state: dict[str, Any] = {}
        for name, parameter in self._names.items():
            state[f"{_COPY}.{name}"] = safe_get_full_fp32_param(parameter).detach()
            for moment in _MOMENTS:
                value = safe_get_full_optimizer_state(parameter, moment)
                if value is not None:
                    state[f"{moment}.{name}"] = value.detach()
            state[f"step.{name}"] = torch.tensor(float(self._steps))
        return state

    def load_state(self, model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if missing := sorted(self._names.keys() ^ model.keys()):
            raise errors.CheckpointError(
                f"the checkpoint is of another model or adapter: {len(missing)} names differ, such as {missing[0]}"
            )
        if optimizer:
            self._make_states()
        for name, parameter in self._names.items():
            self._set_weight(parameter, model[name])
            whole = optimizer.get(f"{_COPY}.{name}", model[name])
            safe_set_full_fp32_param(parameter, whole.float())
            for moment in _MOMENTS:
                if (value := optimizer.get(f"{moment}.{name}")) is not None:
                    safe_set_full_optimizer_state(parameter, value.float(), moment)
        steps = [value for key, value in optimizer.items() if key.startswith("step.")]
        self._steps = int(steps[0]) if steps else 0
        for state in self._optimizer.optimizer.state.values():
            if "step" in state:
                state["step"] = (
                    torch.full_like(state["step"], self._steps) if torch.is_tensor(state["step"]) else self._steps
                )

    def barrier(self) -> None:
        dist.barrier()

    def close(self) -> None:
        """The engine's hooks go with it."""
        if self._engine is not None:
            self._engine.destroy()
            self._engine = None

    def _groups(self) -> list[dict[str, Any]]:
        """Vectors are not decayed, as by the other optimizers. Sizes are those before DeepSpeed divides them."""
        decayed = [one for one in self._names.values() if one.dim() > 1]
        others = [one for one in self._names.values() if one.dim() <= 1]
        decay = self._config.optimizer.weight_decay
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _set_weight(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        """What is computed with, which DeepSpeed refreshes from its fp32 copy after a step only."""
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
            parameter.data.copy_(value)

    def _make_states(self) -> None:
        """Those that the first step would make: a run that goes on has them before it. Stage 3 calls its parts of the
        trained parameters otherwise than stages 1 and 2."""
        stage3 = getattr(self._optimizer, "fp32_partitioned_groups_flat", None)
        inner = self._optimizer.optimizer
        for part in stage3 or self._optimizer.single_partition_of_fp32_groups:
            if not inner.state.get(part):
                moments = {moment: torch.zeros_like(part.detach()) for moment in _MOMENTS}
                inner.state[part] = {"step": torch.tensor(0.0), **moments}
        self._find_states()

    def _find_states(self) -> None:
        """Stages 1 and 2 look for the states of all groups when the first one was stepped, and find its own only."""
        look = getattr(self._optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if look is not None and not self._has_states:
            self._optimizer._hp_optimizer_states_linked = False
            look()
        self._has_states = True


class _Rates(optimizers.NamedOptimizer):
    """The part of an optimizer that a trainer sees."""

    def __init__(self, engine: Any) -> None:
        self.inner = engine.optimizer


def configuration(config: FinetuneConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's document for a run. Passes are counted by the trainer, which says which one is the last."""
    optimizer, training, parallel = config.optimizer, config.training, config.parallel
    setup = TrainingSetup(
        micro_batch=training.micro_batch,
        gradient_accumulation=training.gradient_accumulation,
        num_gpus=world_size,
        sharding=parallel.sharding,
        offload=parallel.offload,
        precision=training.precision,
    )
    return {
        **deepspeed_config.make(setup, max_grad_norm=optimizer.max_grad_norm),
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                "lr": optimizer.learning_rate,
                "betas": list(optimizer.betas),
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
            },
        },
    }
