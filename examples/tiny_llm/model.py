"""A small Llama, from random weights to a trained model: a plain training loop, the same on every run.

The weights with the lowest validation loss are kept, so that training for too long costs time and not quality. Neither
the fine-tuning (finetune.py) nor any measurement on the test set (evaluate.py) is here.
"""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

__all__ = [
    "Curve",
    "ModelConfig",
    "Point",
    "TrainConfig",
    "digest_of",
    "initialise",
    "learning_rate",
    "load",
    "parameters",
    "prepare",
    "save",
    "train",
]

THREADS: Final = 2
"""Of each training: more would not be the same sums in the same order, and so not the same model."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    intermediate: int = 688
    context: int = 128
    """Tokens that the model sees at once."""


@dataclass(frozen=True)
class TrainConfig:
    """AdamW with a linear warm-up and a cosine to a tenth of the rate."""

    learning_rate: float = 3e-3
    steps: int = 500
    batch_size: int = 8
    warmup_share: float = 0.1
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    evaluate_every: int = 20


@dataclass(frozen=True)
class Point:
    """A point of the loss curves, in nats per token. `train_loss` is the mean since the point before."""

    step: int
    tokens: int
    learning_rate: float
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Curve:
    """How a training went. `best_step` is that of the weights which were kept; speed is of the training steps alone."""

    points: list[Point]
    best_step: int
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


def prepare(threads: int = THREADS) -> None:
    """Set torch and transformers up: offline, quiet, and deterministic. Call it before either is used."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Threads that wait sleep, rather than take a core from what shares the machine.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    warnings.filterwarnings("ignore", category=FutureWarning)
    import torch
    from transformers.utils import logging

    show: Any = logging
    show.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def initialise(config: ModelConfig, vocabulary: int, end: int, seed: int) -> Any:
    """The network with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def load(path: str | Path) -> Any:
    """The model that `save` wrote, ready for inference."""
    from transformers import LlamaForCausalLM

    network: Any = LlamaForCausalLM.from_pretrained(str(path), local_files_only=True)
    return network.eval()


def save(model: Any, folder: str | Path) -> None:
    """config.json and model.safetensors: the same weights are the same bytes."""
    model.save_pretrained(str(folder), safe_serialization=True)


def digest_of(model: Any) -> str:
    """`sha256:<hex>` of all weights by name."""
    import hashlib

    sha = hashlib.sha256()
    for name, weights in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(weights.detach().contiguous().numpy().tobytes())
    return "sha256:" + sha.hexdigest()


def parameters(model: Any, *, trainable: bool = False) -> int:
    """How many numbers the model has, or the training changes."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad or not trainable)


def train(model: Any, tokens: list[int], validation: list[int], config: TrainConfig, seed: int) -> Curve:
    """Train `model` in place on random windows of `tokens`."""
    import torch

    stream, held_out = torch.tensor(tokens), torch.tensor(validation)
    context = model.config.max_position_embeddings
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.95))
    points: list[Point] = []
    best: tuple[float, int, dict[str, torch.Tensor]] = (math.inf, 0, {})
    seconds, losses = 0.0, list[float]()
    for step in range(1, config.steps + 1):
        began = time.perf_counter()
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(stream) - context, (config.batch_size,), generator=draw)
        batch = torch.stack([stream[start : start + context] for start in starts.tolist()])
        losses.append(_step(model, batch, optimizer, config.clip_norm))
        seconds += time.perf_counter() - began
        if step % config.evaluate_every == 0 or step == config.steps:
            seen = step * config.batch_size * context
            loss = _mean_loss(model, held_out)
            points.append(Point(step, seen, rate, sum(losses) / len(losses), loss))
            losses.clear()
            _print(points[-1], config.steps, seen / seconds)
            if loss < best[0]:
                best = (loss, step, copy.deepcopy(model.state_dict()))
    model.load_state_dict(best[2])
    model.eval()
    return Curve(points, best[1], config.steps * config.batch_size * context, seconds)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Of the given step, from 1 on."""
    warmup = max(round(config.warmup_share * config.steps), 1)
    if step <= warmup:
        return config.learning_rate * step / warmup
    progress = (step - warmup) / max(config.steps - warmup, 1)
    return config.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; gains do not."""
    trained = [one for one in model.parameters() if one.requires_grad]
    return [
        {"params": [one for one in trained if one.dim() > 1], "weight_decay": weight_decay},
        {"params": [one for one in trained if one.dim() <= 1], "weight_decay": 0.0},
    ]


def _step(model: Any, batch: torch.Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> float:
    import torch

    model.train()
    loss = model(input_ids=batch, labels=batch, use_cache=False).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return float(loss.item())


def _mean_loss(model: Any, tokens: torch.Tensor) -> float:
    """In nats per token, over whole windows one after the other."""
    import torch

    model.eval()
    context = model.config.max_position_embeddings
    windows = tokens[: len(tokens) // context * context].view(-1, context)
    with torch.inference_mode():
        losses = [
            model(input_ids=part, labels=part, use_cache=False).loss * len(part) for part in torch.split(windows, 32)
        ]
    return float(sum(losses)) / len(windows)


def _print(point: Point, steps: int, speed: float) -> None:
    print(
        f"step {point.step:>4}/{steps}  train {point.train_loss:.3f}  validation {point.validation_loss:.3f}  "
        f"rate {point.learning_rate:.1e}  {speed:,.0f} tokens/s",
        flush=True,
    )
