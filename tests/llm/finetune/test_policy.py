"""What the policy decides: NaN, spikes, steep gradients, early stop; bounded, and the same after a resume."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm.finetune.config import PolicyConfig
from michelangelo.llm.finetune.policy import Policy, Proceed, RollBack, Skip, Stop

NAN = math.nan
LOSSES = st.one_of(st.floats(0.0, 20.0), st.sampled_from([NAN, math.inf]))
CONFIGS = st.builds(
    PolicyConfig,
    on_nan=st.sampled_from(["stop", "skip", "roll_back"]),
    on_spike=st.sampled_from(["warn", "skip", "roll_back", "stop"]),
    spike_window=st.integers(8, 20),
    max_skips=st.integers(1, 4),
    grad_norm_alert=st.sampled_from([0.0, 5.0]),
    early_stop_evaluations=st.integers(0, 3),
    early_stop_improvement=st.sampled_from([0.0, 0.1]),
)


def settled(**changes: Any) -> Policy:
    """After ten ordinary steps."""
    policy = Policy(PolicyConfig(**changes))
    for step in range(1, 11):
        assert policy.judge(step, 2.0 + 0.01 * (step % 3), 1.0) == Proceed()
    return policy


def test_nan_from_the_first_step_stops_and_says_what_to_check() -> None:
    decision = Policy(PolicyConfig()).judge(1, NAN, 1.0)
    assert isinstance(decision, Stop)
    assert decision.diverged
    assert "from the first step" in decision.reason
    for word in ("learning rate", "precision", "data", "labels"):
        assert word in decision.reason
    assert decision.alert is not None
    assert decision.alert.kind == "NotANumber"


def test_nan_later_names_the_step_and_the_loss_before() -> None:
    decision = settled().judge(11, NAN, 1.0)
    assert isinstance(decision, Stop)
    assert "step 11" in decision.reason
    assert "2.0100 before" in decision.reason


def test_gradients_that_are_no_numbers_count_as_nan() -> None:
    decision = settled().judge(11, 2.0, math.inf)
    assert isinstance(decision, Stop)
    assert "norm of the gradients is inf" in decision.reason


def test_nan_is_skipped_a_bounded_number_of_times_in_a_row() -> None:
    policy = settled(on_nan="skip", max_skips=3)
    assert [type(policy.judge(11, NAN, 1.0)) for _ in range(4)] == [Skip, Skip, Skip, Stop]


def test_a_good_step_ends_the_row_of_skips() -> None:
    policy = settled(on_nan="skip", max_skips=2)
    for step in range(11, 31, 2):
        assert isinstance(policy.judge(step, NAN, 1.0), Skip)
        assert isinstance(policy.judge(step + 1, 2.0, 1.0), Proceed)


def test_roll_back_without_anything_learned_is_a_stop() -> None:
    assert isinstance(Policy(PolicyConfig(on_nan="roll_back")).judge(1, NAN, 1.0), Stop)


def test_roll_backs_that_never_come_past_the_trouble_end() -> None:
    policy = settled(on_nan="roll_back", max_skips=2)
    checkpoint = policy.state()
    for _ in range(2):
        assert isinstance(policy.judge(12, NAN, 1.0), RollBack)
        policy.restore(checkpoint)
        assert policy.judge(11, 2.0, 1.0) == Proceed()
    decision = policy.judge(12, NAN, 1.0)
    assert isinstance(decision, Stop)
    assert "rolled back 2 times and never came past step 12" in decision.reason


def test_roll_backs_are_forgotten_behind_the_trouble() -> None:
    policy = settled(on_nan="roll_back", max_skips=1)
    for step in (12, 14, 16):
        assert isinstance(policy.judge(step, NAN, 1.0), RollBack)
        for again in range(11, step + 1):
            assert policy.judge(again, 2.0, 1.0) == Proceed()


def test_a_spike_is_told_once_and_hides_no_later_one() -> None:
    policy = settled(spike_deviations=6.0)
    first, second = policy.judge(11, 5.0, 1.0), policy.judge(12, 5.0, 1.0)
    assert isinstance(first, Proceed)
    assert first.alert is not None
    assert (first.alert.kind, first.alert.step) == ("LossSpike", 11)
    assert second == Proceed()
    assert policy.judge(13, 2.0, 1.0) == Proceed()
    again = policy.judge(14, 5.0, 1.0)
    assert isinstance(again, Proceed)
    assert again.alert is not None


@pytest.mark.parametrize(("on_spike", "kind"), [("skip", Skip), ("roll_back", RollBack), ("stop", Stop)])
def test_a_spike_is_answered_as_configured(on_spike: str, kind: type) -> None:
    assert isinstance(settled(on_spike=on_spike).judge(11, 9.0, 1.0), kind)


@given(st.lists(st.floats(1.95, 2.05), min_size=8, max_size=60), st.floats(0.0, 2.05))
def test_losses_that_fall_or_wander_a_little_are_no_spike(losses: list[float], last: float) -> None:
    policy = Policy(PolicyConfig(on_spike="stop", spike_deviations=6.0))
    for step, loss in enumerate([*losses, last], start=1):
        assert policy.judge(step, loss, 1.0) == Proceed()


@given(st.lists(st.floats(1.95, 2.05), min_size=8, max_size=60), st.floats(20.0, 1e6))
def test_a_loss_ten_times_higher_is_a_spike_whatever_came_before(losses: list[float], last: float) -> None:
    policy = Policy(PolicyConfig())
    for step, loss in enumerate(losses, start=1):
        policy.judge(step, loss, 1.0)
    decision = policy.judge(len(losses) + 1, last, 1.0)
    assert isinstance(decision, Proceed)
    assert decision.alert is not None


def test_steep_gradients_are_told_by_the_median_or_by_the_limit() -> None:
    by_median, by_limit = settled(), settled(grad_norm_alert=3.0)
    for policy, norm in ((by_median, 11.0), (by_limit, 3.5)):
        first, second = policy.judge(11, 2.0, norm), policy.judge(12, 2.0, norm)
        assert isinstance(first, Proceed)
        assert first.alert is not None
        assert first.alert.kind == "GradientNorm"
        assert second == Proceed()
    assert settled().judge(11, 2.0, 9.0) == Proceed()


def test_evaluations_that_improve_too_little_stop_the_run_but_can_be_the_best() -> None:
    policy = Policy(PolicyConfig(early_stop_evaluations=2, early_stop_improvement=0.1))
    assert policy.judge_evaluation(10, 2.0) == Proceed(is_best=True)
    assert policy.judge_evaluation(20, 1.95) == Proceed(is_best=True)
    decision = policy.judge_evaluation(30, 1.92)
    assert isinstance(decision, Stop)
    assert (decision.diverged, decision.is_best) == (False, True)
    assert "2 evaluations in a row" in decision.reason


def test_an_evaluation_that_is_no_number_is_never_the_best() -> None:
    policy = Policy(PolicyConfig())
    decision = policy.judge_evaluation(5, NAN)
    assert isinstance(decision, Proceed)
    assert not decision.is_best
    assert decision.alert is not None
    assert policy.judge_evaluation(6, 3.0) == Proceed(is_best=True)


@given(CONFIGS, st.lists(st.tuples(LOSSES, st.floats(0.0, 50.0), st.booleans()), max_size=60), st.integers(0, 60))
def test_a_resumed_policy_decides_as_the_uninterrupted_one(
    config: PolicyConfig, steps: list[tuple[float, float, bool]], cut: int
) -> None:
    whole, resumed = Policy(config), Policy(config)
    for step, (loss, norm, is_evaluated) in enumerate(steps, start=1):
        if step == cut:
            resumed = Policy(config)
            resumed.restore(json.loads(json.dumps(whole.state(), allow_nan=False)))
        assert str(whole.judge(step, loss, norm)) == str(resumed.judge(step, loss, norm))
        if is_evaluated:
            assert str(whole.judge_evaluation(step, loss)) == str(resumed.judge_evaluation(step, loss))
    assert whole.state() == resumed.state()


@given(CONFIGS, st.integers(1, 12), st.integers(13, 30))
def test_roll_backs_to_a_checkpoint_before_a_lasting_trouble_are_bounded(
    config: PolicyConfig, checkpoint: int, trouble: int
) -> None:
    """Every step from `trouble` on is NaN: a trainer that obeys comes to an end."""
    policy = Policy(config)
    saved = policy.state()
    step, judged = 1, 0
    while True:
        judged += 1
        assert judged < 1000
        decision = policy.judge(step, NAN if step >= trouble else 2.0, 1.0)
        if isinstance(decision, Stop):
            return
        if isinstance(decision, RollBack):
            policy.restore(saved)
            step = checkpoint
        elif step == checkpoint:
            saved = policy.state()
        step += 1
