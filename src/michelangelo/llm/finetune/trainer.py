"""The loop: batches in, steps out, with evaluation, checkpoints and the policy for what goes wrong.

One loop for every objective, strategy and launcher. It builds nothing (`running` does) and reports through events only.
A loop of our own and not TRL's: it resumes bit for bit, judges a step before it is taken, and is faster
(benchmarks/RESULTS.md says by how much): layers are compiled, logits are never whole, rows are packed without a mask.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from michelangelo import errors
from michelangelo.llm.finetune import attention, optimizers, policy, randomness, schedule
from michelangelo.llm.finetune.batch import Batch, Batches, PreferenceBatch
from michelangelo.llm.finetune.checkpoint import finding, store
from michelangelo.llm.finetune.checkpoint import state as checkpoint_state
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.meter import Meter, without_pauses
from michelangelo.llm.finetune.objective import Objective
from michelangelo.llm.finetune.recording import Alert, Evaluated, Recorder, Stepped
from michelangelo.llm.finetune.strategy import Strategy

__all__ = ["Outcome", "Parts", "Progress", "Trainer"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop is made of, in one process."""

    model: nn.Module
    objective: Objective
    strategy: Strategy
    optimizer: optimizers.NamedOptimizer
    train: Batches
    validation: Batches | None
    checkpoints: store.CheckpointStore
    recorder: Recorder
    meter: Meter
    data_alerts: Callable[[int], Sequence[Alert]] = lambda _: ()
    """What is new to be told of the data, at a step."""
    steps_per_epoch: float = 0.0
    """0: not known; epochs are then counted whole."""


