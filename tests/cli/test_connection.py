"""Which platform a verb acts on, contexts, and what is said when there is none."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo import __version__
from michelangelo.apiserver.http.server import HttpServer
from michelangelo.app.platform import Platform
from michelangelo.client.client import Object

Mactl = Callable[..., Any]
Make = Callable[..., Object]
SPEC: Object = {"manifest": {"filePath": "flow.py", "uniflowFunction": "flow"}}


@pytest.fixture
def closed_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_verb_without_any_platform_says_what_to_do(mactl: Mactl) -> None:
    result = mactl("get", "pr")
    assert (result.code, result.out) == (3, "")
    assert len(result.err.splitlines()) == 1
    assert "mactl serve" in result.err
    assert "python pipeline.py" in result.err


def test_verb_that_needs_a_server_says_so(platform: Platform, mactl: Mactl) -> None:
    result = mactl("pipeline", "run", "train")
    assert result.code == 3
    assert "mactl serve" in result.err


def test_context_of_another_machine_never_falls_back(platform: Platform, mactl: Mactl) -> None:
    mactl("config", "set-context", "team", "--server", "https://ma.example.invalid:15566")
    result = mactl("get", "pr")
    assert result.code == 3
    assert "ma.example.invalid" in result.err


def test_stopped_local_server_gives_way_to_the_embedded_platform(
    platform: Platform, make: Make, mactl: Mactl, closed_port: int
) -> None:
    make("Pipeline", "train", spec=SPEC)
    mactl("config", "set-context", "here", "--server", f"http://127.0.0.1:{closed_port}", "--namespace", "demo")
    assert mactl("get", "pl", "-n", "demo", "-o", "name").out == "pipeline/train\n"


def test_wrong_token_is_one_sentence(server: HttpServer, mactl: Mactl, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    mactl("config", "set-context", "other", "--server", server.url, "--token-file", str(tmp_path / "token"))
    result = mactl("--context", "other", "get", "pl", "-n", "demo")
    assert result.code == 4
    assert len(result.err.splitlines()) == 1


def test_namespace_of_the_context_is_the_default(server: HttpServer, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC)
    assert mactl("get", "pl", "-o", "name").out == "pipeline/train\n"


def test_config_views_changes_and_forgets(home: Path, mactl: Mactl, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-token")
    given = ("--server", "https://ma.example.com:15566", "--token-file", str(tmp_path / "token"), "--namespace", "demo")
    assert mactl("config", "set-context", "team", *given).out == "context team added\n"
    assert mactl("config", "set-context", "test", "--server", "https://test.example.com").code == 0
    rows = [line.split() for line in mactl("config", "view").out.splitlines()[1:]]
    assert rows == [
        ["*", "team", "https://ma.example.com:15566", "demo", "team"],
        ["test", "https://test.example.com"],
    ]
    assert mactl("config", "use-context", "test").code == 0
    assert yaml.safe_load(mactl("config", "view", "-o", "yaml").out)["current-context"] == "test"
    assert mactl("config", "delete-context", "team").code == 0
    assert mactl("config", "view", "-o", "name").out == "test\n"
    assert stat.S_IMODE((home / "contexts.yaml").stat().st_mode) == 0o600


def test_config_changes_survive_a_start_of_the_server(server: HttpServer, home: Path, mactl: Mactl) -> None:
    before = (home / "kubeconfig").read_bytes()
    assert mactl("config", "set-context", "michelangelo", "--namespace", "local").code == 0
    assert (home / "kubeconfig").read_bytes() == before
    view = yaml.safe_load(mactl("config", "view", "-o", "yaml").out)
    assert [one["context"]["namespace"] for one in view["contexts"]] == ["local"]
    assert mactl("get", "projects").code == 0


def test_config_never_prints_a_token(server: HttpServer, home: Path, mactl: Mactl) -> None:
    token = (home / "token").read_text().strip()
    for form in ("table", "json", "yaml", "wide", "name"):
        assert token not in mactl("config", "view", "-o", form).out


def test_config_of_an_unknown_context_names_the_known(home: Path, mactl: Mactl) -> None:
    mactl("config", "set-context", "team", "--server", "https://ma.example.com")
    for words in (("config", "use-context", "x"), ("config", "delete-context", "x"), ("--context", "x", "get", "pr")):
        result = mactl(*words)
        assert result.code == 2
        assert "team" in result.err


def test_broken_context_file_is_named(home: Path, mactl: Mactl) -> None:
    home.mkdir()
    (home / "contexts.yaml").write_text("contexts: 3")
    result = mactl("config", "view")
    assert result.code == 2
    assert "contexts.yaml" in result.err


def test_version_knows_both_sides(server: HttpServer, mactl: Mactl) -> None:
    found = json.loads(mactl("version", "-o", "json").out)
    assert found["client"]["version"] == __version__
    assert found["server"]["address"] == server.url


def test_version_without_a_server_is_no_error(mactl: Mactl) -> None:
    result = mactl("version")
    assert result.code == 0
    assert __version__ in result.out


def test_debug_shows_where_an_error_came_from(mactl: Mactl) -> None:
    assert "Traceback" not in mactl("get", "pr").err
    assert "Traceback" in mactl("--debug", "get", "pr").err


def test_closed_pipe_is_no_error(platform: Platform, make: Make, home: Path) -> None:
    for i in range(3):
        make("Pipeline", f"p{i}", spec=SPEC)
    command = [sys.executable, "-m", "michelangelo.cli", "get", "pl", "-n", "demo"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert result.stderr == ""
