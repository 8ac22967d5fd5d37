"""Codecs of XGBoost: boosters and its scikit-learn models, in its own binary JSON. They are data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xgboost

from michelangelo.errors import CodecError
from michelangelo.uniflow import references
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_FORMAT = "ubj"


def _encode_booster(value: xgboost.Booster, encoder: Encoder) -> dict[str, Any]:
    leaf = encoder.blob(bytes(value.save_raw(_FORMAT)))
    return {**leaf, "type": "xgboost:Booster", "metadata": {"rounds": value.num_boosted_rounds()}}


def _decode_booster(leaf: Mapping[str, Any], decoder: Decoder) -> xgboost.Booster:
    booster = xgboost.Booster()
    _load(booster, leaf, decoder)
    return booster


def _encode_model(value: Any, encoder: Encoder) -> dict[str, Any]:
    kind = type(value)
    if not kind.__module__.startswith("xgboost."):
        raise Unencodable(f"{kind.__qualname__}, a model of your own; return model.get_booster(), or register a codec")
    leaf = {"class": references.reference(kind), "parameters": encoder.fields(value.get_params())}
    leaf["type"] = leaf["class"]
    if value.__sklearn_is_fitted__():
        booster = value.get_booster()
        leaf |= {**encoder.blob(bytes(booster.save_raw(_FORMAT))), "metadata": {"rounds": booster.num_boosted_rounds()}}
    else:
        leaf |= {**encoder.blob(b""), "metadata": {"rounds": 0}}
    return leaf


def _decode_model(leaf: Mapping[str, Any], decoder: Decoder) -> Any:
    kind = references.resolve(leaf["class"])
    if not (isinstance(kind, type) and issubclass(kind, xgboost.XGBModel) and kind.__module__.startswith("xgboost.")):
        raise CodecError(f"{leaf['class']} is not a model of XGBoost")
    model = kind()
    parameters = {name: decoder.whole(tree) for name, tree in leaf["parameters"].items()}
    if leaf["size"]:
        _load(model, leaf, decoder)
    return model.set_params(**parameters)


def _load(target: Any, leaf: Mapping[str, Any], decoder: Decoder) -> None:
    try:
        target.load_model(bytearray(decoder.bytes(leaf)))
    except xgboost.core.XGBoostError as error:
        raise CodecError(f"blob {leaf['blob']} is no model of XGBoost: {error}") from error


install(Codec("xgboost-booster", _encode_booster, _decode_booster, is_data=True), xgboost.Booster)
install(Codec("xgboost", _encode_model, _decode_model, is_data=True), xgboost.XGBModel, subclasses=True)
