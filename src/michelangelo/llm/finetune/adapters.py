"""Low-rank adapters on a frozen model: which modules get them, and how they are computed, merged and taken out.

PEFT makes them, so names, initial values and the format on disk are PEFT's; the model keeps its class and its parts
their places. How they are computed is ours where that gives the same (`lora_linear`, `lora_experts`): PEFT's own
forward stays for dropout, for layers that something else gathers or shards, and for kinds of layers not known here.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import peft
import safetensors.torch
import torch
from peft.tuners import tuners_utils
from peft.tuners.lora import layer as peft_layer
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from michelangelo import errors
from michelangelo.llm.finetune import lora_experts, lora_linear, nf4, projections, quantization
from michelangelo.llm.finetune.config import AdapterConfig

__all__ = [
    "ADAPTER",
    "FusedLinear",
    "SharedInput",
    "apply",
    "disabled",
    "merge",
    "num_parameters",
    "save",
    "state",
    "trained_share",
]

ADAPTER: Final = "default"
"""PEFT's name of the one adapter."""
_SAME_INPUT: Final = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("query", "key", "value"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
"""Children of one module that are called with the same tensor, as Transformers names them."""
_MAX_LISTED: Final = 20
_PLAIN_LAYERS: Final = (nn.Linear, Conv1D, quantization.Nf4Linear)
"""Layers of which all is known: others, of which PEFT may know more, keep PEFT's forward."""


def apply(model: PreTrainedModel, config: AdapterConfig, *, fused: bool = True) -> None:
    """Freezes the model and adds adapters in place, in the dtype of the model; `method: full` trains everything.

    `fused`: by our operators, where that equals PEFT's forward. Raises ModelError if a target is not there.
    """
    if config.method == "full":
        model.requires_grad_(True)
        return
    targets = _find_targets(model, config.targets)
    if config.dropout and targets.parameters:
        raise errors.ModelError(f"adapter.dropout: the fused experts of {type(model).__name__} take none; set it to 0")
    model.requires_grad_(False)
    layers, prefix = projections.layers(model)
    # Into the layers and not into the model: in some mixtures PEFT takes the names of dense layers for those that older
    # checkpoints of the architecture had for experts.
    with _unpacked_shapes(model):
        peft.inject_adapter_in_model(_described(config, targets.within(prefix)), layers, adapter_name=ADAPTER)
    del layers.peft_config
    model.__dict__["peft_config"] = {ADAPTER: _described(config, targets.shortened(model))}
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


def save(model: PreTrainedModel, folder: Path) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, as PEFT reads them, into a folder that is there.

    Raises ModelError if the model has no adapters, OSError if the folder cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state(model).items()}
    if not tensors:
        raise errors.ModelError(f"{type(model).__name__}: has no adapters that could be saved; save the model itself")
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    described = copy.copy(model.__dict__["peft_config"][ADAPTER])
    described.inference_mode = True
    described.base_model_name_or_path = model.name_or_path
    described.save_pretrained(folder)


def num_parameters(model: nn.Module) -> tuple[int, int]:
    """All, and those that are trained; of weights in 4 bits, two in a byte, each counts."""
    trained = total = 0
    for parameter in model.parameters():
        count = parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)
        total += count
        trained += count if parameter.requires_grad else 0
    return total, trained


def trained_share(model: nn.Module) -> float:
    """Trained parameters among all, from 0 to 1."""
    total, trained = num_parameters(model)
    return trained / total


@torch.no_grad()
def merge(model: PreTrainedModel) -> None:
    """Adds the adapters to the weights, and takes the adapters out: the model is then what Transformers loads.

    Sums are in fp32, rounded once.
    """
    dtype = model.dtype
    for module in model.modules():
        quantization.restore(module, dtype)
    for name, module in list(model.named_modules()):
        if isinstance(module, peft_layer.Linear):
            down, up = _factors(module)
            delta = (up.float() @ down.float()).mul_(module.scaling[ADAPTER])
            _add(module.get_base_layer(), "weight", delta.t() if module.fan_in_fan_out else delta)
            _replace(model, name, module.get_base_layer())
        elif isinstance(module, peft_layer.ParamWrapper):
            experts = module.get_base_layer()
            _add(experts, module.parameter_name, _expert_delta(module))
            lora_experts.uninstall(experts)
            _replace(model, name.replace(".base_layer", ""), experts)
    model.__dict__.pop("peft_config", None)


