"""The locks of a workflow's requirements, made before its run or its revision exists.

Which requirements there are is read from the loaded modules: the tasks in the variables of the workflow's own files.
A workflow without any pays for one look at the loaded modules, and neither uv nor its callers are loaded.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from michelangelo.app.settings import Settings
from michelangelo.blobs.blob_store import Blob
from michelangelo.engine.environments import lock_name
from michelangelo.uniflow.source_tree import SourceTree
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow

if TYPE_CHECKING:
    from michelangelo.executors.environments import Environments, KeptEnvironment

__all__ = ["Put", "kept", "locked", "prune", "requirements_of"]

_OF_S3: Final = ("botocore>=1.36,<2",)
Put = Callable[[bytes], Blob]


def locked(
    workflow: Workflow[..., Any], tree: SourceTree, settings: Settings, put: Put, *, upgrade: bool = False
) -> dict[str, Any]:
    """`manifest.environments`: `{name: {requirements, packages, lock}}`; empty where no task has requirements. `put`
    stores a lock as a blob. With `upgrade`, newest versions rather than those that were chosen here before. Raises
    RequirementsError with the resolver's words, before anything is stored."""
    wanted = requirements_of(workflow, tree)
    if not wanted:
        return {}
    settings.prepare_home()
    environments = importlib.import_module("michelangelo.executors.environments")
    folder = str(settings.environments)
    # The worker opens the blob store itself.
    storage = _OF_S3 if settings.storage_url.startswith("s3:") else ()
    locks = {
        requirements: environments.resolve([*requirements, *storage], folder, upgrade=upgrade)
        for requirements in wanted
    }
    return {
        lock_name(requirements): {
            "requirements": list(requirements),
            "packages": [line.partition(" ")[0] for line in lock],
            "lock": put("\n".join(lock).encode()).digest,
        }
        for requirements, lock in locks.items()
    }


def kept(settings: Settings) -> list[KeptEnvironment]:
    """The environments of this home, the last used first."""
    return _environments(settings).kept()


def prune(settings: Settings, unused_seconds: float) -> list[KeptEnvironment]:
    """Remove those, and the locks, that were not used for that long; returns the environments that went."""
    return _environments(settings).prune(unused_seconds)


def _environments(settings: Settings) -> Environments:
    module = importlib.import_module("michelangelo.executors.environments")
    return cast("Environments", module.Environments(str(settings.environments)))


def requirements_of(workflow: Workflow[..., Any], tree: SourceTree) -> list[tuple[str, ...]]:
    """What the tasks in the loaded files of the workflow ask for, each once."""
    files = {os.path.realpath(os.path.join(tree.root, name)) for name in tree.files if name.endswith(".py")}
    found: dict[tuple[str, ...], None] = {}
    for variables in (workflow.fn.__globals__, *_variables(files)):
        for task in _tasks(variables.values()):
            if task.options.requirements:
                found[task.options.requirements] = None
    return sorted(found)


def _variables(files: set[str]) -> Iterator[Mapping[str, Any]]:
    """Of the modules that were loaded from these files."""
    names = {os.path.basename(file) for file in files}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and os.path.basename(file) in names and os.path.realpath(file) in files:
            yield dict(vars(module))


def _tasks(values: Iterable[Any]) -> Iterator[Task[..., Any]]:
    """Tasks, also those in lists, tuples and dicts."""
    for value in list(values):
        if isinstance(value, Task):
            yield value
        elif isinstance(value, Mapping):
            yield from (one for one in list(value.values()) if isinstance(one, Task))
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            yield from (one for one in value if isinstance(one, Task))
