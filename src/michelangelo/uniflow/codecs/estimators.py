"""The codec of scikit-learn's estimators: data, in the format of skops, which holds no code.

skops restores what it trusts: most of scikit-learn, numpy and scipy. The rest of scikit-learn (trees, for one) is
trusted here, for what is read was written by a task and is checked by its digest. What holds another class is refused
when it is written, not in the task that would read it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import sklearn.base
import skops.io
import skops.io.exceptions

from michelangelo.errors import CodecError
from michelangelo.uniflow import references
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_SCHEMA: Final = "schema.json"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_ADVICE: Final = (
    "ask for pickle with @uniflow.task(io='pickle'), register a codec (uniflow.register_codec), "
    "or keep the parts that are scikit-learn's and make the rest in each task"
)


def _encode(value: Any, encoder: Encoder) -> dict[str, Any]:
    name = references.reference(type(value))
    try:
        data = skops.io.dumps(value)
        strangers = [found for found in _untrusted(data) if not _is_trusted(found)]
    except (skops.io.exceptions.UnsupportedTypeException, TypeError, ValueError, AttributeError) as error:
        raise Unencodable(f"estimator {name}: skops cannot write it: {error}; {_ADVICE}") from error
    if strangers:
        raise Unencodable(f"estimator {name} holds {', '.join(strangers)}, which skops does not restore; {_ADVICE}")
    leaf = encoder.blob(_normalised(data))
    return {**leaf, "type": name, "metadata": {"sklearn": sklearn.__version__}}


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    data = decoder.bytes(leaf)
    try:
        return skops.io.loads(data, trusted=[found for found in _untrusted(data) if _is_trusted(found)])
    except (zipfile.BadZipFile, skops.io.exceptions.UntrustedTypesFoundException, ValueError, KeyError) as error:
        raise CodecError(f"cannot restore a {leaf['type']} of blob {leaf['blob']}: {error}") from error


def _untrusted(data: bytes) -> list[str]:
    return list(skops.io.get_untrusted_types(data=data))


def _is_trusted(name: str) -> bool:
    return name.startswith("sklearn.")


def _normalised(data: bytes) -> bytes:
    """The same archive without what differs from process to process: addresses, random names, times, padding."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        names: dict[str, str] = {}
        schema = _renamed(schema, {}, names)
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as made:
            made.writestr(zipfile.ZipInfo(_SCHEMA, _EPOCH), json.dumps(schema))
            for old, new in names.items():
                made.writestr(zipfile.ZipInfo(new, _EPOCH), _padded_with_zeros(archive.read(old), new))
    return target.getvalue()


def _renamed(node: Any, ids: dict[int, int], names: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(item, ids, names) for item in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for key, item in node.items():
        if key == "__id__" and node.get("__loader__") == "JsonNode":
            continue  # numbers and texts, which may be one object here and two there
        if key == "__id__":
            made[key] = ids.setdefault(item, len(ids) + 1)
        elif key == "file" and isinstance(item, str) and "__loader__" in node:
            made[key] = names.setdefault(item, f"{len(names)}{item[item.rfind('.') :]}")
        else:
            made[key] = _renamed(item, ids, names)
    return made


def _padded_with_zeros(data: bytes, name: str) -> bytes:
    """The nodes of a tree are structs, with bytes between their fields that nobody has set."""
    array: Any = np.load(io.BytesIO(data), allow_pickle=False) if name.endswith(".npy") else np.empty(0)
    if not array.dtype.names:
        return data
    clean = np.zeros(array.shape, array.dtype)
    for field in array.dtype.names:
        clean[field] = array[field]
    target = io.BytesIO()
    np.save(target, clean, allow_pickle=False)
    return target.getvalue()


install(Codec("sklearn", _encode, _decode, is_data=True), sklearn.base.BaseEstimator, subclasses=True)
