"""Names, labels and the rest of metadata: Kubernetes' rules, every error with its field."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.meta import metadata, names

GOOD: dict[str, Any] = {"name": "a", "namespace": "b"}


@pytest.mark.parametrize("name", ["a", "a1", "1", "a-b", "a" * 63])
def test_dns_label_accepts(name: str) -> None:
    assert names.check_dns_label(name) == []


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a.b", "a" * 64, "ä", "a\n", "a b", "a/b"])
def test_dns_label_refuses(name: str) -> None:
    assert len(names.check_dns_label(name)) == 1


@pytest.mark.parametrize("name", ["a.b", "a-b.c1", "a" * 253])
def test_dns_subdomain_accepts(name: str) -> None:
    assert names.check_dns_subdomain(name) == []


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a.-b", "A", "a" * 254, "a\n"])
def test_dns_subdomain_refuses(name: str) -> None:
    assert names.check_dns_subdomain(name)


@pytest.mark.parametrize("key", ["a", "A_b.c-d", "example.com/a", "michelangelo/worker_queue"])
def test_label_key_accepts(key: str) -> None:
    assert names.check_label_key(key) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a/b/c", "-a", "a-", "A/b", "x" * 64, "a" * 254 + "/b"])
def test_label_key_refuses(key: str) -> None:
    assert names.check_label_key(key)


@given(st.text(alphabet="abc-.1", min_size=1, max_size=70).filter(lambda text: not names.check_dns_subdomain(text)))
def test_generated_name_is_good_where_its_prefix_is(prefix: str) -> None:
    name = names.generate_name(f"{prefix}-")
    assert len(name) <= 63
    assert len(prefix) > 57 or not names.check_dns_subdomain(name)
    assert name != names.generate_name(f"{prefix}-")


def test_run_name_tells_when_and_is_a_label() -> None:
    name = names.run_name(datetime(2026, 1, 31, 12, 5, 9, tzinfo=UTC))
    assert re.fullmatch(r"run-20260131-120509-[0-9a-f]{8}", name)
    assert names.check_dns_label(name) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
        ({"name": "", "generateName": "a-"}, []),
        ({"name": "", "generateName": "A-"}, ['metadata.generateName: Invalid value: "A-": a lowercase RFC 1123 sub']),
        ({"name": "A"}, ['metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of']),
        ({"namespace": ""}, ["metadata.namespace: Required value"]),
        ({"namespace": "a.b"}, ['metadata.namespace: Invalid value: "a.b": a lowercase RFC 1123 label must']),
        ({"labels": {"a b": "c"}}, ['metadata.labels: Invalid value: "a b": name part must consist of']),
        ({"labels": {"a": "b c"}}, ['metadata.labels: Invalid value: "b c": a valid label must be an empty string']),
        ({"labels": {"a": "b" * 64}}, [f'metadata.labels: Invalid value: "{"b" * 64}": must be no more than 63 char']),
        ({"annotations": {"a b": "anything at all"}}, ['metadata.annotations: Invalid value: "a b": name part']),
        ({"annotations": {"Upper.Case/a": "x"}}, []),
        ({"annotations": {"a": "x" * 262144}}, ["metadata.annotations: Too long: may not be more than 262144 bytes"]),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "", "uid": ""}]},
            [
                'metadata.ownerReferences[0].name: Invalid value: "": name must not be empty',
                'metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty',
            ],
        ),
        (
            {
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "A", "name": name, "uid": name, "controller": True} for name in "ab"
                ]
            },
            ['metadata.ownerReferences: Invalid value: ["a", "b"]: Only one reference can have Controller set to true'],
        ),
        ({"finalizers": ["plain"]}, ['metadata.finalizers[0]: Invalid value: "plain": name is neither a standard fin']),
        ({"finalizers": ["foregroundDeletion", "michelangelo.api/x"]}, []),
        ({"finalizers": ["foregroundDeletion", "orphan"]}, ["metadata.finalizers: Invalid value:"]),
        (
            {"name": "A", "labels": {"a": " "}, "finalizers": ["x"]},
            ["metadata.name: Invalid", "metadata.labels: Invalid", "metadata.finalizers[0]: Invalid"],
        ),
    ],
)
def test_metadata_errors(changes: dict[str, Any], expected: list[str]) -> None:
    found = [str(error) for error in metadata.validate({**GOOD, **changes}, namespaced=True)]
    assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected


def test_metadata_of_a_cluster_scoped_kind_has_no_namespace() -> None:
    assert metadata.validate({"name": "a"}, namespaced=False) == []
    (error,) = metadata.validate(GOOD, namespaced=False)
    assert str(error) == "metadata.namespace: Forbidden: not allowed on this type"


def test_update_changes_no_identity() -> None:
    old = {**GOOD, "uid": "1", "creationTimestamp": "2026-01-31T12:00:00Z"}
    assert metadata.validate_update(old, {**GOOD, "labels": {"a": "b"}}) == []
    found = metadata.validate_update(old, {"name": "z", "namespace": "b", "uid": "2"})
    assert [str(error) for error in found] == [
        'metadata.name: Invalid value: "z": field is immutable',
        'metadata.uid: Invalid value: "2": field is immutable',
    ]


def test_update_adds_no_finalizer_to_what_is_going() -> None:
    old = {**GOOD, "deletionTimestamp": "2026-01-31T12:00:00Z", "finalizers": ["a/b"]}
    assert metadata.validate_update(old, {**old, "finalizers": []}) == []
    (error,) = metadata.validate_update(old, {**old, "finalizers": ["a/b", "a/c"]})
    assert error.path == "metadata.finalizers"
    assert error.reason == "FieldValueForbidden"
