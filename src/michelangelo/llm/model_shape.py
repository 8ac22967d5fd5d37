"""What a decoder-only model is, as far as arithmetic is concerned: sizes and a few switches, and what they add up to.

It knows no hardware and no training method, and loads no weights. Shapes come from a `config.json`, a folder that has
one, or the bundled catalogue (`data/models.json`); what the keys of a config mean is in `model_config`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.llm import model_config

__all__ = [
    "Activation",
    "Counts",
    "ModelShape",
    "Projection",
    "catalogue",
    "from_config",
    "load",
    "provenance",
    "published_config",
]

Activation: TypeAlias = Literal["silu", "gelu", "gelu_new", "relu", "gpt_oss"]
"""Which nonlinearity: what it keeps for the way back differs. `gelu_new` is GPT-2's, written out in Transformers."""

_CATALOGUE: Final = Path(__file__).parent / "data" / "models.json"
_MAX_CONFIG_BYTES: Final = 4 << 20
"""A config.json has some kilobytes; weights given by mistake are refused unread."""


@dataclass(frozen=True, slots=True)
class Projection:
    """One matrix of a layer, x [.., in] → [.., out], as the model has it (fused ones once)."""

    name: str
    """As in Transformers' module (`q_proj`, `query_key_value`); of all experts, one matrix of a fused tensor."""
    kind: Literal["attention", "mlp", "router"]
    inputs: int
    outputs: int
    bias: bool
    layers: int
    """Layers that have it."""
    copies: int = 1
    """Experts in a layer."""
    active: int = 1
    """Experts that a token visits."""
    is_fused_expert: bool = False
    """A slice of a three-dimensional tensor of all experts, not a linear module."""

    @property
    def weights(self) -> int:
        """Of one copy, without bias."""
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters by component; they sum up to the model's."""

    embedding: int
    """Tokens and, where they are learned, positions."""
    attention: int
    mlp: int
    """Plain MLPs and experts."""
    router: int
    norms: int
    lm_head: int
    """0 where it is the embedding."""

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.mlp + self.router + self.norms + self.lm_head


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes are counts, not bytes. Derived counts are computed once per shape."""

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
    shared_expert_gate: bool = False
    num_dense_layers: int = 0
    """Layers of a mixture that have a plain MLP, of `dense_intermediate_size`."""
    dense_intermediate_size: int = 0
    tied_embeddings: bool = False
    attention_bias: bool = False
    """Of the query, key and value projections."""
    output_bias: bool = False
    """Of attention's output projection."""
    mlp_bias: bool = False
    router_bias: bool = False
    lm_head_bias: bool = False
    norm_size: int = 1
    """Vectors of hidden_size per norm: 1 for RMSNorm, 2 for LayerNorm (weight and bias), 0 for one without weights."""
    layer_norm: bool = False
    """LayerNorm: subtracts the mean, in one kernel; RMSNorm is written out in Transformers, in fp32."""
    norms_per_layer: int = 2
    final_norm: bool = True
    qk_norm: Literal["", "head", "full"] = ""
    """Norms of queries and keys: over each head, over all heads together."""
    parallel_residual: bool = False
    """Attention and MLP read the same norm, or norms of the same input."""
    attention_sinks: bool = False
    """One number per head and layer."""
    fused_qkv: bool = False
    """One matrix for query, key and value."""
    fused_gate_up: bool = False
    """One matrix for gate and up; experts have it always."""
    activation: Activation = "silu"
    rotary_share: float = 1.0
    """Of head_dim that is rotated; 0: no rotary positions."""
    embedding_size: int = 0
    """0: hidden_size; else the embedding is projected to it and back (OPT-350m)."""
    learned_positions: int = 0
    """Rows of a table of positions (GPT-2); 0: rotary or none."""
    embedding_norm: bool = False
    """A norm right after the embedding (BLOOM)."""
    max_positions: int = 0
    sliding_window: int = 0
    """Tokens that a local layer looks back; 0: all layers look back over everything."""
    num_sliding_layers: int = 0
    attention_softcap: float = 0.0
    """Of attention scores (Gemma 2): needs eager or flex attention."""
    logit_softcap: float = 0.0
    scaled_embedding: bool = False
    """The embedding is multiplied by a number (Gemma)."""
    residual_multiplier: bool = False
    """The outputs of attention and MLP are multiplied by a number before they are added (Granite)."""
    norm_in_fp32: bool = False
    """RMSNorms multiply by their weight before they leave fp32 (Gemma, OLMo 2)."""
    post_norm: bool = False
    """Norms are of what attention and MLP give, none of what they get (OLMo 2)."""
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    notes: tuple[str, ...] = ()
    """What was assumed in reading the config."""

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Of keys; the same of values."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_moe_layers(self) -> int:
        return self.num_layers - self.num_dense_layers if self.num_experts else 0

    @functools.cached_property
    def projections(self) -> tuple[Projection, ...]:
        """All matrices of all layers; the embedding and the output matrix are none of them."""
        return (*_attention_projections(self), *_mlp_projections(self))

    @functools.cached_property
    def counts(self) -> Counts:
        """Parameters by component, exact."""
        by_kind = {"attention": 0, "mlp": 0, "router": 0}
        for projection in self.projections:
            each = projection.weights + (projection.outputs if projection.bias else 0)
            by_kind[projection.kind] += each * projection.layers * projection.copies
        embedded = self.embedding_size or self.hidden_size
        embedding = self.vocab_size * embedded + self.learned_positions * self.hidden_size
        if embedded != self.hidden_size:
            embedding += 2 * embedded * self.hidden_size
        head = 0 if self.tied_embeddings else self.vocab_size * embedded
        head += self.vocab_size if self.lm_head_bias else 0
        by_kind["attention"] += self.num_heads * self.num_layers if self.attention_sinks else 0
        return Counts(embedding, by_kind["attention"], by_kind["mlp"], by_kind["router"], self._norm_parameters(), head)

    @functools.cached_property
    def num_parameters(self) -> int:
        """All of them, tied ones once."""
        return self.counts.total

    @functools.cached_property
    def matmul_parameters(self) -> int:
        """Weights that a token is multiplied with if it visits all experts: no embedding lookup, no norms, no biases,
        but the output matrix also where it is tied to the embedding."""
        return sum(p.weights * p.layers * p.copies for p in self.projections) + self._output_weights

    @functools.cached_property
    def active_matmul_parameters(self) -> int:
        """The same of the experts that a token visits: the N of 6N FLOPs per token."""
        return sum(p.weights * p.layers * p.active for p in self.projections) + self._output_weights

    @functools.cached_property
    def active_parameters(self) -> int:
        """All parameters less the experts that a token doesn't visit (publishers' `A3B`)."""
        idle = sum(
            (p.weights + (p.outputs if p.bias else 0)) * p.layers * (p.copies - p.active) for p in self.projections
        )
        return self.num_parameters - idle

    @functools.cached_property
    def largest_layer_parameters(self) -> int:
        """Of the largest layer: what sharded training gathers at a time."""
        experts = self.num_experts > 0
        total = 0
        for p in self.projections:
            if experts and p.kind != "attention" and p.layers != self.num_moe_layers:
                continue
            total += (p.weights + (p.outputs if p.bias else 0)) * p.copies
        return total + (self._norm_parameters() - self._outer_norms()) // max(1, self.num_layers)

    def lora_projections(self, targets: Sequence[str]) -> tuple[Projection, ...]:
        """Those that adapters of `targets` reach; `all` means every one but the router's. Raises ModelError for a name
        that no matrix has."""
        if "all" in targets:
            return tuple(p for p in self.projections if p.kind != "router")
        chosen = tuple(p for p in self.projections if p.name in targets)
        if unknown := sorted(set(targets) - {p.name for p in self.projections}):
            names = ", ".join(dict.fromkeys(p.name for p in self.projections))
            raise errors.ModelError(f"lora_targets: {self.name} has no {', '.join(unknown)}; it has {names}")
        return chosen

    def lora_parameters(self, rank: int, targets: Sequence[str] = ("all",)) -> int:
        """Of both factors: rank x (in + out) per matrix; a fused tensor of E experts has E pairs."""
        return sum(rank * (p.inputs + p.outputs) * p.layers * p.copies for p in self.lora_projections(targets))

    @property
    def _output_weights(self) -> int:
        embedded = self.embedding_size or self.hidden_size
        between = 2 * embedded * self.hidden_size if embedded != self.hidden_size else 0
        return self.vocab_size * embedded + between

    def _outer_norms(self) -> int:
        return (int(self.final_norm) + int(self.embedding_norm)) * self.norm_size * self.hidden_size

    def _norm_parameters(self) -> int:
        per_layer = self.norms_per_layer * self.norm_size * self.hidden_size
        if self.qk_norm == "head":
            per_layer += 2 * self.head_dim * max(1, self.norm_size)
        elif self.qk_norm == "full":
            per_layer += self.query_size + self.kv_size
        return per_layer * self.num_layers + self._outer_norms()


