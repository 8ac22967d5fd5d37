"""Names: what Kubernetes allows as the name of an object, a label or an annotation, and how new names are made.

The checks return messages (none for a good name), in Kubernetes' own words; `metadata` puts the field path before them.
It imports nothing heavy, so that the SDK can use it too.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Final

__all__ = [
    "DNS_LABEL",
    "LABEL_LENGTH",
    "SUBDOMAIN_LENGTH",
    "check_dns_label",
    "check_dns_subdomain",
    "check_label_key",
    "check_label_value",
    "generate_name",
    "random_hex",
    "random_suffix",
    "run_name",
]

DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""The rule of `check_dns_label` but for its length, as a pattern for schemas."""
LABEL_LENGTH: Final = 63
SUBDOMAIN_LENGTH: Final = 253

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE: Final = f"({_QUALIFIED})?"
_LABEL_RE: Final = re.compile(_LABEL)
_SUBDOMAIN_RE: Final = re.compile(_SUBDOMAIN)
_QUALIFIED_RE: Final = re.compile(_QUALIFIED)
_VALUE_RE: Final = re.compile(_VALUE)

_LABEL_MESSAGE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_MESSAGE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_QUALIFIED_MESSAGE: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_VALUE_MESSAGE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)

# No vowels and nothing that looks alike, as Kubernetes does: no words, no misreading.
_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH: Final = 5


def check_dns_label(name: str) -> list[str]:
    """At most 63 of `a-z0-9-`: what a namespace must be, and a name that is also used as a label's value."""
    return _check(name, LABEL_LENGTH, _LABEL_RE, _LABEL_MESSAGE)


def check_dns_subdomain(name: str) -> list[str]:
    """At most 253 of `a-z0-9-.`: what every name must be at least."""
    return _check(name, SUBDOMAIN_LENGTH, _SUBDOMAIN_RE, _SUBDOMAIN_MESSAGE)


def check_label_key(key: str) -> list[str]:
    """`name` or `prefix/name`; annotations' keys follow the same rule."""
    prefix, slash, name = key.rpartition("/")
    if not slash:
        return _check_qualified(name)
    if not prefix:
        return ["prefix part must be non-empty"]
    if "/" in prefix:
        return [
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS subdomain "
            "prefix and '/' (e.g. 'example.com/MyName')"
        ]
    return [f"prefix part {message}" for message in check_dns_subdomain(prefix)] + _check_qualified(name)


def check_label_value(value: str) -> list[str]:
    return _check(value, LABEL_LENGTH, _VALUE_RE, _VALUE_MESSAGE)


def random_suffix(length: int = _SUFFIX_LENGTH) -> str:
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(length))


def random_hex(length: int) -> str:
    return secrets.token_hex((length + 1) // 2)[:length]


def generate_name(prefix: str) -> str:
    """What `metadata.generateName` asks for: the prefix, cut so that the whole is a label's length, and five
    characters."""
    return prefix[: LABEL_LENGTH - _SUFFIX_LENGTH] + random_suffix()


def run_name(now: datetime) -> str:
    """`run-20260131-120000-1a2b3c4d`, in UTC."""
    return f"run-{now.astimezone(UTC):%Y%m%d-%H%M%S}-{random_hex(8)}"


def _check_qualified(name: str) -> list[str]:
    if not name:
        return ["name part must be non-empty", _QUALIFIED_MESSAGE]
    return [f"name part {message}" for message in _check_length(name, LABEL_LENGTH)] + (
        [] if _QUALIFIED_RE.fullmatch(name) else [_QUALIFIED_MESSAGE]
    )


def _check(text: str, length: int, pattern: re.Pattern[str], message: str) -> list[str]:
    # The length first, and nothing after it: a regular expression over a megabyte would take its time.
    return _check_length(text, length) or ([] if pattern.fullmatch(text) else [message])


def _check_length(text: str, length: int) -> list[str]:
    return [f"must be no more than {length} characters"] if len(text) > length else []
