"""Formats of artifacts, told by their first bytes, whatever codec wrote them; and tables, read by the codecs' library.

It prints nothing. What needs no library is read without one.
"""

from __future__ import annotations

import importlib
import io
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast

from michelangelo.cli.artifacts import Artifact
from michelangelo.cli.content import Content

__all__ = ["EXTENSIONS", "HEAD_BYTES", "FormatName", "decoded", "head_of", "kind_of", "read_table", "read_up_to"]

FormatName: TypeAlias = Literal[
    "parquet", "arrow", "npy", "safetensors", "png", "jpeg", "gif", "tar", "zip", "json", "text", "binary"
]
HEAD_BYTES: Final = 64 * 1024
EXTENSIONS: Final = {
    "parquet": ".parquet",
    "arrow": ".arrow",
    "npy": ".npy",
    "safetensors": ".safetensors",
    "png": ".png",
    "jpeg": ".jpg",
    "gif": ".gif",
    "tar": ".tar",
    "zip": ".zip",
    "json": ".json",
    "text": ".txt",
}
_MAGIC: Final[tuple[tuple[bytes, FormatName], ...]] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\x93NUMPY", "npy"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"PK\x03\x04", "zip"),
)


def head_of(content: Content, found: Artifact) -> bytes:
    """The first bytes; none for what is in the object itself."""
    if not found.digest:
        return b""
    with content.open_blob(found.digest) as file:
        return read_up_to(file, HEAD_BYTES)


def kind_of(head: bytes) -> FormatName:
    """What the first bytes say."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "tar"
    if len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 28:
        return "safetensors"
    try:
        # The end may cut a character.
        text = head.decode("utf-8") if len(head) < HEAD_BYTES else head[:-4].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return "binary"
    if "\0" in text or (len(head) >= HEAD_BYTES and len(text.encode()) < len(head) - 8):
        return "binary"
    return "json" if text.lstrip()[:1] in ("{", "[") else "text"


def read_up_to(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or all there are."""
    data = b""
    while len(data) < size and (chunk := file.read(size - len(data))):
        data += chunk
    return data


def read_table(content: Content, found: Artifact) -> Any:
    """A Parquet file as a pyarrow Table. CodecError without pyarrow."""
    return decoded(content, found, "arrow")


def decoded(content: Content, found: Artifact, codec: str) -> Any:
    """The blob as `codec` reads it. Raises CodecError when a library is missing or the data is something else."""
    codecs = importlib.import_module("michelangelo.uniflow.codecs")
    return codecs.decode({**found.value, "$codec": codec, "blob": found.digest}, _Reader(content))


class _Reader:
    """The part of a blob store that codecs read with."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def open(self, digest: str) -> BinaryIO:
        return self._content.open_blob(digest)

    def get(self, digest: str) -> bytes:
        with self.open(digest) as file:
            return file.read()

    def has(self, digest: str) -> bool:
        with self.open(digest) as file:
            return bool(cast(io.BufferedReader, file).peek(1)) or True
