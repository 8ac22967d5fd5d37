"""The next-token loss of a whole model, called as one module.

FSDP2 and DeepSpeed gather weights around the call of the root module, so the loss has to be inside of that call: the
model's own forward is replaced by one that ends in a loss, and the model keeps its class and the names of its weights.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, cast

import torch
from transformers import PreTrainedModel

from michelangelo.llm.finetune import attention, cross_entropy, model
from michelangelo.llm.finetune.batch import Batch, PreferenceBatch
from michelangelo.llm.finetune.documents import documents_of

__all__ = ["CausalObjective", "LossKind", "Reduction", "install", "losses"]

Reduction: TypeAlias = Literal["sum", "rows"]
LossKind: TypeAlias = Literal["plain", "chunked", "liger"]
_LOSSES: Final = {
    "plain": cross_entropy.plain_loss_sum,
    "chunked": cross_entropy.summed_loss,
    "liger": cross_entropy.liger_loss,
}


class CausalObjective:
    """Nats per trained token."""

    def __init__(self, trained: PreTrainedModel, *, loss: LossKind) -> None:
        install(trained, loss=loss)
        self._model = trained

    def loss(self, batch: Batch | PreferenceBatch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        assert isinstance(batch, Batch)
        return losses(self._model, batch, "sum"), {}

    def count(self, batch: Batch | PreferenceBatch) -> int:
        return batch.num_trained


def losses(trained: torch.nn.Module, batch: Batch, reduction: Reduction) -> torch.Tensor:
    """`sum`: over the batch, []; `rows`: per row, [B]. float32. The batch is on the model's device (`Batch.to`)."""
    return cast(torch.Tensor, trained(batch, reduction))


def install(trained: PreTrainedModel, *, loss: LossKind) -> None:
    """From now on `trained(batch, reduction)` gives losses. Another call changes the kind of loss."""

    def forward(self: PreTrainedModel, batch: Batch, reduction: Reduction) -> torch.Tensor:
        documents = batch.documents or documents_of(batch.document_ids.cpu(), batch.input_ids.device)
        extra = attention.arguments(self, documents)
        output = self.base_model(batch.input_ids, position_ids=batch.position_ids, use_cache=False, **extra)
        hidden = cast(torch.Tensor, output[0])[:, :-1].flatten(0, 1)
        labels = batch.labels[:, 1:].flatten()
        head = model.head_of(self)
        if reduction == "rows":
            return cross_entropy.token_losses(hidden, head, labels).view(batch.labels.shape[0], -1).sum(1)
        return _LOSSES[loss](hidden, head, labels)

    trained.forward = types.MethodType(forward, trained)
