"""Cross-entropy in pieces is cross-entropy: values and gradients, whatever is done to the logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.finetune import cross_entropy
from michelangelo.llm.finetune.batch import IGNORED
from michelangelo.llm.finetune.cross_entropy import Head

HEADS: list[dict[str, Any]] = [{}, {"scale": 0.25}, {"softcap": 2.0}, {"scale": 3.0, "softcap": 5.0}]


@pytest.mark.parametrize("options", HEADS, ids=str)
@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
def test_summed_loss_equals_the_reference(options: dict[str, Any], with_bias: bool) -> None:
    hidden, weight, bias, labels = _inputs(tokens=600, with_bias=with_bias)
    inputs = [hidden, weight, *([bias] if bias is not None else [])]
    expected = cross_entropy.plain_loss_sum(hidden, Head(weight, bias, **options), labels)
    found = cross_entropy.summed_loss(hidden, Head(weight, bias, **options), labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(found * 0.5, inputs), torch.autograd.grad(expected * 0.5, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_token_losses_sum_up_to_the_reference(options: dict[str, Any]) -> None:
    hidden, weight, _, labels = _inputs(tokens=300)
    weights = torch.linspace(0, 2, 300)
    found = cross_entropy.token_losses(hidden, Head(weight, **options), labels)
    logits = Head(weight, **options).logits(hidden)
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), (hidden, weight)),
        torch.autograd.grad((expected * weights).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _, labels = _inputs(tokens=40)
    frozen = weight.detach()
    cross_entropy.summed_loss(hidden, Head(frozen), labels).backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert frozen.grad is None


@given(ignored=st.lists(st.booleans(), min_size=12, max_size=12))
def test_ignored_tokens_weigh_nothing(ignored: list[bool]) -> None:
    hidden, weight, _, labels = _inputs(tokens=12)
    labels = torch.where(torch.tensor(ignored), IGNORED, labels.clamp_min(0))
    kept = ~torch.tensor(ignored)
    expected = cross_entropy.plain_loss_sum(hidden[kept], Head(weight), labels[kept])
    found = cross_entropy.summed_loss(hidden, Head(weight), labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(found, hidden) if bool(kept.any()) else (torch.zeros_like(hidden),)
    assert bool((gradient[~kept] == 0).all())


def test_no_tensor_of_all_logits_is_kept() -> None:
    hidden, weight, _, labels = _inputs(tokens=2000, vocabulary=64)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cross_entropy.summed_loss(hidden, Head(weight), labels)
    assert max(kept) <= hidden.numel()


def _inputs(
    *, tokens: int, vocabulary: int = 50, with_bias: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(tokens, 16, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, 16, generator=generator, requires_grad=True)
    bias = torch.randn(vocabulary, generator=generator, requires_grad=True) if with_bias else None
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[::3] = IGNORED
    return hidden, weight, bias, labels
