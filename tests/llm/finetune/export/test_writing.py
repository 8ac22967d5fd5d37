"""Exports: what Transformers and PEFT load computes what was trained; a card; whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.llm.finetune import runs
from transformers import AutoModelForCausalLM, AutoTokenizer

from michelangelo import errors
from michelangelo.llm.finetune import adapters, quantization, running
from michelangelo.llm.finetune.config import AdapterConfig, ModelConfig
from michelangelo.llm.finetune.export import writing

# PEFT asks Transformers by the old name when it loads an adapter.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = torch.arange(5, 25)[None]


@pytest.fixture
def run(model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A finished run; its output folder."""

    def make(model: Path | None = None, **sections: Any) -> Path:
        output = tmp_path / "run"
        running.finetune(runs.make_config(model or model_folder, runs.texts(tmp_path), output, **sections))
        return output

    return make


LORA = {"adapter": {"method": "lora", "rank": 4}, "optimizer": {"learning_rate": 3e-2}}


def test_merged_model_equals_base_with_adapter(run: Callable[..., Path], model_folder: Path, tmp_path: Path) -> None:
    output = run(**LORA)
    writing.write(output, tmp_path / "merged")
    writing.write(output, tmp_path / "adapter", kind="adapter")
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    plain = base(TOKENS).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(TOKENS).logits
    adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))(TOKENS).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert float((merged - plain).detach().abs().max()) > 0.1


def test_mixture_is_merged_with_its_experts(
    run: Callable[..., Path], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_model(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)
    output = run(base, **LORA)
    writing.write(output, tmp_path / "merged")
    writing.write(output, tmp_path / "adapter", kind="adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    torch.testing.assert_close(merged(TOKENS).logits, adapted(TOKENS).logits, rtol=1e-3, atol=1e-3)


def test_full_run_is_written_in_full_with_tokenizer(run: Callable[..., Path], tmp_path: Path) -> None:
    exported = writing.write(run(), tmp_path / "model")
    assert (exported.kind, exported.step) == ("full", 8)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokens = tokenizer("assert statements", return_tensors="pt").input_ids
    assert loaded(tokens, labels=tokens).loss < 8
    assert exported.num_bytes == sum(f.stat().st_size for f in (tmp_path / "model").rglob("*") if f.is_file())


def test_earlier_step_can_be_exported(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run()
    assert writing.write(output, tmp_path / "six", step=6).step == 6
    with pytest.raises(errors.CheckpointError, match="step"):
        writing.write(output, tmp_path / "none", step=5)
    assert not (tmp_path / "none").exists()


def test_quantised_run_is_merged_in_bf16(run: Callable[..., Path], model_folder: Path, tmp_path: Path) -> None:
    output = run(
        adapter={"method": "qlora", "rank": 4},
        optimizer={"learning_rate": 3e-2},
        training={"precision": "bf16_mixed"},
    )
    writing.write(output, tmp_path / "merged")
    writing.write(output, tmp_path / "adapter", kind="adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    # What it was trained against: the packed weights, computed by their own layers.
    packed = quantization.load(
        ModelConfig(path=str(model_folder)), AdapterConfig(method="qlora"), precision="bf16", device=torch.device("cpu")
    )
    plain = packed(TOKENS).logits.detach()
    adapters.apply(packed, AdapterConfig(method="qlora", rank=4), fused=False)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    with torch.no_grad():
        for name, tensor in adapters.state(packed).items():
            tensor.copy_(saved.pop(name))
    assert not saved
    trained = packed(TOKENS).logits.detach()
    difference = float((merged(TOKENS).logits - trained).detach().abs().max())
    assert difference < 0.05 * float((trained - plain).abs().max())


def test_adapter_is_written_without_the_weights_of_its_model(
    run: Callable[..., Path], make_model: Any, tmp_path: Path
) -> None:
    base = make_model()
    output = run(base, **LORA)
    (base / "model.safetensors").unlink()
    writing.write(output, tmp_path / "adapter", kind="adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any(float(tensor.abs().max()) > 0 for name, tensor in saved.items() if "lora_B" in name)
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(base)
    with pytest.raises(errors.ModelError, match="cannot be loaded"):
        writing.write(output, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir() if "merged" in path.name) == []


def test_a_large_model_gets_several_files_and_an_index(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run()
    writing.write(output, tmp_path / "one")
    writing.write(output, tmp_path / "several", max_shard_size="60KB")
    index = json.loads((tmp_path / "several" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    one = AutoModelForCausalLM.from_pretrained(tmp_path / "one")(TOKENS).logits
    several = AutoModelForCausalLM.from_pretrained(tmp_path / "several")(TOKENS).logits
    assert torch.equal(one, several)


def test_chat_template_that_was_trained_with_is_exported(run: Callable[..., Path], tmp_path: Path) -> None:
    template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    writing.write(run(data={"chat_template": template}), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "[hi]"


def test_damaged_checkpoint_is_passed_over_and_said(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run()
    (newest,) = (output / "checkpoints").glob("step-00000008-*")
    (newest / "tensors-00000.safetensors").write_bytes(b"torn")
    exported = writing.write(output, tmp_path / "model")
    assert exported.step == 6
    assert [str(newest) in problem for problem in exported.skipped] == [True]
    assert "after step 6" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(errors.CheckpointError, match="no whole checkpoint of step 8"):
        writing.write(output, tmp_path / "eight", step=8)


def test_checkpoint_of_another_configuration_is_named(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run(**LORA)
    document = json.loads((output / running.CONFIG).read_text())
    document["adapter"]["rank"] = 2
    (output / running.CONFIG).write_text(json.dumps(document))
    for kind in ("merged", "adapter"):
        with pytest.raises(errors.CheckpointError, match="another model or adapter"):
            writing.write(output, tmp_path / "to", kind=kind)
    assert not (tmp_path / "to").exists()


def test_what_is_there_is_not_replaced_unless_told(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").touch()
    with pytest.raises(errors.SettingsError, match="--force"):
        writing.write(output, tmp_path / "model")
    assert (tmp_path / "model" / "precious").exists()
    writing.write(output, tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert not (tmp_path / "model" / "precious").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".model")] == []


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_folder_that_is_no_run_is_named(tmp_path: Path, kind: writing.Kind) -> None:
    with pytest.raises(errors.SettingsError, match="is no folder of a run"):
        writing.write(tmp_path, tmp_path / "to", kind=kind)


def test_full_run_has_no_adapter(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="no adapter"):
        writing.write(run(), tmp_path / "to", kind="adapter")


def test_what_the_export_needs_is_never_replaced(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run()
    for target in (output, tmp_path, output.parent.parent):
        with pytest.raises(errors.SettingsError, match="would be lost"):
            writing.write(output, target, overwrite=True)
    assert (output / running.CONFIG).exists()
