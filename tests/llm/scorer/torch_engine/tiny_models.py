"""Sizes of tiny models of several architectures, and settings of an engine for them."""

from __future__ import annotations

from typing import Any

__all__ = ["ARCHITECTURES", "SIZES", "SMALL"]

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 192,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 11},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 7,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3_text": {"head_dim": 8, "sliding_window": 9, "query_pre_attn_scalar": 8},
    "mixtral": {"num_local_experts": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 192},
    "gpt_oss": {"head_dim": 8, "sliding_window": 8, "num_local_experts": 4, "rope_parameters": {"rope_theta": 1e4}},
}
SMALL = {"device": "cpu", "max_batch_tokens": 48, "max_sequences": 5, "block_tokens": 4, "max_context": 112}
