"""Namespaces and projects: a project makes its namespace, and nothing is created where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import verb
from michelangelo.apiserver.verbs import ApiServer

if TYPE_CHECKING:
    from tests.apiserver.conftest import Platform


def test_project_makes_its_namespace(platform: Platform) -> None:
    space = platform.get("Namespace", "team")
    assert space["status"] == {"phase": "Active"}
    assert space["spec"] == {"finalizers": ["kubernetes"]}
    assert space["metadata"]["labels"]["kubernetes.io/metadata.name"] == "team"


def test_project_takes_a_namespace_that_is_there(platform: Platform) -> None:
    made = platform.create("Namespace", "other", labels={"a": "b"})
    platform.namespace = "other"
    platform.open()
    assert platform.get("Namespace", "other") == made


def test_project_without_a_namespace_gets_that_of_its_name(api: ApiServer) -> None:
    made = verb.run(api.create(registry.get("Project"), "", {"metadata": {"name": "team"}}))
    assert made["metadata"]["namespace"] == "team"


@pytest.mark.parametrize(
    ("name", "namespace"),
    [("default", "default"), ("kube-system", "kube-system"), ("team", "other"), ("a.b", "a.b"), ("", "team")],
)
def test_project_with_a_bad_name_is_refused_and_leaves_no_namespace(api: ApiServer, name: str, namespace: str) -> None:
    metadata = {"name": name} if name else {"generateName": "team-"}
    with pytest.raises(errors.InvalidError):
        verb.run(api.create(registry.get("Project"), namespace, {"metadata": metadata}))
    assert list(api.list(registry.get("Namespace")).items) == []


def test_project_that_is_there_is_refused(platform: Platform) -> None:
    with pytest.raises(errors.AlreadyExistsError):
        platform.open()


def test_create_in_a_missing_namespace_is_refused(platform: Platform) -> None:
    platform.namespace = "nowhere"
    with pytest.raises(errors.NotFoundError, match='namespaces "nowhere" not found'):
        platform.create("Pipeline", "flow")
    assert not platform.exists("Namespace", "nowhere")


@pytest.mark.parametrize("namespace", ["default", "kube-system"])
def test_namespaces_of_the_system_are_always_there(platform: Platform, namespace: str) -> None:
    platform.namespace = namespace
    platform.create("Lease", "lock")
    assert platform.get("Namespace", namespace)["status"]["phase"] == "Active"
