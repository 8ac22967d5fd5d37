"""The same requests to our server and to a real Kubernetes API server: the same codes, bodies and events."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.apiserver.differential import comparison
from tests.apiserver.differential.conftest import Answer, Site

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kubernetes")]

GROUP = "/apis/michelangelo.api/v2"
PIPELINES = f"{GROUP}/namespaces/{{ns}}/pipelines"
RUNS = f"{GROUP}/namespaces/{{ns}}/pipelineruns"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


def pipeline(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Pipeline",
        "metadata": {"name": name, "namespace": "{ns}", **metadata},
        "spec": {"type": "Train", "manifest": {"filePath": "flow.py", "uniflowFunction": "train"}},
    }


def both(sites: list[Site], method: str, path: str, body: Any = None, **options: Any) -> list[Answer]:
    """The two answers, after making sure that they are the same."""
    answers = [site.send(method, path, copy.deepcopy(body), **options) for site in sites]
    ours, theirs = answers
    assert ours.code == theirs.code, (
        f"{method} {path}: ours {ours.code} {ours.body}; theirs {theirs.code} {theirs.body}"
    )
    assert comparison.normal(ours.body) == comparison.normal(theirs.body)
    assert ours.content_type == theirs.content_type
    return answers


def versions(sites: list[Site], path: str) -> list[str]:
    """Each site's list resourceVersion."""
    return [site.send("GET", path).body["metadata"]["resourceVersion"] for site in sites]


def test_create_get_update_delete_give_the_same_answers(sites: list[Site]) -> None:
    both(sites, "POST", PIPELINES, pipeline("a", labels={"team": "x"}))
    both(sites, "GET", f"{PIPELINES}/a")
    for site in sites:
        current = site.send("GET", f"{PIPELINES}/a").body
        current["spec"]["description"] = "changed"
        updated = site.send("PUT", f"{PIPELINES}/a", current)
        assert (updated.code, updated.body["metadata"]["generation"]) == (200, 2)
    both(sites, "GET", f"{PIPELINES}/a")
    both(sites, "DELETE", f"{PIPELINES}/a")
    both(sites, "GET", f"{PIPELINES}/a")
    both(sites, "DELETE", f"{PIPELINES}/a")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", PIPELINES, pipeline("Bad_Name"), id="bad name"),
        pytest.param("POST", PIPELINES, pipeline("x" * 300), id="long name"),
        pytest.param("POST", PIPELINES, {**pipeline("a"), "kind": "Nonsense"}, id="kind of another resource"),
        pytest.param("POST", PIPELINES, {**pipeline("a"), "apiVersion": "other/v1"}, id="other apiVersion"),
        pytest.param("POST", f"{GROUP}/namespaces/default/pipelines", pipeline("a"), id="other namespace in URL"),
        pytest.param("GET", f"{PIPELINES}/missing", None, id="get missing"),
        pytest.param("DELETE", f"{PIPELINES}/missing", None, id="delete missing"),
        pytest.param("PUT", f"{PIPELINES}/missing", pipeline("missing"), id="update missing without version"),
        pytest.param("PUT", f"{PIPELINES}/a", pipeline("b"), id="name differs from URL"),
        pytest.param("POST", PIPELINES, pipeline("a", labels={"bad key!": "x"}), id="bad label key"),
        pytest.param("POST", PIPELINES, pipeline("a", labels={"k": "bad value!"}), id="bad label value"),
        pytest.param("POST", PIPELINES, {**pipeline("a"), "spec": "text"}, id="spec of a wrong type"),
        pytest.param("POST", PIPELINES, {**pipeline("a"), "spec": {"type": "Nonsense"}}, id="unknown enum value"),
        pytest.param("GET", f"{PIPELINES}?labelSelector=a%3D%3D%3Db%21", None, id="bad label selector"),
        pytest.param("GET", f"{PIPELINES}?continue=nonsense", None, id="bad continue token"),
        pytest.param("GET", f"{PIPELINES}?limit=nonsense", None, id="bad limit"),
    ],
)
def test_refusals_are_the_same(sites: list[Site], method: str, path: str, body: Any) -> None:
    both(sites, method, path, body)


