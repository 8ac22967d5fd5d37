"""Seconds of a training step, by phase, before it runs: rooflines of matrix products, attention and memory traffic, the
optimizer, offload and communication. Closed forms, no torch.

    pass   = max(compute, launches of the host), beside communication that it hides in part
    step   = passes x pass + optimizer + what happens once a step
    rate   = tokens of a step / step

Constants are in `kernels` (shares of a peak), volumes in `traffic` (memory) and `communication`; FLOPs by convention in
`mfu.flops`. It knows no prices and chooses nothing; docs/llm/plan.md says how well it predicts published rows.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

from michelangelo.llm.mfu import flops
from michelangelo.llm.model_shape import ModelShape
from michelangelo.llm.planner import activations, communication, kernels, parameters, traffic
from michelangelo.llm.planner.hardware import Hardware
from michelangelo.llm.planner.kernels import Rates, Stack
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["LEVEL", "Phase", "Throughput", "estimate", "spread_of"]

LEVEL: Final = 0.9
"""Share of runs that are meant to lie within the interval."""
_USUAL_WATTS_PER_TERAFLOP: Final = {
    "ampere": 400 / 312,
    "hopper": 700 / 989.4,
    "ada": 350 / 362,
    "blackwell": 1000 / 2250,
    "cdna3": 750 / 1307.4,
}
"""Of each family's part with the highest power: a card with less lowers its clock under such work."""
_BACKWARD_ATTENTION: Final = 2.5
"""FLOPs of flash attention's backward pass, relative to forward: five products instead of two (arXiv 2307.08691)."""
_EAGER_ATTENTION: Final = 0.5
"""Batched products of S x S scores, relative to large ones."""
_LORA_SHARE: Final = 0.25
"""Of the peak, products with one side as long as a rank."""
_OPTIMIZER_BYTES: Final = {"adamw": 7.0, "adamw_8bit": 3.0, "paged_adamw_8bit": 3.0, "sgd": 5.0}
"""Values of the optimizer's dtype that a step reads and writes per parameter (AdamW: weight, two moments, gradient)."""
_CLIP_BYTES: Final = 12.0
"""Norm of the gradients (read), and scaling (read, write), in fp32."""
_SPREAD: Final = 0.14
_SPREAD_MORE: Final = {
    "eager": 0.04,
    "offload": 0.20,
    "mixture": 0.20,
    "nodes": 0.04,
    "tensor": 0.08,
    "unseen": 0.12,
    "small": 0.08,
}
"""Half widths at LEVEL, as natural logarithms of a ratio, added as independent errors: of published rows (the first),
and more where none or few were there to check."""
_SEEN: Final = ("ampere", "hopper")


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a step. What runs beside another part counts only as far as it adds to the step."""

    name: str
    seconds: float
    flops: float = 0.0
    """Of this part in a step, on one GPU."""
    bytes: float = 0.0
    """Moved in this part, on one GPU: through memory, a link or the network."""
    rate: float = 0.0
    """FLOP/s or bytes/s that it was taken to run at."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of one setup on one kind of hardware. Rates are of positions, padding included."""

    phases: tuple[Phase, ...]
    seconds_per_step: float
    tokens_per_step: int
    """Of all GPUs; both answers of a preference pair count."""
    tokens_per_second: float
    """Of all GPUs."""
    tokens_per_second_per_gpu: float
    low: float
    high: float
    """Of tokens_per_second_per_gpu, at `level`."""
    mfu: float
    """By the headline convention, of the peak of the precision that weights are multiplied in."""
    hfu: float
    flops_per_token: float
    peak_flops: float
    """Of one GPU."""
    stack: str
    level: float = LEVEL

    def phase(self, name: str) -> float:
        """Seconds of a part; 0 if there is none of that name."""
        return sum(phase.seconds for phase in self.phases if phase.name == name)


def estimate(
    shape: ModelShape,
    setup: TrainingSetup,
    hardware: Hardware,
    *,
    stack: Stack | None = None,
    rates: Rates = kernels.RATES,
    time_factor: float = 1.0,
) -> Throughput:
    """`stack`: the software, by default our trainer as the setup has it; `time_factor`: what calibration says that
    steps take longer (above 1) or shorter. Raises ModelError for unknown lora_targets."""
    used = stack or kernels.stack_for(setup)
    work = _Work(shape, setup, hardware, used, rates)
    one_pass = work.compute()
    compute = sum(phase.seconds for phase in one_pass)
    launches = work.launch_seconds()
    volumes = work.volumes()
    passes = setup.gradient_accumulation
    exposed = _beside(max(compute, launches), volumes.per_pass, rates.exposed)
    phases = [_times(phase, passes) for phase in one_pass]
    phases.append(Phase("launches", passes * max(0.0, launches - compute)))
    phases.append(Phase("communication", passes * exposed + work.step_communication(volumes, compute)))
    phases.append(Phase("tensor_parallel", passes * volumes.tensor * rates.exposed_tensor))
    phases += work.once(compute * passes)
    phases = [Phase(p.name, p.seconds * time_factor, p.flops, p.bytes, p.rate) for p in phases if p.seconds > 0]
    return _throughput(work, tuple(phases))


