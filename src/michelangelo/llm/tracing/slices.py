"""One and two layers of a model without memory, built from a config as Transformers builds it.

Under FakeTensorMode tensors have shapes, dtypes and storages but no bytes, so that a layer of a 70B model is traced on
a laptop. Real weights are never read.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from michelangelo import errors
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["build", "checkpointed", "described", "fake", "fake_tokens", "with_lora", "with_storages"]

_DROPOUTS: Final = (
    "attention_dropout",
    "attn_pdrop",
    "dropout",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "residual_dropout",
)
"""Off: a CPU keeps other things for them than a GPU does (a float mask, and no flash attention)."""


def described(config: Mapping[str, Any], *, layers: int | None = None, attention: str = "sdpa") -> PreTrainedConfig:
    """Transformers' configuration of a config.json, cut to some layers. Raises ModelError."""
    fields = {key: value for key, value in copy.deepcopy(dict(config)).items() if key != "architectures"}
    try:
        made: PreTrainedConfig = AutoConfig.for_model(fields.pop("model_type"), **fields)
    except (KeyError, ValueError, TypeError) as e:
        raise errors.ModelError(f"config: Transformers makes no model of it: {e}") from e
    if layers is not None:
        made.num_hidden_layers = layers
        kinds = getattr(made, "layer_types", None)
        if kinds:
            made.layer_types = list(kinds[:layers]) if len(kinds) >= layers else [kinds[0]] * layers
    for name in _DROPOUTS:
        if hasattr(made, name):
            setattr(made, name, 0.0)
    made._attn_implementation = attention
    made.use_cache = False
    return made


def build(config: PreTrainedConfig, *, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """The model in training mode on the meta device: it has shapes only."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    return model.train()


def with_storages(model: nn.Module) -> nn.Module:
    """Under FakeTensorMode: parameters and buffers on the CPU instead of meta ones, tied ones still tied."""
    made: dict[int, torch.Tensor] = {}

    def place(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = place(tensor)  # type: ignore[assignment]
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                setattr(module, name, place(value))
    return model


def with_lora(model: nn.Module, setup: TrainingSetup) -> nn.Module:
    """PEFT's adapters on what `setup` names, in the dtype of the weights; expert tensors by parameter. No dropout."""
    import peft

    experts = [n for n, p in model.named_parameters() if p.dim() == 3 and ".experts." in n]
    every = "all" in setup.lora_targets
    config = peft.LoraConfig(
        r=setup.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear" if every else list(setup.lora_targets),
        target_parameters=sorted({n.split(".", 3)[-1] for n in experts}) if every and experts else None,
        exclude_modules=[".*shared_expert_gate"] if every else None,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: nn.Module = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    return adapted


def checkpointed(model: nn.Module) -> None:
    """Transformers' checkpointing of each layer, inputs made to need gradients as its Trainer does."""
    model.activation_checkpointing_enable()  # type: ignore[operator]
    model.enable_input_require_grads()  # type: ignore[operator]


@contextlib.contextmanager
def fake() -> Iterator[FakeTensorMode]:
    """Tensors without bytes within."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def fake_tokens(batch: int, length: int) -> torch.Tensor:
    """[batch, length] int64."""
    return torch.zeros(batch, length, dtype=torch.int64)
