"""Real kubectl, 1.28 and 1.33, as a client of the real server: TLS, token and kubeconfig as a person has them.

Each version works in a project of its own on one server. Where a kubectl is not there, its tests skip and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo.apiserver import auth, keyfiles, kubeconfig, tls
from michelangelo.apiserver.http.app import AppParts
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.storage.sqlite import SqliteStore

DEADLINE_SECONDS = 30
VERSIONS = ("1.28", "1.33")


class Kubectl:
    def __init__(self, executable: str, config: Path, home: Path, namespace: str) -> None:
        self.executable = executable
        self.namespace = namespace
        self.home = home
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ.get("PATH", ""),
            "KUBECONFIG": str(config),
            "KUBECACHEDIR": str(home / "cache"),
        }

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "", **environment: str) -> str:
        """Its output, standard error after standard output; the test fails on another exit status than `code`."""
        done = subprocess.run(
            [self.executable, "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            env={**self.environment, **environment},
            check=False,
        )
        output = done.stdout + "\n".join(
            line for line in done.stderr.splitlines() if "version difference between client" not in line
        )
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: exit status {done.returncode}\n{output}"
        return output

    def apply(self, *documents: dict[str, Any], code: int = 0) -> str:
        return self("apply", "-f", "-", stdin=yaml.safe_dump_all(documents), code=code)

    def get(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "-o", "json"))


def find_kubectl(version: str) -> str | None:
    """`kubectl.1.28` on the PATH, or beside the dispatcher that `kubectl` may be a link to."""
    found = shutil.which(f"kubectl.{version}")
    dispatcher = shutil.which("kubectl")
    if found is None and dispatcher is not None:
        beside = Path(dispatcher).resolve().with_name(f"kubectl.{version}")
        found = str(beside) if os.access(beside, os.X_OK) else None
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a running server."""
    home = tmp_path_factory.mktemp("home")
    store = SqliteStore(home / "michelangelo.db", synchronous="FULL")
    token = keyfiles.ensure_token(home / "token")
    certificate = tls.ensure(home / "tls")
    authenticator = auth.Authenticator(token, auth.RunTokens(keyfiles.ensure_key(home / "key")))
    server = HttpServer(AppParts(ApiServer(store), authenticator), certificate=certificate)
    server.start()
    document = kubeconfig.document(server=server.url, token=token, authority=certificate.authority.read_bytes())
    kubeconfig.write(home / "kubeconfig", document)
    try:
        yield home / "kubeconfig"
    finally:
        server.stop()
        store.close()


