"""What the fields of a config.json mean, per architecture: the one place that knows that GPT-2 says `n_embd`.

It gives fields for a `model_shape.ModelShape`, checks that they are sane, and says all that is wrong at once. It reads
no file and counts nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

from michelangelo import errors

__all__ = ["architectures", "projection_names", "shape_fields", "similar"]

_LIMITS: Final = {
    "vocab_size": 4_000_000,
    "hidden_size": 262_144,
    "num_hidden_layers": 2_000,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 4_096,
    "intermediate_size": 2_000_000,
    "num_experts": 8_192,
}
"""About ten times the largest published models: beyond these a config is wrong, not ambitious."""
_ENCODERS: Final = frozenset(
    (
        "albert",
        "bart",
        "bert",
        "blip",
        "blip_2",
        "camembert",
        "clip",
        "clip_text_model",
        "convbert",
        "deberta",
        "deberta_v2",
        "distilbert",
        "electra",
        "ernie",
        "fnet",
        "layoutlm",
        "led",
        "longformer",
        "longt5",
        "m2m_100",
        "marian",
        "mbart",
        "mobilebert",
        "modernbert",
        "mpnet",
        "mt5",
        "nomic_bert",
        "pegasus",
        "plbart",
        "prophetnet",
        "roberta",
        "siglip",
        "speech_to_text",
        "speecht5",
        "switch_transformers",
        "t5",
        "umt5",
        "vit",
        "wav2vec2",
        "whisper",
        "xlm_roberta",
    )
)
_OTHER_DECODERS: Final = {
    "mamba": "a state-space model",
    "mamba2": "a state-space model",
    "falcon_mamba": "a state-space model",
    "rwkv": "a recurrent model",
    "jamba": "half a state-space model",
    "bamba": "half a state-space model",
    "recurrent_gemma": "half a recurrent model",
    "qwen3_next": "half a linear-attention model",
    "deepseek_v2": "built on latent attention",
    "deepseek_v3": "built on latent attention",
    "kimi_k2": "built on latent attention",
}
_SPLIT: Final = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
_GATED: Final = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj", "gate_up": "gate_up_proj"}
_NAMES: Final[dict[str, dict[str, str]]] = {
    "falcon": {"qkv": "query_key_value", "o": "dense", "up": "dense_h_to_4h", "down": "dense_4h_to_h"},
    "gpt_neox": {"qkv": "query_key_value", "o": "dense", "up": "dense_h_to_4h", "down": "dense_4h_to_h"},
    "bloom": {"qkv": "query_key_value", "o": "dense", "up": "dense_h_to_4h", "down": "dense_4h_to_h"},
    "gpt2": {"qkv": "c_attn", "o": "c_proj", "up": "c_fc", "down": "c_proj"},
    "gpt_bigcode": {"qkv": "c_attn", "o": "c_proj", "up": "c_fc", "down": "c_proj"},
    "gptj": {"o": "out_proj", "up": "fc_in", "down": "fc_out"},
    "opt": {"o": "out_proj", "up": "fc1", "down": "fc2"},
    "phi": {"o": "dense", "up": "fc1", "down": "fc2"},
    "phi3": {"qkv": "qkv_proj"},
    "starcoder2": {"up": "c_fc", "down": "c_proj"},
}


def projection_names(architecture: str) -> Mapping[str, str]:
    """Names of a layer's matrices in Transformers' model: keys q, k, v, qkv, o, gate, up, gate_up, down."""
    return {"qkv": "qkv_proj", **_SPLIT, **_GATED, **_NAMES.get(architecture, {})}


def architectures() -> tuple[str, ...]:
    """`model_type`s whose every difference is known here; others are taken as Llama's, with a note."""
    return tuple(sorted(_READERS))


def similar(name: str, names: tuple[str, ...]) -> list[str]:
    """Up to three that look like it, for a message."""
    return difflib.get_close_matches(name, names, n=3, cutoff=0.6)


def shape_fields(config: Mapping[str, Any], *, name: str, place: str) -> dict[str, Any]:
    """Arguments for ModelShape. Raises ModelError: what it is, where it can't be a decoder; else all wrong fields."""
    model_type = str(config.get("model_type", ""))
    notes: tuple[str, ...] = ()
    text = config.get("text_config")
    if isinstance(text, Mapping) and not config.get("is_encoder_decoder") and model_type not in _ENCODERS:
        notes = (f"only the text model of {model_type or place} is counted",)
        inner = {k: v for k, v in config.items() if k == "tie_word_embeddings"}
        config = {**inner, **text}
        model_type = str(config.get("model_type", model_type))
    _refuse_others(config, model_type, place)
    reader = _READERS.get(model_type)
    if reader is None:
        notes += (f"architecture {model_type or 'without model_type'} is not known here: taken as Llama's",)
        reader = _llama
    fields = _Fields(config, place)
    made = reader(fields)
    fields.raise_wrong()
    made.update(name=name or str(config.get("_name_or_path") or model_type), architecture=model_type or "llama")
    made["notes"] = notes + tuple(fields.notes)
    return made


