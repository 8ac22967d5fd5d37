"""Checkpoints in a real S3-compatible server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.blobs import s3_server
from tests.llm.finetune.checkpoint import small_runs

from michelangelo.llm.finetune.recording import Event, Saved

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[s3_server.S3, str, str]]:
    """The server, a bucket, and the URL of a folder in it."""
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server.serving() as server:
        bucket = server.bucket()
        query = f"endpoint_override=127.0.0.1:{server.port}&scheme=http&region=us-east-1"
        yield server, bucket, f"s3://{bucket}/runs/first?{query}"


def test_a_bucket_holds_checkpoints(place: tuple[s3_server.S3, str, str]) -> None:
    server, bucket, url = place
    events: list[Event] = []
    run = small_runs.Run(width=300)
    checkpoints = small_runs.open_store(url, events)
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        run.step()
        checkpoints.save(run.state(step))
    newest = checkpoints.newest()
    assert newest is not None
    assert [type(event) for event in events] == [Saved] * 3, events
    other = small_runs.Run(width=300)
    assert checkpoints.load(newest, other.strategy).step == 3
    assert small_runs.same(run.tensors(), other.tensors())
    assert checkpoints.named(newest.path).step == 3
    kept = {key.split("/")[2] for key in server.keys(bucket) if "step-" in key}
    assert sorted(name[:13] for name in kept) == ["step-00000002", "step-00000003"]

    (torn,) = [key for key in server.keys(bucket) if key.endswith("manifest.json") and "step-00000003" in key]
    server.keys(bucket)[torn].value = b"torn"
    before = checkpoints.newest()
    assert before is not None
    assert before.step == 2
    assert len(small_runs.alerts(events)) == 1
    assert checkpoints.newest() is not None
    assert len(small_runs.alerts(events)) == 1
    checkpoints.close()
