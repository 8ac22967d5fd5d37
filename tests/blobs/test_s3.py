"""Blobs in S3: what its own is: parts, retries, credentials, damaged and condemned blobs."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from moto.core import set_initial_no_auth_action_count
from tests.blobs.s3_server import CREDENTIALS, S3, Gate

from michelangelo.blobs import s3 as s3_module
from michelangelo.blobs import s3_transfer
from michelangelo.blobs.blob_store import digest_of
from michelangelo.blobs.opening import open_blob_store
from michelangelo.blobs.s3 import S3BlobStore
from michelangelo.errors import IntegrityError, SettingsError, StorageError

MIB = 1 << 20


def test_large_blob_goes_in_parts_with_bounded_memory(s3: S3, tmp_path: Path) -> None:
    bucket, size = s3.bucket(), 3 * s3_transfer.PART_BYTES + 5
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(size)
    # In a process of its own: the server is in this one, and holds the blob.
    script = (
        "import resource, sys\n"
        "from michelangelo.blobs.opening import open_blob_store\n"
        "store = open_blob_store(sys.argv[1])\n"
        "store.has('sha256:' + 64 * '0')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "blob = store.put_file(sys.argv[2])\n"
        "with store.open(blob.digest) as reader:\n"
        "    while reader.read(1 << 20):\n        pass\n"
        "print(blob.digest, blob.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": s3.endpoint}
    command = [sys.executable, "-c", script, f"s3://{bucket}/x", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    digest, stored, growth = done.stdout.split()
    assert (digest, int(stored)) == ("sha256:" + hashlib.sha256(bytes(size)).hexdigest(), size)
    assert int(growth) * 1024 < 64 * MIB
    (key,) = s3.keys(bucket).values()
    assert "-4" in key.etag, "an upload of four parts"


def test_existing_blob_is_not_uploaded_again(s3: S3) -> None:
    bucket = s3.bucket()
    store = s3.store(bucket)
    store.put(b"once")
    (before,) = s3.keys(bucket).values()
    store.put(b"once")
    store.put_file(io.BytesIO(b"once"))
    (after,) = s3.keys(bucket).values()
    assert after is before


def test_failing_source_leaves_no_object_and_no_upload(s3: S3) -> None:
    bucket = s3.bucket()
    store = s3.store(bucket)

    class Shrinking(io.BytesIO):
        """A file that somebody else cuts while it is being stored."""

        rewound = False

        def seek(self, offset: int, whence: int = 0, /) -> int:
            if self.rewound:
                super().seek(0)
                self.truncate(s3_transfer.PART_BYTES + 7)
            self.rewound = True
            return super().seek(offset, whence)

    with pytest.raises(StorageError, match="changed while"):
        store._put_seekable(Shrinking(bytes(2 * s3_transfer.PART_BYTES)))
    assert s3.keys(bucket) == {}
    assert store.remove_stale(store.now() + 60) == 0


def test_damaged_blob_is_written_again_when_its_size_is_wrong(s3: S3) -> None:
    bucket = s3.bucket()
    store = s3.store(bucket)
    digest = store.put(b"whole").digest
    (key,) = s3.keys(bucket).values()
    key.value = b"who"
    with pytest.raises(IntegrityError, match=digest):
        store.get(digest)
    store.put(b"whole")
    assert store.get(digest) == b"whole"


def test_request_is_tried_again_until_the_server_is_back(s3: S3, gate: Gate) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            gate.reopen()

    store = s3.store(endpoint=gate.endpoint, sleep=pause)
    store.put(b"before")
    gate.shut()
    assert store.get(store.put(b"after").digest) == b"after"
    assert len(pauses) >= 3
    assert pauses[0] < pauses[2]


def test_server_that_stays_away_is_named_with_what_to_do(s3: S3, gate: Gate) -> None:
    bucket = s3.bucket()
    store = s3.store(bucket, endpoint=gate.endpoint, patience_seconds=0.3)
    digest = store.put(b"x").digest
    gate.shut()
    for call in (lambda: store.get(digest), lambda: store.put(b"y"), lambda: store.has(digest)):
        with pytest.raises(StorageError, match=rf"s3://{bucket}/some/prefix: no store answers.*resume the run"):
            call()


def test_read_goes_on_where_the_connection_broke(s3: S3, gate: Gate) -> None:
    bucket = s3.bucket()
    data = os.urandom(3 * MIB)
    digest = s3.store(bucket).put(data).digest
    gate.cut_after_bytes = MIB
    store = s3.store(bucket, endpoint=gate.endpoint, sleep=lambda _: None)
    with store.open(digest) as reader:
        assert reader.read() == data


def test_missing_bucket_is_named(s3: S3) -> None:
    store = s3.store("no-such-bucket")
    for call in (lambda: store.put(b"x"), lambda: store.get(digest_of(b"x")), lambda: store.join("a", "b")):
        with pytest.raises(StorageError, match="s3://no-such-bucket/some/prefix: there is no such bucket; make it"):
            call()


def test_wrong_credentials_are_refused_without_showing_them(s3: S3) -> None:
    store = s3.store()

    @set_initial_no_auth_action_count(0)
    def put() -> None:
        store.put(b"x")

    with pytest.raises(StorageError, match="refuses the credentials") as refused:
        put()
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)
    assert CREDENTIALS["AWS_ACCESS_KEY_ID"] not in str(refused.value)


def test_no_credentials_say_what_to_set(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    store = open_blob_store("s3://some-bucket/x")
    with pytest.raises(StorageError, match="there are no credentials; set AWS_ACCESS_KEY_ID"):
        store.put(b"x")
    store.close()


def test_credentials_come_from_the_environment_or_as_given(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.bucket()
    given = open_blob_store(f"s3://{bucket}/x?patience=5", {**CREDENTIALS, "AWS_ENDPOINT_URL": s3.endpoint})
    digest = given.put(b"x").digest
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3.endpoint}.items():
        monkeypatch.setenv(name, value)
    found = open_blob_store(f"s3://{bucket}/x")
    assert isinstance(found, S3BlobStore)
    assert found.get(digest) == b"x"
    given.close()
    found.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3://b/p?patience=soon", r"only option of a bucket is \?patience=SECONDS"),
        ("s3://b/p?key=1", "only option"),
        ("s3://me:hush@b/p", "take them out"),
    ],
)
def test_bad_url_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        open_blob_store(url)
    assert "hush" not in str(refused.value)


def test_unknown_credential_is_named_without_its_value() -> None:
    with pytest.raises(SettingsError, match="PASSWORD is no credential") as refused:
        open_blob_store("s3://b/p", {"PASSWORD": "hush"})
    assert "hush" not in str(refused.value)


def test_put_and_touch_make_an_old_blob_young(s3: S3) -> None:
    bucket = s3.bucket()
    store = s3.store(bucket)
    digest = store.put(b"old").digest
    for refresh in (lambda: store.put(b"old"), lambda: store.touch(digest)):
        s3.age(bucket, digest, 3600)
        assert {blob.digest: age for blob, age in store.ages()}[digest] < store.now() - 3000
        refresh()
        assert {blob.digest: age for blob, age in store.ages()}[digest] > store.now() - 60
    assert store.get(digest) == b"old"


def test_writer_waits_while_a_collector_holds_its_blob_condemned(s3: S3) -> None:
    """The collector stands between its look and its deletion, the worst moment."""
    bucket = s3.bucket()
    digest = s3.store(bucket).put(b"contested").digest
    s3.age(bucket, digest, 3600)
    standing, go, waiting = threading.Event(), threading.Event(), threading.Event()

    class Slow(S3BlobStore):
        def _delete(self, key: str, subject: str, *, retried: bool = True) -> None:
            if not retried:
                standing.set()
                assert go.wait(30)
            super()._delete(key, subject, retried=retried)

    collector = Slow(bucket, "some/prefix", credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": s3.endpoint})
    removed: list[str] = []
    collecting = threading.Thread(target=lambda: removed.extend(collector.discard([digest], collector.now() - 60)))
    collecting.start()
    assert standing.wait(30)

    def pause(_: float) -> None:
        waiting.set()
        go.set()
        collecting.join()

    writer = s3.store(bucket, sleep=pause)
    writer.put(b"contested")
    assert waiting.is_set()
    collector.close()
    assert removed == [digest]
    assert writer.get(digest) == b"contested"


def test_marker_of_a_dead_collector_runs_out(s3: S3) -> None:
    bucket = s3.bucket()
    store = s3.store(bucket, sleep=lambda _: pytest.fail("it waits"))
    digest = digest_of(b"x")
    store._write("some/prefix/condemned/dead", f'["{digest}"]'.encode(), "a marker")
    marker = s3.keys(bucket)["some/prefix/condemned/dead"]
    s3_age = s3_module._MARKER_SECONDS + 1
    marker.last_modified = marker.last_modified.__class__.fromtimestamp(
        store.now() - s3_age, marker.last_modified.tzinfo
    )
    store.put(b"x")
    marker.last_modified = marker.last_modified.__class__.fromtimestamp(store.now() - 1000, marker.last_modified.tzinfo)
    store.remove_stale(store.now() - 3600)
    assert list(s3.keys(bucket)) == [f"some/prefix/{digest[7:9]}/{digest[9:]}"]


def test_blobs_of_a_prefix_within_are_somebody_elses(s3: S3) -> None:
    bucket = s3.bucket()
    outer, inner = s3.store(bucket, ""), s3.store(bucket, "team/a")
    own, other = outer.put(b"own"), inner.put(b"other")
    assert list(outer.iterate()) == [own]
    assert list(inner.iterate()) == [other]


def test_stream_that_cannot_go_back_is_stored(s3: S3) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    store = s3.store()
    assert store.get(store.put_file(Pipe(b"piped")).digest) == b"piped"


def test_unfinished_uploads_of_killed_writers_are_removed(s3: S3) -> None:
    store = s3.store()
    key = store._key(digest_of(b"x"))
    for name in (key, "some/prefix/not-a-blob"):
        store._requests("create_multipart_upload", "an upload", Bucket=store._bucket, Key=name)
    assert store.remove_stale(0) == 0
    # The server dates all uploads to 2010.
    assert store.remove_stale(store.now()) == 1, "the other is no blob's"
    assert store.remove_stale(store.now()) == 0
