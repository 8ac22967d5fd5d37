"""What people read: tables, explanations, templates."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from michelangelo import errors
from michelangelo.api.v2 import columns, explain, registry, template
from michelangelo.api.v2.registry import Kind

KINDS = pytest.mark.parametrize("kind", registry.KINDS.values(), ids=lambda kind: str(kind.kind))
NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
RUN: dict[str, Any] = {
    "metadata": {"name": "run-1", "creationTimestamp": "2026-01-31T11:55:00Z"},
    "spec": {"pipeline": {"name": "p"}},
    "status": {"state": "Running", "startTime": "2026-01-31T11:59:00Z", "stepCounts": {"total": 3}},
}


def test_cells_are_values_and_ages_and_none_for_what_is_absent() -> None:
    kind = registry.get("PipelineRun")
    shown = dict(zip([one.name for one in columns.columns(kind)], columns.cells(kind, RUN, NOW), strict=True))
    assert shown == {
        "Name": "run-1",
        "Pipeline": "p",
        "State": "Running",
        "Steps": 3,
        "Started": "60s",
        "Ended": None,
        "Revision": None,
        "Actor": None,
        "Message": None,
        "Age": "5m",
    }


def test_cell_of_another_type_than_its_column_is_none() -> None:
    kind = registry.get("PipelineRun")
    strange = {"metadata": {"name": "a", "creationTimestamp": 5}, "status": {"stepCounts": {"total": "many"}}}
    assert columns.cells(kind, strange, NOW)[3] is None
    assert columns.cells(kind, strange, NOW)[-1] is None


def test_table_is_that_of_kubernetes() -> None:
    kind = registry.get("PipelineRun")
    table = columns.table(kind, [RUN], NOW, metadata={"resourceVersion": "7"})
    assert (table["kind"], table["apiVersion"], table["metadata"]) == (
        "Table",
        "meta.k8s.io/v1",
        {"resourceVersion": "7"},
    )
    assert table["columnDefinitions"][0]["format"] == "name"
    assert {one["priority"] for one in table["columnDefinitions"]} == {0, 1}
    (row,) = table["rows"]
    assert len(row["cells"]) == len(table["columnDefinitions"])
    assert row["object"]["kind"] == "PartialObjectMetadata"
    later = columns.table(kind, [RUN], NOW, metadata={}, include_object="None", with_definitions=False)
    assert (later["columnDefinitions"], "object" in later["rows"][0]) == ([], False)
    assert columns.table(kind, [RUN], NOW, metadata={}, include_object="Object")["rows"][0]["object"] == RUN


@pytest.mark.parametrize(("cell", "text"), [(None, ""), (True, "true"), (3, "3"), ("x", "x"), (0.5, "0.5")])
def test_cell_as_text(cell: columns.Cell, text: str) -> None:
    assert columns.text(cell) == text


def test_explain_shows_a_field_its_values_and_what_is_in_it() -> None:
    text = explain.explain(registry.get("Pipeline"), "spec.manifest")
    assert text.startswith(
        "GROUP:      michelangelo.api\nKIND:       Pipeline\nVERSION:    v2\n\nFIELD: manifest <Object>\n"
    )
    assert "  triggerMap\t<map[string]Object>\n    Triggers by name: when the pipeline runs by itself.\n" in text
    assert "  type\t<string>\n  enum: Yaml, Uniflow\n" in text
    assert "ENUM:\n    Yaml\n    Uniflow\n" in explain.explain(registry.get("Pipeline"), "spec.manifest.type")
    assert "pipelineRun\t<string> -required-" in explain.explain(registry.get("TaskRun"), "spec")
    assert explain.explain(registry.get("Event")).startswith("KIND:       Event\n")
    assert "ownerReferences" in explain.explain(registry.get("Pipeline"), "metadata")


def test_explain_recursive_shows_all_fields_without_descriptions() -> None:
    text = explain.explain(registry.get("Pipeline"), recursive=True)
    assert "          cron\t<string> -required-\n" in text
    assert "Triggers by name" not in text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "spec.manifest.foo.bar",
            r'field "foo" does not exist in pipeline.spec.manifest; it has content, environments, filePath',
        ),
        ("foo", r'field "foo" does not exist in pipeline; it has apiVersion, kind, metadata, spec, status'),
        ("spec.type.x", r'field "x" does not exist in pipeline.spec.type; it has no fields of its own'),
    ],
)
def test_explain_of_no_field_says_which_there_are(path: str, message: str) -> None:
    with pytest.raises(errors.NotFoundError, match=message):
        explain.explain(registry.get("Pipeline"), path)


def test_explain_of_no_path_is_a_bad_request() -> None:
    with pytest.raises(errors.BadRequestError, match="field path"):
        explain.explain(registry.get("Pipeline"), "spec..type")


@KINDS
def test_template_is_valid_as_it_stands(kind: Kind) -> None:
    text = template.template(kind)
    found = kind.model.check(yaml.safe_load(text))
    assert (found.errors, found.unknown) == ((), ())
    assert max(map(len, text.splitlines())) <= 120


@KINDS
def test_template_is_valid_yaml_with_one_comment_mark_taken_off(kind: Kind) -> None:
    head, _, body = template.template(kind).partition("apiVersion:")
    opened = "apiVersion:" + re.sub(r"^( *)# (?=#|[A-Za-z]+:( |$)| )", r"\1", body, flags=re.MULTILINE)
    document = yaml.safe_load(opened)
    assert head.startswith("# ")
    assert set(document) <= {"apiVersion", "kind", "metadata", *explain.full(kind)["properties"]}
    assert kind.model.check(document).unknown == ()


def test_template_takes_names() -> None:
    document = yaml.safe_load(template.template(registry.get("Pipeline"), name="p", namespace="n"))
    assert document["metadata"] == {"name": "p", "namespace": "n"}
    project = yaml.safe_load(template.template(registry.get("Project"), name="p"))
    assert project["metadata"] == {"name": "p", "namespace": "p"}
