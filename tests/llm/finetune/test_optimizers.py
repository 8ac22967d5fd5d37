"""Optimizers by name: fp32 copies, accumulation, clipping, refused steps, states that can be saved and loaded."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from michelangelo import errors
from michelangelo.llm.finetune import optimizers
from michelangelo.llm.finetune.config import OptimizerConfig
from michelangelo.llm.training_setup import Precision

ADAMW = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1)


def test_fp32_copies_keep_what_bf16_weights_would_round_away() -> None:
    tiny = OptimizerConfig(learning_rate=1e-5)
    with_copies, without = _model(torch.bfloat16), _model(torch.bfloat16)
    reference = copy.deepcopy(with_copies).float()
    steppers = [_build(with_copies, tiny), _build(without, tiny, "bf16"), _build(reference, tiny, "fp32")]
    for _ in range(200):
        for trained, stepper in zip((with_copies, without, reference), steppers, strict=True):
            for parameter in trained.parameters():
                parameter.grad = torch.ones_like(parameter)
            stepper.clip_and_step(0.0, optimizers.finite)
    moved = _distance(with_copies, reference)
    assert moved < 0.004
    assert _distance(without, reference) > 2 * moved


def test_accumulated_passes_equal_one_large_batch() -> None:
    trained, whole = _model(torch.bfloat16), _model(torch.bfloat16)
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
    parts, at_once = _build(trained, accumulate=True), _build(whole)
    for piece in torch.split(inputs, 2):
        (trained(piece).float().pow(2).sum() / 8).backward()
    (whole(inputs).float().pow(2).sum() / 8).backward()
    sums = [gradient.clone() for gradient in parts.gradients()]
    assert {gradient.dtype for gradient in sums} == {torch.float32}
    for ours, theirs in zip(sums, at_once.gradients(), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=3e-2, atol=1e-2)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_is_that_of_torch(limit: float) -> None:
    ours, theirs = _model(), _model()
    stepper = _build(ours, OptimizerConfig(name="sgd", learning_rate=1.0, betas=(0.0, 0.9)), "fp32")
    for trained in (ours, theirs):
        trained(torch.ones(4, 6)).sum().backward()
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    assert stepper.clip_and_step(limit, optimizers.finite) == pytest.approx(float(expected))
    for mine, other, start in zip(ours.parameters(), theirs.parameters(), _model().parameters(), strict=True):
        assert other.grad is not None
        torch.testing.assert_close(mine.detach(), start.detach() - other.grad)


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_refused_step_changes_nothing(accumulate: bool) -> None:
    trained = _model(torch.bfloat16)
    before = copy.deepcopy(trained.state_dict())
    stepper = _build(trained, accumulate=accumulate)
    (trained(torch.ones(4, 6).bfloat16()).sum() * math.nan).backward()
    assert math.isnan(stepper.clip_and_step(1.0, optimizers.finite))
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert stepper.gradients() == []


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed", "bf16"])
def test_a_loaded_state_continues_bit_for_bit(precision: Precision) -> None:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    kept, resumed = _model(dtype), _model(dtype)
    first = _build(kept, precision=precision)
    _train(kept, first, 3)
    second = _build(resumed, precision=precision)
    resumed.load_state_dict(copy.deepcopy(kept.state_dict()))
    second.load_named_state(copy.deepcopy(first.named_state()))
    _train(kept, first, 3)
    _train(resumed, second, 3)
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_vectors_are_not_decayed() -> None:
    trained = _model()
    stepper = _build(trained, OptimizerConfig(learning_rate=0.1, weight_decay=0.5), "fp32")
    start = copy.deepcopy(trained.state_dict())
    for parameter in trained.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepper.clip_and_step(0.0, optimizers.finite)
    now = trained.state_dict()
    assert torch.equal(now["bias"], start["bias"])
    torch.testing.assert_close(now["weight"], start["weight"] * 0.95)


@pytest.mark.parametrize("name", ["adamw_8bit", "sgd", "adamw"])
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    trained = _model()
    stepper = _build(trained, OptimizerConfig.model_validate({"name": name, "learning_rate": 0.01}), "fp32")
    losses = _train(trained, stepper, 30)
    assert losses[-1] < 0.5 * losses[0]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(errors.ModelError, match=r"adapter\.targets"):
        optimizers.build([], ADAMW, precision="fp32", accumulate=False)


def test_states_of_other_parameters_are_refused() -> None:
    stepper = _build(_model())
    with pytest.raises(errors.CheckpointError, match="nosuch"):
        stepper.load_named_state({"exp_avg.nosuch": torch.zeros(1)})


def _model(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(6, 4).to(dtype)


def _build(
    trained: nn.Module,
    config: OptimizerConfig = ADAMW,
    precision: Precision = "bf16_mixed",
    *,
    accumulate: bool = False,
) -> optimizers.NamedOptimizer:
    return optimizers.build(trained.named_parameters(), config, precision=precision, accumulate=accumulate)


def _train(trained: nn.Linear, stepper: optimizers.NamedOptimizer, steps: int) -> list[float]:
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(2)).to(trained.weight.dtype)
    losses = []
    for _ in range(steps):
        loss = trained(inputs).float().pow(2).mean()
        loss.backward()
        stepper.clip_and_step(1.0, optimizers.finite)
        losses.append(float(loss.detach()))
    return losses


def _distance(one: nn.Module, other: nn.Module) -> float:
    pairs: Callable[[nn.Module], list[torch.Tensor]] = lambda m: [p.detach().float() for p in m.parameters()]  # noqa: E731
    return max(float((a - b).abs().max()) for a, b in zip(pairs(one), pairs(other), strict=True))
