"""Low-rank adapters on a frozen model: which modules get them, and how they are computed, merged and taken out.

PEFT makes them, so names, initial values and the format on disk are PEFT's; the model keeps its class and its parts
their places. How they are computed is ours where that gives the same (`lora_linear`, `lora_experts`): PEFT's own
forward stays for dropout, for layers that something else gathers or shards, and for kinds of layers not known here.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import peft
import torch
from peft.tuners import tuners_utils
from peft.tuners.lora import layer as peft_layer
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from michelangelo import errors
from michelangelo.llm.finetune import lora_linear
from michelangelo.llm.finetune import model as models
from michelangelo.llm.finetune.config import AdapterConfig

__all__ = ["ADAPTER", "FusedLinear", "apply", "disabled", "merge", "state", "trained_share"]

ADAPTER: Final = "default"
"""PEFT's name of the one adapter."""
_ROUTERS: Final = frozenset({"gate", "router", "shared_expert_gate"})
"""Parts of a path that choose experts. Trained with frozen experts, they lose the balance they were trained for."""
_SAME_INPUT: Final = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("query", "key", "value"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
"""Children of one module that are called with the same tensor, as Transformers names them."""
_MAX_LISTED: Final = 20


def apply(model: PreTrainedModel, config: AdapterConfig, *, fused: bool = True) -> None:
    """Freezes the model and adds adapters in place, in the dtype of the model; `method: full` trains everything.

    `fused`: by our operators, where that equals PEFT's forward. Raises ModelError if a target is not there.
    """
    if config.method == "full":
        model.requires_grad_(True)
        return
    targets = _find_targets(model, config.targets)
    model.requires_grad_(False)
    described = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=cast(int, config.alpha),
        lora_dropout=config.dropout,
        target_modules=list(targets.modules),
        fan_in_fan_out=targets.is_transposed,
    )
    peft.inject_adapter_in_model(described, model, adapter_name=ADAPTER)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(model.dtype)
            parameter.requires_grad_(True)
    if fused and not config.dropout:
        _fuse(model)


@contextlib.contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes as if it had no adapters; what is trained stays what it is."""
    layers = [module for module in model.modules() if isinstance(module, tuners_utils.BaseTunerLayer)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapters by PEFT's names on disk (`base_model.model.…lora_A.weight`), not copied; empty without adapters."""
    return {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": parameter.detach()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def trained_share(model: nn.Module) -> float:
    """Trained parameters among all, from 0 to 1; those in 4 bits count as what they stand for."""
    trained = total = 0
    for parameter in model.parameters():
        count = parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)
        total += count
        trained += count if parameter.requires_grad else 0
    return trained / total


@torch.no_grad()
def merge(model: PreTrainedModel) -> None:
    """Adds the adapters to the weights, and takes the adapters out: the model is then what Transformers loads.

    Sums are in fp32, rounded once.
    """
    for name, module in list(model.named_modules()):
        if not isinstance(module, peft_layer.Linear):
            continue
        base = cast(nn.Module, module.get_base_layer())
        weight = cast(nn.Parameter, base.weight)
        down, up = module.lora_A[ADAPTER].weight.float(), module.lora_B[ADAPTER].weight.float()
        delta = (up @ down).mul_(module.scaling[ADAPTER])
        weight.copy_(weight.float() + (delta.t() if module.fan_in_fan_out else delta))
        _replace(model, name, base)
    if hasattr(model, "peft_config"):
        del model.peft_config


