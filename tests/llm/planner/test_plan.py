"""Plans: verdicts, costs, what cannot be, the files that run them, and what runs teach later plans."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm import model_shape
from michelangelo.llm.finetune import config as finetune_config
from michelangelo.llm.planner import calibration, cost, hardware, launch_config, plan, prices
from michelangelo.llm.planner.calibration import Observation
from michelangelo.llm.training_setup import TrainingSetup

LLAMA = model_shape.load("llama-3.1-8b")
SMALL = model_shape.load("llama-3.2-1b")
H100 = hardware.load("h100")
LORA = TrainingSetup(sequence_length=4096, micro_batch=2, compiled=True)


def _plan(setup: TrainingSetup = LORA, machine: str = "h100", **assumed: Any) -> plan.Plan:
    return plan.make(LLAMA, setup, hardware.load(machine), plan.Assumptions(**assumed))


def test_a_plan_says_whether_it_fits_and_by_how_much() -> None:
    fits, lacks = _plan(), _plan(TrainingSetup(method="full"))
    assert (fits.verdict, lacks.verdict) == ("fits", "no")
    assert fits.margin_bytes > 0 > lacks.margin_bytes
    assert fits.low_bytes < fits.peak_bytes < fits.high_bytes
    assert fits.peak_bytes + fits.margin_bytes == fits.capacity_bytes


def test_a_host_that_is_too_small_does_not_fit() -> None:
    shape = model_shape.load("llama-3.1-405b")
    setup = TrainingSetup(method="full", num_gpus=8, sharding="zero3", offload="parameters", checkpointing="full")
    made = plan.make(shape, setup, H100, plan.Assumptions())
    assert made.host_margin_bytes < 0
    assert made.verdict == "no"


@given(
    micro_batch=st.integers(1, 8),
    gpus=st.sampled_from([1, 2, 8]),
    tokens=st.floats(1e3, 1e13),
    machine=st.sampled_from(hardware.catalogue()),
    price=st.floats(0.01, 100),
)
@settings(max_examples=80, deadline=None)
def test_costs_are_positive_and_within_their_intervals(
    micro_batch: int, gpus: int, tokens: float, machine: str, price: float
) -> None:
    kind = hardware.load(machine)
    setup = TrainingSetup(
        micro_batch=micro_batch, num_gpus=min(gpus, kind.gpus_per_node), gpus_per_node=kind.gpus_per_node
    )
    made = plan.make(SMALL, setup, kind, plan.Assumptions(tokens=tokens, prices=prices.flat(price))).cost
    for value in (made.hours, made.gpu_hours, made.energy_kwh, made.electricity, made.money):
        assert value is not None
        assert 0 < value.low <= value.value <= value.high
    assert made.steps * setup.tokens_per_step >= tokens * 0.999
    assert kind.idle_watts < made.watts_per_gpu <= kind.tdp_watts


def test_the_cost_is_gpu_hours_times_the_price() -> None:
    made = _plan(prices=prices.flat(2.5), tokens=1e9).cost
    assert made.money is not None
    assert made.money.value == pytest.approx(made.hours.value * 2.5)
    assert made.hours.value == pytest.approx(1e9 / _plan().throughput.tokens_per_second / 3600)


def test_what_is_sold_by_eight_is_paid_by_eight() -> None:
    table = prices.PriceTable((prices.Price(hardware="h100", provider="p", per_gpu_hour=2.0, date="", min_gpus=8),))
    assert cost.offer_for(table, "h100", 1)[1] == 8
    assert cost.offer_for(table, "h100", 9)[1] == 16
    made = _plan(prices=table).cost
    assert made.gpu_hours.value == pytest.approx(8 * made.hours.value)


def test_hardware_without_a_price_has_no_rent() -> None:
    made = _plan(machine="h200-nvl").cost
    assert made.money is None
    assert made.price is None
    assert made.gpu_hours.value > 0


def test_padding_is_paid_for_but_teaches_nothing() -> None:
    packed = _plan()
    padded = _plan(LORA.replace(packing=False, padding_share=0.5))
    assert padded.cost.hours.value == pytest.approx(2 * packed.cost.hours.value)


def test_a_plan_is_json() -> None:
    made = json.loads(json.dumps(_plan().to_dict()))
    assert made["fits"] == "fits"
    assert sum(made["memory"]["gpu"].values()) == made["memory"]["peakBytes"]
    assert sum(made["throughput"]["phases"].values()) == pytest.approx(made["throughput"]["secondsPerStep"])
    assert made["cost"]["hours"]["low"] < made["cost"]["hours"]["value"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_gpus": 12}, ["num_gpus: 12"]),
        (
            {"num_gpus": 4, "tensor_parallel": 3},
            ["tensor_parallel: 3 does not divide the 4", "tensor_parallel: 3 does not"],
        ),
        ({"num_gpus": 32, "tensor_parallel": 16}, ["tensor_parallel: 16 is more than the 8 GPUs"]),
        ({"offload": "optimizer", "num_gpus": 2}, ["offload: several GPUs need sharding"]),
        ({"offload": "parameters"}, ["offload: parameters can rest"]),
        ({"offload": "parameters", "sharding": "zero2", "num_gpus": 2}, ["offload: parameters can rest"]),
        ({"method": "qlora", "precision": "fp32"}, ["precision: qlora"]),
        ({"micro_batch": 0, "sequence_length": 1 << 40}, ["micro_batch: 0", "sequence_length: 1099511627776"]),
        ({"padding_share": 1.5}, ["padding_share: 1.5"]),
    ],
)
def test_what_cannot_be_is_said_all_at_once(changes: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        _plan(LORA.replace(**changes))
    for text in says:
        assert text in caught.value.message


@pytest.mark.parametrize("sharding", ["none", "zero1", "zero2", "zero3", "fsdp2"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_trainer_takes_the_configuration_of_a_plan(method: Any, sharding: Any) -> None:
    gpus = 1 if sharding == "none" else 2
    setup = TrainingSetup(method=method, sharding=sharding, num_gpus=gpus, lora_rank=8, optimizer="adamw_8bit")
    if plan.problems(SMALL, setup, H100):
        assert method == "qlora"
        assert sharding in ("fsdp2", "zero3")
        return
    document = launch_config.finetune(plan.make(SMALL, setup, H100, plan.Assumptions(tokens=1e6)), model="m")
    parsed = finetune_config.parse(document)
    assert parsed.adapter.method == method
    assert parsed.parallel.sharding == sharding
    assert parsed.parallel.num_workers == gpus
    assert parsed.training.max_steps == -(-1_000_000 // setup.tokens_per_step)
    deepspeed = launch_config.deepspeed(setup)
    assert bool(deepspeed) == sharding.startswith("zero")
    if deepspeed:
        assert deepspeed["zero_optimization"]["stage"] == int(sharding[-1])
        assert deepspeed["train_batch_size"] == gpus


def test_deepspeed_gets_what_rests_on_the_host() -> None:
    setup = TrainingSetup(method="full", sharding="zero3", num_gpus=8, offload="parameters", micro_batch=2)
    zero = launch_config.deepspeed(setup)["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"


def _observed(ratio: float, **others: Any) -> Observation:
    regime = others.pop("regime", calibration.regime_of(LORA))
    return Observation(hardware="h100", regime=regime, time_ratio=ratio, memory_ratio=1.1, date="2026-11-01", **others)


def test_runs_move_later_plans_on_that_hardware_only(tmp_path: Path) -> None:
    file = tmp_path / "llm" / calibration.FILE_NAME
    for ratio in (1.2, 1.3, 1.25, 3.9):
        calibration.record(file, _observed(ratio))
    learned = calibration.load(file)
    before, after = _plan(), _plan(calibration=learned)
    assert after.throughput.seconds_per_step == pytest.approx(1.275 * before.throughput.seconds_per_step)
    assert after.peak_bytes == round(1.1 * before.memory.peak)
    assert after.factors.time_runs == 4
    assert after.throughput.high / after.throughput.low < before.throughput.high / before.throughput.low
    assert not _plan(machine="h200", calibration=learned).factors.is_calibrated


def test_another_regime_takes_the_hardware_s_median_and_keeps_its_interval(tmp_path: Path) -> None:
    learned = calibration.record(tmp_path / "c.json", _observed(1.5))
    other = _plan(LORA.replace(method="full"), calibration=learned)
    assert other.factors.time == 1.5
    assert other.factors.regime == ""
    plain = _plan(LORA.replace(method="full"))
    assert other.throughput.high / other.throughput.low == pytest.approx(plain.throughput.high / plain.throughput.low)


@pytest.mark.parametrize("ratio", [-1.0, 0.01, 100.0, float("nan"), float("inf")])
def test_a_ratio_that_cannot_be_is_refused_and_nothing_is_written(ratio: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="time_ratio"):
        calibration.record(tmp_path / "c.json", _observed(ratio))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 9, "observations": []}', '{"format": 1, "observations": [{"x": 1}]}']
)
def test_a_calibration_that_is_none_is_said_and_kept(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(errors.SettingsError, match=re.escape(str(file))):
        calibration.record(file, _observed(1.0))
    assert file.read_text() == text


def test_only_the_newest_runs_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    for position in range(60):
        calibration.record(file, _observed(1.0 + position / 100))
    kept = calibration.load(file).observations
    assert len(kept) == 50
    assert kept[-1].time_ratio == pytest.approx(1.59)


def test_processes_that_record_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    script = (
        "import pathlib, sys\n"
        "from michelangelo.llm.planner import calibration\n"
        "for _ in range(5):\n"
        "    one = calibration.Observation(hardware='h100', regime=sys.argv[2], time_ratio=1.0)\n"
        "    calibration.record(pathlib.Path(sys.argv[1]), one)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(file), f"worker {number}"]) for number in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(calibration.load(file).observations) == 10
