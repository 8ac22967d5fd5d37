"""Arguments against the schema of a signature: what the function would take passes, and every misfit is named."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from michelangelo.controllers import arguments
from michelangelo.uniflow import parameters


@dataclass
class Optimizer:
    name: str
    rate: float = 0.1


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


def train(
    data: str,
    epochs: int = 3,
    rate: float = 0.1,
    flags: list[bool] | None = None,
    mode: Literal["fast", "exact"] = "fast",
    optimizer: Optimizer | None = None,
    size: Size = Size.SMALL,
    pair: tuple[int, str] = (1, "a"),
) -> None: ...


SCHEMA = parameters.schema(train)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["d"], {}),
        ([], {"data": "d", "epochs": 5, "rate": 1, "flags": [True], "mode": "exact"}),
        (["d", 5], {"flags": None, "optimizer": {"name": "sgd"}, "size": "LARGE", "pair": [1, "b"]}),
        (["d"], {"rate": {"$codec": "numpy", "data": ""}}),
    ],
)
def test_fitting_arguments_pass(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert arguments.check(SCHEMA, args, kwargs) == []


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "words"),
    [
        ([], {}, "spec.input.kwArgs.data", "is missing"),
        (["d"], {"data": "e"}, "spec.input.args[0]", "given twice"),
        (["d"], {"epocs": 5}, "spec.input.kwArgs.epocs", "there are: data, epochs"),
        (["d"], {"epochs": "five"}, "spec.input.kwArgs.epochs", 'must be integer, not "five"'),
        (["d"], {"epochs": True}, "spec.input.kwArgs.epochs", "must be integer, not true"),
        (["d"], {"flags": [True, "no"]}, "spec.input.kwArgs.flags[1]", "must be boolean"),
        (["d"], {"mode": "slow"}, "spec.input.kwArgs.mode", 'none of "fast", "exact"'),
        (["d"], {"optimizer": {"rate": 1}}, "spec.input.kwArgs.optimizer.name", "is missing"),
        (["d"], {"pair": [1]}, "spec.input.kwArgs.pair", "at least 2 items"),
        (["d", 1, 1, None, "fast", None, "SMALL", [1, "a"], 9], {}, "spec.input.args", "takes 8"),
    ],
)
def test_misfit_is_named(args: list[Any], kwargs: dict[str, Any], path: str, words: str) -> None:
    (error,) = arguments.check(SCHEMA, args, kwargs)
    assert error.path == path
    assert words in error.message


def test_all_misfits_are_named_at_once() -> None:
    found = arguments.check(SCHEMA, [], {"epochs": "x", "rate": "y", "more": 1})
    assert [error.path.rpartition(".")[2] for error in found] == ["data", "epochs", "rate", "more"]


def test_references_of_a_models_schema_are_followed() -> None:
    inner = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    model = {"$defs": {"Inner": inner}, "type": "object", "properties": {"inner": {"$ref": "#/$defs/Inner"}}}
    schema = {"type": "object", "properties": {"model": model}}
    assert arguments.check(schema, [], {"model": {"inner": {"n": 1}}}) == []
    (error,) = arguments.check(schema, [], {"model": {"inner": {"n": "x"}}})
    assert error.path == "spec.input.kwArgs.model.inner.n"


def test_schema_that_refers_to_itself_ends() -> None:
    node: dict[str, Any] = {"$ref": "#/$defs/Node"}
    schema = {"$defs": {"Node": node}, "type": "object", "properties": {"tree": node}}
    assert arguments.check(schema, [], {"tree": {}}) == []


@pytest.mark.parametrize(
    "schema", [5, {"type": "array"}, {"properties": []}, {"required": "data"}, {"properties": {"a": 1}}]
)
def test_schema_that_describes_no_arguments_is_refused(schema: Any) -> None:
    assert arguments.check_schema(schema, "spec.manifest.parameters")


def test_bounds_of_numbers_and_texts() -> None:
    schema = {
        "properties": {
            "n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
            "s": {"type": "string", "pattern": "^a", "maxLength": 3},
        }
    }
    assert arguments.check(schema, [], {"n": 1, "s": "abc"}) == []
    assert len(arguments.check(schema, [], {"n": 0, "s": "b"})) == 2
    assert len(arguments.check(schema, [], {"n": 9, "s": "abcd"})) == 2