def spread_of(shape: ModelShape, setup: TrainingSetup, hardware: Hardware) -> float:
    """Half width of the interval at LEVEL, as the natural logarithm of a ratio."""
    more = {
        "eager": setup.attention == "eager",
        "offload": setup.offload != "none" or setup.activation_offload,
        "mixture": shape.num_experts > 0,
        "nodes": setup.num_nodes > 1,
        "tensor": setup.tensor_parallel > 1,
        "unseen": hardware.family not in _SEEN,
        "small": setup.micro_batch * setup.sequence_length < 4096 or shape.hidden_size < 1024,
    }
    return math.sqrt(_SPREAD**2 + sum(_SPREAD_MORE[name] ** 2 for name, holds in more.items() if holds))


class _Work:
    """The parts of one step on one GPU."""

    def __init__(self, shape: ModelShape, setup: TrainingSetup, hardware: Hardware, stack: Stack, rates: Rates) -> None:
        self.shape, self.setup, self.hardware, self.stack, self.rates = shape, setup, hardware, stack, rates
        self.split = setup.tensor_parallel
        self.answers = 2 if setup.objective == "dpo" else 1
        self.tokens = setup.micro_batch * setup.sequence_length * self.answers
        self.element = 4 if setup.precision == "fp32" else 2
        self.flops = flops.per_token(shape, sequence_length=setup.sequence_length, setup=setup)
        self.peak = hardware.training_peak(setup.precision)
        self.bandwidth = hardware.bandwidth * rates.traffic
        self.fusion = stack.fusion if hardware.family != "cpu" else "eager"
        self.again = _computed_again(shape, setup.checkpointing)
        self.states = _sizes(shape, setup.method, setup.lora_rank, setup.lora_targets, self.split, self.element)

    def compute(self) -> list[Phase]:
        """Of one forward and backward pass."""
        return [
            self._matmul(),
            self._head(),
            *self._attention(),
            self._elementwise(),
            self._logits(),
            *self._adapters(),
        ]

    def _matmul(self) -> Phase:
        """2 FLOPs per weight and pass: forward, of inputs, and of weights that are trained; what is computed again."""
        head = self._head_forward()
        forward = (self.flops.matmul_forward - head) / self.split
        passes = (2 if self.flops.is_adapter else 3) + self.again
        work = forward * passes * self.tokens
        layers = _layer_traffic(self.shape, self.split)
        moved = passes * self.element * (self.tokens * layers[0] + layers[1])
        rate = self._matmul_rate(fp8=self.stack.fp8)
        if self.shape.num_experts:
            rate *= self.rates.grouped
        waves = self.tokens * layers[2] / (128 * 128 * self.hardware.multiprocessors)
        seconds = work / rate * (1 + self.rates.wave / max(waves, 0.05))
        seconds += self.rates.matmul_traffic * moved / self.hardware.bandwidth
        return Phase("matmul", seconds, work, moved, rate)

    def _head(self) -> Phase:
        """The output matrix is never computed again and stays in bf16; chunked cross-entropy computes it once too."""
        passes = 2 if self.flops.is_adapter else 3
        work = self._head_forward() * passes * self.tokens / self.split
        rate = self._matmul_rate(fp8=False)
        return Phase("output_matrix", work / rate, work, 0.0, rate)

    def _attention(self) -> list[Phase]:
        forward = self.flops.attention_forward / self.split * self.tokens
        again = 1.0 if self.setup.checkpointing == "full" else 0.0
        if self.setup.attention == "eager":
            full = self.flops.attention_forward_full / self.split * self.tokens * (3 + again)
            rate = self._matmul_rate(fp8=False) * _EAGER_ATTENTION
            moved = traffic.eager_scores_bytes(self.shape, self.setup.sequence_length) * self.tokens / self.split
            moved *= (3 + again) / 3
            return [
                Phase("attention", full / rate, full, 0.0, rate),
                Phase("attention_scores", moved / self.bandwidth, 0.0, moved, self.bandwidth),
            ]
        share = kernels.attention_share(self.stack.attention, self.hardware, self.rates)
        length = self.setup.sequence_length
        rate = self.peak * share * self._power() * length / (length + self.rates.attention_ramp)
        if self.shape.head_dim < 128:
            rate *= self.rates.narrow_heads
        work = forward * (1 + again + _BACKWARD_ATTENTION)
        seconds = forward * (1 + again + _BACKWARD_ATTENTION / self.rates.attention_backward) / rate
        return [Phase("attention", seconds, work, 0.0, rate)]

    def _elementwise(self) -> Phase:
        moved = traffic.of_pass(self.shape, self.fusion, self.setup.cross_entropy == "chunked", self.split)
        again = 0.0 if self.setup.checkpointing == "none" else 1.0
        size = (moved.forward * (1 + again) + moved.backward) * self.tokens * self.element / 2
        return Phase("elementwise", size / self.bandwidth, 0.0, size, self.bandwidth)

    def _logits(self) -> Phase:
        moved = traffic.of_pass(self.shape, self.fusion, self.setup.cross_entropy == "chunked", self.split)
        size = moved.logits * self.tokens
        return Phase("logits", size / self.bandwidth, 0.0, size, self.bandwidth)

    def _adapters(self) -> list[Phase]:
        if self.setup.method == "full":
            return []
        again = {"none": 0.0, "selective": 0.5, "full": 1.0}[self.setup.checkpointing] / 3
        size = traffic.lora_bytes(self.shape, self.setup.lora_rank, self.setup.lora_targets, self.stack.adapters)
        size *= self.tokens / self.split * (1 + again)
        work = 3 * self.flops.lora_forward * self.tokens / self.split
        made = [Phase("adapters", size / self.bandwidth + work / (self.peak * _LORA_SHARE), work, size, self.bandwidth)]
        if self.setup.method == "qlora":
            # Read packed, written in bf16, once per product with the weights.
            passes = 2 + self.again
            unpacked = passes * self.states.quantized * (parameters.nf4_bytes_per_weight(True) + 2.0)
            rate = self.hardware.bandwidth * self.rates.dequantize_traffic
            made.append(Phase("dequantize", unpacked / rate, 0.0, unpacked, rate))
        return made

    def launch_seconds(self) -> float:
        """What the host needs to start all kernels of a pass."""
        adapted = self.setup.method != "full" and self.stack.adapters == "eager"
        per_layer = traffic.kernels_per_layer(self.shape, self.fusion, adapted=adapted)
        again = 4 / 3 if self.setup.checkpointing != "none" else 1.0
        return per_layer * self.shape.num_layers * again * self.rates.launch_seconds

    def volumes(self) -> communication.Volumes:
        reductions = 6 if self.setup.checkpointing == "full" else 4
        residual = self.tokens * self.shape.hidden_size * self.element * reductions * self.shape.num_layers
        return communication.per_pass(
            self.setup,
            self.hardware,
            self.rates,
            weights=self.states.weight_bytes,
            trained=self.states.trained,
            activation=residual if self.split > 1 else 0.0,
        )

    def step_communication(self, volumes: communication.Volumes, compute: float) -> float:
        """What happens once hides behind the last backward pass, two thirds of a pass, if it can."""
        return _beside(compute * 2 / 3, volumes.per_step, self.rates.exposed)

    def once(self, compute: float) -> list[Phase]:
        """The optimizer, sums of gradients, transfers to the host."""
        setup, states = self.setup, self.states
        stepped = states.trained / (setup.data_parallel if setup.sharding != "none" else 1)
        kept = states.trained / (setup.data_parallel if setup.sharding in ("zero2", "zero3", "fsdp2") else 1)
        wide = 2.0 if setup.precision == "bf16" else 4.0
        size = stepped * (_OPTIMIZER_BYTES[setup.optimizer] * wide + (2.0 if setup.precision == "bf16_mixed" else 0.0))
        size += kept * _CLIP_BYTES * (0.0 if setup.optimizer_in_backward else wide / 4)
        if setup.gradient_accumulation > 1:
            size += kept * (self.element + 8.0) * setup.gradient_accumulation
        rate = self.hardware.bandwidth * self.rates.optimizer_traffic
        made = [Phase("step", self.rates.step_seconds)]
        if setup.offload == "none":
            made.append(Phase("optimizer", size / rate, 0.0, size, rate))
        else:
            made += self._offload(stepped, kept, wide)
        if setup.activation_offload:
            made.append(self._activation_offload(compute))
        return made

    def _offload(self, stepped: float, kept: float, wide: float) -> list[Phase]:
        """Gradients go out, weights come back, over PCIe; Adam runs on the host: 28 bytes a parameter, of a node."""
        setup, link = self.setup, self.hardware.host_link_bandwidth
        out = kept * wide * (setup.gradient_accumulation if setup.sharding == "fsdp2" else 1)
        moved = out + stepped * self.element
        if setup.offload == "parameters":
            moved += 2 * setup.gradient_accumulation * self.states.weight_bytes / setup.data_parallel
        local = min(setup.gpus_per_node, setup.num_gpus)
        host = stepped * _OPTIMIZER_BYTES["adamw"] * 4.0 * local
        rate = self.hardware.host_bandwidth * self.rates.host_traffic
        return [
            Phase("offload_transfers", moved / link, 0.0, moved, link),
            Phase("host_optimizer", host / rate, 0.0, host, rate),
        ]

    def _activation_offload(self, compute: float) -> Phase:
        """Out in the forward, in again in the backward pass, beside the computation."""
        kept = activations.kept_by_layers(self.shape, self.setup).total * self.tokens
        moved = 2 * kept * self.setup.gradient_accumulation
        link = self.hardware.host_link_bandwidth
        return Phase("activation_offload", _beside(compute, moved / link, self.rates.exposed / 3), 0.0, moved, link)

    def _head_forward(self) -> float:
        reference = 4 / 3 if self.setup.asks_reference else 1.0
        return 2.0 * self.shape.vocab_size * self.shape.hidden_size * reference

    def _matmul_rate(self, *, fp8: bool) -> float:
        share = self.rates.matmul[self.hardware.family] * self._power()
        if fp8 and "fp8" in self.hardware.peaks:
            return self.hardware.peaks["fp8"] * share * self.rates.matmul_fp8
        return self.peak * share

    def _power(self) -> float:
        usual = _USUAL_WATTS_PER_TERAFLOP.get(self.hardware.family)
        if usual is None:
            return 1.0
        here = self.hardware.tdp_watts / (self.hardware.peak("bf16") / 1e12)
        return float(min(1.0, here / usual) ** self.rates.power)


