"""Where the driver gets the secrets of a task from: Secret objects of the run's project, read when an attempt starts.

Read anew for each attempt, so that a changed value reaches the next one without a new run. Nothing is kept or written.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Protocol

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.executors.base import SecretValue
from michelangelo.uniflow.secret import Secret

__all__ = ["SecretReader", "SecretSource"]


class SecretSource(Protocol):
    def read(self, wanted: Sequence[Secret]) -> tuple[SecretValue, ...]:
        """The values. Raises ExecutorError, naming all that are missing."""
        ...


class SecretReader:
    """Secrets of one namespace, through a Client."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def read(self, wanted: Sequence[Secret]) -> tuple[SecretValue, ...]:
        found: dict[str, Object | None] = {name: self._get(name) for name in dict.fromkeys(one.name for one in wanted)}
        missing = [problem for one in wanted if (problem := self._missing(one, found[one.name]))]
        if missing:
            raise errors.ExecutorError("; ".join(dict.fromkeys(missing)))
        return tuple(self._value(one, found[one.name] or {}) for one in wanted)

    def _get(self, name: str) -> Object | None:
        try:
            return self._client.get("Secret", name, namespace=self._namespace)
        except errors.NotFoundError:
            return None

    def _missing(self, one: Secret, found: Object | None) -> str:
        if found is None:
            return (
                f"there is no Secret {one.name} in project {self._namespace}; make it with "
                f"`mactl secret set {one.name} {one.key} -n {self._namespace}`"
            )
        if one.key not in (found.get("data") or {}):
            keys = ", ".join(sorted(found.get("data") or ())) or "none"
            return f"the Secret {one.name} of project {self._namespace} has no key {one.key!r}; it has: {keys}"
        return ""

    def _value(self, one: Secret, found: Object) -> SecretValue:
        data = base64.b64decode(found["data"][one.key])
        if not one.as_file and b"\0" in data:
            raise errors.ExecutorError(
                f"the value {one.key!r} of the Secret {one.name} holds a zero byte, which no environment variable can; "
                "ask for it as a file: uniflow.Secret(…, as_file=True)"
            )
        return SecretValue(one.env, data.decode("utf-8", "surrogateescape"), one.as_file)
