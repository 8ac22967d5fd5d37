"""The JSON form of whatever user code can raise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.uniflow import codecs, source
from michelangelo.worker import failure

USER_CODE = """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text today")

class Endless(Exception):
    def __str__(self):
        return str(self)

class Quit(Exception):
    def __str__(self):
        raise SystemExit(1)

def odd(): raise Odd()
def endless(): raise Endless()
def quit(): raise Quit()
def missing(): return {}["key"]
def dive(): return dive()
def surrogate(): raise ValueError("\\ud800")
def long(): raise ValueError("x" * 1_000_000)
def leave():
    import sys
    sys.exit(3)
def inside_library():
    import json
    json.loads("{")
def chained():
    try:
        missing()
    except KeyError as e:
        raise RuntimeError("second") from e
def unbound():
    raise ValueError
def group():
    try:
        odd()
    except Odd as e:
        raise ExceptionGroup("several", [e, ValueError("other")])
def bare_group(): raise ExceptionGroup("g", [ValueError(str(i)) for i in range(100)])
"""


@pytest.fixture
def user(tmp_path: Path) -> ModuleType:
    path = tmp_path / f"failing_{abs(hash(tmp_path))}.py"
    path.write_text(USER_CODE)
    return source.load_file(str(path))


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as e:  # noqa: BLE001 - whatever it is
        return e
    raise AssertionError("it did not raise")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("odd", "Odd", "<Odd whose message cannot be shown: RuntimeError>"),
        ("endless", "Endless", "<Endless with a message that recurses without end>"),
        ("quit", "Quit", "<Quit whose message cannot be shown: SystemExit>"),
        ("missing", "KeyError", "key"),
        ("surrogate", "ValueError", "\\ud800"),
        ("leave", "SystemExit", "it called sys.exit(3)"),
        ("unbound", "ValueError", ""),
    ],
)
def test_any_exception_becomes_json(user: ModuleType, name: str, kind: str, message: str) -> None:
    form = failure.from_exception(raised(getattr(user, name)))
    assert json.loads(json.dumps(form)) == form
    assert form["type"].rpartition(".")[2] == kind
    assert form["message"] == message
    assert form["file"] == user.__file__
    json.dumps(form).encode("utf-8", "strict")


def test_location_is_the_users_line_when_a_library_raises(user: ModuleType) -> None:
    form = failure.from_exception(raised(user.inside_library))
    assert (form["file"], form["function"], form["source"]) == (user.__file__, "inside_library", 'json.loads("{")')
    assert form["types"][:2] == ["json.decoder.JSONDecodeError", "ValueError"]


def test_deep_recursion_is_cut(user: ModuleType) -> None:
    form = failure.from_exception(raised(user.dive))
    assert form["type"] == "RecursionError"
    assert "frames left out" in form["traceback"]
    assert len(form["traceback"]) < 20_000


def test_causes_are_told_first(user: ModuleType) -> None:
    text = failure.from_exception(raised(user.chained))["traceback"]
    assert text.index("KeyError: key") < text.index("direct cause") < text.index("RuntimeError: second")


def test_members_of_a_group_are_told(user: ModuleType) -> None:
    form = failure.from_exception(raised(user.group))
    assert "1 of 2" in form["traceback"]
    assert "ValueError: other" in form["traceback"]
    assert form["traceback"].count("ValueError") < 5
    assert failure.from_exception(raised(user.bare_group))["traceback"].count("of 100") == 10


def test_long_message_is_cut(user: ModuleType) -> None:
    form = failure.from_exception(raised(user.long))
    assert len(form["message"]) <= 16 * 1024
    assert form["message"].endswith("…")


def test_frames_of_the_platform_are_left_out(user: ModuleType) -> None:
    error = raised(lambda: source.load_function(source.Target(str(user.__file__), user.__name__, "nothing")))
    form = failure.from_exception(error)
    assert form["type"] == "michelangelo.errors.SourceError"
    assert "uniflow/source.py" not in form["traceback"]


def test_place_in_the_platform_is_not_shown_as_the_users() -> None:
    error = raised(lambda: codecs.decode({"$codec": "nothing"}, MemoryBlobStore()))
    while error.__traceback__ is not None and error.__traceback__.tb_frame.f_code.co_filename == __file__:
        error.__traceback__ = error.__traceback__.tb_next
    assert error.__traceback__ is not None
    form = failure.from_exception(error)
    assert (form["file"], form["line"], form["source"]) == ("", 0, "")


def test_exception_without_traceback_has_no_location() -> None:
    form = failure.from_exception(errors.CodecError("no codec"))
    assert (form["file"], form["line"], form["message"]) == ("", 0, "no codec")


@given(st.text(), st.integers(0, 5))
def test_messages_survive_the_wire(text: str, depth: int) -> None:
    error: BaseException = ValueError(text)
    for _ in range(depth):
        outer = RuntimeError(text)
        outer.__cause__ = error
        error = outer
    form = failure.from_exception(error)
    assert json.loads(json.dumps(form).encode()) == form
