"""One value against one annotation: checked, and converted where it comes as JSON or as the text of a command line.

It collects what is wrong, with the path inside the argument, and goes on. Annotations that it does not know are
classes to be instances of; a reference to data (`Ref`) or a future stands for any value.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final, Literal

from michelangelo.errors import FieldError
from michelangelo.uniflow.files import Directory, File
from michelangelo.uniflow.future import Future
from michelangelo.uniflow.ref import Ref

__all__ = [
    "JSON_TYPES",
    "Errors",
    "Form",
    "coerce",
    "container_of",
    "field_hints",
    "is_model",
    "is_required",
    "type_name",
]

Form = Literal["python", "json", "text"]
Errors = list[FieldError]

JSON_TYPES: Final[dict[type, dict[str, Any]]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
    pathlib.Path: {"type": "string", "format": "path"},
    File: {"type": "string", "format": "path"},
    Directory: {"type": "string", "format": "path"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    datetime.timedelta: {"type": "number", "description": "seconds"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
    uuid.UUID: {"type": "string", "format": "uuid"},
}
_FROM_TEXT: Final[dict[type, Callable[[str], Any]]] = {
    pathlib.Path: pathlib.Path,
    File: File,
    Directory: Directory,
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    decimal.Decimal: decimal.Decimal,
    uuid.UUID: uuid.UUID,
}
_CONTAINERS: Final[dict[Any, type]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    dict: dict,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
}
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")


def coerce(hint: Any, value: Any, form: Form, path: str, errors: Errors) -> Any:
    """`value` as `hint` wants it; what is wrong is added to `errors`."""
    if form == "python" and isinstance(value, Ref | Future):
        return value
    hint = _plain(hint)
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return _parsed(value) if form == "text" else value
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _literal(hint, value, form, path, errors)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, form, path, errors)
    if hint in (bool, int, float, str, types.NoneType, None):
        return _scalar(hint, value, form, path, errors)
    if form == "text" and not (isinstance(hint, type) and (hint in _FROM_TEXT or issubclass(hint, enum.Enum))):
        parsed = _json_text(hint, value, path, errors)
        return value if parsed is _FAILED else coerce(hint, parsed, "json", path, errors)
    container = container_of(hint)
    if container is not None:
        return _container(hint, container, value, form, path, errors)
    if not isinstance(hint, type):
        return value
    if form == "python" or (origin is None and isinstance(value, hint)):
        return _instance(hint, value, path, errors)
    return _class(hint, value, form, path, errors)


def container_of(hint: Any) -> type | None:
    """list, tuple, set, frozenset or dict, for an annotation that means one of them."""
    origin = typing.get_origin(hint) or hint
    if typing.is_typeddict(origin):
        return dict
    try:
        return _CONTAINERS.get(origin)
    except TypeError:
        return None


def type_name(hint: Any) -> str:
    """An annotation as it is written."""
    if hint is None or hint is types.NoneType:
        return "None"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def is_model(kind: type) -> bool:
    """Whether it is a pydantic model; pydantic is not imported for the question."""
    return any(base.__module__ == "pydantic.main" and base.__name__ == "BaseModel" for base in kind.__mro__)


def field_hints(kind: type) -> dict[str, Any]:
    """The evaluated annotations of a dataclass's fields; `Any` where that is not possible."""
    try:
        return typing.get_type_hints(kind)
    except (NameError, AttributeError, TypeError):
        return {field.name: Any for field in dataclasses.fields(kind)}


def is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


_FAILED: Final = object()


def _plain(hint: Any) -> Any:
    """Without `Annotated`, `Final` and NewType around it."""
    while True:
        if typing.get_origin(hint) is typing.Annotated or typing.get_origin(hint) is Final:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        else:
            return hint


def _scalar(hint: Any, value: Any, form: Form, path: str, errors: Errors) -> Any:
    kind = type(value)
    if hint is None or hint is types.NoneType:
        if value is None or (form == "text" and value.lower() in ("none", "null", "")):
            return None
    elif hint is bool:
        if kind is bool:
            return value
        if form == "text" and value.lower() in _TRUE + _FALSE:
            return value.lower() in _TRUE
    elif hint is str:
        if isinstance(value, str):
            return value
    elif form == "text":
        try:
            return hint(value)
        except ValueError:
            pass
    elif kind is not bool and not isinstance(value, str):
        if hint is int and hasattr(kind, "__index__"):
            return value
        if hint is float and hasattr(kind, "__float__"):
            return float(value) if kind is int else value
    errors.append(_mismatch(hint, value, path))
    return value


def _literal(hint: Any, value: Any, form: Form, path: str, errors: Errors) -> Any:
    choices = typing.get_args(hint)
    for choice in choices:
        if (type(choice) is type(value) and choice == value) or (form == "text" and str(choice) == value):
            return choice
    listed = ", ".join(repr(choice) for choice in choices)
    errors.append(FieldError(path, f"must be one of {listed}; got {_shown(value)}", "FieldValueNotSupported"))
    return value


def _union(hint: Any, value: Any, form: Form, path: str, errors: Errors) -> Any:
    """The first member that fits. A text fits `str` always, so there `str` is tried last."""
    members = list(typing.get_args(hint))
    if form == "text":
        members.sort(key=lambda member: member is str)
    else:
        members.sort(key=lambda member: member is not type(value))
    for member in members:
        attempt: Errors = []
        found = coerce(member, value, form, path, attempt)
        if not attempt:
            return found
    errors.append(_mismatch(hint, value, path))
    return value


