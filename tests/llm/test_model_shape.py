"""Shapes: published totals, counts equal to Transformers' and PEFT's, and bad configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm import model_config, model_shape

CATALOGUE: dict[str, Any] = json.loads(model_shape._CATALOGUE.read_text())["models"]
PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b-v0.1": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-30b-a3b": 30_532_122_624,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-1b": 999_885_952,
    "phi-1.5": 1_418_270_720,
    "phi-2": 2_779_683_840,
    "phi-3-mini": 3_821_079_552,
    "falcon-7b": 6_921_720_704,
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "tinyllama-1.1b": 1_100_048_384,
    "gpt-oss-20b": 20_914_757_184,
}
"""Tensors of the publishers' safetensors files, as their model pages count them."""
ONE_PER_ARCHITECTURE = sorted({entry["config"]["model_type"]: name for name, entry in CATALOGUE.items()}.values())
TINY = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_those_that_the_publisher_counts(name: str) -> None:
    assert model_shape.load(name).num_parameters == PUBLISHED[name]


def test_matmul_parameters_leave_out_the_embedding_lookup_and_keep_the_head() -> None:
    shape = model_shape.load("llama-3-8b")

    assert shape.matmul_parameters == 7_504_658_432
    assert model_shape.load("llama-3.2-1b").matmul_parameters > model_shape.load("llama-3.2-1b").counts.attention


def test_active_parameters_are_those_that_names_of_models_promise() -> None:
    assert model_shape.load("qwen3-30b-a3b").active_parameters == pytest.approx(3.3e9, rel=0.02)
    assert model_shape.load("qwen3-235b-a22b").active_parameters == pytest.approx(22e9, rel=0.02)
    assert model_shape.load("mixtral-8x7b").active_parameters == pytest.approx(12.9e9, rel=0.01)


@pytest.mark.parametrize("name", ONE_PER_ARCHITECTURE)
def test_count_is_that_of_the_model_that_transformers_builds(name: str) -> None:
    from michelangelo.llm.tracing import slices

    model = slices.build(slices.described(CATALOGUE[name]["config"], attention="eager"))

    assert model_shape.load(name).num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_entry_of_the_catalogue_has_a_source_and_components_that_sum_up(name: str) -> None:
    shape = model_shape.load(name)
    address, date = model_shape.provenance(name)

    assert address.startswith("https://huggingface.co/")
    assert len(date) == 10
    assert shape.counts.total == shape.num_parameters
    assert shape.active_parameters <= shape.num_parameters
    assert shape.notes == ()


@pytest.mark.parametrize(
    ("changes", "targets"),
    [
        ({}, ("all",)),
        ({}, ("q_proj", "v_proj")),
        ({"model_type": "qwen3", "head_dim": 16}, ("all",)),
        ({"model_type": "falcon", "num_kv_heads": 2, "new_decoder_architecture": True}, ("all",)),
        ({"model_type": "phi3", "pad_token_id": 0}, ("all",)),
        ({"model_type": "gpt2"}, ("all",)),
    ],
)
def test_adapters_have_the_parameters_that_peft_gives_them(changes: dict[str, Any], targets: tuple[str, ...]) -> None:
    from michelangelo.llm.tracing import slices
    from michelangelo.llm.training_setup import TrainingSetup

    config = {**TINY, **changes}
    model = slices.with_lora(slices.build(slices.described(config)), TrainingSetup(lora_rank=4, lora_targets=targets))

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert model_shape.from_config(config).lora_parameters(4, targets) == trained


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # PEFT asks by the old name
def test_adapters_of_fused_experts_have_the_parameters_that_peft_gives_them() -> None:
    import peft

    from michelangelo.llm.tracing import slices

    config = {**TINY, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    model = slices.build(slices.described(config))
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=4,
            lora_dropout=0.0,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        ),
    )

    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert model_shape.from_config(config).lora_parameters(4) == trained


def test_a_folder_and_a_file_are_read_and_a_multimodal_config_by_its_text_part(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": {**TINY}}))

    of_folder, of_file = model_shape.load(str(tmp_path)), model_shape.load(str(tmp_path / "config.json"))

    assert of_folder == of_file
    assert "only the text model of gemma3 is counted" in of_folder.notes


def test_an_unknown_architecture_is_taken_as_llama_and_says_so() -> None:
    shape = model_shape.from_config({**TINY, "model_type": "brand_new"})

    assert shape.num_parameters == model_shape.from_config(TINY).num_parameters
    assert "brand_new is not known" in shape.notes[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "hidden_size": 768}, "bert is no decoder-only language model"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "t5 is no decoder-only"),
        ({"model_type": "clip", "text_config": {"model_type": "clip_text_model"}}, "clip is no decoder-only"),
        ({**TINY, "architectures": ["LlamaForTokenClassification"]}, "ends in ForCausalLM|no decoder-only"),
        ({"model_type": "mamba"}, "mamba is a state-space model"),
        ({"model_type": "deepseek_v3"}, "latent attention"),
        ({"model_type": "llama"}, "missing: hidden_size or n_embd, num_attention_heads.*vocab_size.*intermediate_size"),
        ({**TINY, "hidden_size": -1, "vocab_size": "many"}, "hidden_size is -1.*vocab_size is 'many'"),
        ({**TINY, "hidden_size": 10**9}, "hidden_size is 1000000000, not 1 to"),
        ({**TINY, "num_hidden_layers": True}, "num_hidden_layers is True, not a whole number"),
        ({**TINY, "hidden_size": 33}, "hidden_size 33 is not divisible by num_attention_heads 4"),
        ({**TINY, "num_key_value_heads": 3}, "4 is not divisible by num_key_value_heads 3"),
        ({**TINY, "tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', not true or false"),
        ({**TINY, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4}, "more than the experts"),
    ],
)
def test_a_bad_config_is_refused_with_all_that_is_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ModelError, match=message):
        model_shape.from_config(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "no JSON"), (b"[1]", "a JSON list"), (b"\xff\xfe", "no JSON"), (b" " * (5 << 20), "more than 4 MiB")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(errors.ModelError, match=message):
        model_shape.load(str(tmp_path))


def test_an_unknown_name_is_answered_with_similar_ones() -> None:
    with pytest.raises(errors.ModelError, match=r"did you mean llama-3\.1-8b"):
        model_shape.load("lama-3.1-8b")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from((*model_config.architectures(), "", "bert", "other")),
    st.dictionaries(st.sampled_from((*TINY, "head_dim", "sliding_window", "layer_types", "text_config")), json_values),
)
def test_any_config_gives_a_shape_or_a_model_error(architecture: str, changes: dict[str, Any]) -> None:
    config = {**TINY, "model_type": architecture, **{k: v for k, v in changes.items() if k != "model_type"}}
    try:
        shape = model_shape.from_config(config)
    except errors.ModelError:
        return
    assert shape.num_parameters > 0
