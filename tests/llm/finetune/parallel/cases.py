"""Small training runs through a strategy, without a trainer: what all processes do, and what a single one does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from tests.llm.conftest import TINY_LLAMA
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from michelangelo.llm.finetune import adapters, attention, causal_lm, config, optimizers, quantization, running
from michelangelo.llm.finetune.batch import IGNORED, Batch
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.parallel import choosing
from michelangelo.llm.finetune.strategy import Strategy
from michelangelo.llm.training_setup import Precision

__all__ = ["Case", "Outcome", "make_config", "make_model", "reload", "train", "whole"]

ROWS, LENGTH, STEPS = 2, 12, 3
DEVICE = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A run of `STEPS` steps. `shares` times `passes` batches make one step, whoever takes them."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "fp32"
    shares: int = 2
    passes: int = 1
    max_grad_norm: float = 0.5
    padding_share: int = -1
    """A share whose batches have no token to learn from."""

    def replace(self, **changes: Any) -> Case:
        return dataclasses.replace(self, **changes)


@dataclass
class Outcome:
    losses: list[float]
    norms: list[float]
    weights: dict[str, torch.Tensor]
    """Whole."""
    state_names: list[str]
    bytes: dict[str, int]
    """Of this process, between steps."""


def train(case: Case) -> Outcome:
    """In every process of a group, or in one without a group, which takes all shares."""
    made = make_config(case)
    strategy = choosing.make(made, device=DEVICE)
    model = make_model(case, made)
    objective = causal_lm.CausalObjective(model, loss="chunked")
    optimizer = strategy.prepare(model, running.optimizer_maker(made))
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.set_learning_rate(1e-2 / (step + 1))
        loss, norm = _step(case, strategy, objective, step)
        losses.append(loss)
        norms.append(norm)
    with torch.no_grad():  # as an evaluation does, after which weights are saved
        objective.loss(_batch(case, STEPS, 0).to(DEVICE))
    weights = {name: whole(tensor) for name, tensor in strategy.model_state().items()}
    state = strategy.optimizer_state()
    sizes = {"weights": _size(strategy.model_state()), "state": _size(state)}
    strategy.close()
    return Outcome(losses, norms, weights, sorted(state), sizes)


def reload(case: Case) -> dict[str, bool]:
    """Whether what a strategy gives can be loaded into another one of the same kind, which then goes on alike."""
    made = make_config(case)
    runs = []
    for _ in range(2):
        strategy = choosing.make(made, device=DEVICE)
        model = make_model(case, made)
        objective = causal_lm.CausalObjective(model, loss="chunked")
        strategy.prepare(model, running.optimizer_maker(made))
        runs.append((strategy, objective))
    (first, objective), (second, other) = runs
    _step(case, first, objective, 0)
    second.load_state(_copied(first.model_state()), _copied(first.optimizer_state()))
    _step(case, first, objective, 1)
    _step(case, second, other, 1)
    found = {}
    for name in ("model_state", "optimizer_state"):
        one, two = getattr(first, name)(), getattr(second, name)()
        found[name] = one.keys() == two.keys() and all(torch.equal(whole(one[key]), whole(two[key])) for key in one)
    return found


def make_config(case: Case) -> FinetuneConfig:
    count = dist.get_world_size() if dist.is_initialized() else 1
    document: dict[str, Any] = {
        "model": {"path": "none"},
        "data": {"train": [{"path": "none"}]},
        "output": "none",
        "adapter": {"method": "full"},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1},
        "training": {"precision": case.precision, "device": "cpu"},
        "parallel": {"num_workers": count},
    }
    for name, section in case.sections.items():
        document[name] = {**document.get(name, {}), **section}
    document["training"]["gradient_accumulation"] = case.passes * (case.shares if count == 1 else 1)
    if count == 1:
        document["parallel"].pop("tensor_parallel", None)
    return config.parse(document)


def make_model(case: Case, made: FinetuneConfig) -> PreTrainedModel:
    torch.manual_seed(11)
    described = AutoConfig.for_model(**{**TINY_LLAMA, **case.model})
    dtype = torch.float32 if case.precision == "fp32" else torch.bfloat16
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        described, dtype=dtype, attn_implementation=attention.NAME
    )
    if made.adapter.method == "qlora":
        quantization.quantize_(model, made.adapter)
    adapters.apply(model, made.adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # else the first gradients of lora_A are nothing
                parameter.normal_(0.0, 0.02)
    model.train()
    return model


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def _step(case: Case, strategy: Strategy, objective: causal_lm.CausalObjective, step: int) -> tuple[float, float]:
    mine = [strategy.data_rank] if strategy.data_parallel > 1 else range(case.shares)
    batches = [_batch(case, step * case.passes + number, share) for number in range(case.passes) for share in mine]
    terms = strategy.sum(torch.tensor([float(sum(batch.num_trained for batch in batches))]))
    total = torch.zeros(1)
    for position, batch in enumerate(batches):
        loss = objective.loss(batch.to(DEVICE))[0] / terms[0]
        strategy.backward(loss, is_last=position == len(batches) - 1)
        total += loss.detach()
    norm = strategy.step(case.max_grad_norm, optimizers.finite)
    return float(strategy.sum(total)), norm


def _batch(case: Case, number: int, share: int) -> Batch:
    """Two documents a row."""
    generator = torch.Generator().manual_seed(100 * number + share)
    tokens = torch.randint(3, 256, (ROWS, LENGTH), generator=generator)
    first = 5 + share
    documents = (torch.arange(LENGTH) >= first).int().expand(ROWS, LENGTH).contiguous()
    positions = torch.cat([torch.arange(first), torch.arange(LENGTH - first)]).expand(ROWS, LENGTH).contiguous()
    labels = tokens.clone()
    labels[:, [0, first]] = IGNORED
    if share == case.padding_share:
        labels[:] = IGNORED
        documents = torch.full_like(documents, -1)
    return Batch(tokens, labels, positions, documents, int((labels != IGNORED).sum()))


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _size(state: dict[str, Any]) -> int:
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in state.values()]
    return sum(part.numel() * part.element_size() for part in parts)
