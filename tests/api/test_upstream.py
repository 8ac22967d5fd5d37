"""YAML written for the upstream project is accepted, and comes out in the canonical form, which stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo.api.v2 import registry

FILES = sorted((Path(__file__).parent / "upstream").glob("*.yaml"))


def canonical(name: str) -> dict[str, Any]:
    document = yaml.safe_load((Path(__file__).parent / "upstream" / f"{name}.yaml").read_text())
    return registry.get(document["kind"]).model.check(document).object


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_upstream_document_is_accepted_and_its_canonical_form_stays(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    model = registry.get(document["kind"]).model
    found = model.check(document)
    assert (found.errors, found.unknown) == ((), ())
    again = model.check(found.object)
    assert (again.object, again.errors, again.unknown) == (found.object, (), ())


def test_upstream_enum_names_become_short_ones() -> None:
    pipeline, run = canonical("pipeline"), canonical("pipeline_run")
    assert pipeline["spec"]["type"] == "Train"
    assert pipeline["spec"]["manifest"]["type"] == "Uniflow"
    assert run["status"]["state"] == "Running"
    assert run["spec"]["notifications"] == [
        {
            "notificationType": "Email",
            "resourceType": "PipelineRun",
            "eventTypes": ["PipelineRunFailed"],
            "emails": ["someone@example.com"],
            "slackDestinations": ["#chan"],
        }
    ]
    assert canonical("cached_output")["spec"]["storageType"] == "S3"
    assert canonical("project")["spec"]["retentionConfig"]["notificationControl"] == "NotificationOff"


def test_upstream_snake_case_becomes_camel_case_but_not_in_what_is_the_users() -> None:
    run = canonical("pipeline_run")
    assert run["spec"]["input"] == {
        "environ": {"LOG_LEVEL": "debug"},
        "kwArgs": {"path": "glue", "some_key": {"inner_key": None}},
        "args": [],
        "taskConfigs": {},
        "workflowConfig": {},
    }
    project = canonical("project")["spec"]
    assert project["gitRepo"] == "https://git.example.com/team/repo"
    assert project["typeInfo"] == {"isCoreMl": True, "isGenerativeAi": False}
    assert canonical("revision")["spec"]["content"] == {"some_key": {"inner_key": 1}}
    parameters = canonical("pipeline")["spec"]["manifest"]["triggerMap"]["every-minute"]["parametersMap"]["first"]
    assert parameters["kwArgs"] == {"learning_rate": 0.1, "nested_value": {"snake_case": [1, None]}}


def test_upstream_condition_becomes_one_of_kubernetes() -> None:
    assert canonical("pipeline_run")["status"]["conditions"] == [
        {
            "type": "WorkflowExecuted",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T12:00:00Z",
        }
    ]


def test_upstream_zero_values_of_enums_are_the_same_as_absent() -> None:
    assert canonical("project")["status"] == {"state": "Ready"}


def test_upstream_zero_value_is_the_default_where_there_is_one_and_missing_where_it_is_required() -> None:
    model = registry.get("Pipeline").model
    metadata = {"name": "a", "namespace": "a"}
    document = {"apiVersion": "michelangelo.api/v2", "kind": "Pipeline", "metadata": metadata}
    found = model.check({**document, "spec": {"manifest": {"type": "PIPELINE_MANIFEST_TYPE_INVALID"}}})
    assert found.object["spec"] == {"manifest": {"type": "Uniflow"}}
    conditions = [{"type": "Ready", "status": "CONDITION_STATUS_INVALID"}]
    (error,) = model.check({**document, "spec": {"manifest": {}}, "status": {"conditions": conditions}}).errors
    assert str(error) == "status.conditions[0].status: Required value"
