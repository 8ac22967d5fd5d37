"""Label, annotation and finalizer keys, and marks in names, that have a meaning, in one place. It holds names only.

Upstream's keys are kept (`michelangelo/worker_queue` …); ours follow the same prefix.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CACHE_ARGUMENTS",
    "CACHE_CLAIM",
    "CACHE_CODE",
    "DRIVER",
    "PARENT_RUN",
    "PIPELINE",
    "PIPELINE_RUN",
    "REPAIR_MARK",
    "REVISION",
    "SIGNAL",
    "SPEC_UPDATE_TIMESTAMP",
    "TASK",
    "UNIFLOW_CACHE_VERSION",
    "UNIFLOW_INPUT_HASH",
    "UNIFLOW_TASK_PATH",
    "UPDATE_TIMESTAMP",
    "WORKER_QUEUE",
]

CACHE_ARGUMENTS: Final = "michelangelo/cache-arguments"
"""Label on CachedOutputs: the beginning of the digest of the arguments."""
CACHE_CLAIM: Final = "michelangelo/cache-claim"
"""Label on the Leases by which a run says that it computes what others wait for: the beginning of the key."""
CACHE_CODE: Final = "michelangelo/cache-code"
"""Label on CachedOutputs: the beginning of the digest of the code."""
DRIVER: Final = "michelangelo/driver"
"""Annotation on a PipelineRun that its creator drives itself: the creator's identity (`runtime.processes`), so that no
controller starts a driver in the moment between the creation and the creator's lease."""
PARENT_RUN: Final = "michelangelo/parent-run"
"""Label on PipelineRuns that another run started and waits for: that run."""
PIPELINE: Final = "pipeline.michelangelo/name"
"""Label on Revisions and PipelineRuns: the pipeline they belong to."""
REVISION: Final = "michelangelo/revision"
PIPELINE_RUN: Final = "michelangelo/pipeline-run"
"""Label on TaskRuns and Signals: the run that they belong to; on CachedOutputs: the run that made them."""
REPAIR_MARK: Final = "~again"
"""In the identity of a TaskRun's step: an extra run that makes lost data again, which no workflow has called."""
TASK: Final = "michelangelo/task"
"""Label on TaskRuns and CachedOutputs: the task's name."""
SIGNAL: Final = "michelangelo/signal"
"""Label on Signals and on the TaskRuns that wait for one: the signal's name."""
WORKER_QUEUE: Final = "michelangelo/worker_queue"
UPDATE_TIMESTAMP: Final = "michelangelo/UpdateTimestamp"
SPEC_UPDATE_TIMESTAMP: Final = "michelangelo/SpecUpdateTimestamp"
UNIFLOW_TASK_PATH: Final = "michelangelo/uniflow-task-path"
UNIFLOW_INPUT_HASH: Final = "michelangelo/uniflow-input-hash"
UNIFLOW_CACHE_VERSION: Final = "michelangelo/uniflow-cache-version"
