"""Which codec carries which type: the table, and the families that fill it when one of their types first appears.

A family that needs a heavy library (numpy, pandas, pyarrow) is imported when a value of that library shows up or
a leaf names one of its codecs, and never otherwise. This module encodes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from michelangelo.errors import CodecError

if TYPE_CHECKING:
    from michelangelo.uniflow.codecs.tree import Decoder, Encoder

__all__ = [
    "Codec",
    "by_name",
    "by_type",
    "install",
    "install_first",
    "install_structure",
    "platform_codecs",
    "register_codec",
]

_T = TypeVar("_T")

_PACKAGE: Final = "michelangelo.uniflow.codecs."
_FAMILY_OF_LIBRARY: Final = {
    "builtins": "builtin",
    "PIL": "images",
    "datasets.arrow_dataset": "hugging_face",
    "datasets.dataset_dict": "hugging_face",
    "numpy": "arrays",
    "pandas": "frames",
    "polars": "polars_frames",
    "pyarrow": "frames",
    "pydantic": "models",
    "pyspark": "spark_frames",
    "ray.data.dataset": "ray_datasets",
    "sklearn": "estimators",
    "torch": "tensors",
    "xgboost": "boosters",
    "michelangelo": "files",
    "collections": "stdlib",
    "datetime": "stdlib",
    "decimal": "stdlib",
    "fractions": "stdlib",
    "pathlib": "stdlib",
    "uuid": "stdlib",
}
"""Module of a value's class (or of a base of it), or its root → the module here that knows it."""
_EXTRA_OF_FAMILY: Final = {
    **dict.fromkeys(("arrays", "estimators", "frames", "images", "polars_frames"), "data"),
    **dict.fromkeys(("hugging_face", "tensors"), "llm"),
    "ray_datasets": "ray",
    "spark_frames": "spark",
}
_FAMILY_OF_CODEC: Final = {
    **dict.fromkeys(("bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "range"), "builtin"),
    **dict.fromkeys(("reference", "set", "str", "tree", "tuple"), "builtin"),
    **dict.fromkeys(("dataclass", "enum", "namedtuple"), "records"),
    **dict.fromkeys(("counter", "date", "datetime", "decimal", "deque", "fraction", "ordered-dict"), "stdlib"),
    **dict.fromkeys(("path", "time", "timedelta", "uuid"), "stdlib"),
    "numpy": "arrays",
    "numpy-scalar": "arrays",
    "pandas": "frames",
    "pandas-series": "frames",
    "pandas-index": "frames",
    "pandas-scalar": "frames",
    "arrow": "frames",
    "datasets": "hugging_face",
    "datasets-dict": "hugging_face",
    "image": "images",
    "io": "io_registry",
    "polars": "polars_frames",
    "polars-series": "polars_frames",
    "ray-dataset": "ray_datasets",
    "sklearn": "estimators",
    "spark": "spark_frames",
    **dict.fromkeys(("torch", "torch-device", "torch-dtype", "torch-size"), "tensors"),
    "xgboost": "boosters",
    "xgboost-booster": "boosters",
    "pydantic": "models",
    "dataset-variable": "dataset_variable",
    "file": "files",
    "directory": "files",
    "pickle": "pickled",
}


@dataclass(frozen=True, slots=True)
class Codec:
    """`encode` gives the fields of a leaf (all but `$codec`), `decode` takes the leaf."""

    name: str
    encode: Callable[[Any, Encoder], dict[str, Any]]
    decode: Callable[[Mapping[str, Any], Decoder], Any]
    is_data: bool = False
    """Data is decoded to a Ref in a workflow's own code."""


_names: dict[str, Codec] = {}
_exact: dict[type, Codec] = {}
_bases: dict[type, Codec] = {}
_first: list[Callable[[type], Codec | None]] = []
_structures: list[Callable[[type], Codec | None]] = []
_families_loaded: set[str] = set()
_custom: set[str] = set()


def install(codec: Codec, *kinds: type, subclasses: bool = False) -> None:
    """Enter a codec for values of exactly these types, or of their subclasses too."""
    _names[codec.name] = codec
    for kind in kinds:
        (_bases if subclasses else _exact)[kind] = codec


def install_structure(recognise: Callable[[type], Codec | None], *codecs: Codec) -> None:
    """Enter codecs for classes that `recognise` tells by their structure, whatever they are called."""
    _structures.append(recognise)
    _names.update({codec.name: codec for codec in codecs})


def install_first(recognise: Callable[[type], Codec | None], codec: Codec) -> None:
    """Enter a codec that goes before all others, for classes that `recognise` tells."""
    _first.append(recognise)
    _names[codec.name] = codec


def register_codec(
    kind: type[_T],
    *,
    name: str,
    encode: Callable[[_T], Any],
    decode: Callable[[Any], _T],
    is_data: bool = False,
    subclasses: bool = False,
) -> None:
    """Carry values of `kind`: `encode` turns one into a value with a codec (bytes, a dict, a `File` …), `decode` back.

    Call it at the top of the module that defines the type or the tasks: every process of a run has to have done so.
    ValueError when `name` is that of another codec.
    """
    if name in _FAMILY_OF_CODEC or (name in _names and name not in _custom):
        raise ValueError(f"codec name {name!r} is the platform's; choose another, such as {kind.__module__}-{name}")
    _custom.add(name)
    codec = Codec(
        name,
        lambda value, encoder: {"value": encoder.child(encode(value))},
        lambda leaf, decoder: decode(decoder.whole(leaf["value"])),
        is_data,
    )
    install(codec, kind, subclasses=subclasses)


def by_type(kind: type) -> Codec | None:
    """The codec for values of this class, if any: its own, else one of the nearest base that takes subclasses."""
    if kind.__module__ == "_io":
        _load_family("io_registry")
    for recognise in _first:
        if (codec := recognise(kind)) is not None:
            return codec
    codec = _exact.get(kind)
    if codec is not None:
        return codec
    for base in kind.__mro__:
        module = base.__module__
        _load_family(_FAMILY_OF_LIBRARY.get(module) or _FAMILY_OF_LIBRARY.get(module.partition(".")[0], ""))
    codec = _exact.get(kind)
    if codec is not None:
        return codec
    codec = next((_bases[base] for base in kind.__mro__ if base in _bases), None)
    if codec is not None:
        return codec
    _load_family("records")
    return next(filter(None, (recognise(kind) for recognise in _structures)), None)


def by_name(name: str) -> Codec:
    """The codec that a leaf names."""
    if name not in _names:
        _load_family(_FAMILY_OF_CODEC.get(name, ""))
    try:
        return _names[name]
    except KeyError as error:
        raise CodecError(
            f"no codec is named {name!r}; if your code registers it (uniflow.register_codec), "
            "do so at the top of the module that defines the tasks"
        ) from error


def platform_codecs() -> list[str]:
    """The names of all codecs of the platform, loaded or not."""
    return sorted(_FAMILY_OF_CODEC)


def _load_family(family: str) -> None:
    if not family or family in _families_loaded:
        return
    try:
        importlib.import_module(_PACKAGE + family)
    except ImportError as error:
        extra = _EXTRA_OF_FAMILY.get(family, "")
        advice = f"; install michelangelo-oss[{extra}]" if extra else ""
        raise CodecError(f"values of this type need a library that is not installed: {error}{advice}") from error
    _families_loaded.add(family)