def _beside(compute: float, other: float, exposed: float) -> float:
    """What `other` adds to `compute` that it runs beside."""
    return max(0.0, other - compute) + exposed * min(compute, other)


def _times(phase: Phase, passes: int) -> Phase:
    return Phase(phase.name, phase.seconds * passes, phase.flops * passes, phase.bytes * passes, phase.rate)


@functools.lru_cache(maxsize=512)
def _computed_again(shape: ModelShape, checkpointing: str) -> float:
    """Share of a layer's forward matrix products. Full checkpointing computes a layer up to the last value that its
    backward pass needs, which is not the output of its last product (torch.utils.checkpoint's early stop); selective
    keeps every second product (as in mfu.flops)."""
    if checkpointing == "none":
        return 0.0
    if checkpointing == "selective":
        return 0.5
    work = [p.weights * p.layers * p.active for p in shape.projections]
    last = sum(
        w for w, p in zip(work, shape.projections, strict=True) if p.kind == "mlp" and p.outputs == shape.hidden_size
    )
    return 1.0 - last / sum(work)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """On one tensor-parallel rank, before sharding: parameters that are trained and quantised, bytes of all weights."""

    trained: float
    quantized: float
    weight_bytes: float


@functools.lru_cache(maxsize=512)
def _sizes(shape: ModelShape, method: str, rank: int, targets: tuple[str, ...], split: int, element: int) -> _Sizes:
    total = shape.num_parameters / split
    if method == "full":
        return _Sizes(total, 0.0, total * element)
    adapters = shape.lora_parameters(rank, targets) / split
    quantized = 0.0
    if method == "qlora":
        quantized = sum(p.weights * p.layers * p.copies for p in shape.projections if p.kind != "router") / split
    plain = total - quantized + adapters
    return _Sizes(adapters, quantized, plain * element + quantized * parameters.nf4_bytes_per_weight(True))


