"""Runs whose blobs are in S3: also when it goes away in the middle, and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.app.conftest import until
from tests.blobs import s3_server

from michelangelo.app.platform import Platform, ensure_project

if TYPE_CHECKING:
    from tests.app.conftest import Desk

_FLOW = """
    import pathlib, time
    from michelangelo import uniflow

    HERE = pathlib.Path(__file__).parent

    @uniflow.task
    def produce(size: int) -> bytes:
        with open(HERE / "produced", "a") as file:
            file.write("x")
        return b"p" * size

    @uniflow.task
    def double(data: bytes) -> bytes:
        (HERE / "reached").touch()
        while not (HERE / "open").exists():
            time.sleep(0.01)
        return data * 2

    @uniflow.workflow
    def flow() -> int:
        return len(double(produce(100_000)))

    if __name__ == "__main__":
        print(uniflow.main(flow))
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture
def gate(s3: s3_server.S3) -> Iterator[s3_server.Gate]:
    opened = s3_server.Gate(s3.port)
    yield opened
    opened.shut()


@pytest.fixture
def flow(desk: Desk) -> Path:
    return desk.write("flow.py", _FLOW)


def environment(endpoint: str, bucket: str) -> dict[str, str]:
    return {
        **s3_server.CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "MA_STORAGE_URL": f"s3://{bucket}/team",
        "MA_STORAGE_RETRY_SECONDS": "1",
    }


def test_run_keeps_its_blobs_in_s3_and_no_credentials_anywhere(desk: Desk, s3: s3_server.S3, flow: Path) -> None:
    bucket = s3.bucket()
    (desk.folder / "open").touch()
    code, out, err = desk.run(flow, **environment(s3.endpoint, bucket))
    assert (code, out) == (0, "200000\n"), err
    sizes = sorted(len(key.value) for name, key in s3.keys(bucket).items() if "/platforms/" not in name)
    assert sizes[-2:] == [100_000, 200_000]
    assert not list((desk.home / "blobs").glob("??/*"))
    secret = s3_server.CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    assert secret not in json.dumps([desk.runs(), desk.task_runs()]) + out + err
    for path in desk.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_run_stops_when_s3_goes_away_and_is_resumed_when_it_is_back(
    desk: Desk, s3: s3_server.S3, gate: s3_server.Gate, flow: Path
) -> None:
    variables = environment(gate.endpoint, s3.bucket())
    process = desk.start(flow, **variables)
    until((desk.folder / "reached").exists)
    gate.shut()
    (desk.folder / "open").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "was interrupted" in err
    assert "no store answers" in err
    assert "--resume" in err
    (run,) = desk.runs()
    assert run["status"]["state"] == "Running", "unfinished, to be taken up again"
    gate.reopen()
    code, out, err = desk.run(flow, "--resume", **variables)
    assert (code, out) == (0, "200000\n"), err
    assert (desk.folder / "produced").read_text() == "x", "what was done was not done again"


def test_store_that_never_answers_is_said_before_anything_starts(
    desk: Desk, s3: s3_server.S3, gate: s3_server.Gate, flow: Path
) -> None:
    gate.shut()
    code, _, err = desk.run(flow, **environment(gate.endpoint, s3.bucket()))
    assert code != 0
    assert "no store answers" in err
    assert "Traceback" not in err
    assert desk.runs() == []


def test_credentials_come_from_a_secret(desk: Desk, s3: s3_server.S3, flow: Path) -> None:
    bucket = s3.bucket()
    with Platform.open(desk.settings) as platform:
        ensure_project(platform.client, "local")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket", "namespace": "local"}}
        values = {**s3_server.CREDENTIALS, "AWS_ENDPOINT_URL": s3.endpoint}
        platform.client.create({**secret, "stringData": values})
    (flow.parent / "open").touch()
    storage = {"MA_STORAGE_URL": f"s3://{bucket}/team", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    code, out, err = desk.run(flow, **storage, MA_STORAGE_SECRET="bucket")
    assert (code, out) == (0, "200000\n"), err
    assert any(key.startswith("team/") for key in s3.keys(bucket))
    for name in ("other", "local/other"):
        code, _, err = desk.run(flow, **storage, MA_STORAGE_SECRET=name)
        assert code != 0
        assert "there is no such Secret in project local" in err
