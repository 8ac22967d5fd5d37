"""State of one process as JSON: what JSON has, and small tensors (states of random generators) in base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import torch

from michelangelo import errors

__all__ = ["decode", "encode"]

_TENSOR: Final = "$tensor"


def encode(state: Mapping[str, Any]) -> bytes:
    """Raises TypeError for what is neither JSON nor a tensor."""
    return json.dumps(state, default=_describe).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Raises CheckpointError."""
    try:
        found: dict[str, Any] = json.loads(data, object_hook=_restore)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as e:
        raise errors.CheckpointError(f"the state of a process cannot be understood: {e}") from e
    return found


def _describe(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{type(value).__name__} is neither JSON nor a tensor")
    host = value.detach().cpu().contiguous()
    data = base64.b64encode(host.reshape(-1).view(torch.uint8).numpy().tobytes()).decode()
    return {_TENSOR: data, "dtype": str(host.dtype).removeprefix("torch."), "shape": list(host.shape)}


def _restore(found: dict[str, Any]) -> Any:
    if _TENSOR not in found:
        return found
    data = bytearray(base64.b64decode(found[_TENSOR]))
    dtype: torch.dtype = getattr(torch, found["dtype"])
    if not data:
        return torch.empty(found["shape"], dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(found["shape"])