def _refuse_others(config: Mapping[str, Any], model_type: str, place: str) -> None:
    classes = config.get("architectures") or ()
    first = str(classes[0]) if isinstance(classes, list | tuple) and classes else ""
    is_encoder = model_type in _ENCODERS or config.get("is_encoder_decoder") is True
    if is_encoder or first.endswith(("ForMaskedLM", "ForImageClassification", "ForTokenClassification")):
        raise errors.ModelError(
            f"{place}: {model_type or first} is no decoder-only language model; give one that ends in ForCausalLM"
        )
    if model_type in _OTHER_DECODERS:
        raise errors.ModelError(
            f"{place}: model_type {model_type} is {_OTHER_DECODERS[model_type]}, whose sizes are not modelled here; "
            "known are " + ", ".join(architectures())
        )


class _Fields:
    """Reads numbers of a config and collects what is wrong with them."""

    def __init__(self, config: Mapping[str, Any], place: str) -> None:
        self._config, self._place = config, place
        self._missing: list[str] = []
        self._wrong: list[str] = []
        self.notes: list[str] = []

    def size(self, *names: str, default: int | None = None, zero: bool = False) -> int:
        """The first of `names` that is there and not null: a whole number, at least 1 (or 0)."""
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            limit = _LIMITS.get(names[0], 100_000_000)
            low = 0 if zero else 1
            if isinstance(value, bool) or not isinstance(value, int):
                self._wrong.append(f"{name} is {_shown(value)}, not a whole number")
            elif not low <= value <= limit:
                self._wrong.append(f"{name} is {_shown(value)}, not {low} to {limit:,}")
            else:
                return value
            return 1
        if default is None:
            self._missing.append(" or ".join(names))
            return 1
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._wrong.append(f"{name} is {_shown(value)}, not true or false")
        return bool(value)

    def number(self, name: str, default: float = 0.0) -> float:
        value = self._config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong.append(f"{name} is {_shown(value)}, not a number")
            return default
        return float(value)

    def value(self, name: str) -> Any:
        return self._config.get(name)

    def wrong(self, message: str) -> None:
        self._wrong.append(message)

    def raise_wrong(self) -> None:
        if not self._missing and not self._wrong:
            return
        parts = [f"missing: {', '.join(self._missing)}"] if self._missing else []
        raise errors.ModelError(
            f"{self._place}: no usable configuration of a decoder: {'; '.join(parts + self._wrong)}. "
            "Correct it, or give the config.json as the publisher has it"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _core(fields: _Fields, *, kv_default: int | None = None) -> dict[str, Any]:
    """What all have, under the usual names."""
    hidden, heads = fields.size("hidden_size", "n_embd"), fields.size("num_attention_heads", "n_head")
    kv = fields.size("num_key_value_heads", default=kv_default or heads)
    explicit = fields.value("head_dim")
    if explicit is None and hidden % heads:
        fields.wrong(f"hidden_size {hidden} is not divisible by num_attention_heads {heads}, and there is no head_dim")
    if heads % kv:
        fields.wrong(f"num_attention_heads {heads} is not divisible by num_key_value_heads {kv}")
    return {
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": hidden,
        "num_layers": fields.size("num_hidden_layers", "n_layer", "num_layers"),
        "num_heads": heads,
        "num_kv_heads": kv,
        "head_dim": fields.size("head_dim", default=max(1, hidden // heads)),
        "max_positions": fields.size("max_position_embeddings", "n_positions", default=0, zero=True),
        "attention_dropout": fields.number("attention_dropout"),
        "activation": _activation(fields),
    }


_ACTIVATION_FIELDS: Final = ("hidden_activation", "hidden_act", "activation_function", "activation")


def _activation(fields: _Fields, default: str = "silu") -> str:
    name = next((str(value) for key in _ACTIVATION_FIELDS if (value := fields.value(key))), default)
    if name in ("silu", "swish"):
        return "silu"
    if name in ("gelu_new", "gelu_fast"):
        return "gelu_new"
    return "relu" if name.startswith("relu") else "gelu"


def _llama(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    bias = fields.flag("attention_bias")
    return {
        **made,
        "intermediate_size": fields.size("intermediate_size"),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": fields.flag("mlp_bias"),
        "tied_embeddings": fields.flag("tie_word_embeddings"),
        "rotary_share": fields.number("partial_rotary_factor", 1.0),
    }


def _sliding(fields: _Fields, made: dict[str, Any], *, default_pattern: int = 1) -> dict[str, Any]:
    """Local layers: by `layer_types`, else every layer but each `default_pattern`-th (1: all are local)."""
    window = fields.value("sliding_window")
    if window is None or fields.value("use_sliding_window") is False:
        return made
    window = fields.size("sliding_window")
    kinds = fields.value("layer_types")
    layers = made["num_layers"]
    if isinstance(kinds, list):
        count = sum(kind == "sliding_attention" for kind in kinds)
    else:
        pattern = fields.size("sliding_window_pattern", "_sliding_window_pattern", default=default_pattern)
        count = layers if pattern == 1 else layers - layers // pattern
    return {**made, "sliding_window": window, "num_sliding_layers": min(count, layers)} if count else made


def _mistral(fields: _Fields) -> dict[str, Any]:
    return _sliding(fields, {**_llama(fields), "attention_bias": False, "output_bias": False, "mlp_bias": False})


def _mixtral(fields: _Fields) -> dict[str, Any]:
    made = _mistral(fields)
    return {**made, **_experts(fields, made["intermediate_size"])}


def _experts(fields: _Fields, size: int) -> dict[str, Any]:
    experts = fields.size("num_local_experts", "num_experts", "n_routed_experts")
    active = fields.size("num_experts_per_tok", "experts_per_token")
    if active > experts:
        fields.wrong(f"num_experts_per_tok {active} is more than the experts, {experts}")
    return {"num_experts": experts, "experts_per_token": min(active, experts), "intermediate_size": size}


def _qwen2(fields: _Fields) -> dict[str, Any]:
    made = {**_llama(fields), "attention_bias": True, "output_bias": False, "mlp_bias": False}
    if not fields.flag("use_sliding_window"):
        return made
    made = _sliding(fields, made)
    if not isinstance(fields.value("layer_types"), list) and (first := fields.value("max_window_layers")) is not None:
        made["num_sliding_layers"] = max(0, made["num_layers"] - int(first))
    return made


def _sparse(fields: _Fields, made: dict[str, Any]) -> dict[str, Any]:
    """Qwen's mixtures: some layers may be dense, by a list or by a step."""
    dense_size, layers = made["intermediate_size"], made["num_layers"]
    listed = fields.value("mlp_only_layers")
    dense = {i for i in listed if isinstance(i, int) and i < layers} if isinstance(listed, list) else set()
    step = fields.size("decoder_sparse_step", default=1)
    dense |= {i for i in range(layers) if (i + 1) % step}
    made = {**made, **_experts(fields, fields.size("moe_intermediate_size"))}
    return {**made, "num_dense_layers": len(dense), "dense_intermediate_size": dense_size if dense else 0}


def _qwen2_moe(fields: _Fields) -> dict[str, Any]:
    shared = fields.size("shared_expert_intermediate_size")
    return {**_sparse(fields, _qwen2(fields)), "shared_intermediate_size": shared, "shared_expert_gate": True}


def _qwen3(fields: _Fields) -> dict[str, Any]:
    made = {**_llama(fields), "mlp_bias": False, "qk_norm": "head"}
    return _sliding(fields, made) if fields.flag("use_sliding_window") else made


def _qwen3_moe(fields: _Fields) -> dict[str, Any]:
    return _sparse(fields, _qwen3(fields))


def _gemma(fields: _Fields) -> dict[str, Any]:
    made = _llama(fields)
    return {
        **made,
        "head_dim": fields.size("head_dim", default=256),
        "mlp_bias": False,
        "activation": "gelu",
        "tied_embeddings": fields.flag("tie_word_embeddings", True),
        "scaled_embedding": True,
        "norm_in_fp32": True,
    }


def _gemma2(fields: _Fields) -> dict[str, Any]:
    made = {
        **_gemma(fields),
        "norms_per_layer": 4,
        "attention_softcap": fields.number("attn_logit_softcapping"),
        "logit_softcap": fields.number("final_logit_softcapping"),
    }
    return _sliding(fields, made, default_pattern=2)


def _gemma3(fields: _Fields) -> dict[str, Any]:
    return {**_sliding(fields, {**_gemma2(fields)}, default_pattern=6), "qk_norm": "head"}


def _falcon(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    is_new, is_parallel = fields.flag("new_decoder_architecture"), fields.flag("parallel_attn", True)
    if is_new:
        kv = fields.size("num_kv_heads", default=made["num_heads"])
    else:
        kv = 1 if fields.flag("multi_query", True) else made["num_heads"]
    in_parallel = fields.size("num_ln_in_parallel_attn", default=2 if is_new else 1)
    bias = fields.flag("bias")
    return {
        **made,
        "num_kv_heads": kv,
        "intermediate_size": fields.size("ffn_hidden_size", default=4 * made["hidden_size"]),
        "gated_mlp": False,
        "activation": _activation(fields, "gelu"),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
        "norm_size": 2,
        "layer_norm": True,
        "norms_per_layer": in_parallel if is_parallel else 2,
        "parallel_residual": is_parallel,
        "fused_qkv": True,
        "tied_embeddings": fields.flag("tie_word_embeddings", True),
        "rotary_share": 0.0 if fields.flag("alibi") else 1.0,
    }


def _phi3(fields: _Fields) -> dict[str, Any]:
    made = {**_llama(fields), "attention_bias": False, "output_bias": False, "mlp_bias": False}
    return _sliding(fields, {**made, "fused_qkv": True, "fused_gate_up": True})


def _phi(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    if fields.flag("qk_layernorm"):
        fields.wrong("qk_layernorm is true, which no published Phi has and which is not modelled here")
    return {
        **made,
        **_plain_mlp(fields, 4 * made["hidden_size"], bias=True, activation="gelu_new"),
        "norms_per_layer": 1,
        "parallel_residual": True,
        "lm_head_bias": True,
        "tied_embeddings": fields.flag("tie_word_embeddings"),
        "rotary_share": fields.number("partial_rotary_factor", 0.5),
    }


def _plain_mlp(fields: _Fields, default: int, *, bias: bool, activation: str) -> dict[str, Any]:
    """Two matrices, LayerNorm, biases everywhere or nowhere: GPT-2 and its kin."""
    return {
        "intermediate_size": fields.size("intermediate_size", "n_inner", "ffn_dim", default=default),
        "gated_mlp": False,
        "activation": _activation(fields, activation),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
        "norm_size": 2,
        "layer_norm": True,
    }


def _gpt2(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    return {
        **made,
        **_plain_mlp(fields, 4 * made["hidden_size"], bias=True, activation="gelu_new"),
        "intermediate_size": fields.size("n_inner", default=4 * made["hidden_size"]),
        "num_kv_heads": made["num_heads"],
        "fused_qkv": True,
        "learned_positions": fields.size("n_positions", "max_position_embeddings", default=1024),
        "tied_embeddings": fields.flag("tie_word_embeddings", True),
        "rotary_share": 0.0,
        "attention_dropout": fields.number("attn_pdrop", 0.1),
        "hidden_dropout": fields.number("resid_pdrop", 0.1),
    }


def _gpt_bigcode(fields: _Fields) -> dict[str, Any]:
    made = _gpt2(fields)
    return {**made, "num_kv_heads": 1 if fields.flag("multi_query", True) else made["num_heads"]}


def _gptj(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    return {
        **made,
        **_plain_mlp(fields, 4 * made["hidden_size"], bias=True, activation="gelu_new"),
        "attention_bias": False,
        "output_bias": False,
        "norms_per_layer": 1,
        "parallel_residual": True,
        "lm_head_bias": True,
        "tied_embeddings": fields.flag("tie_word_embeddings"),
        "rotary_share": fields.size("rotary_dim", default=64) / made["head_dim"],
    }


def _gpt_neox(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    bias = fields.flag("attention_bias", True)
    return {
        **made,
        **_plain_mlp(fields, 4 * made["hidden_size"], bias=True, activation="gelu"),
        "attention_bias": bias,
        "output_bias": bias,
        "fused_qkv": True,
        "parallel_residual": fields.flag("use_parallel_residual", True),
        "tied_embeddings": fields.flag("tie_word_embeddings"),
        "rotary_share": fields.number("rotary_pct", fields.number("partial_rotary_factor", 0.25)),
        "hidden_dropout": fields.number("hidden_dropout"),
    }


def _bloom(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    return {
        **made,
        **_plain_mlp(fields, 4 * made["hidden_size"], bias=True, activation="gelu_new"),
        "fused_qkv": True,
        "embedding_norm": True,
        "tied_embeddings": fields.flag("tie_word_embeddings", True),
        "rotary_share": 0.0,
    }


_OPT_POSITION_OFFSET: Final = 2
"""Rows before the first position, from fairseq's padding."""


def _opt(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    embedded = fields.size("word_embed_proj_dim", default=made["hidden_size"])
    is_before = fields.flag("do_layer_norm_before", True)
    return {
        **made,
        **_plain_mlp(fields, 4 * made["hidden_size"], bias=fields.flag("enable_bias", True), activation="relu"),
        "norm_size": 2 if fields.flag("layer_norm_elementwise_affine", True) else 0,
        "final_norm": is_before and not fields.flag("_remove_final_layer_norm"),
        "embedding_size": embedded if embedded != made["hidden_size"] else 0,
        "learned_positions": fields.size("max_position_embeddings", default=2048) + _OPT_POSITION_OFFSET,
        "tied_embeddings": fields.flag("tie_word_embeddings", True),
        "rotary_share": 0.0,
        "hidden_dropout": fields.number("dropout", 0.1),
    }


def _starcoder2(fields: _Fields) -> dict[str, Any]:
    made = _core(fields)
    return _sliding(
        fields,
        {
            **made,
            **_plain_mlp(fields, 4 * made["hidden_size"], bias=fields.flag("use_bias", True), activation="gelu"),
            "tied_embeddings": fields.flag("tie_word_embeddings", True),
            "hidden_dropout": fields.number("residual_dropout"),
        },
    )


def _olmo(fields: _Fields) -> dict[str, Any]:
    return {**_llama(fields), "norm_size": 0, "layer_norm": True, "mlp_bias": False}


def _olmo2(fields: _Fields) -> dict[str, Any]:
    return {**_llama(fields), "mlp_bias": False, "qk_norm": "full", "norm_in_fp32": True, "post_norm": True}


def _olmo3(fields: _Fields) -> dict[str, Any]:
    return _sliding(fields, _olmo2(fields), default_pattern=4)


def _olmoe(fields: _Fields) -> dict[str, Any]:
    made = _olmo2(fields)
    return {**made, **_experts(fields, made["intermediate_size"]), "norm_in_fp32": False, "post_norm": False}


def _granite(fields: _Fields) -> dict[str, Any]:
    return {**_llama(fields), "scaled_embedding": True, "residual_multiplier": True}


def _granitemoe(fields: _Fields) -> dict[str, Any]:
    made = _granite(fields)
    return {**made, **_experts(fields, made["intermediate_size"])}


def _stablelm(fields: _Fields) -> dict[str, Any]:
    made = _llama(fields)
    if fields.flag("qk_layernorm"):
        fields.wrong("qk_layernorm is true, which is not modelled here for StableLM")
    is_parallel = fields.flag("use_parallel_residual")
    return {
        **made,
        "attention_bias": fields.flag("use_qkv_bias"),
        "output_bias": False,
        "mlp_bias": False,
        "norm_size": 2,
        "layer_norm": True,
        "norms_per_layer": 1 if is_parallel else 2,
        "parallel_residual": is_parallel,
        "rotary_share": fields.number("partial_rotary_factor", 0.25),
    }


def _cohere(fields: _Fields) -> dict[str, Any]:
    made = _llama(fields)
    if fields.flag("use_qk_norm"):
        fields.wrong("use_qk_norm is true, which is not modelled here for Cohere")
    return {
        **made,
        "mlp_bias": False,
        "layer_norm": True,
        "norms_per_layer": 1,
        "parallel_residual": True,
        "tied_embeddings": fields.flag("tie_word_embeddings", True),
    }


def _gpt_oss(fields: _Fields) -> dict[str, Any]:
    made = _llama(fields)
    made = {**made, **_experts(fields, made["intermediate_size"])}
    bias = fields.flag("attention_bias", True)
    return _sliding(
        fields,
        {
            **made,
            "activation": "gpt_oss",
            "norm_in_fp32": True,
            "attention_bias": bias,
            "output_bias": bias,
            "mlp_bias": True,
            "router_bias": True,
            "attention_sinks": True,
        },
        default_pattern=2,
    )


_READERS: Final[dict[str, Callable[[_Fields], dict[str, Any]]]] = {
    "bloom": _bloom,
    "cohere": _cohere,
    "falcon": _falcon,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neox": _gpt_neox,
    "gpt_oss": _gpt_oss,
    "gptj": _gptj,
    "granite": _granite,
    "granitemoe": _granitemoe,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "olmo3": _olmo3,
    "olmoe": _olmoe,
    "opt": _opt,
    "phi": _phi,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "smollm3": _llama,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
