"""Do LoRA and QLoRA learn as well as full tuning? A small model, trained from nothing on general text, is tuned on
one kind of text by each method, at several learning rates and ranks; each method counts at its own best rate.

At one learning rate for all, methods would be compared by how well that rate suits them: adapters take about ten times
that of full tuning (Schulman et al. 2025, "LoRA Without Regret"). The best of each method is repeated with other seeds,
and the answer is given with the interval of the differences between runs that saw the same batches.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from michelangelo.llm.bench import corpus, tiny
from michelangelo.llm.bench.experiment import Deadline, Outcome, Point, Quantity, Series, Task, filled
from michelangelo.llm.finetune import adapters, causal_lm, optimizers, quantization, schedule
from michelangelo.llm.finetune.batch import IGNORED, Batch
from michelangelo.llm.finetune.config import AdapterConfig, OptimizerConfig
from michelangelo.llm.finetune.strategy import trained_parameters

__all__ = ["CLAIM", "SUMMARY", "interval", "measure", "predict"]

SUMMARY: Final = "loss curves of full tuning, LoRA and QLoRA, each at its own best learning rate and rank"
CLAIM: Final = (
    "(Q)LoRA's loss falls much less than that of full tuning "
    "(https://www.uber.com/blog/open-source-and-in-house-how-uber-optimizes-llm-training/); it need not, says LoRA "
    "Without Regret (https://thinkingmachines.ai/blog/lora/), at about ten times the learning rate"
)
_METHODS: Final = ("full", "LoRA", "QLoRA")
_REACHES: Final = 0.02
"""Nats: adapters within this of full tuning have reached it."""
_RATE_RATIO: Final = 10.0
"""Of the best learning rates, adapters to full tuning: what LoRA Without Regret found."""
_BEHIND: Final = "behind full tuning"
_T_95: Final = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, 95 %, two-sided, by degrees of freedom (any table of it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """How large all of it is."""

    sizes: Mapping[str, int]
    """Changes of the tiny model's config."""
    length: int
    rows: int
    """Per step."""
    num_files: int
    pretrain_steps: int
    tune_steps: int
    rates: Mapping[str, Sequence[float]]
    ranks: Sequence[int]
    seeds: int
    """Runs of each method's best."""
    held_out_rows: int = 64


_FULL_RATES: Final = (3e-4, 1e-3, 3e-3, 1e-2)
_ADAPTER_RATES: Final = (1e-3, 3e-3, 1e-2, 3e-2)
_RATES: Final = {"full": _FULL_RATES, "LoRA": _ADAPTER_RATES, "QLoRA": _ADAPTER_RATES}
_QUICK: Final = _Scale(
    sizes={"vocab_size": 512},
    length=64,
    rows=8,
    num_files=10,
    pretrain_steps=40,
    tune_steps=20,
    rates={"full": (3e-3,), "LoRA": (1e-2, 3e-2), "QLoRA": (3e-2,)},
    ranks=(8,),
    seeds=2,
    held_out_rows=16,
)
_ON_CPU: Final = dataclasses.replace(
    _QUICK,
    num_files=40,
    pretrain_steps=400,
    tune_steps=120,
    rates=_RATES,
    ranks=(2, 8, 32),
    seeds=3,
    held_out_rows=32,
)
_ON_GPU: Final = _Scale(
    sizes={
        "vocab_size": 2048,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
    },
    length=256,
    rows=16,
    num_files=0,
    pretrain_steps=2000,
    tune_steps=200,
    rates=_RATES,
    ranks=(1, 8, 64),
    seeds=3,
)


@dataclass(frozen=True, slots=True)
class _Terms:
    method: str
    rate: float
    rank: int
    """0: no adapters."""
    seed: int = 1

    def __str__(self) -> str:
        rank = f", rank {self.rank}" if self.rank else ""
        return f"{self.method} at learning rate {self.rate:g}{rank}"


@dataclass(frozen=True, slots=True)
class _Curve:
    terms: _Terms
    losses: Mapping[int, float]
    """Held-out loss by step, nats per token."""

    @property
    def final(self) -> float:
        """Infinite where it diverged."""
        last = self.losses[max(self.losses)]
        return last if math.isfinite(last) else math.inf

    def to_dict(self) -> dict[str, Any]:
        shown = {step: loss if math.isfinite(loss) else None for step, loss in self.losses.items()}
        return {**dataclasses.asdict(self.terms), "losses": shown}


def predict(task: Task) -> Sequence[Quantity]:
    """No formula says a loss beforehand. What is predicted is the answer of LoRA Without Regret: nothing is lost, at
    ten times the learning rate."""
    found = [Quantity(case=method, name="held-out loss", unit="nats", predicted=None) for method in _METHODS]
    for method in _METHODS[1:]:
        case = f"{method} against full"
        found.append(Quantity(case=case, name=_BEHIND, unit="nats", predicted=0.0, goal=_REACHES, goal_is_upper=True))
        found.append(Quantity(case=case, name="best learning rate", unit="times", predicted=_RATE_RATIO))
    return found


