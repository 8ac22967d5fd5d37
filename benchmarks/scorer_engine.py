"""Our continuous-batching engine on a CPU beside the three ways that Transformers has, on the same rows in one run.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/scorer_engine.py [--rows 256] [--rounds 3] [--out FILE.json]

A Llama with random weights (hidden 256, 6 layers, vocabulary 4,096, fp32); prompts of 16 … 256 tokens and outputs of
8 … 128, all lengths equally likely, no two prompts alike. What is counted is output tokens that a row asked for, per
second of the clock and per second of the processor (which a busy machine changes less). The contenders take turns;
every output is compared with ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from michelangelo.llm.scorer import engine
from michelangelo.llm.scorer.engines.torch_engine import config
from michelangelo.llm.scorer.engines.torch_engine import engine as torch_engine

MODEL = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
PROMPTS, OUTPUTS = (16, 256), (8, 128)
EVENLY = (0.7548776662466927, 0.5698402909980532)
"""Roberts' R2 sequence: any few rows in a row have about the same mix of lengths, so that the slow contenders may be
given fewer of them."""
BATCHES = (32, 64)
FEWER = {"generate(), row by row": 24, "generate(), padded": 128, "generate_batch()": 128}
"""Rows of contenders whose rate does not depend on how many there are."""
AIMS = {"generate(), row by row": "≤ 1/8 of ours", "generate(), padded": "≤ 1/2 of ours"}


@dataclasses.dataclass(frozen=True)
class Row:
    prompt: tuple[int, ...]
    output: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=MODEL["num_hidden_layers"])
    parser.add_argument("--only", action="append", default=[], help="contenders whose name has this in it; repeatable")
    parser.add_argument("--out", type=pathlib.Path, help="the rows as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        model = made(pathlib.Path(folder), arguments.layers)
        rows = drawn(arguments.rows)
        found = contest(contenders(model, folder), rows, arguments.rounds, arguments.only)
    cpu = platform.processor() or platform.machine()
    print(f"\n{os.cpu_count()} cores ({cpu}), {arguments.threads} thread, load {os.getloadavg()[0]:.1f}; ", end="")
    print(", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers")))
    print(table(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))
    return 0


def made(folder: pathlib.Path, layers: int) -> Any:
    fields: dict[str, Any] = {**MODEL, "num_hidden_layers": layers}
    described = AutoConfig.for_model(**fields)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(described)  # type: ignore[no-untyped-call]
    model.eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:  # at the usual 0.02 a random model says one token for ever
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    return model


def drawn(count: int) -> list[Row]:
    source = random.Random(0)
    found = []
    for number in range(count):
        prompt, output = (
            low + int((number * step % 1) * (high + 1 - low))
            for (low, high), step in ((PROMPTS, EVENLY[0]), (OUTPUTS, EVENLY[1]))
        )
        found.append(Row(tuple(source.randrange(2, 4096) for _ in range(prompt)), output))
    return found


def _limited(**fields: Any) -> GenerationConfig:
    found: GenerationConfig = GenerationConfig(**fields)  # type: ignore[no-untyped-call]
    return found


Contender = Callable[[Sequence[Row]], list[tuple[int, ...]]]


def contenders(model: Any, folder: str) -> dict[str, Contender]:
    plain = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ours = torch_engine.open_engine(config.TorchEngineConfig(model=folder, device="cpu", cache_bytes=1 << 29))

    def row_by_row(rows: Sequence[Row]) -> list[tuple[int, ...]]:
        return [
            tuple(
                model.generate(
                    torch.tensor([row.prompt]),
                    attention_mask=torch.ones(1, len(row.prompt), dtype=torch.long),
                    generation_config=_limited(max_new_tokens=row.output, **plain),
                )[0, len(row.prompt) :].tolist()
            )
            for row in rows
        ]

    def padded(batch: int) -> Contender:
        def run(rows: Sequence[Row]) -> list[tuple[int, ...]]:
            found: list[tuple[int, ...]] = []
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                longest = max(len(row.prompt) for row in part)
                tokens = torch.zeros(len(part), longest, dtype=torch.long)
                mask = torch.zeros(len(part), longest, dtype=torch.long)
                for number, row in enumerate(part):
                    tokens[number, longest - len(row.prompt) :] = torch.tensor(row.prompt)
                    mask[number, longest - len(row.prompt) :] = 1
                most = max(row.output for row in part)
                made = model.generate(
                    tokens, attention_mask=mask, generation_config=_limited(max_new_tokens=most, **plain)
                )
                found.extend(
                    tuple(made[number, longest : longest + row.output].tolist()) for number, row in enumerate(part)
                )
            return found

        return run

    def continuous(rows: Sequence[Row]) -> list[tuple[int, ...]]:
        # Its limit of tokens is one for all: rows with the same limit could go together, but then it would hardly
        # batch; so each request brings its own, as the manager allows.
        from transformers import ContinuousBatchingConfig

        manager = model.init_continuous_batching(
            generation_config=_limited(max_new_tokens=OUTPUTS[1], do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=1024, max_batch_tokens=1024, allow_block_sharing=False
            ),
        )
        manager.start()
        try:
            for number, row in enumerate(rows):
                manager.add_request(list(row.prompt), request_id=str(number), max_new_tokens=row.output)
            found: dict[str, tuple[int, ...]] = {}
            while len(found) < len(rows):
                result = manager.get_result(timeout=60)
                if result is not None and result.is_finished():
                    found[result.request_id] = tuple(result.generated_tokens)
        finally:
            manager.stop(block=True)
        return [found[str(number)] for number in range(len(rows))]

    def engine_of_ours(rows: Sequence[Row]) -> list[tuple[int, ...]]:
        requests = (
            engine.Request(
                id=str(number),
                token_ids=row.prompt,
                sampling=engine.Sampling(max_tokens=row.output, ignores_eos=True),
            )
            for number, row in enumerate(rows)
        )
        found = {completion.id: completion.token_ids for completion in engine.run(ours, requests)}
        ours.forget_prefixes()  # the next round would find its prompts computed
        return [found[str(number)] for number in range(len(rows))]

    return {
        "ours": engine_of_ours,
        "generate(), row by row": row_by_row,
        **{f"generate(), padded, {batch} rows": padded(batch) for batch in BATCHES},
        "generate_batch() (transformers' continuous batching)": continuous,
    }


def contest(
    entries: dict[str, Contender], rows: Sequence[Row], rounds: int, only: Sequence[str]
) -> list[dict[str, Any]]:
    if only:
        entries = {name: run for name, run in entries.items() if any(word in name for word in ("ours", *only))}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
    wrong: dict[str, int] = {}
    for number in range(rounds + 1):
        expected: list[tuple[int, ...]] = []
        for name, run in entries.items():
            most = next((most for start, most in FEWER.items() if name.startswith(start)), len(rows))
            part = rows[: min(most, len(rows)) if number else 8]  # the first round warms up
            began, busy = time.perf_counter(), time.process_time()
            found = run(part)
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            if name == "ours":
                expected = found
            wrong[name] = sum(one != other for one, other in zip(found, expected, strict=False))
            if number:
                tokens = sum(row.output for row in part)
                rates[name].append((tokens / seconds, tokens / busy))
                print(f"round {number}: {name}: {tokens / seconds:,.0f} tokens/s", file=sys.stderr, flush=True)
    ours = rates["ours"]
    return [
        {
            "case": name,
            "output tokens/s": statistics.median(wall for wall, _ in each),
            "per CPU second": statistics.median(busy for _, busy in each),
            "ours is × faster": ratio(ours, each, 0),
            "× by CPU": ratio(ours, each, 1),
            "rows unlike ours": wrong[name],
            "aim": next((aim for start, aim in AIMS.items() if name.startswith(start)), ""),
        }
        for name, each in rates.items()
    ]


def ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]], which: int) -> float:
    """Median over the rounds."""
    return statistics.median(mine[which] / other[which] for mine, other in zip(ours, theirs, strict=True))


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
