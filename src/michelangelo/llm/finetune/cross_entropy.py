"""Cross-entropy from hidden states, a piece of the tokens at a time: the logits of a whole batch never exist.

At a vocabulary of 128,256 the logits of 8,192 tokens take 4.2 GB in fp32, and plain training holds several such
tensors; here one piece of bounded size is held. The gradient is computed with the loss, so that no logits are computed
twice. It knows no model: the caller names the output matrix and what is done to its logits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional as F

from michelangelo import errors
from michelangelo.llm.finetune.batch import IGNORED

__all__ = ["Head", "liger_loss", "plain_loss_sum", "summed_loss", "token_losses"]

_PIECE_BYTES: Final = 1 << 30
"""Of the fp32 logits of one piece: large enough for matrix products at full speed, small beside activations."""
_MIN_TOKENS: Final = 256


@dataclass(frozen=True, slots=True)
class Head:
    """From hidden states to logits: `softcap * tanh(scale * (h W^T + bias) / softcap)`."""

    weight: torch.Tensor
    """[V, H]."""
    bias: torch.Tensor | None = None
    """[V]."""
    scale: float = 1.0
    softcap: float = 0.0
    """0: none. Gemma 2's final_logit_softcapping."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[T, H] → [T, V], in the dtype of the weights."""
        raw = F.linear(hidden, self.weight, self.bias)
        if self.scale != 1.0:
            raw = raw * self.scale
        return torch.tanh(raw / self.softcap) * self.softcap if self.softcap else raw


def plain_loss_sum(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """The sum over tokens, float32 [], by way of all logits in fp32: the reference, fastest for small vocabularies.

    hidden: [T, H]; labels: [T] int64 with IGNORED where there is no loss.
    """
    return F.cross_entropy(head.logits(hidden).float(), labels, ignore_index=IGNORED, reduction="sum")


def summed_loss(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """The same, piece by piece; equal up to rounding. Gradients reach `hidden`, the weight and the bias."""
    loss: torch.Tensor = _SummedLoss.apply(hidden, head.weight, head.bias, labels, head)  # type: ignore[no-untyped-call]
    return loss


def liger_loss(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """The same by Liger's fused kernel; needs a GPU. Raises SettingsError without the package, or where the logits are
    scaled, which the kernel cannot do."""
    if head.scale != 1.0:
        raise errors.SettingsError("training.cross_entropy liger: this model scales its logits; use chunked")
    try:
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
    except ImportError as e:
        raise errors.SettingsError(
            "training.cross_entropy liger: needs a GPU and pip install 'michelangelo-oss[gpu]'"
        ) from e
    result = LigerFusedLinearCrossEntropyFunction.apply(
        hidden, head.weight, labels, head.bias, None, IGNORED, 0.0, 0.0, "sum", head.softcap or None
    )
    loss: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return loss


def token_losses(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """[T] float32, 0 where there is no loss; for losses that weigh tokens differently (DPO). Logits of a piece are
    computed again on the way back."""
    pieces = [
        torch.utils.checkpoint.checkpoint(_piece_losses, piece, head, targets, use_reentrant=False)
        for piece, targets in _pieces(hidden, labels, head)
    ]
    return torch.cat(pieces)


def _piece_losses(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head.logits(hidden).float(), labels, ignore_index=IGNORED, reduction="none")


class _SummedLoss(torch.autograd.Function):
    """The upstream gradient of a sum is one number, so the gradient for 1 is made with the loss and scaled later."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        head: Head,
    ) -> torch.Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        wants_bias = bias is not None and ctx.needs_input_grad[2]
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        weight_grad = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wants_weight else None
        bias_grad = torch.zeros(weight.shape[0], dtype=torch.float32, device=weight.device) if wants_bias else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        start = 0
        loss_and_gradient = _compiled(hidden.device.type)
        for piece, targets in _pieces(hidden, labels, head):
            raw = F.linear(piece, weight, bias)
            loss, gradient = loss_and_gradient(raw, targets, head.scale, head.softcap)
            del raw
            total += loss
            if hidden_grad is not None:
                torch.mm(gradient, weight, out=hidden_grad[start : start + len(piece)])
            if weight_grad is not None:
                _add_product(weight_grad, gradient, piece)
            if bias_grad is not None:
                bias_grad += gradient.sum(0, dtype=torch.float32)
            start += len(piece)
        ctx.save_for_backward(
            hidden_grad,
            None if weight_grad is None else weight_grad.to(weight.dtype),
            None if bias_grad is None or bias is None else bias_grad.to(bias.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (factor,) = upstream
        made = (
            None if gradient is None else gradient.mul_(factor.to(gradient.dtype)) for gradient in ctx.saved_tensors
        )
        return (*made, None, None)


def _pieces(hidden: torch.Tensor, labels: torch.Tensor, head: Head) -> Any:
    tokens = max(_MIN_TOKENS, _PIECE_BYTES // (4 * head.weight.shape[0]))
    return zip(torch.split(hidden, tokens), torch.split(labels, tokens), strict=True)


def _loss_and_gradient(
    raw: torch.Tensor, labels: torch.Tensor, scale: float, softcap: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss, and its gradient by the raw logits, [T, V] in their dtype."""
    logits = raw.float()
    if scale != 1.0:
        logits = logits * scale
    slope = torch.tensor(scale, device=raw.device)
    if softcap:
        squashed = torch.tanh(logits / softcap)
        logits = squashed * softcap
        slope = slope * (1 - squashed * squashed)
    counted = labels != IGNORED
    targets = torch.where(counted, labels, 0).unsqueeze(1)
    log_sum = torch.logsumexp(logits, 1, keepdim=True)
    losses = torch.where(counted.unsqueeze(1), log_sum - logits.gather(1, targets), 0.0)
    columns = torch.arange(raw.shape[1], device=raw.device)
    gradient = (torch.exp(logits - log_sum) - (columns == targets).float()) * slope * counted.unsqueeze(1)
    return losses.sum(), gradient.to(raw.dtype)


@functools.cache
def _compiled(kind: str) -> Any:
    """One pass over the logits instead of ten, on a GPU; a CPU has no need of a compiler at hand."""
    return torch.compile(_loss_and_gradient, dynamic=False) if kind == "cuda" else _loss_and_gradient


def _add_product(total: torch.Tensor, gradient: torch.Tensor, hidden: torch.Tensor) -> None:
    """total += gradient^T hidden, summed in fp32."""
    if total.is_cuda and gradient.dtype != torch.float32:
        torch.addmm(total, gradient.t(), hidden, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(gradient.t().to(total.dtype), hidden.to(total.dtype))
