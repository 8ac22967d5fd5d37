"""Kubeconfig files: read as kubectl reads them, and refused with a sentence that says what is wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo import errors
from michelangelo.client import kubeconfig


def document(cluster: Any = None, user: Any = None, **context: Any) -> dict[str, Any]:
    return {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", **context}},
            {"name": "two", "context": {"cluster": "other"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://h:1/", **(cluster or {})}},
            {"name": "other", "cluster": {"server": "http://other:2"}},
        ],
        "users": [{"name": "u", "user": user or {}}],
    }


def write(folder: Path, content: Any) -> Path:
    path = folder / "kubeconfig"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_current_context_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, document(user={"token": "t"}, namespace="demo"))
    assert kubeconfig.load(path) == kubeconfig.Endpoint("https://h:1", token="t", namespace="demo")


def test_named_context_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    assert kubeconfig.load(path, context="two") == kubeconfig.Endpoint("http://other:2")
    assert kubeconfig.context_names(path) == (["one", "two"], "one")


def test_certificates_are_read_from_data_and_from_files_beside(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "token").write_text("from-file\n")
    data = base64.b64encode(b"PEM").decode()
    user = {"client-certificate-data": data, "client-key-data": data, "tokenFile": "token"}
    endpoint = kubeconfig.load(write(tmp_path, document({"certificate-authority": "ca.crt"}, user)))
    assert (endpoint.ca, endpoint.client_certificate, endpoint.client_key) == ("CA", "PEM", "PEM")
    assert endpoint.token == "from-file"


def test_flags_are_read(tmp_path: Path) -> None:
    cluster = {"insecure-skip-tls-verify": True, "tls-server-name": "n"}
    endpoint = kubeconfig.load(write(tmp_path, document(cluster, {"username": "u", "password": "p"})))
    assert endpoint.insecure
    assert (endpoint.server_name, endpoint.username, endpoint.password) == ("n", "u", "p")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "no valid YAML"),
        ("- a", "no mapping"),
        ({}, "no current-context"),
        ({**document(), "current-context": "three"}, "no context 'three' in contexts; there are: one, two"),
        ({**document(), "clusters": []}, "no cluster 'c' in clusters; there are: none"),
        ({**document(), "users": {"u": 1}}, "users is no list"),
        (document({"server": "h"}), "no http or https URL"),
        (document({"certificate-authority-data": "%"}), "no base64"),
        (document({"certificate-authority": "absent"}), "cannot be read"),
        (document(user={"exec": {"command": "aws"}}), "plugin"),
    ],
)
def test_wrong_file_is_refused_with_the_reason(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(errors.SettingsError, match=words):
        kubeconfig.load(write(tmp_path, content))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="cannot read the kubeconfig"):
        kubeconfig.load(tmp_path / "absent")
