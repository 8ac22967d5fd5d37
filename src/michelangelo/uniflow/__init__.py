"""The SDK that users write pipelines with: `from michelangelo import uniflow`.

    @uniflow.task
    def train(data: pd.DataFrame, depth: int) -> Model: ...

    @uniflow.workflow
    def pipeline(n: int = 3) -> Model: ...

    if __name__ == "__main__":
        uniflow.main(pipeline)

Importing this is cheap: what a workflow may never use is imported when its name is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from michelangelo.uniflow import task_context
from michelangelo.uniflow.config import InProcess, Process, TaskConfig
from michelangelo.uniflow.future import Future, FutureList, as_completed, wait
from michelangelo.uniflow.image_spec import ImageSpec
from michelangelo.uniflow.ref import Ref
from michelangelo.uniflow.retry import Retry
from michelangelo.uniflow.secret import Secret
from michelangelo.uniflow.task import Task, TaskOptions, task
from michelangelo.uniflow.workflow import Workflow, workflow

if TYPE_CHECKING:
    from michelangelo.uniflow.codecs.registry import register_codec
    from michelangelo.uniflow.files import Directory, File
    from michelangelo.uniflow.journaled import now, random, sleep, uuid, wait_for_signal
    from michelangelo.uniflow.pipelines import run_pipeline, submit_pipeline
    from michelangelo.uniflow.script import main, run

__all__ = [
    "Directory",
    "File",
    "Future",
    "FutureList",
    "ImageSpec",
    "InProcess",
    "Process",
    "Ref",
    "Retry",
    "Secret",
    "Task",
    "TaskConfig",
    "TaskOptions",
    "Workflow",
    "as_completed",
    "main",
    "now",
    "random",
    "register_codec",
    "run",
    "run_pipeline",
    "sleep",
    "submit_pipeline",
    "task",
    "task_context",
    "uuid",
    "wait",
    "wait_for_signal",
    "workflow",
]

_LAZY: Final = {
    "Directory": "files",
    "File": "files",
    "main": "script",
    "now": "journaled",
    "random": "journaled",
    "register_codec": "codecs.registry",
    "run": "script",
    "run_pipeline": "pipelines",
    "sleep": "journaled",
    "submit_pipeline": "pipelines",
    "uuid": "journaled",
    "wait_for_signal": "journaled",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
