"""Upstream's place of `run_pipeline`."""

from __future__ import annotations

from michelangelo.uniflow.plugins.pipeline.runs import run_pipeline

__all__ = ["run_pipeline"]
