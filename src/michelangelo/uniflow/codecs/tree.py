"""Values to JSON trees and back: the walk, the limits, and the path to whatever cannot be carried.

JSON values are themselves. Everything else is a leaf `{"$codec": "<name>", …}` that holds its data inline or names a
blob (`"blob": "sha256:<hex>", "size": n`). A tree of more than INLINE_BYTES goes into a blob as a whole. The codecs of
single types are in the other modules of this package.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal

import orjson

from michelangelo.blobs.blob_store import Blob, BlobStore
from michelangelo.errors import CodecError, IntegrityError, SourceError, StorageError
from michelangelo.uniflow import content
from michelangelo.uniflow.codecs import registry
from michelangelo.uniflow.future import Future, FutureList
from michelangelo.uniflow.ref import Ref

__all__ = [
    "INLINE_BYTES",
    "MAX_DEPTH",
    "Decoder",
    "Encoder",
    "Unencodable",
    "blobs_in",
    "canonical",
    "decode",
    "digest",
    "encode",
    "futures_in",
]

INLINE_BYTES: Final = 16 * 1024
"""A larger tree is stored as one blob."""
MAX_DEPTH: Final = 80
"""Containers within containers; below what JSON parsers take."""
_MAX_INT: Final = 2**53
"""Larger integers lose digits in parsers that read numbers as doubles, so they travel as text."""
_REFUSED: Final = {
    "torch.nn.modules.module.Module": (
        "a model is code and weights; return model.state_dict(), or save it into a folder "
        "(model.save_pretrained(folder)) and return uniflow.Directory(folder)"
    ),
    "transformers.tokenization_utils_base.PreTrainedTokenizerBase": (
        "save it into a folder (tokenizer.save_pretrained(folder)) and return uniflow.Directory(folder)"
    ),
    "torch.utils.data.dataset.Dataset": "return what it is made from: tensors, a table, a uniflow.Directory",
    "torch.utils.data.dataloader.DataLoader": "return what it reads from, and make the loader in each task",
    "torch.optim.optimizer.Optimizer": "return optimizer.state_dict()",
    "datasets.iterable_dataset.IterableDataset": (
        "it has no end to store; return datasets.Dataset.from_generator(...) of it, or make it in each task"
    ),
    "polars.lazyframe.frame.LazyFrame": "it is a query, not data; return frame.collect(), or make it in each task",
    "xgboost.core.DMatrix": "return the table that it is made from, and make the DMatrix in each task",
    "pyarrow.lib.RecordBatchReader": "it can be read only once; return reader.read_all()",
    "ray._raylet.ObjectRef": "it lives in one Ray cluster only; return ray.get(ref)",
    "ray.actor.ActorHandle": "an actor lives in one Ray cluster only; return what it computes",
    "pyspark.rdd.RDD": "return a DataFrame (spark.createDataFrame(rdd)), or what rdd.collect() gives",
}
"""What to do with values that are known and refused, by the qualified name of their class or of a base."""


def encode(value: Any, blobs: BlobStore, *, io: Literal["pickle"] | None = None) -> Any:
    """`value` as a JSON tree; what is large is in `blobs` afterwards. `io="pickle"`: what no codec carries is pickled.

    Equal values give equal trees in every process. CodecError names the path inside the value, the type found there,
    and what to do; StorageError when a blob cannot be written. Then no half of anything is in `blobs`.
    """
    encoder = Encoder(blobs, io)
    try:
        tree = encoder.child(value)
        encoder.finish()
    except Unencodable as error:
        raise CodecError(error.describe()) from error.__cause__
    if type(tree) not in (dict, list, str):
        return tree
    data = orjson.dumps(tree)
    if len(data) <= INLINE_BYTES or (type(tree) is dict and tree.get("$codec") == "tree"):
        return tree
    stored = blobs.put(data)
    leaf = {"$codec": "tree", "blob": stored.digest, "size": stored.size}
    inner = sorted(set(blobs_in(tree)))
    if inner:
        leaf["blobs"] = inner
    return leaf


def decode(tree: Any, blobs: BlobStore, *, data: bool = True, allow_pickle: bool = False) -> Any:
    """The value of a tree. `data=False`, for a workflow's own code, leaves data as `Ref`s.

    `allow_pickle` only for trees that a task of the same run wrote: unpickling runs code. Raises CodecError,
    StorageError when a blob is missing, IntegrityError when one is damaged.
    """
    try:
        return Decoder(blobs, data=data, allow_pickle=allow_pickle).child(tree)
    except SourceError as error:
        raise CodecError(f"cannot decode: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CodecError(f"cannot decode {_excerpt(tree)}: {type(error).__name__}: {error}") from error


def digest(tree: Any) -> str:
    """`sha256:<hex>` of a tree. Equal for equal values in every process; blobs count by their digests."""
    return "sha256:" + hashlib.sha256(canonical(tree)).hexdigest()


def canonical(tree: Any) -> bytes:
    """The one JSON text of a tree: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)


