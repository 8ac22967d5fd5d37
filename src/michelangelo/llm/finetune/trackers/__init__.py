"""Trackers of experiments as sinks of a run's events: MLflow, Comet, TensorBoard, Weights & Biases.

making       which tracker a configuration means
background   a thread and a bounded queue, so that a slow tracker never slows training
tracker_run  what every tracker can do
values       events as parameters and metrics
mlflow, comet, tensorboard, wandb
"""

from __future__ import annotations

from michelangelo.llm.finetune.trackers.making import make

__all__ = ["make"]
