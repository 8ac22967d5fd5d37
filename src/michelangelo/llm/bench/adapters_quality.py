"""Do LoRA and QLoRA learn as well as full tuning? A small model, trained from nothing on one kind of text, is tuned on
another kind by each method, at several learning rates and ranks; each method counts at its own best rate.

The text is Python's own documentation and the sources of its standard library, so that nothing is downloaded. At one
learning rate for all, methods would be compared by how well that rate suits them: adapters take about ten times that of
full tuning (Schulman et al. 2025, "LoRA Without Regret").
"""

from __future__ import annotations

import argparse
import copy
import inspect
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pydoc_data import topics
from typing import Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from michelangelo.llm.bench import tiny
from michelangelo.llm.bench.experiment import Deadline, Outcome, Point, Quantity, Series, Task, filled
from michelangelo.llm.finetune import adapters, causal_lm, optimizers, quantization, schedule
from michelangelo.llm.finetune.batch import IGNORED, Batch
from michelangelo.llm.finetune.config import AdapterConfig, OptimizerConfig
from michelangelo.llm.finetune.strategy import trained_parameters

__all__ = ["CLAIM", "SUMMARY", "measure", "predict"]

SUMMARY: Final = "loss curves of full tuning, LoRA and QLoRA, each at its own best learning rate and rank"
CLAIM: Final = (
    "(Q)LoRA's loss falls much less than that of full tuning "
    "(https://www.uber.com/blog/open-source-and-in-house-how-uber-optimizes-llm-training/); it need not, says LoRA "
    "Without Regret (https://thinkingmachines.ai/blog/lora/)"
)
_METHODS: Final = ("full", "LoRA", "QLoRA")
_LENGTH, _ROWS, _VOCABULARY = 64, 8, 512
_REACHES: Final = 0.02
"""Nats: adapters within this of full tuning have reached it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    pretrain_steps: int
    tune_steps: int
    rates: Mapping[str, Sequence[float]]
    ranks: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Curve:
    method: str
    rate: float
    rank: int
    losses: Mapping[int, float]
    """Held-out loss by step, nats per token."""

    @property
    def final(self) -> float:
        return self.losses[max(self.losses)]


def predict(task: Task) -> Sequence[Quantity]:
    """No formula says a loss beforehand; what is claimed is that adapters stay behind."""
    found = [Quantity(case=method, name="held-out loss", unit="nats", predicted=None) for method in _METHODS]
    return [
        *found,
        *(
            Quantity(
                case=f"{method} against full",
                name="behind full tuning",
                unit="nats",
                predicted=None,
                goal=_REACHES,
                goal_is_upper=True,
            )
            for method in _METHODS[1:]
        ),
    ]


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    plan = _plan(task)
    torch.manual_seed(0)
    device = torch.device(task.device)
    general, other, held_out = _texts(quick=task.quick)
    base = _pretrained(general, plan.pretrain_steps, device)
    start = _evaluate(base, held_out, device)
    curves: list[_Curve] = []
    left_out: list[str] = []
    for method in _METHODS:
        for rate, rank in itertools.product(plan.rates[method], plan.ranks if method != "full" else (0,)):
            if deadline.is_over:
                left_out.append(f"{method} at learning rate {rate:g}, rank {rank}")
                continue
            curves.append(_tuned(base, (method, rate, rank), (other, held_out), plan.tune_steps, device))
    best = {method: min(found, key=lambda c: c.final) for method in _METHODS if (found := _of(curves, method))}
    measured: dict[tuple[str, str], float | None] = {
        (method, "held-out loss"): curve.final for method, curve in best.items()
    }
    if "full" in best:
        for method in set(best) - {"full"}:
            measured[f"{method} against full", "behind full tuning"] = best[method].final - best["full"].final
    return Outcome(
        quantities=filled(predicted, measured),
        series=_series(curves, best),
        conclusions=_conclusions(start, best, curves),
        measurements=[
            {"method": c.method, "learning_rate": c.rate, "rank": c.rank, "losses": dict(c.losses)} for c in curves
        ],
        left_out=left_out,
    )


def _plan(task: Task) -> _Plan:
    full, adapted = (1e-3, 3e-3), (3e-3, 1e-2, 3e-2)
    if task.quick:
        return _Plan(40, 20, {"full": full[1:], "LoRA": adapted[1:2], "QLoRA": adapted[1:2]}, (8,))
    rates = {"full": (3e-4, *full), "LoRA": adapted, "QLoRA": adapted}
    return _Plan(400, 120, rates, (2, 8, 32))


def _texts(*, quick: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of tokens: of the documentation; of sources to tune on; of other sources, held out."""
    names = sorted(topics.topics)
    documentation = [topics.topics[name] for name in names]
    sources = [inspect.getsource(module) for module in (statistics, inspect, argparse, copy)]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, show_progress=False)
    words.train_from_iterator([*documentation[: 20 if quick else 60], *sources[:1]], trainer)
    rows = [_rows(words, text, limit=60 if quick else 4000) for text in (documentation, sources[:2], sources[2:])]
    return rows[0], rows[1], rows[2][:32]


