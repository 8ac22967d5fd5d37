"""The three-way difference of apply, as properties of JSON."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from michelangelo.cli import merge
from michelangelo.meta import patches

LEAVES = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from("abc"), st.lists(st.integers(0, 2), max_size=2))
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("pqrs"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("pqrs"), st.one_of(LEAVES, inner), max_size=3),
    max_leaves=8,
)


def _apply(live: Any, patch: Any) -> Any:
    return patches.merge_patch(live, patch)


@given(OBJECTS, OBJECTS)
def test_merge_patch_leads_from_one_to_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert _apply(old, merge.merge_patch(old, new)) == new


@given(OBJECTS, OBJECTS)
def test_apply_twice_changes_nothing_more(live: dict[str, Any], wanted: dict[str, Any]) -> None:
    target = {"metadata": {"name": "a"}, "spec": wanted}
    there = _apply({"metadata": {"name": "a"}, "spec": live}, merge.three_way({"metadata": {}, "spec": live}, target))
    assert merge.three_way(there, target) == {}


@given(OBJECTS, OBJECTS)
def test_apply_removes_what_was_applied_before_only(first: dict[str, Any], second: dict[str, Any]) -> None:
    before = merge.with_last_applied({"metadata": {"name": "a"}, "spec": first})
    before["spec"] = {**before["spec"], "other": "kept"}
    target = {"metadata": {"name": "a"}, "spec": second}
    after = _apply(before, merge.three_way(before, target))
    assert after["spec"] == {**second, "other": "kept"}


def test_last_applied_survives_a_broken_annotation() -> None:
    assert merge.last_applied({"metadata": {"annotations": {merge.LAST_APPLIED: "{"}}}) == {}


def test_apply_after_kubectl_changes_nothing() -> None:
    wanted: Any = {"metadata": {"name": "a"}, "spec": {"p": 1}}
    theirs = '{"metadata":{"annotations":{},"name":"a"},"spec":{"p":1}}\n'
    live = {"metadata": {"name": "a", "annotations": {merge.LAST_APPLIED: theirs}}, "spec": {"p": 1}}
    assert merge.three_way(live, wanted) == {}


def test_apply_removes_an_annotation_that_is_no_longer_wanted() -> None:
    first: Any = {"metadata": {"name": "a", "annotations": {"mine": "1"}}}
    live = merge.with_last_applied(first)
    live["metadata"]["annotations"]["theirs"] = "2"
    after = _apply(live, merge.three_way(live, {"metadata": {"name": "a"}}))
    assert {key for key in after["metadata"]["annotations"] if key != merge.LAST_APPLIED} == {"theirs"}
