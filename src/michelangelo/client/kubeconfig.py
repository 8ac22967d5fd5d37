"""Where a server is and how to prove who one is: `Endpoint`, read from a kubeconfig file as kubectl reads it.

It opens no connection. Credential plugins (`exec`, `auth-provider`) are not run: a user that has only those is refused
with a sentence that says so. Which file to read is the caller's decision (`app.settings` reads the environment).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from michelangelo import errors

__all__ = ["Endpoint", "context_names", "load", "read"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and the credentials for it. Everything is in memory, as PEM text, so that no file has to stay."""

    server: str
    """`https://host:port`, with the path prefix of a proxy where there is one."""
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    """PEM certificates to trust; empty: those of the system."""
    client_certificate: str = ""
    client_key: str = field(default="", repr=False)
    insecure: bool = False
    """Do not check the server's certificate."""
    server_name: str = ""
    """The name that the certificate must carry, where it is not the host of `server`."""
    namespace: str = ""
    """The context's default namespace."""


def load(path: Path, *, context: str = "") -> Endpoint:
    """The endpoint of `context` (empty: the current one) in the kubeconfig file `path`. Raises SettingsError."""
    return read(_document(path), source=path, context=context)


def context_names(path: Path) -> tuple[list[str], str]:
    """The names of the contexts in the file, and the current one. Raises SettingsError."""
    document = _document(path)
    names = [str(entry.get("name", "")) for entry in document.get("contexts") or () if isinstance(entry, Mapping)]
    return names, str(document.get("current-context") or "")


def read(document: Mapping[str, Any], *, source: Path, context: str = "") -> Endpoint:
    """The endpoint of `context` in a kubeconfig `document`; files that it names are relative to `source`'s folder."""
    name = context or str(document.get("current-context") or "")
    if not name:
        raise errors.SettingsError(f"{source} has no current-context: name a context")
    chosen = _named(document, "contexts", "context", name, source)
    cluster = _named(document, "clusters", "cluster", str(chosen.get("cluster") or ""), source)
    user = _named(document, "users", "user", str(chosen["user"]), source) if chosen.get("user") else {}
    server = str(cluster.get("server") or "").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise errors.SettingsError(f"{source}: the server {server!r} of context {name!r} is no http or https URL")
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = _text(source, str(user["tokenFile"])).strip()
    certificate = _pem(user, "client-certificate", source)
    if not (token or certificate or user.get("username")) and ("exec" in user or "auth-provider" in user):
        raise errors.SettingsError(
            f"{source}: the user of context {name!r} gets its credentials from a plugin, which is not supported: "
            "put a token or a client certificate there"
        )
    return Endpoint(
        server=server,
        token=token,
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        ca=_pem(cluster, "certificate-authority", source),
        client_certificate=certificate,
        client_key=_pem(user, "client-key", source),
        insecure=bool(cluster.get("insecure-skip-tls-verify", False)),
        server_name=str(cluster.get("tls-server-name") or ""),
        namespace=str(chosen.get("namespace") or ""),
    )


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as e:
        raise errors.SettingsError(f"cannot read the kubeconfig {path}: {e.strerror or e}") from e
    except yaml.YAMLError as e:
        raise errors.SettingsError(f"the kubeconfig {path} is no valid YAML: {e}") from e
    if not isinstance(document, Mapping):
        raise errors.SettingsError(f"the kubeconfig {path} is no mapping")
    return document


def _named(document: Mapping[str, Any], section: str, key: str, name: str, source: Path) -> Mapping[str, Any]:
    entries = document.get(section) or ()
    if not isinstance(entries, Sequence):
        raise errors.SettingsError(f"{source}: {section} is no list")
    found = next((e for e in entries if isinstance(e, Mapping) and e.get("name") == name), None)
    if found is None:
        known = ", ".join(str(e.get("name")) for e in entries if isinstance(e, Mapping)) or "none"
        raise errors.SettingsError(f"{source}: there is no {key} {name!r} in {section}; there are: {known}")
    value = found.get(key)
    return value if isinstance(value, Mapping) else {}


def _pem(section: Mapping[str, Any], key: str, source: Path) -> str:
    """`<key>-data` (base64) wins over `<key>` (a file), as in kubectl."""
    if data := section.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError) as e:
            raise errors.SettingsError(f"{source}: {key}-data is no base64 of PEM text") from e
    return _text(source, str(section[key])) if section.get(key) else ""


def _text(source: Path, name: str) -> str:
    path = source.parent / name
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise errors.SettingsError(f"{source} names {path}, which cannot be read: {e}") from e
