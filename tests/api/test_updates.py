"""Updates: specs of what has happened do not change, but for the fields that ask for something."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from michelangelo.api.v2 import registry

RUN: dict[str, Any] = {
    "metadata": {"name": "a", "namespace": "b", "uid": "1"},
    "spec": {"pipeline": {"name": "p"}, "description": "x"},
    "status": {"state": "Running"},
}


def changed(obj: dict[str, Any], **spec: Any) -> dict[str, Any]:
    new = copy.deepcopy(obj)
    for key, value in spec.items():
        if value is None:
            new["spec"].pop(key)
        else:
            new["spec"][key] = value
    return new


def errors_of(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [str(error) for error in registry.get(kind).model.check_update(old, new)]


def test_run_spec_is_immutable_field_by_field() -> None:
    new = changed(RUN, pipeline={"name": "q"}, description=None, draft={"name": "d"})
    assert errors_of("PipelineRun", RUN, new) == [
        'spec.pipeline: Invalid value: {"name": "q"}: field is immutable',
        "spec.description: Invalid value: null: field is immutable",
        'spec.draft: Invalid value: {"name": "d"}: field is immutable',
    ]


def test_run_takes_kill_and_action() -> None:
    assert errors_of("PipelineRun", RUN, changed(RUN, kill=True, action="Kill")) == []
    assert errors_of("PipelineRun", changed(RUN, action="Kill"), RUN) == []


@pytest.mark.parametrize("kill", [False, None])
def test_kill_has_no_way_back(kill: bool | None) -> None:
    old = changed(RUN, kill=True)
    assert errors_of("PipelineRun", old, changed(old, kill=kill)) == [
        "spec.kill: Forbidden: may only change from false to true"
    ]


def test_run_status_may_change() -> None:
    assert errors_of("PipelineRun", RUN, {**RUN, "status": {"state": "Succeeded"}}) == []


@pytest.mark.parametrize("kind", ["TaskRun", "Revision", "CachedOutput", "Signal"])
def test_record_is_immutable(kind: str) -> None:
    old = {"metadata": {"name": "a"}, "spec": {"step": "s", "name": "n"}}
    assert errors_of(kind, old, old) == []
    assert errors_of(kind, old, changed(old, step="t")) == ['spec.step: Invalid value: "t": field is immutable']


@pytest.mark.parametrize("kind", ["Pipeline", "Project", "Lease"])
def test_definition_may_change(kind: str) -> None:
    old = {"metadata": {"name": "a"}, "spec": {"description": "x"}}
    assert errors_of(kind, old, changed(old, description="y")) == []


def test_identity_is_immutable_for_every_kind() -> None:
    for kind in registry.KINDS:
        new = {**RUN, "metadata": {**RUN["metadata"], "name": "other"}}
        assert errors_of(kind, RUN, new) == ['metadata.name: Invalid value: "other": field is immutable']
