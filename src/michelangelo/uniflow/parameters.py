"""Parameters of a workflow: its signature as a JSON Schema, and arguments checked against it before anything starts.

Arguments come as Python values, as JSON (a PipelineRun), or as texts (a command line); each is checked, and where the
form calls for it converted, and every wrong parameter is in one ArgumentsError. How one value is converted is in
coercion.py. An annotation that cannot be evaluated is taken as `Any`.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from michelangelo.errors import ArgumentsError, FieldError
from michelangelo.uniflow import coercion
from michelangelo.uniflow.coercion import Form
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow

__all__ = ["Callee", "Parameter", "check", "describe", "from_json", "from_texts", "schema"]

Callee = Callable[..., Any] | Workflow[..., Any] | Task[..., Any]
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `default` is meaningless while `required`."""

    name: str
    annotation: Any
    required: bool
    default: Any

    @property
    def type_name(self) -> str:
        return coercion.type_name(self.annotation)


def describe(callee: Callee) -> list[Parameter]:
    """The parameters that can be given by name, in order."""
    hints = _hints(callee)
    return [
        Parameter(name, hints.get(name, Any), parameter.default is inspect.Parameter.empty, parameter.default)
        for name, parameter in inspect.signature(_function(callee)).parameters.items()
        if parameter.kind not in _VARIADIC
    ]


def schema(callee: Callee) -> dict[str, Any]:
    """A JSON Schema (2020-12) of the arguments as an object."""
    listed = describe(callee)
    properties = {}
    for parameter in listed:
        properties[parameter.name] = _schema_of(parameter.annotation, 0)
        if not parameter.required:
            json = _json_default(parameter.default)
            properties[parameter.name] |= {} if json is inspect.Parameter.empty else {"default": json}
    parameters = inspect.signature(_function(callee)).parameters.values()
    return {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in listed if parameter.required],
        "additionalProperties": any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
    }


def check(callee: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call in canonical form, its Python values checked against the annotations. Raises ArgumentsError."""
    return _bind(callee, args, kwargs, "python")


def from_json(
    callee: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`check` for JSON values: objects become dataclasses, texts paths and times, as annotated."""
    return _bind(callee, args, kwargs, "json")


def from_texts(callee: Callee, texts: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments from the texts of a command line: scalars as they read, anything else as JSON."""
    return _bind(callee, (), {name.replace("-", "_"): text for name, text in texts.items()}, "text", by_name=True)[1]


def _bind(
    callee: Callee, args: tuple[Any, ...], kwargs: Mapping[str, Any], form: Form, *, by_name: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    fn = _function(callee)
    signature = inspect.signature(fn)
    errors = _misfits(signature, args, kwargs)
    bound = signature.bind_partial(*args[: _positions(signature)], **_known(signature, args, kwargs))
    hints = _hints(callee)
    for name, value in bound.arguments.items():
        kind, hint = signature.parameters[name].kind, hints.get(name, Any)
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found: Any = tuple(
                coercion.coerce(hint, item, form, f"{name}[{i}]", errors) for i, item in enumerate(value)
            )
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found = {key: coercion.coerce(hint, item, form, key, errors) for key, item in value.items()}
        else:
            found = coercion.coerce(hint, value, form, name, errors)
        bound.arguments[name] = found
    if errors:
        name = getattr(callee, "name", fn.__name__)
        lines = "".join(f"\n  {error}" for error in errors)
        raise ArgumentsError(f"wrong arguments for {name}{signature}:{lines}", errors=errors)
    if by_name:
        variadic = {name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD}
        named = {name: value for name, value in bound.arguments.items() if name not in variadic}
        return (), named | {key: item for name in variadic for key, item in bound.arguments.get(name, {}).items()}
    return bound.args, bound.kwargs


def _misfits(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[FieldError]:
    """Missing, unexpected, surplus and doubled arguments."""
    parameters = signature.parameters
    errors = []
    positional = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(args) > _positions(signature):
        errors.append(FieldError("", f"{len(args)} positional arguments were given, it takes {len(positional)}"))
    filled = set(positional[: len(args)])
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [name for name, p in parameters.items() if p.kind not in _VARIADIC]
    for name in kwargs:
        if name in filled:
            errors.append(FieldError(name, "given twice", "FieldValueDuplicate"))
        elif name not in known and not takes_any:
            advice = f"the parameters are {', '.join(known)}" if known else "it has none"
            errors.append(FieldError(name, f"there is no such parameter; {advice}", "FieldValueNotSupported"))
    for name in known:
        if name not in filled and name not in kwargs and parameters[name].default is inspect.Parameter.empty:
            errors.append(FieldError(name, "is missing", "FieldValueRequired"))
    return errors


def _positions(signature: inspect.Signature) -> int:
    """How many positional arguments can be given."""
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 1 << 30
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)


def _known(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that `bind_partial` takes; what it would not is among the errors."""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        names = set(kwargs)
    else:
        names = {name for name, p in signature.parameters.items() if p.kind not in (*_VARIADIC, p.POSITIONAL_ONLY)}
    filled = {
        name
        for name, p in list(signature.parameters.items())[: len(args)]
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    return {name: value for name, value in kwargs.items() if name in names - filled}


def _function(callee: Callee) -> Callable[..., Any]:
    return callee.fn if isinstance(callee, Workflow | Task) else callee


def _hints(callee: Callee) -> dict[str, Any]:
    """The annotations, evaluated one by one, so that one that cannot be does not take the others with it."""
    fn = _function(callee)
    found = {}
    for name, annotation in getattr(fn, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found[name] = typing.get_type_hints(holder, getattr(fn, "__globals__", {}))[name]
        except (NameError, AttributeError, TypeError, SyntaxError):
            found[name] = Any
    return found


def _schema_of(hint: Any, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        return {}
    simple = coercion.JSON_TYPES.get(hint) if isinstance(hint, type) else None
    if simple is not None:
        return dict(simple)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(argument, depth + 1) for argument in arguments]}
    container = coercion.container_of(hint)
    if container is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], depth + 1) if arguments else True}
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        items = [_schema_of(argument, depth + 1) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if container is not None:
        return {"type": "array"} | ({"items": _schema_of(arguments[0], depth + 1)} if arguments else {})
    return _schema_of_class(hint, depth) if isinstance(hint, type) else {}


def _schema_of_class(kind: type, depth: int) -> dict[str, Any]:
    if issubclass(kind, enum.Enum):
        return {"enum": list(kind.__members__)}
    if coercion.is_model(kind):
        described: dict[str, Any] = getattr(kind, "model_json_schema")()  # noqa: B009 - mypy knows `type` only
        return described
    if dataclasses.is_dataclass(kind):
        fields = [field for field in dataclasses.fields(kind) if field.init]
        hints = coercion.field_hints(kind)
        return {
            "type": "object",
            "title": kind.__name__,
            "properties": {field.name: _schema_of(hints[field.name], depth + 1) for field in fields},
            "required": [field.name for field in fields if coercion.is_required(field)],
            "additionalProperties": False,
        }
    return {}


def _json_default(value: Any) -> Any:
    """The default as JSON, or `empty` when it has no simple form."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        items = [_json_default(item) for item in value]
        return inspect.Parameter.empty if inspect.Parameter.empty in items else items
    if type(value) is dict and all(type(key) is str for key in value):
        members = {key: _json_default(item) for key, item in value.items()}
        return inspect.Parameter.empty if inspect.Parameter.empty in members.values() else members
    return inspect.Parameter.empty