def measure(task: Task, predicted: Sequence[Quantity], deadline: Deadline) -> Outcome:
    scale = _scale(task)
    runs = _Runs(scale, torch.device(task.device), deadline)
    best = runs.sweep()
    repeated = runs.repeat(best)
    measured: dict[tuple[str, str], float | None] = {}
    differences: dict[str, tuple[float, float, float]] = {}
    for method, curve in best.items():
        measured[method, "held-out loss"] = statistics.fmean([c.final for c in repeated[method]])
        if method == "full" or "full" not in best:
            continue
        case = f"{method} against full"
        measured[case, "best learning rate"] = curve.terms.rate / best["full"].terms.rate
        pairs = zip(repeated[method], repeated["full"], strict=False)
        differences[method] = interval([adapted.final - full.final for adapted, full in pairs])
        measured[case, _BEHIND] = differences[method][0]
    return Outcome(
        quantities=[_with_interval(quantity, differences) for quantity in filled(predicted, measured)],
        series=_series(runs.curves, best),
        conclusions=_conclusions(runs, best, differences),
        measurements=[curve.to_dict() for curve in runs.curves],
        left_out=runs.left_out,
    )


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval (Student's t); infinite ends of a single value, NaN of none."""
    if not values:
        return math.nan, math.nan, math.nan
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    width = _T_95[min(len(values) - 1, max(_T_95))] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - width, mean + width


class _Runs:
    """One base model, and all that was tuned from it."""

    def __init__(self, scale: _Scale, device: torch.device, deadline: Deadline) -> None:
        self._scale, self._device, self._deadline = scale, device, deadline
        self.curves: list[_Curve] = []
        self.left_out: list[str] = []
        self._seconds: list[float] = []
        torch.manual_seed(0)
        self.texts = corpus.make(
            vocabulary=scale.sizes["vocab_size"],
            length=scale.length,
            num_files=scale.num_files,
            held_out_rows=scale.held_out_rows,
        )
        config = AutoConfig.for_model(**{**tiny.CONFIG, **scale.sizes})
        self._base: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        self._base.to(device)
        self._train(self._base, self.texts.general, (scale.pretrain_steps, 3e-3, 0), held_out=False)
        self.start = self._evaluate(self._base)

    def sweep(self) -> dict[str, _Curve]:
        """The best of each method: LoRA at every rank and rate, QLoRA at LoRA's best rank and every rate. Time is kept
        for one repetition of each."""
        best: dict[str, _Curve] = {}
        for method in _METHODS:
            ranks: Sequence[int] = {"full": (0,), "LoRA": self._scale.ranks}.get(method, ())
            if method == "QLoRA" and "LoRA" in best:
                ranks = (best["LoRA"].terms.rank,)
            tried: list[_Curve] = []
            for rank, rate in itertools.product(ranks, self._scale.rates[method]):
                terms = _Terms(method, rate, rank)
                if self._has_time(keep=len(_METHODS) if tried else 0):
                    tried.append(self._tune(terms))
                else:
                    self.left_out.append(str(terms))
            if tried:
                best[method] = min(tried, key=lambda curve: curve.final)
            elif not ranks:
                self.left_out.append(method)
        return best

    def repeat(self, best: Mapping[str, _Curve]) -> dict[str, list[_Curve]]:
        """The best of each again, with other batches and other adapters; those of one seed saw the same batches."""
        repeated = {method: [curve] for method, curve in best.items()}
        for seed in range(2, self._scale.seeds + 1):
            if not self._has_time(keep=len(best) - 1):
                self.left_out.append(f"repetitions from seed {seed} on")
                break
            for method, curve in best.items():
                repeated[method].append(self._tune(dataclasses.replace(curve.terms, seed=seed)))
        return repeated

    def _has_time(self, *, keep: int) -> bool:
        """For one run and as many as `keep` after it."""
        typical = statistics.fmean(self._seconds) if self._seconds else 0.0
        return self._deadline.remaining() > typical * (1 + keep)

    def _tune(self, terms: _Terms) -> _Curve:
        before = self._deadline.remaining()
        model = copy.deepcopy(self._base)
        model.__dict__.pop("forward", None)
        torch.manual_seed(terms.seed)
        if terms.method != "full":
            method = "qlora" if terms.method == "QLoRA" else "lora"
            adapter = AdapterConfig(method=method, rank=terms.rank, alpha=2.0 * terms.rank)
            if method == "qlora":
                quantization.quantize_(model, adapter)
            adapters.apply(model, adapter)
        losses = self._train(model, self.texts.sources, (self._scale.tune_steps, terms.rate, terms.seed), held_out=True)
        self.curves.append(_Curve(terms, losses))
        self._seconds.append(before - self._deadline.remaining())
        return self.curves[-1]

    def _train(
        self, model: PreTrainedModel, rows: torch.Tensor, terms: tuple[int, float, int], *, held_out: bool
    ) -> dict[int, float]:
        """Held-out losses by step, from step 0 on, if they are wanted."""
        steps, rate, seed = terms
        objective = causal_lm.CausalObjective(model, loss="plain")
        config = OptimizerConfig(learning_rate=rate, warmup_steps=max(1, steps // 20))
        stepper = optimizers.build(trained_parameters(model), config, precision="fp32", accumulate=False)
        losses = {0: self._evaluate(model)} if held_out else {}
        model.train()
        for step, batch in enumerate(self._batches(rows, steps, seed), start=1):
            stepper.set_learning_rate(schedule.learning_rate(config, step, steps))
            loss, _ = objective.loss(batch)
            (loss / batch.num_trained).backward()  # type: ignore[no-untyped-call]
            stepper.clip_and_step(1.0, optimizers.finite)
            if held_out and (step % max(1, steps // 6) == 0 or step == steps):
                losses[step] = self._evaluate(model)
        return losses

    def _batches(self, rows: torch.Tensor, steps: int, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            chosen = torch.randint(0, len(rows), (self._scale.rows,), generator=generator)
            yield _batch(rows[chosen]).to(self._device)

    @torch.no_grad()
    def _evaluate(self, model: PreTrainedModel) -> float:
        model.eval()  # type: ignore[no-untyped-call]
        objective = causal_lm.CausalObjective(model, loss="plain")
        total, count = 0.0, 0
        for part in torch.split(self.texts.held_out, self._scale.rows):
            batch = _batch(part).to(self._device)
            total += float(objective.loss(batch)[0])
            count += batch.num_trained
        model.train()
        return total / count


def _scale(task: Task) -> _Scale:
    if task.quick:
        return _QUICK
    return _ON_GPU if task.device == "cuda" else _ON_CPU


def _batch(rows: torch.Tensor) -> Batch:
    labels = rows.clone()
    labels[:, 0] = IGNORED
    positions = torch.arange(rows.shape[1]).expand_as(rows).contiguous()
    return Batch(rows, labels, positions, torch.zeros_like(rows, dtype=torch.int32), int((labels != IGNORED).sum()))


def _with_interval(quantity: Quantity, differences: Mapping[str, tuple[float, float, float]]) -> Quantity:
    found = differences.get(quantity.case.partition(" ")[0])
    if found is None or quantity.name != _BEHIND or not math.isfinite(found[2] - found[1]):
        return quantity
    return dataclasses.replace(quantity, low=found[1], high=found[2])


def _series(curves: Sequence[_Curve], best: Mapping[str, _Curve]) -> list[Series]:
    lines = [
        Series(
            name=str(curve.terms),
            x_label="step",
            y_label="held-out loss (nats per token)",
            points=[Point(float(step), loss) for step, loss in curve.losses.items() if math.isfinite(loss)],
        )
        for curve in best.values()
    ]
    first = [curve for curve in curves if curve.terms.seed == 1 and math.isfinite(curve.final)]
    kinds = sorted({(c.terms.method, c.terms.rank) for c in first}, key=lambda kind: (_METHODS.index(kind[0]), kind[1]))
    by_rate = [
        Series(
            name=method + (f", rank {rank}" if rank else ""),
            x_label="learning rate",
            y_label="final held-out loss",
            x_is_log=True,
            points=[Point(c.terms.rate, c.final) for c in first if (c.terms.method, c.terms.rank) == (method, rank)],
        )
        for method, rank in kinds
    ]
    return [*lines, *by_rate]


def _conclusions(
    runs: _Runs, best: Mapping[str, _Curve], differences: Mapping[str, tuple[float, float, float]]
) -> list[str]:
    texts = runs.texts
    said = [
        f"Trained on Python's reference and {texts.num_general_files} modules of its library, tuned on "
        f"{texts.num_source_files} other modules, judged by {texts.num_held_out_files} yet others: before tuning "
        f"{runs.start:.3f} nats per token."
    ]
    for method, curve in best.items():
        tried = [c.terms.rate for c in runs.curves if c.terms.method == method and c.terms.seed == 1]
        edge = len(set(tried)) > 1 and curve.terms.rate in (min(tried), max(tried))
        said.append(
            f"{curve.terms}: {curve.final:.3f}, the best of {len(tried)}"
            + (" (at the edge of the rates that were tried: others may be better)." if edge else ".")
        )
    for method, (mean, low, high) in differences.items():
        gained = runs.start - best["full"].final
        share = f"; it reaches {1 - mean / gained:.0%} of what full tuning gains" if gained > 0 else ""
        between = f"95 % [{low:+.3f}, {high:+.3f}]" if math.isfinite(high) else "of one run"
        said.append(f"{method} {_verdict(low, high)}: {mean:+.3f} nats, {between}{share}.")
    return said


def _verdict(low: float, high: float) -> str:
    """Only what the whole interval says."""
    if high <= _REACHES:
        return "reaches full tuning"
    return "stays behind full tuning" if low > _REACHES else "may or may not reach full tuning (more runs would tell)"
