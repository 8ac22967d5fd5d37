"""Loading a decoder-only model and its tokenizer, and finding the parts of it that training has to know.

It adds no adapters and quantises nothing (`adapters`, `quantization`); it checks that packed rows give what separate
documents give, so that no architecture is trained wrongly in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.finetune import attention, cross_entropy
from michelangelo.llm.finetune.config import ModelConfig
from michelangelo.llm.finetune.documents import Documents, documents_of
from michelangelo.llm.training_setup import Precision

__all__ = [
    "check_packing",
    "decoder_layers",
    "dtype_of",
    "head_of",
    "load",
    "load_config",
    "load_tokenizer",
    "read_shape",
    "use_liger",
]

_PROBE_LENGTHS: Final = (5, 4)
_PROBE_TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 8e-2, torch.float16: 2e-2}
"""Relative to the largest hidden value: another order of sums, and nothing more."""


def load(config: ModelConfig, *, precision: Precision, device: torch.device) -> PreTrainedModel:
    """The model in the dtype of `precision`: read from files on the host, made from scratch on `device`.

    Raises ModelError.
    """
    described = load_config(config)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the run has a display of its own
    arguments: dict[str, Any] = {
        "dtype": dtype_of(precision),
        "attn_implementation": _attention(config, described),
    }
    try:
        if config.from_scratch:
            with device:  # random numbers for billions of weights take minutes on a host
                made = AutoModelForCausalLM.from_config(described, **arguments)  # type: ignore[no-untyped-call]
            return cast(PreTrainedModel, made)
        model = AutoModelForCausalLM.from_pretrained(config.path, config=described, **arguments)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as e:
        raise errors.ModelError(f"model.path {config.path}: cannot be loaded: {_first_line(e)}") from e
    return cast(PreTrainedModel, model)


def use_liger(model: PreTrainedModel) -> None:
    """Replaces norms, rotary embedding and MLP by Liger's kernels, in place. Raises SettingsError.

    The loss stays ours: `training.cross_entropy: liger` chooses it apart.
    """
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
    except ImportError as e:
        raise errors.SettingsError("model.liger: needs a GPU and pip install 'michelangelo-oss[gpu]'") from e
    _apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)


def load_config(config: ModelConfig) -> Any:
    """Transformers' configuration of the model. Raises ModelError if it is no decoder-only language model."""
    if config.from_scratch and config.path in model_shape.catalogue():
        fields = dict(model_shape.published_config(config.path))
        return AutoConfig.for_model(**fields)
    file = Path(config.path) / "config.json"
    if Path(config.path).is_dir() and not file.is_file():
        raise errors.ModelError(f"model.path {config.path}: the folder has no config.json, so it is no model")
    try:
        described = AutoConfig.from_pretrained(config.path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise errors.ModelError(f"model.path {config.path}: no configuration of a model: {_first_line(e)}") from e
    if getattr(described, "is_encoder_decoder", False) or type(described) not in AutoModelForCausalLM._model_mapping:
        raise errors.ModelError(
            f"model.path {config.path}: model_type {described.model_type} is no decoder-only language model"
        )
    return described


def read_shape(config: ModelConfig) -> Mapping[str, Any]:
    """The fields of config.json, for the planner."""
    return cast(Mapping[str, Any], json.loads(load_config(config).to_json_string(use_diff=False)))


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """With an end-of-text token, and a padding token (the end's, if it has none). Raises ModelError."""
    place = config.tokenizer or config.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as e:
        raise errors.ModelError(f"tokenizer {place}: cannot be loaded: {_first_line(e)}") from e
    if tokenizer.eos_token_id is None:
        raise errors.ModelError(f"tokenizer {place}: has no end-of-text token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast(PreTrainedTokenizerBase, tokenizer)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of the model's layers, whatever the architecture calls it. Raises ModelError."""
    wanted = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return module
    raise errors.ModelError(
        f"{type(model).__name__}: no list of {wanted} layers is found in it, so it cannot be trained here"
    )


@dataclass(frozen=True, slots=True)
class _Logits:
    scale: float
    softcap: float


def head_of(model: PreTrainedModel) -> cross_entropy.Head:
    """How the model makes logits of hidden states. The weights are those of now: ask again after they were moved."""
    module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(module, nn.Module) or not isinstance(getattr(module, "weight", None), torch.Tensor):
        raise errors.ModelError(f"{type(model).__name__}: has no output matrix, so it is no language model")
    logits = _logits_of(model.config.get_text_config())
    weight, bias = cast(torch.Tensor, module.weight), cast(torch.Tensor | None, getattr(module, "bias", None))
    return cross_entropy.Head(weight, bias, scale=logits.scale, softcap=logits.softcap)


def dtype_of(precision: Precision) -> torch.dtype:
    """Of the weights that compute."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Raises ModelError unless two documents in one row give the hidden states that each gives alone."""
    device = model.device
    vocabulary = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, vocabulary, (1, n), generator=generator).to(device) for n in _PROBE_LENGTHS]
    ids = torch.cat([torch.full((1, n), i, dtype=torch.int32) for i, n in enumerate(_PROBE_LENGTHS)], 1)
    positions = torch.cat([torch.arange(n) for n in _PROBE_LENGTHS])[None].to(device)
    was_training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    try:
        packed = _hidden(model, torch.cat(documents, 1), positions, documents_of(ids, device))
    except (ValueError, RuntimeError, TypeError) as e:
        raise errors.ModelError(
            f"{type(model).__name__}: its attention takes no packed rows ({_first_line(e)}); set data.packing: false"
        ) from e
    alone = torch.cat(
        [
            _hidden(model, one, torch.arange(one.shape[1], device=device)[None], Documents(None, None))
            for one in documents
        ],
        1,
    )
    model.train(was_training)
    difference = (packed - alone).abs().max() / alone.abs().max().clamp_min(1e-6)
    if float(difference) > _PROBE_TOLERANCE.get(model.dtype, 1e-2):
        raise errors.ModelError(
            f"{type(model).__name__}: tokens of one document see another one in a packed row "
            f"(hidden states differ by {float(difference):.2g}); set data.packing: false"
        )


def _hidden(
    model: PreTrainedModel, tokens: torch.Tensor, positions: torch.Tensor, documents: Documents
) -> torch.Tensor:
    output = model.base_model(tokens, position_ids=positions, use_cache=False, **attention.arguments(model, documents))
    return cast(torch.Tensor, output[0]).float()


def _attention(config: ModelConfig, described: Any) -> str:
    """Ours where attention is causal and nothing else; else what Transformers has for the model."""
    if config.attention != "auto":
        return config.attention
    text = described.get_text_config()
    model_class = AutoModelForCausalLM._model_mapping[type(described)]
    is_plain = (
        getattr(model_class, "_supports_attention_backend", False)
        and not getattr(text, "attn_logit_softcapping", None)
        and not getattr(text, "alibi", False)
        and not getattr(model_class, "_is_stateful", False)
        and text.model_type not in _OWN_ATTENTION
    )
    if is_plain:
        return attention.NAME
    return "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"


_OWN_ATTENTION: Final = frozenset({"gpt_oss", "llama4_text", "bloom", "mpt"})
"""Sinks, chunks, position biases: arguments of attention that ours does not know."""


def _logits_of(text: Any) -> _Logits:
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    if divisor := getattr(text, "logits_scaling", None):
        scale /= float(divisor)
    return _Logits(scale, float(getattr(text, "final_logit_softcapping", None) or 0.0))


def _first_line(e: BaseException) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]
