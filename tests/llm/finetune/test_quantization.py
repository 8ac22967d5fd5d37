"""NF4: the numbers of the paper's definition, bytes as planned, and nothing unpacked that stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes.functional
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from michelangelo import errors
from michelangelo.llm.finetune import adapters, lora_experts, nf4, quantization
from michelangelo.llm.finetune import model as models
from michelangelo.llm.finetune.config import AdapterConfig, ModelConfig

QLORA = AdapterConfig(method="qlora", rank=4)
MIXTRAL = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
LEVELS = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]
"""Appendix E of arXiv 2305.14314."""


@given(
    rows=st.integers(1, 5),
    columns=st.sampled_from([2, 64, 96, 128]),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_packed_weights_are_the_nearest_levels_times_the_blocks_largest(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    found = nf4.dequantize(nf4.quantize(weight, double=False), torch.float32)
    torch.testing.assert_close(found, _reference(weight), rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
def test_packing_equals_that_of_bitsandbytes(double: bool) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    packed, how = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    expected = bitsandbytes.functional.dequantize_4bit(packed, how)
    assert torch.equal(nf4.dequantize(nf4.quantize(weight, double=double), torch.float32), expected)


def test_double_quantisation_loses_little() -> None:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
    single, double = (nf4.dequantize(nf4.quantize(weight, double=d), torch.float32) for d in (False, True))
    error = (single - weight).pow(2).mean()
    assert 0.0 < (double - single).pow(2).mean() < 0.01 * error


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
def test_bytes_are_as_planned(double: bool) -> None:
    parts = nf4.quantize(torch.randn(512, 1024), double=double)
    found = sum(part.numel() * part.element_size() for part in parts)
    assert found == nf4.bytes_of(512 * 1024, double=double)
    # half a byte, and for 64 weights a scale of 4 bytes, or of 1 and a 256th of 4
    assert found / (512 * 1024) == pytest.approx(0.5 + ((1 + 4 / 256) / 64 if double else 4 / 64), rel=1e-4)


def test_odd_rows_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="rows of 3 values"):
        nf4.quantize(torch.zeros(2, 3), double=True)


def test_only_matrices_of_layers_are_packed(model_folder: Path) -> None:
    model = _quantised(model_folder)
    packed = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.uint8}
    expected = {
        name
        for name, parameter in _load(model_folder).named_parameters()
        if parameter.dim() == 2 and ".layers." in name
    }
    assert packed == expected
    assert model.lm_head.weight.dtype == model.model.embed_tokens.weight.dtype == torch.float32
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("changes", [{}, MIXTRAL], ids=["llama", "mixtral"])
def test_packed_model_equals_the_model_with_rounded_weights(make_model: Callable[..., Path], changes: Any) -> None:
    folder = make_model(**changes)
    model, reference = _quantised(folder), _load(folder)
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.uint8:
            module_name, _, own = name.rpartition(".")
            parts = nf4.parts_of(model.get_submodule(module_name), own)
            reference.get_parameter(name).data.copy_(nf4.dequantize(parts, torch.float32))
    for one in (model, reference):
        torch.manual_seed(3)
        adapters.apply(one, QLORA)
        _randomise(one)
    found, expected = _loss_and_gradients(model), _loss_and_gradients(reference)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("changes", [{}, MIXTRAL], ids=["llama", "mixtral"])
def test_nothing_unpacked_is_kept_for_the_way_back(make_model: Callable[..., Path], changes: Any) -> None:
    model = _quantised(make_model(**changes))
    adapters.apply(model, QLORA)
    weights = {nf4.shape_of(m, name) for m in model.modules() for name, _ in m.named_parameters(recurse=False)}
    matrices = {shape for shape in weights if len(shape) >= 2} - {model.lm_head.weight.shape}
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(_tokens(), labels=_tokens())
    own = {parameter.data_ptr() for parameter in model.parameters()}
    dense = [t for t in saved if t.is_floating_point() and t.data_ptr() not in own and t.shape in matrices]
    assert sum(tensor.dtype == torch.uint8 for tensor in saved) > 0
    assert dense == []


@pytest.mark.parametrize("changes", [{}, MIXTRAL], ids=["llama", "mixtral"])
def test_merged_qlora_gives_the_same_logits(make_model: Callable[..., Path], changes: Any, tmp_path: Path) -> None:
    model = _quantised(make_model(**changes))
    adapters.apply(model, QLORA)
    _randomise(model)
    before = _logits(model)
    adapters.merge(model)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    torch.testing.assert_close(_logits(model), before, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(_logits(_load(tmp_path)), before, rtol=1e-4, atol=1e-5)


def test_model_is_loaded_packed(model_folder: Path) -> None:
    config = ModelConfig(path=str(model_folder))
    model = quantization.load(config, QLORA, precision="bf16_mixed", device=torch.device("cpu"))
    dense = models.load(config, precision="bf16_mixed", device=torch.device("cpu"))
    layers, dense_layers = (models.decoder_layers(one) for one in (model, dense))
    assert model.dtype == torch.bfloat16
    assert _bytes(layers) < 0.35 * _bytes(dense_layers)
    assert _bytes(model.lm_head) == _bytes(dense.lm_head)


def test_trained_share_counts_weights_and_not_bytes(model_folder: Path) -> None:
    packed, dense = _quantised(model_folder), _load(model_folder)
    for model in (packed, dense):
        adapters.apply(model, QLORA)
    assert adapters.trained_share(packed) == adapters.trained_share(dense)
    assert adapters.num_parameters(packed) == adapters.num_parameters(dense)


def test_experts_are_packed_and_computed_here(make_model: Callable[..., Path]) -> None:
    model = _quantised(make_model(**MIXTRAL))
    experts = model.model.layers[0].mlp.experts
    assert nf4.is_packed(experts, "gate_up_proj")
    assert nf4.is_packed(experts, "down_proj")
    quantization.restore(experts, torch.float32)
    lora_experts.uninstall(experts)
    assert experts.gate_up_proj.shape == (4, 128, 32)
    assert torch.isfinite(_logits(model)).all()


def test_model_without_linear_layers_is_refused(make_model: Callable[..., Path]) -> None:
    folder = make_model(model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=32, n_layer=1, n_head=2)
    with pytest.raises(errors.ModelError, match="no linear layers that can be packed in 4 bits; use lora"):
        quantization.quantize_(_load(folder), QLORA)


def _reference(weight: torch.Tensor) -> torch.Tensor:
    """By the definition: blocks of 64 in order, the level nearest to each value over the block's largest magnitude."""
    levels = torch.tensor(LEVELS)
    flat = weight.flatten()
    rounded = []
    for block in torch.split(flat, 64):
        largest = block.abs().max()
        nearest = (block[:, None] / largest - levels).abs().argmin(1)
        rounded.append(levels[nearest] * largest)
    return torch.cat(rounded).view_as(weight)


def _load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def _quantised(folder: Path) -> Any:
    model = _load(folder)
    quantization.quantize_(model, QLORA)
    return model


def _randomise(model: Any) -> None:
    """B is zero at first, which would hide mistakes."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _tokens() -> torch.Tensor:
    return torch.randint(0, 256, (2, 11), generator=torch.Generator().manual_seed(5))


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(_tokens()).logits
    return logits


def _loss_and_gradients(model: Any) -> dict[str, torch.Tensor]:
    loss = model(_tokens(), labels=_tokens()).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def _bytes(module: Any) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