def _container(hint: Any, container: type, value: Any, form: Form, path: str, errors: Errors) -> Any:
    arguments = typing.get_args(hint)
    if container is dict:
        if not isinstance(value, collections.abc.Mapping):
            errors.append(_mismatch(hint, value, path))
            return value
        return _mapping(hint, value, form, path, errors)
    fits = isinstance(value, list | tuple) if form == "json" else isinstance(value, typing.get_origin(hint) or hint)
    if not fits or isinstance(value, str | bytes) or not isinstance(value, collections.abc.Collection):
        errors.append(_mismatch(hint, value, path))
        return value
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            errors.append(FieldError(path, f"must have {len(arguments)} items, has {len(value)}"))
            return value
        hints = list(arguments)
    else:
        hints = [arguments[0] if arguments else Any] * len(value)
    found = [
        coerce(item_hint, item, form, f"{path}[{index}]", errors)
        for index, (item_hint, item) in enumerate(zip(hints, value, strict=True))
    ]
    return _built(container, found, path, errors) if form == "json" or type(value) is container else value


def _mapping(hint: Any, value: Any, form: Form, path: str, errors: Errors) -> Any:
    """Keys of JSON are texts, read as annotated."""
    arguments = typing.get_args(hint)
    key_hint, item_hint = arguments if len(arguments) == 2 else (Any, Any)
    key_form: Form = "text" if form == "json" and key_hint not in (str, Any) else form
    pairs = [
        (
            coerce(key_hint, key, key_form, f"{path}[{key!r}]", errors),
            coerce(item_hint, item, form, f"{path}[{key!r}]", errors),
        )
        for key, item in value.items()
    ]
    return _built(dict, pairs, path, errors) if type(value) is dict else value


def _built(container: type, found: list[Any], path: str, errors: Errors) -> Any:
    """The container of `found`; a set refuses what cannot be hashed."""
    try:
        return container(found)
    except TypeError as error:
        errors.append(FieldError(path, f"cannot be a {container.__name__}: {error}"))
        return found


def _instance(hint: type, value: Any, path: str, errors: Errors) -> Any:
    try:
        fits = isinstance(value, hint)
    except TypeError:  # a protocol that cannot be asked at run time
        fits = True
    if not fits:
        errors.append(_mismatch(hint, value, path))
    return value


def _class(hint: type, value: Any, form: Form, path: str, errors: Errors) -> Any:
    """An instance of a class from its JSON form."""
    if issubclass(hint, enum.Enum):
        return _enum(hint, value, form, path, errors)
    if hint in _FROM_TEXT and isinstance(value, str):
        try:
            return _FROM_TEXT[hint](value)
        except (ValueError, ArithmeticError) as error:
            errors.append(FieldError(path, f"must be a {type_name(hint)}; got {_shown(value)}: {error}"))
            return value
    if hint is datetime.timedelta and type(value) in (int, float):
        return datetime.timedelta(seconds=value)
    if is_model(hint):
        return _model(hint, value, path, errors)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, form, path, errors)
    if hint in _FROM_TEXT or hint is datetime.timedelta:
        errors.append(_mismatch(hint, value, path))
    else:
        errors.append(FieldError(path, f"a {type_name(hint)} cannot be given as JSON; give a path or a name instead"))
    return value


def _enum(hint: type[enum.Enum], value: Any, form: Form, path: str, errors: Errors) -> Any:
    if isinstance(value, str) and value in hint.__members__:
        return hint[value]
    for member in hint:
        if (type(member.value) is type(value) and member.value == value) or (
            form == "text" and str(member.value) == value
        ):
            return member
    listed = ", ".join(hint.__members__)
    errors.append(FieldError(path, f"must be one of {listed}; got {_shown(value)}", "FieldValueNotSupported"))
    return value


def _dataclass(hint: Any, value: Any, form: Form, path: str, errors: Errors) -> Any:
    if not isinstance(value, dict):
        errors.append(_mismatch(hint, value, path))
        return value
    fields = {field.name: field for field in dataclasses.fields(hint) if field.init}
    hints = field_hints(hint)
    wrong = len(errors)
    for name in value:
        if name not in fields:
            message = f"{hint.__name__} has no such field; it has {', '.join(fields)}"
            errors.append(FieldError(f"{path}.{name}", message, "FieldValueNotSupported"))
    for name, field in fields.items():
        if name not in value and is_required(field):
            errors.append(FieldError(f"{path}.{name}", "is missing", "FieldValueRequired"))
    given = {
        name: coerce(hints[name], item, form, f"{path}.{name}", errors)
        for name, item in value.items()
        if name in fields
    }
    if len(errors) > wrong:
        return value
    try:
        return hint(**given)
    except (ValueError, TypeError) as error:
        errors.append(FieldError(path, str(error)))
        return value


def _model(hint: Any, value: Any, path: str, errors: Errors) -> Any:
    try:
        return hint.model_validate(value)
    except ValueError as error:
        listed: list[Any] = getattr(error, "errors", list)()
        for item in listed:
            place = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"])
            errors.append(FieldError(place, str(item["msg"])))
        if not listed:
            errors.append(FieldError(path, str(error)))
        return value


def _json_text(hint: Any, text: str, path: str, errors: Errors) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        errors.append(FieldError(path, f"must be JSON for {type_name(hint)}; got {_shown(text)}"))
        return _FAILED


def _parsed(text: str) -> Any:
    """Without an annotation: JSON where it reads as JSON, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _mismatch(hint: Any, value: Any, path: str) -> FieldError:
    return FieldError(path, f"must be {type_name(hint)}; got {_shown(value)} ({type_name(type(value))})")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
