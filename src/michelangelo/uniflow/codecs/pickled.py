"""Pickle: only for results of tasks that ask for it (`@uniflow.task(io="pickle")`), and always data.

Unpickling runs code, so a decoder accepts it only in what a task of the same run wrote (`allow_pickle`).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, Final

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_PROTOCOL: Final = 5


def _encode(value: Any, encoder: Encoder) -> dict[str, Any]:
    try:
        data = pickle.dumps(value, protocol=_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise Unencodable(f"{type(value).__module__}.{type(value).__qualname__} cannot be pickled: {error}") from error
    return {**encoder.blob(data), "type": f"{type(value).__module__}:{type(value).__qualname__}"}


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    try:
        return pickle.loads(decoder.bytes(leaf))  # noqa: S301 - accepted by the decoder before
    except (pickle.UnpicklingError, ImportError, AttributeError, EOFError) as error:
        raise CodecError(f"cannot unpickle a {leaf.get('type', 'value')}: {error}") from error


install(Codec("pickle", _encode, _decode, is_data=True))
