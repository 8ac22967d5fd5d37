"""Secrets at rest: what the store holds of a Secret is encrypted, and opened only for who asks for that one by name.

AES-256-GCM. The key is a file of the home (mode 0600) that is in no object, and the namespace, name and uid of the
object are authenticated with it, so that a sealed value cannot be moved to another Secret. Without the key file the
values are lost: back it up with the database, and apart from it.
"""

from __future__ import annotations

import base64
import functools
import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import orjson

from michelangelo import errors
from michelangelo.meta import secrecy

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from michelangelo.client.client import Object

__all__ = ["KEY_BYTES", "Sealer", "shown"]

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_BOX: Final = "sealed"


class Sealer:
    """Seals and opens Secrets; any other object passes through untouched. From any thread."""

    def __init__(self, load_key: Callable[[], bytes]) -> None:
        """`load_key` gives the key of KEY_BYTES bytes; it is asked for when the first Secret comes."""
        self._load_key = load_key

    def seal(self, obj: Object) -> Object:
        """The form to store."""
        if obj.get("kind") != secrecy.KIND:
            return obj
        nonce = os.urandom(_NONCE_BYTES)
        box = nonce + self._cipher.encrypt(nonce, orjson.dumps(secrecy.hidden(obj)), _bound_to(obj))
        stored = secrecy.shown(obj)
        stored["metadata"]["annotations"].pop(secrecy.WITHHELD)
        return {**stored, _BOX: base64.b64encode(box).decode()}

    def open(self, stored: Object) -> Object:
        """What `seal` was given. Raises StorageError when the key is another one, or the value was tampered with."""
        if stored.get("kind") != secrecy.KIND:
            return stored
        obj = {key: value for key, value in stored.items() if key != _BOX}
        metadata = dict(obj["metadata"])
        where = f"Secret {metadata.get('namespace')}/{metadata['name']}"
        invalid_tag: type[Exception] = importlib.import_module("cryptography.exceptions").InvalidTag
        try:
            box = base64.b64decode(stored[_BOX])
            found = orjson.loads(self._cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _bound_to(stored)))
        except (KeyError, ValueError, invalid_tag) as error:
            raise errors.StorageError(
                f"{where} cannot be opened: it was sealed with another key, or damaged. Restore the key file "
                "(secrets.key in the home), or delete the Secret and make it anew"
            ) from error
        if "lastApplied" in found:
            metadata["annotations"] = {
                **(metadata.get("annotations") or {}),
                secrecy.LAST_APPLIED: found["lastApplied"],
            }
        if not metadata.get("annotations"):
            metadata.pop("annotations", None)
        return {**obj, "metadata": metadata, "data": found["data"]}

    @functools.cached_property
    def _cipher(self) -> AESGCM:
        # Late: most processes never see a Secret.
        aead: Any = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
        cipher: AESGCM = aead.AESGCM(self._load_key())
        return cipher


def shown(stored: Object) -> Object:
    """A stored object as listings and watches give it: a Secret without its values."""
    if stored.get("kind") != secrecy.KIND:
        return stored
    stored.pop(_BOX, None)
    return secrecy.shown(stored)


def _bound_to(obj: Object) -> bytes:
    metadata = obj["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}/{metadata['uid']}".encode()
