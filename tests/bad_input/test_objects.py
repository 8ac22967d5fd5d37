"""Wrong objects and wrong verbs on a server, by `mactl` and by HTTP: said with the place, and nothing is stored."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.bad_input.conftest import as_yaml, document, until

if TYPE_CHECKING:
    from tests.bad_input.conftest import Served

PIPELINES = "/apis/michelangelo.api/v2/namespaces/local/pipelines"
RUNS = "/apis/michelangelo.api/v2/namespaces/local/pipelineruns"
MANIFEST = {"filePath": "flow.py", "uniflowFunction": "flow"}
GOOD = document("Pipeline", "good", {"manifest": MANIFEST}, namespace="local")

LAUGHS = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


def settled(served: Served, path: str) -> dict[str, Any]:
    """The object when its controller has nothing more to do with it."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = served.send("GET", path).json
        return found if found.get("status", {}).get("state") in ("Ready", "Error", "Killed") else None

    found: dict[str, Any] = until(look)
    return found


@pytest.mark.parametrize(
    ("wrong", "line", "words"),
    [
        pytest.param(
            {**GOOD, "kind": "Widget"}, 12, ["there is no kind 'Widget'; the kinds are", "Pipeline"], id="kind"
        ),
        pytest.param({**GOOD, "apiVersion": "v9"}, 12, ["'v9' has no Pipeline; write apiVersion:"], id="version"),
        pytest.param(
            document("Pipeline", "wrong", {"manifest": MANIFEST, "colour": "red"}, namespace="local"),
            20,
            ["unknown field 'spec.colour'"],
            id="field",
        ),
        pytest.param(
            document("Pipeline", "wrong", {"manifest": MANIFEST, "type": "Fly"}, namespace="local"),
            20,
            ['spec.type: Unsupported value: "Fly": supported values: "Train"'],
            id="enum",
        ),
        pytest.param(
            document("Pipeline", "wrong", {"manifest": {"filePath": 7}}, namespace="local"),
            18,
            ["spec.manifest.filePath", "must be of type string"],
            id="type",
        ),
        pytest.param(
            document("Pipeline", "Not_a.label", {"manifest": MANIFEST}, namespace="local"),
            14,
            ['metadata.name: Invalid value: "Not_a.label"', "lower case alphanumeric characters"],
            id="name",
        ),
        pytest.param({"kind": "Pipeline", "metadata": {"name": "x"}}, 11, ["apiVersion is missing"], id="no version"),
        pytest.param({**GOOD, "metadata": {}}, 11, ["metadata.name is missing"], id="no name"),
    ],
)
def test_wrong_object_is_named_by_file_and_line_and_the_good_one_beside_it_waits(
    served: Served, wrong: dict[str, Any], line: int, words: list[str]
) -> None:
    desk = served.desk
    desk.write("objects.yaml", as_yaml(GOOD, wrong))
    with desk.unchanged():
        said = desk.mactl("apply", "-f", "objects.yaml").refused(2, *words)
    assert f"objects.yaml:{line}: " in said


def test_all_wrong_fields_are_named_at_once(served: Served) -> None:
    spec = {"manifest": {"filePath": 7}, "type": "Fly", "colour": "red"}
    served.desk.write("wrong.yaml", as_yaml(document("Pipeline", "Wrong", spec, namespace="local")))
    with served.desk.unchanged():
        said = served.desk.mactl("apply", "-f", "wrong.yaml").refused(2)
    assert len(said.splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(LAUGHS, ["wrong.yaml:6: holds more than 200000 values, aliases expanded"], id="billion laughs"),
        pytest.param("[" * 50_000, ["wrong.yaml:1: is nested deeper than 100 levels"], id="deep"),
        pytest.param("a: " + "x" * 4_000_000, ["wrong.yaml: is larger than 3145728 bytes"], id="huge"),
        pytest.param("kind: Pipeline\n\tname: x\n", ["wrong.yaml:2: found a tab"], id="no YAML"),
        pytest.param("a: 1\na: 2\n", ["wrong.yaml:2: 'a' is given twice"], id="a key twice"),
        pytest.param("a: !!python/object:os.system {}", ["wrong.yaml:1: could not determine"], id="python object"),
    ],
)
def test_yaml_out_of_bounds_is_refused_before_anything_is_built(served: Served, text: str, words: list[str]) -> None:
    served.desk.write("wrong.yaml", text)
    with served.desk.unchanged():
        served.desk.mactl("apply", "-f", "wrong.yaml").refused(2, *words)


@pytest.mark.parametrize(
    ("body", "content_type", "code", "words"),
    [
        pytest.param(LAUGHS.encode(), "application/yaml", 413, "aliases", id="billion laughs"),
        pytest.param(b"[" * 50_000, "application/yaml", 400, "nested deeper", id="deep YAML"),
        pytest.param(b'{"a":' * 50_000, "application/json", 400, "not JSON", id="deep JSON"),
        pytest.param(b"x" * (3 * 1024 * 1024 + 1), "application/json", 413, "limit is 3145728", id="body"),
        pytest.param({**GOOD, "kind": "Widget"}, "application/json", 422, "must be Pipeline", id="kind"),
        pytest.param({**GOOD, "spec": {"type": "Fly"}}, "application/json", 422, "Unsupported value", id="enum"),
        pytest.param({**GOOD, "spec": []}, "application/json", 422, "spec", id="type"),
    ],
)
def test_request_out_of_bounds_gets_a_status(
    served: Served, body: Any, content_type: str, code: int, words: str
) -> None:
    with served.desk.unchanged():
        reply = served.send("POST", PIPELINES, body, content_type=content_type)
    assert (reply.code, reply.json["kind"], reply.json["code"]) == (code, "Status", code)
    assert words in reply.json["message"]
    assert served.send("GET", "/readyz").code == 200


