"""Codecs of the built-in types that JSON does not have, and of classes and functions. All of them are values: they
decode to themselves everywhere."""

from __future__ import annotations

import base64
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from michelangelo.uniflow import code_digest, references
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, canonical
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow

__all__ = ["decode_dict", "sequence", "text"]

_INLINE_BYTES: Final = 4096


def text(name: str, kind: type, write: Callable[[Any], str], read: Callable[[str], Any]) -> None:
    """A codec for a type that is one text."""
    install(Codec(name, lambda value, _: {"value": write(value)}, lambda leaf, _: read(leaf["value"])), kind)


def sequence(name: str, kind: type, read: Callable[[list[Any]], Any]) -> None:
    """A codec for a type that is its items in their order."""
    install(
        Codec(
            name,
            lambda value, encoder: {"items": encoder.items(list(value))},
            lambda leaf, decoder: read(decoder.items(leaf["items"])),
        ),
        kind,
    )


def decode_dict(leaf: Mapping[str, Any], decoder: Decoder) -> dict[Any, Any]:
    return {decoder.child(key): decoder.child(item) for key, item in leaf["items"]}


def _unordered(name: str, kind: type, read: Callable[[list[Any]], Any]) -> None:
    """A codec for sets: sorted by what their items are encoded to, so that the hash seed does not matter."""
    install(
        Codec(
            name,
            lambda value, encoder: {"items": sorted((encoder.child(item) for item in value), key=canonical)},
            lambda leaf, decoder: read(decoder.items(leaf["items"])),
        ),
        kind,
    )


def _encode_bytes(value: bytes, encoder: Encoder) -> dict[str, Any]:
    if len(value) > _INLINE_BYTES:
        return encoder.blob(bytes(value))
    return {"value": base64.b64encode(value).decode()}


def _decode_bytes(leaf: Mapping[str, Any], decoder: Decoder) -> bytes:
    return decoder.bytes(leaf) if "blob" in leaf else base64.b64decode(leaf["value"], validate=True)


def _encode_reference(value: Any, _: Encoder) -> dict[str, Any]:
    return {"value": references.reference(value), "code": code_digest.code_digest(value)}


def _decode_tree(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    return decoder.child(orjson.loads(decoder.bytes(leaf)))


def _install() -> None:
    text("int", int, hex, lambda text: int(text, 16))
    text("float", float, repr, float)
    text("str", str, lambda _: "", lambda text: bytes.fromhex(text).decode("utf-16-le", "surrogatepass"))
    sequence("tuple", tuple, tuple)
    _unordered("set", set, set)
    _unordered("frozenset", frozenset, frozenset)
    install(Codec("dict", lambda value, encoder: {}, decode_dict))
    install(Codec("bytes", _encode_bytes, _decode_bytes), bytes)
    install(Codec("bytearray", _encode_bytes, lambda leaf, decoder: bytearray(_decode_bytes(leaf, decoder))), bytearray)
    install(
        Codec(
            "complex",
            lambda value, encoder: {"items": encoder.items([value.real, value.imag])},
            lambda leaf, decoder: complex(*decoder.items(leaf["items"])),
        ),
        complex,
    )
    install(
        Codec(
            "range",
            lambda value, encoder: {"items": encoder.items([value.start, value.stop, value.step])},
            lambda leaf, decoder: range(*decoder.items(leaf["items"])),
        ),
        range,
    )
    install(
        Codec("reference", _encode_reference, lambda leaf, _: references.resolve(leaf["value"])),
        type,
        types.FunctionType,
        types.BuiltinFunctionType,
        Task,
        Workflow,
    )
    install(Codec("tree", lambda value, encoder: {}, _decode_tree))


_install()
