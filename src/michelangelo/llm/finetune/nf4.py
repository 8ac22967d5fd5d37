"""Weights in 4 bits (NF4): packing them, and getting them back a matrix at a time.

The kernels are those of bitsandbytes, on a CPU and on a GPU. What is packed are plain tensors in a fixed order, so that
they can lie in a module under the parameter's name and be arguments of an operator. Which parameters are packed is
decided in `quantization`.

Format (Dettmers et al., QLoRA, arXiv 2305.14314, section 3): blocks of 64 values share one scale, the largest magnitude
in them; each value is the nearest of 16 quantiles of a normal distribution. With double quantisation the scales, less
their mean, are kept in 8 bits, in blocks of 256 that share a scale in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, cast

import bitsandbytes.functional
import torch
from torch import nn

__all__ = [
    "BLOCK",
    "PARTS",
    "SCALE_BLOCK",
    "bytes_of",
    "dequantize",
    "is_packed",
    "pack",
    "parts_of",
    "quantize",
    "shape_of",
    "unpack",
]

BLOCK: Final = 64
"""Weights that share a scale."""
SCALE_BLOCK: Final = 256
"""Scales that share a scale of scales."""
PARTS: Final = ("packed", "scales", "scale_scales", "scale_offset")
"""Names of what `quantize` gives, in its order; the last two with double quantisation only."""


def quantize(weight: torch.Tensor, *, double: bool) -> list[torch.Tensor]:
    """weight: [..., N] floating, N even → packed uint8 [..., N / 2]; scales [blocks], fp32, or with `double` uint8; and
    then scale_scales [blocks / 256] fp32 and scale_offset [] fp32. Raises ValueError if N is odd."""
    if weight.shape[-1] % 2:
        raise ValueError(f"rows of {weight.shape[-1]} values cannot be packed two in a byte")
    packed, scales = torch.ops.bitsandbytes.quantize_4bit(weight.contiguous(), BLOCK, "nf4", torch.uint8)
    packed = packed.view(*weight.shape[:-1], weight.shape[-1] // 2)
    scales = scales.float()
    if not double:
        return [packed, scales]
    offset = scales.mean()
    in_bytes, scale_scales = torch.ops.bitsandbytes.quantize_blockwise(
        scales - offset, _byte_map(scales.device), SCALE_BLOCK
    )
    return [packed, in_bytes, scale_scales.float(), offset]


def dequantize(parts: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The weight again, [..., N] in `dtype`."""
    packed, scales = parts[0], parts[1]
    if len(parts) > 2:
        scales = torch.ops.bitsandbytes.dequantize_blockwise(
            scales, parts[2], _byte_map(packed.device), SCALE_BLOCK, torch.float32
        )
        scales = scales + parts[3]
    shape = [*packed.shape[:-1], packed.shape[-1] * 2]
    dense = torch.ops.bitsandbytes.dequantize_4bit(packed.view(-1, 1), scales, BLOCK, "nf4", shape, dtype)
    return cast(torch.Tensor, dense)


def bytes_of(num_weights: int, *, double: bool) -> int:
    """What the parts of one tensor take: half a byte a weight, and the scales."""
    blocks = -(-num_weights // BLOCK)
    if not double:
        return num_weights // 2 + 4 * blocks
    return num_weights // 2 + blocks + 4 * -(-blocks // SCALE_BLOCK) + 4


def is_packed(module: nn.Module, name: str = "weight") -> bool:
    """Whether a parameter of the module is in NF4."""
    parameter = getattr(module, name, None)
    return isinstance(parameter, torch.Tensor) and parameter.dtype == torch.uint8


def parts_of(module: nn.Module, name: str = "weight") -> list[torch.Tensor]:
    """The parts of a packed parameter, in the order of PARTS; else the parameter alone."""
    parameter = cast(torch.Tensor, getattr(module, name))
    if parameter.dtype != torch.uint8:
        return [parameter]
    scales = (getattr(module, f"{name}_{part}", None) for part in PARTS[1:])
    return [parameter, *(cast(torch.Tensor, one) for one in scales if one is not None)]


def shape_of(module: nn.Module, name: str = "weight") -> torch.Size:
    """Of the weights, packed or not."""
    parameter = cast(torch.Tensor, getattr(module, name))
    if parameter.dtype != torch.uint8:
        return parameter.shape
    return torch.Size([*parameter.shape[:-1], parameter.shape[-1] * 2])


@torch.no_grad()
def pack(module: nn.Module, name: str, *, double: bool, device: torch.device) -> None:
    """Replaces a parameter by its parts, on `device`: the parameter under its name, scales as buffers beside it."""
    parts = quantize(getattr(module, name).detach().to(device), double=double)
    setattr(module, name, nn.Parameter(parts[0], requires_grad=False))
    for part, tensor in zip(PARTS[1:], parts[1:], strict=False):
        module.register_buffer(f"{name}_{part}", tensor)


@torch.no_grad()
def unpack(module: nn.Module, name: str, dtype: torch.dtype) -> None:
    """The parameter as it was, but for what packing lost."""
    weight = dequantize(parts_of(module, name), dtype)
    setattr(module, name, nn.Parameter(weight, requires_grad=False))
    for part in PARTS[1:]:
        module._buffers.pop(f"{name}_{part}", None)


@functools.cache
def _byte_map(device: torch.device) -> torch.Tensor:
    """The 256 values that a scale in 8 bits can take."""
    values: Any = bitsandbytes.functional.create_dynamic_map()  # type: ignore[no-untyped-call]
    return cast(torch.Tensor, values).to(device)