@functools.lru_cache(maxsize=512)
def _layer_traffic(shape: ModelShape, split: int) -> tuple[float, float, float]:
    """Values in and out per token of all products, their weights, and the typical width of an output."""
    values = sum((p.inputs + p.outputs) * p.layers * p.active for p in shape.projections)
    weights = sum(p.weights * p.layers * p.copies for p in shape.projections)
    weighted = sum(p.weights * p.layers * p.active for p in shape.projections)
    width = weighted / sum(p.weights / p.outputs * p.layers * p.active for p in shape.projections)
    return values / split, weights / split, width / split


def _throughput(work: _Work, phases: tuple[Phase, ...]) -> Throughput:
    setup = work.setup
    seconds = sum(phase.seconds for phase in phases)
    tokens = setup.tokens_per_step * work.answers
    rate = tokens / seconds
    per_gpu = rate / setup.num_gpus
    peak = work.peak
    factor = math.exp(spread_of(work.shape, setup, work.hardware))
    return Throughput(
        phases=phases,
        seconds_per_step=seconds,
        tokens_per_step=tokens,
        tokens_per_second=rate,
        tokens_per_second_per_gpu=per_gpu,
        low=per_gpu / factor,
        high=per_gpu * factor,
        mfu=per_gpu * work.flops.by(flops.HEADLINE) / peak,
        hfu=per_gpu * work.flops.hardware / peak,
        flops_per_token=work.flops.by(flops.HEADLINE),
        peak_flops=peak,
        stack=work.stack.name,
    )
