"""Who holds which part of the model, and how gradients meet: one protocol, and its simplest implementation.

Implementations for several processes are in `parallel/`. It knows no data, no objective and no checkpoint format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from michelangelo import errors
from michelangelo.llm.finetune import optimizers

__all__ = [
    "Accept",
    "MakeOptimizer",
    "SingleProcess",
    "Strategy",
    "load_trained_state",
    "trained_parameters",
    "trained_state",
]

Accept: TypeAlias = optimizers.Accept
MakeOptimizer: TypeAlias = Callable[[Iterable[tuple[str, nn.Parameter]]], optimizers.NamedOptimizer]
"""Builds the optimizer over named parameters that are trained (already sharded, where the strategy shards)."""


class Strategy(Protocol):
    """Every process of a run calls the same methods in the same order."""

    rank: int
    world_size: int
    data_rank: int
    """Which share of the data this process takes; the same for all processes of a tensor-parallel group."""
    data_parallel: int
    device: torch.device

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> optimizers.NamedOptimizer:
        """Shards and places the model (changed in place), and makes the optimizer over what is trained."""
        ...

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Adds gradients. Before the last pass of a step they need not meet those of other processes. `loss` is
        this process's share: over all passes and processes the losses sum up to the mean per trained token."""
        ...

    def step(self, max_grad_norm: float, accept: Accept = optimizers.finite) -> float:
        """The norm of the gradients of all processes. If `accept` takes it: clips (0: not) and steps. The gradients are
        cleared in any case, and a norm that is not accepted changes nothing."""
        ...

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise over the data-parallel processes."""
        ...

    def model_state(self) -> dict[str, Any]:
        """What is trained, and buffers that change, by name: tensors or DTensors, as torch.distributed.checkpoint
        takes them."""
        ...

    def optimizer_state(self) -> dict[str, Any]:
        """Flat, by parameter name (`exp_avg.model.layers.0…`); the same for every sharding, so that it can be loaded
        with another number of processes."""
        ...

    def load_state(self, model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None: ...

    def barrier(self) -> None: ...

    def close(self) -> None: ...


class SingleProcess:
    """Everything in one process, on one device."""

    rank = 0
    world_size = 1
    data_rank = 0
    data_parallel = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._model: nn.Module | None = None
        self._optimizer: optimizers.NamedOptimizer | None = None

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> optimizers.NamedOptimizer:
        self._model = model.to(self.device)
        self._optimizer = make_optimizer(trained_parameters(model))
        return self._optimizer

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, max_grad_norm: float, accept: Accept = optimizers.finite) -> float:
        return self._prepared()[1].clip_and_step(max_grad_norm, accept)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def model_state(self) -> dict[str, Any]:
        return trained_state(self._prepared()[0])

    def optimizer_state(self) -> dict[str, Any]:
        return self._prepared()[1].named_state()

    def load_state(self, model: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
        module, stepper = self._prepared()
        load_trained_state(module, model)
        stepper.load_named_state(optimizer)

    def barrier(self) -> None:
        """There is nobody to wait for."""

    def close(self) -> None:
        """Nothing was opened."""

    def _prepared(self) -> tuple[nn.Module, optimizers.NamedOptimizer]:
        if self._model is None or self._optimizer is None:
            raise RuntimeError("prepare() comes first")
        return self._model, self._optimizer


def trained_parameters(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Those that get gradients, tied ones once."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def trained_state(model: nn.Module) -> dict[str, Any]:
    """The trained parameters by name, not copied."""
    return {name: parameter.detach() for name, parameter in trained_parameters(model)}


def load_trained_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Copies into the parameters in place. Raises CheckpointError if names or shapes differ."""
    parameters = dict(trained_parameters(model))
    if missing := sorted(parameters.keys() ^ state.keys()):
        raise errors.CheckpointError(
            f"the checkpoint is of another model or adapter: {len(missing)} names differ, such as {missing[0]}; "
            "continue with the configuration that it was made with, or start anew with checkpoint.resume: never"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != state[name].shape:
                raise errors.CheckpointError(
                    f"{name} has shape {tuple(state[name].shape)} in the checkpoint, "
                    f"and {tuple(parameter.shape)} in the model"
                )
            parameter.copy_(state[name])
