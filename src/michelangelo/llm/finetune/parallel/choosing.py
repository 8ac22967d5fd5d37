"""Which strategy a configuration asks for, in a process that is one of `num_workers`.

Processes are started by `launching`, or by anything else that sets up torch.distributed.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.strategy import SingleProcess, Strategy

__all__ = ["make"]


def make(config: FinetuneConfig, *, device: torch.device) -> Strategy:
    """Raises SettingsError if the processes are not those of the configuration."""
    wanted = config.parallel
    started = dist.get_world_size() if dist.is_initialized() else 1
    if started == 1:
        return SingleProcess(device)
    raise errors.SettingsError(f"parallel.num_workers {wanted.num_workers}: {started} processes were started")
