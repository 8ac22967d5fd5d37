"""`mactl secret`: values go in unseen and never come out on a terminal."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from michelangelo.app.platform import Platform

if TYPE_CHECKING:
    from tests.cli.conftest import Mactl


class Input(io.TextIOWrapper):
    """Standard input with this content."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "stdin", Input(b"s3cr3t-value\n"))
    return monkeypatch


def value(platform: Platform, key: str, name: str = "hub") -> str:
    data = platform.client.get("Secret", name, namespace="demo")["data"]
    return base64.b64decode(data[key]).decode()


def test_set_makes_and_changes_a_secret(mactl: Mactl, platform: Platform, type_in: pytest.MonkeyPatch) -> None:
    made = mactl("secret", "set", "hub", "token", "-n", "demo")
    assert (made.code, made.out.strip()) == (0, "secret/hub created: token")
    assert value(platform, "token") == "s3cr3t-value"
    type_in.setattr(sys, "stdin", Input(b"another"))
    assert "secret/hub set: token" in mactl("secret", "set", "hub", "token", "-n", "demo").out
    assert value(platform, "token") == "another"


def test_set_takes_files_and_variables(
    mactl: Mactl, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_text("line\n")
    monkeypatch.setenv("MY_TOKEN", "from-env")
    assert mactl("secret", "set", "hub", "key", "-n", "demo", "--from-file", str(tmp_path / "key.pem")).code == 0
    assert mactl("secret", "set", "hub", "token", "-n", "demo", "--from-env", "MY_TOKEN").code == 0
    assert (value(platform, "key"), value(platform, "token")) == ("line\n", "from-env")


@pytest.mark.parametrize("words", [("get", "-o", "yaml"), ("get", "-o", "json"), ("get",), ("describe",)])
def test_no_verb_prints_a_value(
    mactl: Mactl, platform: Platform, type_in: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    mactl("secret", "set", "hub", "token", "-n", "demo")
    verb, *flags = words
    shown = mactl("secret", verb, "hub", "-n", "demo", *flags)
    assert shown.code == 0
    assert "hub" in shown.out
    assert "token" in shown.out or words == ("get",)
    for text in ("s3cr3t-value", base64.b64encode(b"s3cr3t-value").decode()):
        assert text not in shown.out + shown.err


def test_unset_removes_values_and_names_missing_ones(
    mactl: Mactl, platform: Platform, type_in: pytest.MonkeyPatch
) -> None:
    mactl("secret", "set", "hub", "token", "-n", "demo")
    missing = mactl("secret", "unset", "hub", "tokn", "-n", "demo")
    assert missing.code != 0
    assert "it has: token" in missing.err
    assert mactl("secret", "unset", "hub", "token", "-n", "demo").code == 0
    assert platform.client.get("Secret", "hub", namespace="demo")["data"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "hub", "token", "--from-file", "/no/such"), "No such file"),
        (("set", "hub", "token", "--from-env", "NO_SUCH_VARIABLE"), "no such variable"),
        (("set", "hub", "token", "--from-env", "A", "--from-file", "B"), "one of"),
        (("set", "hub", "to ken", "--from-env", "HOME"), 'data["to ken"]'),
    ],
)
def test_bad_input_is_refused(mactl: Mactl, platform: Platform, words: tuple[str, ...], said: str) -> None:
    result = mactl("secret", *words, "-n", "demo")
    assert result.code != 0
    assert said in result.err
    assert platform.client.list("Secret", namespace="demo").items == []


def test_empty_input_is_refused(mactl: Mactl, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Input(b""))
    assert "standard input is empty" in mactl("secret", "set", "hub", "token", "-n", "demo").err


def test_secret_is_not_edited(mactl: Mactl, platform: Platform) -> None:
    assert "mactl secret set" in mactl("edit", "secret/hub", "-n", "demo").err
