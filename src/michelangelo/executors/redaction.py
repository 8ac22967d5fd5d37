"""Keeps secrets out of logs and failures: wherever a value that an attempt was given shows up, it becomes `***`.

The value itself is looked for, each of its longer lines, and the forms in which programs commonly repeat it (base64,
percent-encoded, as a JSON string). What a task encodes in a way of its own is not found, and values of fewer than
MIN_LENGTH characters are not looked for, as they would be found everywhere.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, quote_plus

from michelangelo.executors.base import SecretValue

__all__ = ["MASK", "MIN_LENGTH", "Redactor", "redactor_of"]

MASK: Final = "***"
MIN_LENGTH: Final = 4
_MIN_LINE: Final = 8
"""Lines of a longer value (a private key) that are shorter than this are too common to be looked for."""


def redactor_of(secrets: Sequence[SecretValue]) -> Redactor | None:
    """A redactor for these values; None where there is nothing to look for."""
    forms = {form for one in secrets for form in _forms(one.value)}
    return Redactor(sorted(forms, key=len, reverse=True)) if forms else None


class Redactor:
    """Redacts a stream piece by piece (`feed`, `flush`), and whole texts. One thread at a time."""

    def __init__(self, forms: Sequence[str]) -> None:
        """`forms`, the longest first."""
        self._forms = [form.encode() for form in forms]
        self._found = re.compile(b"|".join(map(re.escape, self._forms)))
        self._text = re.compile("|".join(map(re.escape, forms)))
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown of all that came; what may become a secret is kept back, at most as much as one is long.
        The result is that of redacting the whole stream at once."""
        data = self._kept + data
        shown: list[bytes] = []
        position = 0
        while True:
            match = self._found.search(data, position)
            unsure = self._unsure_from(data, position)
            if match is None or unsure <= match.start():
                self._kept = data[unsure:]
                return b"".join([*shown, data[position:unsure]])
            shown += [data[position : match.start()], MASK.encode()]
            position = match.end()

    def flush(self) -> bytes:
        """What was kept back, at the end of the stream."""
        kept, self._kept = self._kept, b""
        return self._found.sub(MASK.encode(), kept)

    def tree(self, value: Any) -> Any:
        """A JSON value with all its texts redacted."""
        if isinstance(value, str):
            return self._text.sub(MASK, value)
        if isinstance(value, Mapping):
            return {key: self.tree(item) for key, item in value.items()}
        return [self.tree(item) for item in value] if isinstance(value, list | tuple) else value

    def _unsure_from(self, data: bytes, position: int) -> int:
        """Where the first end of `data` starts that is the beginning of a longer form; its length where none is."""
        first = len(data)
        for form in self._forms:
            start = max(position, len(data) - len(form) + 1)
            while 0 <= (start := data.find(form[:1], start)) < first:
                if form.startswith(data[start:]):
                    first = start
                start += 1
        return first


def _forms(value: str) -> Iterator[str]:
    plain = value.strip()
    if len(plain) < MIN_LENGTH:
        return
    yield plain
    lines = [line.strip() for line in plain.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _MIN_LINE)
    yield from (json.dumps(plain, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    yield from (repr(plain)[1:-1], quote(plain), quote(plain, safe=""), quote_plus(plain))
    for text in dict.fromkeys((value, plain)):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(text.encode("utf-8", "surrogateescape")).decode()
            yield encoded
            yield encoded.rstrip("=")