@pytest.mark.parametrize(
    ("content_type", "patch"),
    [
        pytest.param(MERGE, {"spec": {"description": "new"}, "metadata": {"labels": {"a": "b"}}}, id="merge"),
        pytest.param(MERGE, {"spec": {"manifest": {"filePath": None}}}, id="merge removes"),
        pytest.param(JSON_PATCH, [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}], id="json add"),
        pytest.param(JSON_PATCH, {"not": "a list"}, id="json patch that is no list"),
        pytest.param("application/nonsense", {"spec": {}}, id="unknown content type"),
    ],
)
def test_patches_are_the_same(sites: list[Site], content_type: str, patch: Any) -> None:
    both(sites, "POST", PIPELINES, pipeline("p"))
    both(sites, "PATCH", f"{PIPELINES}/p", patch, content_type=content_type)
    both(sites, "GET", f"{PIPELINES}/p")


def test_update_with_an_old_resource_version_conflicts(sites: list[Site]) -> None:
    both(sites, "POST", PIPELINES, pipeline("a"))
    stale = []
    for site in sites:
        old = site.send("GET", f"{PIPELINES}/a").body
        first = {**old, "spec": {**old["spec"], "description": "first"}}
        assert site.send("PUT", f"{PIPELINES}/a", first).code == 200
        stale.append(site.send("PUT", f"{PIPELINES}/a", {**old, "spec": {**old["spec"], "description": "second"}}))
    assert [answer.code for answer in stale] == [409, 409]
    assert comparison.normal(stale[0].body) == comparison.normal(stale[1].body)


def test_status_is_written_through_its_subresource_only(sites: list[Site]) -> None:
    run = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "PipelineRun",
        "metadata": {"name": "r", "namespace": "{ns}"},
        "spec": {"pipeline": {"namespace": "{ns}", "name": "p"}},
        "status": {"state": "Succeeded"},
    }
    created = both(sites, "POST", RUNS, run)
    assert "state" not in created[0].body.get("status", {})
    both(sites, "PATCH", f"{RUNS}/r", {"status": {"state": "Running"}}, content_type=MERGE)
    both(sites, "GET", f"{RUNS}/r/status")
    both(sites, "PATCH", f"{RUNS}/r/status", {"status": {"state": "Running"}}, content_type=MERGE)
    got = both(sites, "GET", f"{RUNS}/r")
    assert got[0].body["status"]["state"] == "Running"
    assert got[0].body["metadata"]["generation"] == 1


def test_lists_select_and_page_alike(sites: list[Site]) -> None:
    for number in range(7):
        both(sites, "POST", PIPELINES, pipeline(f"p{number}", labels={"parity": "odd" if number % 2 else "even"}))
    for query in (
        "",
        "?labelSelector=parity%3Dodd",
        "?labelSelector=parity%20notin%20(odd)",
        "?labelSelector=!parity",
        "?labelSelector=parity%20in%20(odd,even),parity!%3Dodd",
        "?fieldSelector=metadata.name%3Dp3",
        "?fieldSelector=metadata.name!%3Dp3",
        "?fieldSelector=metadata.namespace%3D{ns}",
    ):
        both(sites, "GET", PIPELINES + query)
    pages = []
    for site in sites:
        names, token = [], ""
        while True:
            page = site.send("GET", f"{PIPELINES}?limit=3&continue={token}").body
            names.append([item["metadata"]["name"] for item in page["items"]])
            token = page["metadata"].get("continue", "")
            names.append(page["metadata"].get("remainingItemCount"))
            if not token:
                break
        pages.append(names)
    assert pages[0] == pages[1]
    assert pages[0] == [["p0", "p1", "p2"], 4, ["p3", "p4", "p5"], 1, ["p6"], None]


def test_watches_see_the_same_events(sites: list[Site]) -> None:
    streams = []
    for site in sites:
        start = site.send("GET", PIPELINES).body["metadata"]["resourceVersion"]
        site.send("POST", PIPELINES, pipeline("a", labels={"in": "yes"}))
        site.send("PATCH", f"{PIPELINES}/a", {"spec": {"description": "1"}}, content_type=MERGE)
        site.send("PATCH", f"{PIPELINES}/a", {"metadata": {"labels": {"in": "no"}}}, content_type=MERGE)
        site.send("PATCH", f"{PIPELINES}/a", {"metadata": {"labels": {"in": "yes"}}}, content_type=MERGE)
        site.send("DELETE", f"{PIPELINES}/a")
        everything = site.watch(PIPELINES, resource_version=start, count=5)
        selected = site.watch(f"{PIPELINES}?labelSelector=in%3Dyes", resource_version=start, count=5)
        named = site.watch(f"{PIPELINES}?fieldSelector=metadata.name%3Da", resource_version=start, count=5)
        streams.append([[comparison.normal_event(e) for e in part] for part in (everything, selected, named)])
    assert streams[0] == streams[1]
    assert [e["type"] for e in streams[0][1]] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]


