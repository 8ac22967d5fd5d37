"""Validation: every wrong field at once, each with its path and Kubernetes' words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo.api.v2 import project, registry, trigger
from michelangelo.api.v2.resource import Validated

GOOD: dict[str, dict[str, Any]] = {
    "Project": {},
    "Pipeline": {"manifest": {}},
    "PipelineRun": {"pipeline": {"name": "p"}},
    "TaskRun": {"pipelineRun": "r", "step": "s", "attempt": 1},
    "Signal": {"pipelineRun": "r", "name": "approved"},
    "CachedOutput": {},
}


def check(kind: str, spec: Any = None, **fields: Any) -> Validated:
    metadata = fields.pop("metadata", {"name": "a", "namespace": "a"})
    found = registry.get(kind)
    document = {"apiVersion": found.api_version, "kind": kind, "metadata": metadata, **fields}
    return found.model.check({**document, "spec": {**GOOD[kind], **spec} if isinstance(spec, dict) else spec})


BAD_SPECS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "bad_specs.yaml").read_text())


@pytest.mark.parametrize("case", BAD_SPECS, ids=lambda case: f"{case['kind']}-{'-'.join(case['spec'])}")
def test_bad_spec_gives_exactly_these_errors(case: dict[str, Any]) -> None:
    found = check(case["kind"], case["spec"])
    assert [str(error) for error in found.errors] == case["errors"]
    assert found.object == {}


@pytest.mark.parametrize("kind", ["Pipeline", "PipelineRun", "TaskRun", "Signal", "CachedOutput"])
def test_missing_spec_is_required(kind: str) -> None:
    assert [str(error) for error in check(kind).errors] == ["spec: Required value"]


def test_missing_spec_of_a_project_is_an_empty_one() -> None:
    assert check("Project").object["spec"] == {}


def test_wrong_metadata_and_wrong_spec_are_told_together() -> None:
    metadata = {"name": "A_b", "namespace": "a", "labels": {"x": " "}}
    found = check("PipelineRun", {"kill": 1}, metadata=metadata)
    assert [error.path for error in found.errors] == ["metadata.name", "metadata.labels", "spec.kill"]


def test_wrong_types_in_metadata_are_told() -> None:
    found = check("Project", {}, metadata={"name": 5, "namespace": "a", "labels": ["x"]})
    assert [str(error) for error in found.errors] == [
        'metadata.name: Invalid value: "integer": metadata.name in body must be of type string: "integer"',
        'metadata.labels: Invalid value: "array": metadata.labels in body must be of type object: "array"',
    ]
    (error,) = check("Project", {}, metadata=None).errors
    assert str(error) == "metadata: Required value"


@pytest.mark.parametrize("kind", ["Project", "Pipeline", "PipelineRun"])
def test_name_that_becomes_a_label_is_a_dns_label(kind: str) -> None:
    for name in ("a.b", "a" * 64):
        (error,) = check(kind, {}, metadata={"name": name, "namespace": "a"}).errors
        assert error.path == "metadata.name"


def test_signal_name_is_the_value_of_a_label() -> None:
    (error,) = check("Signal", {"name": "not a label"}).errors
    assert error.path == "spec.name"


def test_unknown_fields_are_told_and_left_out() -> None:
    found = check("PipelineRun", {"pipelin": 1, "input": {"kwArg": {}, "kw_args": {"any_thing": 1}}}, extra=1)
    assert found.errors == ()
    assert found.unknown == ("spec.input.kwArg", "spec.pipelin", "extra")
    assert found.object["spec"] == {"pipeline": {"name": "p"}, "input": {"kwArgs": {"any_thing": 1}}}


def test_unknown_field_beside_a_wrong_one_hides_neither() -> None:
    found = check("PipelineRun", {"pipelin": 1, "kill": 1})
    assert found.unknown == ("spec.pipelin",)
    assert [error.path for error in found.errors] == ["spec.kill"]


def test_null_is_the_same_as_absent() -> None:
    found = check("Pipeline", {"manifest": {"type": None, "triggerMap": None}, "type": None}, status=None)
    assert found.object["spec"] == {"manifest": {"type": "Uniflow"}}
    assert "status" not in found.object


def test_what_clients_send_and_nobody_keeps_is_accepted() -> None:
    metadata: dict[str, Any] = {
        "name": "a",
        "namespace": "a",
        "creationTimestamp": None,
        "labels": {},
        "selfLink": "/x",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    }
    found = check("Project", {}, metadata=metadata, status={})
    assert (found.errors, found.unknown) == ((), ())
    assert found.object["metadata"] == {"name": "a", "namespace": "a"}


def test_deep_document_is_one_clear_error() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    (error,) = check("PipelineRun", {"input": {"args": deep}}).errors
    assert str(error) == "must not be nested deeper than 100 levels"
    while isinstance(deep, list):
        deep = deep.pop()


def test_large_document_is_accepted() -> None:
    found = check("PipelineRun", {"input": {"kwArgs": {"rows": [{"a": [1, 2, 3]}] * 20_000}}})
    assert found.errors == ()
    assert len(found.object["spec"]["input"]["kwArgs"]["rows"]) == 20_000


def test_errors_are_bounded_however_many_fields_are_wrong() -> None:
    assert (
        len(check("PipelineRun", {"resume": {"pipelineRun": {"name": "r"}, "resumeFrom": [1] * 5_000}}).errors) == 100
    )
    (error,) = check("PipelineRun", {"resume": {"pipelineRun": {"name": "r"}, "resumeFrom": [1] * 50_000}}).errors
    assert str(error) == "has 50000 wrong fields, too many to list"


def test_long_wrong_value_is_cut_in_the_message() -> None:
    (error,) = check("PipelineRun", {"action": "x" * 100_000}).errors
    assert len(error.message) < 500


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"name": "a", "namespace": "a"}, None),
        ({"name": "a", "namespace": "b"}, "metadata.namespace"),
        ({"name": "default", "namespace": "default"}, "metadata.name"),
        ({"name": "kube-x", "namespace": "kube-x"}, "metadata.name"),
    ],
)
def test_project_lies_in_the_namespace_of_its_name(metadata: dict[str, Any], path: str | None) -> None:
    assert [error.path for error in project.check_placement(metadata)] == ([path] if path else [])


@pytest.mark.parametrize("cron", ["* * * * *", "*/5 0-12/2 1,15 jan-MAR mon", "0 8 * * 7", "59 23 31 12 sun,sat"])
def test_cron_expression_is_good(cron: str) -> None:
    assert trigger.check_cron(cron) == []


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "@daily",
        "* " * 500,
    ],
)
def test_cron_expression_is_refused(cron: str) -> None:
    assert len(trigger.check_cron(cron)) == 1


def test_event_is_in_the_namespace_of_its_object() -> None:
    event = registry.get("Event").model
    document = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "a"}}
    (error,) = event.check({**document, "involvedObject": {"namespace": "b"}}).errors
    assert str(error) == 'involvedObject.namespace: Invalid value: "b": does not match event.namespace'
