"""Codecs of numpy: arrays are data in the `.npy` format, scalars are values."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []


def _encode_array(value: np.ndarray[Any, Any], encoder: Encoder) -> dict[str, Any]:
    if value.dtype.hasobject:
        raise Unencodable(
            "numpy array of Python objects (dtype object); give it a dtype of its own, or return list(array)"
        )

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array(file, value, version=(3, 0))  # type: ignore[no-untyped-call, unused-ignore]

    return {
        **encoder.stream(write),
        "type": "numpy:ndarray",
        "metadata": {"shape": list(value.shape), "dtype": str(value.dtype)},
    }


def _decode_array(leaf: Mapping[str, Any], decoder: Decoder) -> np.ndarray[Any, Any]:
    with decoder.open(leaf) as file:
        array: np.ndarray[Any, Any] = np.lib.format.read_array(  # type: ignore[no-untyped-call, unused-ignore]
            file, allow_pickle=False
        )
        file.read()  # to the end, where the digest is checked
    return array


def _encode_scalar(value: np.generic, encoder: Encoder) -> dict[str, Any]:
    if value.dtype.hasobject or value.dtype.names:
        raise Unencodable(f"numpy scalar of dtype {value.dtype}; return an array or a Python value")
    return {"dtype": value.dtype.str, "value": base64.b64encode(value.tobytes()).decode()}


def _decode_scalar(leaf: Mapping[str, Any], _: Decoder) -> Any:
    return np.frombuffer(base64.b64decode(leaf["value"]), dtype=np.dtype(leaf["dtype"]))[0]


install(Codec("numpy", _encode_array, _decode_array, is_data=True), np.ndarray)
install(Codec("numpy-scalar", _encode_scalar, _decode_scalar), np.generic, subclasses=True)
