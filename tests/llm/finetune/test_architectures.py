"""Every architecture is trained as it is: in full and with adapters, through the objective that training uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from michelangelo.llm.finetune import adapters, causal_lm, model
from michelangelo.llm.finetune.batch import IGNORED, Batch
from michelangelo.llm.finetune.config import AdapterConfig

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
"""The large range: layers of small random numbers say nothing, and could be left out unnoticed."""
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED_EXPERT = {"shared_expert_intermediate_size": 24}
LATENT_ATTENTION = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "head_dim": 4,
}
COMMON: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": EXPERTS,
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True},
    "falcon-new": {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2},
    "phi3": {},
    "gpt2": GPT2_SIZES,
    "gpt_neox": {},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
RARER: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**EXPERTS, **SHARED_EXPERT},
    "gemma": {},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "phi": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "stablelm": {},
    "starcoder2": {},
    "olmo2": {},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.5},
    "deepseek_v3": {**EXPERTS, **LATENT_ATTENTION},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": EXPERTS,
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
ALL = [*COMMON, *(pytest.param(name, marks=pytest.mark.slow) for name in RARER)]
MIXTURES = ["mixtral", "qwen3_moe", "gpt_oss"]


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_falls(architecture: str, method: Any) -> None:
    trained = _make(architecture)
    adapters.apply(trained, AdapterConfig(method=method, rank=4))
    losses = _train(trained, learning_rate=3e-2 if method == "lora" else 1e-2, steps=5)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("architecture", ALL)
def test_all_projections_are_adapted_and_trained(architecture: str) -> None:
    """Every matrix of attention and MLP, none of routers, embeddings and the output; each with a gradient."""
    trained = _make(architecture)
    named = {parameter: name for name, parameter in trained.named_parameters() if _is_matrix_of_layer(trained, name)}
    adapters.apply(trained, AdapterConfig(rank=4))
    _randomise(trained)
    adapted = {named.pop(parameter, "") for parameter in _adapted_weights(trained)}
    assert "" not in adapted
    assert all(_is_of_router(name) for name in named.values()), named
    loss: Any = causal_lm.losses(_with_loss(trained), _batch(), "sum")
    loss.backward()
    without = [n for n, p in trained.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


@pytest.mark.parametrize("architecture", ALL)
def test_merging_changes_no_logit(architecture: str) -> None:
    trained = _make(architecture)
    adapters.apply(trained, AdapterConfig(rank=4))
    _randomise(trained)
    trained.eval()
    tokens = _batch().input_ids
    with torch.no_grad():
        before = trained(tokens).logits
        adapters.merge(trained)
        after = trained(tokens).logits
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", MIXTURES)
def test_adapters_of_experts_learn_where_tokens_went(architecture: str) -> None:
    """One token goes to two of four experts: theirs get a gradient, the others' none; by our operators as by PEFT's."""
    found: list[dict[str, torch.Tensor]] = []
    for fused in (True, False):
        trained = _make(architecture)
        torch.manual_seed(3)
        adapters.apply(trained, AdapterConfig(rank=4), fused=fused)
        _randomise(trained)
        trained(torch.tensor([[7]])).logits.square().sum().backward()
        found.append({n: p.grad for n, p in trained.named_parameters() if "experts" in n and p.grad is not None})
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-5, msg=name)
        by_expert = gradient.view(4, 4, -1) if "lora_A" in name else gradient.view(-1, 4, 4).permute(2, 1, 0)
        assert int((by_expert.abs().sum((1, 2)) > 0).sum()) == 2, name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "mixtral", "falcon-new", "phi3"])
def test_a_handful_of_samples_is_learnt_by_heart(architecture: str) -> None:
    trained = _make(architecture)
    torch.manual_seed(3)
    adapters.apply(trained, AdapterConfig(rank=8, alpha=32.0))
    losses = _train(trained, learning_rate=2e-2, steps=120)
    assert losses[-1] < 0.35 * losses[0]


def _make(architecture: str) -> Any:
    fields = {**SIZES, "model_type": architecture, **{**COMMON, **RARER}[architecture]}
    if fields["model_type"] == "falcon":
        del fields["head_dim"]
    torch.manual_seed(7)
    made: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))  # type: ignore[no-untyped-call]
    return made.train()


def _train(trained: Any, *, learning_rate: float, steps: int) -> list[float]:
    _with_loss(trained)
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss: Any = causal_lm.losses(trained, _batch(), "sum") / _batch().num_trained
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _with_loss(trained: Any) -> Any:
    causal_lm.install(trained, loss="chunked")
    return trained


def _batch() -> Batch:
    """Two rows of one document each."""
    tokens = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(5))
    labels = tokens.clone()
    labels[:, 0] = IGNORED
    positions = torch.arange(12).repeat(2, 1)
    return Batch(tokens, labels, positions, torch.zeros(2, 12, dtype=torch.int32), 22).to(torch.device("cpu"))


def _randomise(trained: Any) -> None:
    """B is zero at first, which would hide mistakes."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in sorted(trained.named_parameters()):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _is_matrix_of_layer(trained: Any, name: str) -> bool:
    layers = model.decoder_layers(trained)
    own = {id(parameter) for parameter in layers.parameters()}
    parameter = trained.get_parameter(name)
    return id(parameter) in own and parameter.dim() >= 2 and not name.endswith("_bias")


def _is_of_router(name: str) -> bool:
    return bool({"gate", "router", "shared_expert_gate"} & set(name.split(".")))


def _adapted_weights(trained: Any) -> list[torch.Tensor]:
    """Of what has an adapter, the weights that it adapts."""
    found = []
    for name, parameter in trained.named_parameters():
        if "lora_" in name or parameter.dim() < 2 or ".base_layer." not in name or name.endswith("_bias"):
            continue
        found.append(parameter)
    return found
