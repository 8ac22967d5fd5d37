"""Starting the processes of a run: none beside this one, several on this machine, or workers of a Ray cluster.

Every process calls the same function with the same arguments, after it has met the others; what the first one returns
is the result. It knows no training.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.parallel import choosing, local_processes, on_ray

__all__ = ["Entry", "launch", "launcher_of", "resolve"]

Entry: TypeAlias = Callable[..., Any] | str
"""Called as `entry(config, *arguments, should_stop=...)`: a function that every process can import, or
`module:function`. `should_stop` says whether a person asked for the end."""


def launch(
    config: FinetuneConfig, entry: Entry, *arguments: Any, should_stop: Callable[[], bool] = lambda: False
) -> Any:
    """Calls `entry` in every process; what it returned in the first one. `should_stop` is asked in this process.

    A process that dies ends the others. Raises what the first one to fail raised, if that is one of ours, else
    LlmError; SettingsError before anything is started where so many workers cannot be had.
    """
    parallel = config.parallel
    launcher = launcher_of(config)
    choosing.check(config, num_workers=parallel.num_workers)
    if launcher == "ray":
        return on_ray.run(config, resolve(entry), arguments, should_stop)
    if launcher == "none" or parallel.num_workers == 1:
        return _run_here(config, resolve(entry), arguments, should_stop)
    uses_gpus = _uses_gpus(config)
    _check_gpus(config, uses_gpus=uses_gpus)
    return local_processes.run(
        parallel.num_workers, uses_gpus, resolve(entry), (config, *arguments), should_stop=should_stop
    )


def launcher_of(config: FinetuneConfig) -> Literal["none", "local", "ray"]:
    """What `auto` amounts to."""
    parallel = config.parallel
    if parallel.launcher != "auto":
        return parallel.launcher
    if parallel.ray_address:
        return "ray"
    return "local" if parallel.num_workers > 1 else "none"


def resolve(entry: Entry) -> Callable[..., Any]:
    """Raises SettingsError for a name that is none."""
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise errors.SettingsError(f"{entry}: is no function that can be imported (module:function): {e}") from e
    return found


def _run_here(
    config: FinetuneConfig, entry: Callable[..., Any], arguments: tuple[Any, ...], should_stop: Callable[[], bool]
) -> Any:
    """In this process, which is alone, or one of those that another program started."""
    there = dist.get_world_size() if dist.is_initialized() else 1
    wanted = config.parallel.num_workers
    if there != wanted:
        raise errors.SettingsError(
            f"parallel.launcher none: {wanted} workers are asked for, and {there} process"
            f"{' is' if there == 1 else 'es are'} there; use launcher local or ray, or num_workers {there}"
        )
    return entry(config, *arguments, should_stop=should_stop)


def _uses_gpus(config: FinetuneConfig) -> bool:
    return config.training.device == "cuda" or (config.training.device == "auto" and torch.cuda.is_available())


def _check_gpus(config: FinetuneConfig, *, uses_gpus: bool) -> None:
    there, wanted = torch.cuda.device_count(), config.parallel.num_workers
    if uses_gpus and there < wanted:
        raise errors.SettingsError(
            f"parallel.num_workers: {wanted} workers need a GPU each, and this machine has {there}; take num_workers "
            f"{max(there, 1)}, launcher ray on a cluster, or training.device: cpu"
        )
