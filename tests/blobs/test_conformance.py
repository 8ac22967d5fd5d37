"""What every blob store does, over all of them: memory, a folder, S3, and fsspec on memory and on a folder."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from michelangelo.blobs.blob_store import Blob, BlobStore, Collectable, digest_of
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.blobs.remote import RemoteBlobStore
from michelangelo.errors import IntegrityError, StorageError

MISSING = "sha256:" + "0" * 64
OPENERS: dict[str, Callable[[Path], BlobStore]] = {
    "memory": lambda path: MemoryBlobStore(),
    "local": LocalBlobStore,
    "local-synced": lambda path: LocalBlobStore(path, sync=True),
    "fsspec-memory": lambda path: RemoteBlobStore(f"memory://{path.as_posix().strip('/')}"),
    "fsspec-file": lambda path: RemoteBlobStore(f"file://{path}"),
}


@pytest.fixture(params=[*OPENERS, "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "s3":
        opened: BlobStore = request.getfixturevalue("s3").store()
    else:
        opened = OPENERS[request.param](tmp_path / "blobs")
    yield opened
    opened.close()


def test_put_names_a_blob_by_its_content(store: BlobStore) -> None:
    blob = store.put(b"hello")
    assert blob == Blob("sha256:" + hashlib.sha256(b"hello").hexdigest(), 5)
    assert store.get(blob.digest) == b"hello"
    assert store.has(blob.digest)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=3000))
def test_all_ways_in_and_out_agree(store: BlobStore, data: bytes) -> None:
    blob = store.put_file(io.BytesIO(data))
    assert blob == store.put(data)
    with store.open(blob.digest) as reader:
        assert reader.read() == data
    assert store.get(blob.digest) == data


def test_put_twice_is_put_once(store: BlobStore) -> None:
    assert store.put(b"x") == store.put(b"x") == store.put_file(io.BytesIO(b"x"))
    assert list(store.iterate()) == [Blob(digest_of(b"x"), 1)]


def test_put_file_streams_a_path_of_several_chunks(store: BlobStore, tmp_path: Path) -> None:
    data = b"0123456789abcdef" * 200_000
    (tmp_path / "big").write_bytes(data)
    blob = store.put_file(tmp_path / "big")
    assert blob == Blob(digest_of(data), len(data))
    with store.open(blob.digest) as reader:
        assert reader.read(5) == b"01234"
        assert reader.read() == data[5:]


def test_put_file_starts_where_the_stream_stands(store: BlobStore) -> None:
    stream = io.BytesIO(b"skipped-kept")
    stream.seek(8)
    assert store.get(store.put_file(stream).digest) == b"kept"


def test_put_file_of_a_missing_path_is_refused(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        store.put_file(tmp_path / "absent")
    assert list(store.iterate()) == []


def test_missing_blob_is_named(store: BlobStore) -> None:
    assert not store.has(MISSING)
    with pytest.raises(StorageError, match=MISSING):
        store.get(MISSING)
    with pytest.raises(StorageError, match=MISSING):
        store.open(MISSING).read()


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 64, MISSING + "\n", "A" * 64]
)
def test_name_that_is_no_digest_is_refused(store: BlobStore, digest: str) -> None:
    for call in (store.get, store.open, store.has, store.delete):
        with pytest.raises(StorageError, match="is no blob digest"):
            call(digest)


def test_delete_removes_and_may_be_repeated(store: BlobStore) -> None:
    kept, gone = store.put(b"kept"), store.put(b"gone")
    store.delete(gone.digest)
    store.delete(gone.digest)
    assert not store.has(gone.digest)
    assert list(store.iterate()) == [kept]


def test_iterate_lists_all_blobs(store: BlobStore) -> None:
    blobs = {store.put(bytes([number]) * number) for number in range(30)}
    assert set(store.iterate()) == blobs


def test_concurrent_writers_of_one_blob_agree(store: BlobStore) -> None:
    data = b"x" * 100_000
    found: list[Blob] = []
    threads = [threading.Thread(target=lambda: found.append(store.put(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Blob(digest_of(data), len(data))] * 8
    assert store.get(digest_of(data)) == data


def test_touch_says_whether_a_blob_is_there(store: BlobStore) -> None:
    digest = store.put(b"here").digest
    assert store.touch(digest)
    assert not store.touch(MISSING)
    store.delete(digest)
    assert not store.touch(digest)


def test_discard_leaves_what_was_touched(store: BlobStore) -> None:
    if not isinstance(store, Collectable):
        pytest.skip("its blobs have no age")
    blob = store.put(b"old")
    assert [one for one, _ in store.ages()] == [blob]
    assert store.discard([blob.digest, MISSING], store.now() - 60) == []
    assert store.has(blob.digest)
    assert store.discard([blob.digest, MISSING], store.now() + 60) == [blob.digest]
    assert not store.has(blob.digest)
    assert store.put(b"old") == blob
    assert store.get(blob.digest) == b"old"


def test_platforms_that_joined_are_known(store: BlobStore) -> None:
    if not isinstance(store, Collectable):
        pytest.skip("its blobs have no age")
    assert store.platforms() == {}
    store.join("a1", "ann's laptop")
    store.join("a1", "ann's laptop")
    assert store.platforms() == {"a1": "ann's laptop"}
    assert list(store.iterate()) == []


@pytest.fixture(params=["local", "fsspec-file", "s3"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BlobStore, str]:
    """A store and the digest of a blob whose bytes were changed behind its back."""
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        bucket = server.bucket()
        opened = server.store(bucket)
        name = opened.put(b"a true sentence").digest
        server.damage(bucket, name)
        return opened, name
    store = OPENERS[request.param](tmp_path)
    digest = store.put(b"a true sentence").digest
    path = tmp_path / digest[7:9] / digest[9:]
    path.chmod(0o600)
    path.write_bytes(b"a false sentenc")
    return store, digest


def test_damaged_blob_is_never_returned(damaged: tuple[BlobStore, str]) -> None:
    store, digest = damaged
    with pytest.raises(IntegrityError, match=digest):
        store.get(digest)
    with store.open(digest) as reader, pytest.raises(IntegrityError, match=digest):
        reader.read()
