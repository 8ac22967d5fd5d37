"""Codecs of classes that are records: dataclasses, named tuples, enums. They are values, named by `module:qualname`.

A record is restored field by field: neither `__init__` nor `__post_init__` runs again.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from michelangelo.errors import CodecError
from michelangelo.uniflow import references
from michelangelo.uniflow.codecs.registry import Codec, install_structure
from michelangelo.uniflow.codecs.tree import Decoder, Encoder

__all__ = ["record_codec"]


def record_codec(kind: type) -> Codec | None:
    """The codec of a class that is a record, by its structure."""
    if issubclass(kind, enum.Enum):
        return _ENUM
    if dataclasses.is_dataclass(kind):
        return _DATACLASS
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _NAMED_TUPLE
    return None


def _encode_dataclass(value: Any, encoder: Encoder) -> dict[str, Any]:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {"class": references.reference(type(value)), "fields": encoder.fields(fields)}


def _decode_dataclass(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    kind = _class_of(leaf, "a dataclass", dataclasses.is_dataclass)
    given = {name: decoder.child(tree) for name, tree in leaf["fields"].items()}
    record = kind.__new__(kind)
    for field in dataclasses.fields(kind):
        if field.name in given:
            field_value = given.pop(field.name)
        elif field.default is not dataclasses.MISSING:
            field_value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            field_value = field.default_factory()
        else:
            raise CodecError(
                f"{leaf['class']} has a new field {field.name} without a default; the stored value lacks it"
            )
        object.__setattr__(record, field.name, field_value)
    if given:
        raise CodecError(f"{leaf['class']} has no field {', '.join(sorted(given))} any more; the stored value has it")
    return record


def _encode_named_tuple(value: Any, encoder: Encoder) -> dict[str, Any]:
    return {"class": references.reference(type(value)), "fields": encoder.fields(value._asdict())}


def _decode_named_tuple(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    kind = _class_of(leaf, "a named tuple", lambda found: issubclass(found, tuple) and hasattr(found, "_fields"))
    return kind(**{name: decoder.child(tree) for name, tree in leaf["fields"].items()})


def _encode_enum(value: enum.Enum, encoder: Encoder) -> dict[str, Any]:
    leaf: dict[str, Any] = {"class": references.reference(type(value))}
    if value.name in type(value).__members__:
        return {**leaf, "name": value.name}
    return {**leaf, "value": encoder.child(value.value)}


def _decode_enum(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    kind = _class_of(leaf, "an enum", lambda found: issubclass(found, enum.Enum))
    return kind[leaf["name"]] if "name" in leaf else kind(decoder.child(leaf["value"]))


def _class_of(leaf: Mapping[str, Any], what: str, fits: Any) -> Any:
    """The class that a leaf names, which must be what its codec is for: nothing else is ever called."""
    kind = references.resolve(leaf["class"])
    if not isinstance(kind, type) or not fits(kind):
        raise CodecError(f"{leaf['class']} is not {what}")
    return kind


_DATACLASS = Codec("dataclass", _encode_dataclass, _decode_dataclass)
_NAMED_TUPLE = Codec("namedtuple", _encode_named_tuple, _decode_named_tuple)
_ENUM = Codec("enum", _encode_enum, _decode_enum)
install_structure(record_codec, _DATACLASS, _NAMED_TUPLE, _ENUM)
