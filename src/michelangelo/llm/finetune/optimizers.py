"""Optimizers over named parameters: AdamW fused, in 8 bits, paged; SGD; with fp32 copies of bf16 weights if asked for.

States have names of parameters, so that they can be saved and loaded under any sharding. The course of the learning
rate is in `schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from michelangelo import errors
from michelangelo.llm.finetune.config import OptimizerConfig
from michelangelo.llm.training_setup import Precision

__all__ = ["Accept", "NamedOptimizer", "build", "finite"]

Accept: TypeAlias = Callable[[float], bool]
"""Whether a step with this norm of gradients is taken; called once, before anything is changed."""

_NO_DECAY_DIMENSIONS: Final = 1
"""Vectors (norms, biases) are not decayed, as is usual."""
_FEW_PARAMETERS: Final = 200_000_000
_CLIP_EPSILON: Final = 1e-6
"""As torch.nn.utils.clip_grad_norm_ has it."""


def finite(norm: float) -> bool:
    """The least that a step needs."""
    return math.isfinite(norm)


class NamedOptimizer:
    """An optimizer of torch, or one with its interface, over parameters with names.

    With `copies`, the inner optimizer steps on fp32 copies of the parameters, and the parameters get the rounded
    result; gradients of several passes are then summed in fp32 (`accumulate`).
    """

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, *, copies: bool, accumulate: bool
    ) -> None:
        self.names: list[str] = []
        self.parameters: list[nn.Parameter] = []
        for name, parameter in named:
            self.names.append(name)
            self.parameters.append(parameter)
        if not self.parameters:
            raise errors.ModelError(
                "no parameter is trained: check adapter.targets against the names of the model's modules"
            )
        self._copies = copies
        self._accumulates = copies and accumulate
        self._stepped = self._make_stepped()
        self._listen()
        self.inner = _inner(self._groups(config), config)

    def set_learning_rate(self, value: float) -> None:
        for group in self.inner.param_groups:
            group["lr"] = value

    def gradients(self) -> list[torch.Tensor]:
        """Those that the next step uses."""
        holders = self._stepped if self._accumulates else self.parameters
        return [holder.grad for holder in holders if holder.grad is not None]

    def clip_and_step(self, max_grad_norm: float, accept: Accept) -> float:
        """The norm before clipping. What `accept` does not take changes nothing; the gradients are cleared."""
        gradients = self.gradients()
        value = self._norm(gradients)
        if accept(value):
            if max_grad_norm and value > max_grad_norm:
                torch._foreach_mul_(gradients, max_grad_norm / (value + _CLIP_EPSILON))
            self._step()
        self.zero_grad()
        return value

    def zero_grad(self) -> None:
        for parameter, stepped in zip(self.parameters, self._stepped, strict=True):
            parameter.grad = None
            stepped.grad = None

    def named_state(self) -> dict[str, Any]:
        """`copy.NAME`, `exp_avg.NAME`, `step.NAME` …: tensors, not copied."""
        state: dict[str, Any] = {}
        for name, tensor in zip(self.names, self._stepped, strict=True):
            if self._copies:
                state[f"copy.{name}"] = tensor.detach()
            for key, value in self.inner.state.get(tensor, {}).items():
                state[f"{key}.{name}"] = value if isinstance(value, torch.Tensor) else torch.tensor(value)
        return state

    def load_named_state(self, state: Mapping[str, Any]) -> None:
        """In place where there is a state already, so that no second set of states is ever held."""
        by_name: dict[str, dict[str, Any]] = {}
        for key, value in state.items():
            kind, _, name = key.partition(".")
            by_name.setdefault(name, {})[kind] = value
        if unknown := sorted(by_name.keys() - set(self.names)):
            raise errors.CheckpointError(
                f"the checkpoint has states of parameters that are not trained, such as {unknown[0]}"
            )
        with torch.no_grad():
            for name, tensor in zip(self.names, self._stepped, strict=True):
                values = by_name.get(name, {})
                if "copy" in values and self._copies:
                    tensor.copy_(values.pop("copy"))
                kept = self.inner.state[tensor]
                for kind, value in values.items():
                    if isinstance(kept.get(kind), torch.Tensor) and kept[kind].shape == value.shape:
                        kept[kind].copy_(value)
                    else:
                        kept[kind] = value

    def _make_stepped(self) -> list[torch.Tensor]:
        """What the inner optimizer steps on: the parameters, or copies of them."""
        if not self._copies:
            return list(self.parameters)
        return [parameter.detach().to(torch.float32).clone() for parameter in self.parameters]

    def _listen(self) -> None:
        """Takes gradients as they are made, where they are needed elsewhere."""
        if self._accumulates:
            for parameter, copy in zip(self.parameters, self._stepped, strict=True):
                parameter.register_post_accumulate_grad_hook(_adder(copy))  # type: ignore[no-untyped-call]

    def _norm(self, gradients: list[torch.Tensor]) -> float:
        """Of all processes: parts of sharded gradients are summed up."""
        norm = torch.nn.utils.get_total_norm(gradients).to(torch.float32)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _step(self) -> None:
        if self._copies and not self._accumulates:
            self._take_gradients()
        self.inner.step()
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_(list(self.parameters), self._stepped)

    def _take_gradients(self) -> None:
        """In fp32, one after the other so that few are there twice; small ones all at once, which is faster."""
        there = [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if sum(self.parameters[i].numel() for i in there) <= _FEW_PARAMETERS:
            for i in there:
                self._stepped[i].grad = torch.empty_like(self._stepped[i])
            torch._foreach_copy_(
                [_gradient(self._stepped[i]) for i in there], [_gradient(self.parameters[i]) for i in there]
            )
            return
        for i in there:
            self._stepped[i].grad = _gradient(self.parameters[i]).to(torch.float32)
            self.parameters[i].grad = None

    def _groups(self, config: OptimizerConfig) -> list[dict[str, Any]]:
        decayed = [t for t in self._stepped if t.dim() > _NO_DECAY_DIMENSIONS]
        others = [t for t in self._stepped if t.dim() <= _NO_DECAY_DIMENSIONS]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


def build(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, *, precision: Precision, accumulate: bool
) -> NamedOptimizer:
    """`accumulate`: whether gradients of several passes meet before a step. `host_optimizer` steps beside a GPU."""
    pairs = list(named)
    copies = precision == "bf16_mixed" and any(parameter.dtype != torch.float32 for _, parameter in pairs)
    return NamedOptimizer(pairs, config, copies=copies, accumulate=accumulate)


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _adder(copy: torch.Tensor) -> Any:
    def add(parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        copy.grad = gradient.to(torch.float32) if copy.grad is None else copy.grad.add_(gradient)
        parameter.grad = None

    return add


def _inner(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    first: torch.Tensor = groups[0]["params"][0]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.betas[0])
    if config.name == "adamw":
        fused = first.is_cuda or first.is_pinned()
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=fused, foreach=not fused
        )
    try:
        import bitsandbytes
    except ImportError as e:
        raise errors.SettingsError(
            f"optimizer.name {config.name}: needs bitsandbytes: pip install 'michelangelo-oss[llm]'"
        ) from e
    kind: Any = getattr(bitsandbytes.optim, "PagedAdamW8bit" if config.name == "paged_adamw_8bit" else "AdamW8bit")
    optimizer: torch.optim.Optimizer = kind(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps)
    return optimizer
