"""Tiny models of several architectures with weights that make them say something, and engines on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.llm.scorer.torch_engine import tiny_models


@pytest.fixture(scope="session")
def save(tokenizer_folder: Path) -> Callable[..., Path]:
    """save(folder, model_type, kind="CausalLM", **changes): a model in its folder, with the tiny tokenizer."""

    def made(folder: Path, model_type: str, kind: str = "CausalLM", **changes: Any) -> Path:
        import shutil

        import torch
        import transformers

        described = transformers.AutoConfig.for_model(model_type, **{**tiny_models.SIZES, **changes})
        torch.manual_seed(7)
        model = getattr(transformers, f"AutoModelFor{kind}").from_config(described)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
        for file in tokenizer_folder.iterdir():
            shutil.copy(file, folder)
        assert json.loads((folder / "config.json").read_text())["model_type"]
        return folder

    return made


@pytest.fixture(scope="session")
def llama(save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def open_tiny(llama: Path) -> Iterator[Callable[..., Any]]:
    """open_tiny(**settings): an engine on the tiny Llama, or on `model`; closed afterwards."""
    from michelangelo.llm.scorer.engines.torch_engine import config, engine

    opened = []

    def made(**settings: Any) -> Any:
        merged = {"model": str(llama), **tiny_models.SMALL, "checks_model": False, **settings}
        opened.append(engine.open_engine(config.TorchEngineConfig(**merged)))
        return opened[-1]

    yield made
    for one in opened:
        one.close()
