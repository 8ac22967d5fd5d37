"""What is computed from the models: structural schemas, CRDs, OpenAPI, all the same facts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.api.v2 import crd, openapi, registry, schema, swagger
from michelangelo.api.v2.registry import Kind

OURS = pytest.mark.parametrize(
    "kind", [kind for kind in registry.KINDS.values() if kind.group == registry.GROUP], ids=lambda kind: str(kind.kind)
)
GROUPS = pytest.mark.parametrize(("group", "version"), openapi.group_versions())


def nodes(one: schema.Schema) -> Iterator[schema.Schema]:
    yield one
    for inner in [*one.get("properties", {}).values(), one.get("items"), one.get("additionalProperties")]:
        if isinstance(inner, dict):
            yield from nodes(inner)


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if "$ref" in document:
            yield document["$ref"]
        for inner in document.values():
            yield from references(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from references(inner)


@OURS
def test_schema_is_structural(kind: Kind) -> None:
    for node in nodes(schema.of(kind)):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "$defs", "title", "nullable", "const"} & set(node)
        assert "type" in node or node.get(schema.FREE_FORM)
        assert node.get("additionalProperties", {}) is not False
        assert not ({"properties", "additionalProperties"} <= set(node))
        assert node.get("default", 0) is not None


def test_schema_knows_defaults_enums_formats_and_free_form_data() -> None:
    pipeline, run = schema.of(registry.get("Pipeline")), schema.of(registry.get("PipelineRun"))
    manifest_type = schema.at(pipeline, "spec.manifest.type")
    assert manifest_type is not None
    assert (manifest_type["default"], manifest_type["enum"]) == ("Uniflow", ["Yaml", "Uniflow"])
    assert schema.at(run, "spec.input.kwArgs") == {
        "type": "object",
        schema.FREE_FORM: True,
        "description": "Keyword arguments of the workflow function.",
    }
    start = schema.at(run, "status.startTime")
    assert start is not None
    assert start["format"] == "date-time"
    tier = schema.at(schema.of(registry.get("Project")), "spec.tier")
    assert tier is not None
    assert (tier["minimum"], tier["maximum"], tier["format"]) == (1, 5, "int32")


@pytest.mark.parametrize(
    "path", ["spec.manifest.triggerMap.cronSchedule", "spec.notifications[0].emails", "spec.notifications.emails"]
)
def test_at_finds_fields_through_maps_and_lists(path: str) -> None:
    assert schema.at(schema.of(registry.get("Pipeline")), path) is not None


@pytest.mark.parametrize("path", ["spec.nothing", "spec.type.more", "spec.manifest.content.anything"])
def test_at_finds_no_field_where_none_is(path: str) -> None:
    assert schema.at(schema.of(registry.get("Pipeline")), path) is None


@OURS
def test_crd_says_what_the_registry_says(kind: Kind) -> None:
    manifest = crd.manifest(kind)
    (version,) = manifest["spec"]["versions"]
    assert manifest["metadata"]["name"] == f"{kind.plural}.{kind.group}"
    assert manifest["spec"]["names"]["kind"] == kind.kind
    assert manifest["spec"]["names"].get("shortNames", []) == list(kind.short_names)
    assert version.get("subresources") == ({"status": {}} if kind.status_subresource else None)
    root = version["schema"]["openAPIV3Schema"]
    assert set(root["properties"]["metadata"]) <= {"type", "properties"}
    assert "metadata" not in root.get("required", ())
    assert json.loads(json.dumps(manifest)) == manifest


def test_crd_of_a_core_kind_is_refused() -> None:
    with pytest.raises(errors.BadRequestError, match="Event"):
        crd.manifest(registry.get("Event"))
    assert [one["spec"]["names"]["kind"] for one in crd.all_manifests()] == [
        kind.kind for kind in registry.KINDS.values() if kind.group == registry.GROUP
    ]


@GROUPS
def test_openapi_references_resolve(group: str, version: str) -> None:
    document = openapi.document(group, version)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known
    assert json.loads(json.dumps(document)) == document


@GROUPS
def test_openapi_operations_have_unique_names_and_say_their_kind(group: str, version: str) -> None:
    names = []
    for path, item in openapi.document(group, version)["paths"].items():
        assert path.startswith(f"/{openapi.path_of(group, version)}/")
        assert {part for part in path.split("/") if part.startswith("{")} == {
            f"{{{one['name']}}}" for one in item["parameters"] if one["in"] == "path"
        }
        for verb, operation in item.items():
            if verb != "parameters":
                names.append(operation["operationId"])
                kind = operation["x-kubernetes-group-version-kind"]
                assert registry.KINDS[kind["kind"]].api_version == (f"{group}/{version}" if group else version)
    assert len(names) == len(set(names))


def test_openapi_verbs_take_the_parameters_that_kubectl_looks_for() -> None:
    paths = openapi.document(registry.GROUP, registry.VERSION)["paths"]
    single = paths["/apis/michelangelo.api/v2/namespaces/{namespace}/pipelines/{name}"]
    for verb in ("put", "patch"):
        assert {"dryRun", "fieldManager", "fieldValidation"} <= {one["name"] for one in single[verb]["parameters"]}
    assert set(single) == {"get", "put", "patch", "delete", "parameters"}
    assert set(paths["/apis/michelangelo.api/v2/namespaces/{namespace}/pipelines/{name}/status"]) == {
        *("get", "put", "patch", "parameters")
    }
    assert "/apis/michelangelo.api/v2/namespaces/{namespace}/taskruns/{name}/status" not in paths
    assert "/apis/michelangelo.api/v2/pipelines" in paths
    assert "/api/v1/namespaces/{name}" in openapi.document("", "v1")["paths"]


def test_openapi_definitions_are_named_as_kubernetes_names_them() -> None:
    assert openapi.definition_name(registry.get("Pipeline")) == "api.michelangelo.v2.Pipeline"
    assert openapi.definition_name(registry.get("Event")) == "io.k8s.api.core.v1.Event"
    assert openapi.definition_name(registry.get("Lease")) == "io.k8s.api.coordination.v1.Lease"


def test_swagger_says_the_same_in_the_older_form() -> None:
    document = swagger.document()
    known = {f"#/definitions/{name}" for name in document["definitions"]}
    assert set(references(document)) <= known
    assert set(document["paths"]) == {
        path for group, version in openapi.group_versions() for path in openapi.document(group, version)["paths"]
    }
    post = document["paths"]["/apis/michelangelo.api/v2/namespaces/{namespace}/pipelines"]["post"]
    assert post["parameters"][0] == {
        "name": "body",
        "in": "body",
        "schema": {"$ref": "#/definitions/api.michelangelo.v2.Pipeline"},
        "required": True,
    }
    assert all("schema" not in one or one["in"] == "body" for one in post["parameters"])
    assert "content" not in json.dumps(post["responses"])