def _rows(words: Tokenizer, texts: Sequence[str], *, limit: int) -> torch.Tensor:
    tokens = list(itertools.chain.from_iterable(encoding.ids for encoding in words.encode_batch(list(texts))))
    count = min(limit, len(tokens) // _LENGTH)
    return torch.tensor(tokens[: count * _LENGTH]).view(count, _LENGTH)


def _pretrained(rows: torch.Tensor, steps: int, device: torch.device) -> PreTrainedModel:
    config = AutoConfig.for_model(**{**tiny.CONFIG, "vocab_size": _VOCABULARY})
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    made.to(device)  # type: ignore[arg-type]
    _train(made, rows, steps, 3e-3, device, seed=0)
    return made


def _tuned(
    base: PreTrainedModel,
    terms: tuple[str, float, int],
    texts: tuple[torch.Tensor, torch.Tensor],
    steps: int,
    device: torch.device,
) -> _Curve:
    method, rate, rank = terms
    model = copy.deepcopy(base)
    model.__dict__.pop("forward", None)
    if method != "full":
        terms_of = AdapterConfig(method="qlora" if method == "QLoRA" else "lora", rank=rank, alpha=2.0 * rank)
        if method == "QLoRA":
            quantization.quantize_(model, terms_of)
        adapters.apply(model, terms_of)
    losses = _train(model, texts[0], steps, rate, device, seed=1, held_out=texts[1])
    return _Curve(method, rate, rank, losses)


def _train(
    model: PreTrainedModel,
    rows: torch.Tensor,
    steps: int,
    rate: float,
    device: torch.device,
    *,
    seed: int,
    held_out: torch.Tensor | None = None,
) -> dict[int, float]:
    objective = causal_lm.CausalObjective(model, loss="plain")
    config = OptimizerConfig(learning_rate=rate, warmup_steps=max(1, steps // 20))
    stepper = optimizers.build(trained_parameters(model), config, precision="fp32", accumulate=False)
    generator = torch.Generator().manual_seed(seed)
    losses: dict[int, float] = {}
    model.train()
    for step in range(1, steps + 1):
        chosen = rows[torch.randint(0, len(rows), (_ROWS,), generator=generator)]
        batch = _batch(chosen).to(device)
        stepper.set_learning_rate(schedule.learning_rate(config, step, steps))
        loss, _ = objective.loss(batch)
        (loss / batch.num_trained).backward()  # type: ignore[no-untyped-call]
        stepper.clip_and_step(1.0, optimizers.finite)
        if held_out is not None and (step % max(1, steps // 6) == 0 or step == steps):
            losses[step] = _evaluate(model, held_out, device)
    return losses


@torch.no_grad()
def _evaluate(model: PreTrainedModel, rows: torch.Tensor, device: torch.device) -> float:
    model.eval()  # type: ignore[no-untyped-call]
    batch = _batch(rows).to(device)
    value = float(causal_lm.CausalObjective(model, loss="plain").loss(batch)[0]) / batch.num_trained
    model.train()
    return value


def _batch(rows: torch.Tensor) -> Batch:
    labels = rows.clone()
    labels[:, 0] = IGNORED
    positions = torch.arange(_LENGTH).expand_as(rows).contiguous()
    return Batch(rows, labels, positions, torch.zeros_like(rows, dtype=torch.int32), int((labels != IGNORED).sum()))


def _of(curves: Sequence[_Curve], method: str) -> list[_Curve]:
    return [curve for curve in curves if curve.method == method]


def _series(curves: Sequence[_Curve], best: Mapping[str, _Curve]) -> list[Series]:
    lines = [
        Series(
            name=f"{method}, rate {curve.rate:g}" + (f", rank {curve.rank}" if curve.rank else ""),
            x_label="step",
            y_label="held-out loss (nats per token)",
            points=[Point(float(step), loss) for step, loss in curve.losses.items()],
        )
        for method, curve in best.items()
    ]
    ranks = sorted({curve.rank for curve in curves if curve.rank})
    by_rank = [
        Series(
            name=method,
            x_label="rank",
            y_label="best held-out loss",
            x_is_log=True,
            points=[
                Point(float(rank), min(c.final for c in found))
                for rank in ranks
                if (found := [c for c in _of(curves, method) if c.rank == rank])
            ],
        )
        for method in _METHODS[1:]
    ]
    return [*lines, *(by_rank if len(ranks) > 1 else [])]


def _conclusions(start: float, best: Mapping[str, _Curve], curves: Sequence[_Curve]) -> list[str]:
    said = [f"Before tuning the held-out loss is {start:.3f} nats per token."]
    for method, curve in best.items():
        rank = f", rank {curve.rank}" if curve.rank else ""
        tried = len(_of(curves, method))
        said.append(f"{method}: {curve.final:.3f} at its best (learning rate {curve.rate:g}{rank}; {tried} tried).")
    for method in _METHODS[1:]:
        if method in best and "full" in best:
            behind = best[method].final - best["full"].final
            verdict = "reaches" if behind <= _REACHES else "does not reach"
            said.append(f"{method} {verdict} full tuning: {behind:+.3f} nats.")
    return said
