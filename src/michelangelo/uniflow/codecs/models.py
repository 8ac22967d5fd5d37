"""The codec of pydantic models: values, restored field by field without validating again.

Pydantic itself is never imported here; a value of a model shows that the user has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from michelangelo.errors import CodecError
from michelangelo.uniflow import references
from michelangelo.uniflow.codecs.registry import Codec, install_structure
from michelangelo.uniflow.codecs.tree import Decoder, Encoder

__all__ = ["model_codec"]


def model_codec(kind: type) -> Codec | None:
    """The codec of a subclass of pydantic's BaseModel."""
    return _MODEL if _is_model(kind) else None


def _is_model(kind: type) -> bool:
    return any(base.__module__ == "pydantic.main" and base.__name__ == "BaseModel" for base in kind.__mro__)


def _encode(value: Any, encoder: Encoder) -> dict[str, Any]:
    leaf: dict[str, Any] = {"class": references.reference(type(value)), "fields": encoder.fields(vars(value))}
    leaf["set"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__:
        leaf["extra"] = encoder.fields(value.__pydantic_extra__)
    if value.__pydantic_private__:
        leaf["private"] = encoder.fields(value.__pydantic_private__)
    return leaf


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    kind: Any = references.resolve(leaf["class"])
    if not (isinstance(kind, type) and _is_model(kind)):
        raise CodecError(f"{leaf['class']} is not a pydantic model")
    given = {name: decoder.child(tree) for name, tree in leaf["fields"].items()}
    fields: dict[str, Any] = vars(kind)["__pydantic_fields__"]
    gone = sorted(given.keys() - fields.keys() - _computed(kind))
    if gone:
        raise CodecError(f"{leaf['class']} has no field {', '.join(gone)} any more; the stored value has it")
    for name, field in fields.items():
        if name not in given:
            if field.is_required():
                raise CodecError(f"{leaf['class']} has a new field {name} without a default; the stored value lacks it")
            given[name] = field.get_default(call_default_factory=True, validated_data=given)
    model: Any = object.__new__(kind)
    model.__setstate__(
        {
            "__dict__": given,
            "__pydantic_fields_set__": set(leaf["set"]),
            "__pydantic_extra__": _optional(leaf, "extra", decoder, kind),
            "__pydantic_private__": _optional(leaf, "private", decoder, kind),
        }
    )
    return model


def _computed(kind: Any) -> set[str]:
    """Cached properties live among the values of the fields."""
    return {name for base in kind.__mro__ for name, value in vars(base).items() if hasattr(value, "attrname")}


def _optional(leaf: Mapping[str, Any], part: str, decoder: Decoder, kind: Any) -> dict[str, Any] | None:
    if part in leaf:
        return {name: decoder.child(tree) for name, tree in leaf[part].items()}
    if part == "extra":
        return {} if kind.model_config.get("extra") == "allow" else None
    return {} if kind.__private_attributes__ else None


_MODEL = Codec("pydantic", _encode, _decode)
install_structure(model_codec, _MODEL)
