"""The OpenAPI v2 document of the whole API, as Kubernetes serves it at /openapi/v2: for clients older than v3.

It is translated from the v3 documents and says nothing that they do not.
"""

from __future__ import annotations

from typing import Any, Final

from michelangelo.api.v2 import openapi

__all__ = ["document"]

_VERBS: Final = ("get", "put", "post", "patch", "delete")


def document() -> dict[str, Any]:
    """All groups and versions in one."""
    parts = [openapi.document(group, version) for group, version in openapi.group_versions()]
    paths = {path: _path(item) for part in parts for path, item in part["paths"].items()}
    definitions = {name: one for part in parts for name, one in part["components"]["schemas"].items()}
    return {
        "swagger": "2.0",
        "info": parts[0]["info"],
        "paths": paths,
        "definitions": _moved(definitions),
        "securityDefinitions": parts[0]["components"]["securitySchemes"],
        "security": parts[0]["security"],
    }


def _path(item: dict[str, Any]) -> dict[str, Any]:
    verbs: dict[str, Any] = {verb: _operation(item[verb]) for verb in _VERBS if verb in item}
    return {**verbs, "parameters": [_parameter(one) for one in item["parameters"]]}


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in operation.items() if key != "requestBody"}
    parameters = [_parameter(one) for one in operation["parameters"]]
    produced = list(operation["responses"]["200"]["content"])
    body = operation.get("requestBody")
    if body is not None:
        content = next(iter(body["content"].values()))
        given = {"name": "body", "in": "body", "schema": _moved(content["schema"])}
        parameters.insert(0, {**given, "required": True} if body["required"] else given)
        kept["consumes"] = list(body["content"])
    return {
        **kept,
        "produces": produced,
        "schemes": ["https"],
        "parameters": parameters,
        "responses": {code: _response(one) for code, one in operation["responses"].items()},
    }


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {**parameter, **parameter["schema"]}
    del flat["schema"]
    return flat


def _response(response: dict[str, Any]) -> dict[str, Any]:
    content = next(iter(response.get("content", {}).values()), None)
    described: dict[str, Any] = {"description": response["description"]}
    if content is None:
        return described
    return {**described, "schema": _moved(content["schema"])}


def _moved(schema: Any) -> Any:
    """References point to the place that definitions have in v2, and stand directly beside a description there."""
    if isinstance(schema, list):
        return [_moved(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if list(schema.get("allOf", ())) and len(schema["allOf"]) == 1:
        return {**_moved(schema["allOf"][0]), "description": schema.get("description", "")}
    return {
        key: value.replace("#/components/schemas/", "#/definitions/") if key == "$ref" else _moved(value)
        for key, value in schema.items()
    }
