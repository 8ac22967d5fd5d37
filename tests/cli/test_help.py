"""Help: complete, with examples, and without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from michelangelo.cli.groups import KindGroup
from michelangelo.cli.main import mactl as root

Mactl = Callable[..., Any]


def _commands() -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(root)
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner in command.list_commands(ctx):
                found = command.get_command(ctx, inner)
                assert found is not None
                yield f"{name} {inner}", found


def test_help_lists_every_command_and_kind(mactl: Mactl) -> None:
    result = mactl("--help")
    assert result.code == 0
    for name in root.list_commands(click.Context(root)):
        assert f"  {name} " in result.out


def test_every_command_has_an_example() -> None:
    assert [name for name, command in _commands() if "Example:" not in (command.help or "")] == []


def test_every_option_has_a_help_text() -> None:
    missing = [
        f"{name} {parameter.opts[0]}"
        for name, command in _commands()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert missing == []


def test_every_list_has_the_one_output_option() -> None:
    formats = {
        name: next(
            (p.type.choices for p in command.params if p.name == "output" and isinstance(p.type, click.Choice)), ()
        )
        for name, command in _commands()
    }
    assert {tuple(found) for found in formats.values() if found} == {("table", "wide", "json", "yaml", "name")}


def test_kind_groups_carry_the_generic_verbs() -> None:
    groups = [command for _, command in _commands() if isinstance(command, KindGroup)]
    assert len(groups) >= 10
    for group in groups:
        assert {"get", "describe", "apply", "delete"} <= set(group.list_commands(click.Context(group)))


@pytest.mark.parametrize("word", ["pr", "pipelineruns", "pipeline_run", "pipeline-run", "PipelineRun"])
def test_kind_is_known_by_every_name(mactl: Mactl, word: str) -> None:
    result = mactl(word, "--help")
    assert result.code == 0
    assert "Objects of kind PipelineRun" in result.out


def test_unknown_command_exits_2_with_its_name(mactl: Mactl) -> None:
    result = mactl("frobnicate")
    assert result.code == 2
    assert "frobnicate" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(mactl: Mactl, shell: str) -> None:
    result = mactl("completion", shell)
    assert result.code == 0
    assert "_MACTL_COMPLETE" in result.out


def test_completion_knows_verbs_and_kinds() -> None:
    words = {"_MACTL_COMPLETE": "bash_complete", "COMP_WORDS": "mactl pipeline", "COMP_CWORD": "1"}
    command = [str(Path(sys.executable).with_name("mactl"))]
    result = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["plain,pipeline", "plain,pipeline_run"]


def test_explain_and_template_need_no_server(mactl: Mactl) -> None:
    assert "uniflowFunction" in mactl("explain", "pipeline.spec.manifest").out
    assert "kind: Pipeline" in mactl("template", "pipeline", "--name", "train").out


def test_explain_of_an_unknown_field_says_which_there_are(mactl: Mactl) -> None:
    result = mactl("explain", "pipeline.spec.colour")
    assert result.code == 1
    assert "manifest" in result.err
