"""Which tensors autograd keeps between forward and backward, counted on fake tensors of real shapes.

Two layers less one layer are what a layer keeps; the rest is what the ends of the model keep. Storages are counted
once, whatever views of them are kept, and parameters not at all: so this is what an allocator holds. Kernels are those
of Transformers in eager mode on a GPU, where causal attention needs no mask and no repeated keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from michelangelo.llm.tracing import slices
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["KINDS", "Kept", "Slice", "kept_tensors", "measure_slice"]

KINDS: Final = ("attention", "mlp", "norms", "residual", "embedding", "logits")
_ATTENTION: Final = "michelangelo_traced"
_OWN_ATTENTION: Final = frozenset({"falcon", "bloom", "gptj"})
"""Transformers' models that take no other attention than those they bring."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One storage that lives until the backward pass."""

    bytes: int
    module: str
    """The module in whose forward it was first kept."""
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def kind(self) -> str:
        """One of KINDS, by the module's name."""
        return _kind(self.module)


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes per token, by kind."""

    per_layer: Mapping[str, float]
    ends: Mapping[str, float]
    """What doesn't grow with depth: embedding, last norm, logits; the shares of the first layer that differ, too."""

    @property
    def layer_total(self) -> float:
        return sum(self.per_layer.values())

    @property
    def ends_total(self) -> float:
        return sum(self.ends.values())

    def scaled(self, layers: int) -> float:
        """Bytes per token of a model of that depth."""
        return self.ends_total + layers * self.layer_total


def measure_slice(config: Mapping[str, Any], setup: TrainingSetup, *, with_head: bool = False) -> Slice:
    """Traces `setup` on one and two layers (two and four, where local and global layers alternate, so that a layer is
    their mean). `with_head`: logits too. Raises ModelError where Transformers makes no model of the config."""
    period = 2 if config.get("model_type") in ("gemma2",) else 1
    small, large = (_by_kind(config, setup, layers, with_head=with_head) for layers in (period, 2 * period))
    per_layer = {kind: (large[kind] - small[kind]) / period for kind in KINDS}
    return Slice(per_layer, {kind: small[kind] - period * per_layer[kind] for kind in KINDS})


def kept_tensors(
    config: Mapping[str, Any], setup: TrainingSetup, *, layers: int, with_head: bool = False
) -> list[Kept]:
    """All storages of one forward pass, in the order in which they are first kept."""
    attention = "eager"
    if setup.attention == "flash":
        attention = "sdpa" if config.get("model_type") in _OWN_ATTENTION else _ATTENTION
    _register()
    described = slices.described(config, layers=layers, attention=attention)
    dtype = torch.float32 if setup.precision == "fp32" else torch.bfloat16
    model = slices.build(described, dtype=dtype)
    if setup.method != "full":
        model = slices.with_lora(model, setup)
    if setup.checkpointing == "full":
        slices.checkpointed(model)
    with slices.fake():
        slices.with_storages(model)
        tokens = slices.fake_tokens(setup.micro_batch, setup.sequence_length)
        with _recording(model, tokens) as kept:
            body = model if with_head else _body(model)
            body(input_ids=tokens)
    return kept


def _body(model: Any) -> nn.Module:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return cast(nn.Module, inner.base_model)


def _by_kind(config: Mapping[str, Any], setup: TrainingSetup, layers: int, *, with_head: bool) -> dict[str, float]:
    tokens = setup.micro_batch * setup.sequence_length
    sums = dict.fromkeys(KINDS, 0.0)
    for kept in kept_tensors(config, setup, layers=layers, with_head=with_head):
        sums[kept.kind] += kept.bytes / tokens
    return sums


@contextmanager
def _recording(model: nn.Module, *inputs: torch.Tensor) -> Iterator[list[Kept]]:
    """Collects what is kept within; what is a parameter, a buffer or an input is not."""
    known = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers(), *inputs)}
    running: list[str] = []
    kept: list[Kept] = []
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            known.add(storage._cdata)
            name = running[-1] if running else ""
            kept.append(Kept(storage.nbytes(), name, tuple(tensor.shape), tensor.dtype))
        alive.append(tensor)
        return tensor

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda _module, _inputs, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(lambda _module, _inputs, _output: running.pop() and None))
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _kind(module: str) -> str:
    parts = [part for part in module.split(".") if part not in ("base_model", "model", "lora_A", "lora_B", "default")]
    for part in parts:
        if part in ("self_attn", "self_attention", "attn", "attention"):
            return "attention"
        if part in ("mlp", "block_sparse_moe", "feed_forward", "fc1", "fc2", "activation_fn"):
            return "mlp"
    last = parts[-1] if parts else ""
    if "norm" in last or last.startswith("ln_"):
        return "norms"
    if last in ("embed_tokens", "word_embeddings", "wte", "wpe", "embed_positions", "embed_in", "rotary_emb"):
        return "embedding"
    return "logits" if last in ("lm_head", "embed_out", "") else "residual"


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """As flash attention keeps them: queries, keys, values, output, and one float per head and token."""
    grouped = query.shape[1] != key.shape[1]
    output = F.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
    )
    return output.transpose(1, 2).contiguous(), None


def _register() -> None:
    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, lambda *args, **kwargs: None)