class FusedLinear(peft_layer.Linear):
    """PEFT's adapted layer, computed by `lora_linear`. Names and parameters are those of PEFT's."""

    shared: SharedInput | None
    """With layers that get the same input."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._disable_adapters or self.merged or args or kwargs or not self.is_plain(x):
            return super().forward(x, *args, **kwargs)
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
        layer = self.base_layer
        base = [cast(torch.Tensor, layer.weight).t()] if self.fan_in_fan_out else nf4.parts_of(layer)
        return lora_linear.Projection(base, cast(torch.Tensor | None, layer.bias), *_factors(self))


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
        if position == 0:
            layers = [one.projection() for one in self._layers]
            self._outputs = lora_linear.project(x, layers, layer.scaling[ADAPTER])
            self._input, self._num_taken = x, 0
        elif x is not self._input:
            return lora_linear.project(x, [layer.projection()], layer.scaling[ADAPTER])[0]
        self._num_taken += 1
        found = self._outputs[position]
        if self._num_taken == len(self._layers):
            self._input, self._outputs = None, []
        return found


def _described(config: AdapterConfig, targets: _Targets) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=cast(int, config.alpha),
        lora_dropout=config.dropout,
        target_modules=sorted(targets.modules),
        target_parameters=sorted(targets.parameters) or None,
        fan_in_fan_out=targets.is_transposed,
    )


def _fuse(model: nn.Module) -> None:
    for module in list(model.modules()):
        if type(module) is peft_layer.Linear and type(module.base_layer) in _PLAIN_LAYERS:
            module.__class__ = FusedLinear
            cast(FusedLinear, module).shared = None
        elif type(module) is peft_layer.ParamWrapper and projections.has_known_forward(module.get_base_layer()):
            module.__class__ = lora_experts.ExpertAdapter
            experts = module.get_base_layer()
            adapters = {**experts.__dict__.get("low_rank", {}), module.parameter_name: module}
            lora_experts.install(experts, adapters)
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
    modules: frozenset[str]
    parameters: frozenset[str]
    is_transposed: bool

    def within(self, prefix: str) -> _Targets:
        """With names from there on."""
        return dataclasses.replace(
            self,
            modules=frozenset(name.removeprefix(f"{prefix}.") for name in self.modules),
            parameters=frozenset(name.removeprefix(f"{prefix}.") for name in self.parameters),
        )

    def shortened(self, model: nn.Module) -> _Targets:
        """With last parts of names where all that end so are targets, else whole names: what PEFT writes down."""
        every = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
        return dataclasses.replace(
            self,
            modules=frozenset(_shortest_names(self.modules, every, 1)),
            parameters=frozenset(_shortest_names(self.parameters, every, 2)),
        )


def _find_targets(model: PreTrainedModel, wanted: tuple[str, ...]) -> _Targets:
    """What of the model is adapted. Raises ModelError with all names that are not there."""
    modules = dict(projections.linear_layers(model))
    parameters = {f"{name}.{own}" for name, _, names in projections.experts(model) for own in names}
    there = modules.keys() | parameters
    if wanted == ("all",):
        chosen = set(there)
    else:
        chosen = {name for name in there for target in wanted if _matches(name, target)}
        unknown = [target for target in wanted if not any(_matches(name, target) for name in there)]
        if unknown:
            raise errors.ModelError(_unknown_text(model, unknown, there))
    if not chosen:
        raise errors.ModelError(f"{type(model).__name__}: has no linear layers in its decoder that could be adapted")
    return _Targets(
        frozenset(chosen & modules.keys()),
        frozenset(chosen & parameters),
        is_transposed=any(isinstance(modules[name], Conv1D) for name in chosen & modules.keys()),
    )


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


def _shortest_names(chosen: frozenset[str], every: set[str], num_parts: int) -> set[str]:
    shortest = set()
    for name in chosen:
        last = ".".join(name.split(".")[-num_parts:])
        others = {one for one in every if _matches(one, last)}
        shortest.add(last if others <= chosen else name)
    return shortest


@contextlib.contextmanager
def _unpacked_shapes(model: PreTrainedModel) -> Iterator[None]:
    """Inside, experts in NF4 look as large as they are, for PEFT to make adapters of the right sizes; at no cost of
    memory."""
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    for _, module, names in list(projections.experts(model)):
        for name in names:
            if nf4.is_packed(module, name):
                parameter = cast(nn.Parameter, getattr(module, name))
                stand_in = torch.empty(1, dtype=model.dtype, device=parameter.device).expand(nf4.shape_of(module, name))
                setattr(module, name, nn.Parameter(stand_in, requires_grad=False))
                kept.append((module, name, parameter))
    try:
        yield
    finally:
        for module, name, parameter in kept:
            setattr(module, name, parameter)


def _factors(module: peft_layer.LoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """A [rank, in] and B [out, rank]; of experts A [experts * rank, in] and B [out, rank * experts]."""
    return cast(torch.Tensor, module.lora_A[ADAPTER].weight), cast(torch.Tensor, module.lora_B[ADAPTER].weight)


def _expert_delta(module: peft_layer.ParamWrapper) -> torch.Tensor:
    """[experts, ., .] fp32, as the parameter has them."""
    rank, count = module.r[ADAPTER], module.num_experts
    flat_down, flat_up = _factors(module)
    down, up = flat_down.float().view(count, rank, -1), flat_up.float().view(-1, rank, count).permute(2, 0, 1)
    delta = torch.bmm(up, down).mul_(module.scaling[ADAPTER])
    is_transposed = getattr(module.get_base_layer(), "is_transposed", False)
    return delta.transpose(1, 2) if is_transposed else delta


def _add(module: nn.Module, name: str, delta: torch.Tensor) -> None:
    weight = cast(nn.Parameter, getattr(module, name))
    weight.copy_(weight.float() + delta)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