@pytest.fixture(scope="module", params=VERSIONS)
def kubectl(request: pytest.FixtureRequest, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    executable = find_kubectl(request.param)
    if executable is None:
        pytest.skip(f"there is no kubectl.{request.param} on the PATH, or beside kubectl")
    namespace = f"kubectl-{request.param.replace('.', '-')}"
    made = Kubectl(executable, config, tmp_path_factory.mktemp("kubectl"), namespace)
    made.apply(project(namespace), pipeline("train", labels={"app": "demo"}), pipeline("other"))
    return made


def project(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": name}
    return {"apiVersion": "michelangelo.api/v2", "kind": "Project", "metadata": metadata, "spec": {"tier": 3}}


def pipeline(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Pipeline",
        "metadata": {"name": name, "labels": labels} if labels else {"name": name},
        "spec": {"type": "Train", "manifest": {"filePath": "flows/train.py"}, **spec},
    }


def test_apply_creates_leaves_and_changes(kubectl: Kubectl) -> None:
    assert "pipeline.michelangelo.api/applied created" in kubectl.apply(pipeline("applied"))
    assert "unchanged" in kubectl.apply(pipeline("applied"))
    assert "configured" in kubectl.apply(pipeline("applied", description="new"))
    found = kubectl.get("pipeline", "applied")
    assert (found["spec"]["description"], found["metadata"]["generation"]) == ("new", 2)
    assert "configured" in kubectl.apply(pipeline("applied"))
    assert "description" not in kubectl.get("pipeline", "applied")["spec"]


def test_apply_of_a_core_kind(kubectl: Kubectl) -> None:
    name = f"{kubectl.namespace}-core"
    space: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    assert "created" in kubectl.apply(space)
    space["metadata"]["labels"] = {"a": "b"}
    assert "configured" in kubectl.apply(space)
    assert kubectl.get("namespace", name)["metadata"]["labels"]["a"] == "b"


def test_apply_of_wrong_fields_names_them(kubectl: Kubectl) -> None:
    wrong = pipeline("wrong", typ="Train")
    assert 'unknown field "spec.typ"' in kubectl.apply(wrong, code=1)
    wrong = pipeline("wrong")
    wrong["spec"]["type"] = "Fly"
    assert 'spec.type: Unsupported value: "Fly"' in kubectl.apply(wrong, code=1)
    assert "NotFound" in kubectl("get", "pipeline", "wrong", code=1)


def test_get_in_every_form(kubectl: Kubectl) -> None:
    assert kubectl("get", "pl", "train").split()[:5] == ["NAME", "TYPE", "STATE", "REVISION", "AGE"]
    assert "OWNER" in kubectl("get", "pipelines", "train", "-o", "wide")
    assert kubectl("get", "pipeline", "train", "-o", "name").strip() == "pipeline.michelangelo.api/train"
    assert yaml.safe_load(kubectl("get", "pipeline", "train", "-o", "yaml"))["metadata"]["name"] == "train"
    assert kubectl.get("pipeline", "train")["spec"]["type"] == "Train"
    assert kubectl("get", "pl", "train", "-o", "jsonpath={.spec.manifest.filePath}") == "flows/train.py"
    assert kubectl("get", "michelangelo", "-o", "name").count("pipeline.michelangelo.api/") >= 2


def test_get_by_selectors(kubectl: Kubectl) -> None:
    assert kubectl("get", "pl", "-l", "app=demo", "-o", "name").split() == ["pipeline.michelangelo.api/train"]
    by_field = kubectl("get", "pl", "--field-selector", "metadata.name=other", "-o", "name")
    assert by_field.split() == ["pipeline.michelangelo.api/other"]
    assert "train" in kubectl("get", "pl", "--field-selector", "spec.type=Train")
    assert "field label not supported" in kubectl("get", "pl", "--field-selector", "spec.typ=Train", code=1)
    assert "train" in kubectl("get", "pl", "-A", "--chunk-size", "1")


def test_get_watches(kubectl: Kubectl) -> None:
    kubectl.apply(pipeline("watched"))
    command = [kubectl.executable, "-n", kubectl.namespace, "get", "pl", "watched", "-w", "-o", "json"]
    with subprocess.Popen(
        [*command, "--output-watch-events"], stdout=subprocess.PIPE, text=True, env=kubectl.environment
    ) as watching:
        try:
            assert watching.stdout
            assert next_event(watching.stdout)["type"] == "ADDED"
            kubectl("label", "pl", "watched", "seen=yes")
            changed = next_event(watching.stdout)
            assert (changed["type"], changed["object"]["metadata"]["labels"]) == ("MODIFIED", {"seen": "yes"})
            kubectl("delete", "pl", "watched")
            assert next_event(watching.stdout)["type"] == "DELETED"
        finally:
            watching.kill()


def next_event(lines: Iterator[str]) -> Any:
    text = ""
    for line in lines:
        text += line
        if line.rstrip("\n") == "}" or line.lstrip().startswith('{"type"'):
            return json.loads(text)
    raise AssertionError(f"the watch ended: {text}")


def test_describe_shows_the_object_and_its_events(kubectl: Kubectl) -> None:
    uid = kubectl.get("pipeline", "train")["metadata"]["uid"]
    involved = {"apiVersion": "michelangelo.api/v2", "kind": "Pipeline", "name": "train", "uid": uid}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "train.1", "namespace": kubectl.namespace},
        "involvedObject": {**involved, "namespace": kubectl.namespace},
        "reason": "Registered",
        "message": "the pipeline has a revision",
        "type": "Normal",
    }
    kubectl("create", "-f", "-", stdin=yaml.safe_dump(event))
    described = kubectl("describe", "pipeline", "train")
    assert "File Path:  flows/train.py" in described
    assert "the pipeline has a revision" in described
    assert "Registered" in kubectl("get", "events")
    kubectl("delete", "event", "train.1")


