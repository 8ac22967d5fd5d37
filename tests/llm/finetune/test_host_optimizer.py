"""An optimizer on the host steps as the one beside the weights does."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from michelangelo import errors
from michelangelo.llm.finetune import host_optimizer, optimizers
from michelangelo.llm.finetune.config import OptimizerConfig

ADAMW = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1)


@pytest.mark.parametrize("passes", [1, 3])
def test_host_steps_as_the_device_does(passes: int) -> None:
    ours, theirs = _model(), _model()
    host = host_optimizer.HostOptimizer(ours.named_parameters(), ADAMW)
    beside = optimizers.build(theirs.named_parameters(), ADAMW, precision="bf16_mixed", accumulate=True)
    for step in range(4):
        norms = [_step(trained, stepper, passes, step) for trained, stepper in ((ours, host), (theirs, beside))]
        assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_gradients_leave_the_device_as_they_are_made() -> None:
    trained = _model()
    host = host_optimizer.HostOptimizer(trained.named_parameters(), ADAMW)
    trained(torch.ones(2, 6).bfloat16()).float().sum().backward()
    assert all(parameter.grad is None for parameter in trained.parameters())
    assert [gradient.dtype for gradient in host.gradients()] == [torch.float32] * 2


def test_a_refused_step_changes_nothing() -> None:
    trained = _model()
    before = copy.deepcopy(trained.state_dict())
    host = host_optimizer.HostOptimizer(trained.named_parameters(), ADAMW)
    (trained(torch.ones(2, 6).bfloat16()).float().sum() * math.nan).backward()
    host.clip_and_step(1.0, optimizers.finite)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert host.gradients() == []


def test_state_can_be_taken_over_by_the_optimizer_beside_the_weights() -> None:
    trained = _model()
    host = host_optimizer.HostOptimizer(trained.named_parameters(), ADAMW)
    _step(trained, host, 1, 0)
    resumed = copy.deepcopy(trained)
    beside = optimizers.build(resumed.named_parameters(), ADAMW, precision="bf16_mixed", accumulate=True)
    beside.load_named_state(copy.deepcopy(host.named_state()))
    _step(trained, host, 1, 1)
    _step(resumed, beside, 1, 1)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), resumed.parameters(), strict=True))


def test_optimizers_that_need_a_gpu_are_refused() -> None:
    with pytest.raises(errors.SettingsError, match="adamw and sgd"):
        host_optimizer.HostOptimizer(_model().named_parameters(), OptimizerConfig(name="adamw_8bit"))


def _model() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(6, 4).bfloat16()


def _step(trained: nn.Module, stepper: optimizers.NamedOptimizer, passes: int, seed: int) -> float:
    inputs = torch.randn(passes, 8, 6, generator=torch.Generator().manual_seed(seed)).bfloat16()
    for piece in inputs:
        trained(piece).float().pow(2).mean().backward()
    return stepper.clip_and_step(0.5, optimizers.finite)
