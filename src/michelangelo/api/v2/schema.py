"""The schema of a kind, computed from its model: a structural OpenAPI v3 schema, as Kubernetes wants it in a CRD.

No references, no alternatives with null, free-form data marked as such; the descriptions are the docstrings below the
fields in the source. Everything else that shows a kind's fields (manifests, OpenAPI, explain, templates) starts here.
Results are shared: whoever wants to change one copies it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from michelangelo.api.v2.registry import Kind
from michelangelo.meta import fieldpath
from michelangelo.meta.metadata import ObjectMeta

__all__ = ["FREE_FORM", "Schema", "at", "field_docs", "of", "of_metadata", "of_model"]

Schema = dict[str, Any]

FREE_FORM: Final = "x-kubernetes-preserve-unknown-fields"

_FORMAT_BOUNDS: Final = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_DROPPED: Final = ("title", "$defs", "const")


def of(kind: Kind) -> Schema:
    """The schema of the kind's objects; `metadata` is just an object in it (`of_metadata` has its fields)."""
    return of_model(kind.model)


@functools.cache
def of_model(model: type[BaseModel]) -> Schema:
    """The structural schema of any document."""
    generated = model.model_json_schema(by_alias=True, schema_generator=_Structural, mode="validation")
    schema: Schema = _inlined(generated, generated.get("$defs", {}))
    if "metadata" in schema["properties"] and "apiVersion" in schema["properties"]:
        _as_root(schema)
    return schema


def of_metadata() -> Schema:
    """The schema of ObjectMeta."""
    return of_model(ObjectMeta)


def at(schema: Schema, path: str) -> Schema | None:
    """The schema of the field at a path such as `spec.manifest.triggerMap`; None where there is no such field.

    Lists and maps are walked through without index or key, with them too: `spec.steps.name`, `spec.steps[0].name`.
    """
    current = schema
    for part in fieldpath.parse(path):
        if isinstance(part, int) and current.get("type") == "array":
            current = current["items"]
            continue
        found = _element(current).get("properties", {}).get(part)
        if found is None:
            return None
        current = found
    return current


@functools.cache
def field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    """The docstrings below the fields of a model and of its bases, by the field's Python name, on one line each."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _docs_in_module(base.__module__).get(base.__qualname__, {})
    return found


class _Structural(GenerateJsonSchema):
    """pydantic's generator, but for what Kubernetes' structural schemas do not have."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        # null is the same as absent: the server takes it out before it validates.
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def any_schema(self, schema: core_schema.AnySchema) -> JsonSchemaValue:
        return {FREE_FORM: True}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {FREE_FORM: True}
        if values == {FREE_FORM: True}:
            return {"type": "object", FREE_FORM: True}
        return {"type": "object", "additionalProperties": values}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return {"type": "string", "enum": list(schema["expected"])}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        made.pop("additionalProperties", None)
        model = schema["cls"]
        docs = field_docs(cast("type[BaseModel]", model))
        for name, info in model.model_fields.items():
            field = made["properties"].get(info.alias or name)
            if field is not None and name in docs:
                # In a new document, because equal fields may share one.
                made["properties"][info.alias or name] = {**field, "description": docs[name]}
        return made


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with references replaced by what they stand for; what stands beside a reference wins."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return _inlined({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, definitions)
    inlined = {
        key: {name: _inlined(one, definitions) for name, one in value.items()}
        if key == "properties"
        else value
        if key in ("default", "enum")
        else _inlined(value, definitions)
        for key, value in schema.items()
        if key not in _DROPPED
    }
    bounds = _FORMAT_BOUNDS.get(str(inlined.get("format")))
    if bounds:
        # The format says it already.
        for key, bound in zip(("minimum", "maximum"), bounds, strict=True):
            if inlined.get(key) == bound:
                del inlined[key]
    return inlined


def _as_root(schema: Schema) -> None:
    description = schema["properties"]["metadata"].get("description", "")
    schema["properties"]["metadata"] = {"type": "object", "description": description}
    # Every client sends these two, and Kubernetes knows them without being told.
    required = [name for name in schema.get("required", []) if name not in ("apiVersion", "kind", "metadata")]
    schema.pop("required", None)
    if required:
        schema["required"] = required


def _element(schema: Schema) -> Schema:
    while True:
        if schema.get("type") == "array":
            schema = schema["items"]
        elif isinstance(schema.get("additionalProperties"), dict):
            schema = schema["additionalProperties"]
        else:
            return schema


@functools.cache
def _docs_in_module(module: str) -> Mapping[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_docs_in_class(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_in_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            yield statement.target.id, " ".join(after.value.value.split())