def load(reference: str) -> ModelShape:
    """A name of the catalogue (`llama-3.1-8b`), a config.json, or a folder with one. Raises ModelError."""
    entries = _read_catalogue()
    if reference.lower() in entries:
        return _of_catalogue(reference.lower())
    path = Path(reference).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        near = model_config.similar(reference.lower(), tuple(entries))
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise errors.ModelError(
            f"model {reference}: neither a name of the catalogue nor a config.json nor a folder with one{hint} "
            "(`mactl llm models` lists the names)"
        )
    return from_config(_read_config(path), name=path.parent.name or path.stem, place=str(path))


def from_config(config: Mapping[str, Any], name: str = "", *, place: str = "config") -> ModelShape:
    """A shape of the fields of a config.json. Raises ModelError that names all wrong fields at once."""
    return ModelShape(**model_config.shape_fields(config, name=name, place=place))


def catalogue() -> tuple[str, ...]:
    """Names that `load` takes, sorted."""
    return tuple(sorted(_read_catalogue()))


def provenance(name: str) -> tuple[str, str]:
    """The publisher's page that an entry of the catalogue was taken from, and the date (YYYY-MM-DD)."""
    entry = _read_catalogue()[name]
    return entry["source"], entry["date"]


def published_config(name: str) -> Mapping[str, Any]:
    """The fields of the config.json that an entry of the catalogue was taken from."""
    config: Mapping[str, Any] = _read_catalogue()[name]["config"]
    return config


