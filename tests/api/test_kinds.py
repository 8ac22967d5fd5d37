"""Every kind: what it says of itself is complete, and its objects come back as they went."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo.api.v2 import registry, schema
from michelangelo.api.v2.registry import Kind
from michelangelo.meta import fieldpath

KINDS = pytest.mark.parametrize("kind", registry.KINDS.values(), ids=lambda kind: str(kind.kind))


def example(kind: Kind) -> dict[str, Any]:
    metadata = {"name": "a", **({"namespace": "a"} if kind.namespaced else {})}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **kind.model.example}


def holds(canonical: Any, document: Any) -> bool:
    """Whether everything in the document is in its canonical form; that may have defaults besides."""
    if isinstance(document, dict):
        return all(key in canonical and holds(canonical[key], value) for key, value in document.items())
    if isinstance(document, list):
        return len(canonical) == len(document) and all(map(holds, canonical, document))
    return bool(canonical == document and type(canonical) is type(document))


def values_of(one: schema.Schema) -> st.SearchStrategy[Any]:
    """Documents that a structural schema allows, without what patterns and cross-field rules forbid."""
    if schema.FREE_FORM in one:
        free = st.recursive(
            st.none() | st.integers(-9, 9) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2)
        )
        return st.dictionaries(st.sampled_from(["a_b", "cD"]), free, max_size=2)
    if "enum" in one:
        return st.sampled_from(one["enum"])
    match one["type"]:
        case "object" if "properties" in one:
            required = set(one.get("required", ()))
            fields = {name: values_of(field) for name, field in one["properties"].items()}
            return st.fixed_dictionaries(
                {name: field for name, field in fields.items() if name in required},
                optional={name: field for name, field in fields.items() if name not in required},
            )
        case "object":
            return st.dictionaries(st.sampled_from(["k", "a.b/c"]), values_of(one["additionalProperties"]), max_size=2)
        case "array":
            return st.lists(values_of(one["items"]), min_size=one.get("minItems", 0), max_size=2)
        case "integer":
            return st.integers(one.get("minimum", -(2**31)), one.get("maximum", 2**31 - 1))
        case "boolean":
            return st.booleans()
        case _ if one.get("format") == "date-time":
            return st.just("2026-01-31T12:00:00Z")
        case _:
            # Good as a name, a label's value, a duration, a path's part: text of every kind of field.
            return st.just("10m")


@KINDS
def test_kind_accepts_its_example_and_gives_it_back(kind: Kind) -> None:
    found = kind.model.check(example(kind))
    assert (found.errors, found.unknown) == ((), ())
    again = kind.model.check(found.object)
    assert again.object == found.object


@KINDS
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_kind_gives_back_what_its_schema_allows(kind: Kind, data: st.DataObject) -> None:
    fields = {
        name: one
        for name, one in schema.of(kind)["properties"].items()
        if name not in ("apiVersion", "kind", "metadata") and not one.get("writeOnly")
    }
    root = {"type": "object", "properties": fields, "required": schema.of(kind).get("required", [])}
    written_only = {name for name, one in schema.of(kind)["properties"].items() if one.get("writeOnly")}
    start = {name: value for name, value in example(kind).items() if name not in written_only}
    document = {**start, **data.draw(values_of(root))}
    found = kind.model.check(document)
    assert found.unknown == ()
    # Rules beyond the schema may forbid it; then they say where.
    assert all(fieldpath.parse(error.path)[0] in fields for error in found.errors)
    if not found.errors:
        assert kind.model.check(found.object).object == found.object
        assert holds(found.object, document)


@KINDS
def test_kind_leaves_the_document_that_it_checks_alone(kind: Kind) -> None:
    document = {**example(kind), "unknown": 1, "status": None}
    before = repr(document)
    kind.model.check(document)
    assert repr(document) == before


def fields_of(one: schema.Schema, path: str) -> Iterator[tuple[str, schema.Schema]]:
    yield path, one
    for name, field in one.get("properties", {}).items():
        yield from fields_of(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(one.get(inner), dict) and "properties" in one[inner]:
            yield from fields_of(one[inner], f"{path}[]")


@KINDS
def test_every_field_has_a_description(kind: Kind) -> None:
    missing = [path for path, one in fields_of(schema.of(kind), kind.kind) if not one.get("description")]
    assert missing == []
    assert [path for path, one in fields_of(schema.of_metadata(), "metadata") if not one.get("description")] == []


@KINDS
def test_every_printed_column_shows_a_field(kind: Kind) -> None:
    for column in kind.model.printed_columns:
        path = column.json_path.removeprefix(".")
        if path == "status.error.message":
            assert schema.at(schema.of(kind), "status.error") is not None
        elif path.startswith("metadata."):
            assert schema.at(schema.of_metadata(), path.removeprefix("metadata.")) is not None
        else:
            found = schema.at(schema.of(kind), path)
            assert found is not None
            assert found["type"] == ("string" if column.type == "date" else column.type)
        assert column.description


@KINDS
def test_kind_says_the_same_as_the_registry(kind: Kind) -> None:
    assert kind.model.__name__ == kind.kind
    assert kind.model.namespaced is kind.namespaced


def test_registry_loads_no_model_before_it_is_asked() -> None:
    script = "import sys; import michelangelo.api.v2.registry; print('pydantic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_model_of_one_kind_loads_neither_others_nor_the_schema_generator() -> None:
    script = (
        "import sys; from michelangelo.api.v2 import registry; registry.get('TaskRun').model; "
        "others = ('jsonpatch', 'michelangelo.api.v2.pipeline', 'michelangelo.api.v2.schema'); "
        "print([name for name in others if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
