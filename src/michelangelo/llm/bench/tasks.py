"""From what a user asks to what an experiment is told: which device, how much of its memory, which model.

Everything that cannot be is refused here, before a prediction is made.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

import psutil
import torch

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.bench import experiments, tiny
from michelangelo.llm.bench.experiment import Task
from michelangelo.llm.finetune import prediction

__all__ = ["DeviceKind", "make", "parse_bytes", "resolve_device"]

DeviceKind = Literal["auto", "cpu", "cuda"]
_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)
_TINY_CAPACITY: Final = 48 << 20
"""What the tiny model may take on a CPU: so that a search for the largest batch ends soon."""
_CPU_SHARE: Final = 0.5
"""Of the memory that is free, for any other model."""


def make(
    name: str,
    *,
    folder: Path,
    model: str = "",
    device: DeviceKind = "auto",
    memory_cap: str = "",
    quick: bool = False,
    minutes: float = 0.0,
) -> Task:
    """Without a model: on a GPU the experiment's, on a CPU a tiny one, which is written into `folder`.

    Raises SettingsError with everything that is wrong; ModelError for a model that is none.
    """
    entry = _entry(name)
    found = resolve_device(device)
    cap = parse_bytes(memory_cap) if memory_cap else 0
    is_tiny = not model and (found.type == "cpu" or not entry.model)
    if is_tiny:
        chosen = str(tiny.write(folder / "model"))
    else:
        chosen = model or entry.model
        chosen = str(Path(chosen).absolute()) if Path(chosen).exists() else chosen
    model_shape.load(chosen)
    has = _memory_of(found, is_tiny=is_tiny)
    return Task(
        model=chosen,
        device="cuda" if found.type == "cuda" else "cpu",
        device_name=prediction.device_name(found),
        capacity_bytes=min(has, cap) if cap else has,
        is_capped=bool(cap) and cap < has,
        quick=quick,
        minutes=minutes or (0.5 if quick else entry.minutes),
        folder=folder,
    )


def resolve_device(wanted: DeviceKind) -> torch.device:
    """Raises SettingsError if a GPU is wanted and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise errors.SettingsError(
            "device cuda: PyTorch sees no GPU here; use --device cpu, or install a CUDA build of PyTorch"
        )
    return torch.device("cuda", 0) if wanted != "cpu" and torch.cuda.is_available() else torch.device("cpu")


def parse_bytes(text: str) -> int:
    """`80GB` (10^9), `80GiB` (2^30), `512M`, or a number of bytes. Raises SettingsError."""
    match = _SIZE.fullmatch(text)
    size = round(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size <= 0:
        raise errors.SettingsError(f"memory cap {text!r}: is no size; write it as 80GB, 80GiB or 512MB")
    return size


def _entry(name: str) -> experiments.Entry:
    experiments.load(name)
    return experiments.ALL[name]


def _memory_of(device: torch.device, *, is_tiny: bool) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _TINY_CAPACITY if is_tiny else int(_CPU_SHARE * psutil.virtual_memory().available)
