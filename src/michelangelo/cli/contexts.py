"""The contexts: which server, which project, which credentials.

Two files of the home folder count, both of kubeconfig's form: `kubeconfig`, which a server writes at its start, and
`contexts.yaml`, which `mactl config` writes and which wins. It opens no connection.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from michelangelo import errors
from michelangelo.client import kubeconfig
from michelangelo.client.kubeconfig import Endpoint

__all__ = ["SECTIONS", "Config", "endpoint", "entry", "load", "merged", "path", "save"]

Config = dict[str, Any]
SECTIONS: Final = ("clusters", "users", "contexts")
_OWN: Final = "contexts.yaml"
_SERVER: Final = "kubeconfig"


def endpoint(home: Path, context: str = "") -> Endpoint | None:
    """The server of `context` (empty: the current one); None when no context was ever made. Raises SettingsError."""
    document = merged(home)
    if not context and not document["current-context"] and not document["contexts"]:
        return None
    return kubeconfig.read(document, source=path(home), context=context)


def path(home: Path) -> Path:
    """The file that `mactl config` writes."""
    return home / _OWN


def merged(home: Path) -> Config:
    """Both files as one; of two entries of the same name the one of `mactl config` counts."""
    own, servers = load(home / _OWN), load(home / _SERVER)
    for section in SECTIONS:
        known = {one["name"] for one in own[section]}
        own[section] = own[section] + [one for one in servers[section] if one["name"] not in known]
    own["current-context"] = own["current-context"] or servers["current-context"]
    return own


def load(file: Path) -> Config:
    """A file, its sections checked; an empty configuration when it is missing. Raises SettingsError."""
    document: Any = {}
    try:
        if file.exists():
            document = yaml.load(file.read_bytes(), yaml.CSafeLoader) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as e:
        raise errors.SettingsError(f"{file} cannot be read as a kubeconfig: {e}") from e
    if not isinstance(document, dict):
        raise errors.SettingsError(f"{file} is no kubeconfig: it is no mapping")
    for section in SECTIONS:
        entries = document.get(section) or []
        if not isinstance(entries, list) or not all(_is_entry(one, section[:-1]) for one in entries):
            raise errors.SettingsError(f"{file}: {section} is no list of named entries")
        document[section] = entries
    current = str(document.get("current-context") or "")
    return {**document, "apiVersion": "v1", "kind": "Config", "current-context": current}


def entry(document: Config, section: str, name: str) -> Config | None:
    """The entry of that name in a section."""
    return next((one for one in document[section] if one["name"] == name), None)


def save(home: Path, document: Config) -> None:
    """Replace the file of `mactl config` as a whole, mode 0600. Raises SettingsError."""
    target = path(home)
    temporary: str | None = None
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=home, prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yaml.safe_dump(document, file, sort_keys=False)
        os.replace(temporary, target)
    except OSError as e:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise errors.SettingsError(f"{target} cannot be written: {e.strerror}") from e


def _is_entry(one: Any, key: str) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get(key), dict)
