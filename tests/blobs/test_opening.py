"""Which store a URL opens, and that nothing heavy is imported for a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from michelangelo.blobs.local import LocalBlobStore
from michelangelo.blobs.opening import open_blob_store
from michelangelo.blobs.remote import RemoteBlobStore
from michelangelo.errors import SettingsError, StorageError


def test_folder_and_file_url_open_the_local_store(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    for url in (str(folder), f"file://{str(folder).replace(' ', '%20')}"):
        store = open_blob_store(url)
        assert isinstance(store, LocalBlobStore)
        assert store.root == folder


def test_other_urls_go_to_fsspec() -> None:
    store = open_blob_store("memory://opening")
    assert isinstance(store, RemoteBlobStore)
    assert store.get(store.put(b"x").digest) == b"x"


def test_file_url_says_whether_blobs_survive_a_loss_of_power(tmp_path: Path) -> None:
    durable, quick = (open_blob_store(f"file://{tmp_path}{option}") for option in ("?sync=true", ""))
    assert isinstance(durable, LocalBlobStore)
    assert isinstance(quick, LocalBlobStore)
    assert (durable.sync, quick.sync) == (True, False)
    with pytest.raises(SettingsError, match=r"\?sync=true"):
        open_blob_store(f"file://{tmp_path}?nonsense=1")


def test_empty_and_relative_urls_are_refused() -> None:
    with pytest.raises(SettingsError, match="is empty"):
        open_blob_store("")
    with pytest.raises(SettingsError, match="file:///absolute/path"):
        open_blob_store("file://relative/path")


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(StorageError, match="nosuch://"):
        open_blob_store("nosuch://bucket")


def test_local_store_does_not_load_fsspec(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom michelangelo.blobs.opening import open_blob_store\n"
        "open_blob_store(sys.argv[1]).put(b'x')\nprint('fsspec' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
