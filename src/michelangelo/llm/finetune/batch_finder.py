"""The largest batch that fits: tried from the plan's prediction, in a bounded number of tries.

Memory is what a try says, never what is assumed: a batch is found only if it was tried and fitted. It trains nothing
itself: a try is a function, or a few steps in a process of its own, so that what runs out of memory there is gone.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["Found", "Try", "TryBatch", "TrySetup", "candidates", "find", "fit", "max_tries", "step_down", "try_apart"]

TryBatch: TypeAlias = Callable[[int], bool | int]
"""Whether a batch fits; or the bytes that it held at most, 0 if it did not fit (bytes make the next guess better)."""
TrySetup: TypeAlias = Callable[[str, TrainingSetup], bool | int]
"""The same of a model and a setup."""
_SPARE_TRIES: Final = 4
"""More than bisection needs at worst: what guesses near the prediction may cost where the prediction is wrong."""
_FIRST_STRIDE: Final = 0.06
"""The first step away from the prediction, as a share of it: the width of the plan's interval for activations."""
_TRIER: Final = "michelangelo.llm.bench.trying"
"""Run as a program, not imported: what is measured is measured with all of the trainer."""


@dataclass(frozen=True, slots=True)
class Try:
    """One batch that was tried."""

    batch: int
    fits: bool
    peak_bytes: int = 0
    """0: not said."""


@dataclass(frozen=True, slots=True)
class Found:
    """`batch` is the largest that was tried and fitted; 0: none did."""

    batch: int
    tries: tuple[Try, ...]
    is_exact: bool
    """The next larger one (with `precision`: one hardly larger) was tried and did not fit, or the limit is reached."""


def max_tries(limit: int) -> int:
    """An upper bound on the tries of `find`: bisection's, and four."""
    return limit.bit_length() + _SPARE_TRIES