@dataclass(slots=True)
class Progress:
    """How far the run is; the same in every process, and kept in checkpoints."""

    step: int = 0
    epoch: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    last_loss: float = math.nan
    validation_loss: float = math.nan
    best_validation_loss: float = math.nan
    is_over: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {name: _jsonable(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Outcome:
    outcome: Literal["Succeeded", "Stopped"]
    message: str
    progress: Progress


@dataclass(slots=True)
class _Passes:
    """The batches of one optimizer step in this process."""

    batches: list[Batch | PreferenceBatch] = field(default_factory=list)
    num_terms: int = 0
    num_tokens: int = 0


class Trainer:
    """Runs until all steps are taken, the data is used up, the policy stops, or `should_stop` says so."""

    def __init__(
        self, config: FinetuneConfig, parts: Parts, *, total_steps: int, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._config = config
        self._parts = parts
        self._total_steps = total_steps
        self._should_stop = should_stop
        self._policy = policy.Policy(config.policy)
        self.progress = Progress()

    def resume(self, checkpoint: finding.Checkpoint) -> None:
        """Go on from a checkpoint, with the data where it was."""
        shared = self._load(checkpoint)
        self._parts.train.restore(shared["data"])

    def run(self) -> Outcome:
        """Raises DivergedError, DeviceMemoryError, DatasetError."""
        parts, progress = self._parts, self.progress
        message = "all steps were taken"
        parts.model.train()
        with attention.fast_kernels(parts.strategy.device), without_pauses():
            while progress.step < self._total_steps and not progress.is_over:
                passes = self._next_passes()
                if passes is None:
                    message = "the data was used up"
                    break
                stop = self._step(passes)
                if stop:
                    return self._finish("Stopped", stop)
                due = self._config.training.eval_every
                if due and progress.step % due == 0 and (stop := self._evaluate()):
                    return self._finish("Stopped", stop)
                due = self._config.checkpoint.every_steps
                if due and progress.step % due == 0 and progress.step < self._total_steps:
                    self._save()
            if not self._config.training.eval_every or progress.step % self._config.training.eval_every:
                self._evaluate()
        return self._finish("Succeeded", message)

    def _step(self, passes: _Passes) -> str:
        """One optimizer step; the reason to stop, or nothing."""
        parts, progress = self._parts, self.progress
        strategy = parts.strategy
        parts.meter.begin()
        step = progress.step + 1
        rate = schedule.learning_rate(self._config.optimizer, step, self._total_steps)
        parts.optimizer.set_learning_rate(rate)
        counts = torch.tensor(
            [passes.num_terms, passes.num_tokens, self._should_stop()], dtype=torch.float64, device=strategy.device
        )
        total_terms, total_tokens, wants_stop = strategy.sum(counts).tolist()
        loss_sum, metrics = self._passes(passes, max(total_terms, 1.0))
        names = sorted(metrics)
        sums = strategy.sum(torch.stack([loss_sum, *(metrics[name] for name in names)]).double()).tolist()
        loss = sums[0] / total_terms if total_terms else math.nan
        decisions: list[policy.Decision] = []

        def accept(norm: float) -> bool:
            decisions.append(self._policy.judge(step, loss, norm))
            return isinstance(decisions[0], policy.Proceed)

        norm = strategy.step(self._config.optimizer.max_grad_norm, accept)
        seconds, per_second = parts.meter.end(int(total_tokens))
        progress.num_tokens += int(total_tokens)
        progress.num_trained_tokens += int(total_terms)
        if stop := self._carry_out(decisions[0]):
            return stop
        if isinstance(decisions[0], policy.RollBack):
            return ""
        progress.step = step
        progress.last_loss = loss
        self._record_step(
            loss, norm, rate, (int(total_tokens), seconds, per_second), dict(zip(names, sums[1:], strict=True))
        )
        return "stopped on request" if wants_stop else ""

    def _passes(self, passes: _Passes, total_terms: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Forward and backward of each batch; the summed loss and metrics of this process."""
        strategy = self._parts.strategy
        losses = torch.zeros((), dtype=torch.float32, device=strategy.device)
        metrics: dict[str, torch.Tensor] = {}
        for position, batch in enumerate(passes.batches):
            loss, more = self._parts.objective.loss(batch.to(strategy.device))
            strategy.backward(loss / total_terms, is_last=position == len(passes.batches) - 1)
            losses += loss.detach()
            for name, value in more.items():
                mean = value.detach() / total_terms
                metrics[name] = metrics[name] + mean if name in metrics else mean
        return losses, metrics

    def _carry_out(self, decision: policy.Decision) -> str:
        """The reason to stop, or nothing. Raises DivergedError."""
        if decision.alert is not None:
            self._parts.recorder.record(decision.alert)
        if isinstance(decision, policy.Stop):
            if decision.diverged:
                raise errors.DivergedError(decision.reason)
            return decision.reason
        if isinstance(decision, policy.RollBack):
            self._roll_back(decision)
        return ""

    def _roll_back(self, decision: policy.RollBack) -> None:
        """Weights and states of the last checkpoint; the data goes on behind what led to trouble."""
        checkpoints, before = self._parts.checkpoints, self.progress
        checkpoints.wait()
        newest = checkpoints.newest()
        if newest is None:
            raise errors.DivergedError(
                f"{decision.reason}; there is no checkpoint to go back to (checkpoint.every_steps)"
            )
        self._load(newest)
        self.progress.epoch = before.epoch
        message = f"back at step {self.progress.step}, with the data that follows: {decision.reason}"
        self._parts.recorder.record(Alert(self.progress.step, "RolledBack", message))

    def _record_step(
        self, loss: float, norm: float, rate: float, speed: tuple[int, float, float], metrics: Mapping[str, float]
    ) -> None:
        parts, step = self._parts, self.progress.step
        num_tokens, seconds, per_second = speed
        parts.checkpoints.report()
        for alert in parts.data_alerts(step):
            parts.recorder.record(alert)
        parts.recorder.record(
            Stepped(
                step=step,
                loss=loss,
                grad_norm=norm,
                learning_rate=rate,
                num_tokens=num_tokens,
                seconds=seconds,
                tokens_per_second=per_second,
                mfu=parts.meter.mfu(per_second),
                memory_bytes=parts.meter.memory_bytes(),
                eta_seconds=parts.meter.eta_seconds(self._total_steps - step),
                epoch=step / parts.steps_per_epoch if parts.steps_per_epoch else float(self.progress.epoch),
                metrics=metrics,
            )
        )

    @torch.no_grad()
    def _evaluate(self) -> str:
        """The validation loss; the reason to stop, or nothing."""
        parts, progress = self._parts, self.progress
        if parts.validation is None:
            return ""
        parts.model.eval()
        start = parts.validation.state()
        sums = torch.zeros(2, dtype=torch.float64, device=parts.strategy.device)
        limit = self._config.training.eval_batches
        seen = 0
        while (not limit or seen < limit) and (batch := parts.validation.next()) is not None:
            loss, _ = parts.objective.loss(batch.to(parts.strategy.device))
            sums += torch.stack([loss.double(), torch.tensor(parts.objective.count(batch)).to(sums)])
            seen += 1
        parts.validation.restore(start)
        parts.model.train()
        total, terms = parts.strategy.sum(sums).tolist()
        if not terms:
            raise errors.DatasetError(
                "the validation data has no token to judge by: "
                "add rows to data.validation, or raise data.validation_share"
            )
        progress.validation_loss = total / terms
        decision = self._policy.judge_evaluation(progress.step, progress.validation_loss)
        is_best = isinstance(decision, policy.Proceed | policy.Stop) and decision.is_best
        if is_best:
            progress.best_validation_loss = progress.validation_loss
        parts.recorder.record(Evaluated(progress.step, progress.validation_loss, int(terms), is_best))
        return self._carry_out(decision)

    def _next_passes(self) -> _Passes | None:
        """The batches of the next step; passes over the data follow each other. None: there are no more."""
        train, passes = self._parts.train, _Passes()
        while len(passes.batches) < self._config.training.gradient_accumulation:
            batch = train.next()
            if batch is None:
                self.progress.epoch += 1
                if self._has_enough_epochs():
                    break
                train.next_epoch()
                batch = train.next()
                if batch is None:
                    raise errors.DatasetError(
                        "the training data gives no batch: see data.train, and the rows that were left out"
                    )
            passes.batches.append(batch)
            passes.num_terms += self._parts.objective.count(batch)
            passes.num_tokens += batch.num_tokens
        return passes if passes.batches else None

    def _has_enough_epochs(self) -> bool:
        training = self._config.training
        return not training.max_steps and self.progress.epoch >= training.epochs

    def _finish(self, outcome: Literal["Succeeded", "Stopped"], message: str) -> Outcome:
        self.progress.is_over = outcome == "Succeeded" and self._has_enough_epochs()
        self._save()
        self._parts.checkpoints.wait()
        return Outcome(outcome, message, self.progress)

    def _save(self) -> None:
        parts, progress = self._parts, self.progress
        loss = progress.validation_loss
        parts.checkpoints.save(
            checkpoint_state.RunState(
                step=progress.step,
                model=parts.strategy.model_state(),
                optimizer=parts.strategy.optimizer_state(),
                local={"randomness": randomness.state()},
                shared={
                    "progress": progress.to_dict(),
                    "data": dict(parts.train.state()),
                    "policy": self._policy.state(),
                },
            ),
            validation_loss=loss if math.isfinite(loss) else None,
        )

    def _load(self, checkpoint: finding.Checkpoint) -> Mapping[str, Any]:
        loaded = self._parts.checkpoints.load(checkpoint, self._parts.strategy)
        self.progress = Progress.from_dict(loaded.shared["progress"])
        self._policy.restore(loaded.shared["policy"])
        if "randomness" in loaded.local:
            randomness.restore(loaded.local["randomness"])
        return loaded.shared


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
