"""Parameters: the schema of a signature, and arguments checked and converted against it."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.errors import ArgumentsError
from michelangelo.uniflow import parameters
from michelangelo.uniflow.files import File
from michelangelo.uniflow.future import Future
from michelangelo.uniflow.workflow import workflow

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]  # as users do to spare an import


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = 2


@dataclass
class Config:
    lr: float
    layers: list[int] = field(default_factory=lambda: [1])
    mode: Mode = Mode.FAST

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError("lr must be positive")


class Model(pydantic.BaseModel):
    name: str
    size: int = pydantic.Field(default=1, gt=0)


@workflow
def flow(
    n: int,
    rate: float = 0.5,
    name: str = "x",
    flag: bool = False,
    mode: Mode = Mode.FAST,
    config: Config | None = None,
    *,
    choice: Literal["a", 3] = "a",
    path: Path = Path("/tmp/x"),
) -> None: ...


def check(fn: Any, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return parameters.check(fn, args, kwargs)


def json(fn: Any, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return parameters.from_json(fn, args, kwargs)


def test_schema_of_a_signature() -> None:
    schema = parameters.schema(flow)
    assert schema["required"] == ["n"]
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "n": {"type": "integer"},
        "rate": {"type": "number", "default": 0.5},
        "name": {"type": "string", "default": "x"},
        "flag": {"type": "boolean", "default": False},
        "mode": {"enum": ["FAST", "SLOW"], "default": "FAST"},
        "config": {
            "anyOf": [
                {
                    "type": "object",
                    "title": "Config",
                    "properties": {
                        "lr": {"type": "number"},
                        "layers": {"type": "array", "items": {"type": "integer"}},
                        "mode": {"enum": ["FAST", "SLOW"]},
                    },
                    "required": ["lr"],
                    "additionalProperties": False,
                },
                {"type": "null"},
            ],
            "default": None,
        },
        "choice": {"enum": ["a", 3], "default": "a"},
        "path": {"type": "string", "format": "path", "default": "/tmp/x"},
    }


def test_schema_of_containers_models_and_the_unknown() -> None:
    def fn(
        a: dict[str, list[int]], b: tuple[int, str], c: tuple[float, ...], d: Model, e: Any, f: Unknown, **more: int
    ) -> None: ...

    schema = parameters.schema(fn)
    assert schema["additionalProperties"] is True
    assert schema["properties"]["a"] == {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "integer"}},
    }
    assert schema["properties"]["b"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert schema["properties"]["c"] == {"type": "array", "items": {"type": "number"}}
    assert schema["properties"]["d"]["required"] == ["name"]
    assert schema["properties"]["e"] == schema["properties"]["f"] == {}


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(ArgumentsError) as caught:
        check(flow, rate="fast", mode="FAST", unknown=1, choice="b")
    found = {error.path: error.message for error in caught.value.errors}
    assert set(found) == {"n", "rate", "mode", "unknown", "choice"}
    assert found["n"] == "is missing"
    assert found["rate"] == "must be float; got 'fast' (str)"
    assert found["unknown"].startswith("there is no such parameter; the parameters are n, rate")
    assert found["choice"] == "must be one of 'a', 3; got 'b'"
    assert "wrong arguments for flow(" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1, 2.0, "a", True, Mode.FAST, None, 7), {}, "7 positional arguments were given, it takes 6"),
        ((1,), {"n": 2}, "n: given twice"),
        ((True,), {}, "n: must be int; got True"),
        (("1",), {}, r"n: must be int; got '1' \(str\)"),
        ((1, True), {}, "rate: must be float"),
        ((1,), {"flag": 1}, "flag: must be bool"),
        ((1,), {"config": {"lr": 1}}, "config: must be"),
    ],
)
def test_python_values_are_checked_not_converted(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ArgumentsError, match=message):
        parameters.check(flow, args, kwargs)


def test_good_call_is_bound_in_its_canonical_form() -> None:
    config = Config(0.1)
    assert check(flow, n=1, rate=2, config=config, choice=3) == check(flow, 1, 2.0, config=config, choice=3)
    args, kwargs = check(flow, 1)
    assert (args, kwargs) == ((1,), {})
    future = Future[int](None)
    assert check(flow, future)[0] == (future,)


def test_json_becomes_what_is_annotated() -> None:
    def fn(
        config: Config,
        model: Model,
        when: datetime.datetime,
        pair: tuple[int, Path],
        names: set[str],
        table: Mapping[int, decimal.Decimal],
        either: int | str,
        many: Sequence[uuid.UUID | None],
        span: datetime.timedelta,
        data: File,
        extra: Annotated[float, "unit"],
    ) -> None: ...

    args, _ = json(
        fn,
        {"lr": 1, "layers": [2, 3], "mode": "SLOW"},
        {"name": "m", "size": 4},
        "2024-01-02T03:04:05+00:00",
        [1, "a/b"],
        ["x", "y", "x"],
        {"1": "2.50"},
        "5",
        [None, "00000000-0000-0000-0000-000000000001"],
        1.5,
        "/data/x.csv",
        3,
    )
    assert args[0] == Config(1.0, [2, 3], Mode.SLOW)
    assert args[1] == Model(name="m", size=4)
    assert args[2] == datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert args[3:7] == ((1, Path("a/b")), {"x", "y"}, {1: decimal.Decimal("2.50")}, "5")
    assert args[7] == [None, uuid.UUID(int=1)]
    assert args[8] == datetime.timedelta(seconds=1.5)
    assert (args[9].name, args[10]) == ("x.csv", 3.0)


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"layers": ["x"]}, "config.lr", "is missing"),
        ({"lr": 1, "layers": [1, "x"]}, "config.layers[1]", "must be int; got 'x' (str)"),
        ({"lr": 1, "depth": 2}, "config.depth", "Config has no such field; it has lr, layers, mode"),
        ({"lr": 1, "mode": "MEDIUM"}, "config.mode", "must be one of FAST, SLOW; got 'MEDIUM'"),
        ({"lr": -1}, "config", "lr must be positive"),
        ([], "config", "must be Config; got [] (list)"),
    ],
)
def test_errors_in_nested_json_have_their_path(value: Any, path: str, message: str) -> None:
    def fn(config: Config) -> None: ...

    with pytest.raises(ArgumentsError) as caught:
        json(fn, config=value)
    assert (path, message) in [(error.path, error.message) for error in caught.value.errors]


def test_errors_of_pydantic_models_have_their_path() -> None:
    def fn(model: Model) -> None: ...

    with pytest.raises(ArgumentsError) as caught:
        json(fn, model={"size": 0})
    assert {error.path for error in caught.value.errors} == {"model.name", "model.size"}


def test_class_without_json_form_is_refused() -> None:
    def fn(lock: Future[int], other: type) -> None: ...

    with pytest.raises(ArgumentsError, match="cannot be given as JSON"):
        json(fn, lock=1, other=2)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"n": "3"}, {"n": 3}),
        ({"n": "-4", "rate": "1e-3", "flag": "yes"}, {"n": -4, "rate": 1e-3, "flag": True}),
        ({"n": "1", "name": "3"}, {"n": 1, "name": "3"}),
        ({"n": "1", "mode": "SLOW", "choice": "3"}, {"n": 1, "mode": Mode.SLOW, "choice": 3}),
        ({"n": "1", "mode": "fast"}, {"n": 1, "mode": Mode.FAST}),
        ({"n": "1", "config": '{"lr": 0.5}'}, {"n": 1, "config": Config(0.5)}),
        ({"n": "1", "config": "none", "path": "a b"}, {"n": 1, "config": None, "path": Path("a b")}),
    ],
)
def test_texts_of_a_command_line_are_read_as_annotated(texts: dict[str, str], expected: dict[str, Any]) -> None:
    assert parameters.from_texts(flow, texts) == expected


def test_texts_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(ArgumentsError) as caught:
        parameters.from_texts(flow, {"n": "three", "flag": "maybe", "config": "{", "no-such": "1"})
    assert [error.path for error in caught.value.errors] == ["no_such", "n", "flag", "config"]


def test_without_annotations_texts_are_json_or_text() -> None:
    def fn(a, b, **more) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003

    found = parameters.from_texts(fn, {"a": "[1, 2]", "b": "plain", "c": "3"})
    assert found == {"a": [1, 2], "b": "plain", "c": 3}


@given(n=st.integers(), rate=st.floats(allow_nan=False), name=st.text(), flag=st.booleans(), mode=st.sampled_from(Mode))
def test_texts_round_trip(n: int, rate: float, name: str, flag: bool, mode: Mode) -> None:
    texts = {"n": str(n), "rate": repr(rate), "name": name, "flag": str(flag), "mode": mode.name}
    assert parameters.from_texts(flow, texts) == {"n": n, "rate": rate, "name": name, "flag": flag, "mode": mode}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_any_json_is_taken_or_refused_cleanly(value: Any) -> None:
    def fn(config: Config | Model | tuple[int, ...] | dict[Mode, set[int]] | None) -> None: ...

    errors: tuple[Any, ...] = ()
    found: Any = None
    try:
        found = json(fn, value)[0][0]
    except ArgumentsError as error:
        errors = error.errors
    assert errors or isinstance(found, Config | Model | tuple | dict | None)