def _attention_projections(shape: ModelShape) -> tuple[Projection, ...]:
    names = model_config.projection_names(shape.architecture)
    sizes = {"q": shape.query_size, "k": shape.kv_size, "v": shape.kv_size}
    inputs = {"qkv": sum(sizes.values())} if shape.fused_qkv else sizes
    made = [
        Projection(names[key], "attention", shape.hidden_size, out, shape.attention_bias, shape.num_layers)
        for key, out in inputs.items()
    ]
    made.append(
        Projection(names["o"], "attention", shape.query_size, shape.hidden_size, shape.output_bias, shape.num_layers)
    )
    return tuple(made)


def _mlp_projections(shape: ModelShape) -> tuple[Projection, ...]:
    dense_layers = shape.num_dense_layers if shape.num_experts else shape.num_layers
    dense_size = shape.dense_intermediate_size if shape.num_experts else shape.intermediate_size
    made: list[Projection] = []
    if dense_layers:
        made += _mlp(shape, "", dense_size, dense_layers, fused=shape.fused_gate_up)
    if shape.num_experts:
        layers, hidden = shape.num_moe_layers, shape.hidden_size
        made.append(Projection("gate", "router", hidden, shape.num_experts, shape.router_bias, layers))
        made += _mlp(
            shape,
            "experts.",
            shape.intermediate_size,
            layers,
            fused=True,
            copies=shape.num_experts,
            active=shape.experts_per_token,
        )
        if shape.shared_intermediate_size:
            made += _mlp(shape, "shared_expert.", shape.shared_intermediate_size, layers, fused=shape.fused_gate_up)
        if shape.shared_expert_gate:
            made.append(Projection("shared_expert_gate", "router", hidden, 1, False, layers))
    return tuple(made)


def _mlp(
    shape: ModelShape, prefix: str, size: int, layers: int, *, fused: bool, copies: int = 1, active: int = 1
) -> list[Projection]:
    names = model_config.projection_names("" if prefix else shape.architecture)
    hidden, is_expert = shape.hidden_size, copies > 1
    if not shape.gated_mlp:
        into = [(names["up"], size)]
    elif fused:
        into = [(names["gate_up"], 2 * size)]
    else:
        into = [(names["gate"], size), (names["up"], size)]
    matrices = [(name, hidden, out) for name, out in into] + [(names["down"], size, hidden)]
    return [
        Projection(prefix + name, "mlp", a, b, shape.mlp_bias, layers, copies, active, is_expert)
        for name, a, b in matrices
    ]


@functools.lru_cache(maxsize=1)
def _read_catalogue() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(_CATALOGUE.read_text(encoding="utf-8"))["models"]
    return entries


@functools.lru_cache(maxsize=256)
def _of_catalogue(name: str) -> ModelShape:
    return from_config(_read_catalogue()[name]["config"], name=name, place=f"catalogue entry {name}")


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as e:
        raise errors.ModelError(f"{path}: cannot be read: {e.strerror or e}") from e
    if len(data) > _MAX_CONFIG_BYTES:
        raise errors.ModelError(
            f"{path}: more than {_MAX_CONFIG_BYTES >> 20} MiB, so it is no config.json; give the model's configuration"
        )
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise errors.ModelError(f"{path}: no JSON: {e}; give the config.json of the model as published") from e
    if not isinstance(config, dict):
        raise errors.ModelError(f"{path}: a JSON {type(config).__name__}, where the config of a model is an object")
    return config
