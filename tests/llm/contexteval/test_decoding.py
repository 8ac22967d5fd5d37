"""Encodings: what is read is what was written, and what cannot be read is said, never guessed."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from michelangelo.llm.contexteval import decoding

TEXT = "Prüfung: naïve café, façade. Größe über alles, déjà vu!\nZweite Zeile mit Umlauten: äöüß.\n" * 20


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "utf-8-sig"),
        (TEXT.encode("utf-16"), "utf-16"),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        (TEXT.encode("utf-16-be"), "utf-16-be"),
        (TEXT.encode("utf-32"), "utf-32"),
    ],
)
def test_encoding_is_found_and_the_text_is_the_same(tmp_path: Path, data: bytes, encoding: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(data)
    sniffed = decoding.sniff(path)
    assert (sniffed.encoding, sniffed.num_bytes, sniffed.problem) == (encoding, len(data), "")
    assert "\n".join(decoding.lines(path, encoding)) == TEXT.rstrip("\n")


def test_old_encoding_is_found_by_what_it_makes_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    assert list(decoding.lines(path, decoding.sniff(path).encoding)) == TEXT.splitlines()


@pytest.mark.parametrize(
    "data", [b"\x7fELF\x00\x00\x01" * 50, bytes(range(256)) * 8, b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" * 9]
)
def test_binary_is_said_to_be(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(data)
    sniffed = decoding.sniff(path)
    assert sniffed.encoding == ""
    assert "binary" in sniffed.problem


def test_text_that_ends_within_a_character_is_not_read_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "cut.txt"
    path.write_bytes(b"plain text " * 100 + "é".encode()[:1])
    assert decoding.sniff(path).encoding != "utf-8"


def test_utf16_that_breaks_off_is_said_to_be_undecodable(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes("text".encode("utf-16") + b"\x00")
    assert "utf-16" in decoding.sniff(path).problem


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("ab é\r\n", max_size=60), size=st.integers(1, 7))
def test_lines_do_not_depend_on_where_pieces_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, size: int
) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(text.encode())
    monkeypatch.setattr(decoding, "PIECE_BYTES", size)
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert list(decoding.lines(path, "utf-8")) == (expected[:-1] if not expected[-1] else expected)


def test_endless_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"word " * 100_000)
    found = list(decoding.lines(path, "utf-8"))
    assert max(map(len, found)) <= decoding.MAX_LINE_CHARS
    assert " ".join(found).split() == ["word"] * 100_000
