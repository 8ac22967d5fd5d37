"""Arguments of a step: encoded when the workflow calls the task, with references where futures stand.

So what counts is their value at the call, however long the step has to wait, and the fingerprint does not depend on
which futures happen to have ended. The references give way to the encoded results right before the start; the data
itself never passes through the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.uniflow import codecs
from michelangelo.uniflow.codecs import tree as trees
from michelangelo.uniflow.future import Future, FutureList
from michelangelo.uniflow.ref import Ref

__all__ = ["encode", "resolve"]

_CODEC = "future"


def encode(
    task: str, args: Iterable[Any], kwargs: Mapping[str, Any], blobs: BlobStore
) -> tuple[Any, list[Future[Any]]]:
    """{"args": […], "kwargs": {…}} as a tree, and the futures in it. CodecError names the argument."""
    futures = list(codecs.futures_in([list(args), dict(kwargs)]))
    encoded = {
        "args": [_encode(f"argument {index} of {task}", value, blobs) for index, value in enumerate(args, start=1)],
        "kwargs": {name: _encode(f"argument {name} of {task}", value, blobs) for name, value in kwargs.items()},
    }
    return encoded, futures


def resolve(tree: Any, output: Callable[[str], Any], blobs: BlobStore) -> Any:
    """The arguments with `output(step)` in the place of each reference. What grew large goes into a blob."""
    return {
        "args": [_resolve(value, output, blobs) for value in tree["args"]],
        "kwargs": {name: _resolve(value, output, blobs) for name, value in tree["kwargs"].items()},
    }


def _encode(place: str, value: Any, blobs: BlobStore) -> Any:
    try:
        if not any(True for _ in codecs.futures_in(value)):
            return codecs.encode(value, blobs)
        # As a whole it is put away when its references are resolved.
        return trees.Encoder(blobs, None).child(_referenced(value))
    except trees.Unencodable as error:
        raise errors.CodecError(f"{place}: {error.describe()}") from error
    except errors.CodecError as error:
        raise errors.CodecError(f"{place}: {error}") from error


def _referenced(value: Any) -> Any:
    """`value` with a `Ref` in the place of each future: what codecs.futures_in finds."""
    if isinstance(value, Future):
        return Ref({"$codec": _CODEC, "step": value.step}, value.result)
    if isinstance(value, FutureList):
        return [_referenced(item) for item in value]
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_referenced(item) for item in value)
    if isinstance(value, dict):
        return {key: _referenced(item) for key, item in value.items()}
    return value


def _resolve(value: Any, output: Callable[[str], Any], blobs: BlobStore) -> Any:
    found = _replaced(value, output)
    return value if found is value else _packed(found, blobs)


def _packed(tree: Any, blobs: BlobStore) -> Any:
    """A tree as `codecs.encode` would have left it: a large one is in a blob, as a whole."""
    data = orjson.dumps(tree)
    if len(data) <= trees.INLINE_BYTES or (isinstance(tree, dict) and tree.get("$codec") == "tree"):
        return tree
    leaf = {"$codec": "tree", **trees.Encoder(blobs, None).blob(data)}
    inner = sorted(set(codecs.blobs_in(tree)))
    return {**leaf, "blobs": inner} if inner else leaf


def _replaced(tree: Any, output: Callable[[str], Any]) -> Any:
    """A new tree, or the same object where nothing was to be replaced."""
    if isinstance(tree, dict):
        if tree.get("$codec") == _CODEC:
            return output(tree["step"])
        items = {key: _replaced(item, output) for key, item in tree.items()}
        return items if any(items[key] is not item for key, item in tree.items()) else tree
    if isinstance(tree, list):
        elements = [_replaced(item, output) for item in tree]
        return elements if any(new is not old for new, old in zip(elements, tree, strict=True)) else tree
    return tree
