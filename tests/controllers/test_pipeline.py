"""Each applied spec of a pipeline becomes one Revision that stays as it is; a spec that cannot be run says why."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.controllers import pipeline
from michelangelo.controllers.pipeline import PipelineReconciler
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request

Create = Callable[..., Object]
SHA = "0123456789abcdef0123456789abcdef01234567"


def spec(digest: str = "a" * 64, **commit: str) -> Object:
    manifest = {"filePath": "flow.py", "uniflowFunction": "train", "sourceDigest": f"sha256:{digest}"}
    return {"manifest": manifest, **({"commit": commit} if commit else {})}


@pytest.fixture
def reconcile(bench: Any, clock: Any) -> Callable[[], Object]:
    reconciler = PipelineReconciler(bench.client, bench["Pipeline"], bench["Revision"], clock=clock)

    def look() -> Object:
        bench.catch_up()
        reconciler.reconcile(Request("demo", "p"))
        bench.catch_up()
        found: Object = bench.client.get("Pipeline", "p", namespace="demo")
        return found

    return look


def revisions(client: Client) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in client.list("Revision", namespace="demo").items)


def apply(client: Client, wanted: Object) -> None:
    obj = client.get("Pipeline", "p", namespace="demo")
    client.update({**obj, "spec": wanted})


def latest(obj: Object) -> str:
    return str((obj["status"].get("latestRevision") or {}).get("name") or "")


def test_pipeline_gets_a_revision_and_becomes_ready(
    client: Client, create: Create, reconcile: Callable[[], Object]
) -> None:
    made = create("Pipeline", "p", spec())
    ready = reconcile()
    name = f"pipeline-p-{'a' * 12}"
    assert (ready["status"]["state"], latest(ready)) == ("Ready", name)
    revision = client.get("Revision", name, namespace="demo")
    assert revision["spec"]["content"] == made["spec"]
    assert revision["spec"]["baseResource"] == {"namespace": "demo", "name": "p"}
    assert revision["spec"]["sourceDigest"] == f"sha256:{'a' * 64}"
    assert revision["status"]["state"] == "Ready"
    assert revision["metadata"]["labels"] == {"pipeline.michelangelo/name": "p"}
    assert revision["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


def test_second_look_writes_nothing(client: Client, create: Create, reconcile: Callable[[], Object]) -> None:
    create("Pipeline", "p", spec())
    reconcile()
    before = client.list("Pipeline").items, client.list("Revision").items
    reconcile()
    assert (client.list("Pipeline").items, client.list("Revision").items) == before


def test_revision_is_named_by_its_commit(client: Client, create: Create, reconcile: Callable[[], Object]) -> None:
    create("Pipeline", "p", spec(gitRef=SHA, branch="main"))
    assert latest(reconcile()) == "pipeline-p-0123456789ab"


def test_pipeline_without_commit_and_digest_has_a_name_too(
    client: Client, create: Create, reconcile: Callable[[], Object]
) -> None:
    create("Pipeline", "p", {"manifest": {"filePath": "flow.py:train"}})
    assert latest(reconcile()).startswith("pipeline-p-")


def test_new_spec_is_a_new_revision_whose_parent_is_the_old(
    client: Client, create: Create, reconcile: Callable[[], Object]
) -> None:
    create("Pipeline", "p", spec())
    first = latest(reconcile())
    apply(client, spec("b" * 64))
    second = latest(reconcile())
    assert revisions(client) == sorted([first, second])
    assert client.get("Revision", second, namespace="demo")["spec"]["parent"]["name"] == first


def test_same_commit_with_another_spec_is_another_revision(
    client: Client, create: Create, reconcile: Callable[[], Object]
) -> None:
    create("Pipeline", "p", spec(gitRef=SHA, branch="main"))
    first = latest(reconcile())
    apply(client, {**spec(gitRef=SHA, branch="main"), "description": "other words"})
    second = latest(reconcile())
    assert first != second
    assert "description" not in client.get("Revision", first, namespace="demo")["spec"]["content"]
    assert client.get("Revision", second, namespace="demo")["spec"]["content"]["description"] == "other words"


def test_going_back_finds_the_old_revision(client: Client, create: Create, reconcile: Callable[[], Object]) -> None:
    create("Pipeline", "p", spec())
    first = latest(reconcile())
    apply(client, spec("b" * 64))
    reconcile()
    apply(client, spec())
    assert latest(reconcile()) == first
    assert len(revisions(client)) == 2


def test_feature_branch_gets_a_revision_that_nothing_moves_to(
    client: Client, create: Create, reconcile: Callable[[], Object]
) -> None:
    create("Pipeline", "p", spec(gitRef="f" * 40, branch="feature/x"))
    ready = reconcile()
    assert (ready["status"]["state"], latest(ready)) == ("Ready", "")
    assert revisions(client) == [f"pipeline-p-{'f' * 12}"]
    apply(client, spec("b" * 64, gitRef=SHA, branch="main"))
    assert latest(reconcile()) == "pipeline-p-0123456789ab"
    apply(client, spec("c" * 64, gitRef="e" * 40, branch="feature/y"))
    assert latest(reconcile()) == "pipeline-p-0123456789ab"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"manifest": {}}, "spec.manifest.filePath"),
        ({"manifest": {"filePath": "flow.py"}}, "spec.manifest.uniflowFunction"),
        ({"manifest": {"type": "Yaml"}}, "spec.manifest.content"),
        ({"manifest": {"filePath": "f.py:g", "parameters": {"type": "array"}}}, "spec.manifest.parameters.type"),
    ],
)
def test_manifest_that_cannot_be_run_is_an_error_with_its_field(
    client: Client, create: Create, reconcile: Callable[[], Object], wanted: Object, words: str
) -> None:
    create("Pipeline", "p", wanted)
    refused = reconcile()
    assert refused["status"]["state"] == "Error"
    assert words in refused["status"]["errorMessage"]
    assert revisions(client) == []
    apply(client, spec())
    healed = reconcile()
    assert healed["status"]["state"] == "Ready"
    assert "errorMessage" not in healed["status"]


def test_revision_cannot_be_changed(client: Client, create: Create, reconcile: Callable[[], Object]) -> None:
    create("Pipeline", "p", spec())
    name = latest(reconcile())
    with pytest.raises(errors.InvalidError):
        client.patch("Revision", name, {"spec": {"content": {"manifest": None}}}, namespace="demo")


def test_deleted_revision_is_made_again_and_goes_with_the_pipeline(
    client: Client, manager: Manager, create: Create, until: Callable[..., Object], until_gone: Callable[..., None]
) -> None:
    create("Pipeline", "p", spec())
    name = latest(until("Pipeline", "p", lambda obj: latest({"status": {}, **obj}) != ""))
    first = client.get("Revision", name, namespace="demo")
    client.delete("Revision", name, namespace="demo")
    until("Revision", name, lambda obj: obj["metadata"]["uid"] != first["metadata"]["uid"])
    client.delete("Pipeline", "p", namespace="demo")
    until_gone("Revision", name)


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "c"])))
def test_order_of_looks_does_not_matter_for_the_state(
    client: Client, create: Create, reconcile: Callable[[], Object], order: tuple[str, ...]
) -> None:
    """Whichever specs were passed by on the way, the last one counts."""
    create("Pipeline", "p", spec(order[0] * 64))
    for letter in order[1:]:
        apply(client, spec(letter * 64))
    apply(client, spec("d" * 64))
    assert latest(reconcile()) == f"pipeline-p-{'d' * 12}"


def test_long_names_fit_into_labels() -> None:
    names = [f"pipeline-{'x' * 63}-{digit * 12}" for digit in "ab"]
    values = [pipeline.label_value(name) for name in names]
    assert all(len(value) <= 63 for value in values)
    assert len(set(values)) == 2
    assert pipeline.label_value("short") == "short"
