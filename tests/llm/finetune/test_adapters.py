"""Adapters: PEFT's numbers whichever way they are computed, where they are asked for, merged without a difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from michelangelo import errors
from michelangelo.llm.finetune import adapters
from michelangelo.llm.finetune.config import AdapterConfig

pytestmark = [
    # torch.compile looks whether an intermediate tensor has a gradient, and hides the warning only where it is no error
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    # PEFT looks at a name that Transformers is about to drop
    pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning"),
]
MIXTRAL = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
LORA = AdapterConfig(rank=4, alpha=12.0)


def test_fused_adapters_equal_those_of_peft(model_folder: Path) -> None:
    ours, theirs = _adapted(model_folder), _adapted(model_folder, fused=False)
    assert any(isinstance(module, adapters.FusedLinear) for module in ours.modules())
    found, expected = _loss_and_gradients(ours), _loss_and_gradients(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_fused_adapters_are_compiled_as_one_graph(model_folder: Path) -> None:
    model, eager = _adapted(model_folder), _adapted(model_folder)
    for layer in model.model.layers:
        layer.compile(fullgraph=True, backend="aot_eager")
    expected = _loss_and_gradients(eager)
    for name, value in _loss_and_gradients(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    torch.compiler.reset()


def test_only_adapters_are_trained_and_the_model_stays_what_it_was(model_folder: Path) -> None:
    model = _load(model_folder)
    kind, share_before = type(model), adapters.trained_share(model)
    adapters.apply(model, LORA)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert type(model) is kind
    assert share_before == 1.0
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert 0.0 < adapters.trained_share(model) < 0.2


def test_full_tuning_trains_everything(model_folder: Path) -> None:
    model = _load(model_folder)
    adapters.apply(model, AdapterConfig(method="full"))
    assert adapters.trained_share(model) == 1.0
    assert adapters.state(model) == {}


def test_merged_model_gives_the_same_logits_and_loads_in_transformers(model_folder: Path, tmp_path: Path) -> None:
    model = _adapted(model_folder)
    before = _logits(model)
    adapters.merge(model)
    assert not any("lora_" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(_logits(model), before, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(_logits(_load(tmp_path)), before, rtol=1e-4, atol=1e-5)


def test_disabled_adapters_leave_the_base_model(model_folder: Path) -> None:
    model = _adapted(model_folder)
    with_adapters = _logits(model)
    with adapters.disabled(model):
        torch.testing.assert_close(_logits(model), _logits(_load(model_folder)))
    torch.testing.assert_close(_logits(model), with_adapters)
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)


def test_state_is_what_peft_saves(model_folder: Path) -> None:
    model = _adapted(model_folder)
    expected = peft.get_peft_model_state_dict(model)
    found = adapters.state(model)
    assert {name.removeprefix("base_model.model.") for name in found} == expected.keys()


@pytest.mark.parametrize("changes", [{}, MIXTRAL], ids=["llama", "mixtral"])
def test_saved_adapters_are_read_by_peft(make_model: Callable[..., Path], tmp_path: Path, changes: Any) -> None:
    folder = make_model(**changes)
    model = _adapted(folder)
    saved = tmp_path / "adapter"
    saved.mkdir()
    adapters.save(model, saved)
    theirs: Any = peft.PeftModel.from_pretrained(_load(folder), saved)
    torch.testing.assert_close(_logits(theirs), _logits(model), rtol=1e-4, atol=1e-5)


def test_model_without_adapters_has_none_to_save(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.ModelError, match="has no adapters"):
        adapters.save(_load(model_folder), tmp_path)
    assert not any(tmp_path.iterdir())


def test_dropout_is_left_to_peft(model_folder: Path) -> None:
    model = _load(model_folder)
    adapters.apply(model, AdapterConfig(rank=4, dropout=0.5))
    assert not any(isinstance(module, adapters.FusedLinear) for module in model.modules())
    torch.manual_seed(0)
    _randomise(model)
    model.train()
    assert not torch.equal(_logits(model), _logits(model))


def test_named_targets_are_the_only_ones(model_folder: Path) -> None:
    model = _load(model_folder)
    adapters.apply(model, AdapterConfig(targets=("q_proj", "layers.1.mlp.down_proj")))
    adapted = {name for name, module in model.named_modules() if isinstance(module, adapters.FusedLinear)}
    assert adapted == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.down_proj",
    }


def test_unknown_targets_are_all_named_with_what_is_near(model_folder: Path) -> None:
    with pytest.raises(errors.ModelError) as caught:
        adapters.apply(_load(model_folder), AdapterConfig(targets=("q_prj", "wqkv", "o_proj")))
    text = caught.value.message
    assert "q_prj" in text
    assert "did you mean q_proj" in text
    assert "wqkv" in text
    assert "there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in text


def test_layers_that_are_gathered_when_called_are_called(model_folder: Path) -> None:
    """ZeRO-3 gathers weights in hooks of submodules: then PEFT's forward is used, which calls them."""
    model = _adapted(model_folder)
    expected = _logits(model)
    calls: list[str] = []
    layer = model.model.layers[0].self_attn.q_proj
    layer.lora_A["default"].register_forward_pre_hook(lambda *_: calls.append("gathered"))
    torch.testing.assert_close(_logits(model), expected, rtol=1e-4, atol=1e-6)
    assert calls == ["gathered"]


@pytest.mark.parametrize("order", ["qkv", "vqk", "qqkv", "kq", "v"])
def test_layers_called_otherwise_than_expected_are_right(model_folder: Path, order: str) -> None:
    """Layers with the same input are computed together; another order, input or number of calls changes nothing."""
    ours, theirs = (_adapted(model_folder, fused=fused).model.layers[0].self_attn for fused in (True, False))
    first, second = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))
    for x in (first, second, first):
        for name in order:
            found, expected = getattr(ours, f"{name}_proj")(x), getattr(theirs, f"{name}_proj")(x)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    mixed = [ours.q_proj(first), ours.k_proj(second), ours.v_proj(first), ours.q_proj(second)]
    expected = [theirs.q_proj(first), theirs.k_proj(second), theirs.v_proj(first), theirs.q_proj(second)]
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)


def test_dropout_with_fused_experts_is_refused_before_anything_is_changed(make_model: Callable[..., Path]) -> None:
    model = _load(make_model(**MIXTRAL))
    with pytest.raises(errors.ModelError, match=r"adapter\.dropout: the fused experts of MixtralForCausalLM take none"):
        adapters.apply(model, AdapterConfig(dropout=0.1))
    assert adapters.num_parameters(model)[0] == adapters.num_parameters(model)[1]


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_layers_with_biases_are_fused_too(make_model: Callable[..., Path], bias: bool) -> None:
    folder = make_model(attention_bias=bias, mlp_bias=bias)
    found, expected = _loss_and_gradients(_adapted(folder)), _loss_and_gradients(_adapted(folder, fused=False))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def _load(folder: Path, **arguments: Any) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **arguments)
    return model


def _adapted(folder: Path, *, fused: bool = True, config: AdapterConfig = LORA) -> Any:
    model = _load(folder)
    torch.manual_seed(3)
    adapters.apply(model, config, fused=fused)
    _randomise(model)
    return model


def _randomise(model: PreTrainedModel) -> None:
    """B is zero at first, which would hide mistakes."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _tokens() -> torch.Tensor:
    return torch.randint(0, 256, (2, 11), generator=torch.Generator().manual_seed(5))


def _logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(_tokens()).logits
    return logits


def _loss_and_gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = model(_tokens(), labels=_tokens()).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}
