"""Secrets: encrypted at rest, shown by name only, and never in a listing, a watch, the audit log or an error."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import auth, authorization
from michelangelo.apiserver.authorization import Attributes
from michelangelo.app.platform import Platform, ensure_project
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object
from michelangelo.meta import secrecy
from michelangelo.storage.store import Write

VALUE = "hf_s3cr3t-value-of-the-test"
ENCODED = base64.b64encode(VALUE.encode()).decode()


def secret(name: str = "hub", **fields: Any) -> Object:
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "team"}}
    return {**head, **({"stringData": {"token": VALUE}} | fields)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def platform(settings: Settings) -> Iterator[Platform]:
    with Platform.open(settings) as opened:
        ensure_project(opened.client, "team")
        yield opened


def holders(folder: Path, *needles: str) -> list[str]:
    """The files below `folder` that hold one of the texts."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(needle.encode() in path.read_bytes() for needle in needles):
            found.append(path.name)
    return found


def test_secret_is_given_by_name(platform: Platform) -> None:
    platform.client.create(secret())
    assert platform.client.get("Secret", "hub", namespace="team")["data"] == {"token": ENCODED}


def test_no_file_of_the_home_holds_a_value(platform: Platform, settings: Settings) -> None:
    applied = json.dumps(secret())
    obj = secret()
    obj["metadata"]["annotations"] = {secrecy.LAST_APPLIED: applied}
    platform.client.create(obj)
    platform.client.patch("Secret", "hub", {"stringData": {"other": VALUE + "2"}}, namespace="team")
    platform.client.delete("Secret", "hub", namespace="team")
    assert holders(settings.home, VALUE, ENCODED, ENCODED[:-4]) == []
    assert holders(settings.home, "sealed") != []  # it did look where secrets are
    assert settings.secrets_key.stat().st_mode & 0o777 == 0o600


def test_last_applied_document_comes_back_by_name_only(platform: Platform) -> None:
    obj = secret()
    obj["metadata"]["annotations"] = {secrecy.LAST_APPLIED: "{}", "mine": "1"}
    platform.client.create(obj)
    by_name = platform.client.get("Secret", "hub", namespace="team")["metadata"]["annotations"]
    listed = platform.client.list("Secret", namespace="team").items[0]["metadata"]["annotations"]
    assert by_name == {secrecy.LAST_APPLIED: "{}", "mine": "1"}
    assert listed == {secrecy.WITHHELD: "true", "mine": "1"}


def test_listings_and_watches_name_the_keys_and_withhold_the_values(platform: Platform) -> None:
    watch = platform.client.watch("Secret", namespace="team")
    platform.client.create(secret())
    platform.client.patch("Secret", "hub", {"stringData": {"more": VALUE}}, namespace="team")
    platform.client.delete("Secret", "hub", namespace="team")
    events = [watch.next(10.0) for _ in range(3)]
    watch.close()
    assert [event.type for event in events if event] == ["ADDED", "MODIFIED", "DELETED"]
    platform.client.create(secret())
    shown = [*(event.object for event in events if event), *platform.client.list("Secret", namespace="team").items]
    assert [sorted(obj["data"]) for obj in shown] == [["token"], ["more", "token"], ["more", "token"], ["token"]]
    text = json.dumps(shown)
    assert VALUE not in text
    assert ENCODED not in text
    assert "sealed" not in text


def test_copy_of_a_listing_cannot_be_written_back(platform: Platform) -> None:
    platform.client.create(secret())
    listed = platform.client.list("Secret", namespace="team").items[0]
    with pytest.raises(errors.InvalidError, match="without its values"):
        platform.client.update(listed)
    assert platform.client.get("Secret", "hub", namespace="team")["data"] == {"token": ENCODED}


def test_patch_changes_one_value_and_keeps_the_others(platform: Platform) -> None:
    platform.client.create(secret())
    changed = platform.client.patch("Secret", "hub", {"data": {"token": None, "b": "MQ=="}}, namespace="team")
    assert changed["data"] == {"b": "MQ=="}
    same = platform.client.patch("Secret", "hub", {"data": {"b": "MQ=="}}, namespace="team")
    assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


def test_immutable_secret_stays(platform: Platform) -> None:
    platform.client.create(secret(immutable=True))
    with pytest.raises(errors.InvalidError, match="immutable"):
        platform.client.patch("Secret", "hub", {"stringData": {"token": "x"}}, namespace="team")
    with pytest.raises(errors.InvalidError, match="immutable"):
        platform.client.patch("Secret", "hub", {"immutable": False}, namespace="team")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"data": {"k": "no base64 " + VALUE}}, "data.k"),
        ({"data": {"a b": "MQ=="}}, 'data["a b"]'),
        ({"stringData": {"k": "x" * (1 << 20) + "y"}}, "data"),
        ({"data": {"k": 1}}, "data.k"),
    ],
)
def test_bad_secret_is_refused_without_repeating_it(platform: Platform, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(errors.MichelangeloError) as caught:
        platform.client.create(secret(**fields))
    assert path in str(caught.value) + "".join(map(str, getattr(caught.value, "errors", ())))
    assert VALUE not in str(caught.value) + "".join(map(str, getattr(caught.value, "errors", ())))
    assert platform.client.list("Secret", namespace="team").items == []


def test_another_key_does_not_open_it(platform: Platform, settings: Settings) -> None:
    platform.client.create(secret())
    settings.secrets_key.write_text(os.urandom(32).hex())
    with Platform.open(settings) as other, pytest.raises(errors.StorageError, match="sealed with another key"):
        other.client.get("Secret", "hub", namespace="team")


def test_sealed_value_cannot_be_moved_to_another_secret(platform: Platform) -> None:
    platform.client.create(secret("mine"))
    platform.client.create(secret("theirs", stringData={"token": "other"}))
    store = platform.store
    mine, theirs = store.get("/secrets/team/mine"), store.get("/secrets/team/theirs")
    assert mine is not None
    assert theirs is not None
    moved = json.loads(theirs.value) | {"sealed": json.loads(mine.value)["sealed"]}
    store.write(Write(theirs.key, json.dumps(moved).encode(), theirs.revision)).result()
    with pytest.raises(errors.StorageError, match="team/theirs"):
        platform.client.get("Secret", "theirs", namespace="team")


def test_run_gets_secrets_of_its_project_by_name_only() -> None:
    kind = registry.get("Secret")
    run = auth.Identity("run:team/run-1", auth.RunScope("team", "run-1", "uid-1"))
    authorization.authorize(run, Attributes("get", kind, "team", "hub"))
    for verb, namespace in [
        ("get", "other"),
        ("list", "team"),
        ("watch", "team"),
        ("patch", "team"),
        ("delete", "team"),
    ]:
        with pytest.raises(errors.ForbiddenError):
            authorization.authorize(run, Attributes(verb, kind, namespace, "hub"))
    reader = auth.Identity("run:team/run-1", auth.RunScope("team", "run-1", "uid-1", read_only=True))
    with pytest.raises(errors.ForbiddenError):
        authorization.authorize(reader, Attributes("get", kind, "team", "hub"))
