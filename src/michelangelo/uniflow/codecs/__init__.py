"""Typed codecs: values to JSON trees and blobs, and back. The format is in tree.py, who carries what in registry.py."""

from __future__ import annotations

from michelangelo.uniflow.codecs.arguments import decode_arguments, encode_arguments
from michelangelo.uniflow.codecs.registry import register_codec
from michelangelo.uniflow.codecs.tree import blobs_in, canonical, decode, digest, encode, futures_in

__all__ = [
    "blobs_in",
    "canonical",
    "decode",
    "decode_arguments",
    "digest",
    "encode",
    "encode_arguments",
    "futures_in",
    "register_codec",
]
