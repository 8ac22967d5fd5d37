"""A model small enough for a CPU and a minute, so that every experiment can be run from end to end anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["CONFIG", "write"]

CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
"""Llama, 82,000 parameters. Few words, so that layers and not logits hold the memory, as in a large model."""


def write(folder: Path, **changes: Any) -> Path:
    """A folder with its config.json, as every part takes a model. `changes`: other sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}, indent=1) + "\n", encoding="utf-8")
    return folder
