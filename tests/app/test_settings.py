"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
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
        ("MA_STORAGE_URL", "bucket/prefix", "s3://bucket/prefix"),
        ("MA_STORAGE_RETRY_SECONDS", "-1", "a whole number"),
        ("MA_COLLECT_HOURS", "daily", "a whole number"),
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


def test_upstreams_variables_and_files_are_understood(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('address = "one:1"\nproject = "team"\n[metadata]\nrpc-caller = "x"\n')
    (tmp_path / "user_config.toml").write_text('address = "two:2"\nuse_tls = false\n[minio]\naccess_key_id = "x"\n')
    home = {"MA_HOME": str(tmp_path)}
    found = settings.load(home)
    assert (found.api_server, found.project) == ("http://two:2", "team")
    assert settings.load({**home, "MACTL_ADDRESS": "three:3"}).api_server == "https://three:3"
    assert settings.load({**home, "MACTL_ADDRESS": "three:3", "MACTL_USE_TLS": "false"}).api_server == "http://three:3"
    assert settings.load({**home, "MA_API_SERVER": "four:4", "MACTL_ADDRESS": "three:3"}).api_server == "https://four:4"
    with pytest.raises(errors.SettingsError, match="must be host:port"):
        settings.load({**home, "MA_API_SERVER": "ftp://five"})


def test_workspace_is_a_folder_of_the_home_unless_it_is_set(tmp_path: Path) -> None:
    home = {"MA_HOME": str(tmp_path / "home")}
    assert settings.load(home).prepare_workspace() == str(tmp_path / "home" / "workspace")
    assert (tmp_path / "home" / "workspace").is_dir()
    assert settings.load({**home, "UF_STORAGE_URL": "s3://bucket/x"}).prepare_workspace() == "s3://bucket/x"


def test_variables_of_a_run_are_those_about_runs_and_those_given() -> None:
    environ = {"CACHE_ENABLED": "true", "RAY_OVERRIDE_HEAD_CPU.flow.train": "2", "HOME": "/root", "SIZE": "3"}
    found = settings.run_variables({"SIZE": None, "ABSENT": None, "MODE": "x"}, environ)
    assert found == {
        "CACHE_ENABLED": "true",
        "RAY_OVERRIDE_HEAD_CPU.flow.train": "2",
        "SIZE": "3",
        "MODE": "x",
    }


def test_blobs_url_tells_every_process_of_the_settings() -> None:
    chosen = settings.Settings(home=Path("/home"))
    assert chosen.blobs_url(durability="power") == "file:///home/blobs?sync=true"
    in_s3 = dataclasses.replace(chosen, storage_url="s3://bucket/prefix", storage_retry_seconds=7)
    assert in_s3.blobs_url(durability="power") == "s3://bucket/prefix?patience=7"
    elsewhere = dataclasses.replace(chosen, storage_url="file:///mnt/blobs")
    assert elsewhere.blobs_url(durability="process") == "file:///mnt/blobs"


def test_password_in_the_storage_url_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        settings.load({"MA_HOME": str(tmp_path), "MA_STORAGE_URL": "s3://me:hush@bucket"})
    assert "hush" not in caught.value.message
