"""What a decoder-only model is, as far as arithmetic is concerned: sizes and a few switches, and what they add up to.

It knows no hardware and no training method, and loads no weights. Shapes come from a `config.json`, a folder that has
one, or the bundled catalogue (`data/models.json`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelShape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes are counts, not bytes."""

    name: str
    architecture: str
    """`model_type` of the config: `llama`, `mixtral`, `qwen3`, `gemma2`, `falcon`."""
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    """Of one expert, in a mixture."""
    gated_mlp: bool = True
    """Three matrices (gate, up, down) instead of two."""
    num_experts: int = 0
    """0: no mixture."""
    experts_per_token: int = 0
    shared_intermediate_size: int = 0
    """Of the expert that every token visits; 0: there is none."""
    num_dense_layers: int = 0
    """Layers of a mixture that have a plain MLP, of `dense_intermediate_size`."""
    dense_intermediate_size: int = 0
    tied_embeddings: bool = False
    attention_bias: bool = False
    """Of the query, key and value projections."""
    output_bias: bool = False
    """Of attention's output projection."""
    mlp_bias: bool = False
    norm_size: int = 1
    """Vectors of hidden_size per norm: 1 for RMSNorm, 2 for LayerNorm (weight and bias)."""
    norms_per_layer: int = 2
    qk_norm: bool = False
    learned_positions: int = 0
    """Rows of a table of positions (GPT-2); 0: rotary or none."""
    max_positions: int = 0
    sliding_window: int = 0
    """Tokens that a local layer looks back; 0: all layers look back over everything."""
    num_sliding_layers: int = 0
    logit_softcap: float = 0.0
