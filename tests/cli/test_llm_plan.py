"""`mactl llm plan`: plans, searches and inference in every format; exit codes; what is wrong in the call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.cli.llm_plan_inputs import NUMBER
from michelangelo.llm.finetune import config as finetune_config
from michelangelo.llm.planner import calibration

Mactl = Callable[..., Any]
SMALL = ("llm", "plan", "llama-3.2-1b")


def test_a_plan_shows_memory_speed_and_cost_with_intervals(mactl: Mactl) -> None:
    result = mactl("llm", "plan", "llama-3.1-8b", "--sequence-length", "4096", "--micro-batch", "2", "--tokens", "100M")
    assert result.code == 0
    for text in (
        "activations_mlp",
        "of 79.11",
        "fits: ",
        "MFU, HFU",
        "matmul",
        "hours",
        "rent",
        "kWh",
        "Not calibrated",
    ):
        assert text in result.out
    assert re.search(r"peak [\d.]+ GiB \([\d.]+ to [\d.]+ in 90% of runs\)", result.out)
    assert re.search(r"tokens/s +[\d,]+ \([\d,]+ to [\d,]+\)", result.out)
    assert "\x1b" not in result.out


def test_a_plan_is_json_and_yaml(mactl: Mactl) -> None:
    words = (*SMALL, "--method", "full", "--hardware", "h100:8", "--tokens", "1.5B", "--epochs", "2")
    made = json.loads(mactl(*words, "-o", "json").out)
    assert made["setup"]["num_gpus"] == 8
    assert made["setup"]["sharding"] == "fsdp2"
    assert made["cost"]["tokens"] == 3e9
    assert made["cost"]["money"]["low"] < made["cost"]["money"]["value"]
    assert yaml.safe_load(mactl(*words, "-o", "yaml").out) == made


def test_what_does_not_fit_ends_with_one_and_says_what_would(mactl: Mactl) -> None:
    result = mactl("llm", "plan", "llama-3.1-8b", "--method", "full")
    assert result.code == 1
    assert "does not fit: " in result.out
    assert "would fit with" in result.out
    made = mactl("llm", "plan", "llama-3.1-8b", "--method", "full", "-o", "json")
    assert made.code == 1
    assert "offload=optimizer" in json.loads(made.out)["wouldFitWith"]


def test_every_number_is_explained_with_its_source(mactl: Mactl) -> None:
    result = mactl(*SMALL, "--hardware", "h100:2", "--explain")
    explained = result.out[result.out.index("\nModel") :]
    assert explained.count("    source: ") >= 25
    for text in ("arXiv", "TFLOP/s", "GB/s", "Uptime Institute", "MFU causal"):
        assert text in explained
    lines = json.loads(mactl(*SMALL, "--explain", "-o", "json").out)["explanation"]
    assert {line["topic"] for line in lines} >= {"model", "memory", "time", "speed", "cost"}


def test_a_search_shows_three_choices_the_front_and_why_the_others_fail(mactl: Mactl) -> None:
    result = mactl("llm", "plan", "llama-3.1-8b", "--search", "--hardware", "rtx-4090", "--gpus", "1")
    assert result.code == 0
    for text in ("cheapest", "fastest", "smallest", "What fails", "would fit with", "GiB of 23.5"):
        assert text in result.out


def test_a_search_is_json_and_its_best_is_a_configuration_that_the_trainer_takes(mactl: Mactl) -> None:
    words = (
        *SMALL,
        "--search",
        "--method",
        "lora",
        "--hardware",
        "h100",
        "--hardware",
        "l4",
        "--gpus",
        "1",
        "--tokens",
        "1M",
    )
    made = json.loads(mactl(*words, "-o", "json").out)
    assert made["tried"] == made["fitting"] + sum(group["count"] for group in made["rejected"])
    least = min(one["money"] for one in made["front"] if one["money"])
    assert made["cheapest"]["cost"]["money"]["value"] == pytest.approx(least, rel=0.01)
    document = yaml.safe_load(mactl(*words, "-o", "config").out)
    assert finetune_config.parse(document).training.micro_batch == made["cheapest"]["setup"]["micro_batch"]


def test_each_kind_is_searched_with_its_own_number_of_gpus(mactl: Mactl) -> None:
    words = (*SMALL, "--search", "--method", "full", "--hardware", "h100:2", "--hardware", "l40s:4")
    front = json.loads(mactl(*words, "-o", "json").out)["front"]
    assert {(one["hardware"], one["setup"]["num_gpus"]) for one in front} == {("h100", 2), ("l40s", 4)}


@given(st.floats(1, 1e15), st.sampled_from(["", "k", "M", "b", "G", "T"]))
def test_numbers_are_read_with_their_suffix(number: float, suffix: str) -> None:
    factor = {"": 1, "k": 1e3, "M": 1e6, "b": 1e9, "G": 1e9, "T": 1e12}[suffix]
    text = f"{number:.3f}{suffix}"
    if number * factor <= 1e18:
        assert NUMBER.convert(text, None, None) == pytest.approx(float(f"{number:.3f}") * factor)


@given(st.text(max_size=12))
def test_what_is_no_number_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        number = NUMBER.convert(text, None, None)
    except click.UsageError as e:
        said = e.message
    else:
        assert 1 <= number <= 1e18
        return
    assert "no number" in said or "must be from" in said


def test_a_search_in_which_nothing_fits_ends_with_one(mactl: Mactl) -> None:
    words = ("llm", "plan", "llama-3.1-405b", "--search", "--hardware", "l4", "--gpus", "1")
    assert mactl(*words).code == 1
    assert json.loads(mactl(*words, "-o", "json").out)["cheapest"] is None
    result = mactl(*words, "-o", "config")
    assert result.code == 1
    assert "fits" in result.err
    assert result.out == ""


def test_files_are_written(mactl: Mactl, tmp_path: Path) -> None:
    words = (*SMALL, "--search", "--method", "full", "--sharding", "zero2", "--gpus", "8")
    plot, deepspeed = tmp_path / "plan.svg", tmp_path / "zero.json"
    result = mactl(*words, "--plot", str(plot), "--deepspeed", str(deepspeed))
    assert result.code == 0
    assert plot.read_text().startswith("<?xml")
    assert json.loads(deepspeed.read_text())["zero_optimization"]["stage"] == 2


def test_inference_shows_the_curve_and_the_price_of_a_million_tokens(mactl: Mactl) -> None:
    words = ("llm", "plan", "mixtral-8x7b", "--inference", "--hardware", "h100:2", "--input-tokens", "4096")
    result = mactl(*words, "--output-tokens", "700")
    assert result.code == 0
    for text in ("64 knee", "OUTPUT TOKENS/S", "a million tokens", "first token after", "cache of a token"):
        assert text in result.out
    made = json.loads(mactl(*words, "-o", "json").out)
    assert made["fits"] is True
    assert made["moneyPerMillionOutput"] > 0
    explained = mactl(*words, "--explain").out
    assert explained.count("    source: ") == 5
    assert len(json.loads(mactl(*words, "--explain", "-o", "json").out)["explanation"]) == 5


def test_inference_that_does_not_fit_ends_with_one(mactl: Mactl) -> None:
    result = mactl("llm", "plan", "llama-3.1-70b", "--inference")
    assert result.code == 1
    assert "does not fit" in result.out


def test_prices_can_be_given(mactl: Mactl, tmp_path: Path) -> None:
    one = json.loads(mactl(*SMALL, "--price", "2", "-o", "json").out)["cost"]
    assert one["money"]["value"] == pytest.approx(2 * one["hours"]["value"])
    file = tmp_path / "prices.json"
    row = {"hardware": "h100", "provider": "ours", "per_gpu_hour": 1.0, "date": "2026-01-01"}
    file.write_text(json.dumps({"currency": "EUR", "prices": [row]}))
    ours = json.loads(mactl(*SMALL, "--prices", str(file), "-o", "json").out)["cost"]
    assert (ours["currency"], ours["price"]["provider"]) == ("EUR", "ours")
    aws = json.loads(mactl(*SMALL, "--provider", "aws", "--hardware", "h100:8", "-o", "json").out)["cost"]
    assert aws["price"]["provider"] == "AWS"


def test_a_plan_says_that_and_by_how_many_runs_it_is_calibrated(mactl: Mactl, home: Path) -> None:
    file = home / "llm" / calibration.FILE_NAME
    for _ in range(2):
        calibration.record(
            file, calibration.Observation(hardware="h100", regime="full eager", time_ratio=1.5, date="2026-11-02")
        )
    result = mactl(*SMALL)
    assert "Calibrated by 2 runs of other setups on h100, the newest of 2026-11-02" in result.out
    assert "time x 1.500" in result.out
    file.write_text("{")
    broken = mactl(*SMALL)
    assert broken.code == 2
    assert "calibration.json: is no JSON" in broken.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nosuch",), "model nosuch: neither a name"),
        (("llama-3.1-8b", "--hardware", "h10"), "did you mean h100"),
        (("llama-3.1-8b", "--hardware", "h100:none"), "NAME or NAME:COUNT"),
        (("llama-3.1-8b", "--hardware", "h100", "--hardware", "h200"), "with --search only"),
        (("llama-3.1-8b", "--hardware", "h100:4", "--gpus", "8"), "--hardware h100:4 says 4"),
        (("llama-3.1-8b", "--tokens", "abc"), "'abc' is no number"),
        (("llama-3.1-8b", "--tokens", "0"), "must be from 1 to"),
        (("llama-3.1-8b", "--tokens", "1e400"), "must be from 1 to"),
        (("llama-3.1-8b", "--gpus", "12"), "no multiple of the 8 GPUs of a node"),
        (("llama-3.1-8b", "--gpus", "4", "--tensor-parallel", "3"), "3 does not divide"),
        (("llama-3.1-8b", "--sequence-length", "99999999999"), "sequence_length: 99999999999"),
        (("llama-3.1-8b", "--micro-batch", "0"), "micro-batch"),
        (("llama-3.1-8b", "--offload", "parameters", "--sharding", "zero1", "--gpus", "2"), "fsdp2 or zero3"),
        (("llama-3.1-8b", "--target", "nosuch"), "has no nosuch"),
        (("llama-3.1-8b", "--price", "nan"), "price nan"),
        (("llama-3.1-8b", "--price", "1", "--prices", "x"), "give one of the two"),
        (("llama-3.1-8b", "--prices", "/nosuch.json"), "cannot be read"),
        (("llama-3.1-8b", "--provider", "nobody"), "no price of it is known"),
        (("llama-3.1-8b", "--pue", "nan"), "--pue nan"),
        (("llama-3.1-8b", "--epochs", "inf"), "--epochs inf"),
        (("llama-3.1-8b", "--stack", "nosuch"), "there are trainer"),
        (("llama-3.1-8b", "--plot", "x.svg"), "only with --search"),
        (("llama-3.1-8b", "--search", "--plot", "x.doc"), "must end with"),
        (("llama-3.1-8b", "--deepspeed", "x.json"), "zero1, zero2"),
        (("llama-3.1-8b", "--inference", "-o", "config"), "no configuration"),
        (("llama-3.1-8b", "--inference", "--weights", "fp8", "--hardware", "a100"), "has no fp8"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_call_is_one_sentence_and_ends_with_two(
    mactl: Mactl, words: tuple[str, ...], says: str
) -> None:
    result = mactl("llm", "plan", *words)
    assert result.code == 2
    assert says in result.err
    assert result.out == ""


def test_a_config_json_of_one_s_own_is_planned(mactl: Mactl, tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 4096,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert mactl("llm", "plan", str(tmp_path), "--method", "full").code == 0
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": -1}))
    assert mactl("llm", "plan", str(tmp_path)).code == 2


def test_a_plan_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from michelangelo.cli.main import mactl\n"
        "mactl.main(['llm', 'plan', 'llama-3.1-8b', '--explain'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'ray', 'matplotlib', 'fsspec'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    environment = {"MA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
