"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from michelangelo import errors
from michelangelo.app import settings


def test_settings_have_defaults_without_any_environment() -> None:
    found = settings.load({})
    assert found.home == Path.home() / ".ma"
    assert (found.project, found.host, found.port, found.durability) == ("local", "127.0.0.1", 15566, None)


def test_settings_come_from_the_environment_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('project = "team"\nport = 1234\n')
    found = settings.load({"MA_HOME": str(tmp_path), "MA_PORT": "0"})
    assert (found.project, found.port) == ("team", 0)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MA_PORT", "70000", "from 0 to 65535"),
        ("MA_PORT", "http", "from 0 to 65535"),
        ("MA_DURABILITY", "forever", "'process' or 'power'"),
        ("MA_PROJECT", "My Project", "a-z, 0-9 and -"),
        ("MA_TASK_SLOTS", "-1", "a whole number"),
        ("MA_TASK_MEMORY", "lots", "512Mi"),
    ],
)
def test_settings_name_the_variable_and_what_is_allowed(
    tmp_path: Path, variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        settings.load({"MA_HOME": str(tmp_path), variable: value})
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert allowed in str(caught.value)


def test_settings_refuse_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("colour = true\n")
    with pytest.raises(errors.SettingsError, match="there is no setting colour; the settings are project"):
        settings.load({"MA_HOME": str(tmp_path)})


def test_settings_refuse_a_file_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port = = 1\n")
    with pytest.raises(errors.SettingsError, match=r"config.toml cannot be read"):
        settings.load({"MA_HOME": str(tmp_path)})


def test_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = settings.load({"MA_HOME": str(tmp_path / "file" / "home")})
    with pytest.raises(errors.SettingsError, match="MA_HOME="):
        found.prepare_home()
