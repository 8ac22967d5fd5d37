"""The kubeconfig that kubectl, mactl and every Kubernetes client read to find and trust the server. It writes one
file."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Any

import orjson

from michelangelo import errors

__all__ = ["document", "write"]


def document(
    *, server: str, token: str, authority: bytes = b"", namespace: str = "default", name: str = "michelangelo"
) -> dict[str, Any]:
    """A kubeconfig with one context. `authority` is the PEM of the certificate authority; empty for plain HTTP."""
    cluster: dict[str, Any] = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
        "preferences": {},
    }


def write(path: Path, config: dict[str, Any]) -> None:
    """Replace the file (mode 0600; it holds the token). Raises SettingsError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # JSON is YAML, and needs no YAML library to be written.
            with os.fdopen(descriptor, "wb") as file:
                file.write(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise errors.SettingsError(f"cannot write the kubeconfig {path}: {e.strerror}") from e
