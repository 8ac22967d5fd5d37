"""The folder store: what stays on disk after success, failure and death."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from michelangelo.blobs.blob_store import LocalPaths
from michelangelo.blobs.local import LocalBlobStore
from michelangelo.errors import IntegrityError, StorageError


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def test_path_gives_the_read_only_file(store: LocalBlobStore) -> None:
    assert isinstance(store, LocalPaths)
    path = Path(store.path(store.put(b"data").digest))
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o777 == 0o400


def test_nothing_but_blobs_is_left(store: LocalBlobStore) -> None:
    store.put(b"a" * 3_000_000)
    store.put(b"a" * 3_000_000)
    assert os.listdir(store.root / "tmp") == []
    assert sum(len(files) for _, _, files in os.walk(store.root)) == 1


def test_failing_source_leaves_nothing(store: LocalBlobStore) -> None:
    class Failing:
        def __init__(self) -> None:
            self.reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            if self.reads == 3:
                raise OSError("the line went dead")
            return b"x" * size

    with pytest.raises(StorageError, match="the line went dead"):
        store.put_file(Failing())  # type: ignore[arg-type]  # only read() is used
    assert [files for _, _, files in os.walk(store.root) if files] == []


def test_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A real refusal of the kernel in the middle of a write: the limit on the size of files."""
    script = (
        "import resource, sys\n"
        "from michelangelo.blobs.local import LocalBlobStore\n"
        "from michelangelo.errors import StorageError\n"
        "store = LocalBlobStore(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    store.put(b'x' * 200_000)\n"
        "except StorageError as error:\n    print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert "refused: cannot store" in done.stdout
    assert "the disk is full: free some space" in done.stdout
    assert [files for _, _, files in os.walk(tmp_path) if files] == []


def test_blob_cut_short_is_written_again(store: LocalBlobStore) -> None:
    path = Path(store.path(store.put(b"whole").digest))
    path.chmod(0o600)
    path.write_bytes(b"who")
    assert store.get(store.put(b"whole").digest) == b"whole"


def test_stale_files_of_killed_writers_are_removed(store: LocalBlobStore) -> None:
    old, new = store.root / "tmp" / "1-old", store.root / "tmp" / "2-new"
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (0, 0))
    assert store.remove_stale(new.stat().st_mtime - 60) == 1
    assert os.listdir(store.root / "tmp") == ["2-new"]


def test_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        LocalBlobStore(tmp_path / "file")


def test_damage_is_told_before_what_a_parser_says_of_it(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    blob = store.put(b"0123456789" * 500_000)
    path = Path(store.path(blob.digest))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"XX")
    with pytest.raises(IntegrityError, match=blob.digest), store.open(blob.digest) as reader:
        int(reader.read(2))
    path.unlink()
    store.put(b"0123456789" * 500_000)
    with pytest.raises(ValueError, match="invalid literal"), store.open(blob.digest) as reader:
        int(b"XX" + reader.read(2))
