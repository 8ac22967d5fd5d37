"""The differences that stay, each shown against the real server, so that the list in comparison.py does not rot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.apiserver.differential import comparison
from tests.apiserver.differential.conftest import Answer, Site
from tests.apiserver.differential.test_same_answers import GROUP, JSON_PATCH, MERGE, PIPELINES, RUNS, pipeline

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kubernetes")]


def code(answer: Answer) -> Any:
    return answer.code


def form(answer: Answer) -> Any:
    return (answer.code, answer.content_type)


def cause_fields(answer: Answer) -> Any:
    return (answer.code, [cause["field"] for cause in answer.body.get("details", {}).get("causes", [])])


def unknown_resource(site: Site) -> Any:
    return form(site.send("GET", f"{GROUP}/namespaces/{{ns}}/nonsense"))


def version_on_create(site: Site) -> Any:
    return code(site.send("POST", PIPELINES, pipeline("a", resourceVersion="1")))


def failing_json_patch(site: Site) -> Any:
    site.send("POST", PIPELINES, pipeline("a"))
    patch = [{"op": "test", "path": "/spec/type", "value": "Eval"}]
    return cause_fields(site.send("PATCH", f"{PIPELINES}/a", patch, content_type=JSON_PATCH))


def list_as_merge_patch(site: Site) -> Any:
    site.send("POST", PIPELINES, pipeline("a"))
    return code(site.send("PATCH", f"{PIPELINES}/a", ["not an object"], content_type=MERGE))


def nonsense_dry_run(site: Site) -> Any:
    answer = site.send("POST", f"{PIPELINES}?dryRun=Nonsense", pipeline("dry"))
    return (answer.code, answer.body.get("details", {}).get("kind", ""))


def changed_run(site: Site) -> Any:
    run = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "PipelineRun",
        "metadata": {"name": "r", "namespace": "{ns}"},
        "spec": {"pipeline": {"namespace": "{ns}", "name": "p"}},
    }
    site.send("POST", RUNS, run)
    patch = {"spec": {"pipeline": {"name": "other"}}}
    return code(site.send("PATCH", f"{RUNS}/r", patch, content_type=MERGE))


def unknown_field(site: Site) -> Any:
    body = pipeline("a")
    body["spec"]["nonsense"] = 1
    answer = site.send("POST", f"{PIPELINES}?fieldValidation=Strict", body)
    return (answer.code, "nonsense" in answer.body.get("spec", {}))


def project_elsewhere(site: Site) -> Any:
    body = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Project",
        "metadata": {"name": "of-another-name", "namespace": "{ns}"},
        "spec": {"description": "d", "owner": {"owningTeam": "t"}, "tier": 3},
    }
    return code(site.send("POST", f"{GROUP}/namespaces/{{ns}}/projects", body))


def no_token(site: Site) -> Any:
    return site.pool.request("GET", f"{site.url}{GROUP}/pipelines", retries=False).status


SHOWN: Final[dict[str, tuple[Callable[[Site], Any], Any, Any]]] = {
    "status-everywhere": (unknown_resource, (404, "application/json"), (404, "text/plain")),
    "version-on-create": (version_on_create, 400, 500),
    "patch-causes": (failing_json_patch, (422, ["/spec/type"]), (422, [])),
    "patch-form": (list_as_merge_patch, 400, 422),
    "option-details": (nonsense_dry_run, (422, ""), (422, "CreateOptions")),
    "immutable-spec": (changed_run, 422, 200),
    "unknown-field": (unknown_field, (400, False), (201, False)),
    "namespace-project": (project_elsewhere, 422, 201),
    "anonymous": (no_token, 401, 403),
}


@pytest.mark.parametrize("difference", sorted(comparison.DIFFERENCES))
def test_difference_is_still_there(sites: list[Site], difference: str) -> None:
    show, ours, theirs = SHOWN[difference]
    assert [show(site) for site in sites] == [ours, theirs], comparison.DIFFERENCES[difference]
