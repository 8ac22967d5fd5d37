"""Folders as bytes: unpack after pack is identity, equal folders are equal bytes, and nothing malicious is unpacked."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from michelangelo.errors import CodecError
from michelangelo.uniflow import archive

names = st.text(st.characters(exclude_characters="/\0\\", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
parts = names.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
folders = st.dictionaries(st.lists(parts, min_size=1, max_size=3).map("/".join), st.binary(max_size=200), max_size=6)


def packed(folder: Path) -> bytes:
    stream = io.BytesIO()
    archive.pack(str(folder), stream)
    return stream.getvalue()


def content(folder: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=folders)
def test_unpack_after_pack_is_identity(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target") / "copy"
    for name, data in files.items():
        path = source / name
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    data = packed(source)
    archive.unpack(io.BytesIO(data), str(target))
    assert content(target) == content(source)
    assert packed(target) == data


def test_times_owners_and_order_of_creation_do_not_matter(tmp_path: Path) -> None:
    for place, order in (("one", "ab"), ("two", "ba")):
        (tmp_path / place).mkdir()
        for name in order:
            (tmp_path / place / name).write_text(name)
            os.utime(tmp_path / place / name, (len(place), ord(name)))
    (tmp_path / "two" / "a").chmod(0o600)
    assert packed(tmp_path / "one") == packed(tmp_path / "two")


def evil(*entries: tuple[str, bytes | str | None, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(data, str):
                info.linkname = data
            info.size = len(data) if isinstance(data, bytes) else 0
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    stream.seek(0)
    return stream


REG, SYM, LNK, DIR, FIFO, DEV = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    b"3",
)
GOOD = ("good", b"fine", REG)
MALICIOUS = {
    "parent": [("../x", b"", REG)],
    "absolute": [("/tmp/x", b"", REG)],
    "inner-parent": [("a/../../x", b"", REG)],
    "dot": [("./", None, DIR), ("a/./b", b"", REG)],
    "backslash": [("..\\x", b"", REG)],
    "link-out": [("l", "../..", SYM)],
    "link-absolute": [("l", "/etc/passwd", SYM)],
    "through-link": [("d", None, DIR), ("l", "d", SYM), ("l/x", b"", REG)],
    "over-link": [("t", b"1", REG), ("l", "t", SYM), ("l", b"2", REG)],
    "hard-link": [("h", "/etc/passwd", LNK)],
    "fifo": [("f", None, FIFO)],
    "device": [("d", None, DEV)],
    "twice": [("a", b"1", REG), ("a", b"2", REG)],
    "through-file": [("a", b"1", REG), ("a/b", b"2", REG)],
}


@pytest.mark.parametrize("entries", MALICIOUS.values(), ids=MALICIOUS)
def test_malicious_archive_is_refused_whole(
    tmp_path: Path, entries: list[tuple[str, bytes | str | None, bytes]]
) -> None:
    with pytest.raises(CodecError, match=r"refused|outside"):
        archive.unpack(evil(GOOD, *entries), str(tmp_path / "target"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "data", [b"", b"no tar at all" * 100, evil(GOOD).getvalue()[:700]], ids=["empty", "text", "cut"]
)
def test_damaged_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CodecError, match="archive is damaged"):
        archive.unpack(io.BytesIO(data), str(tmp_path / "target"))
    assert os.listdir(tmp_path) == []


def test_bounds_hold_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="over the bound of 3 bytes"):
        archive.unpack(evil(GOOD), str(tmp_path / "t"), max_bytes=3)
    with pytest.raises(CodecError, match="1 files"):
        archive.unpack(evil(GOOD, ("b", b"", REG)), str(tmp_path / "t"), max_files=1)
    assert os.listdir(tmp_path) == []


def test_target_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(CodecError, match="exists already"):
        archive.unpack(evil(GOOD), str(tmp_path))
    assert os.listdir(tmp_path) == ["mine"]


def test_what_is_no_file_is_not_packed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CodecError, match="pipe is neither a file nor a folder"):
        packed(tmp_path)


def test_link_that_leaves_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "out").symlink_to("/etc/passwd")
    with pytest.raises(CodecError, match="links to '/etc/passwd'"):
        packed(tmp_path)
