"""What the scorer costs over the bare engine: the same engine, the same requests, one replica, in one run, as a ratio.

.venv/bin/python benchmarks/scorer_job.py [--rows 400] [--repeats 3]

The bare engine takes requests that are ready in memory, by `engine.run`; the job reads rows of JSON, renders a
template, and writes every row to the disk. Wall time is taken from when the engine is open; processor time, which a
busy machine disturbs less, is that of the process, without the opening of the engine. The replica is a thread, so that
both run in one process; runs alternate, and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from michelangelo.llm.scorer import config as configuration
from michelangelo.llm.scorer import engine, engine_kinds, job
from michelangelo.llm.scorer.config import EngineConfig
from michelangelo.llm.scorer.engine import Request, Sampling

TEMPLATE = "Say what number {{ number }} is, and why: {{ words }}"
LIMIT = 0.05


def write_model(folder: Path) -> None:
    """A Llama of 2 layers with random weights, and a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(["<end>", *alphabet])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=words, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    model.save_pretrained(folder)


@dataclass(frozen=True)
class Spent:
    """Seconds of one run."""

    wall: float
    processor: float


def bare(config: EngineConfig, rows: list[dict[str, Any]], max_tokens: int) -> Spent:
    prompts = [f"Say what number {row['number']} is, and why: {row['words']}" for row in rows]
    sampling = Sampling(max_tokens=max_tokens, ignores_eos=True)
    requests = [Request(str(place), prompt=prompt, sampling=sampling) for place, prompt in enumerate(prompts)]
    opened = engine_kinds.open_engine(config)
    try:
        began, used = time.perf_counter(), time.process_time()
        count = sum(1 for _ in engine.run(opened, requests))
        spent = Spent(time.perf_counter() - began, time.process_time() - used)
    finally:
        opened.close()
    assert count == len(rows)
    return spent


def scored(config: EngineConfig, source: Path, max_tokens: int, opening: float) -> Spent:
    """`opening`: processor seconds that an engine takes until it is open."""
    with tempfile.TemporaryDirectory() as folder:
        document = {
            "input": {"path": str(source)},
            "output": {"path": f"{folder}/out.jsonl"},
            "prompt": {"template": TEMPLATE},
            "sampling": {"max_tokens": max_tokens, "ignores_eos": True},
            "engine": config.model_dump(),
            "replicas": {"runner": "thread"},
        }
        used = time.process_time()
        report = job.score(configuration.parse(document)).report
        spent = Spent(float(report["session"]["scoring_seconds"]), time.process_time() - used - opening)
    assert report["rows"]["failed"] == 0
    return spent


def opening_of(config: EngineConfig) -> float:
    """Processor seconds, the second time: libraries are loaded then."""
    for _ in range(2):
        used = time.process_time()
        engine_kinds.open_engine(config).close()
        used = time.process_time() - used
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        rows = [{"number": n, "words": "because it is so " * (1 + n % 5)} for n in range(words.rows)]
        source = folder / "in.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = EngineConfig.model_validate({"kind": "torch", "model": str(folder / "model"), "device": "cpu"})
        opening = opening_of(config)
        ways: dict[str, Callable[[], Spent]] = {
            "bare engine": lambda: bare(config, rows, words.max_tokens),
            "job": lambda: scored(config, source, words.max_tokens, opening),
        }
        spent: dict[str, list[Spent]] = {way: [] for way in ways}
        for _ in range(words.repeats):
            for way, run in ways.items():
                spent[way].append(run())
    print(f"{'':<12} {'wall':>9} {'processor':>10} {'rows/s':>8}")
    medians = {
        way: Spent(statistics.median(one.wall for one in runs), statistics.median(one.processor for one in runs))
        for way, runs in spent.items()
    }
    for way, one in medians.items():
        print(f"{way:<12} {one.wall:8.3f}s {one.processor:9.3f}s {words.rows / one.wall:8.1f}")
    first, second = medians["bare engine"], medians["job"]
    wall, processor = second.wall / first.wall - 1, second.processor / first.processor - 1
    print(f"{'overhead':<12} {wall:+9.1%} {processor:+10.1%}    (goal: at most {LIMIT:.0%})")


if __name__ == "__main__":
    main()