def find(try_batch: TryBatch, *, predicted: int, limit: int, capacity_bytes: int = 0, precision: float = 0.0) -> Found:
    """The largest batch in 1 … limit, in at most `max_tries(limit)` tries, few where the prediction is near.

    It starts at the prediction and steps away from it, at first a little, then twice as far each time; each guess keeps
    enough tries for bisection of what is left. With `capacity_bytes` and tries that say bytes, the guess is where the
    line through two tries meets the capacity. `precision`: ends as soon as a batch that is larger by no more than that
    share did not fit. Where memory is not monotone (fragmentation), the batch is one that fitted, and may not be the
    largest. Raises ValueError for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit {limit}: a batch has at least one row")
    fits, fails = 0, limit + 1
    left = max_tries(limit)
    tries: list[Try] = []
    guess = min(max(predicted, 1), limit)
    stride = max(1, round(_FIRST_STRIDE * guess))
    if precision:
        stride = max(1, min(stride, int(precision * guess)))
    while fails - fits > 1 and not (fits and fails <= limit and fails - fits <= precision * fits):
        reach = 1 << (left - 1)  # as many answers as the tries after this one can tell apart
        guess = min(max(guess, fails - reach, fits + 1), fits + reach, fails - 1)
        tried = _tried(try_batch, guess)
        tries.append(tried)
        left -= 1
        if tried.fits:
            fits = guess
        else:
            fails = guess
        guess = _next_guess(tries, (fits, fails), capacity_bytes, stride)
        stride *= 2
    return Found(fits, tuple(tries), fails - fits <= 1 or (fits > 0 and fails <= limit))


def candidates(config: FinetuneConfig) -> tuple[int, ...]:
    """Micro batches that divide the sequences of a step, ascending: with them a step stays what it is."""
    total = config.training.micro_batch * config.training.gradient_accumulation
    return tuple(n for n in range(1, total + 1) if total % n == 0)


def fit(
    config: FinetuneConfig, setup: TrainingSetup, *, predicted: int, try_setup: TrySetup | None = None
) -> FinetuneConfig:
    """The largest micro batch that fits, with gradient_accumulation such that a step has as many sequences as before.

    `setup` is the configuration as the planner sees it, `predicted` the plan's largest micro batch. A try is some steps
    on random weights in a process of its own (`try_apart`) unless `try_setup` is another. With several workers nothing
    is tried: one process cannot say what they need, so the plan decides. Raises DeviceMemoryError if no row fits.
    """
    sizes = candidates(config)
    start = max(sum(size <= predicted for size in sizes), 1)
    if config.parallel.num_workers > 1:
        return _with_micro_batch(config, sizes[start - 1])
    attempt = try_setup or (lambda model, tried: try_apart(model, tried, device=config.training.device))

    def try_size(position: int) -> bool | int:
        micro = sizes[position - 1]
        total = sizes[-1]
        return attempt(
            config.model.path, setup.replace(micro_batch=micro, gradient_accumulation=min(2, total // micro))
        )

    found = find(try_size, predicted=start, limit=len(sizes))
    if not found.batch:
        raise errors.DeviceMemoryError(
            f"{config.model.path}: one sequence of {config.data.sequence_length} tokens does not fit into the "
            f"memory of the device (the plan's largest micro batch is {predicted}); use shorter sequences, "
            "training.checkpointing: full, parallel.offload: optimizer, or adapter.method: lora or qlora"
        )
    return _with_micro_batch(config, sizes[found.batch - 1])


def step_down(config: FinetuneConfig) -> FinetuneConfig | None:
    """What a run takes once after it ran out of memory: the next smaller micro batch, as many sequences in a step.
    None: there is none."""
    smaller = [size for size in candidates(config) if size < config.training.micro_batch]
    return _with_micro_batch(config, smaller[-1]) if smaller else None


def try_apart(model: str, setup: TrainingSetup, *, device: str = "auto", memory_cap_bytes: int = 0) -> bool | int:
    """Two steps in a process of its own: the bytes that they held, 0 if they did not fit.

    Raises LlmError with what the process said where it ended otherwise."""
    request: dict[str, Any] = {
        "model": str(Path(model).absolute()) if Path(model).exists() else model,
        "setup": setup.to_dict(),
        "device": device,
        "memory_cap_bytes": memory_cap_bytes,
        "steps": 1,
        "warm_up": 1,
    }
    done = subprocess.run(
        [sys.executable, "-m", _TRIER], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as e:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise errors.LlmError(f"trying a batch of {setup.micro_batch} ended with {done.returncode}: {said[0]}") from e
    if "error" in answer:
        raise errors.LlmError(f"trying a batch of {setup.micro_batch} failed: {answer['error']}")
    return 0 if answer["out_of_memory"] else int(answer["reserved_bytes"] or answer["allocated_bytes"] or 1)


def _tried(try_batch: TryBatch, batch: int) -> Try:
    answer = try_batch(batch)
    peak = 0 if isinstance(answer, bool) else int(answer)
    return Try(batch, bool(answer), peak)


def _next_guess(tries: Sequence[Try], bracket: tuple[int, int], capacity_bytes: int, stride: int) -> int:
    fits, fails = bracket
    straight = _on_the_line(tries, capacity_bytes)
    if straight is not None:
        return straight
    if tries[-1].fits and all(tried.fits for tried in tries):
        return fits + stride
    if not any(tried.fits for tried in tries):
        return fails - stride
    return (fits + fails) // 2


def _on_the_line(tries: Sequence[Try], capacity_bytes: int) -> int | None:
    """Where memory, linear in the batch, meets the capacity; None where two tries do not say it."""
    said = sorted((t.batch, t.peak_bytes) for t in tries if t.fits and t.peak_bytes)
    if not capacity_bytes or len(said) < 2:
        return None
    (low, low_bytes), (high, high_bytes) = said[-2], said[-1]
    slope = (high_bytes - low_bytes) / (high - low)
    if slope <= 0:
        return None
    return high + math.floor((capacity_bytes - high_bytes) / slope)


def _with_micro_batch(config: FinetuneConfig, micro_batch: int) -> FinetuneConfig:
    total = config.training.micro_batch * config.training.gradient_accumulation
    changes = {"micro_batch": micro_batch, "gradient_accumulation": total // micro_batch}
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})
