"""FLOPs per token in closed form: published figures, conventions, and what must hold for all models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.llm import model_shape
from michelangelo.llm.mfu import flops, report
from michelangelo.llm.training_setup import TrainingSetup

LLAMA = model_shape.load("llama-3-8b")
LORA = TrainingSetup(method="lora", lora_rank=16, sequence_length=4096)
FULL = TrainingSetup(method="full", sequence_length=4096)


def test_full_tuning_is_six_per_weight_and_twelve_l_h_s() -> None:
    counted = flops.per_token(LLAMA, sequence_length=8192, setup=FULL)

    assert counted.matmul == 6 * 7_504_658_432
    assert counted.non_causal - counted.matmul == 12 * 32 * 4096 * 8192
    assert counted.causal - counted.matmul == pytest.approx(6 * 32 * 4096 * 8192, rel=2e-4)


def test_lora_of_llama_3_8b_agrees_with_the_published_ratio_of_speed_and_flops() -> None:
    """NeMo AutoModel, docs/performance-summary: 402 TFLOP/s at 12,473 tokens/s on one H100."""
    counted = flops.per_token(LLAMA, sequence_length=4096, setup=LORA)
    frozen_only = counted.causal - 3 * counted.lora_forward - counted.attention_forward

    assert frozen_only == pytest.approx(402e12 / 12_473, rel=0.02)


def test_causal_and_whole_attention_differ_by_twelve_percent_at_8192() -> None:
    counted = flops.per_token(LLAMA, sequence_length=8192, setup=FULL)

    assert counted.non_causal / counted.causal == pytest.approx(1.12, abs=0.01)


def test_experts_count_as_far_as_a_token_visits_them() -> None:
    mixtral = model_shape.load("mixtral-8x7b")

    counted = flops.per_token(mixtral, sequence_length=2048, setup=FULL)

    assert counted.matmul == 6 * mixtral.active_matmul_parameters
    assert mixtral.active_matmul_parameters < 0.28 * mixtral.matmul_parameters


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_attended_tokens_are_the_mean_of_what_each_token_sees(length: int, window: int) -> None:
    seen = [min(position + 1, window or length) for position in range(length)]

    assert flops.attended_tokens(length, window) == pytest.approx(sum(seen) / length)


def test_a_sliding_window_saves_scores_in_local_layers_only() -> None:
    gemma = model_shape.load("gemma-2-9b")
    counted = flops.per_token(gemma, sequence_length=8192, setup=FULL)
    halves = (flops.attended_tokens(8192) + flops.attended_tokens(8192, 4096)) / 2

    assert counted.attention_forward == pytest.approx(4 * 42 * gemma.query_size * halves)


def test_packed_documents_see_no_more_than_themselves() -> None:
    one = flops.of_documents(LLAMA, lengths=[4096], sequence_length=4096, setup=FULL)
    four = flops.of_documents(LLAMA, lengths=[1024] * 4, sequence_length=4096, setup=FULL)

    assert one == flops.per_token(LLAMA, sequence_length=4096, setup=FULL)
    assert four.attention_forward == pytest.approx(one.attention_forward / 4, rel=1e-2)
    assert four.matmul == one.matmul
    with pytest.raises(ValueError, match="no document"):
        flops.of_documents(LLAMA, lengths=[], sequence_length=4096, setup=FULL)


def test_recomputation_counts_for_hardware_only() -> None:
    none, selective, full = (
        flops.per_token(LLAMA, sequence_length=4096, setup=FULL.replace(checkpointing=mode))
        for mode in ("none", "selective", "full")
    )

    assert none.causal == selective.causal == full.causal == none.hardware
    assert none.hardware < selective.hardware < full.hardware < none.causal * 4 / 3


def test_dpo_adds_the_forward_pass_of_the_reference() -> None:
    sft = flops.per_token(LLAMA, sequence_length=4096, setup=FULL)
    dpo = flops.per_token(LLAMA, sequence_length=4096, setup=FULL.replace(objective="dpo"))

    assert dpo.causal == pytest.approx(sft.causal * 4 / 3)
    asked_before = FULL.replace(objective="dpo", reference_precomputed=True)
    assert flops.per_token(LLAMA, sequence_length=4096, setup=asked_before).causal == sft.causal


def test_report_gives_every_convention_and_its_headline() -> None:
    measured = report.report(12_473, 989e12, shape=LLAMA, setup=LORA)

    assert measured.share() == measured.share("causal") == measured.to_dict()["mfu"]
    assert 0.40 < measured.share() < 0.44
    assert measured.share("matmul") < measured.share("causal") < measured.share("non_causal")
    assert [line.split()[0] for line in report.text(measured).splitlines()] == ["MFU,", "MFU,", "MFU,", "HFU,"]
    with pytest.raises(ValueError, match="is none"):
        report.report(1.0, 0.0, shape=LLAMA, setup=LORA)
