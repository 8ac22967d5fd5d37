"""Every source of chance in a training process: seeded together, kept in checkpoints, put back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["restore", "seed", "state"]


def seed(value: int, rank: int = 0) -> None:
    """Each process has its own course of chance (dropout), derived from one seed."""
    mixed = (value * 1_000_003 + rank) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def state() -> dict[str, Any]:
    """Of this process: JSON values and uint8 tensors."""
    version, words, position = random.getstate()
    name, keys, index, has_gauss, gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(words), position],
        "numpy": [name, [int(key) for key in keys], int(index), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore(states: Mapping[str, Any]) -> None:
    """What `state` gave, on this or another process of the same kind."""
    version, words, position = states["python"]
    random.setstate((version, tuple(words), position))
    name, keys, index, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), index, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
