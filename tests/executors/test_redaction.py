"""Secrets never reach a log, however the output is cut into pieces."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from michelangelo.executors import logs, redaction
from michelangelo.executors.base import SecretValue

VALUE = "tok-abcabc-42"
WORDS = st.sampled_from(
    [VALUE, VALUE[:5], VALUE[3:], "abc", "tok-", "\n", " plain ", base64.b64encode(VALUE.encode()).decode()]
)


def redact(pieces: list[bytes], *values: str) -> bytes:
    redactor = redaction.redactor_of([SecretValue("V", value) for value in values])
    assert redactor is not None
    return b"".join(map(redactor.feed, pieces)) + redactor.flush()


@given(st.lists(WORDS, max_size=30), st.lists(st.integers(0, 400), max_size=20))
@example([VALUE], [1, 2, 3])
def test_no_value_gets_through_and_nothing_else_is_lost(words: list[str], cuts: list[int]) -> None:
    text = "".join(words).encode()
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    found = redact(pieces, VALUE)
    assert VALUE.encode() not in found
    assert base64.b64encode(VALUE.encode()) not in found
    assert found == redact([text], VALUE)


def test_text_without_secrets_passes_at_once() -> None:
    redactor = redaction.redactor_of([SecretValue("V", VALUE)])
    assert redactor is not None
    assert redactor.feed(b"a line\n") == b"a line\n"
    assert redactor.feed(b"a tok") == b"a "
    assert redactor.feed(b"en\n") == b"token\n"


def test_every_line_of_a_key_is_found() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"
    assert redact([b"one: kqhkiG9w0BAQEF."], key) == b"one: ***."


def test_common_encodings_are_found() -> None:
    value = 'pass/word "1"'
    shown = redact([b'pass%2Fword%20%221%22 | pass/word \\"1\\" | ' + base64.b64encode(value.encode())], value)
    assert shown == b"*** | *** | ***"


def test_forms_that_libraries_make_by_default_are_found() -> None:
    value = "pä/'w\"?>\\"
    forms = (quote(value), json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    for form in (*forms, base64.urlsafe_b64encode(value.encode()).decode()):
        assert redact([form.encode()], value) == b"***", form


def test_overlapping_values_leave_no_rest() -> None:
    assert redact([b"secret-long"], "secret", "secret-long") == b"***"


def test_short_values_are_not_looked_for() -> None:
    assert redaction.redactor_of([SecretValue("V", "abc"), SecretValue("W", "")]) is None


def test_failure_is_redacted_in_all_its_texts() -> None:
    redactor = redaction.redactor_of([SecretValue("V", VALUE)])
    assert redactor is not None
    assert redactor.tree({"message": f"no {VALUE}", "types": [VALUE], "line": 3}) == {
        "message": "no ***",
        "types": ["***"],
        "line": 3,
    }


def test_log_holds_no_value(tmp_path: Path) -> None:
    log = logs.BoundedLog(str(tmp_path / "log"), redactor=redaction.redactor_of([SecretValue("V", VALUE)]))
    for char in f"token={VALUE} end to":
        log.write(char.encode())
    log.close()
    assert (tmp_path / "log").read_text() == "token=*** end to"
