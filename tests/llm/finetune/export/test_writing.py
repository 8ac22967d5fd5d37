"""Exports: what Transformers and PEFT load computes what was trained; a card; whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from tests.llm.finetune import runs
from transformers import AutoModelForCausalLM, AutoTokenizer

from michelangelo import errors
from michelangelo.llm.finetune import running
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


def test_quantised_run_is_merged_in_bf16(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run(adapter={"method": "qlora", "rank": 4}, training={"precision": "bf16_mixed"})
    writing.write(output, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_card_says_how_the_model_was_made(run: Callable[..., Path], tmp_path: Path) -> None:
    writing.write(run(**LORA, data={"validation_share": 0.2}), tmp_path / "adapter", kind="adapter")
    text = (tmp_path / "adapter" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "peft"
    assert front["base_model"]
    assert {"lora", "michelangelo"} <= set(front["tags"])
    assert "| method | lora, rank 4, alpha 32 |" in text
    assert "| validation loss |" in text
    assert (tmp_path / "adapter" / "loss.svg").read_text().lstrip().startswith("<?xml")


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
