"""Arguments of a registered workflow against the schema of its signature."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from michelangelo import errors
from michelangelo.cli import arguments
from michelangelo.uniflow import parameters


def flow(
    n: int, name: str = "x", rate: float = 0.1, kind: Literal["a", "b"] = "a", columns: list[str] | None = None
) -> None: ...


SCHEMA = parameters.schema(flow)


def _wrong(values: dict[str, Any]) -> set[str]:
    with pytest.raises(errors.ArgumentsError) as raised:
        arguments.check(SCHEMA, values, subject="pipeline flow")
    return {error.path for error in raised.value.errors}


def test_from_pairs_reads_each_by_its_type() -> None:
    pairs = [("n", "3"), ("name", "3"), ("rate", "1e-3"), ("columns", '["a", "b"]'), ("kind", "b")]
    values = arguments.from_pairs(pairs, SCHEMA)
    assert values == {"n": 3, "name": "3", "rate": 0.001, "columns": ["a", "b"], "kind": "b"}
    arguments.check(SCHEMA, values, subject="pipeline flow")


def test_from_pairs_refuses_a_repeated_argument() -> None:
    with pytest.raises(errors.ArgumentsError, match="given twice"):
        arguments.from_pairs([("n", "1"), ("n", "2")], SCHEMA)


def test_check_names_every_wrong_argument() -> None:
    assert _wrong({"name": 1, "rate": "fast", "kind": "c", "colour": 1, "columns": [1]}) == {
        "n",
        "name",
        "rate",
        "kind",
        "colour",
        "columns",
    }


@pytest.mark.parametrize("value", [True, "3", 3.5, None, [3]])
def test_check_refuses_what_is_no_integer(value: Any) -> None:
    assert _wrong({"n": value}) == {"n"}


def test_check_without_a_schema_lets_everything_pass() -> None:
    arguments.check({}, {"anything": object()}, subject="pipeline flow")
