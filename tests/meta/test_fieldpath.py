"""Field paths: text and parts are the same thing, and what is no path is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.meta import fieldpath

PATHS = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from(["name", "a.b/c", "0", "x y"]), st.integers(0, 99))
).map(tuple)


@given(PATHS)
def test_path_text_parses_to_the_same_parts(path: fieldpath.Path) -> None:
    assert fieldpath.parse(fieldpath.text(path)) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "tasks", 0, "name"), "spec.tasks[0].name"),
        (("metadata", "labels", "a.b/c"), "metadata.labels[a.b/c]"),
        (("spec", "triggerMap", "every-day", "cron"), "spec.triggerMap.every-day.cron"),
        (("map", "0"), 'map["0"]'),
        (("map", "a]b"), 'map["a]b"]'),
        (("map", ""), 'map[""]'),
        ((), ""),
    ],
)
def test_path_text_is_that_of_kubernetes(path: fieldpath.Path, text: str) -> None:
    assert fieldpath.text(path) == text
    assert fieldpath.parse(text) == path


@pytest.mark.parametrize("text", [".a", "a.", "a..b", "a[", "a[]", "a[0]b", "a b", 'a["x]'])
def test_parse_refuses_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="field path"):
        fieldpath.parse(text)


def test_find_walks_objects_and_lists() -> None:
    obj = {"a": [{"b": None}, {"c": 0}]}
    assert fieldpath.find(obj, ("a", 1, "c")) == 0
    assert fieldpath.find(obj, ("a", 0, "b"), "default") is None
    assert fieldpath.find(obj, ("a", 2), "default") == "default"
    assert fieldpath.find(obj, ("a", -1), "default") == "default"
    assert fieldpath.find(obj, ("a", "b"), "default") == "default"
    assert fieldpath.find(obj, ()) is obj


def test_under_is_by_whole_parts() -> None:
    assert fieldpath.under(("spec", "kill"), ("spec",))
    assert fieldpath.under(("spec",), ("spec",))
    assert not fieldpath.under(("spec2",), ("spec",))
