"""What to do when a loss is no number or jumps, and when enough is learned: decisions only, from numbers only.

The trainer carries them out: it skips, rolls back and stops. What went wrong is judged by the median and the median
absolute deviation of the last losses (robust: a spike does not hide the next one). All memory is in `state()`, so that
a resumed run decides as the uninterrupted one would.
"""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from michelangelo.llm.finetune.config import PolicyConfig
from michelangelo.llm.finetune.recording import Alert

__all__ = ["Decision", "Policy", "Proceed", "RollBack", "Skip", "Stop"]

_MIN_HISTORY: Final = 8
"""Losses before a spike can be told from the fall at the beginning."""
_NORMAL: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation, 1 / Φ⁻¹(3/4)."""
_MIN_DEVIATION: Final = 0.01
"""Of the median: losses that hardly vary make no spike of a small change."""
_NORM_FACTOR: Final = 10.0
_CHECK: Final = (
    "check the learning rate (a tenth of it, or some warm-up steps), the precision (training.precision: fp32 shows "
    "whether it is numerical), the data (empty or garbled rows) and the labels (rows in which every label is ignored)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed:
    """Apply the step; after an evaluation, go on."""

    alert: Alert | None = None
    is_best: bool = False
    """Of an evaluation: the lowest loss up to now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Leave the step's gradients out, and take the next batch."""

    reason: str
    alert: Alert | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Return to the last checkpoint, with the data behind the step that went wrong."""

    reason: str
    alert: Alert | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End the run: as DivergedError(reason) where it `diverged`, otherwise because it learns no more."""

    reason: str
    diverged: bool
    alert: Alert | None = None
    is_best: bool = False


Decision: TypeAlias = Proceed | Skip | RollBack | Stop


