"""Generating text with a model: what it needs and how fast it goes, over the number of sequences at once.

A roofline. Reading the prompt is bound by FLOPs; each further step reads all weights, and the keys and values of every
sequence, so it is bound by memory until there are many sequences. An engine with continuous batching and a paged cache
(vLLM, TensorRT-LLM, SGLang) does both in turn:

    step(B)     = max(bytes(B) / bandwidth, FLOPs(B) / peak) + overhead
    output/s(B) = B x O / (O x step(B) + B x prompt)          O: output tokens of a sequence

Constants are shared by all models and hardware (docs/llm/inference.md has the errors for 60 published rows). It
knows no training.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from michelangelo import errors
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import cost, wire_names
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.prices import Price, PriceTable

__all__ = ["LEVEL", "InferencePlan", "InferenceSetup", "Point", "Precision", "explained", "make", "point", "problems"]

Precision: TypeAlias = Literal["bf16", "fp8", "int4"]
_BYTES: Final = {"bf16": 2.0, "fp8": 1.0, "int4": 0.5 + 4 / 64}
"""Per weight; int4 with a 16-bit scale and zero point per 64 (AWQ, GPTQ)."""
LEVEL: Final = 0.9
_SPREAD: Final = 0.30
"""Half width of the interval of rates at LEVEL, as a natural logarithm, of published rows."""
_USABLE: Final = 0.90
"""Of a GPU's memory (vLLM's gpu_memory_utilization)."""
_WORKSPACE_BYTES: Final = 2 << 30
"""CUDA context, graphs and the activations of a chunk of prompts (8,192 tokens)."""
_DECODE_BANDWIDTH: Final = 0.80
"""Of the memory's rate: 0.77 of it for an 8B model alone on an A100 (llm.md, section 4)."""
_PREFILL: Final = {"bf16": 0.60, "fp8": 0.58, "int4": 0.50}
"""Of the peak, prompts; int4 multiplies in bf16."""
_PREFILL_ATTENTION: Final = 0.35
_DECODE_COMPUTE: Final = 0.45
"""Of the peak, products with some hundred rows."""
_STEP_SECONDS: Final = 0.0015
"""Scheduling, sampling and starting the graph of a step."""
_SEQUENCE_SECONDS: Final = 6e-6
"""Per sequence and step: block tables, sampling, detokenising."""
_HOP_SECONDS: Final = 8e-6
"""Of an all-reduce of few bytes within a node (custom kernels over NVLink)."""
_LINK: Final = 0.6
_KNEE: Final = 1.5
"""Up to the knee, twice as many sequences give at least so many times the rate."""
_LIMITS: Final = {"input_tokens": 1 << 24, "output_tokens": 1 << 20, "tensor_parallel": 64, "max_batch": 1 << 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSetup:
    """One replica of a model, and what it is asked for."""

    input_tokens: int = 1024
    output_tokens: int = 256
    tensor_parallel: int = 1
    """GPUs of a replica."""
    precision: Precision = "bf16"
    """Of the weights."""
    kv_precision: Literal["bf16", "fp8"] = "bf16"
    max_batch: int = 1024
    """Sequences that the engine takes at once (vLLM's max_num_seqs)."""


@dataclass(frozen=True, slots=True)
class Point:
    """With `batch` sequences at once, all the time."""

    batch: int
    output_tokens_per_second: float
    """Of the replica."""
    per_sequence: float
    """Output tokens per second that one user sees."""
    step_seconds: float
    bound: Literal["memory", "compute"]
    """What a step of decoding waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferencePlan:
    """Bytes are per GPU."""

    model: str
    setup: InferenceSetup
    hardware: Hardware
    fits: bool
    weight_bytes: int
    cache_bytes_per_token: float
    """Of one sequence, over all GPUs of the replica."""
    cache_bytes: int
    """What is left for the cache on each GPU; 0 or less: nothing."""
    max_batch: int
    """Sequences of input + output tokens that fit at once."""
    max_context: int
    """Tokens of one sequence that fit alone, bounded by what the model takes."""
    points: tuple[Point, ...]
    knee: int
    """The largest power of two up to which doubling the batch gives at least half as much again."""
    best: Point | None
    """At the largest batch that fits."""
    low: float
    high: float
    """Of the best point's rate, at LEVEL."""
    time_to_first_token: float
    """Seconds, of a prompt that is read alone."""
    price: Price | None
    money_per_million_output: float
    """At the best point; 0 where no price is known."""
    money_per_million_total: float
    """Prompts counted too."""
    currency: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values: dict[str, Any] = wire_names.camel_keys({**asdict(self), "hardware": self.hardware.name})
        return values


def make(
    shape: ModelShape, setup: InferenceSetup, hardware: Hardware, prices: PriceTable, provider: str = ""
) -> InferencePlan:
    """Raises SettingsError that names all that is wrong."""
    if found := problems(shape, setup, hardware):
        raise errors.SettingsError("this cannot be:\n" + "\n".join(f"  {line}" for line in found))
    weights = shape.num_parameters * _BYTES[setup.precision] / setup.tensor_parallel
    room = hardware.memory_bytes * _USABLE - _WORKSPACE_BYTES - weights
    whole = _cache_bytes(shape, setup, setup.input_tokens + setup.output_tokens)
    largest = max(0, min(setup.max_batch, int(room // whole) if whole else setup.max_batch))
    points = tuple(point(shape, setup, hardware, batch) for batch in _batches(largest))
    best = points[-1] if points else None
    price, paid = cost.offer_for(prices, hardware.name, setup.tensor_parallel, provider=provider)
    per_second = price.per_gpu_hour * paid / 3600 if price else 0.0
    rate = best.output_tokens_per_second if best else 0.0
    share = setup.output_tokens / (setup.input_tokens + setup.output_tokens)
    return InferencePlan(
        model=shape.name,
        setup=setup,
        hardware=hardware,
        fits=largest >= 1,
        weight_bytes=round(weights),
        cache_bytes_per_token=_cache_bytes(shape, setup, 1) * setup.tensor_parallel,
        cache_bytes=round(room),
        max_batch=largest,
        max_context=_longest(shape, setup, room),
        points=points,
        knee=_knee(points),
        best=best,
        low=rate / math.exp(_SPREAD),
        high=rate * math.exp(_SPREAD),
        time_to_first_token=_prefill_seconds(shape, setup, hardware) + _STEP_SECONDS,
        price=price,
        money_per_million_output=per_second / rate * 1e6 if rate else 0.0,
        money_per_million_total=per_second / rate * share * 1e6 if rate else 0.0,
        currency=prices.currency,
    )


def point(shape: ModelShape, setup: InferenceSetup, hardware: Hardware, batch: int) -> Point:
    """With `batch` sequences, in the middle of their output on average."""
    context = setup.input_tokens + setup.output_tokens / 2
    moved = _weights_read(shape, setup, batch) + batch * _cache_bytes(shape, setup, context)
    memory = moved / (hardware.bandwidth * _DECODE_BANDWIDTH)
    attention = 4.0 * shape.num_layers * shape.query_size * context
    work = batch * (2.0 * shape.active_matmul_parameters + attention) / setup.tensor_parallel
    compute = work / (_peak(setup, hardware) * _DECODE_COMPUTE)
    step = max(memory, compute) + _STEP_SECONDS + batch * _SEQUENCE_SECONDS + _reductions(shape, setup, hardware, batch)
    whole = setup.output_tokens * step + batch * _prefill_seconds(shape, setup, hardware)
    rate = batch * setup.output_tokens / whole
    return Point(batch, rate, rate / batch, step, "memory" if memory >= compute else "compute")


def explained(shape: ModelShape, plan: InferencePlan) -> list[tuple[str, str, str, str]]:
    """Name, value, formula with its numbers, source."""
    setup, machine = plan.setup, plan.hardware
    element, cached = _BYTES[setup.precision], _BYTES[setup.kv_precision]
    peak = _peak(setup, machine) / 1e12
    made = [
        (
            "weights",
            f"{plan.weight_bytes:,} bytes",
            f"{shape.num_parameters:,} parameters x {element:g} / {setup.tensor_parallel} GPUs",
            "config.json, counted by component",
        ),
        (
            "cache of a token",
            f"{plan.cache_bytes_per_token:,.0f} bytes",
            f"2 x {shape.num_layers} layers x {shape.num_kv_heads} heads x {shape.head_dim} x {cached:g} bytes",
            "Ainslie et al. 2023 (grouped queries), arXiv 2305.13245",
        ),
        (
            "left for the cache",
            f"{plan.cache_bytes:,} bytes",
            f"{_USABLE:.0%} of {machine.memory_bytes:,} - {_WORKSPACE_BYTES:,} - weights",
            "vLLM: gpu_memory_utilization",
        ),
        (
            "first token",
            f"{plan.time_to_first_token * 1000:,.1f} ms",
            f"2 x weights x {setup.input_tokens:,} tokens at {_PREFILL[setup.precision]:.0%} of {peak:,.0f} TFLOP/s"
            f" + attention at {_PREFILL_ATTENTION:.0%} of bf16",
            "roofline: Williams et al. 2009, doi 10.1145/1498765.1498785",
        ),
    ]
    if plan.best is not None:
        read = (
            f"(weights + {plan.best.batch:,} caches) at {_DECODE_BANDWIDTH:.0%} of {machine.bandwidth / 1e9:,.0f} GB/s"
        )
        overhead = f"{_STEP_SECONDS * 1000:g} ms + {_SEQUENCE_SECONDS * 1e6:g} us a sequence"
        formula = f"{read}, or FLOPs at {_DECODE_COMPUTE:.0%} of the peak, + {overhead}"
        made.append(("step", f"{plan.best.step_seconds * 1000:,.1f} ms", formula, "docs/llm/inference.md"))
    return made


def problems(shape: ModelShape, setup: InferenceSetup, hardware: Hardware) -> list[str]:
    """What is wrong, one line each."""
    found = [
        f"{name}: {getattr(setup, name)} must be from 1 to {limit:,}"
        for name, limit in _LIMITS.items()
        if not 1 <= getattr(setup, name) <= limit
    ]
    split, whole = setup.tensor_parallel, setup.input_tokens + setup.output_tokens
    if found:
        return found
    if split > hardware.gpus_per_node:
        found.append(f"tensor_parallel: {split} is more than the {hardware.gpus_per_node} GPUs of a node")
    if shape.num_heads % split:
        found.append(f"tensor_parallel: {split} does not divide the {shape.num_heads} heads of {shape.name}")
    if shape.max_positions and whole > shape.max_positions:
        found.append(f"input_tokens: with the output {whole:,}; {shape.name} takes {shape.max_positions:,}")
    if setup.precision == "fp8" and "fp8" not in hardware.peaks:
        found.append(f"precision: {hardware.name} has no fp8; take bf16 or int4")
    return found


def _peak(setup: InferenceSetup, hardware: Hardware) -> float:
    return hardware.peak("fp8" if setup.precision == "fp8" else "bf16")


def _cache_bytes(shape: ModelShape, setup: InferenceSetup, tokens: float) -> float:
    """Keys and values of one sequence on one GPU; a local layer keeps its window; heads that are fewer than GPUs are
    copied."""
    near = shape.num_sliding_layers if shape.sliding_window else 0
    kept = (shape.num_layers - near) * tokens + near * min(tokens, shape.sliding_window)
    split = min(setup.tensor_parallel, shape.num_kv_heads)
    return 2.0 * shape.kv_size * _BYTES[setup.kv_precision] * kept / split


def _weights_read(shape: ModelShape, setup: InferenceSetup, batch: int) -> float:
    """In one step, on one GPU. Of a mixture's E experts, B tokens that choose k each visit E (1 - (1 - k / E)^B)."""
    element = _BYTES[setup.precision]
    read = float(shape.num_parameters - shape.counts.embedding)
    if shape.tied_embeddings:
        read += shape.vocab_size * shape.hidden_size
    if shape.num_experts:
        experts = sum(p.weights * p.layers * p.copies for p in shape.projections if p.is_fused_expert)
        visited = 1 - (1 - shape.experts_per_token / shape.num_experts) ** batch
        read -= experts * (1 - visited)
    return read * element / setup.tensor_parallel


def _prefill_seconds(shape: ModelShape, setup: InferenceSetup, hardware: Hardware) -> float:
    """Of one prompt; the output matrix is needed for its last token only."""
    tokens = setup.input_tokens
    peak = _peak(setup, hardware) * setup.tensor_parallel
    head = shape.vocab_size * shape.hidden_size
    work = 2.0 * ((shape.active_matmul_parameters - head) * tokens + head)
    attention = 4.0 * shape.num_layers * shape.query_size * tokens * tokens / 2
    bf16 = hardware.peak("bf16") * setup.tensor_parallel
    reduced = tokens * shape.hidden_size * 2.0 * 2 * shape.num_layers
    reductions = 0.0
    if setup.tensor_parallel > 1:
        reductions = 2 * reduced * (1 - 1 / setup.tensor_parallel) / (hardware.link_bandwidth * _LINK)
    return work / (peak * _PREFILL[setup.precision]) + attention / (bf16 * _PREFILL_ATTENTION) + reductions


def _reductions(shape: ModelShape, setup: InferenceSetup, hardware: Hardware, batch: int) -> float:
    split = setup.tensor_parallel
    if split == 1:
        return 0.0
    size = batch * shape.hidden_size * 2.0
    each = _HOP_SECONDS + 2 * size * (split - 1) / split / (hardware.link_bandwidth * _LINK)
    return 2 * shape.num_layers * each


def _batches(largest: int) -> list[int]:
    """Powers of two, and the largest itself."""
    found = [1 << exponent for exponent in range(largest.bit_length()) if 1 << exponent <= largest]
    return found if not found or found[-1] == largest else [*found, largest]


def _knee(points: tuple[Point, ...]) -> int:
    if not points:
        return 0
    rates = {p.batch: p.output_tokens_per_second for p in points}
    worth = [b for b, rate in rates.items() if b // 2 in rates and b % 2 == 0 and rate >= _KNEE * rates[b // 2]]
    return max(worth, default=1)


def _longest(shape: ModelShape, setup: InferenceSetup, room: float) -> int:
    if room <= 0:
        return 0
    bound = shape.max_positions or _LIMITS["input_tokens"]
    low, high = 0, bound
    while low < high:
        middle = (low + high + 1) // 2
        if _cache_bytes(shape, setup, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low