def test_edit_writes_what_the_editor_leaves(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(pipeline("edited", description="one"))
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/description: one/description: two/' \"$1\"\n")
    editor.chmod(0o755)
    assert "edited" in kubectl("edit", "pipeline", "edited", KUBE_EDITOR=str(editor))
    assert kubectl.get("pipeline", "edited")["spec"]["description"] == "two"


def test_patch_label_and_annotate(kubectl: Kubectl) -> None:
    kubectl.apply(pipeline("patched"))
    kubectl("patch", "pl", "patched", "--type=merge", "-p", '{"spec":{"description":"merged"}}')
    operations = [
        {"op": "test", "path": "/spec/description", "value": "merged"},
        {"op": "add", "path": "/spec/owner", "value": {"name": "me"}},
    ]
    kubectl("patch", "pl", "patched", "--type=json", "-p", json.dumps(operations))
    kubectl("patch", "pl", "patched", "--subresource=status", "--type=merge", "-p", '{"status":{"state":"Ready"}}')
    kubectl("label", "pl", "patched", "color=red")
    kubectl("annotate", "pl", "patched", "note=hello")
    found = kubectl.get("pl", "patched")
    assert found["spec"]["description"] == "merged"
    assert found["spec"]["owner"] == {"name": "me"}
    assert found["status"] == {"state": "Ready"}
    assert found["metadata"]["labels"] == {"color": "red"}
    assert found["metadata"]["annotations"]["note"] == "hello"
    kubectl("label", "pl", "patched", "color-")
    assert "labels" not in kubectl.get("pl", "patched")["metadata"]
    refused = kubectl("patch", "pl", "patched", "--type=merge", "-p", '{"spec":{"type":"Fly"}}', code=1)
    assert 'spec.type: Unsupported value: "Fly"' in refused


def test_explain_knows_the_fields(kubectl: Kubectl) -> None:
    assert "manifest\t<Object>" in kubectl("explain", "pipeline.spec")
    explained = kubectl("explain", "pipelines.spec.manifest.filePath")
    assert "filePath <string>" in explained
    assert "Python file" in explained
    assert "does not exist" in kubectl("explain", "pipeline.spec.nothing", code=1)


def test_wait_for_fields_and_deletion(kubectl: Kubectl) -> None:
    kubectl.apply(pipeline("awaited"))
    command = [kubectl.executable, "-n", kubectl.namespace, "wait", "pl/awaited", f"--timeout={DEADLINE_SECONDS}s"]
    with subprocess.Popen([*command, "--for=jsonpath={.status.state}=Ready"], env=kubectl.environment) as waiting:
        kubectl("patch", "pl", "awaited", "--subresource=status", "--type=merge", "-p", '{"status":{"state":"Ready"}}')
        assert waiting.wait(DEADLINE_SECONDS) == 0
    with subprocess.Popen([*command, "--for=delete"], env=kubectl.environment) as waiting:
        kubectl("delete", "pl", "awaited")
        assert waiting.wait(DEADLINE_SECONDS) == 0


def test_wait_for_a_condition(kubectl: Kubectl) -> None:
    kubectl.apply(pipeline("ready"))
    status = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Done"}]}}
    kubectl("patch", "pl", "ready", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    assert "condition met" in kubectl("wait", "pl/ready", "--for=condition=Ready", "--timeout=5s")


@pytest.mark.skipif(shutil.which("diff") is None, reason="diff is not installed")
def test_diff_shows_what_apply_would_change(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(pipeline("compared", description="one"))
    same, other = tmp_path / "same.yaml", tmp_path / "other.yaml"
    same.write_text(yaml.safe_dump(pipeline("compared", description="one")))
    other.write_text(yaml.safe_dump(pipeline("compared", description="two")))
    assert kubectl("diff", "-f", str(same)) == ""
    shown = kubectl("diff", "-f", str(other), code=1)
    assert "-  description: one" in shown
    assert "+  description: two" in shown
    assert kubectl.get("pl", "compared")["spec"]["description"] == "one"


def test_delete_with_finalizers_and_by_selector(kubectl: Kubectl) -> None:
    for name in ("gone-1", "gone-2"):
        kubectl.apply(pipeline(name, labels={"gone": "yes"}))
    kubectl("patch", "pl", "gone-1", "--type=merge", "-p", '{"metadata":{"finalizers":["x.example/hold"]}}')
    kubectl("delete", "pl", "-l", "gone=yes", "--wait=false")
    assert kubectl("get", "pl", "-l", "gone=yes", "-o", "name").split() == ["pipeline.michelangelo.api/gone-1"]
    kubectl("patch", "pl", "gone-1", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "NotFound" in kubectl("delete", "pl", "gone-1", code=1)
    kubectl.apply(pipeline("gone-3"))
    assert "deleted" in kubectl("delete", "pl", "gone-3", "--cascade=orphan", "--wait=false")


def test_replace_and_create_twice(kubectl: Kubectl) -> None:
    text = yaml.safe_dump(pipeline("replaced"))
    kubectl("create", "-f", "-", stdin=text)
    assert "AlreadyExists" in kubectl("create", "-f", "-", stdin=text, code=1)
    assert "replaced" in kubectl("replace", "-f", "-", stdin=yaml.safe_dump(pipeline("replaced", description="x")))


def test_server_side_apply_says_what_to_do(kubectl: Kubectl) -> None:
    text = yaml.safe_dump(pipeline("train"))
    assert "leave out --server-side" in kubectl("apply", "--server-side", "-f", "-", stdin=text, code=1)


def test_api_resources_and_version(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources", "--api-group=michelangelo.api")
    for kind in ("Project", "Pipeline", "Revision", "PipelineRun", "TaskRun", "Signal", "CachedOutput"):
        assert kind in resources
    assert kubectl("api-versions").split() == ["coordination.k8s.io/v1", "michelangelo.api/v2", "v1"]
    assert "v1.33.0+michelangelo" in kubectl("version")


def test_wrong_token_is_told_to_the_user(kubectl: Kubectl, config: Path, tmp_path: Path) -> None:
    document = json.loads(config.read_text())
    document["users"][0]["user"]["token"] = "a-wrong-token-of-the-right-length"
    kubeconfig.write(tmp_path / "kubeconfig", document)
    assert "Unauthorized" in kubectl("get", "pl", code=1, KUBECONFIG=str(tmp_path / "kubeconfig"))


def test_secret_is_shown_by_name_only(kubectl: Kubectl) -> None:
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hub"},
        "stringData": {"token": "s3cr3t-of-the-test"},
    }
    assert "created" in kubectl.apply(made)
    assert kubectl("get", "secret", "hub", "-o", "jsonpath={.data.token}") == "czNjcjN0LW9mLXRoZS10ZXN0"
    listed = kubectl("get", "secrets", "-o", "yaml")
    assert "token" in listed
    assert "czNjcjN0" not in listed