class Policy:
    """Judges every step and every evaluation of one run, in order."""

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._losses: collections.deque[float] = collections.deque(maxlen=config.spike_window)
        self._norms: collections.deque[float] = collections.deque(maxlen=config.spike_window)
        self._skips = 0
        self._roll_backs = 0
        self._trouble = 0
        """The furthest step that was rolled back."""
        self._is_rolling = False
        self._was_spike = False
        self._was_steep = False
        self._best: float | None = None
        self._reference: float | None = None
        """The evaluation that the next ones must improve on."""
        self._stale = 0

    def judge(self, step: int, loss: float, grad_norm: float) -> Decision:
        """Loss in nats per trained token and the norm of the gradients before clipping; one that is not finite counts
        as NaN."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return self._react(step, self._config.on_nan, "NotANumber", self._nan_reason(step, loss, grad_norm))
        spike = self._spike_reason(step, loss, grad_norm)
        alert = None
        if spike and self._config.on_spike != "warn":
            return self._react(step, self._config.on_spike, "LossSpike", spike)
        if spike and not self._was_spike:
            alert = Alert(step, "LossSpike", spike)
        steep = self._steep_reason(step, grad_norm)
        if steep and not self._was_steep and alert is None:
            alert = Alert(step, "GradientNorm", steep)
        self._accept(step, loss, grad_norm, is_spike=bool(spike), is_steep=bool(steep))
        return Proceed(alert=alert)

    def judge_evaluation(self, step: int, loss: float) -> Decision:
        """The validation loss: is it the best, and is it time to stop."""
        is_best = math.isfinite(loss) and (self._best is None or loss < self._best)
        if is_best:
            self._best = loss
        needed = self._config.early_stop_improvement
        if math.isfinite(loss) and (
            self._reference is None or (loss < self._reference and self._reference - loss >= needed)
        ):
            self._reference, self._stale = loss, 0
        else:
            self._stale += 1
        alert = None
        if not math.isfinite(loss):
            alert = Alert(step, "NotANumber", f"the validation loss of step {step} is {loss}: {_CHECK}")
        limit = self._config.early_stop_evaluations
        if limit and self._stale >= limit:
            best = "no number yet" if self._reference is None else f"{self._reference:.4f}"
            reason = (
                f"stopped early at step {step}: {self._stale} evaluations in a row have not improved on the validation "
                f"loss {best} by at least {needed:g}"
            )
            return Stop(reason=reason, diverged=False, alert=alert, is_best=is_best)
        return Proceed(alert=alert, is_best=is_best)

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "skips": self._skips,
            "roll_backs": self._roll_backs,
            "trouble": self._trouble,
            "was_spike": self._was_spike,
            "was_steep": self._was_steep,
            "best": self._best,
            "reference": self._reference,
            "stale": self._stale,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`. After a decision to roll back, what led to it stays known: a checkpoint from before
        the trouble must not make the run forget it, or it would roll back for ever."""
        self._losses = collections.deque(map(float, state["losses"]), self._config.spike_window)
        self._norms = collections.deque(map(float, state["norms"]), self._config.spike_window)
        if not self._is_rolling:
            self._roll_backs = int(state["roll_backs"])
            self._trouble = int(state["trouble"])
        self._is_rolling = False
        self._skips = int(state["skips"])
        self._was_spike, self._was_steep = bool(state["was_spike"]), bool(state["was_steep"])
        self._best, self._reference = state["best"], state["reference"]
        self._stale = int(state["stale"])

    def _accept(self, step: int, loss: float, grad_norm: float, *, is_spike: bool, is_steep: bool) -> None:
        self._losses.append(loss)
        self._norms.append(grad_norm)
        self._skips = 0
        self._is_rolling = False
        self._was_spike, self._was_steep = is_spike, is_steep
        if step >= self._trouble:
            self._roll_backs = 0

    def _react(
        self, step: int, wanted: Literal["stop", "skip", "roll_back"], kind: str, reason: str
    ) -> Skip | RollBack | Stop:
        limit = self._config.max_skips
        alert = Alert(step, kind, reason)
        if wanted == "skip" and self._skips < limit:
            self._skips += 1
            return Skip(reason=reason, alert=alert)
        if wanted == "roll_back" and self._losses and self._roll_backs < limit:
            self._roll_backs += 1
            self._trouble = max(self._trouble, step)
            self._is_rolling = True
            return RollBack(reason=reason, alert=alert)
        if wanted == "skip":
            reason = f"{reason}; {limit} steps in a row were skipped before (policy.max_skips)"
        elif wanted == "roll_back" and self._losses:
            where = f"never came past step {self._trouble} (policy.max_skips)"
            reason = f"{reason}; the run was rolled back {limit} times and {where}"
        return Stop(reason=reason, diverged=True, alert=alert)

    def _nan_reason(self, step: int, loss: float, grad_norm: float) -> str:
        what = f"loss is {loss}" if not math.isfinite(loss) else f"norm of the gradients is {grad_norm}"
        if not self._losses:
            return f"the {what} from the first step on, so nothing was learned: {_CHECK}"
        return f"the {what} at step {step} (the loss was {statistics.median(self._losses):.4f} before): {_CHECK}"

    def _spike_reason(self, step: int, loss: float, grad_norm: float) -> str:
        """Empty: no spike."""
        if len(self._losses) < _MIN_HISTORY:
            return ""
        median = statistics.median(self._losses)
        spread = statistics.median(abs(one - median) for one in self._losses)
        deviation = max(_NORMAL * spread, _MIN_DEVIATION * abs(median))
        if deviation <= 0.0 or loss <= median + self._config.spike_deviations * deviation:
            return ""
        return (
            f"the loss {loss:.4f} of step {step} is {(loss - median) / deviation:.1f} deviations above the median "
            f"{median:.4f} of the last {len(self._losses)} steps (norm of the gradients {grad_norm:.3g})"
        )

    def _steep_reason(self, step: int, grad_norm: float) -> str:
        """Empty: an ordinary norm."""
        limit = self._config.grad_norm_alert
        said = "policy.grad_norm_alert"
        if not limit:
            if len(self._norms) < _MIN_HISTORY:
                return ""
            limit = _NORM_FACTOR * statistics.median(self._norms)
            said = f"{_NORM_FACTOR:g} times the median of the last {len(self._norms)} steps"
        if grad_norm <= limit or limit <= 0.0:
            return ""
        return f"the norm of the gradients at step {step} is {grad_norm:.3g}, more than {limit:.3g} ({said})"
