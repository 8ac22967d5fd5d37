"""Score 1,000 prompts with a model that is trained on the spot: offline, on two cores, in less than a minute.

    python examples/score_prompts/main.py

A small Llama learns English from the language reference that every Python brings along. Then it goes on with the
beginnings of 1,000 sentences. Each prompt is scored exactly once: end the program whenever you like, start it again,
and it goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from pathlib import Path
from pydoc_data import topics
from typing import Any

from michelangelo.llm.scorer import config as configuration
from michelangelo.llm.scorer import job
from michelangelo.llm.scorer.display import Display

VOCABULARY = 512
WORDS = 8
"""Of a sentence that are given."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="score_prompts", help="the folder for model, prompts and answers")
    parser.add_argument("--prompts", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--steps", type=int, default=150, help="of training (default: 150)")
    parser.add_argument("--max-tokens", type=int, default=16, help="of an answer (default: 16)")
    parser.add_argument("--fresh", action="store_true", help="train and score anew")
    words = parser.parse_args()
    folder = Path(words.out)
    if words.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    sentences = find_sentences()
    if not (folder / "model" / "config.json").exists():
        loss = train(sentences, folder / "model", words.steps)
        print(f"trained for {words.steps} steps in {time.monotonic() - began:.0f} s, loss {loss:.2f}")
    write_prompts(sentences, folder / "prompts.jsonl", words.prompts)
    outcome = job.score(configure(folder, words.max_tokens), display=Display())
    show(outcome.report, folder)


def find_sentences() -> list[str]:
    """English of the language reference: what looks like code or grammar is left out."""
    text = " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics))
    found = re.split(r"(?<=[.!?]) (?=[A-Z])", text)
    return [one for one in found if WORDS < len(one.split()) < 60 and not re.search(r"[=<>{}|_]{2}|::|\*{2}|-{3}", one)]


def train(sentences: list[str], folder: Path, steps: int) -> float:
    """Writes a model with its tokenizer, as it would be downloaded; the loss of the last step, in nats per token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    # Small matrices gain nothing from a second thread.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=True,
        )
    )
    ids = [token for encoding in tokenizer.encode_batch(sentences) for token in [*encoding.ids, 0]]
    rows = torch.tensor(ids[: len(ids) // 64 * 64]).view(-1, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = torch.tensor(0.0)
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (16,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, (step + 1) / 10) * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    model.save_pretrained(folder)
    return float(loss.detach())


def write_prompts(sentences: list[str], file: Path, count: int) -> None:
    """The same ones each time: a job goes on only with the input that it began with."""
    chosen = [sentences[number % len(sentences)] for number in range(count)]
    rows = [{"id": f"s{number}", "beginning": " ".join(one.split()[:WORDS])} for number, one in enumerate(chosen)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def configure(folder: Path, max_tokens: int) -> configuration.ScoreConfig:
    """What a YAML file for `mactl llm score` would say."""
    return configuration.parse(
        {
            "input": {"path": str(folder / "prompts.jsonl")},
            "output": {"path": str(folder / "answers.jsonl"), "keep": ["beginning"]},
            "prompt": {"template": "{{ beginning }}"},
            "sampling": {"max_tokens": max_tokens},
            "engine": {"kind": "torch", "model": str(folder / "model"), "device": "cpu"},
        }
    )


def show(report: dict[str, Any], folder: Path) -> None:
    """Some answers, and how it went."""
    with open(folder / "answers.jsonl", encoding="utf-8") as file:
        for _, line in zip(range(3), file, strict=False):
            row = json.loads(line)
            print(f"  {row['input']['beginning']} …{row['text']}")
    rows, speed = report["rows"], report["session"]["output_tokens_per_second"]
    print(
        f"{rows['scored']:,} of {rows['total']:,} rows scored, {rows['rescored']:,} scored again, {speed:,.0f} tokens/s"
    )
    print(f"report: {report['folder']}/report.html")


if __name__ == "__main__":
    main()
