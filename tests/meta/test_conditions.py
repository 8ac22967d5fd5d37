"""Conditions: a change is told, and the time moves only with the status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from michelangelo.meta import conditions, depth

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def obj() -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {"generation": 3}}
    assert conditions.set(found, "Ready", "False", reason="Waiting", clock=lambda: FIRST)
    return found


def test_set_adds_a_condition(obj: dict[str, Any]) -> None:
    assert obj["status"]["conditions"] == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Waiting",
            "message": "",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ]
    assert not conditions.is_true(obj, "Ready")
    assert conditions.find(obj, "Other") is None


def test_set_of_the_same_is_no_change(obj: dict[str, Any]) -> None:
    assert not conditions.set(obj, "Ready", "False", reason="Waiting", clock=lambda: LATER)


def test_set_of_another_reason_keeps_the_time(obj: dict[str, Any]) -> None:
    assert conditions.set(obj, "Ready", "False", reason="StillWaiting", clock=lambda: LATER)
    assert obj["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_set_of_another_status_moves_the_time(obj: dict[str, Any]) -> None:
    assert conditions.set(obj, "Ready", "True", reason="Done", message="all is well", clock=lambda: LATER)
    assert obj["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-02T00:00:00Z"
    assert conditions.is_true(obj, "Ready")


def test_set_for_a_new_generation_is_a_change(obj: dict[str, Any]) -> None:
    obj["metadata"]["generation"] = 4
    assert conditions.set(obj, "Ready", "False", reason="Waiting", clock=lambda: LATER)
    assert obj["status"]["conditions"][0]["observedGeneration"] == 4


def test_remove_tells_whether_there_was_one(obj: dict[str, Any]) -> None:
    assert conditions.remove(obj, "Ready")
    assert not conditions.remove(obj, "Ready")
    assert obj["status"]["conditions"] == []


def test_depth_counts_objects_and_arrays() -> None:
    assert not depth.deeper_than(1, 0)
    assert not depth.deeper_than({"a": [1]}, 2)
    assert depth.deeper_than({"a": [{}]}, 2)
    assert not depth.deeper_than([[] for _ in range(1000)], 2)
