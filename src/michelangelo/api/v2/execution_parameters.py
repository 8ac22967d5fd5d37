"""The arguments of one execution of a pipeline: a part of Pipeline, Trigger and PipelineRun."""

from __future__ import annotations

from typing import Any

from michelangelo.meta.document import Document, FreeForm

__all__ = ["PipelineExecutionParameters"]


class PipelineExecutionParameters(Document):
    """What a pipeline is run with. Keys inside the maps are the user's and are kept literally."""

    parameter_map: dict[str, str] | None = None
    """Values by parameter name, as text."""
    environ: dict[str, str] | None = None
    """Environment variables of the workflow and of its tasks."""
    args: list[Any] | None = None
    """Positional arguments of the workflow function."""
    kw_args: FreeForm | None = None
    """Keyword arguments of the workflow function."""
    workflow_config: FreeForm | None = None
    """Settings of a workflow that is written in YAML."""
    task_configs: dict[str, FreeForm] | None = None
    """Settings of single tasks of a workflow that is written in YAML, by task name."""
