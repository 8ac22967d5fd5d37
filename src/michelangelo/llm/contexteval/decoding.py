"""Bytes → text: which encoding a file has, and its text in pieces of bounded size. Never a guess that loses characters.

A byte order mark decides; else strict UTF-8 of the whole file; else what charset-normalizer makes of samples, if the
whole file can be read so. What remains is binary or undecodable, and is said to be.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import charset_normalizer

__all__ = ["MAX_LINE_CHARS", "PIECE_BYTES", "Sniffed", "is_binary", "lines", "sniff", "text_of"]

PIECE_BYTES: Final = 1 << 20
MAX_LINE_CHARS: Final = 1 << 16
"""A line that is longer is cut: memory is bounded whatever the file."""
_SAMPLE_BYTES: Final = 1 << 16
_USUAL: Final = ("cp1252", "latin_1", "cp1251", "cp1250")
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Sniffed:
    """One pass over a file: its SHA-256 and size, and its encoding; or, with `encoding` empty, the problem with it."""

    digest: str
    num_bytes: int
    encoding: str
    problem: str = ""


def sniff(path: Path) -> Sniffed:
    """Raises OSError when the file cannot be read."""
    digest, size, head = hashlib.sha256(), 0, b""
    utf8 = codecs.getincrementaldecoder("utf-8")("strict")
    error_at, sample = -1, b""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            head = head or piece[:_SAMPLE_BYTES]
            if error_at < 0:
                try:
                    utf8.decode(piece)
                except UnicodeDecodeError as e:
                    error_at, sample = size + e.start, piece[max(e.start - _SAMPLE_BYTES // 2, 0) :][:_SAMPLE_BYTES]
            size += len(piece)
    if error_at < 0:
        try:
            utf8.decode(b"", final=True)
        except UnicodeDecodeError:
            error_at, sample = size, head
    encoding, problem = _decided(path, head, is_utf8=error_at < 0, sample=sample)
    return Sniffed(digest.hexdigest(), size, encoding, problem)


def is_binary(head: bytes) -> bool:
    """Zero bytes where no UTF-16 or UTF-32 puts them, or many control characters."""
    if any(head.startswith(mark) for mark, _ in _MARKS) or _wide(head):
        return False
    if b"\0" in head:
        return True
    controls = sum(head.count(bytes([c])) for c in range(32) if c not in (7, 8, 9, 10, 11, 12, 13, 27))
    return controls * 20 > len(head)


def lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines without their ends (\\n, \\r\\n, \\r), long ones cut. Raises UnicodeDecodeError with a wrong encoding."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    rest, is_final = "", False
    with path.open("rb") as file:
        while not is_final:
            piece = file.read(PIECE_BYTES)
            is_final = not piece
            rest += decoder.decode(piece, final=is_final)
            # A \r at the end may be half of a \r\n.
            held = "\r" if rest.endswith("\r") and not is_final else ""
            *whole, rest = rest.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
            for line in whole:
                yield from _cut(line)
            *cut, rest = _cut(rest) if len(rest) > MAX_LINE_CHARS else (rest,)
            yield from cut
            rest += held
    if rest:
        yield rest


def text_of(data: bytes, encoding: str) -> str:
    """All of it, with \\n for every end of a line. Raises UnicodeDecodeError."""
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _decided(path: Path, head: bytes, *, is_utf8: bool, sample: bytes) -> tuple[str, str]:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return (name, "") if _reads(path, name) else ("", f"begins as {name}, and is none further on")
    if wide := _wide(head):
        return (wide, "") if _reads(path, wide) else ("", "is binary, or text in an unknown encoding")
    if is_binary(head):
        return "", "is binary"
    if is_utf8:
        return "utf-8", ""
    for piece in (sample, head):
        if (encoding := _likeliest(piece)) and _reads(path, encoding):
            return encoding, ""
    return "", "cannot be decoded: it is neither UTF-8 nor anything else that is known; convert it to UTF-8"


def _likeliest(sample: bytes) -> str:
    """Among those that are about as good as the best, the one that files are really written in."""
    found = charset_normalizer.from_bytes(sample)
    best = found.best()
    if best is None:
        return ""
    near = {one.encoding for one in found if one.chaos <= best.chaos + 0.1 and one.coherence >= best.coherence - 0.05}
    return next((encoding for encoding in _USUAL if encoding in near), best.encoding)


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: mostly Latin text has a zero in every other byte."""
    sample = head[:4096]
    pairs = len(sample) // 2
    if pairs < 8:
        return ""
    even, odd = sample[0 : 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)
    if odd > 0.6 * pairs and even < 0.05 * pairs:
        return "utf-16-le"
    return "utf-16-be" if even > 0.6 * pairs and odd < 0.05 * pairs else ""


def _reads(path: Path, encoding: str) -> bool:
    try:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except (UnicodeError, LookupError):
        return False
    return True


def _cut(line: str) -> Iterator[str]:
    while len(line) > MAX_LINE_CHARS:
        at = line.rfind(" ", MAX_LINE_CHARS // 2, MAX_LINE_CHARS)
        at = at if at > 0 else MAX_LINE_CHARS
        yield line[:at]
        line = line[at:].removeprefix(" ")
    yield line