def test_unknown_field_is_refused_over_http_when_it_is_asked_for(served: Served) -> None:
    with served.desk.unchanged():
        wrong = {**GOOD, "spec": {"manifest": MANIFEST, "colour": "red"}}
        reply = served.send("POST", f"{PIPELINES}?fieldValidation=Strict", wrong)
    assert reply.code == 400
    assert "spec.colour" in reply.json["message"]


def test_racing_updates_of_one_version_let_one_win(served: Served) -> None:
    made = served.send("POST", PIPELINES, document("Pipeline", "raced", {"manifest": MANIFEST})).json
    live = served.send("GET", f"{PIPELINES}/raced").json
    replies: list[Any] = []
    barrier = threading.Barrier(4)

    def update(number: int) -> None:
        barrier.wait()
        new = {**live, "spec": {**live["spec"], "description": f"by {number}"}}
        replies.append((number, served.send("PUT", f"{PIPELINES}/raced", new)))

    threads = [threading.Thread(target=update, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [number for number, reply in replies if reply.code == 200]
    lost = [reply.json for _, reply in replies if reply.code != 200]
    assert made["metadata"]["name"] == "raced"
    assert len(won) <= 1  # none, if the controller was faster than all of them
    assert {(status["code"], status["reason"]) for status in lost} == {(409, "Conflict")}
    assert all("the object has been modified" in status["message"] for status in lost)
    spec = settled(served, f"{PIPELINES}/raced")["spec"]
    assert spec.get("description") == (f"by {won[0]}" if won else live["spec"].get("description"))


def test_edit_of_what_changed_meanwhile_keeps_the_text(served: Served) -> None:
    desk = served.desk
    desk.write("edited.yaml", as_yaml(document("Project", "edited", {"tier": 3})))
    assert desk.mactl("apply", "-f", "edited.yaml").code == 0
    other = f"{sys.executable} -m michelangelo.cli apply -f other.yaml >other.log"
    desk.write("other.yaml", as_yaml(document("Project", "edited", {"tier": 1})))
    desk.write("editor.sh", f"#!/bin/sh\nsed -i 's/tier: 3/tier: 2/' $1\n{other}\n").chmod(0o755)
    result = desk.mactl("edit", "project/edited", "-n", "edited", EDITOR="./editor.sh")
    said = result.refused(1, "the object has been modified", "your text is in ")
    kept = said.split("your text is in ")[1].strip()
    with open(kept) as file:
        assert "tier: 2" in file.read()
    assert settled(served, "/apis/michelangelo.api/v2/namespaces/edited/projects/edited")["spec"]["tier"] == 1


def test_immutable_spec_is_refused_with_its_line(served: Served) -> None:
    run = document("PipelineRun", "run-1", {"pipelineSpec": {"manifest": MANIFEST}}, namespace="local")
    assert served.send("POST", RUNS, {**run, "spec": {**run["spec"], "kill": True}}).code == 201
    served.desk.write("run.yaml", as_yaml({**run, "spec": {**run["spec"], "kill": True, "description": "other"}}))
    before = settled(served, f"{RUNS}/run-1")["spec"]
    result = served.desk.mactl("apply", "-f", "run.yaml")
    result.refused(2, 'run.yaml:12: spec.description: Invalid value: "other": field is immutable')
    assert served.send("GET", f"{RUNS}/run-1").json["spec"] == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["delete", "pipeline", "gone"], 1, 'pipelines.michelangelo.api "gone" not found; `mactl get pipelines -A`'),
        (["get", "pipeline", "gone"], 1, 'pipelines.michelangelo.api "gone" not found; `mactl get pipelines -A`'),
        (["pipeline", "run", "gone"], 1, 'pipelines.michelangelo.api "gone" not found; `mactl get pipelines -A`'),
        (["pipeline_run", "kill", "gone", "--yes"], 1, '"gone" not found; `mactl get pipelineruns -A`'),
        (["logs", "gone"], 1, "gone"),
        (["delete", "widget", "gone"], 2, "there is no kind 'widget'; the kinds are: cached_output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_verb_on_what_is_missing_says_where_to_look(served: Served, words: list[str], code: int, said: str) -> None:
    with served.desk.unchanged():
        served.desk.mactl(*words).refused(code, said)


def test_object_that_is_too_large_to_apply_is_refused(served: Served) -> None:
    spec = {"manifest": MANIFEST, "description": "x" * 300_000}
    served.desk.write("large.yaml", as_yaml(document("Pipeline", "large", spec, namespace="local")))
    with served.desk.unchanged():
        result = served.desk.mactl("apply", "-f", "large.yaml")
        reply = served.send("POST", PIPELINES, document("Pipeline", "large", {**spec, "description": "x" * 1_600_000}))
    result.refused(2, "large.yaml:1: it is 3001", "bytes as JSON, and `apply` takes at most 262144", "put large data")
    assert reply.code == 413
    assert "Put large data into a blob" in reply.json["message"]


def test_object_for_a_missing_project_is_refused(served: Served) -> None:
    served.desk.write("lost.yaml", as_yaml({**GOOD, "metadata": {"name": "lost", "namespace": "nowhere"}}))
    with served.desk.unchanged():
        result = served.desk.mactl("apply", "-f", "lost.yaml")
    result.refused(2, "lost.yaml:5: there is no project nowhere; make it first: mactl template project --name nowhere")
