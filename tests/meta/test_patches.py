"""Patches: the examples of the RFCs, laws of merge patch, and errors that leave the document as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.meta import patches

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
)


# The table of RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_as_the_rfc_says(target: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(target)
    assert patches.merge_patch(target, patch) == result
    assert target == before


@given(JSON, JSON)
def test_merge_patch_twice_is_once(target: Any, patch: Any) -> None:
    once = patches.merge_patch(target, patch)
    assert patches.merge_patch(once, patch) == once


@given(st.dictionaries(st.text(), JSON), JSON)
def test_merge_patch_of_nothing_changes_nothing(target: Any, other: Any) -> None:
    assert patches.merge_patch(target, {}) == target
    assert not isinstance(other, dict) or patches.merge_patch(other, {}) == other


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": [1, 2], "b": 1}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": {}}], {"a": {}}),
        ([{"op": "move", "from": "/a", "path": "/x~1y"}], {"x/y": [1, 2]}),
        ([{"op": "copy", "from": "/a/0", "path": "/b"}], {"a": [1, 2], "b": 1}),
        ([{"op": "test", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
        ([], {"a": [1, 2]}),
    ],
)
def test_json_patch_applies(patch: list[Any], result: Any) -> None:
    assert patches.json_patch({"a": [1, 2]}, patch) == result


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "remove", "path": "/b"}],
        [{"op": "replace", "path": "/b", "value": 1}],
        [{"op": "test", "path": "/a", "value": 1}],
        [{"op": "add", "path": "/a/9", "value": 1}],
        [{"op": "add", "path": "/a/x", "value": 1}],
        [{"op": "add", "path": "/a/0/deep", "value": 1}],
        [{"op": "copy", "from": "/no", "path": "/b"}],
        [{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 1}],
    ],
)
def test_json_patch_that_does_not_fit_is_invalid_and_changes_nothing(patch: list[Any]) -> None:
    target = {"a": [1, 2]}
    with pytest.raises(errors.InvalidError, match=r"operation \d of the JSON patch"):
        patches.json_patch(target, patch)
    assert target == {"a": [1, 2]}


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "add"},
        "x",
        [1],
        [{}],
        [{"op": "add", "path": "/a"}],
        [{"op": "spin", "path": "/a"}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": 5, "value": 1}],
        [{"op": "copy", "path": "/a"}],
        [{"op": "copy", "path": "/a", "from": 1}],
        [{"op": ["add"], "path": "/a", "value": 1}],
    ],
)
def test_json_patch_that_is_none_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(errors.BadRequestError, match="JSON patch"):
        patches.json_patch({"a": 1}, patch)


def test_json_patch_cannot_blow_a_document_up_by_copying() -> None:
    doubling = [{"op": "copy", "from": "", "path": f"/x{index}"} for index in range(64)]
    with pytest.raises(errors.RequestTooLargeError):
        patches.json_patch({"a": "x" * 100}, doubling)


def test_json_patch_has_a_bound_of_operations() -> None:
    with pytest.raises(errors.RequestTooLargeError, match="maximum operations"):
        patches.json_patch({}, [{"op": "add", "path": "/a", "value": 1}] * 10_001)


def test_patches_that_are_nested_too_deeply_are_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(errors.BadRequestError, match="nested"):
        patches.merge_patch({}, deep)
    with pytest.raises(errors.BadRequestError, match="nested"):
        patches.json_patch({}, [{"op": "add", "path": "/a", "value": deep}])
    # Python would recurse to take it apart at the end.
    while isinstance(deep, dict):
        deep = deep.pop("a")
