"""Requests to an S3-compatible object store: the client, patience with what passes, and errors in words.

What passes (no connection, a connection that broke, 5xx, throttling) is asked for again, with growing pauses, as long
as `patience_seconds` last. It knows no blob. botocore, which is synchronous, is used directly: a forked task opens a
store of its own, and s3fs would bring an event loop, a thread and three times the import to each.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import botocore.config
import botocore.exceptions
import botocore.session

from michelangelo.errors import SettingsError, StorageError, StoreUnavailableError

__all__ = ["CREDENTIALS", "Missing", "Requests", "answered_at"]

CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_ENDPOINT_URL": "endpoint_url",
    "AWS_REGION": "region_name",
    "AWS_DEFAULT_REGION": "region_name",
}
"""What may be given in place of the environment, and what botocore calls it."""
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 30.0
_DEFAULT_REGION: Final = "us-east-1"
_PASSING_CODES: Final = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
    | {"RequestLimitExceeded", "ThrottlingException", "TooManyRequestsException", "XMinioServerNotInitialized"}
)
_REFUSED_CODES: Final = frozenset(
    {"AccessDenied", "AuthorizationHeaderMalformed", "ExpiredToken", "Forbidden", "InvalidAccessKeyId"}
    | {"InvalidToken", "SignatureDoesNotMatch", "401", "403"}
)


class Missing(Exception):
    """There is no object of that key (or, to a HEAD, no bucket)."""


class Requests:
    """Any thread; a process that was forked gets a client of its own."""

    def __init__(
        self,
        url: str,
        credentials: Mapping[str, str] | None,
        *,
        patience_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`url` is for messages. Raises SettingsError for credentials that are none."""
        unknown = sorted(set(credentials or ()) - CREDENTIALS.keys())
        if unknown:
            raise SettingsError(f"{url}: {', '.join(unknown)} is no credential; there are {', '.join(CREDENTIALS)}")
        self._url = url
        self._credentials = {CREDENTIALS[name]: value for name, value in (credentials or {}).items()}
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        self._process = 0
        self._client: Any = None
        self._connect()

    def __call__(self, operation: str, subject: str, *, retried: bool = True, **arguments: Any) -> dict[str, Any]:
        """The answer to an operation of S3, named as botocore names it. Raises Missing, StorageError."""
        answer: dict[str, Any] = self.patiently(lambda: self.send(operation, **arguments), subject, retried=retried)
        return answer

    def patiently(self, attempt: Callable[[], Any], subject: str, *, retried: bool = True) -> Any:
        """`attempt`, made again while what it raises passes. Raises Missing, StorageError, and
        StoreUnavailableError when patience is over."""
        deadline = time.monotonic() + (self._patience_seconds if retried else 0.0)
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                return attempt()
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                if _is_missing(error):
                    raise Missing from error
                if not _is_passing(error):
                    raise StorageError(f"cannot store or read {subject} in {self._url}: {_reason(error)}") from error
                if time.monotonic() + delay > deadline:
                    raise StoreUnavailableError(
                        f"cannot store or read {subject} in {self._url}: {_reason(error)}; it was tried for "
                        f"{self._patience_seconds:g} s: check that the store runs and answers, then resume the run"
                    ) from error
            self._sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, _LONGEST_DELAY_SECONDS)

    def send(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One attempt. Raises what botocore raises."""
        if self._process != os.getpid():
            self._connect()
        answer: dict[str, Any] = getattr(self._client, operation)(**arguments)
        return answer

    def close(self) -> None:
        self._client.close()

    def _connect(self) -> None:
        try:
            session = botocore.session.Session()
            given = dict(self._credentials)
            region = given.pop("region_name", None) or session.get_config_variable("region") or _DEFAULT_REGION
            config = botocore.config.Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=16,
                # What stores other than Amazon's do not all know.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            self._client = session.create_client("s3", region_name=region, config=config, **given)
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise StorageError(f"cannot open the blob store {self._url}: {_reason(error)}") from error
        self._process = os.getpid()


def answered_at(answer: Mapping[str, Any]) -> float:
    """When the store answered, by its own clock, in seconds since the epoch."""
    text = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    moment = parsedate_to_datetime(text) if text else datetime.now(UTC)
    return moment.timestamp()


def _is_passing(error: Exception) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, botocore.exceptions.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        return status >= 500 or status == 429 or _code(error) in _PASSING_CODES
    return isinstance(
        error,
        botocore.exceptions.ConnectionError
        | botocore.exceptions.HTTPClientError
        | botocore.exceptions.IncompleteReadError
        | botocore.exceptions.ResponseStreamingError,
    )


def _is_missing(error: Exception) -> bool:
    return isinstance(error, botocore.exceptions.ClientError) and _code(error) in ("NoSuchKey", "404", "NotFound")


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code") or "")


def _reason(error: Exception) -> str:
    """In words, and without what was sent."""
    if isinstance(error, botocore.exceptions.NoCredentialsError | botocore.exceptions.PartialCredentialsError):
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
    if isinstance(error, botocore.exceptions.EndpointConnectionError | botocore.exceptions.ConnectTimeoutError):
        return f"no store answers ({type(error).__name__}); the address is AWS_ENDPOINT_URL"
    if isinstance(error, botocore.exceptions.ClientError):
        code = _code(error)
        if code in _REFUSED_CODES:
            return f"the store refuses the credentials ({code}); check AWS_ACCESS_KEY_ID and what its owner may do"
        if code == "NoSuchBucket":
            return "there is no such bucket; make it, or correct the URL"
        return f"the store answered {code}: {error.response.get('Error', {}).get('Message') or 'no message'}"
    return f"{type(error).__name__}: {error}"