def blobs_in(tree: Any) -> Iterator[str]:
    """The digests of the blobs that a tree needs, with repetitions."""
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from blobs_in(item)
    elif isinstance(tree, Mapping):
        if "$codec" in tree:
            if "blob" in tree:
                yield tree["blob"]
            yield from tree.get("blobs", ())
        for item in tree.values():
            if isinstance(item, list | tuple | Mapping):
                yield from blobs_in(item)


def futures_in(value: Any) -> Iterator[Future[Any]]:
    """The futures in arguments: the value itself, or inside lists, tuples, sets and dicts (values)."""
    if isinstance(value, Future):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from futures_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from futures_in(item)


class Unencodable(Exception):
    """A value that no codec carries. Containers add their step to `path` as it passes."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []

    def describe(self) -> str:
        return f"value{''.join(reversed(self.path))}: {self.problem}"


class Encoder:
    """One encoding. Codecs get it to encode what they contain and to write blobs."""

    def __init__(self, blobs: BlobStore, io: Literal["pickle"] | None) -> None:
        self.blobs = blobs
        self.memo: dict[str, Any] = {}
        """What a codec keeps for the length of this encoding, under its name."""
        self._io = io
        self._depth = 0
        self._staged = content.Staging(blobs)
        self._endings: list[Callable[[], None]] = []

    def child(self, value: Any) -> Any:
        """The tree of `value`."""
        kind = type(value)
        if kind is str:
            return value if value.isascii() else self._text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -_MAX_INT <= value <= _MAX_INT else {"$codec": "int", "value": _digits(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$codec": "float", "value": repr(value)}
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unencodable(f"nested more than {MAX_DEPTH} deep (or it contains itself); flatten it")
        try:
            if kind is list or kind is FutureList:
                return self.items(value)
            if kind is dict:
                return self._mapping(value)
            return self._leaf(value)
        finally:
            self._depth -= 1

    def items(self, values: Sequence[Any]) -> list[Any]:
        """The trees of `values`, in their order."""
        index = 0
        try:
            trees = []
            for index, value in enumerate(values):  # noqa: B007 - the index is the path when it fails
                trees.append(self.child(value))
            return trees
        except Unencodable as error:
            error.path.append(f"[{index}]")
            raise

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The trees of named fields."""
        name = ""
        try:
            trees = {}
            for name, value in values.items():
                trees[name] = self.child(value)
            return trees
        except Unencodable as error:
            error.path.append(f".{name}")
            raise

    def blob(self, data: bytes) -> dict[str, Any]:
        """Store `data`; the fields of a leaf that names it."""
        return _named(self._staged.put(data))

    def stream(self, write: Callable[[BinaryIO], Any]) -> dict[str, Any]:
        """Store what `write` writes into the file that it is given; the fields of a leaf that names it."""
        return _named(self._staged.put_written(write))

    def file(self, path: str) -> dict[str, Any]:
        """Store a file, in pieces; the fields of a leaf that names it."""
        return _named(self.blobs.put_file(path))

    def at_end(self, ending: Callable[[], None]) -> None:
        """Call `ending` when the whole value has been walked. It may fill in leaves that a codec has given."""
        self._endings.append(ending)

    def finish(self) -> None:
        """What was left for the end: only now is it known that the whole value can be carried."""
        for ending in self._endings:
            ending()
        self._staged.flush()

    def _text(self, value: str) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:  # lone surrogates, as in undecodable file names
            return {"$codec": "str", "value": value.encode("utf-16-le", "surrogatepass").hex()}
        return value

    def _mapping(self, value: dict[Any, Any]) -> Any:
        key: Any = None
        try:
            if all(type(key) is str and key.isascii() for key in value) and "$codec" not in value:
                tree = {}
                for key, item in value.items():
                    tree[key] = self.child(item)
                return tree
            pairs = []
            for key, item in value.items():
                pairs.append([self._key(key), self.child(item)])
            if "$codec" not in value and all(type(key) is str for key, _ in pairs):
                return dict(pairs)
            return {"$codec": "dict", "items": pairs}
        except Unencodable as error:
            error.path.append(f"[{key!r}]")
            raise

    def _key(self, key: Any) -> Any:
        try:
            return self.child(key)
        except Unencodable as error:
            error.problem = f"as a key: {error.problem}"
            raise

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return value.leaf
        if isinstance(value, Future):
            if not value.settled or value.failure is not None:
                raise Unencodable(
                    f"{value!r} has no result to pass on; wait for it, or give it to a task as an argument"
                )
            return self.child(value.result()) if value.output is None else value.output
        codec = registry.by_type(type(value))
        if codec is None:
            if self._io != "pickle":
                raise Unencodable(_advice(type(value)))
            codec = registry.by_name("pickle")
        try:
            leaf = codec.encode(value, self)
        except (Unencodable, StorageError):
            raise
        except (SourceError, CodecError) as error:
            raise Unencodable(error.message) from error
        except Exception as error:
            raise Unencodable(
                f"codec {codec.name} failed on this {_name(type(value))}: {type(error).__name__}: {error}"
            ) from error
        leaf["$codec"] = codec.name
        return leaf


