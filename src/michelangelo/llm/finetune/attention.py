"""Attention over packed rows without an S x S mask: a token looks back within its own document only.

Transformers' models call it by name (`NAME`). Rows of one document go to SDPA's causal kernels (cuDNN, flash); rows of
several to the variable-length flash kernel, on a GPU, else to SDPA with a mask of the documents. Models whose attention
is special in other ways (soft caps, sinks, ALiBi) keep Transformers' own, with such a mask; `model` decides.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch.nn import attention as kernels
from torch.nn import functional as F
from torch.nn.attention import varlen
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from michelangelo.llm.finetune.documents import Documents, document_mask

__all__ = ["NAME", "arguments", "attend", "fast_kernels"]

NAME: Final = "michelangelo_packed"


_GROUPED: Final = "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters
"""Before torch 2.12 the kernel's keys and values have as many heads as the queries."""


def arguments(model: PreTrainedModel, documents: Documents) -> dict[str, Any]:
    """What the model's forward needs beside tokens and positions to keep documents apart."""
    implementation = model.config._attn_implementation
    if implementation == NAME:
        return documents.arguments()
    if documents.ids is None or implementation not in ("sdpa", "eager"):
        return {}  # one document a row, or FlashAttention, which reads the positions
    text = model.config.get_text_config()
    length, device = documents.ids.shape[1], documents.ids.device

    def mask(window: int) -> torch.Tensor:
        seen = document_mask(documents.ids, length, window, device)
        return torch.zeros(seen.shape, dtype=model.dtype, device=device).masked_fill_(
            ~seen, torch.finfo(model.dtype).min
        )

    window = getattr(text, "sliding_window", None) or 0
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return {"attention_mask": {"full_attention": mask(0), "sliding_attention": mask(window)}}
    return {"attention_mask": mask(window)}


@contextlib.contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """cuDNN's attention before flash: on a Hopper GPU it takes about half the time (benchmarks/RESULTS.md)."""
    if device.type != "cuda":
        yield
        return
    order = [
        kernels.SDPBackend.CUDNN_ATTENTION,
        kernels.SDPBackend.FLASH_ATTENTION,
        kernels.SDPBackend.EFFICIENT_ATTENTION,
        kernels.SDPBackend.MATH,
    ]
    with kernels.sdpa_kernel(order, set_priority=True):
        yield


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """query: [B, H, S, D]; key, value: [B, K, S, D] → [B, S, H, D]. Causal always."""
    offsets, ids = others.get("document_offsets"), others.get("document_ids")
    window = others.get("sliding_window") or 0
    length = query.shape[2]
    window = window if window < length else 0
    if (offsets is not None or window) and query.is_cuda:
        return _variable_length(query, key, value, offsets, window, scaling), None
    mask = document_mask(ids, length, window, query.device) if ids is not None or window else None
    grouped = key.shape[1] != query.shape[1]
    attended = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )
    return attended.transpose(1, 2).contiguous(), None


def _variable_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    offsets: torch.Tensor | None,
    window: int,
    scaling: float | None,
) -> torch.Tensor:
    rows, heads, length, _ = query.shape
    if offsets is None:
        offsets = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=query.device)
    q, k, v = (t.transpose(1, 2).reshape(rows * length, t.shape[1], t.shape[3]) for t in (query, key, value))
    if not _GROUPED and key.shape[1] != heads:
        k, v = (t.repeat_interleave(heads // key.shape[1], dim=1) for t in (k, v))
    options: dict[str, Any] = {"enable_gqa": key.shape[1] != heads} if _GROUPED else {}
    looks = (window - 1 if window else -1, 0)
    attended = varlen.varlen_attn(
        q, k, v, offsets, offsets, length, length, scale=scaling, window_size=looks, **options
    )
    assert isinstance(attended, torch.Tensor)
    return attended.reshape(rows, length, heads, -1)


def _no_mask(*_: Any, **__: Any) -> None:
    """`attend` knows the documents; nothing S x S is made."""


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _no_mask)
