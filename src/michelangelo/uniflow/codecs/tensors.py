"""Codecs of torch: tensors are data, in the safetensors format; dtypes, devices and sizes are values.

The tensors of one value, a whole state dict for instance, are together in few blobs. Two that are one tensor under two
names (tied weights) are one afterwards too. Every tensor comes back in the memory of the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import safetensors
import safetensors.torch
import torch

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs.builtin import text
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_SHARD_BYTES: Final = 256 << 20
_MEMO: Final = "torch"


class _Shards:
    """The tensors of one encoding: gathered, and written when they are many bytes, or at the end."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._tensors: dict[str, torch.Tensor] = {}
        self._leaves: list[dict[str, Any]] = []
        self._size = 0
        self._known: dict[tuple[Any, ...], tuple[torch.Tensor, dict[str, Any]]] = {}
        encoder.at_end(self.write)

    def leaf(self, tensor: torch.Tensor) -> dict[str, Any]:
        """The fields that say where the tensor is; of two that share all memory, the same."""
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride(), str(tensor.device))
        if tensor.numel() and key in self._known:
            first = self._known[key][1]
            if "blob" in first:
                return dict(first)
            leaf = dict(first)
        else:
            leaf = {"name": f"t{len(self._tensors)}"}
            self._tensors[leaf["name"]] = _plain(tensor)
            self._size += tensor.numel() * tensor.element_size()
            self._known[key] = (tensor, leaf)  # with the tensor, so that its memory is not another's meanwhile
        self._leaves.append(leaf)
        if self._size >= _SHARD_BYTES:
            self.write()
        return leaf

    def write(self) -> None:
        if not self._leaves:
            return
        blob = self._encoder.blob(safetensors.torch.save(self._tensors))
        for leaf in self._leaves:
            leaf.update(blob)
        self._tensors, self._leaves, self._size = {}, [], 0


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """What safetensors takes: on the CPU, contiguous, real."""
    found = tensor.detach().resolve_conj().resolve_neg()
    if found.dtype == torch.complex128:
        found = torch.view_as_real(found)
    return found.to("cpu").contiguous()


def _encode(value: torch.Tensor, encoder: Encoder) -> dict[str, Any]:
    if value.layout is not torch.strided or value.is_quantized:
        raise Unencodable(f"{value.layout} tensor (or a quantized one); return value.to_dense() or value.dequantize()")
    if value.is_meta:
        raise Unencodable("tensor on the device 'meta', which has no content; materialise it first")
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise Unencodable(
            f"{type(value).__name__}, a kind of tensor; return value.full_tensor() or a plain tensor of it"
        )
    shards = encoder.memo.get(_MEMO)
    if shards is None:
        shards = encoder.memo[_MEMO] = _Shards(encoder)
    leaf: dict[str, Any] = shards.leaf(value)
    # Each time anew, for what shares memory may still be one with a parameter and one without.
    leaf["type"] = f"torch:{type(value).__name__}"
    leaf["metadata"] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    leaf["grad"] = value.requires_grad
    return leaf


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> torch.Tensor:
    memo = decoder.memo.setdefault(_MEMO, {})
    key = (leaf["blob"], leaf["name"], leaf["type"], leaf["grad"])
    if key not in memo:
        memo[key] = _load(leaf, decoder)
    found: torch.Tensor = memo[key]
    return found


def _load(leaf: Mapping[str, Any], decoder: Decoder) -> torch.Tensor:
    shards = decoder.memo.setdefault("torch-shards", {})
    try:
        if leaf["blob"] not in shards:
            # A private memory map: only the tensors that are asked for are read, and who writes into one gets a copy.
            with decoder.path(leaf["blob"]) as path:
                shards[leaf["blob"]] = safetensors.safe_open(path, framework="pt")
        tensor: torch.Tensor = shards[leaf["blob"]].get_tensor(leaf["name"])
    except safetensors.SafetensorError as error:
        raise CodecError(f"blob {leaf['blob']} is not in the safetensors format: {error}") from error
    if leaf["metadata"]["dtype"] == "complex128":
        tensor = torch.view_as_complex(tensor)
    if leaf["type"] == "torch:Parameter":
        return torch.nn.Parameter(tensor, requires_grad=leaf["grad"])
    return tensor.requires_grad_(leaf["grad"])


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise CodecError(f"torch has no dtype {name!r}")
    return found


install(Codec("torch", _encode, _decode, is_data=True), torch.Tensor, subclasses=True)
text("torch-dtype", torch.dtype, lambda value: str(value).removeprefix("torch."), _dtype)
text("torch-device", torch.device, str, torch.device)
install(
    Codec("torch-size", lambda value, _: {"value": list(value)}, lambda leaf, _: torch.Size(leaf["value"])), torch.Size
)
