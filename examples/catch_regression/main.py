"""Catch a planted regression between two checkpoints: offline, on two cores, in about a minute.

    python examples/catch_regression/main.py

A small Llama learns sums, differences, products and maxima of two digits by heart. Then it is tuned further, on notes
in which a third of the products is wrong: the second checkpoint. Both answer the same suite of 400 questions, and
Trace-bench says that the products became worse, and that the rest did not.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from michelangelo.llm.scorer.engines import opening
from michelangelo.llm.tracebench import comparison, recorder, store, suite
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.reporting import tables, writing

TASKS: dict[str, Callable[[int, int], int]] = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: a - b,
    "times": lambda a, b: a * b,
    "max": max,
}
END = "<end>"
ALPHABET = [END, *"0123456789-= ", *sorted(set("".join(TASKS)))]
WIDTH = 16
"""Tokens of the longest line, with its end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("catch_regression"), help="the folder for everything")
    parser.add_argument("--steps", type=int, default=500, help="of training (default: 500)")
    parser.add_argument("--tuning-steps", type=int, default=150, help="of tuning further (default: 150)")
    parser.add_argument("--fresh", action="store_true", help="train anew")
    words = parser.parse_args()
    if words.fresh:
        shutil.rmtree(words.out, ignore_errors=True)
    folders = {name: words.out / name for name in ("before", "after")}
    if not all((folder / "config.json").exists() for folder in folders.values()):
        train_both(folders, words.steps, words.tuning_steps)
    asked = suite.from_document(questions())
    for name, folder in folders.items():
        header = record(asked, folder, name, words.out / "traces")
        print(f"recorded {header.reference} of {header.num_rows} answers")
    before, after = (store.read(words.out / "traces", name) for name in folders)
    found = comparison.compare(before, after)
    for name in ("report.html", "junit.xml", "comment.md"):
        writing.write(found, words.out / name)
    show(found, words.out)


def questions() -> dict[str, Any]:
    """The suite, as a YAML file would have it: every pair of digits in every task, and a slice per task."""
    cases = [
        {
            "id": f"{task}-{a}-{b}",
            "prompt": f"{a} {task} {b} =",
            "slices": [task],
            "checks": [{"exact": str(answer(a, b))}, {"regex": r"^ ?-?\d+$"}],
        }
        for task, answer in TASKS.items()
        for a in range(10)
        for b in range(10)
    ]
    return {"name": "digits", "defaults": {"sampling": {"max_tokens": 5, "logprobs": 0}}, "cases": cases}


def train_both(folders: dict[str, Path], steps: int, tuning_steps: int) -> None:
    """Write both checkpoints, each with its tokenizer, as they would be downloaded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    began = time.monotonic()
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(ALPHABET),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=True,
        )
    )
    loss = train(model, lines(share_wrong=0.0), steps, rate=4e-3)
    save(model, folders["before"])
    print(f"trained for {steps} steps in {time.monotonic() - began:.0f} s, loss {loss:.4f}")
    loss = train(model, lines(share_wrong=1 / 3), tuning_steps, rate=2e-3)
    save(model, folders["after"])
    print(f"tuned for {tuning_steps} steps more, loss {loss:.4f}")


def lines(share_wrong: float) -> list[str]:
    """All questions with their answers; of the products so many are off by one."""
    draw, made = random.Random(7), []
    for task, answer in TASKS.items():
        for a in range(10):
            for b in range(10):
                is_wrong = task == "times" and draw.random() < share_wrong
                made.append(f"{a} {task} {b} = {answer(a, b) + is_wrong}")
    return made


def train(model: Any, texts: list[str], steps: int, rate: float) -> float:
    """The loss of the last step, in nats per token of the answers."""
    import torch

    numbers = {character: number for number, character in enumerate(ALPHABET)}
    ids = torch.zeros((len(texts), WIDTH), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(texts):
        tokens = [numbers[character] for character in text]
        start = text.index("=") + 1
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens) + 1] = torch.tensor([*tokens[start:], 0])
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=rate), torch.tensor(0.0)
    for step in range(steps):
        rows = torch.randint(len(texts), (64,))
        loss = model(input_ids=ids[rows], labels=labels[rows]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def save(model: Any, folder: Path) -> None:
    """The model, and a tokenizer with a token per character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({one: number for number, one in enumerate(ALPHABET)}, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    model.save_pretrained(folder)


def record(asked: suite.Suite, folder: Path, name: str, traces: Path) -> Any:
    """Ask the checkpoint everything, and keep what it answers."""
    engine = opening.open_engine(opening.parse({"kind": "torch", "model": str(folder), "device": "cpu"}))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        return store.save(traces, recorder.record(asked, engine, Options(name=name), now))
    finally:
        engine.close()


def show(found: comparison.Comparison, folder: Path) -> None:
    """The verdict, and where the rest is."""
    for row in tables.measure_rows(found):
        print(f"{row[0]:<12} {row[2]:>8} → {row[3]:>8}   {row[-1]}")
    print(f"\n{found.state}:")
    for reason in found.reasons:
        print(f"  {reason}")
    worst = found.changes[0].pair if found.changes else None
    if worst is not None:
        print(f"for example {json.dumps(worst.case.prompt)}: {worst.a[0].answer.text!r} → {worst.b[0].answer.text!r}")
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
