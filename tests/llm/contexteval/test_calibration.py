"""From labelled examples to a gate: monotone, split as it says, honest about what it cannot promise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.llm.contexteval import calibrating

from michelangelo import errors
from michelangelo.llm.contexteval import calibration, features, questions
from michelangelo.llm.contexteval.calibration import Goal, Rows
from michelangelo.llm.contexteval.evaluation import resampling


@pytest.fixture(scope="module")
def rows() -> list[calibration.Example]:
    return calibrating.synthetic_set(0, 200, 400)


def test_weights_are_never_negative_also_where_a_feature_misleads(rows: list[calibration.Example]) -> None:
    misleading = [
        dataclasses.replace(row, values={**row.values, "top_cosine": 0.9 - 0.8 * row.values["coverage"]})
        for row in rows
    ]
    score = calibration.fit_score(Rows.of(misleading))
    weights = {one.feature: one.weight for one in score.weights}
    assert min(weights.values()) >= 0
    assert weights["top_cosine"] == 0
    assert max(weights.values()) > 0.1


def test_score_separates_what_it_was_fitted_to_and_agrees_with_the_gate(rows: list[calibration.Example]) -> None:
    gate = calibration.calibrate(rows, Goal(), embedder="e", corpus_digest="c")
    score = calibration.Score(gate.weights, gate.bias)
    scores = score.of(Rows.of(rows))
    assert scores == pytest.approx([gate.score(row.values) for row in rows], abs=1e-12)
    answerable = np.array([row.question.is_answerable for row in rows])
    assert scores[answerable].mean() > scores[~answerable].mean() + 0.4


def test_threshold_is_fitted_on_questions_that_the_weights_have_not_seen(rows: list[calibration.Example]) -> None:
    gate = calibration.calibrate(rows, Goal(), embedder="e", corpus_digest="c")
    assert not set(gate.fitted_on) & set(gate.calibrated_on)
    assert {*gate.fitted_on, *gate.calibrated_on} == {questions.digest(row.question) for row in rows}
    calibrated = [row for row in rows if questions.digest(row.question) in gate.calibrated_on]
    others = [row for row in calibrated if not row.question.is_answerable]
    assert gate.promise.questions == len(others)
    assert gate.promise.errors == sum(gate.score(row.values) >= gate.threshold for row in others)
    assert gate.promise.bound <= 0.05


def test_a_promise_beyond_the_sample_is_refused_before_and_after_asking(rows: list[calibration.Example]) -> None:
    goal = Goal(risk=0.01)
    with pytest.raises(errors.CalibrationError, match=r"takes at least 346: label about \d+ more, leave it a larger"):
        calibration.check([row.question for row in rows], goal)
    with pytest.raises(errors.CalibrationError, match="takes at least"):
        calibration.calibrate(rows, goal, embedder="e", corpus_digest="c")
    calibration.check([row.question for row in rows], Goal(risk=0.01, guarantee="mean"))


def test_too_few_questions_for_weights_are_said() -> None:
    few = calibrating.synthetic_set(1, 5, 200)
    with pytest.raises(errors.CalibrationError, match="weights need 10 answerable and 10 other questions"):
        calibration.calibrate(few, Goal(), embedder="e", corpus_digest="c")


def test_an_unknown_feature_is_said(rows: list[calibration.Example]) -> None:
    with pytest.raises(errors.CalibrationError, match="no feature is called luck"):
        calibration.fit_score(Rows.of(rows), ("luck",))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_nothing_is_refused(rows: list[calibration.Example], share: float) -> None:
    with pytest.raises(errors.CalibrationError, match="between 0 and 1"):
        calibration.calibrate(rows, Goal(share_for_weights=share), embedder="e", corpus_digest="c")


def test_the_share_of_wrong_answers_can_be_promised_instead(rows: list[calibration.Example]) -> None:
    gate = calibration.calibrate(rows, Goal(risk=0.1, rate="answered"), embedder="e", corpus_digest="c")
    assert gate.promise.rate == "answered"
    assert gate.promise.bound <= 0.1
    assert 0.3 < gate.coverage <= 1.0
    with pytest.raises(errors.CalibrationError, match="only be promised with confidence"):
        calibration.calibrate(rows, Goal(0.1, rate="answered", guarantee="mean"), embedder="e", corpus_digest="c")


def test_resampled_promises_are_kept_and_cover_more_than_one_feature() -> None:
    rows = Rows.of(calibrating.synthetic_set(2, 260, 560))
    found = resampling.resample(rows, Goal(risk=0.05), repetitions=60)
    # 60 repetitions of what holds in 95 % lie above 86 % but in one case of a thousand.
    assert found.kept >= 0.86
    assert found.gain >= 1.5
    assert found.refused == 0
    assert found.coverages.mean() > 0.5


def test_resampling_says_why_nothing_can_be_promised() -> None:
    rows = Rows.of(calibrating.synthetic_set(3, 60, 60))
    with pytest.raises(errors.CalibrationError, match="are needed"):
        resampling.resample(rows, Goal(risk=0.01), repetitions=3)


def test_features_are_all_explained() -> None:
    assert all(features.explain(name) for name in features.NAMES)
    assert set(features.BASELINE) <= set(features.NAMES)
