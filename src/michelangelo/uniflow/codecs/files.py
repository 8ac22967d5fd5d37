"""Codecs of `uniflow.File` and `uniflow.Directory`: data, streamed into blobs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from michelangelo.errors import StorageError
from michelangelo.uniflow import archive
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable
from michelangelo.uniflow.files import Directory, File

__all__: list[str] = []


def _encode_file(value: File, encoder: Encoder) -> dict[str, Any]:
    leaf = _stored(value, encoder)
    if leaf is None:
        if not os.path.isfile(value.path):
            raise Unencodable(f"uniflow.File: there is no file {value.path}; write it before the task returns")
        leaf = encoder.file(value.path)
    return {**leaf, "type": "michelangelo.uniflow.files:File", "metadata": {"name": value.name}}


def _encode_directory(value: Directory, encoder: Encoder) -> dict[str, Any]:
    leaf = _stored(value, encoder)
    if leaf is None:
        if not os.path.isdir(value.path):
            raise Unencodable(f"uniflow.Directory: there is no directory {value.path}; make it before the task returns")
        leaf = encoder.stream(lambda file: archive.pack(value.path, file))
    return {**leaf, "type": "michelangelo.uniflow.files:Directory", "metadata": {"name": value.name}}


def _stored(value: File | Directory, encoder: Encoder) -> dict[str, Any] | None:
    """Content that is passed on unread is in the store already."""
    blob = value.blob
    if blob is None or not encoder.blobs.has(blob[0]):
        return None
    return {"blob": blob[0], "size": blob[1]}


def _decode_file(leaf: Mapping[str, Any], decoder: Decoder) -> File:
    return File.of_blob(leaf["metadata"]["name"], _present(leaf, decoder), leaf["size"], decoder.blobs)


def _decode_directory(leaf: Mapping[str, Any], decoder: Decoder) -> Directory:
    return Directory.of_blob(leaf["metadata"]["name"], _present(leaf, decoder), leaf["size"], decoder.blobs)


def _present(leaf: Mapping[str, Any], decoder: Decoder) -> str:
    digest = str(leaf["blob"])
    if not decoder.blobs.has(digest):
        raise StorageError(f"blob {digest} of {leaf['metadata']['name']} is gone; run the step again that made it")
    return digest


install(Codec("file", _encode_file, _decode_file, is_data=True), File)
install(Codec("directory", _encode_directory, _decode_directory, is_data=True), Directory)
