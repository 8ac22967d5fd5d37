"""A task gets its secrets, and nothing that the run leaves behind holds one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from michelangelo.app.platform import Platform, ensure_project
from michelangelo.client.client import Object

if TYPE_CHECKING:
    from tests.app.conftest import Desk

VALUE = "s3cr3t-value-of-the-test"
FLOW = """
    import os, stat
    from michelangelo import uniflow

    SECRETS = [uniflow.Secret("hub", "token", env="TOKEN"), uniflow.Secret("hub", "key", as_file=True)]

    @uniflow.task(secrets=SECRETS, retry_attempts=0)
    def use(fail: bool) -> list[str]:
        token, path = os.environ["TOKEN"], os.environ["HUB_KEY"]
        print("the token is", token, flush=True)
        mode = oct(stat.S_IMODE(os.stat(path).st_mode))
        if fail:
            raise ValueError(f"bad token {token}")
        return [str(len(token)), open(path).read()[:5], mode, path]

    @uniflow.task
    def after(path: str) -> bool:
        return os.path.exists(path) or "TOKEN" in os.environ

    @uniflow.workflow
    def flow(fail: bool = False):
        length, start, mode, path = use(fail)
        print("got", length, start, mode, "left" if after(path) else "gone")

    if __name__ == "__main__":
        uniflow.main(flow)
"""


def make(desk: Desk, **values: str) -> None:
    with Platform.open(desk.settings) as platform:
        ensure_project(platform.client, "local")
        platform.client.create(secret(**values))


def secret(**values: str) -> Object:
    metadata = {"name": "hub", "namespace": "local"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def holders(folder: Path, needle: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle.encode() in path.read_bytes()]


def test_task_gets_variables_and_files_which_are_gone_afterwards(desk: Desk) -> None:
    make(desk, token=VALUE, key="-----BEGIN")
    code, out, err = desk.run(desk.write("flow.py", FLOW))
    assert code == 0, err
    assert "got 24 ----- 0o600 gone" in out
    logs = [path.read_text() for path in desk.home.rglob("*.log")]
    assert any("the token is ***" in text for text in logs)
    assert holders(desk.folder, VALUE) == []


def test_failure_that_repeats_the_secret_is_redacted(desk: Desk) -> None:
    make(desk, token=VALUE, key="-----BEGIN")
    code, out, err = desk.run(desk.write("flow.py", FLOW), "--fail", "true")
    assert code != 0
    assert "bad token ***" in err
    assert VALUE not in out + err
    assert holders(desk.folder, VALUE) == []


def test_missing_secret_says_how_to_make_it(desk: Desk) -> None:
    flow = desk.write("flow.py", FLOW)
    _, _, err = desk.run(flow)
    assert "there is no Secret hub in project local; make it with `mactl secret set hub token" in err
    with Platform.open(desk.settings) as platform:
        platform.client.create(secret(token=VALUE))
    _, _, err = desk.run(flow)
    assert "has no key 'key'; it has: token" in err
