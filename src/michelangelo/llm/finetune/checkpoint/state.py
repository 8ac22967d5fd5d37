"""What a checkpoint holds: the state of a run at one step. It knows no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LoadedState", "RunState"]


@dataclass(frozen=True, slots=True)
class RunState:
    """What one process gives. Tensors are not copied: `CheckpointStore.save` reads them before it returns."""

    step: int
    model: Mapping[str, Any]
    """Tensors or DTensors by name; replicated ones are written once."""
    optimizer: Mapping[str, Any]
    local: Mapping[str, Any]
    """Of this process only: JSON values and small tensors (states of random generators)."""
    shared: Mapping[str, Any]
    """The same in all processes, JSON values: position in the data, counters, the policy's memory."""


@dataclass(frozen=True, slots=True)
class LoadedState:
    """What is left to restore after the tensors were loaded in place. Tuples come back as lists."""

    step: int
    local: Mapping[str, Any]
    """Empty for a process that the saved run did not have."""
    shared: Mapping[str, Any]
