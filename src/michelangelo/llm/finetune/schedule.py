"""The course of the learning rate over a run, as a pure function of the step: nothing to save, nothing to resume.

It knows no optimizer. Shapes: a linear warm-up to the peak, then constant, linear, cosine, or "warm-up, stable, decay"
(arXiv 2404.06395), which holds the peak and falls linearly at the end.
"""

from __future__ import annotations

import math

from michelangelo.llm.finetune.config import OptimizerConfig

__all__ = ["learning_rate"]


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 1 to `total_steps`, as events count them.

    The peak is reached at step `warmup_steps` (the first step already learns), `final_share` of it at `total_steps`,
    and kept afterwards. A warm-up longer than the run rises for all of it. Raises ValueError on counts that cannot be.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: steps are counted from 1")
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    return config.learning_rate * _share(config, min(step, total_steps), total_steps)


def _share(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Of the peak, after the warm-up."""
    falling = total_steps - config.warmup_steps
    if config.schedule == "wsd":
        falling = min(falling, round(config.decay_share * total_steps))
    if config.schedule == "constant" or falling <= 0:
        return 1.0
    progress = max(0.0, 1.0 - (total_steps - step) / falling)
    left = 0.5 * (1.0 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1.0 - progress
    return config.final_share + (1.0 - config.final_share) * left
