"""Safetensors files, written and read as streams: the library writes whole files to local paths only.

Format: eight bytes with the length of the header (little endian), the header (JSON: dtype, shape and place of each
tensor), the tensors one after the other. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import torch

from michelangelo import errors

__all__ = ["Place", "TensorFileError", "pieces", "read_header", "read_tensor"]

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER: Final = 100_000_000
"""Bytes: the limit of the format's own library."""


class TensorFileError(errors.CheckpointError):
    """It is no safetensors file, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is in its file: bytes from `begin`, counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    num_bytes: int


def pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a file, one tensor at a time; each is moved to the host when its turn comes."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
    header, position = {}, 0
    for name in order:
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little") + encoded
    for name in order:
        if tensors[name].numel():
            host = tensors[name].detach().to("cpu").contiguous()
            yield _bytes_of(host.reshape(-1).view(torch.uint8))


def read_header(file: BinaryIO) -> dict[str, Place]:
    """Raises TensorFileError, OSError."""
    try:
        length = int.from_bytes(_exactly(file, 8), "little")
        if length > _MAX_HEADER:
            raise TensorFileError(f"its header would have {length:,} bytes")
        header = json.loads(_exactly(file, length))
        start = 8 + length
        places = {
            name: Place(
                _DTYPES[entry["dtype"]],
                tuple(int(size) for size in entry["shape"]),
                start + int(entry["data_offsets"][0]),
                int(entry["data_offsets"][1]) - int(entry["data_offsets"][0]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as e:
        raise TensorFileError(f"its header cannot be understood: {e}") from e
    size = file.seek(0, os.SEEK_END)
    for name, place in places.items():
        is_possible = place.begin >= start and all(length >= 0 for length in place.shape)
        if not is_possible or place.num_bytes != math.prod(place.shape) * place.dtype.itemsize:
            raise TensorFileError(f"its header gives {name} a size that its shape does not have")
        if place.begin + place.num_bytes > size:
            raise TensorFileError(f"it ends before {name} does")
    return places


def read_tensor(file: BinaryIO, place: Place) -> torch.Tensor:
    """On the host. Raises TensorFileError if the file ends before."""
    if not place.num_bytes:
        return torch.empty(place.shape, dtype=place.dtype)
    file.seek(place.begin)
    data = torch.empty(place.num_bytes, dtype=torch.uint8)
    view, position = _bytes_of(data), 0
    while position < place.num_bytes:
        num_read = file.readinto(view[position:])  # type: ignore[attr-defined]
        if not num_read:
            raise TensorFileError(f"it ends {place.num_bytes - position:,} bytes too early")
        position += num_read
    return data.view(place.dtype).view(place.shape)


def _bytes_of(flat: torch.Tensor) -> memoryview:
    array: Any = flat.numpy()  # not copied
    return memoryview(array)


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) < num_bytes:
        raise TensorFileError("it ends within its header")
    return data