class FusedLinear(peft_layer.Linear):
    """PEFT's adapted layer, computed by `lora_linear`. Names and parameters are those of PEFT's."""

    shared: SharedInput | None
    """With layers that get the same input."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._disable_adapters or self.merged or args or kwargs:
            return cast(torch.Tensor, super().forward(x, *args, **kwargs))
        if not self.is_plain(x):
            return cast(torch.Tensor, super().forward(x))
        if self.shared is None:
            return lora_linear.project(x, [self.projection()], self.scaling[ADAPTER])[0]
        return self.shared.output(self, x)

    def is_plain(self, x: torch.Tensor) -> bool:
        """Whether the matrices lie here as they are: nothing gathers them when a submodule is called (ZeRO-3)."""
        parts = (self.base_layer, self.lora_A[ADAPTER], self.lora_B[ADAPTER])
        return (
            not any(part._forward_pre_hooks or part._forward_hooks for part in parts)
            and not isinstance(self.lora_A[ADAPTER].weight, DTensor)
            and not isinstance(self.base_layer.weight, DTensor)
            and x.dtype == self.lora_A[ADAPTER].weight.dtype
        )

    def projection(self) -> lora_linear.Projection:
        weight = self.base_layer.weight
        base = [weight.t()] if self.fan_in_fan_out else [weight]
        return lora_linear.Projection(
            base, self.base_layer.bias, self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        )


class SharedInput:
    """Layers that are called one after the other with the same tensor: the first call computes all of them.

    Between the first and the last call it holds the outputs. A layer that is called with another tensor is computed for
    itself, so a model that is built otherwise than expected is slower, and not wrong.
    """

    def __init__(self, layers: list[FusedLinear]) -> None:
        self._layers = layers
        self._input: torch.Tensor | None = None
        self._outputs: list[torch.Tensor] = []
        self._num_taken = 0

    def output(self, layer: FusedLinear, x: torch.Tensor) -> torch.Tensor:
        position = next(i for i, one in enumerate(self._layers) if one is layer)
        if x is not self._input:
            if position:
                return lora_linear.project(x, [layer.projection()], layer.scaling[ADAPTER])[0]
            self._outputs = lora_linear.project(x, [one.projection() for one in self._layers], layer.scaling[ADAPTER])
            self._input, self._num_taken = x, 0
        self._num_taken += 1
        found = self._outputs[position]
        if self._num_taken == len(self._layers):
            self._input, self._outputs = None, []
        return found


def _fuse(model: nn.Module) -> None:
    for module in list(model.modules()):
        if type(module) is peft_layer.Linear and type(module.base_layer) in (nn.Linear, Conv1D):
            module.__class__ = FusedLinear
            cast(FusedLinear, module).shared = None
    for parent in list(model.modules()):
        for names in _SAME_INPUT:
            layers = [child for name in names if isinstance(child := getattr(parent, name, None), FusedLinear)]
            if len(layers) < 2 or len({(one.in_features, one.base_layer.bias is None) for one in layers}) > 1:
                continue
            shared = SharedInput(layers)
            for one in layers:
                one.shared = shared


@dataclass(frozen=True, slots=True)
class _Targets:
    modules: tuple[str, ...]
    is_transposed: bool


def _find_targets(model: PreTrainedModel, wanted: tuple[str, ...]) -> _Targets:
    """What of the model is adapted. Raises ModelError with all names that are not there."""
    modules = dict(_adaptable(model))
    if wanted == ("all",):
        chosen = set(modules)
    else:
        chosen = {name for name in modules for target in wanted if _matches(name, target)}
        unknown = [target for target in wanted if not any(_matches(name, target) for name in modules)]
        if unknown:
            raise errors.ModelError(_unknown_text(model, unknown, modules))
    if not chosen:
        raise errors.ModelError(f"{type(model).__name__}: has no linear layers in its decoder that could be adapted")
    return _Targets(
        tuple(_shortest_names(chosen, {name for name, _ in model.named_modules()})),
        is_transposed=any(isinstance(modules[name], Conv1D) for name in chosen),
    )


def _adaptable(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Linear layers of the decoder's layers, routers of mixtures excepted."""
    layers = models.decoder_layers(model)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    for inner, module in layers.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and not _ROUTERS & set(inner.split(".")):
            yield f"{prefix}.{inner}", module


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _unknown_text(model: nn.Module, unknown: list[str], there: Iterable[str]) -> str:
    last = sorted({name.rpartition(".")[2] for name in there})
    lines = []
    for target in unknown:
        near = difflib.get_close_matches(target, last, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        lines.append(f"adapter.targets: {target} is no module of {type(model).__name__} that can be adapted{hint}")
    listed = ", ".join(last[:_MAX_LISTED]) + (", …" if len(last) > _MAX_LISTED else "")
    return "\n".join([*lines, f"there are: {listed}; or say all"])


def _shortest_names(chosen: set[str], every: set[str]) -> list[str]:
    """Last parts of names where all modules that end so are chosen, else whole names: what PEFT writes down."""
    shortest = set()
    for name in chosen:
        last = name.rpartition(".")[2]
        others = {one for one in every if _matches(one, last)}
        shortest.add(last if others <= chosen else name)
    return sorted(shortest)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
