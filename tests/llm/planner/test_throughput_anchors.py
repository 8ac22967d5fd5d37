"""The time model against published rows: medians per source and in all, intervals, and sources that it has not seen."""

from __future__ import annotations

import collections
import math
import statistics

import pytest
from tests.llm.planner import fitting, published

from michelangelo.llm.mfu import flops
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import hardware, kernels, throughput
from michelangelo.llm.training_setup import TrainingSetup


def test_every_row_has_a_source_with_an_address_and_a_date() -> None:
    document = published.document()
    assert len(document["rows"]) >= 230
    for row in document["rows"]:
        source = document["sources"][row["source"]]
        assert source["address"].startswith("https://")
        assert source["date"]
        assert source["read"]


def test_the_median_error_of_all_rows_is_below_five_percent() -> None:
    errors = sorted(abs(case.error()) for case in published.cases())
    assert statistics.median(errors) < 0.05
    assert errors[int(0.9 * len(errors))] < 0.12


@pytest.mark.parametrize("source", sorted(published.document()["sources"]))
def test_the_median_error_of_each_source_is_below_ten_percent(source: str) -> None:
    mine = [case.error() for case in published.cases() if case.source == source]
    assert statistics.median(abs(error) for error in mine) < 0.10
    assert abs(statistics.median(mine)) < 0.08


def test_nine_tenths_of_all_rows_lie_within_their_intervals() -> None:
    within: collections.Counter[bool] = collections.Counter()
    for case in published.cases():
        width = throughput.spread_of(case.shape, case.setup, case.hardware)
        within[abs(case.error()) <= width] += 1
    assert within[True] / within.total() >= throughput.LEVEL


@pytest.mark.parametrize(("depth", "measured"), [(12, 0.41), (18, 0.46)])
def test_nanochat_s_utilisation_is_predicted(depth: int, measured: float) -> None:
    # github.com/karpathy/nanochat, dev/LOG.md (2026-01): MFU of d12 and d18 on 8 H100, torch.compile, FlashAttention-3.
    # No constant was chosen by these. Its MFU counts attention as if nothing were masked.
    width = 64 * depth
    shape = ModelShape(
        name=f"nanochat-d{depth}", architecture="llama", vocab_size=65_536, hidden_size=width, num_layers=depth,
        num_heads=width // 128, num_kv_heads=width // 128, head_dim=128, intermediate_size=4 * width, gated_mlp=False,
        activation="relu", qk_norm="head",
    )  # fmt: skip
    setup = TrainingSetup(
        method="full", objective="pretrain", sequence_length=2048, micro_batch=32, num_gpus=8, sharding="zero2",
        cross_entropy="plain", compiled=True, precision="bf16",
    )  # fmt: skip
    speed = throughput.estimate(shape, setup, hardware.load("h100"))
    per_token = flops.per_token(shape, sequence_length=2048, setup=setup).non_causal
    assert speed.tokens_per_second_per_gpu * per_token / speed.peak_flops == pytest.approx(measured, rel=0.1)


def test_what_is_added_to_a_stack_helps_as_much_as_was_measured() -> None:
    # torchtune's ladder on one A100: the steps, and so the gains, are of one machine.
    ladder = [case for case in published.cases() if case.source == "torchtune" and case.setup.num_gpus == 1][:4]
    eager, compiled, chunked, checkpointed = (case for case in ladder)
    for before, after in ((eager, compiled), (compiled, chunked), (chunked, checkpointed)):
        measured = after.measured / before.measured
        predicted = measured * math.exp(after.error() - before.error())
        assert predicted == pytest.approx(measured, rel=0.15)
        assert (predicted > 1) == (measured > 1)


@pytest.mark.slow
def test_sources_that_constants_were_not_chosen_by_are_predicted_within_ten_percent() -> None:
    errors, covered = [], 0
    for source, mine in fitting.held_out().items():
        cases = [case for case in published.cases() if case.source == source]
        errors += [abs(error) for error in mine]
        covered += sum(
            abs(error) <= throughput.spread_of(case.shape, case.setup, case.hardware)
            for case, error in zip(cases, mine, strict=True)
        )
    assert statistics.median(errors) < 0.10
    assert covered / len(errors) >= throughput.LEVEL


@pytest.mark.slow
def test_the_constants_are_those_that_the_rows_choose() -> None:
    chosen = fitting.fit(published.cases())
    for name, _, _ in fitting.CONSTANTS:
        path = name.split(".")
        here, there = getattr(kernels.RATES, path[0]), getattr(chosen, path[0])
        for part in path[1:]:
            here, there = here[part], there[part]
        assert here == pytest.approx(there, rel=0.02), name
