"""Direct preference optimisation: of two answers, the chosen one becomes more likely than the rejected one, against a
reference that keeps the model near where it began.

With adapters the reference is the model with its adapters switched off, which takes no memory. With full tuning it is a
frozen copy, made before the first step: another 2 bytes per parameter in bf16, whole on each GPU, however the trained
model is sharded. With `precompute_reference` the model itself is asked before it is trained (`reference`). Both answers
go through the model in one batch, so that sharded weights are gathered once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from michelangelo.llm.finetune import adapters, causal_lm
from michelangelo.llm.finetune.batch import IGNORED, Batch, PreferenceBatch
from michelangelo.llm.finetune.config import PreferenceConfig
from michelangelo.llm.finetune.documents import documents_of

__all__ = ["LogProbabilities", "PreferenceObjective", "pair_losses"]


@dataclass(frozen=True, slots=True)
class LogProbabilities:
    """Of whole answers, in nats, [pairs] float32."""

    chosen: torch.Tensor
    rejected: torch.Tensor


class PreferenceObjective:
    """Its terms are pairs. Metrics, as sums over pairs: `accuracy`, `margin`, `chosen_reward`, `rejected_reward`, `kl`.

    Rewards are beta times the log-ratio of model and reference (Rafailov et al., arXiv 2305.18290, section 4); `kl` is
    the mean log-ratio of the two answers in nats, which estimates the divergence as far as the model would give such
    answers itself.
    """

    def __init__(self, trained: PreTrainedModel, config: PreferenceConfig) -> None:
        """`trained` has its adapters, if it gets any. Its forward is replaced by one that gives losses."""
        causal_lm.install(trained, loss="chunked")
        self._model = trained
        self._config = config
        is_shared = config.precompute_reference or bool(adapters.state(trained))
        self._reference = trained if is_shared else _frozen_copy(trained)

    def loss(self, batch: Batch | PreferenceBatch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        assert isinstance(batch, PreferenceBatch)
        pairs = _side_by_side(batch)
        known = batch.reference
        reference = self._reference_of(pairs) if known is None else LogProbabilities(known[0], known[1])
        model = _halves(-causal_lm.losses(self._model, pairs, "rows"))
        lengths = _halves((pairs.labels[:, 1:] != IGNORED).sum(1).to(torch.float32))
        # Rows that only fill up the last batch have nothing to prefer.
        kept = ((lengths.chosen > 0) & (lengths.rejected > 0)).to(torch.float32)
        counted = LogProbabilities(lengths.chosen.clamp_min(1), lengths.rejected.clamp_min(1))
        losses = kept * pair_losses(model, reference, counted, self._config)
        beta = self._config.beta
        chosen = kept * beta * (model.chosen - reference.chosen).detach()
        rejected = kept * beta * (model.rejected - reference.rejected).detach()
        metrics = {
            "accuracy": (chosen > rejected).float().sum(),
            "margin": (chosen - rejected).sum(),
            "chosen_reward": chosen.sum(),
            "rejected_reward": rejected.sum(),
            "kl": (chosen + rejected).sum() / (2 * beta),
        }
        return losses.sum(), metrics

    def reference(self, batch: PreferenceBatch) -> torch.Tensor:
        """[2, pairs] float32: what the reference says of chosen and rejected answers, in nats. In full tuning with
        `precompute_reference` that is the model as it is now: only before the first step."""
        found = self._reference_of(_side_by_side(batch))
        return torch.stack([found.chosen, found.rejected])

    def count(self, batch: Batch | PreferenceBatch) -> int:
        assert isinstance(batch, PreferenceBatch)
        there = [(side.labels[:, 1:] != IGNORED).any(1) for side in (batch.chosen, batch.rejected)]
        return int((there[0] & there[1]).sum())

    @torch.no_grad()
    def _reference_of(self, pairs: Batch) -> LogProbabilities:
        if self._reference is not self._model:
            if next(self._reference.parameters()).device != pairs.input_ids.device:
                nn.Module.to(self._reference, pairs.input_ids.device)
            return _halves(-causal_lm.losses(self._reference, pairs, "rows"))
        was_training, noisy = self._model.training, _has_dropout(self._model)
        if noisy:  # only then: a compiled layer has one version for training and one for evaluation
            self._model.eval()  # type: ignore[no-untyped-call]
        with adapters.disabled(self._model):
            found = _halves(-causal_lm.losses(self._model, pairs, "rows"))
        if noisy:
            self._model.train(was_training)
        return found


def pair_losses(
    model: LogProbabilities, reference: LogProbabilities, lengths: LogProbabilities, config: PreferenceConfig
) -> torch.Tensor:
    """[pairs]. `lengths`: trained tokens of the answers.

    sigmoid: DPO (arXiv 2305.18290, equation 7), with label smoothing in its conservative form
    (1 - e) loss(margin) + e loss(-margin). hinge: SLiC-HF (arXiv 2305.10425). ipo: arXiv 2310.12036, equation 17, on
    log-ratios per token, as its authors computed it. The chosen answers' loss is per token too.
    """
    chosen, rejected = model.chosen - reference.chosen, model.rejected - reference.rejected
    if config.loss == "ipo":
        chosen, rejected = chosen / lengths.chosen, rejected / lengths.rejected
    margin = chosen - rejected
    smooth = config.label_smoothing
    losses = _loss(margin, config)
    if smooth:
        losses = (1 - smooth) * losses + smooth * _loss(-margin, config)
    if config.sft_weight:
        losses = losses - config.sft_weight * model.chosen / lengths.chosen
    return losses


def _loss(margin: torch.Tensor, config: PreferenceConfig) -> torch.Tensor:
    if config.loss == "sigmoid":
        return -F.logsigmoid(config.beta * margin)
    if config.loss == "hinge":
        return torch.relu(1 - config.beta * margin)
    return (margin - 1 / (2 * config.beta)) ** 2


def _halves(values: torch.Tensor) -> LogProbabilities:
    chosen, rejected = values.chunk(2)
    return LogProbabilities(chosen, rejected)


def _side_by_side(batch: PreferenceBatch) -> Batch:
    """The chosen rows above the rejected ones, the shorter filled up at the end."""
    length = max(batch.chosen.input_ids.shape[1], batch.rejected.input_ids.shape[1])

    def joined(name: str, fill: int) -> torch.Tensor:
        rows: list[Any] = [getattr(one, name) for one in (batch.chosen, batch.rejected)]
        return torch.cat([F.pad(row, (0, length - row.shape[1]), value=fill) for row in rows])

    document_ids = joined("document_ids", -1)
    input_ids = joined("input_ids", 0)
    return Batch(
        input_ids=input_ids,
        labels=joined("labels", IGNORED),
        position_ids=joined("position_ids", 0),
        document_ids=document_ids,
        num_trained=batch.num_trained,
        documents=documents_of(document_ids.cpu(), input_ids.device),
    )


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    reference = copy.deepcopy(model)
    reference.requires_grad_(False)
    reference.eval()  # type: ignore[no-untyped-call]
    return reference


def _has_dropout(model: PreTrainedModel) -> bool:
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        return True
    fields = model.config.get_text_config().to_dict()
    return any(
        isinstance(value, float) and value > 0
        for name, value in fields.items()
        if "dropout" in name or name.endswith("pdrop")
    )
