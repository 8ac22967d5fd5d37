"""LoRA on questions and answers: small matrices beside every projection are trained, the model itself stays as it is.

Only the answer's tokens count for the loss; the question is there to be read.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import model
import tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

__all__ = ["IGNORED", "Example", "LoraSettings", "attach", "batch_of", "examples", "load", "prompt", "save", "train"]

TARGETS: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED: Final = -100
"""The label of a token that no loss counts."""


@dataclass(frozen=True)
class LoraSettings:
    """`rank` and `alpha` of the matrices, and their training (AdamW, warm-up and cosine as in pre-training)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    learning_rate: float = 2e-3
    epochs: int = 6
    batch_size: int = 16


@dataclass(frozen=True)
class Example:
    """Tokens of a prompt and its answer; `answer_at` is the index of the answer's first token."""

    tokens: list[int]
    answer_at: int


def prompt(question: str) -> str:
    """How a question is put to the model."""
    return f"Question: {question}\nAnswer:"


def examples(learnt: Tokenizer, pairs: Iterable[tuple[str, str]], context: int) -> list[Example]:
    """Questions and answers as tokens, each with the end mark; longer ones are cut at the context."""
    end = tokenizer.end_of(learnt)
    made = []
    for question, answer in pairs:
        asked = learnt.encode(prompt(question)).ids
        tokens = [*asked, *learnt.encode(f" {answer}").ids, end][:context]
        if len(asked) < len(tokens):
            made.append(Example(tokens, len(asked)))
    return made


def batch_of(chosen: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """Input, attention mask and labels, padded on the right; labels are the answers only."""
    import torch

    longest = max(len(one.tokens) for one in chosen)
    ids = torch.full((len(chosen), longest), pad)
    labels = torch.full((len(chosen), longest), IGNORED)
    mask = torch.zeros((len(chosen), longest), dtype=torch.long)
    for row, one in enumerate(chosen):
        size = len(one.tokens)
        ids[row, :size] = torch.tensor(one.tokens)
        labels[row, one.answer_at : size] = ids[row, one.answer_at : size]
        mask[row, :size] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def attach(base: Any, settings: LoraSettings, seed: int) -> Any:
    """The model with fresh LoRA matrices, which change nothing yet."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=TARGETS,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def load(base: Any, path: str | Path) -> Any:
    """`base` with the matrices that `save` wrote."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(path)).eval()


def save(tuned: Any, folder: str | Path) -> None:
    """adapter_config.json and adapter_model.safetensors: the same weights are the same bytes."""
    tuned.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (Path(folder) / "README.md").unlink(missing_ok=True)  # an empty form for a model hub
    # What depends on the run: where the base model happened to be, and the order of a set.
    path = Path(folder) / "adapter_config.json"
    config = json.loads(path.read_text())
    config |= {"base_model_name_or_path": "model", "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def train(
    tuned: Any, train_set: list[Example], validation: list[Example], settings: LoraSettings, seed: int
) -> model.Curve:
    """Train the matrices in place; those with the lowest validation loss are kept."""
    import torch

    per_epoch = math.ceil(len(train_set) / settings.batch_size)
    schedule = model.TrainConfig(learning_rate=settings.learning_rate, steps=settings.epochs * per_epoch)
    pad = tuned.config.pad_token_id
    trained = [one for one in tuned.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    points: list[model.Point] = []
    best: tuple[float, int, dict[str, torch.Tensor]] = (math.inf, 0, {})
    step, tokens, seconds = 0, 0, 0.0
    for epoch in range(1, settings.epochs + 1):
        began = time.perf_counter()
        order = torch.randperm(len(train_set), generator=draw).tolist()
        losses = []
        tuned.train()
        for start in range(0, len(order), settings.batch_size):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = model.learning_rate(step, schedule)
            chosen = [train_set[index] for index in order[start : start + settings.batch_size]]
            losses.append(_step(tuned, batch_of(chosen, pad), optimizer))
            tokens += sum(len(one.tokens) for one in chosen)
        seconds += time.perf_counter() - began
        loss = _validation_loss(tuned, validation, pad)
        rate = float(optimizer.param_groups[0]["lr"])
        points.append(model.Point(step, tokens, rate, sum(losses) / len(losses), loss))
        print(f"epoch {epoch}/{settings.epochs}  train {points[-1].train_loss:.3f}  validation {loss:.3f}", flush=True)
        if loss < best[0]:
            best = (
                loss,
                step,
                copy.deepcopy({name: one for name, one in tuned.named_parameters() if one.requires_grad}),
            )
    tuned.load_state_dict(best[2], strict=False)
    tuned.eval()
    return model.Curve(points, best[1], tokens, seconds)


def _step(tuned: Any, batch: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> float:
    loss = tuned(**batch, use_cache=False).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.item())


def _validation_loss(tuned: Any, chosen: list[Example], pad: int) -> float:
    """In nats per token of the answers."""
    import torch

    tuned.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(chosen), 32):
            batch = batch_of(chosen[start : start + 32], pad)
            answers = int((batch["labels"][:, 1:] != IGNORED).sum())
            total += float(tuned(**batch, use_cache=False).loss) * answers
            count += answers
    return total / max(count, 1)
