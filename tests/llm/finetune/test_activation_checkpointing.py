"""Recomputation changes memory, and no number: compared bit for bit, with bytes that are really alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from michelangelo.llm.finetune import activation_checkpointing, adapters
from michelangelo.llm.finetune.config import AdapterConfig

pytestmark = pytest.mark.filterwarnings(
    # torch.compile looks whether an intermediate tensor has a gradient, and hides the warning only where it is no error
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)
ADAPTERS = [AdapterConfig(method="full"), AdapterConfig(rank=4)]
IDS = ["full", "lora"]


@pytest.mark.parametrize("config", ADAPTERS, ids=IDS)
@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputation_gives_the_same_gradients(model_folder: Path, config: AdapterConfig, kind: Any) -> None:
    model = _model(model_folder, config)
    expected = _gradients(model)
    activation_checkpointing.apply(model, kind)
    found = _gradients(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("config", ADAPTERS, ids=IDS)
def test_less_is_alive_after_the_forward_pass(make_model: Callable[..., Path], config: AdapterConfig) -> None:
    model = _model(make_model(num_hidden_layers=4), config)
    alive = {}
    for kind in ("none", "selective", "full"):
        activation_checkpointing.apply(model, kind)
        alive[kind] = _alive_bytes(model)
    assert alive["full"] < 0.5 * alive["none"]
    assert alive["full"] < alive["selective"] < 0.9 * alive["none"]


def test_none_takes_it_back(model_folder: Path) -> None:
    model = _model(model_folder, ADAPTERS[1])
    before = _alive_bytes(model)
    activation_checkpointing.apply(model, "full")
    activation_checkpointing.apply(model, "none")
    assert _alive_bytes(model) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputation_is_compiled_with_its_layer(model_folder: Path, kind: Any) -> None:
    model = _model(model_folder, ADAPTERS[1])
    expected = _gradients(model)
    activation_checkpointing.apply(model, kind)
    for layer in model.model.layers:
        layer.compile(fullgraph=True, backend="aot_eager")
    for name, value in _gradients(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-7)
    torch.compiler.reset()


def test_nothing_is_kept_without_gradients(model_folder: Path) -> None:
    model = _model(model_folder, ADAPTERS[1])
    with torch.no_grad():
        expected = model(_tokens()).logits
        activation_checkpointing.apply(model, "full")
        assert torch.equal(model(_tokens()).logits, expected)


class _Outputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers what operators gave, without keeping it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in _pytree.tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        return output

    def alive_bytes(self) -> int:
        return sum(size for reference, size in self.storages.values() if reference() is not None)


def _model(folder: Path, config: AdapterConfig) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(3)
    adapters.apply(model, config)
    model.train()
    return model


def _tokens() -> torch.Tensor:
    return torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(5))


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(_tokens(), labels=_tokens(), use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _alive_bytes(model: Any) -> int:
    """Of the decoder: the logits are not what this is about."""
    with _Outputs() as outputs:
        hidden = model.model(_tokens(), use_cache=False)[0]
    alive: int = outputs.alive_bytes()
    assert hidden.requires_grad
    return alive