class Decoder:
    """One decoding. Codecs get it to decode what they contain and to read blobs."""

    def __init__(self, blobs: BlobStore, *, data: bool = True, allow_pickle: bool = False) -> None:
        self.blobs = blobs
        self.data = data
        self.allow_pickle = allow_pickle
        self.memo: dict[str, Any] = {}
        """What a codec keeps for the length of this decoding, under its name."""

    def child(self, tree: Any) -> Any:
        """The value of `tree`."""
        kind = type(tree)
        if kind is dict:
            name = tree.get("$codec")
            if name is not None:
                return self._leaf(name, tree)
            return {key: self.child(item) for key, item in tree.items()}
        if kind is list:
            return [self.child(item) for item in tree]
        return tree

    def items(self, trees: Sequence[Any]) -> list[Any]:
        return [self.child(tree) for tree in trees]

    def whole(self, tree: Any) -> Any:
        """The value of a part of data that is being loaded, without Refs in it."""
        return self.child(tree) if self.data else self._loading().child(tree)

    def bytes(self, leaf: Mapping[str, Any]) -> bytes:
        """The bytes of the blob that a leaf names."""
        return self.blobs.get(leaf["blob"])

    def open(self, leaf: Mapping[str, Any]) -> BinaryIO:
        """A reader of the blob that a leaf names. It checks at its end: read it to there before you use anything."""
        return self.blobs.open(leaf["blob"])

    def path(self, digest: str) -> contextlib.AbstractContextManager[str]:
        """A file with the bytes of a blob, checked, for reading only; it may go when the block ends."""
        return content.checked_path(self.blobs, digest)

    def _leaf(self, name: str, leaf: Mapping[str, Any]) -> Any:
        if name == "pickle" and not self.allow_pickle:
            raise CodecError(
                "a pickled value is not accepted here: it may go only from task to task, and to a task with io='pickle'"
            )
        codec = registry.by_name(name)
        if codec.is_data and not self.data:
            return Ref(leaf, lambda: self._loading()._decode(codec, leaf))
        return self._decode(codec, leaf)

    def _decode(self, codec: registry.Codec, leaf: Mapping[str, Any]) -> Any:
        try:
            return codec.decode(leaf, self)
        except IntegrityError:
            content.discard_damaged(self.blobs, blobs_in(leaf))
            raise

    def _loading(self) -> Decoder:
        return Decoder(self.blobs, allow_pickle=self.allow_pickle)


def _digits(value: int) -> str:
    """Hexadecimal: Python limits the length of decimal text for integers."""
    return hex(value)


def _named(blob: Blob) -> dict[str, Any]:
    return {"blob": blob.digest, "size": blob.size}


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _advice(kind: type) -> str:
    name = _name(kind)
    known = next((text for base in kind.__mro__ if (text := _REFUSED.get(_name(base)))), "")
    if known:
        return f"{name}: {known}"
    if issubclass(kind, BaseException):
        return f"{name} is an exception; raise it, or return its text"
    if name in ("builtins.generator", "builtins.map", "builtins.filter", "builtins.zip", "builtins.dict_keys"):
        return f"a {kind.__name__} can be read only once; return list(…) of it"
    for simple in (dict, list, tuple, set, str, int, float):
        if issubclass(kind, simple):
            return f"no codec carries {name}, a kind of {simple.__name__}; return {simple.__name__}(…) of it"
    if kind.__module__ in ("_io", "_thread", "_socket", "socket", "threading", "sqlite3"):
        return f"{name} lives in one process only; return what is in it, or a uniflow.File with its path"
    return (
        f"no codec carries {name}; return a dataclass, JSON values, arrays, tables or a uniflow.File, "
        "register one (uniflow.register_codec), or ask for pickle with @uniflow.task(io='pickle')"
    )


def _excerpt(tree: Any) -> str:
    text = repr(tree)
    return text if len(text) <= 200 else text[:200] + "…"
