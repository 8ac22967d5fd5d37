"""Codecs of types of the standard library: times, decimals, paths, collections. All of them are values.

A module of its own, because importing these costs a workflow that uses none of them several milliseconds.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import uuid
import zoneinfo
from collections.abc import Mapping
from typing import Any

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs.builtin import decode_dict, sequence, text
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []


def _pairs(name: str, kind: type) -> None:
    """A codec for a subclass of dict that its items make."""
    install(
        Codec(
            name,
            lambda value, encoder: {"items": encoder.items([list(pair) for pair in value.items()])},
            lambda leaf, decoder: kind(decode_dict(leaf, decoder)),
        ),
        kind,
    )


def _encode_time(value: datetime.datetime | datetime.time, encoder: Encoder) -> dict[str, Any]:
    leaf: dict[str, Any] = {"value": value.replace(tzinfo=None, fold=0).isoformat()}
    if value.fold:
        leaf["fold"] = value.fold
    zone = value.tzinfo
    if isinstance(zone, datetime.timezone):
        leaf["offset"] = zone.utcoffset(None).total_seconds()
    elif isinstance(zone, zoneinfo.ZoneInfo) and zone.key is not None:
        leaf["zone"] = zone.key
    elif zone is not None:
        raise Unencodable(f"time zone {zone!r} cannot be carried; use datetime.timezone or zoneinfo.ZoneInfo")
    return leaf


def _zone(leaf: Mapping[str, Any]) -> datetime.tzinfo | None:
    if "zone" in leaf:
        try:
            return zoneinfo.ZoneInfo(leaf["zone"])
        except zoneinfo.ZoneInfoNotFoundError as error:
            raise CodecError(f"this machine has no time zone {leaf['zone']!r}; install tzdata") from error
    if "offset" in leaf:
        return datetime.timezone(datetime.timedelta(seconds=leaf["offset"]))
    return None


def _decode_datetime(leaf: Mapping[str, Any], _: Decoder) -> datetime.datetime:
    return datetime.datetime.fromisoformat(leaf["value"]).replace(tzinfo=_zone(leaf), fold=leaf.get("fold", 0))


def _decode_time(leaf: Mapping[str, Any], _: Decoder) -> datetime.time:
    return datetime.time.fromisoformat(leaf["value"]).replace(tzinfo=_zone(leaf), fold=leaf.get("fold", 0))


def _encode_path(value: pathlib.PurePath, encoder: Encoder) -> dict[str, Any]:
    leaf = {"value": encoder.child(str(value))}
    if not isinstance(value, pathlib.Path):
        leaf["flavour"] = type(value).__name__
    return leaf


def _decode_path(leaf: Mapping[str, Any], decoder: Decoder) -> pathlib.PurePath:
    kinds = {"PurePosixPath": pathlib.PurePosixPath, "PureWindowsPath": pathlib.PureWindowsPath}
    return kinds.get(leaf.get("flavour", ""), pathlib.Path)(decoder.child(leaf["value"]))


def _install() -> None:
    text("decimal", decimal.Decimal, str, decimal.Decimal)
    text("fraction", fractions.Fraction, str, fractions.Fraction)
    text("uuid", uuid.UUID, str, uuid.UUID)
    text("date", datetime.date, datetime.date.isoformat, datetime.date.fromisoformat)
    sequence("deque", collections.deque, collections.deque)
    _pairs("ordered-dict", collections.OrderedDict)
    _pairs("counter", collections.Counter)
    install(
        Codec(
            "timedelta",
            lambda value, _: {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds},
            lambda leaf, _: datetime.timedelta(leaf["days"], leaf["seconds"], leaf["microseconds"]),
        ),
        datetime.timedelta,
    )
    install(Codec("datetime", _encode_time, _decode_datetime), datetime.datetime)
    install(Codec("time", _encode_time, _decode_time), datetime.time)
    install(Codec("path", _encode_path, _decode_path), pathlib.PurePath, subclasses=True)


_install()
