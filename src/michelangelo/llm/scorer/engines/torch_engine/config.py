"""What can be set on the PyTorch engine, with every mistake told at once. It loads nothing and needs no torch."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from michelangelo import errors

__all__ = ["CPU_BLOCK_TOKENS", "CUDA_BLOCK_TOKENS", "Dtype", "Pooling", "TorchEngineConfig", "check", "problems"]

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Pooling: TypeAlias = Literal["mean", "last"]
CPU_BLOCK_TOKENS: Final = 32
"""Measured: with 16 the products are too small, with 64 too much of the last block is empty."""
CUDA_BLOCK_TOKENS: Final = 256
"""What FlashAttention 2 wants of pages."""
_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
_LIMITS: Final = {
    "max_batch_tokens": (1, 1 << 20),
    "max_sequences": (1, 1 << 14),
    "block_tokens": (0, 1 << 12),
    "max_context": (0, 1 << 24),
    "cache_bytes": (0, 1 << 44),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchEngineConfig:
    """One engine: a model on one device.

    model: a folder with config.json and weights. tokenizer: another folder, if it is not the model's. dtype "auto":
    that of the weights. device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
    """

    model: str
    tokenizer: str = ""
    dtype: Dtype = "auto"
    device: str = "auto"
    max_batch_tokens: int = 1024
    """Of one step, prompts and decoding together: longer prompts are read in several steps."""
    max_sequences: int = 128
    """Worked on at once."""
    block_tokens: int = 0
    """Tokens of a block of the cache; 0: what is quick on the device."""
    max_context: int = 0
    """Tokens of a prompt and its output; 0: what the model takes and the cache holds."""
    cache_bytes: int = 0
    """Of keys and values; 0: `cache_share` of the memory that is free once the model is loaded."""
    cache_share: float = 0.0
    """Between 0 and 1; 0: 0.85 on a GPU and 0.25 on a CPU, there at most 4 GiB."""
    seed: int = 0
    """Of requests that have a temperature and no seed of their own."""
    reuses_prefixes: bool = True
    uses_cuda_graphs: bool = True
    """On a GPU; elsewhere it changes nothing."""
    enforces_schema: bool = True
    """Without it a request with a JSON schema is refused, and no constraint library is needed."""
    checks_model: bool = True
    """Compare with the model's own attention before the first request."""
    trusts_remote_code: bool = False
    pooling: Pooling = "mean"
    """Of embeddings: the mean of the last hidden states over all tokens, or that of the last token. Unit length."""


def problems(config: TorchEngineConfig) -> list[str]:
    """What is wrong with it, one line each. Empty: nothing."""
    found = []
    if not config.model:
        found.append("model: must name a folder with a model")
    elif not os.path.isdir(config.model):
        found.append(f"model: {config.model} is no folder")
    if config.tokenizer and not os.path.isdir(config.tokenizer):
        found.append(f"tokenizer: {config.tokenizer} is no folder")
    if config.dtype not in _DTYPES:
        found.append(f"dtype: {config.dtype!r} is none of {', '.join(_DTYPES)}")
    if config.device not in ("auto", "cpu", "cuda") and not (
        config.device.startswith("cuda:") and config.device[5:].isdigit()
    ):
        found.append(f"device: {config.device!r} is none of auto, cpu, cuda, cuda:N")
    for name, (low, high) in _LIMITS.items():
        if not low <= (value := getattr(config, name)) <= high:
            found.append(f"{name}: {value} is not between {low} and {high}")
    if not 0 <= config.cache_share < 1:
        found.append(f"cache_share: {config.cache_share} is not between 0 and 1")
    if config.cache_bytes and config.cache_share:
        found.append("cache_share: cache_bytes is set too; set one of the two")
    if 1 <= config.max_batch_tokens < config.max_sequences:
        found.append(
            f"max_batch_tokens: {config.max_batch_tokens} is less than max_sequences ({config.max_sequences}), "
            "each of which takes a token of every step"
        )
    if config.pooling not in ("mean", "last"):
        found.append(f"pooling: {config.pooling!r} is none of mean, last")
    return found


def check(config: TorchEngineConfig) -> None:
    """Raises EngineError that names all problems."""
    if found := problems(config):
        raise errors.EngineError("the engine cannot be opened:\n" + "\n".join(f"  {line}" for line in found))
