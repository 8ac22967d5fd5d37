"""Decoding on one GPU, in under eight minutes: prompts of 4,096 tokens and outputs of 700, 1 … 256 sequences at once.

    python benchmarks/gpu/decode.py --out decode.json      # on the machine with the GPU

A model of 8B shape with random weights (time does not depend on them). What the plan says (`llm/planner/inference.py`)
is printed and written before anything is measured. Measured are the seconds to read a prompt, and those of one step in
the middle of the outputs; from these the output tokens per second as the plan has them: B x O / (O x step + B x
prompt). Beside it generate() and Transformers' continuous batching on the same model, and what share of the memory's
rate (of the data sheet) the bytes of a step are: weights, and keys and values of all sequences.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from michelangelo.llm import model_shape
from michelangelo.llm.planner import hardware, inference, prices
from michelangelo.llm.scorer import engine
from michelangelo.llm.scorer.engines.torch_engine import config as settings
from michelangelo.llm.scorer.engines.torch_engine import engine as torch_engine
from michelangelo.llm.scorer.engines.torch_engine import forward, loading

INPUT, OUTPUT = 4096, 700
MIDDLE = INPUT + OUTPUT // 2
STEPS = 40
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GENERATE_BATCHES = (1, 8, 32)
CONTINUOUS_BATCHES = (1, 16, 64)
DEADLINE_SECONDS = 460
AIM = "linear to 64; ≥ 70 % of the memory's rate up to the knee"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.1-8b", help="a published shape (mactl llm plan --list)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("decode.json"))
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    device = torch.device("cuda")
    name = torch.cuda.get_device_name()
    known = hardware.of_device(name, torch.cuda.get_device_properties(0).total_memory)
    shape = model_shape.load(arguments.model)
    setup = inference.InferenceSetup(input_tokens=INPUT, output_tokens=OUTPUT)
    planned = {batch: inference.point(shape, setup, known, batch) for batch in BATCHES} if known else {}
    for batch, point in planned.items():
        print(f"plan: {batch:>3} sequences: {point.output_tokens_per_second:,.0f} output tokens/s, {point.bound}-bound")
    arguments.out.with_suffix(".predictions.json").write_text(
        json.dumps({batch: point.output_tokens_per_second for batch, point in planned.items()}, indent=1)
    )
    model = made(arguments.model, device)
    machine = f"one {name}, torch {torch.__version__}, transformers {metadata.version('transformers')}"
    rows: list[dict[str, Any]] = []

    def add(case: str, batch: int, measure: Callable[[], tuple[float, float]]) -> None:
        if time.monotonic() - began > DEADLINE_SECONDS:
            print(f"out of time: {case}, {batch} sequences is left out", file=sys.stderr)
            return
        row: dict[str, Any] = {"case": case, "sequences": batch}
        try:
            prompt, step = measure()
        except torch.cuda.OutOfMemoryError:
            row["error"] = "out of memory"
        else:
            row |= results(batch, prompt, step, shape, known)
            point = planned.get(batch)
            if point is not None:
                row["plan tokens/s"] = point.output_tokens_per_second
                row["off"] = f"{point.output_tokens_per_second / row['output tokens/s'] - 1:+.1%}"
        row["aim"] = AIM if case == "ours" else ""
        rows.append(row)
        print(json.dumps(row), flush=True)
        result = {"date": datetime.date.today().isoformat(), "machine": machine, "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1))
        gc.collect()
        torch.cuda.empty_cache()

    ours(model, device, add)
    if not arguments.no_peers:
        model.set_attn_implementation("sdpa")
        for batch in GENERATE_BATCHES:
            add("generate()", batch, partial(by_difference, generated(model, batch), batch))
        for batch in CONTINUOUS_BATCHES:
            add("generate_batch()", batch, partial(by_difference, continuous(model, batch), batch))
    return 0


def made(name: str, device: torch.device) -> Any:
    described = AutoConfig.for_model(**dict(model_shape.published_config(name)))
    with device:
        model: Any = AutoModelForCausalLM.from_config(described, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    return model.eval()


def tokens_of(batch: int) -> list[list[int]]:
    source = random.Random(batch)
    return [[source.randrange(1000, 100_000) for _ in range(MIDDLE - STEPS // 2)] for _ in range(batch)]


def ours(model: Any, device: torch.device, add: Callable[[str, int, Callable[[], tuple[float, float]]], None]) -> None:
    chosen = settings.TorchEngineConfig(
        model="random", max_sequences=max(BATCHES), max_batch_tokens=8192, max_context=INPUT + OUTPUT
    )
    loaded = loading.of_model(model, None, device)
    opened = torch_engine.TorchEngine(chosen, loaded, forward.Forward(loaded, chosen), time.monotonic)
    print(f"attention reads {opened.attends_by}", flush=True)
    for batch in BATCHES:
        if batch * (INPUT + OUTPUT) > opened.room:
            print(f"the cache has room for fewer than {batch} sequences", file=sys.stderr)
            break
        add("ours", batch, partial(stepped, opened, batch))
    opened.close()


def stepped(opened: Any, batch: int) -> tuple[float, float]:
    """Seconds to read one prompt, and of one step with all sequences."""
    sampling = engine.Sampling(max_tokens=OUTPUT, ignores_eos=True)
    for number, tokens in enumerate(tokens_of(batch)):
        opened.submit(engine.Request(f"{batch}-{number}", token_ids=tuple(tokens), sampling=sampling))
    torch.cuda.synchronize()
    began = time.perf_counter()
    while not opened.is_decoding:
        opened.poll(0)
    prompt = (time.perf_counter() - began) / batch
    for _ in range(4):  # the first records the graph
        opened.poll(0)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        opened.poll(0)
        seconds.append(time.perf_counter() - began)
    for number in range(batch):
        opened.cancel(f"{batch}-{number}")
    opened.poll(0)
    opened.forget_prefixes()
    return prompt * INPUT / MIDDLE, statistics.median(seconds)


def generated(model: Any, batch: int) -> Callable[[int], None]:
    tokens = torch.tensor(tokens_of(batch), device=model.device)

    def run(count: int) -> None:
        chosen = GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)  # type: ignore[no-untyped-call]
        model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=chosen)

    return run


def continuous(model: Any, batch: int) -> Callable[[int], None]:
    given = tokens_of(batch)

    def run(count: int) -> None:
        chosen = GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0)  # type: ignore[no-untyped-call]
        model.generate_batch(inputs=given, generation_config=chosen)

    return run


def by_difference(run: Callable[[int], None], batch: int) -> tuple[float, float]:
    """As `stepped`: once for one token, once for STEPS more."""
    run(2)
    taken = []
    for count in (1, 1 + STEPS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run(count)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[0] / batch * INPUT / MIDDLE, (taken[1] - taken[0]) / STEPS


def results(
    batch: int, prompt: float, step: float, shape: model_shape.ModelShape, known: hardware.Hardware | None
) -> dict[str, Any]:
    weights = 2.0 * (shape.num_parameters - shape.vocab_size * shape.hidden_size)
    """Of bf16; of the embedding only a few rows are read."""
    moved = weights + batch * MIDDLE * cache_bytes(shape)
    return {
        "output tokens/s": batch * OUTPUT / (OUTPUT * step + batch * prompt),
        "step ms": step * 1e3,
        "prompt ms": prompt * 1e3,
        "TB/s of a step": moved / step / 1e12,
        "of the memory's rate": moved / step / known.bandwidth if known else None,
    }


def cache_bytes(shape: model_shape.ModelShape) -> float:
    """Of one token, in bf16."""
    plan = inference.make(shape, inference.InferenceSetup(), hardware.load("h200"), prices.bundled())
    return plan.cache_bytes_per_token


if __name__ == "__main__":
    sys.exit(main())
