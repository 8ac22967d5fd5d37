"""Who calls: bearer tokens. One for the owner of the server, and one for the processes of each run that can touch that
run only.

The owner's token is made at the first start and kept in a file that only its owner can read; the server holds its
digest. A run's token is not stored anywhere: it names the run and the second at which it expires, and is signed with a
key of the server. What an identity may do is `authorization`'s business.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from michelangelo import errors

__all__ = ["ANONYMOUS", "Authenticator", "Identity", "RunScope", "RunTokens"]

_RUN_PREFIX: Final = "ma-run."
_MAX_TOKEN: Final = 4096


@dataclass(frozen=True, slots=True)
class RunScope:
    """The one run that a token is for."""

    namespace: str
    run: str
    uid: str
    read_only: bool = False
    """For a later run that continues this one: it reads the journal, and leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Identity:
    user: str
    run: RunScope | None = None
    """Set for the processes of a run; nothing but that run is theirs."""


ANONYMOUS: Final = Identity("system:anonymous")
_OWNER: Final = Identity("owner")


class RunTokens:
    """Issues and reads the tokens of runs."""

    def __init__(self, key: bytes, *, now: Callable[[], float] = time.time) -> None:
        """`now` gives seconds since 1970."""
        self._key = key
        self._now = now

    def issue(self, scope: RunScope, *, lifetime_seconds: float) -> str:
        claims: dict[str, object] = {"ns": scope.namespace, "run": scope.run, "uid": scope.uid}
        claims |= {"ro": scope.read_only, "exp": int(self._now() + lifetime_seconds)}
        payload = base64.urlsafe_b64encode(orjson.dumps(claims)).rstrip(b"=")
        return f"{_RUN_PREFIX}{payload.decode()}.{self._signature(payload)}"

    def read(self, token: str) -> RunScope | None:
        """The run that the token is for; None for a token that is forged or has expired."""
        payload, _, signature = token.removeprefix(_RUN_PREFIX).encode().partition(b".")
        if not hmac.compare_digest(signature, self._signature(payload).encode()):
            return None
        # Signed by us, so it has the form that `issue` gave it.
        claims = orjson.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        if claims["exp"] <= self._now():
            return None
        return RunScope(claims["ns"], claims["run"], claims["uid"], claims["ro"])

    def _signature(self, payload: bytes) -> str:
        return hmac.new(self._key, payload, hashlib.sha256).hexdigest()


class Authenticator:
    """From the Authorization header to an identity."""

    def __init__(self, owner_token: str, run_tokens: RunTokens) -> None:
        """Only the digest of the owner's token is kept. Raises SettingsError for a token that anybody could guess."""
        if len(owner_token) < 16:
            raise errors.SettingsError(
                "the server's token has fewer than 16 characters; delete its file to get a new one"
            )
        self._owner = hashlib.sha256(owner_token.encode()).digest()
        self._run_tokens = run_tokens

    def identify(self, authorization: str) -> Identity:
        """ANONYMOUS where there is no header. Raises UnauthorizedError for a token that is not, or no longer, good."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and 0 < len(token) <= _MAX_TOKEN and token.isascii():
            # The length of a comparison of digests tells nothing about the token.
            if hmac.compare_digest(hashlib.sha256(token.encode()).digest(), self._owner):
                return _OWNER
            if token.startswith(_RUN_PREFIX) and (scope := self._run_tokens.read(token)) is not None:
                return Identity(f"run:{scope.namespace}/{scope.run}", scope)
        raise errors.UnauthorizedError("Unauthorized: the token is wrong or has expired")
