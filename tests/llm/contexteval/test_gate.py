"""A fitted gate: saved as a whole, read with suspicion, and bound to what it was fitted for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llm.contexteval import calibrating

from michelangelo import errors
from michelangelo.llm.contexteval import calibration, features, gate
from michelangelo.llm.contexteval.calibration import Goal
from michelangelo.llm.contexteval.deciding import Gate
from michelangelo.llm.contexteval.retrieval import Retrieval

NOTHING = Retrieval("?", (), (), (), (), (), (), (), 0, "corpus", "embedder")


@pytest.fixture(scope="module")
def fitted() -> gate.FittedGate:
    rows = calibrating.synthetic_set(0, 150, 300)
    return calibration.calibrate(rows, Goal(risk=0.1), embedder="embedder", corpus_digest="corpus")


def test_a_gate_is_the_same_after_it_was_saved(fitted: gate.FittedGate, tmp_path: Path) -> None:
    path = tmp_path / "new" / "gate.json"
    gate.save(fitted, path)
    assert gate.load(path) == fitted
    assert [one.name for one in path.parent.iterdir()] == ["gate.json"]
    assert isinstance(fitted, Gate)


@given(
    st.dictionaries(st.sampled_from(features.NAMES), st.floats(0, 1)), st.sampled_from(features.NAMES), st.floats(0, 1)
)
@settings(max_examples=80, deadline=None)
def test_a_feature_that_grows_never_lowers_the_score(
    fitted: gate.FittedGate, values: dict[str, float], name: str, more: float
) -> None:
    low = dict.fromkeys(features.NAMES, 0.3) | values
    high = {**low, name: min(1.0, low[name] + more)}
    assert 0.0 <= fitted.score(low) <= fitted.score(high) <= 1.0


def test_with_nothing_found_it_refuses(fitted: gate.FittedGate) -> None:
    decision = fitted.decide("?", NOTHING)
    assert (decision.answer, decision.score, decision.reason) == (False, 0.0, "nothing was found")
    assert decision.risk == 0.1


def test_with_another_embedder_it_does_not_decide(fitted: gate.FittedGate) -> None:
    with pytest.raises(errors.CalibrationError, match=r"fitted for the embedder embedder, and this corpus has other"):
        fitted.decide("?", dataclasses.replace(NOTHING, embedder="other"))


def test_with_another_corpus_it_promises_nothing_and_says_so(fitted: gate.FittedGate) -> None:
    decision = fitted.decide("?", dataclasses.replace(NOTHING, corpus_digest="other"))
    assert (decision.risk, decision.confidence) == (None, None)
    assert "promises nothing here" in fitted.warnings("other")[0]
    assert fitted.warnings("corpus") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "contexteval-gate/9"}, "this version reads contexteval-gate/1"),
        ({"threshold": 0.0}, "changed by hand"),
        ({"bias": "x"}, "damaged gate"),
        ({"weights": [{"feature": "luck", "weight": 1, "center": 0, "scale": 1}]}, "feature 'luck' is not known"),
        ({"weights": [{"feature": "coverage", "weight": -1, "center": 0, "scale": 1}]}, "must be at least 0"),
        ({"weights": [{"feature": "coverage", "weight": 1, "center": 0, "scale": 0}]}, "its scale above 0"),
        ({"promise": {"rate": "all"}}, "damaged gate"),
        ({"embedder": None, "fitted_on": 3}, "damaged gate"),
    ],
)
def test_a_file_that_is_no_such_gate_is_refused(
    fitted: gate.FittedGate, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({**fitted.to_dict(), **change}))
    with pytest.raises(errors.CalibrationError, match=said):
        gate.load(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"format": 1}', "[" * 100_000])
def test_any_other_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "gate.json"
    path.write_text(content)
    with pytest.raises(errors.CalibrationError):
        gate.load(path)
    with pytest.raises(errors.CalibrationError, match="fit one with mactl contexteval calibrate"):
        gate.load(tmp_path / "none.json")


def test_a_gate_that_cannot_be_written_leaves_nothing(fitted: gate.FittedGate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.CalibrationError, match="cannot be written"):
        gate.save(fitted, tmp_path / "file" / "gate.json")
    (tmp_path / "gate.json").mkdir()
    with pytest.raises(errors.CalibrationError, match="cannot be written"):
        gate.save(fitted, tmp_path / "gate.json")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "gate.json"]