def test_dry_run_answers_and_keeps_nothing(sites: list[Site]) -> None:
    both(sites, "POST", f"{PIPELINES}?dryRun=All", pipeline("dry"))
    both(sites, "GET", f"{PIPELINES}/dry")
    both(sites, "POST", PIPELINES, pipeline("real"))
    both(sites, "PATCH", f"{PIPELINES}/real?dryRun=All", {"spec": {"description": "x"}}, content_type=MERGE)
    both(sites, "DELETE", f"{PIPELINES}/real?dryRun=All")
    both(sites, "GET", f"{PIPELINES}/real")


def test_finalizers_hold_an_object_until_they_are_gone(sites: list[Site]) -> None:
    both(sites, "POST", PIPELINES, pipeline("held", finalizers=["example.com/hold"]))
    both(sites, "DELETE", f"{PIPELINES}/held")
    held = both(sites, "GET", f"{PIPELINES}/held")
    assert all("deletionTimestamp" in answer.body["metadata"] for answer in held)
    both(sites, "PATCH", f"{PIPELINES}/held", {"metadata": {"finalizers": ["example.com/other"]}}, content_type=MERGE)
    both(sites, "PATCH", f"{PIPELINES}/held", {"metadata": {"finalizers": []}}, content_type=MERGE)
    both(sites, "GET", f"{PIPELINES}/held")


def test_delete_options_and_preconditions(sites: list[Site]) -> None:
    both(sites, "POST", PIPELINES, pipeline("a"))
    wrong = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "00000000-0000-0000-0000-000000000000"},
    }
    answers = [site.send("DELETE", f"{PIPELINES}/a", wrong) for site in sites]
    assert [answer.code for answer in answers] == [409, 409]
    foreground = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    both(sites, "DELETE", f"{PIPELINES}/a", foreground)
    held = both(sites, "GET", f"{PIPELINES}/a")
    assert held[0].body["metadata"]["finalizers"] == ["foregroundDeletion"]


def test_delete_collection_takes_a_selector(sites: list[Site]) -> None:
    for name, team in (("a", "x"), ("b", "y"), ("c", "x")):
        both(sites, "POST", PIPELINES, pipeline(name, labels={"team": team}))
    codes = [site.send("DELETE", f"{PIPELINES}?labelSelector=team%3Dx").code for site in sites]
    assert codes == [200, 200]
    left = both(sites, "GET", PIPELINES)
    assert [item["metadata"]["name"] for item in left[0].body["items"]] == ["b"]


def test_tables_have_the_same_rows(sites: list[Site]) -> None:
    both(sites, "POST", PIPELINES, pipeline("a"))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    tables = [site.send("GET", PIPELINES, accept=accept).body for site in sites]
    for table in tables:
        assert table["kind"] == "Table"
        for row in table["rows"]:
            row["cells"] = row["cells"][:-1]  # ages differ by the time of the request
            row["object"] = comparison.normal(row["object"])
    shape = [[(c["name"], c["type"], c["priority"]) for c in table["columnDefinitions"]] for table in tables]
    assert shape[0] == shape[1]
    assert [row["cells"][0] for row in tables[0]["rows"]] == [row["cells"][0] for row in tables[1]["rows"]]


def test_discovery_names_the_same_resources(sites: list[Site]) -> None:
    ours, theirs = (site.send("GET", GROUP).body for site in sites)
    assert (ours["kind"], ours["groupVersion"]) == (theirs["kind"], theirs["groupVersion"])

    def table(document: dict[str, Any]) -> dict[str, Any]:
        keys = ("kind", "namespaced", "singularName")
        return {r["name"]: [r.get(key) for key in keys] for r in document["resources"]}

    assert table(ours) == table(theirs)
    verbs = [{r["name"]: set(r["verbs"]) for r in document["resources"]} for document in (ours, theirs)]
    assert verbs[0] == verbs[1]


def test_generate_name_makes_a_new_name_each_time(sites: list[Site]) -> None:
    body = pipeline("x")
    del body["metadata"]["name"]
    body["metadata"]["generateName"] = "gen-"
    for site in sites:
        names = {site.send("POST", PIPELINES, body).body["metadata"]["name"] for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("gen-") and len(name) == len("gen-") + 5 for name in names)
