"""Arguments of a task as they travel: each encoded on its own, data loaded where the task is executed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.errors import CodecError, StorageError
from michelangelo.uniflow.codecs.tree import decode, encode
from michelangelo.uniflow.ref import Ref

__all__ = ["decode_arguments", "encode_arguments"]


def encode_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], blobs: BlobStore) -> dict[str, Any]:
    """`{"args": [...], "kwargs": {...}}`, each argument encoded on its own. Futures in them must have succeeded.

    CodecError names the argument.
    """
    return {
        "args": [_encode_argument(f"argument {number}", value, blobs) for number, value in enumerate(args, 1)],
        "kwargs": {name: _encode_argument(f"argument {name}", value, blobs) for name, value in kwargs.items()},
    }


def decode_arguments(
    arguments: Mapping[str, Any], blobs: BlobStore, *, fn: Callable[..., Any] | None = None, allow_pickle: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `encode_arguments` gave, as a task gets it: data loaded, except for parameters of `fn` annotated `Ref`.

    Raises what `decode` raises; the message names the argument and the task.
    """
    positional, lazy = ((), frozenset[str]()) if fn is None else _parameters(fn)
    task = "" if fn is None else f" of task {fn.__name__}"

    def value(name: str, encoded: Any) -> Any:
        try:
            return decode(encoded, blobs, data=name not in lazy, allow_pickle=allow_pickle)
        except (CodecError, StorageError) as error:
            raise type(error)(f"argument {name}{task}: {error.message}") from error

    count = len(arguments["args"])
    names = [*positional[:count], *map(str, range(len(positional) + 1, count + 1))]
    return (
        tuple(value(name, encoded) for name, encoded in zip(names, arguments["args"], strict=True)),
        {name: value(name, encoded) for name, encoded in arguments["kwargs"].items()},
    )


def _encode_argument(subject: str, value: Any, blobs: BlobStore) -> Any:
    try:
        return encode(value, blobs)
    except CodecError as error:
        raise CodecError(f"{subject}: {error.message}") from error


@functools.lru_cache(maxsize=512)
def _parameters(fn: Callable[..., Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    """All parameters, and those annotated `Ref`, be it as a class or, with postponed annotations, as text."""
    annotations: Mapping[str, Any] = getattr(fn, "__annotations__", {})
    references = frozenset(
        name
        for name, annotation in annotations.items()
        if annotation is Ref or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Ref")
    )
    return tuple(inspect.signature(fn).parameters), references
